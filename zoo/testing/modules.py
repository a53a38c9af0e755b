"""What is asked of any module: gradients, batch-mates, state, seeds, size, export."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo.api import ImageInput, Losses, TrainConfig
from zoo.data import Batches
from zoo.errors import PluginFault, TrainingError, ZooError
from zoo.export.card import Card
from zoo.export.graph import finished, to_graph
from zoo.export.modelfile import open_model
from zoo.export.original import Original
from zoo.export.proof import Evidence, Reference, prove
from zoo.models import Classifier
from zoo.pipeline.saved_model import REGISTER, SHOWN
from zoo.pipeline.unsaved import unsaved
from zoo.testing.report import Failure, Size
from zoo.training import Place, fit, outputs, seed_everything, try_step

EXAMPLES = 8
BATCH_MATES = 1e-5
"""Of the largest output, or of 1 where all are smaller."""

Run = Callable[[nn.Module, Tensor], Tensor]


def raw_bytes(input: ImageInput, count: int = EXAMPLES, seed: int = 1) -> Tensor:
    """Return random bytes, uint8 N x C x H x W."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, *input.shape), dtype=torch.uint8, generator=generator)


def seeded(build: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """Build as training does: torch's global generators are seeded before."""
    seed_everything(seed)
    return build()


def fitting(
    config: TrainConfig, again: Callable[[], nn.Module], batch: tuple[Tensor, ...]
) -> TrainConfig:
    """Return a config in whose layout a module trains, tried on another build of it.

    As in training: where code takes contiguous tensors alone, it gets them.
    """
    return try_step(lambda: seeded(again), batch, batch, config, Place(torch.device("cpu"))).config


def check_gradients(
    trained: nn.Module,
    again: Callable[[], nn.Module],
    batch: tuple[Tensor, ...],
    watched: Iterable[tuple[str, nn.Parameter]],
) -> str:
    """Train a few steps; every watched parameter must get a finite gradient that is not all zeros.

    A few steps, for what is initialized to zero (the last norm of a residual block) lets nothing
    through in the first. `again` builds what is trained once more. Says how many parameters were
    watched, for frozen ones are not, and whether they train contiguous alone.
    """
    largest: dict[str, float] = {}
    handles = []
    for name, parameter in watched:
        if parameter.requires_grad:
            largest[name] = -1.0  # until a gradient comes
            hook: Any = parameter.register_post_accumulate_grad_hook
            handles.append(hook(_recorder(largest, name)))
    config = TrainConfig(epochs=4, batch_size=EXAMPLES, schedule="constant", seed=0)
    try:
        if largest:
            config = fitting(config, again, batch)
            fit(trained, Batches(batch, EXAMPLES, seed=0), config)
    except TrainingError as error:
        raise Failure(
            str(error).partition(" Type")[0], "keep the loss finite from the first step."
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    for name, size in largest.items():
        if size < 0:
            raise Failure(
                f"'{name}' gets no gradient",
                f"use '{name}' in what is computed, without detach() and no_grad(), or remove it;"
                " what is meant to be fixed has requires_grad_(False).",
            )
        if size == 0 or size != size or size == float("inf"):
            what = "nothing but zeros" if size == 0 else "a gradient that is not finite"
            raise Failure(f"'{name}' gets {what}", f"let the loss depend on '{name}'.")
    return (
        f"{len(largest)} parameters{'' if config.channels_last else ', contiguous tensors alone'}"
    )


def _recorder(largest: dict[str, float], name: str) -> Callable[[Tensor], None]:
    def record(parameter: Tensor) -> None:
        assert parameter.grad is not None
        size = float(parameter.grad.abs().max())
        finite = size == size
        largest[name] = max(largest[name], size) if finite else size

    return record


@torch.no_grad()
def check_batch_mates(module: nn.Module, run: Run, batch: Tensor) -> float:
    """In evaluation mode an output depends on its own example alone; returns the difference."""
    module.eval()
    together = run(module, batch)
    alone = torch.cat([run(module, one) for one in torch.split(batch, 1)])
    pairs = torch.cat([run(module, pair) for pair in torch.split(batch.flip(0), 2)]).flip(0)
    scale = max(1.0, float(together.abs().max()))
    worst = max(float((together - other).abs().max()) for other in (alone, pairs)) / scale
    if not worst <= BATCH_MATES:
        raise Failure(
            f"an output changes by {worst:.1e} with the examples beside it; at most"
            f" {BATCH_MATES:.0e}",
            "in evaluation mode use running statistics (nn.BatchNorm does) or none, and compute"
            " nothing over the batch.",
        )
    return worst


@torch.no_grad()
def check_state(module: nn.Module, fresh: nn.Module, run: Run, batch: Tensor) -> int:
    """Tensors saved without pickle and loaded into a fresh build give the same outputs.

    Returns how many bytes they are.
    """
    from safetensors.torch import load, save

    state = module.state_dict()
    strange = [name for name, value in state.items() if not isinstance(value, Tensor)]
    if strange:
        raise Failure(
            f"'{strange[0]}' in the state is no tensor",
            "keep tensors alone in the state, and options in the config.",
        )
    data = save({name: tensor.contiguous().clone() for name, tensor in state.items()})
    try:
        fresh.load_state_dict(load(data))
    except Exception as error:
        lines = str(error).splitlines() or [type(error).__name__]
        raise Failure(
            f"a fresh build does not take the state: {lines[min(1, len(lines) - 1)].strip()}",
            "let build make every parameter and buffer at once, of sizes that follow from config"
            " and input alone.",
        ) from error
    module.eval()
    fresh.eval()
    worst = float((run(module, batch) - run(fresh, batch)).abs().max())
    if not worst <= 1e-6:
        found = ", ".join(unsaved(module, fresh)[:SHOWN])
        raise Failure(
            f"after loading, outputs differ by {worst:.1e}{f'; not saved: {found}' * bool(found)}",
            REGISTER[0].lower() + REGISTER[1:],
        )
    return len(data)


@torch.no_grad()
def check_seeds(build: Callable[[], nn.Module], run: Run, batch: Tensor) -> None:
    """Two builds after the same seed are equal."""
    one, two = seeded(build), seeded(build)
    change = (
        "draw from torch's global generator alone (torch.randn, nn.init): it is seeded before"
        " build; numpy's and Python's are not."
    )
    first, second = one.state_dict(), two.state_dict()
    for name, tensor in first.items():
        other = second.get(name)
        if not isinstance(other, Tensor) or not torch.equal(tensor, other):
            raise Failure(f"'{name}' differs between two builds with one seed", change)
    one.eval()
    two.eval()
    if not torch.equal(run(one, batch), run(two, batch)):
        raise Failure("the outputs of two builds with one seed differ", change)


def check_export(classifier: Classifier, input: ImageInput, classes: int) -> float:
    """The graph has a dynamic batch, and onnxruntime computes what PyTorch does.

    Returns the largest difference of a logit.
    """
    images = raw_bytes(input, 66, seed=2)
    logits = outputs(classifier, images)
    card = Card(
        run="conformance",
        labels=[f"class {number}" for number in range(classes)],
        input=input,
        components={},
        metrics={"accuracy": 1.0},
        weights_sha256="",
        versions={},
    )
    said = logits.numpy()
    original = Original(classifier)
    reference = Reference(images.numpy(), logits.argmax(1).numpy(), said, said, card, original)
    change = (
        "compute with operations that ONNX has, take the batch size from the input's shape, and"
        " let no Python value depend on what a tensor holds."
    )
    try:
        data = finished(to_graph(classifier, input), card)
        file = open_model(Path("the exported graph"), data)
        proof = prove(file, Evidence(reference, "not needed", lambda: data))
    except PluginFault as error:
        raise Failure(str(error), change) from error
    except ZooError as error:
        raise Failure(f"the exported graph does not run: {error}", change) from error
    if own := [row for row in proof.failures if row.of_the_classifier]:
        raise Failure(
            f"{own[0].name}: {own[0].figure}",
            "answer each example by itself, a batch of one as any other, and with finite numbers"
            " whatever it shows: all zeros too.",
        )
    if proof.verdict == "failed":
        rows = "; ".join(f"{row.name}: {row.figure}" for row in proof.failures)
        raise Failure(f"onnxruntime does not compute the same: {rows}", change)
    assert proof.comparison is not None
    return proof.comparison.max_logit_difference


@torch.no_grad()
def size_of(module: nn.Module, on: str, part: str, inputs: Tensor) -> Size:
    """Count parameters, and the multiply-accumulates of one example."""
    from torch.utils.flop_counter import FlopCounterMode

    module.eval()
    with FlopCounterMode(display=False) as counter:
        module(inputs)
    parameters = sum(p.numel() for p in module.parameters())
    return Size(on, part, parameters, counter.get_total_flops() // 2 // len(inputs))


class Reconstruction(nn.Module):
    """Bytes -> the mean squared error of a backbone's own reconstruction."""

    def __init__(self, preprocess: nn.Module, backbone: Any) -> None:
        super().__init__()
        self.preprocess = preprocess
        self.backbone = backbone

    def forward(self, raw: Tensor) -> Losses:
        inputs = self.preprocess(raw)
        decoded = self.backbone.decoder(self.backbone.encoder(inputs))
        return Losses((decoded - inputs).square().mean())


def named(prefix: str, module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return ((f"{prefix}.{name}", p) for name, p in module.named_parameters())


def unowned(backbone: Any) -> list[str]:
    """Return the parameters of a backbone that neither its encoder nor its decoder holds."""
    parts = [part for part in (backbone.encoder, backbone.decoder) if part is not None]
    held = set(map(id, itertools.chain(*(part.parameters() for part in parts))))
    return [name for name, p in backbone.named_parameters() if id(p) not in held]
