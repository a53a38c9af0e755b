"""`zoo bench labels …` and `zoo bench table DIR`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from zoo.api import Component, FinetuneConfig, SelfTrainConfig, TrainConfig
from zoo.cli.main import registry_of
from zoo.cli.options import (
    ComponentName,
    F,
    common,
    component,
    component_options,
    progress,
    workspace_of,
)
from zoo.cli.output import print_json, say, say_text, table
from zoo.cli.recipe import Seeds
from zoo.config import parse_pairs
from zoo.machine import MOST_THREADS

FOLDER = click.Path(path_type=Path)


class LabelCounts(click.ParamType):
    """Counts of labels, separated by commas; `all` is every label."""

    name = "n,…"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int | None, ...]:
        if not isinstance(value, str):
            return tuple(value)
        words = [word.strip().lower() for word in value.split(",")]
        if not all(word == "all" or (word.isdecimal() and int(word)) for word in words):
            self.fail(f"{value!r} is not allowed. Allowed: counts from 1, or all: 10,100,all")
        return tuple(None if word == "all" else int(word) for word in words)


@click.group()
def bench() -> None:
    """Compare training from scratch with pretraining, at several numbers of labels.

    zoo bench labels --dataset digits --backbone mlp --objectives denoise --labels 20,100,all
    """


def _training(name: str, what: str) -> Callable[[F], F]:
    return click.option(
        f"--{name}",
        f"{name.replace('-', '_')}_pairs",
        multiple=True,
        metavar="KEY=VALUE",
        help=f"{what}; repeatable.",
    )


@bench.command(short_help="Train every method with N labels and every seed; compare them.")
@component_options("--dataset", "-d", "dataset", None)
@click.option(
    "--pretrain-dataset",
    type=ComponentName("dataset"),
    help="The dataset that pretraining reads.  [default: that of --dataset]",
)
@component_options("--backbone", "-b", "backbone", None)
@component_options("--head", "-H", "head", None)
@click.option("--objectives", metavar="NAME,…", help="What pretrains, each a row; see: zoo list.")
@click.option(
    "-p",
    "objective_pairs",
    multiple=True,
    metavar="NAME.KEY=VALUE",
    help="Set an option of an objective; repeatable. See: zoo show objective NAME",
)
@click.option(
    "--labels",
    type=LabelCounts(),
    default="100,all",
    show_default=True,
    help="How many examples carry a label, spread evenly over the classes.",
)
@click.option("--seeds", type=Seeds(), default="5", show_default=True, help="How many, or which.")
@_training("pretrain", "A training option of every pretraining")
@_training("finetune", "A training or finetuning option of every method")
@_training("scratch", "One of --finetune that holds for the row scratch alone")
@_training("self-train", "A training or self-training option; each method goes on to train so")
@click.option(
    "--steps",
    type=click.IntRange(0),
    default=0,
    help="Least finetuning steps: epochs are raised where labels are few.",
)
@click.option(
    "--recipe", type=ComponentName("recipe"), help="Take what is not given from a recipe."
)
@click.option("-o", "--output", type=FOLDER, metavar="DIR", help="Folder of the results.")
@click.option(
    "--jobs", type=click.IntRange(1), help="Cells at a time, a process each.  [default: 1]"
)
@click.option(
    "--threads",
    type=click.IntRange(1, MOST_THREADS),
    default=1,
    show_default=True,
    help="Of a cell.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, mps, …")
@click.option(
    "--launcher",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Processes of this machine, or a Ray cluster's.",
)
@common(runs=True, data=True, quiet=True)
@click.pass_context
def labels(ctx: click.Context, /, **params: Any) -> None:
    """Train a model from scratch and after each objective, with N labels and with every seed.

    With N labels, N is everything that carries one: nothing is held out or chosen on labels.
    Pretraining sees every training example without its label, once for each seed.
    Typed again, it goes on: finished cells are kept, the one that was stopped continues.
    """
    both = (TrainConfig, FinetuneConfig)
    with progress(params["quiet"]):
        from zoo.pipeline import bench_labels as twin

        found = twin(
            _optional(ctx, "dataset", params),
            _optional(ctx, "backbone", params),
            pretrain_dataset=params["pretrain_dataset"],
            head=_optional(ctx, "head", params),
            objectives=_objectives(ctx, params["objectives"], params["objective_pairs"]),
            labels=params["labels"],
            seeds=params["seeds"],
            pretrain=parse_pairs(TrainConfig, params["pretrain_pairs"], "pretrain"),
            finetune=parse_pairs(both, params["finetune_pairs"], "finetune"),
            scratch=parse_pairs(both, params["scratch_pairs"], "scratch"),
            self_train=parse_pairs(
                (TrainConfig, SelfTrainConfig), params["self_train_pairs"], "self-train"
            ),
            workspace=workspace_of(ctx, params["runs_root"], params["data_root"]),
            steps=params["steps"],
            recipe=params["recipe"],
            output=params["output"],
            jobs=params["jobs"],
            threads=params["threads"],
            device=params["device"],
            launcher=params["launcher"],
        )
    _report(found, params["as_json"])


@bench.command("table", short_help="Write table and figure anew from finished cells.")
@click.argument("folder", metavar="DIR", type=FOLDER)
@common()
def table_(folder: Path, as_json: bool) -> None:
    """Write table, figure and bench.json anew from the cells in DIR; nothing is trained."""
    from zoo.pipeline import bench_table as twin

    _report(twin(folder), as_json)


def _optional(ctx: click.Context, kind: str, params: dict[str, Any]) -> Component | None:
    name, pairs = params[kind], params[f"{kind}_pairs"]
    if name is None and pairs:
        raise click.UsageError(f"The options of a {kind} go with --{kind} NAME.")
    return None if name is None else component(ctx, kind, name, pairs)


def _objectives(ctx: click.Context, names: str | None, pairs: tuple[str, ...]) -> list[Component]:
    """Read `a,b` and `a.key=value` as components."""
    wanted = [name.strip() for name in names.split(",")] if names else []
    own: dict[str, list[str]] = {name: [] for name in wanted}
    for pair in pairs:
        name, dot, rest = pair.partition(".")
        if not dot or name not in own:
            known = ", ".join(own) or "none"
            raise click.UsageError(
                f"-p {pair}: write NAME.KEY=VALUE with a NAME of --objectives: {known}."
            )
        own[name].append(rest)
    found = []
    for name in wanted:
        entry = registry_of(ctx).lookup("objective", name)
        found.append(Component(name, **parse_pairs(entry.spec.config, own[name], entry.owner)))
    return found


def _report(found: Any, as_json: bool) -> None:
    if as_json:
        print_json({**found.to_json(), "folder": str(found.folder)})
        return
    from zoo.evidence.rows import HEADS, cells

    table(HEADS, [cells(row) for row in found.rows])
    say(found.summary)
    for note in found.notes:
        say_text(f"Note: {note}")
    say(f"Cells  {len(found.cells)} of {found.wanted}", f"Folder {found.folder}")
