"""Recipes over their seeds: one JSON line a classifier, and the table that the README shows.

`python benchmarks/recipes.py run NAME…` runs recipes seed by seed, goes on from what is finished,
and adds a line for each classifier to `benchmarks/results/recipes/cells.jsonl`.
`python benchmarks/recipes.py table` renders the lines; `--write README.md` puts the table there.
Lines of a recipe whose settings were other ones are kept, and not shown.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pages
from report import plainly

from zoo import pipeline, runs
from zoo.api import RecipeSpec
from zoo.cli.options import progress
from zoo.config import to_json
from zoo.evidence import ledger
from zoo.evidence.rows import interval, markdown, percent
from zoo.evidence.spread import Spread, paired, spread
from zoo.machine import commit, cores, processor
from zoo.pipeline import Workspace
from zoo.pipeline.recipes import PRETRAINED, SCRATCH, SELF_TRAINED, RecipeResult
from zoo.registry import Registry

RESULTS = Path(__file__).parent / "results" / "recipes"
HEADS = ("recipe", "labels", "weights", "method", "test accuracy", "seeds", "s / seed")
COMMAND = "python benchmarks/recipes.py table"
LEAST = 3
"""Seeds of a row that is shown."""
COMPONENTS = ("dataset", "pretrain_dataset", "backbone", "objective", "head")
CONFIGS = ("pretraining", "finetuning", "finetune", "scratch_finetuning", "scratch_finetune",
           "self_training", "self_train")  # fmt: skip


def settings_of(spec: RecipeSpec) -> str:
    """Digest everything of a recipe that decides its results, its seeds aside.

    What is at its default is left out: an option that is added later changes no old digest.
    """
    parts = {name: getattr(spec, name) for name in COMPONENTS}
    content: dict[str, Any] = {
        name: None if part is None else [part.name, dict(part.options)]
        for name, part in parts.items()
    }
    configs = {name: getattr(spec, name) for name in CONFIGS}
    for name, config in configs.items():
        content[name] = None if config is None else changed(config)
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def changed(config: Any) -> dict[str, Any]:
    """Return the options of a config that are not at their defaults."""
    usual = to_json(type(config)())
    return {name: value for name, value in to_json(config).items() if value != usual[name]}


def keys_of(spec: RecipeSpec, seed: int) -> list[str]:
    """Return the keys of the lines that one seed of a recipe comes to."""
    methods = [PRETRAINED, SCRATCH] if spec.scratch else [PRETRAINED]
    steps = ["", SELF_TRAINED] if spec.self_training else [""]
    settings = settings_of(spec)
    return [f"{spec.name}/{settings}/{name}{step}/{seed}" for step in steps for name in methods]


def lines_of(spec: RecipeSpec, result: RecipeResult) -> Iterator[dict[str, Any]]:
    """Describe each classifier of one seed's result."""
    seed = result.seeds[0]
    for method in result.methods:
        record = runs.load(result.runs_folder / method.runs[0])
        weights = record.load_weights()
        settings = settings_of(spec)
        yield {
            "key": f"{spec.name}/{settings}/{method.name}/{seed}",
            "recipe": spec.name,
            "settings": settings,
            "dataset": result.dataset,
            "labels": spec.finetune.labels or record.record.metrics.get("train_examples"),
            "all_labels": spec.finetune.labels is None,
            "validation_examples": int(record.record.metrics.get("validation_examples", 0)),
            "method": method.name,
            "seed": seed,
            "accuracy": method.accuracies[0],
            "validation": method.validation[0] if method.validation else None,
            "test_readings": len(record.record.tests),
            "parameters": sum(t.numel() for n, t in weights.items() if trained(n)),
            "seconds": round(method.seconds[0], 1),
            "run": method.runs[0],
            "weights_sha256": record.record.weights_sha256,
            "commit": commit(),
            "versions": record.record.versions,
            "processor": processor(),
            "cores": cores(),
            "threads": record.record.threads,
            "device": record.record.device,
            "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }


def trained(name: str) -> bool:
    """Say whether a tensor of a classifier is a weight: running statistics are not trained."""
    return not name.endswith(("running_mean", "running_var", "num_batches_tracked"))


@dataclasses.dataclass(frozen=True)
class Shown:
    """A recipe's method over its seeds, as a row."""

    recipe: str
    labels: str
    parameters: int
    method: str
    accuracy: Spread
    seconds: float


def shown(cells: list[dict[str, Any]]) -> list[Shown]:
    """Return one row a recipe and method, where there are three seeds of it or more."""
    names = list(dict.fromkeys((cell["recipe"], cell["method"]) for cell in cells))
    found = []
    for name, method in names:
        own = [c for c in cells if (c["recipe"], c["method"]) == (name, method)]
        if len(own) < LEAST:
            continue
        found.append(
            Shown(
                recipe=name,
                labels=_labels(own[0]),
                parameters=own[0]["parameters"],
                method=method,
                accuracy=spread([cell["accuracy"] for cell in own]),
                seconds=spread([cell["seconds"] for cell in own]).mean,
            )
        )
    return found


def _labels(cell: dict[str, Any]) -> str:
    """Say how many examples carried a label, and how many more were held out to choose on."""
    trained_on = f"{'all ' if cell['all_labels'] else ''}{cell['labels']:,}"
    held = cell["validation_examples"]
    return f"{trained_on}, and {held:,} to choose on" if held else trained_on


def changes(cells: list[dict[str, Any]]) -> Iterator[str]:
    """Say for each recipe what pretraining changed, paired by seed."""
    for name in dict.fromkeys(cell["recipe"] for cell in cells):
        for after in ("", SELF_TRAINED):
            ours, theirs = (
                {
                    c["seed"]: c["accuracy"]
                    for c in cells
                    if (c["recipe"], c["method"]) == (name, method + after)
                }
                for method in (PRETRAINED, SCRATCH)
            )
            change = paired(ours, theirs)
            if (
                change
                and change.count >= LEAST
                and change.low is not None
                and change.high is not None
            ):
                yield (
                    f"`{name}`{after}: pretraining changed it by {100 * change.mean:+.2f} points,"
                    f" 95 % interval {interval(change)} ({change.count} seeds)."
                )


def render(cells: list[dict[str, Any]]) -> str:
    """Write the table, what pretraining changed, and where it was measured, as Markdown."""
    rows = []
    for row in shown(cells):
        rows.append(
            (
                f"`{row.recipe}`",
                row.labels,
                f"{row.parameters:,}",
                row.method,
                percent(row.accuracy),
                str(row.accuracy.count),
                f"{row.seconds:,.0f}",
            )
        )
    said = [f"- {line}" for line in changes(cells)]
    where = sorted({f"{c['cores']} cores of {c['processor']}" for c in cells})
    versions = sorted({f"torch {c['versions'].get('torch')}" for c in cells})
    note = f"Measured on {' and '.join(where)}, {' and '.join(versions)}; s / seed is all training."
    return "\n".join([markdown(HEADS, rows), *said, *([""] if said else []), note, ""])


def page_of(cells: dict[str, dict[str, Any]]) -> str:
    """Write what a page shows: the table of the recipes as they stand, and what it leaves out."""
    now = current(cells)
    kept = {cell["key"] for cell in now}
    before = [cell for key, cell in cells.items() if key not in kept]
    if not before:
        return render(now)
    names = ", ".join(dict.fromkeys(f"`{cell['recipe']}`" for cell in before))
    return (
        f"{render(now)}\n{len(before)} lines of settings that were replaced are kept, and not"
        f" shown: {names}.\n"
    )


def current(cells: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the cells of recipes as they stand now, by recipe, method and seed."""
    entries = Registry.installed().entries("recipe")
    wanted = {entry.name: settings_of(entry.spec) for entry in entries}
    order = list(wanted)
    methods = [PRETRAINED, SCRATCH, PRETRAINED + SELF_TRAINED, SCRATCH + SELF_TRAINED]
    kept = [cell for cell in cells.values() if wanted.get(cell["recipe"]) == cell["settings"]]
    return sorted(
        kept, key=lambda c: (order.index(c["recipe"]), methods.index(c["method"]), c["seed"])
    )


@click.group()
def main() -> None:
    """Measure recipes, and render what was measured."""


@main.command()
@click.argument("names", nargs=-1, required=True)
@click.option("--seeds", help="Seeds, as 0,1,2.  [default: the recipe's own]")
@click.option("--threads", type=int, help="CPU threads.  [default: the recipe's own]")
@click.option("--runs", "folder", type=click.Path(path_type=Path), help="Folder of the runs.")
@click.option("--data-root", type=click.Path(path_type=Path))
@click.option("--results", type=click.Path(path_type=Path), default=RESULTS)
def run(
    names: tuple[str, ...],
    seeds: str | None,
    threads: int | None,
    folder: Path | None,
    data_root: Path | None,
    results: Path,
) -> None:
    """Run recipes seed by seed, and write a line for each classifier."""
    workspace = Workspace(runs=folder, data=data_root)
    results.mkdir(parents=True, exist_ok=True)
    with plainly(), progress(False):
        for name in names:
            spec: RecipeSpec = workspace.registry.lookup("recipe", name).spec
            wanted = [int(seed) for seed in seeds.split(",")] if seeds else spec.seeds
            done = ledger.read(results)
            for seed in wanted:
                if all(key in done for key in keys_of(spec, seed)):
                    continue
                result = pipeline.run(name, seeds=[seed], threads=threads, workspace=workspace)
                for line in lines_of(spec, result):
                    if line["key"] not in done:
                        ledger.append(results, line)
                    print(f"{name}, {line['method']}, seed {seed}: {line['accuracy']:.4f}")


@main.command()
@click.option("--write", "page", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--results", type=click.Path(path_type=Path), default=RESULTS)
def table(page: Path | None, results: Path) -> None:
    """Print the table, or put it into a page between its marks."""
    pages.show(page_of(ledger.read(results)), page, COMMAND)


if __name__ == "__main__":
    main()
