"""`zoo inspect MODEL.onnx`."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from zoo.cli.options import common
from zoo.cli.output import print_json, table


@click.command()
@click.argument("model", type=click.Path(path_type=Path), metavar="MODEL.onnx")
@click.option("--diff", type=click.Path(path_type=Path), help="Show in what this file differs.")
@click.option("--meta", is_flag=True, help="Show all metadata.")
@common()
def inspect(model: Path, diff: Path | None, meta: bool, as_json: bool) -> None:
    """Show what an ONNX file holds, without running it."""
    from zoo.export.inspection import ports
    from zoo.pipeline import inspect as twin

    found, differences = twin(model, diff=diff)
    if as_json:
        compared = {"differences": differences} if diff is not None else {}
        print_json({**dataclasses.asdict(found), **compared})
        return
    if diff is not None:
        if not differences:
            click.echo(f"{model} and {diff} are the same, byte by byte.")
            return
        rows = [(each.what, each.one, each.other) for each in differences]
        table(("", str(model), str(diff)), rows)
        return
    oldest = found.oldest_onnxruntime
    runtime = f"onnxruntime {oldest} and later" if oldest else "no onnxruntime that was measured"
    sealed = "intact" if found.sealed else "none: not exported by zoo"
    operators = ", ".join(
        name if count == 1 else f"{name} × {count}" for name, count in found.operators.items()
    )
    shown = {
        "file": f"{found.file}  {found.bytes:,} bytes",
        "seal": sealed,
        "sha256": found.sha256,
        "made by": found.producer or "unknown",
        "loads in": f"{runtime} (opset {found.opset}, IR {found.ir_version})",
        "fit for": ", ".join(found.fits) or "none of the targets",
        "input": ports(found.inputs),
        "outputs": ports(found.outputs),
        "labels": ", ".join(found.labels) or "none",
        "operators": operators,
        "parameters": f"{found.parameters:,}",
    }
    for key in ("zoo.dataset", "zoo.metrics", "zoo.precision", "zoo.run", "license"):
        if key in found.metadata:
            shown[key.removeprefix("zoo.")] = found.metadata[key]
    if meta:
        shown |= found.metadata
    table(("", ""), list(shown.items()))
