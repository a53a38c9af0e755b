"""What is asked of a backbone, on every input that its spec names."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from zoo.api import ImageInput
from zoo.errors import Unfit, ZooError
from zoo.models import Classifier, Preprocess
from zoo.pipeline.assembly import Part, build_backbone, call_build, preprocess_for
from zoo.registry import Entry
from zoo.tasks import Finetuning
from zoo.testing import modules
from zoo.testing.modules import raw_bytes, seeded
from zoo.testing.options import check_choices, check_options
from zoo.testing.report import (
    TRACEBACK,
    ComponentReport,
    Failure,
    Rows,
    Skipped,
    described,
)
from zoo.training import seed_everything

CLASSES = 3


@dataclasses.dataclass
class Built:
    """A backbone as built for one input, and bytes to run it on."""

    part: Part
    input: ImageInput
    backbone: Any
    preprocess: Preprocess
    raw: Tensor

    @property
    def inputs(self) -> Tensor:
        return self.preprocess(self.raw)  # type: ignore[no-any-return]

    def again(self) -> nn.Module:
        return call_build(self.part, self.input)


def check_backbone(entry: Entry, options: Mapping[str, Any]) -> ComponentReport:
    """Hold a backbone to its contract."""
    rows = Rows()
    rows.add("options", lambda: check_options(entry, options))
    part = Part(entry, entry.configure(dict(options)))
    built: list[Built] = []
    passed = {"inputs": rows.add("inputs", lambda: _build_all(part, built))}
    # What a check needs: one cause shall be one failure.
    for name, check, needed in (
        ("encoder output", _encoder_output, "inputs"),
        ("decoder output", _decoder_output, "encoder output"),
        ("encoder gradients", _encoder_gradients, "encoder output"),
        ("decoder gradients", _decoder_gradients, "decoder output"),
        ("batch-mates", _batch_mates, "encoder output"),
        ("state", _state, "encoder output"),
        ("seeds", _seeds, "encoder output"),
        ("export", _export, "encoder output"),
    ):
        go = functools.partial(_each, built, check) if passed[needed] else _needs(needed)
        passed[name] = rows.add(name, go)
    smallest = min(entry.spec.inputs, key=lambda input: input.height * input.width, default=None)
    if smallest is not None:
        rows.add(
            "choices",
            lambda: check_choices(
                entry, options, lambda config: build_backbone(Part(entry, config), smallest)
            ),
        )
    sizes = []
    for each in built:
        one = each.inputs[:1]
        try:
            sizes.append(modules.size_of(each.backbone.encoder, str(each.input), "encoder", one))
            if each.backbone.decoder is not None:
                code = each.backbone.encoder(one)
                size = modules.size_of(each.backbone.decoder, str(each.input), "decoder", code)
                sizes.append(size)
        except Exception:  # what does not run has a row of its own
            continue
    return ComponentReport("backbone", entry.name, tuple(rows.found), tuple(sizes))


def _needs(needed: str) -> Callable[[], str]:
    def skip() -> str:
        raise Skipped(f"it needs '{needed}', which failed")

    return skip


def _build_all(part: Part, built: list[Built]) -> str:
    inputs = part.entry.spec.inputs
    if not inputs:
        raise Failure("the spec names no input", "name in `inputs` a size or more that it takes.")
    for input in inputs:
        try:
            backbone = seeded(lambda input=input: call_build(part, input))  # type: ignore[misc]
            preprocess = preprocess_for(input, input, backbone)
            found = Built(part, input, backbone, preprocess, raw_bytes(input))
        except ZooError as error:
            partly = "build for every input of the spec, or name in `inputs` only those that go."
            refused = isinstance(error, Unfit) or built
            raise Failure(
                f"on {input}: {error}", partly if refused else "see what it says; " + TRACEBACK
            ) from error
        built.append(found)
    return ", ".join(str(input) for input in inputs)


def _each(built: list[Built], check: Any) -> str:
    """Make a check on every input; the figure is the last one's, a failure names its input."""
    if not built:
        raise Skipped("nothing was built to check it on")
    figure = ""
    for each in built:
        try:
            figure = check(each)
        except Failure as failure:
            raise Failure(f"on {each.input}: {failure}", failure.change) from failure
        except ZooError:
            raise
        except Exception as error:
            if os.environ.get("ZOO_STRICT") == "1":
                raise
            raise Failure(f"on {each.input}: {described(error)}", TRACEBACK) from error
    return figure


@torch.no_grad()
def _encoder_output(built: Built) -> str:
    built.backbone.eval()
    inputs = built.inputs
    codes = built.backbone.encoder(inputs)
    try:
        for count in (1, 3):
            built.backbone.encoder(inputs[:count])
    except Exception as error:
        raise Failure(
            f"it takes a batch of {len(inputs)}, and not one of {count}: {described(error)}",
            "take the batch size from the input's shape.",
        ) from error
    if not _equal(codes, built.backbone.encoder(inputs)):
        raise Failure(
            "in evaluation mode the same batch gives another output each time",
            "draw random numbers in training alone: `if self.training:`, as nn.Dropout does.",
        )
    wanted = (len(built.raw), built.backbone.features)
    if not isinstance(codes, Tensor) or tuple(codes.shape) != wanted:
        found = tuple(codes.shape) if isinstance(codes, Tensor) else type(codes).__name__
        raise Failure(
            f"the encoder returned {found} for {wanted[0]} inputs, not {wanted}",
            "return N x features from .encoder, and that width as .features.",
        )
    if codes.dtype != torch.float32 or not bool(codes.isfinite().all()):
        raise Failure(f"{codes.dtype}, finite: {bool(codes.isfinite().all())}",
                      "return finite float32 from .encoder.")  # fmt: skip
    return f"N × {built.backbone.features}, float32"


def _equal(one: Any, two: Any) -> bool:
    """Compare outputs, where they are tensors; nan is equal to nan."""
    if not isinstance(one, Tensor) or not isinstance(two, Tensor):
        return True
    return torch.allclose(one.float(), two.float(), atol=1e-6, equal_nan=True)


@torch.no_grad()
def _decoder_output(built: Built) -> str:
    if built.backbone.decoder is None:
        return "no decoder"
    built.backbone.eval()
    inputs = built.inputs
    back = built.backbone.decoder(torch.zeros(len(inputs), built.backbone.features))
    if tuple(back.shape) != tuple(inputs.shape):
        raise Failure(
            f"the decoder returned {tuple(back.shape)} for inputs of {tuple(inputs.shape)}",
            "return the shape of the preprocessed input from .decoder, odd sizes included.",
        )
    return "the input's shape"


def _encoder_gradients(built: Built) -> str:
    seed_everything(0)

    def classifying(backbone: Any) -> Finetuning:
        head = nn.Linear(backbone.features, CLASSES)
        return Finetuning(Classifier(built.preprocess, backbone.encoder, head))

    labels = torch.arange(len(built.raw)) % CLASSES
    strays = modules.unowned(built.backbone)
    if strays:
        raise Failure(
            f"'{strays[0]}' is in neither .encoder nor .decoder: finetuning would lose it",
            f"make '{strays[0]}' part of .encoder or of .decoder, or remove it.",
        )
    return modules.check_gradients(
        classifying(built.backbone),
        lambda: classifying(built.again()),
        (built.raw, labels),
        modules.named("encoder", built.backbone.encoder),
    )


def _decoder_gradients(built: Built) -> str:
    if built.backbone.decoder is None:
        return "no decoder"
    return modules.check_gradients(
        modules.Reconstruction(built.preprocess, built.backbone),
        lambda: modules.Reconstruction(built.preprocess, built.again()),
        (built.raw,),
        modules.named("decoder", built.backbone.decoder),
    )


def _encode(backbone: nn.Module, inputs: Tensor) -> Tensor:
    codes: Tensor = backbone.encoder(inputs)  # type: ignore[operator]
    return codes


def _both(backbone: Any, inputs: Tensor) -> Tensor:
    """Return codes and reconstructions as one tensor, N first."""
    codes = backbone.encoder(inputs)
    if backbone.decoder is None:
        return codes  # type: ignore[no-any-return]
    return torch.cat([codes.flatten(1), backbone.decoder(codes).flatten(1)], dim=1)


def _batch_mates(built: Built) -> str:
    return f"{modules.check_batch_mates(built.backbone, _both, built.inputs):.0e} apart"


def _state(built: Built) -> str:
    fresh = seeded(built.again, seed=1)
    size = modules.check_state(built.backbone, fresh, _both, built.inputs)
    return f"{size:,} bytes, safetensors"


def _seeds(built: Built) -> str:
    modules.check_seeds(built.again, _both, built.inputs)
    return "two builds equal"


def _export(built: Built) -> str:
    seed_everything(0)
    head = nn.Linear(built.backbone.features, CLASSES)
    classifier = Classifier(built.preprocess, built.backbone.encoder, head)
    worst = modules.check_export(classifier, built.input, CLASSES)
    return f"onnxruntime within {worst:.0e}, batches 1, 7, 64, 257"
