"""Everything a plugin may import from zoo.

Imports nothing but the standard library and pluggy, so that a plugin's entry module stays light:
`zoo --help` and `zoo pretrain NAME --help` never load torch.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

import pluggy

from zoo.errors import DataError, DataUnavailable, Unfit, UnknownField, ZooError
from zoo.errors import did_you_mean as _did_you_mean
from zoo.machine import MOST_THREADS as _MOST_THREADS

if TYPE_CHECKING:
    from torch import Tensor, nn

    from zoo.progress import Task

T = TypeVar("T")

__all__ = [
    "API_VERSION",
    "Backbone",
    "BackboneSpec",
    "Component",
    "DataError",
    "DataUnavailable",
    "Dataset",
    "DatasetSpec",
    "Examples",
    "FinetuneConfig",
    "HeadSpec",
    "ImageInput",
    "Losses",
    "NoConfig",
    "Objective",
    "ObjectiveSpec",
    "Preprocessing",
    "PretrainConfig",
    "RecipeSpec",
    "SelfTrainConfig",
    "Teacher",
    "TrainConfig",
    "Unfit",
    "ZooError",
    "data_root",
    "gather",
    "hookimpl",
    "knob",
    "note",
    "progress",
    "read_picture",
    "teacher",
]

API_VERSION = "1.3"
"""The version of what a plugin may use. A field or a function more is a new minor version, and
plugins written before go on working; a major version may take something away.

A plugin says what it was written for by a constant of its entry module, `ZOO_API = "1.0"`: an
older zoo then skips it and names the version that it needs.
"""

hookimpl = pluggy.HookimplMarker("zoo")
"""Mark a module-level function of a plugin as one of the hooks in `zoo.hookspecs`."""


def _strict(cls: type[T]) -> type[T]:
    """Tell unknown fields of a dataclass together with the version that does not know them."""
    declared: Any = cls.__init__

    @functools.wraps(declared)
    def __init__(self: Any, *args: Any, **fields: Any) -> None:
        for name in fields:
            if name not in cls.__dataclass_fields__:  # type: ignore[attr-defined]
                hint = _did_you_mean(name, cls.__dataclass_fields__).rstrip("?")  # type: ignore[attr-defined]
                hint = f" ({hint.strip()}?)" if hint else ""
                raise UnknownField(
                    f"{cls.__name__} has no field '{name}' in zoo.api {API_VERSION}{hint}"
                )
        declared(self, *args, **fields)

    cls.__init__ = __init__  # type: ignore[method-assign]
    return cls


def knob(
    default: Any = dataclasses.MISSING,
    help: str = "",
    *,
    low: float | None = None,
    high: float | None = None,
) -> Any:
    """Declare one option of a config dataclass; without a default it is required.

    `low` and `high` are inclusive; for a tuple they bound each element. The field's annotation is
    int, float, bool, str, Literal["a", ...], tuple[int, ...] or one of these `| None`.
    """
    metadata = {"help": help, "low": low, "high": high}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoConfig:
    """The config of a component without options."""


# --- data -----------------------------------------------------------------------------------


@_strict
@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageInput:
    """Describe images as a data set stores them: uint8, N x C x H x W, the full 0..255 scale."""

    channels: int
    height: int
    width: int

    @property
    def shape(self) -> tuple[int, int, int]:
        return (self.channels, self.height, self.width)

    def __str__(self) -> str:
        return f"{self.channels}×{self.height}×{self.width}"


@_strict
@dataclasses.dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """Say what a backbone wants: 0..1, then resized, channels mapped, `(x - mean) / std`.

    `mean` and `std` hold one value or one a channel. `size` (height, width) and `channels` (1 or
    3) are those of the input that the backbone was built for unless they are given. The default
    maps bytes to -1..1. Resizing is bilinear with antialias; 1 to 3 channels repeats, 3 to 1 is
    luma (ITU-R BT.601).
    """

    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.5,)
    size: tuple[int, int] | None = None
    channels: int | None = None


@_strict
@dataclasses.dataclass(frozen=True, kw_only=True)
class Examples:
    """Hold examples: `inputs` uint8, N first; `labels` int64, N, or None.

    `names` says what each is called where it came from, a file's name say, for messages: N texts,
    or None. They may be made as they are asked for. `contents`, uint8 N x bytes, or None, are what
    each is known again by at whatever size it is stored: the SHA-256 of its file, say.
    """

    inputs: Tensor
    labels: Tensor | None = None
    names: Sequence[str] | None = None
    contents: Tensor | None = None

    def __len__(self) -> int:
        return len(self.inputs)


@_strict
@dataclasses.dataclass(frozen=True, kw_only=True)
class Dataset:
    """Describe a data set before any of it is read; each split is a call that loads it.

    `classes` are the class names in the order of the labels. Pretraining reads `train` without
    its labels, and `unlabelled`; only evaluation and the proof of an export measure on `test`, and
    training digests it, so that they know what was trained on.
    """

    input: ImageInput
    classes: tuple[str, ...]
    train: Callable[[], Examples]
    test: Callable[[], Examples] | None = None
    unlabelled: Callable[[], Examples] | None = None


# --- models ---------------------------------------------------------------------------------


class Backbone(Protocol):
    """An `nn.Module` with these attributes; `preprocessing` may be absent (then -1..1).

    encoder: preprocessed inputs, float32 N x C x H x W -> N x features.
    decoder: N x features -> the shape of the preprocessed input, or None where there is none.
    """

    encoder: nn.Module
    decoder: nn.Module | None
    features: int

    @property
    def preprocessing(self) -> Preprocessing: ...


class Losses:
    """What a module returns in training: `total` is minimized, `parts` are logged.

    `total` is a scalar tensor with a gradient; the parts are detached scalars.
    """

    __slots__ = ("parts", "total")

    def __init__(self, total: Tensor, **parts: Tensor) -> None:
        self.total = total
        self.parts = {name: part.detach() for name, part in parts.items()}


class Objective(Protocol):
    """An `nn.Module` that turns a backbone and a batch into losses; it never sees a label.

    `inputs` are preprocessed (float32, N x C x H x W), `raw` the bytes they came from (uint8, as
    the data set stores them). It keeps no reference to the backbone. Where its decoder takes
    something else than the features, an optional method `codes(backbone, inputs)` says what.
    """

    def __call__(self, backbone: Backbone, inputs: Tensor, raw: Tensor) -> Losses: ...


class Teacher(Protocol):
    """A trained model to learn from; it is no `nn.Module`, so that nobody trains or saves it.

    `kind` says what it answers, `width` how many numbers an input; `input` is what it takes.
    """

    kind: Literal["logits", "features"]
    width: int
    input: ImageInput

    def __call__(self, raw: Tensor) -> Tensor:
        """Answer raw bytes, uint8 N x C x H x W, by float32 N x width without a gradient.

        The answer lies where `raw` does. Raises `Unfit` where `raw` is not like `input`.
        """
        ...


# --- specs ----------------------------------------------------------------------------------


@_strict
@dataclasses.dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """Contribute a data set: `build(config, root)` describes it; `root` is the data folder."""

    name: str
    summary: str
    build: Callable[[Any, Path], Dataset]
    config: type = NoConfig


@_strict
@dataclasses.dataclass(frozen=True, kw_only=True)
class BackboneSpec:
    """Contribute a backbone: `build(config, input)` returns an `nn.Module` like `Backbone`.

    `inputs` are the sizes that it is checked on.
    """

    name: str
    summary: str
    build: Callable[[Any, ImageInput], nn.Module]
    config: type = NoConfig
    inputs: tuple[ImageInput, ...] = (
        ImageInput(channels=1, height=8, width=8),
        ImageInput(channels=1, height=28, width=28),
        ImageInput(channels=3, height=32, width=32),
        ImageInput(channels=3, height=33, width=47),
    )


@_strict
@dataclasses.dataclass(frozen=True, kw_only=True)
class ObjectiveSpec:
    """Contribute an unsupervised loss: `build(config, backbone)` returns an `nn.Module`.

    `watch` names the part that should fall in training: `total`, or one of the parts.
    """

    name: str
    summary: str
    build: Callable[[Any, Backbone], nn.Module]
    config: type = NoConfig
    needs_decoder: bool = False
    watch: str = "total"


@_strict
@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadSpec:
    """Contribute a head: `build(config, features, classes)`: N x features -> N x classes logits."""

    name: str
    summary: str
    build: Callable[[Any, int, int], nn.Module]
    config: type = NoConfig


@dataclasses.dataclass(frozen=True, init=False)
class Component:
    """Name a registered component and the options it is built with."""

    name: str
    options: Mapping[str, Any]

    def __init__(self, name: str, /, **options: Any) -> None:
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "options", options)


@_strict
@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How a module is trained; the fields are options of every training verb."""

    epochs: int = knob(10, "passes over the training examples", low=0)
    batch_size: int = knob(128, "examples a step, of all processes together", low=1)
    accumulate: int = knob(1, "batches whose gradients are averaged for one step", low=1)
    optimizer: Literal["sgd", "adam", "adamw"] = knob("adamw", "update rule")
    lr: float = knob(1e-3, "learning rate, the largest one of the schedule", low=0.0)
    momentum: float = knob(0.9, "momentum of sgd", low=0.0, high=1.0)
    nesterov: bool = knob(False, "look ahead along sgd's momentum (Nesterov)")
    weight_decay: float = knob(0.01, "decay of weights; biases and norms are spared", low=0.0)
    schedule: Literal["constant", "cosine", "one-cycle"] = knob(
        "one-cycle", "learning rate over the run"
    )
    warmup: float = knob(
        0.0,
        "epochs in which the rate rises first; one-cycle has a warm-up of its own",
        low=0.0,
    )
    clip_norm: float | None = knob(
        None, "largest norm of a step's gradient, scaled down to it; none: as it is", low=1e-9
    )
    ema: float = knob(
        0.0,
        "decay of the weights' exponential moving average, which is what is validated and saved;"
        " 0: no average",
        low=0.0,
        high=0.999999,
    )
    patience: int | None = knob(
        None, "epochs without a better validation figure until training stops; none: never", low=1
    )
    keep: Literal["last", "best"] = knob(
        "last", "weights that are saved: the last epoch's, or those best on validation"
    )
    shift: int = knob(0, "shift by up to so many pixels, each axis", low=0)
    flip: bool = knob(False, "mirror half of the examples left to right")
    rotate: float = knob(0.0, "turn by up to so many degrees", low=0.0, high=180.0)
    zoom: float = knob(
        0.0, "change the size by up to this share; 0.1: 0.9 to 1.1", low=0.0, high=0.9
    )
    shear: float = knob(0.0, "shear by up to so many degrees", low=0.0, high=80.0)
    jitter: float = knob(
        0.0, "change contrast and brightness by up to this share, each", low=0.0, high=1.0
    )
    noise: float = knob(
        0.0, "deviation of noise that is added to each pixel; white is 1", low=0.0, high=1.0
    )
    erase: float = knob(
        0.0, "probability that a random rectangle is filled with noise", low=0.0, high=1.0
    )
    seed: int = knob(0, "seed of initialization, splits, order and noise", low=0, high=2**63 - 1)
    validation: float = knob(
        0.1, "share (below 1) or count of training examples held out by the seed; 0: none", low=0.0
    )
    threads: int | None = knob(
        None, "CPU threads; none: as many as torch finds cores", low=1, high=_MOST_THREADS
    )
    device: str = knob("auto", "auto, cpu, cuda, cuda:1, mps, …")
    devices: int = knob(
        1, "processes, each with a device of that kind and a part of each batch", low=1, high=1024
    )
    strategy: Literal["ddp", "fsdp"] = knob(
        "ddp", "how several processes hold a model: each has it whole, or a shard of it"
    )
    precision: Literal["fp32", "bf16"] = knob(
        "fp32", "arithmetic of the forward pass; bf16: bfloat16 where torch's autocast allows it"
    )
    channels_last: bool = knob(True, "keep the channels of convolutions innermost in memory")
    compile: bool = knob(False, "compile with torch.compile: a minute first, then faster or not")
    log: Literal["none", "tensorboard", "mlflow"] = knob(
        "none", "where each epoch is told beside the run's own metrics.jsonl"
    )
    checkpoint_seconds: float | None = knob(
        30.0,
        "seconds between checkpoints, never over 2 % of the time; none: no clock",
        low=0.0,
    )
    checkpoint_steps: int | None = knob(
        None,
        "steps between checkpoints, never over 2 % of the time; none: not counted",
        low=1,
    )


@_strict
@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """What is looked at in pretraining; the fields are options of `zoo pretrain`."""

    probe: Literal["none", "knn", "linear"] = knob(
        "knn",
        "small classifier of features that tells each epoch whether they improve: fitted on"
        " labelled training examples, asked of held-out ones; nothing else sees a label",
    )


@_strict
@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """How a classifier is made from a backbone; the fields are options of `zoo finetune`."""

    labels: int | None = knob(
        None, "labelled examples in all, spread evenly over the classes; none: all", low=1
    )
    freeze: bool = knob(False, "train the head alone, on a fixed encoder (a linear probe)")
    unfreeze: int | None = knob(
        None,
        "epochs after which one more stage of the encoder is trained, from the head down;"
        " none: all from the start",
        low=1,
    )
    layer_decay: float = knob(
        1.0, "factor of the learning rate from each stage to the one before it", low=0.0, high=1.0
    )
    label_smoothing: float = knob(
        0.0, "share of each label that is spread over all classes", low=0.0, high=1.0
    )
    mixup: float = knob(
        0.0, "alpha of mixup: pairs of examples and labels are blended; 0: none", low=0.0
    )
    cutmix: float = knob(
        0.0, "alpha of CutMix: a rectangle of another example is pasted in; 0: none", low=0.0
    )
    loss_on: Literal["logits", "probabilities"] = knob(
        "logits", "what cross entropy is given; probabilities is a known mistake, kept to show it"
    )


@_strict
@dataclasses.dataclass(frozen=True, kw_only=True)
class SelfTrainConfig:
    """How a classifier learns from its own labels of unlabelled examples; options of `finetune`."""

    confidence: float = knob(
        0.95, "least probability of a label of the teacher's that is trained on", low=0.0, high=1.0
    )
    teacher_ema: float = knob(
        0.99, "decay of the teacher, which is the student's moving average", low=0.0, high=0.999999
    )
    labelled: float = knob(
        0.25, "share of the examples of a batch that carry a true label", low=0.01, high=0.99
    )
    balance: float | None = knob(
        None,
        "how far from an equal share a class of the teacher's may be, of that share; none: any",
        low=0.0,
        high=1.0,
    )


@_strict
@dataclasses.dataclass(frozen=True, kw_only=True)
class RecipeSpec:
    """Contribute a complete pipeline: pretrain without labels, finetune, compare, export.

    Every seed pretrains `backbone` with `objective` on `pretrain_dataset`, finetunes it with
    `head` on `dataset` and, with `scratch`, trains the same model from scratch at the same
    settings, or those of `scratch_finetuning` and `scratch_finetune`. With `self_training`, each
    classifier goes on to learn from its own labels of the examples that have none. The best one on
    validation data is exported, as its first seed made it; where none is held out, the pretrained
    one, after self-training if there is any.
    """

    name: str
    summary: str
    dataset: Component
    backbone: Component
    objective: Component
    head: Component
    pretraining: TrainConfig
    finetuning: TrainConfig
    finetune: FinetuneConfig = FinetuneConfig()
    pretrain: PretrainConfig = PretrainConfig()
    self_training: TrainConfig | None = None
    self_train: SelfTrainConfig = SelfTrainConfig()
    pretrain_dataset: Component | None = None
    scratch: bool = True
    scratch_finetuning: TrainConfig | None = None
    scratch_finetune: FinetuneConfig | None = None
    seeds: tuple[int, ...] = (0, 1, 2)


# --- services, imported when they are called ------------------------------------------------


def data_root() -> Path:
    """Return the folder where data sets lie: `ZOO_DATA`, else zoo's folder in the user's cache."""
    from zoo.folders import data_root

    return data_root()


def read_picture(path: Path, input: ImageInput, *, invert: bool = False) -> Any:
    """Read a picture file as the uint8 C x H x W array that `input` describes.

    Raises `ZooError` where the file is no readable picture. The rule is `zoo.pictures.RULE`.
    """
    from zoo.pictures import read_picture

    return read_picture(path, input, invert=invert)


def progress(
    description: str, total: int | None = None, unit: str = "examples"
) -> AbstractContextManager[Task]:
    """Show long work: `with progress("decoding", 100) as task: task.update(done)`."""
    from zoo.progress import current

    return current().task(description, total, unit)


def gather(rows: Tensor) -> Tensor:
    """Return the rows of all processes, N x … each, this one's with their gradient.

    For an objective that compares examples with each other: with `--devices 1` it returns `rows`.
    """
    from zoo.training.places import current_place

    return current_place().gather(rows)


def teacher(text: str) -> Teacher:
    """Load a trained model by the text of an option; to be called in an objective's build.

    `text` is a finished run's folder or name, `latest`, or a path that ends in .onnx: a file that
    zoo exported, or any that takes raw bytes. Classifiers answer with logits, pretrainings with
    features. Raises `ZooError` where there is none, or it cannot be read.
    """
    from zoo.pipeline.teaching import current_lender

    return current_lender().teacher(text)


def note(text: str, *, once: Path | None = None) -> None:
    """Tell the user one line, on stderr; nothing with `--quiet` and in the Python API.

    `once` is a file that remembers, from command to command, that it was told: where it is there
    nothing is.
    """
    from zoo.progress import current, note_once

    if once is None:
        current().note(text)
    else:
        note_once(text, once)
