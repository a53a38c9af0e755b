"""Build components by name, guarded: what a plugin's code raises is told as the plugin's."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from zoo.api import Component, Dataset, Examples, ImageInput, Losses, Preprocessing, note
from zoo.config import to_json
from zoo.data import checked
from zoo.errors import (
    OutOfMemory,
    PluginFault,
    Unfit,
    ZooError,
    first_line,
    joined,
    ran_out,
    recurs,
)
from zoo.isolation import as_guest, note_of_undone, place
from zoo.models import Preprocess
from zoo.pipeline.workspace import Workspace
from zoo.record import PartRecord
from zoo.registry import Entry
from zoo.runs import Run

TRIED = "tried on zeros"
MODES = {
    f"torch's {name}"
    for name in ("default dtype", "default device", "gradient mode", "inference mode")
}
"""What a forward pass must not leave changed, as `zoo.surroundings` calls it."""


@dataclasses.dataclass(frozen=True)
class Part:
    """A component looked up and configured, not yet built."""

    entry: Entry
    config: Any

    @property
    def record(self) -> PartRecord:
        entry = self.entry
        return PartRecord(entry.name, entry.plugin, entry.version, to_json(self.config))


def choose(
    workspace: Workspace, kind: str, wanted: str | Component, *, plugin: str | None = None
) -> Part:
    """Look a component up and check its options; raises `UnknownName` or `BadOption`.

    `plugin` is the one meant where several contribute that name.
    """
    component = Component(wanted) if isinstance(wanted, str) else wanted
    entry = workspace.registry.lookup(kind, component.name, plugin=plugin)
    return Part(entry, entry.configure(component.options))


def recorded(workspace: Workspace, kind: str, part: PartRecord) -> Part:
    """Look up the component that a run was made with; says which plugin it came from."""
    try:
        component = Component(part.name, **part.options)
        found = choose(workspace, kind, component, plugin=part.plugin)
        if found.entry.plugin != part.plugin:
            note(
                f"the run was made with {kind} '{part.name}' of {part.plugin}; it comes from"
                f" {found.entry.plugin} now"
            )
        return found
    except ZooError as error:
        where, _, name = part.plugin.partition(":")
        origin = f"plugin {part.plugin} {part.version}"
        if where == "file":
            origin = f"plugin {part.plugin}. Type: zoo --plugin {name}.py, and the rest as before"
        raise type(error)(f"{error}\nThe run used {kind} '{part.name}' of {origin}.") from None


def build_dataset(workspace: Workspace, part: Part) -> Dataset:
    """Describe a data set; nothing of it is read yet."""
    with guarded(part.entry, "built"):
        dataset = part.entry.spec.build(part.config, workspace.data_root)
    if not isinstance(dataset, Dataset):
        raise _fault(part.entry, f"build returned {type(dataset).__name__}, not a Dataset")
    _check_names(part.entry, dataset.classes)
    return dataset


def load_split(
    part: Part,
    data: Dataset,
    load: Callable[[], Examples],
    classes: int | None = None,
    owner: str = "",
) -> Examples:
    """Load one of a data set's splits, and check that it is what was declared.

    `classes` is None where labels are not needed; `owner` is whom messages name, else the data set.
    Raises `DataError`, `PluginFault` and `OutOfMemory`.
    """
    with guarded(part.entry, "loaded"):
        loaded = load()
    return checked(loaded, data.input.shape, classes, owner or part.entry.owner)


def _check_names(entry: Entry, classes: Sequence[str]) -> None:
    """Hold that each class has a name of its own, and one that can be written."""
    doubled = sorted({name for name in classes if list(classes).count(name) > 1})
    if doubled:
        raise _fault(entry, f"two of its classes are called {doubled[0]!r}")
    for name in classes:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise _fault(entry, f"the name of its class {name!r} is no Unicode text") from None


def build_backbone(part: Part, input: ImageInput) -> nn.Module:
    """Build a backbone and check on zeros that it keeps its contract; raises `PluginFault`."""
    backbone = call_build(part, input)
    features = backbone.features
    with probing(part.entry, backbone):
        preprocess = preprocess_for(input, input, backbone)
        zeros = preprocess(torch.zeros(2, *input.shape, dtype=torch.uint8))
        codes = backbone.encoder(zeros)  # type: ignore[operator]
        if codes.shape != (2, features):
            raise _fault(
                part.entry,
                f"the encoder returned {tuple(codes.shape)} for two inputs, not (2, {features})",
            )
        if backbone.decoder is not None:
            back = backbone.decoder(codes)  # type: ignore[operator]
            if back.shape != zeros.shape:
                raise _fault(
                    part.entry,
                    f"the decoder returned {tuple(back.shape)} for two inputs,"
                    f" not {tuple(zeros.shape)}",
                )
    return backbone


def call_build(part: Part, input: ImageInput) -> nn.Module:
    """Build a backbone and check that it has the attributes of one, without running it."""
    if not isinstance(input, ImageInput):
        raise Unfit(f"{part.entry.owner} takes images; the data set holds {input!r}.")
    with guarded(part.entry, "built"):
        backbone: nn.Module = part.entry.spec.build(part.config, input)
    _check_attributes(part.entry, backbone)
    return backbone


def build_objective(workspace: Workspace, part: Part, backbone: nn.Module) -> nn.Module:
    """Build an objective; raises `Unfit` where it needs a decoder that the backbone lacks."""
    spec = part.entry.spec
    if spec.needs_decoder and backbone.decoder is None:
        others = [
            e.name for e in workspace.registry.entries("objective") if not e.spec.needs_decoder
        ]
        raise Unfit(
            f"{part.entry.owner} needs a decoder, and this backbone has none."
            f" Objectives without that need: {', '.join(others) or 'none installed'}."
            " Without pretraining, type: zoo finetune --backbone NAME"
        )
    with guarded(part.entry, "built"):
        objective: nn.Module = spec.build(part.config, backbone)
    if not isinstance(objective, nn.Module):
        raise _fault(part.entry, f"build returned {type(objective).__name__}, not an nn.Module")
    _check_plain(part.entry, objective)
    # Gradients that nobody asks for would make data-parallel training wait for ever.
    if not spec.needs_decoder and isinstance(backbone.decoder, nn.Module):
        backbone.decoder.requires_grad_(False)
    return objective


def check_objective(
    part: Part,
    objective: nn.Module,
    backbone: nn.Module,
    preprocess: Preprocess,
    *,
    count: int = 2,
) -> None:
    """Try an objective on `count` zeros, before data is loaded; raises `PluginFault`, `Unfit`."""
    # With gradients, for an objective may differentiate inside itself.
    with probing(part.entry, backbone, objective), torch.enable_grad():
        raw = torch.zeros(count, *preprocess.source.shape, dtype=torch.uint8)
        losses = objective(backbone, preprocess(raw), raw)
        if not isinstance(losses, Losses):
            raise _fault(part.entry, f"it returned {type(losses).__name__}, not Losses")
        for name, value in {"total": losses.total, **losses.parts}.items():
            if not isinstance(value, torch.Tensor) or value.shape != ():
                raise _fault(part.entry, f"its loss '{name}' is not a scalar tensor")
        watch = part.entry.spec.watch
        if watch != "total" and watch not in losses.parts:
            known = ", ".join(["total", *losses.parts])
            raise _fault(part.entry, f"it watches '{watch}', which is not among its parts: {known}")


def build_head(part: Part, features: int, classes: int) -> nn.Module:
    """Build a head and check on zeros that it returns logits; raises `PluginFault`."""
    with guarded(part.entry, "built"):
        head: nn.Module = part.entry.spec.build(part.config, features, classes)
    if not isinstance(head, nn.Module):
        raise _fault(part.entry, f"build returned {type(head).__name__}, not an nn.Module")
    _check_plain(part.entry, head)
    with probing(part.entry, head):
        logits = head(torch.zeros(2, features))
        if logits.shape != (2, classes):
            raise _fault(
                part.entry,
                f"it returned {tuple(logits.shape)} for two inputs, not (2, {classes})",
            )
    return head


def preprocess_for(data_input: ImageInput, built: ImageInput, backbone: nn.Module) -> Preprocess:
    """Make the one module that turns a data set's bytes into what a backbone takes."""
    return Preprocess(data_input, built, preprocessing_of(backbone))


def preprocessing_of(backbone: nn.Module) -> Preprocessing:
    wanted: Preprocessing = getattr(backbone, "preprocessing", Preprocessing())
    return wanted


def load_state(module: nn.Module, tensors: Mapping[str, torch.Tensor], owner: str) -> None:
    """Load tensors by name.

    Raises `Unfit` where they are not those of the module, and `OutOfMemory`.
    """
    try:
        module.load_state_dict(dict(tensors))
    except Exception as error:  # a module may have code of its own for loading
        if ran_out(error):
            raise OutOfMemory(
                f"Out of memory while {owner} took its weights: {first_line(error)}."
            ) from error
        lines = str(error).splitlines() or [type(error).__name__]
        first = lines[min(1, len(lines) - 1)].strip().rstrip(".")
        raise Unfit(
            f"The weights do not fit {owner}: {first}. Was another version of its plugin installed?"
        ) from None


def load_backbone(run: Run, model: nn.Module, part: Part) -> None:
    """Load the backbone of a finished pretraining; what was its objective's is left out."""
    weights = run.load_weights()
    tensors = {n: tensor for n, tensor in weights.items() if not n.startswith("objective.")}
    load_state(model, tensors, part.entry.owner)


@contextlib.contextmanager
def guarded(entry: Entry, deed: str) -> Iterator[list[str]]:
    """Tell what a plugin's code raises in one line that names it; ours passes unchanged.

    Where memory ended that is said, and nobody is blamed: `OutOfMemory`. What it changes of what is
    everybody's is put back, and told in a note; the list that is yielded names it in the end.
    """
    changed: list[str] = []
    try:
        with as_guest(changed):
            yield changed
    except KeyboardInterrupt as error:
        who = f"{entry.kind.capitalize()} '{entry.name}' of plugin {entry.origin}"
        error.add_note(f"{who} was being {deed}{place(error)}.")
        raise
    except Unfit as error:
        raise Unfit(f"{entry.owner}: {error}") from error
    except ZooError:
        raise
    except SystemExit as error:
        raise _fault(entry, f"it ended the interpreter while it was {deed}") from error
    except Exception as error:
        if ran_out(error):
            raise OutOfMemory(
                f"Out of memory while {entry.owner} was {deed}: {first_line(error)}."
            ) from error
        if os.environ.get("ZOO_STRICT") == "1":
            raise
        text = " ".join(str(error).split())
        text = f"{text.rstrip('.')}{place(error)}"
        fault = _fault(entry, f"{type(error).__name__} while it was {deed}: {text}")
        fault._recurs = recurs(error)  # a disk may be full
        raise fault from error
    finally:
        if new := [name for name in changed if name not in entry.told]:
            entry.told.update(new)
            note(note_of_undone(f"{entry.owner} of plugin {entry.origin}", new, deed))


def refuse_lasting(owner: str, changed: Sequence[str]) -> None:
    """Refuse a forward pass that leaves a mode of torch changed: training would run on in it.

    It is put back after a trial, as all is that plugins change, but not after every step.
    """
    if lasting := [each for each in changed if each in MODES]:
        raise PluginFault(
            f"{owner}: a forward pass leaves {joined(lasting)} changed, for all that comes after."
            " Set such things within `with`, which puts them back."
        )


@contextlib.contextmanager
def probing(entry: Entry, *modules: nn.Module) -> Iterator[None]:
    """Run modules in evaluation mode without gradients; leave random numbers as they were."""
    modes = {part: part.training for module in modules for part in module.modules()}
    for module in modules:
        module.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]), guarded(entry, TRIED) as changed:
            yield
        refuse_lasting(f"{entry.owner} of plugin {entry.origin}", changed)
    finally:
        for part, mode in modes.items():
            part.training = mode


def _check_attributes(entry: Entry, backbone: Any) -> None:
    if not isinstance(backbone, nn.Module):
        raise _fault(entry, f"build returned {type(backbone).__name__}, not an nn.Module")
    if not isinstance(getattr(backbone, "encoder", None), nn.Module):
        raise _fault(entry, "it has no .encoder that is an nn.Module")
    if not isinstance(getattr(backbone, "decoder", False), nn.Module | None):
        raise _fault(entry, "its .decoder must be an nn.Module, or None where there is none")
    if not isinstance(getattr(backbone, "features", None), int):
        raise _fault(entry, "it has no .features, the width of its encoder's output")
    wanted = getattr(backbone, "preprocessing", Preprocessing())
    if not isinstance(wanted, Preprocessing):
        raise _fault(entry, f"its .preprocessing is {wanted!r}, not a Preprocessing")
    _check_plain(entry, backbone)


def _check_plain(entry: Entry, module: nn.Module) -> None:
    """Refuse what cannot be exported or saved, anywhere in a module: torch.jit, sparse tensors."""
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.layout != torch.strided:
            raise _fault(
                entry,
                f"its .{name} is a sparse tensor, which can be neither saved nor exported. Register"
                " the dense one, or its indices and values",
            )
    for path, part in module.named_modules():
        own = {path: part, **{f"{path}.{name}": each for name, each in vars(part).items()}}
        for name, each in own.items():
            if isinstance(each, torch.jit.ScriptModule | torch.jit.ScriptFunction):
                where = f"its .{name.lstrip('.')}" if name else "it"
                raise _fault(
                    entry,
                    f"{where} was made by torch.jit, and what is scripted or traced cannot be"
                    " exported. Write the plain module or function in its place, without"
                    " torch.jit.script and torch.jit.trace; training is made faster by --compile",
                )


def _fault(entry: Entry, problem: str) -> PluginFault:
    origin = f"{entry.owner} of plugin {entry.origin}"
    return PluginFault(f"{origin}: {problem.rstrip('.')}.")
