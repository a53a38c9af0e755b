"""What is asked of an objective: on a backbone with a decoder and on one without."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from zoo.api import ImageInput, NoConfig, TrainConfig
from zoo.data import Batches
from zoo.errors import Unfit, ZooError
from zoo.models import Preprocess
from zoo.pipeline.assembly import (
    Part,
    build_backbone,
    build_objective,
    check_objective,
    preprocess_for,
)
from zoo.pipeline.teaching import Library, lending
from zoo.pipeline.workspace import Workspace
from zoo.registry import Entry, Registry
from zoo.tasks import Pretraining
from zoo.testing import modules, samples
from zoo.testing.options import check_choices, check_options, complete
from zoo.testing.report import ComponentReport, Failure, Rows, Size, Skipped
from zoo.training import Goal, fit, seed_everything

INPUTS = (ImageInput(channels=1, height=8, width=8), ImageInput(channels=3, height=12, width=9))
EPOCHS = 20


@dataclasses.dataclass
class Tried:
    """An objective built over one backbone for one input."""

    name: str
    objective: nn.Module
    backbone: Any
    preprocess: Preprocess
    raw: Tensor

    @property
    def module(self) -> Pretraining:
        return Pretraining(self.preprocess, self.backbone, self.objective)


def check_objective_component(
    registry: Registry, entry: Entry, given: Mapping[str, Any]
) -> ComponentReport:
    """Hold an objective to its contract; a required text that names a teacher is the kit's own.

    Raises `Skipped` where a required text names anything else: nobody can guess it.
    """
    workspace = Workspace(plugins=registry)
    lender = samples.Lender(Library(workspace))
    with lending(lender):
        options = complete(entry, given, samples.TEACHER)
        guessed = [n for n in options.keys() - given.keys() if options[n] == samples.TEACHER]
        if guessed:
            _ask(workspace, Part(entry, entry.configure(options)))
            if not lender.asked or len(guessed) > 1:
                complete(entry, given)  # says which
        return _report(workspace, entry, options)


def _ask(workspace: Workspace, part: Part) -> None:
    """Build an objective, to see whether it asks for its teacher; what else it does comes later."""
    with contextlib.suppress(ZooError):
        backbone = build_backbone(Part(samples.AUTOENCODER, NoConfig()), INPUTS[0])
        build_objective(workspace, part, backbone)


def _report(workspace: Workspace, entry: Entry, options: Mapping[str, Any]) -> ComponentReport:
    rows = Rows()
    rows.add("options", lambda: check_options(entry, options))
    part = Part(entry, entry.configure(dict(options)))
    usable: list[tuple[Part, ImageInput]] = []
    rows.add(
        "losses",
        lambda: _losses(workspace, part, usable),
        "return Losses(total, **parts) of scalars, and raise Unfit for a backbone it cannot train.",
    )

    def build(config: Any) -> None:
        if usable:
            _try(workspace, Part(entry, config), *usable[0])

    for name, check in (
        (
            "gradients",
            lambda tried, again: _gradients(tried, again, bool(entry.spec.needs_decoder)),
        ),
        ("watch falls", lambda tried, again: _falls(tried, again, entry.spec.watch)),
        ("own weights", lambda tried, again: _own_weights(tried)),
    ):
        rows.add(name, lambda check=check: _each(workspace, part, usable, check))  # type: ignore[misc]
    rows.add("state", lambda: _over(usable, lambda on: _state(workspace, part, *on)))
    rows.add("seeds", lambda: _over(usable, lambda on: _seeds(workspace, part, *on)))
    rows.add("choices", lambda: check_choices(entry, options, build))
    sizes = []
    if usable:
        objective = _try(workspace, part, *usable[0]).objective
        count = sum(p.numel() for p in objective.parameters())
        sizes.append(Size(str(usable[0][1]), "objective", count, 0))
    return ComponentReport("objective", entry.name, tuple(rows.found), tuple(sizes))


def _candidates(registry: Registry, needs_decoder: bool) -> Iterator[Entry]:
    """Yield the kit's own backbones, then those registered that build without options."""
    yield samples.AUTOENCODER
    if not needs_decoder:
        yield samples.ENCODER
    yield from registry.entries("backbone")


def _losses(workspace: Workspace, part: Part, usable: list[tuple[Part, ImageInput]]) -> str:
    """Try it on the kit's backbones; where it refuses those, on registered ones until one goes."""
    needs_decoder = bool(part.entry.spec.needs_decoder)
    refused = ""
    own = (samples.AUTOENCODER, samples.ENCODER)
    for candidate in _candidates(workspace.registry, needs_decoder):
        if usable and candidate not in own:
            break
        for input in INPUTS:
            try:
                over = Part(candidate, candidate.configure({}))
                _try(workspace, part, over, input)
            except Unfit as error:
                refused = str(error)
                continue
            usable.append((over, input))
    if not usable:
        raise Skipped(f"it takes no backbone at hand: {refused}")
    return "on " + ", ".join(dict.fromkeys(over.entry.name for over, _ in usable))


def _try(workspace: Workspace, part: Part, over: Part, input: ImageInput, seed: int = 0) -> Tried:
    seed_everything(seed)
    backbone = build_backbone(over, input)
    objective = build_objective(workspace, part, backbone)
    preprocess = preprocess_for(input, input, backbone)
    check_objective(part, objective, backbone, preprocess)
    return Tried(over.entry.name, objective, backbone, preprocess, samples.pictures(input))


def _over(usable: list[tuple[Part, ImageInput]], check: Any) -> str:
    if not usable:
        raise Skipped("nothing was built to check it on")
    figures: list[str] = [check(on) for on in usable]
    return figures[0]


def _each(workspace: Workspace, part: Part, usable: Any, check: Any) -> str:
    """Make a check of what was built, which is given what builds it again."""

    def both(on: tuple[Part, ImageInput]) -> str:
        figure: str = check(
            _try(workspace, part, *on), lambda: _try(workspace, part, *on, seed=1).module
        )
        return figure

    return _over(usable, both)


def _gradients(tried: Tried, again: Callable[[], nn.Module], decodes: bool) -> str:
    watched = dict(modules.named("encoder", tried.backbone.encoder))
    if decodes:
        watched |= dict(modules.named("decoder", tried.backbone.decoder))
    watched |= dict(modules.named("objective", tried.objective))
    batch = (tried.raw[: modules.EXAMPLES],)
    return modules.check_gradients(tried.module, again, batch, watched.items())


def _falls(tried: Tried, again: Callable[[], nn.Module], watch: str) -> str:
    config = TrainConfig(epochs=EPOCHS, batch_size=16, lr=3e-3, schedule="constant")
    config = modules.fitting(config, again, (tried.raw[:16],))
    epochs = fit(tried.module, Batches((tried.raw,), 16, seed=0), config, goal=Goal(watch))
    values = [epoch.train[watch] for epoch in epochs]
    last = sum(values[-3:]) / 3
    if not last < values[0]:
        raise Failure(
            f"'{watch}' went from {values[0]:.4g} to {last:.4g} in {EPOCHS} epochs on"
            f" {len(tried.raw)} pictures",
            "let the spec's `watch` name the part that training lowers.",
        )
    return f"'{watch}' from {values[0]:.3g} to {last:.3g} in {EPOCHS} epochs"


def _own_weights(tried: Tried) -> str:
    held = {id(module) for module in tried.backbone.modules()}
    kept = [name for name, module in tried.objective.named_modules() if id(module) in held]
    if kept:
        raise Failure(
            f"'{kept[0]}' is the backbone's: it would be saved and trained twice",
            "take the backbone from forward's arguments, and keep none of its modules.",
        )
    return f"{len(tried.objective.state_dict())} tensors"


def _run(tried: Tried) -> Any:
    """Return a function that runs an objective from one seed on; its losses as one tensor."""
    inputs = tried.preprocess(tried.raw)

    def run(objective: nn.Module, batch: Tensor) -> Tensor:
        seed_everything(7)
        losses = objective(tried.backbone, inputs, tried.raw)
        return torch.stack([losses.total.detach(), *losses.parts.values()])

    return run


def _state(workspace: Workspace, part: Part, over: Part, input: ImageInput) -> str:
    tried = _try(workspace, part, over, input)
    tried.backbone.eval()
    fresh = _try(workspace, part, over, input, seed=1).objective
    size = modules.check_state(tried.objective, fresh, _run(tried), tried.raw)
    return f"{size:,} bytes, safetensors"


def _seeds(workspace: Workspace, part: Part, over: Part, input: ImageInput) -> str:
    tried = _try(workspace, part, over, input)
    tried.backbone.eval()
    modules.check_seeds(
        lambda: build_objective(workspace, part, tried.backbone), _run(tried), tried.raw
    )
    return "two builds equal"
