"""Every option of a run beside its default, and the commands that make the run again."""

from __future__ import annotations

import shlex
from typing import Any

from zoo.api import FinetuneConfig, PretrainConfig, SelfTrainConfig, TrainConfig
from zoo.config import Knob, knobs
from zoo.errors import ZooError
from zoo.record import PartRecord, Record
from zoo.registry import Registry
from zoo.report.facts import Group, Option

KINDS = ("dataset", "backbone", "objective", "head")
FLAGS = {"dataset": "-d", "backbone": "-b", "objective": "-o", "head": "-H"}


def groups_of(record: Record, registry: Registry) -> list[Group]:
    """Describe every option that a run was made with, in the order of declaration."""
    found = []
    for kind in KINDS:
        if part := getattr(record, kind):
            origin = f"{part.plugin} {part.version}"
            options = _options(part.options, _known(registry, kind, part))
            found.append(Group(kind=kind, name=part.name, origin=origin, options=options))
    training = _options(record.training, knobs(TrainConfig))
    found.append(Group(kind="training", name="", origin="", options=training))
    more: dict[str, tuple[dict[str, Any] | None, type]] = {
        "pretraining": (record.pretrain, PretrainConfig),
        "finetuning": (record.finetune, FinetuneConfig),
        "self-training": (record.self_train, SelfTrainConfig),
    }
    for kind, (values, config) in more.items():
        if values is not None:
            options = _options(values, knobs(config))
            found.append(Group(kind=kind, name="", origin="", options=options))
    return found


def _known(registry: Registry, kind: str, part: PartRecord) -> tuple[Knob, ...]:
    """Return the options that a component declares now; none where its plugin is gone."""
    try:
        return knobs(registry.lookup(kind, part.name, plugin=part.plugin).spec.config)
    except (ZooError, TypeError):
        return ()


def _options(values: dict[str, Any], known: tuple[Knob, ...]) -> list[Option]:
    by_name = {knob.name: knob for knob in known}
    return [_option(name, value, by_name.get(name)) for name, value in values.items()]


def _option(name: str, value: Any, knob: Knob | None) -> Option:
    if knob is None:
        return Option(name=name, value=_text(value), default=None)
    default = "required" if knob.required else knob.format(knob.default)
    return Option(name=name, value=knob.format(value), default=default, help=knob.help)


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(_text(each) for each in value)
    if isinstance(value, bool):
        return str(value).lower()
    return "none" if value is None else str(value)


def commands_of(record: Record, parents: list[Record], registry: Registry) -> list[str]:
    """Return the commands that make a run again, first those that it came of, as far as known.

    `parents` are the nearest first.
    """
    made: list[str] = []
    for each in [*reversed(parents), record]:
        source = "latest" if made else each.parent.run if each.parent else ""
        made.append(_command(each, registry, source))
    return made


def dataset_typed(record: Record, registry: Registry) -> list[str]:
    """Return the words that name a run's data set and its options: `--dataset folder -d path=x`."""
    group = next(group for group in groups_of(record, registry) if group.kind == "dataset")
    return ["--dataset", group.name, *_pairs(group)]


def _command(record: Record, registry: Registry, source: str) -> str:
    """Write one training as typed: what differs from the defaults, and the threads it had."""
    groups = {group.kind: group for group in groups_of(record, registry)}
    files = [part.plugin for kind in KINDS if (part := getattr(record, kind))]
    stems = dict.fromkeys(name[5:] for name in files if name.startswith("file:"))
    words = ["zoo", *(word for stem in stems for word in ("--plugin", f"{stem}.py"))]
    if record.self_train is not None:
        own = Group(kind="training", name="", origin="", options=_beside(groups["training"]))
        words += ["finetune", source, "--self-train", *_flags(own, knobs(TrainConfig))]
        words += _flags(groups["self-training"], knobs(SelfTrainConfig))
        return shlex.join(words + _threads(record))
    if record.kind == "pretrain":
        words += ["pretrain", record.backbone.name, *_pairs(groups["backbone"])]
    elif source:
        words += ["finetune", source]
    else:
        words += ["finetune", "--backbone", record.backbone.name, *_pairs(groups["backbone"])]
    for kind in ("dataset", "objective", "head"):
        if kind in groups:
            words += [f"--{kind}", groups[kind].name, *_pairs(groups[kind])]
    words += _flags(groups["training"], knobs(TrainConfig))
    if "finetuning" in groups:
        words += _flags(groups["finetuning"], knobs(FinetuneConfig))
    if "pretraining" in groups:
        words += _flags(groups["pretraining"], knobs(PretrainConfig))
    return shlex.join(words + _threads(record))


def _threads(record: Record) -> list[str]:
    # As many as torch found: elsewhere that would be another number.
    return ["--threads", str(record.threads)] if record.training.get("threads") is None else []


def _beside(group: Group) -> list[Option]:
    """Return the training options of a self-training that are not those of its finetuning."""
    return [option for option in group.options if option.name not in ("seed", "validation")]


def _pairs(group: Group) -> list[str]:
    found = []
    for option in group.options:
        if option.changed or option.default is None:
            found += [FLAGS[group.kind], f"{option.name}={option.value}"]
    return found


def _flags(group: Group, known: tuple[Knob, ...]) -> list[str]:
    by_name = {knob.name: knob for knob in known}
    words: list[str] = []
    for option in group.options:
        knob = by_name.get(option.name)
        if knob is None or not option.changed:
            continue
        if knob.kind is bool:
            words.append(knob.flag if option.value == "true" else f"--no-{knob.flag[2:]}")
        else:
            words += [knob.flag, option.value]
    return words
