"""What was fixed ahead, in one paragraph: the caption of table and figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from zoo.api import FinetuneConfig, SelfTrainConfig, TrainConfig
from zoo.config import knobs
from zoo.pipeline.bench.plan import ONLY_LABELS

ALWAYS = ("epochs", "batch_size", "lr", "optimizer")

ELSEWHERE = ("validation", "keep", "patience", "labels", "threads", "device", "seed")


def caption(
    fixed: dict[str, Any], machines: Sequence[dict[str, Any]], cells: Sequence[dict[str, Any]]
) -> str:
    """Say in one paragraph what was fixed ahead: the caption of table and figure.

    How many examples were pretrained on is what the runs of the `cells` recorded.
    """
    methods = {each["label"]: each for each in fixed["methods"]}
    trained = [each["objective"] for each in methods.values() if each["objective"]]
    objectives = ", ".join(dict.fromkeys(map(said, trained)))
    least = f", at least {fixed['steps']:,} steps" if fixed["steps"] else ""
    own = "".join(
        f"; of {name}: {_pairs(each['overrides'])}"
        for name, each in methods.items()
        if each["overrides"] and not each.get("self_trained")
    )
    taught = fixed.get("self_training")
    further = f" Self-training: {_pairs(taught)}." if taught else ""
    other = fixed.get("pretrain_dataset")
    trained_on = [cell for cell in cells if cell.get("runs", {}).get("pretraining")]
    counts = {cell.get("pretraining_examples") for cell in trained_on}
    count = counts.pop() if len(counts) == 1 else None
    if count is None and other is None:  # cells of an older zoo: the training split is known
        count = fixed["examples"]
    on = "examples" if count is None else f"{count:,} examples"
    on += "" if other is None else f" of {said(other)}"
    lent = ", ".join(fixed.get("teachers") or ())
    uncounted = f" Not counted: the labels that a teacher learnt from ({lent})." if lent else ""
    held = fixed["pretraining"]["validation"]
    on += f" but those held out ({held:.0%})" if 0 < held < 1 else ""
    on += f" but {held:,.0f} held out" if held >= 1 else ""
    where = "; ".join(
        f"{each['processor']}, {each['threads']} {'thread' if each['threads'] == 1 else 'threads'},"
        f" torch {each['versions'].get('torch')}"
        for each in machines[:1]
    )
    return (
        f"{said(fixed['backbone'])} and head {said(fixed['head'])} on {fixed['dataset']['name']};"
        f" {len(fixed['seeds'])} seeds ({', '.join(map(str, fixed['seeds']))})."
        f" Objectives: {objectives}. {ONLY_LABELS}{uncounted} Each seed draws its own, the same for"
        " every method. Settings were fixed ahead. Pretraining, on all"
        f" {on} without labels: {_pairs(fixed['pretraining'])}."
        f" Finetuning: {_pairs(fixed['finetuning'] | fixed['finetune'])}{least}{own}.{further}"
        f" {where + '.' if where else ''}"
    ).rstrip()


def _pairs(options: Mapping[str, Any]) -> str:
    """Write training options: those that are no defaults, and the four that one asks for."""
    configs = (TrainConfig, FinetuneConfig, SelfTrainConfig)
    usual = {knob.name: knob.default for config in configs for knob in knobs(config)}
    shown = {
        name: value
        for name, value in options.items()
        if name in ALWAYS or (usual.get(name) != value and name not in ELSEWHERE)
    }
    return ", ".join(f"{name} {value}" for name, value in shown.items())


def said(part: dict[str, Any]) -> str:
    options = ", ".join(f"{name}={_text(value)}" for name, value in part["options"].items())
    return f"{part['name']} ({options})" if options else str(part["name"])


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
