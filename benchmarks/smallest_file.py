"""A recipe's exported files, one a seed: how large each is, and how often it errs.

`python benchmarks/smallest_file.py` runs `mnist-nano` with its seeds and exports every one of them
in fp32, int8 and fp16. The test split is read for that, never to choose.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from report import machine, plainly, print_machine

from zoo import pipeline
from zoo.cli.output import table
from zoo.export.golden import proof_path
from zoo.pipeline import ExportConfig, Workspace

CONFIGS = {
    "fp32": ExportConfig(),
    "int8": ExportConfig(int8=True),
    "fp16": ExportConfig(fp16=True),
}


@dataclasses.dataclass(frozen=True)
class File:
    """A proved file; the error is that of the file itself on the test split, 0..1."""

    precision: str
    seed: int
    bytes: int
    error: float
    made: str


def files(recipe: str, workspace: Workspace, precisions: tuple[str, ...]) -> Iterator[File]:
    """Run a recipe, or go on from what is finished, and export each seed."""
    result = pipeline.run(recipe, workspace=workspace)
    parents = set(result.pretrainings)
    newest = {
        run.record.seed: run
        for run in pipeline.runs(workspace=workspace)[0]
        if run.record.parent is not None and run.record.parent.run in parents
    }
    for _, run in sorted(newest.items()):
        for precision in precisions:
            exported = pipeline.export(
                run, config=CONFIGS[precision], runtimes=["none"], workspace=workspace
            )
            proof = json.loads(proof_path(exported.model).read_text())
            kept = [each for each in exported.candidates if each.kept]
            yield File(
                precision=precision,
                seed=run.record.seed,
                bytes=exported.bytes,
                error=1 - proof["comparison"]["onnx_accuracy"],
                made=kept[0].name if kept else precision,
            )


def summary(found: list[File]) -> list[dict[str, Any]]:
    rows = []
    for precision in CONFIGS:
        some = [file for file in found if file.precision == precision]
        if some:
            errors = [file.error for file in some]
            rows.append(
                {
                    "precision": precision,
                    "seeds": [file.seed for file in some],
                    "errors": errors,
                    "mean": statistics.fmean(errors),
                    "deviation": statistics.stdev(errors) if len(errors) > 1 else None,
                    "bytes": [file.bytes for file in some],
                    "made": [file.made for file in some],
                }
            )
    return rows


@click.command()
@click.option("--recipe", default="mnist-nano", show_default=True)
@click.option("--runs", type=click.Path(path_type=Path), help="Where finished runs are kept.")
@click.option("--data-root", type=click.Path(path_type=Path))
@click.option(
    "--precision", "precisions", multiple=True, type=click.Choice(list(CONFIGS)), help="[all]"
)
@click.option("--json", "as_json", is_flag=True)
def main(
    recipe: str,
    runs: Path | None,
    data_root: Path | None,
    precisions: tuple[str, ...],
    as_json: bool,
) -> None:
    """Print the size and the test error of a recipe's files."""
    with plainly():
        workspace = Workspace(runs=runs, data=data_root)
        rows = summary(list(files(recipe, workspace, precisions or tuple(CONFIGS))))
    if as_json:
        print(json.dumps({"machine": machine(), "recipe": recipe, "rows": rows}, indent=2))
        return
    print_machine(machine())
    shown = []
    for row in rows:
        deviation = "" if row["deviation"] is None else f" ± {row['deviation'] * 100:.3f}"
        each = ", ".join(f"{error * 100:.2f}" for error in row["errors"])
        sizes = f"{min(row['bytes']):,} to {max(row['bytes']):,}"
        made = ", ".join(dict.fromkeys(row["made"]))
        shown.append((row["precision"], f"{row['mean'] * 100:.3f}{deviation} %", each, sizes, made))
    table(("file", "test error", "by seed", "bytes", "made by"), shown)


if __name__ == "__main__":
    main()
