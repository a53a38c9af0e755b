"""The model that is saved is the one that was trained: asked alike, a fresh build answers alike."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from zoo.api import TrainConfig
from zoo.errors import OutOfMemory, PluginFault, ZooError, first_line, ran_out
from zoo.isolation import place as line_of
from zoo.memory import smaller
from zoo.models import Classifier
from zoo.pipeline import assembly
from zoo.pipeline.assembly import Part
from zoo.pipeline.faults import blamed
from zoo.pipeline.unsaved import alike, unsaved
from zoo.progress import Silent, reporting
from zoo.tasks import Finetuning, Pretraining, SelfTraining, Task
from zoo.training import Place
from zoo.training.devices import (
    autocast,
    deterministic,
    generators_kept,
    lay_out,
    seed_everything,
)
from zoo.training.places import innermost

OWNERS = {"encoder": "backbone", "decoder": "backbone", "objective": "objective", "head": "head"}
"""The kind of component that gives an answer, by its name; those of tensors begin with it."""
SHOWN = 4
FEW = 4
"""Examples that are asked at least: where memory does not suffice for these, it is told."""
ROUNDING = {"fp32": 0.01, "bf16": 0.2}
"""How far two answers may lie apart in two layouts, by precision: a norm in parts of another."""
FLIPPED = 0.25
"""Share of examples that rounding may change by more, where a component decides on a threshold."""
REGISTER = "Register whatever outputs depend on as a parameter or as a persistent buffer."
"""What to write where a module's state lacks something; `zoo plugin check` says it, too."""


def check_saved(
    trained: Task,
    again: Callable[[], Task],
    raw: Tensor,
    parts: Mapping[str, Part],
    config: TrainConfig,
    place: Place,
) -> None:
    """Hold what was trained against a fresh build that is given what would be saved of it.

    Both are asked for `raw`, uint8 N x C x H x W, on the device, in the layout and precision of
    training, in evaluation mode and uncompiled: features, what a decoder makes of them, logits.
    `again` builds. Raises `PluginFault` where a bit differs, naming what is not saved; and where
    the answers are others once its tensors lie contiguous, as they will when the run is loaded.
    Where memory ends fewer examples are asked; raises `OutOfMemory` where a few are too many.
    """
    if not place.main:  # what it holds is what is saved
        return
    try:
        smaller(lambda n: _check(trained, again, raw[:n], parts, config, place), len(raw), FEW)
    except Exception as error:
        if not ran_out(error):
            raise
        raise OutOfMemory(
            "Out of memory while the saved weights were checked, on a batch of"
            f" {min(FEW, len(raw))}: {first_line(error.__cause__ or error)}. Close other programs."
        ) from error


def _check(
    trained: Task,
    again: Callable[[], Task],
    raw: Tensor,
    parts: Mapping[str, Part],
    config: TrainConfig,
    place: Place,
) -> None:
    fresh = built_anew(again, config, place)
    _load(fresh, trained, parts)
    if part := changed_by_layout(fresh, raw, parts, config, place):
        raise _fault(
            part,
            "once its tensors lie contiguous in memory, as in a loaded run and in a file, it"
            " answers otherwise than it was trained to. Let nothing depend on strides (as_strided,"
            " is_contiguous), or type --no-channels-last",
        )
    asked = _Asked(raw, parts, config, place)
    differing, restless = _judged(asked, trained, fresh)
    if restless and place.device.type != "cpu":
        # A device may lack memory for both, or an exact kernel: that is no fault of a plugin's.
        asked = _Asked(raw, parts, config, Place(torch.device("cpu")))
        differing, restless = _judged(asked, trained, fresh)
    if differing and restless:
        raise _fault(
            parts[differing[1]],
            "in evaluation mode it returns different outputs for the same input. Draw random"
            " numbers in training alone, from torch's global generator, and keep nothing from one"
            " call to the next",
        )
    if differing:
        answer, kind = differing
        found = unsaved(_giving(answer, trained), _giving(answer, fresh), answer)
        shown = ", ".join(found[:SHOWN]) or "something that its state leaves out"
        more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        raise _fault(
            parts[kind],
            "with its saved weights a fresh build does not answer as the trained module does. Not"
            f" saved: {shown}{more}. {REGISTER}",
        )


def changed_by_layout(
    task: Task, raw: Tensor, parts: Mapping[str, Part], config: TrainConfig, place: Place
) -> Part | None:
    """Return the component whose answers are others where channels lie innermost, if one's are.

    Those of a sound module differ by rounding alone. The task's tensors lie contiguous when this
    returns. None, too, where training does not lay them so, or a device lacks the memory to ask.
    """
    if not innermost(config, place):
        return None
    asked = _Asked(raw, parts, config, place)
    try:
        found = asked.answers(task, torch.channels_last)
        for name, answer in asked.answers(task, torch.contiguous_format).items():
            if not _close(found[name], answer, ROUNDING[config.precision]):
                return parts[OWNERS[name]]
    except OutOfMemory:
        if place.device.type == "cpu":
            raise
    return None


def _close(one: Tensor, two: Tensor, bound: float) -> bool:
    """Say whether answers, N first, differ by rounding; what is not finite is for others to judge.

    One at a time: of many examples a few may lie where a rounding turns a decision.
    """
    if one.shape != two.shape:
        return False
    if not (one.isfinite().all() and two.isfinite().all()):
        return True
    one, two = one.double().flatten(1), two.double().flatten(1)
    far = (one - two).norm(dim=1) > bound * torch.maximum(one.norm(dim=1), two.norm(dim=1))
    return bool(far.double().mean() <= FLIPPED)


def _judged(asked: _Asked, trained: Task, fresh: Task) -> tuple[tuple[str, str] | None, bool]:
    """Return the first answer that differs, if any, and whether one model contradicts itself."""
    try:
        differing = asked.differing(trained, fresh)
        return differing, differing is not None and asked.differing(trained, trained) is not None
    except OutOfMemory:
        if asked.device.type == "cpu":
            raise
        return None, True


def built_anew(
    again: Callable[[], Task], config: TrainConfig, place: Place, number: int = 0
) -> Task:
    """Build once more, in silence, with nothing drawn as in training or in a build of other number.

    What is drawn and not saved must not come out equal. torch's generators stay as they were.
    """
    with generators_kept(place.device), reporting(Silent()):
        seed_everything((~config.seed & 0x7FFFFFFF) ^ number)
        return again()


def _load(fresh: Task, trained: Task, parts: Mapping[str, Part]) -> None:
    """Give a fresh build what would be saved, as whoever takes the run later does."""
    tensors = trained.saved()
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise _fault(
                parts[OWNERS.get(name.partition(".")[0], "backbone")],
                f"'{name}' in its state is no tensor. Keep tensors alone in the state, and options"
                " in the config",
            )
    if not _decodes(parts):
        tensors = {n: t for n, t in tensors.items() if not n.startswith("objective.")}
    try:
        fresh.load(tensors)
    except Exception as error:
        if ran_out(error):
            raise
        said = (str(error).splitlines() or [type(error).__name__])[:2][-1].strip().rstrip(".")
        named = re.search(rf"\b({'|'.join(OWNERS)})\.", said)
        raise _fault(
            parts[OWNERS[named[1]] if named else "backbone"],
            f"a fresh build does not take its weights: {said}. Let build make every parameter and"
            " buffer at once, of sizes that follow from config and input alone",
        ) from error


class _Asked:
    """A question for two models: examples, and the circumstances they are asked in."""

    def __init__(
        self, raw: Tensor, parts: Mapping[str, Part], config: TrainConfig, place: Place
    ) -> None:
        self._raw, self._parts, self._config, self._place = raw, parts, config, place
        self.device = place.device

    def differing(self, one: Task, two: Task) -> tuple[str, str] | None:
        """Return the first answer in which two models differ, and the component that gives it."""
        # A training of no epochs has not laid its module out, nor has a fresh build.
        layout = torch.channels_last if innermost(self._config, self._place) else None
        first, second = self.answers(one, layout), self.answers(two, layout)
        for name, answer in first.items():
            if not alike(answer, second[name]):
                return name, OWNERS[name]
        return None

    @torch.no_grad()
    def answers(self, task: Task, layout: torch.memory_format | None) -> dict[str, Tensor]:
        """Ask a model for all that is made of what was saved, by who gives it."""
        device, config, parts = self.device, self._config, self._parts
        with (
            assembly.guarded(parts["backbone"].entry, "checked with its saved weights"),
            generators_kept(device),
            deterministic(device),
            autocast(config, device),
        ):
            task.to(device).eval()
            if layout is not None:
                lay_out(task, layout)
            seed_everything(config.seed)
            try:
                return _answers(task, self._raw.to(device), decodes=_decodes(parts))
            except Exception as error:
                strict = os.environ.get("ZOO_STRICT") == "1"
                if strict or isinstance(error, ZooError) or ran_out(error):
                    raise
                raise _fault(
                    blamed(error, [task], parts)[0],
                    f"{type(error).__name__} while its saved weights were checked:"
                    f" {' '.join(str(error).split()).rstrip('.')}{line_of(error)}",
                ) from error


def _answers(task: Task, raw: Tensor, *, decodes: bool) -> dict[str, Tensor]:
    """Ask a model for all that is made of what was saved, by who gives it."""
    if not isinstance(task, Pretraining):
        classifier = _classifier(task)
        features = classifier.encoder(classifier.preprocess(raw))
        return {"encoder": features, "head": classifier.head(features)}
    backbone: Any = task.backbone
    inputs = task.preprocess(raw)
    found = {"encoder": backbone.encoder(inputs)}
    if decodes:
        codes = found["encoder"]
        own = getattr(task.objective, "codes", None)
        if callable(own):  # what its decoder takes is not the features
            codes = found["objective"] = own(backbone, inputs)
        found["decoder"] = backbone.decoder(codes)
    return found


def _giving(answer: str, task: Task) -> nn.Module:
    """Return the module that gives an answer."""
    if not isinstance(task, Pretraining):
        whole: nn.Module = _classifier(task)
    else:
        whole = task if answer == "objective" else task.backbone
    return whole.get_submodule(answer)


def _classifier(task: Finetuning | SelfTraining) -> Classifier:
    return task.teacher if isinstance(task, SelfTraining) else task.classifier


def _decodes(parts: Mapping[str, Part]) -> bool:
    """Say whether a pretraining trained a decoder."""
    return "objective" in parts and parts["objective"].entry.spec.needs_decoder


def _fault(part: Part, problem: str) -> PluginFault:
    return PluginFault(f"{part.entry.owner} of plugin {part.entry.origin}: {problem.rstrip('.')}.")
