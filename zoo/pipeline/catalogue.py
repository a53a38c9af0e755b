"""`list`, `show`, `plugins` and `runs`: what is registered, and what lies on disk."""

from __future__ import annotations

import builtins
import dataclasses
from typing import Any

from zoo import runs as run_folders
from zoo.config import knobs, to_json
from zoo.errors import UnknownName, did_you_mean
from zoo.pipeline.workspace import Workspace
from zoo.registry import KINDS, Entry, Plugin
from zoo.runs import Run


@dataclasses.dataclass(frozen=True)
class Option:
    """One option of a component, as a person reads it."""

    name: str
    default: str
    allowed: str
    help: str


@dataclasses.dataclass(frozen=True)
class Shown:
    """A component and all of its options; of a recipe, what it consists of."""

    kind: str
    name: str
    summary: str
    plugin: str
    version: str
    options: builtins.list[Option]
    content: dict[str, Any]


def kind_of(text: str) -> str:
    """Return the kind that a word names, singular or plural; raises `UnknownName`."""
    kind = text.removesuffix("s")
    if kind not in KINDS:
        raise UnknownName(
            f"Unknown kind '{text}'.{did_you_mean(text, KINDS)} Kinds: {', '.join(KINDS)}."
        )
    return kind


def list(
    kind: str | None = None, *, workspace: Workspace | None = None
) -> dict[str, builtins.list[Entry]]:
    """Return the registered components by kind, or those of one kind."""
    workspace = workspace or Workspace()
    kinds = KINDS if kind is None else (kind_of(kind),)
    return {each: workspace.registry.entries(each) for each in kinds}


def show(kind: str, name: str, *, workspace: Workspace | None = None) -> Shown:
    """Describe a component: every option, its default and what it allows."""
    workspace = workspace or Workspace()
    entry = workspace.registry.lookup(kind_of(kind), name)
    is_recipe = entry.kind == "recipe"
    options = [] if is_recipe else [_option(knob) for knob in knobs(entry.spec.config)]
    content = _recipe(entry.spec) if is_recipe else {}
    summary = entry.spec.summary
    return Shown(entry.kind, name, summary, entry.plugin, entry.version, options, content)


def plugins(*, workspace: Workspace | None = None) -> builtins.list[Plugin]:
    """Return every plugin found, the failed ones with their cause."""
    return builtins.list((workspace or Workspace()).registry.plugins)


def runs(*, workspace: Workspace | None = None) -> tuple[builtins.list[Run], builtins.list[str]]:
    """Return the runs, oldest first, and what is wrong with folders that cannot be read."""
    return run_folders.every((workspace or Workspace()).runs_root)


def _option(knob: Any) -> Option:
    default = "required" if knob.required else knob.format(knob.default)
    return Option(knob.name, default, knob.allowed, knob.help)


def _recipe(spec: Any) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for field in ("pretrain_dataset", "dataset", "backbone", "objective", "head"):
        component = getattr(spec, field)
        if component is not None:
            content[field] = {"name": component.name, "options": dict(component.options)}
    fields = ("pretraining", "finetuning", "finetune", "scratch_finetuning", "scratch_finetune")
    own = ("self_training", "self_train") if spec.self_training else ()
    for field in [name for name in (*fields, *own) if getattr(spec, name) is not None]:
        content[field] = to_json(getattr(spec, field))
    return content | {"scratch": spec.scratch, "seeds": builtins.list(spec.seeds)}
