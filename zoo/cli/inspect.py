"""`zoo inspect MODEL.onnx`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import click

from zoo.cli.options import common
from zoo.cli.output import percent, print_json, say, table
from zoo.untrusted import parse_json

if TYPE_CHECKING:
    from zoo.export.inspection import Inspection

SHARES = frozenset({"accuracy", "agreement"})
POINTS = frozenset({"accuracy_drop", "max_drop"})


@click.command()
@click.argument("model", type=click.Path(path_type=Path), metavar="MODEL.onnx")
@click.option("--diff", type=click.Path(path_type=Path), help="Show in what this file differs.")
@click.option("--meta", is_flag=True, help="Show all metadata.")
@common()
def inspect(model: Path, diff: Path | None, meta: bool, as_json: bool) -> None:
    """Show what an ONNX file holds, without running it."""
    from zoo.export.inspection import ending, ports, tally
    from zoo.pipeline import inspect as twin

    found, differences = twin(model, diff=diff)
    if as_json:
        compared = {"differences": differences} if diff is not None else {}
        print_json({**dataclasses.asdict(found), **compared})
        return
    if diff is not None:
        if not differences:
            say(f"{model} and {diff} are the same, byte by byte.")
            return
        rows = [(d.what, _side(d.what, d.one), _side(d.what, d.other)) for d in differences]
        table(("", str(model), str(diff)), rows)
        return
    oldest = found.oldest_onnxruntime
    runtime = f"onnxruntime {oldest} and later" if oldest else "no onnxruntime that was measured"
    sealed = "intact" if found.sealed else "none: not exported by zoo"
    shown = {
        "file": f"{found.file}  {found.bytes:,} bytes",
        "seal": sealed,
        "sha256": found.sha256,
        "made by": found.producer or "unknown",
        "loads in": f"{runtime} (opset {found.opset}, IR {found.ir_version})",
        "fit for": _fits(found),
        "input": ports(found.inputs),
        "outputs": ports(found.outputs),
        "labels": ", ".join(found.labels) or "none",
        **({"preprocessing": ending(found)} if found.sealed else {}),
        "operators": tally(found.operators),
        "parameters": f"{found.parameters:,}",
    }
    for key in ("zoo.dataset", "zoo.metrics", "zoo.precision", "zoo.quantization", "zoo.run"):
        if key in found.metadata:
            shown[key.removeprefix("zoo.")] = _figures(found.metadata[key])
    if found.sealed and "zoo.left_out" in found.metadata:
        count = found.metadata["zoo.left_out"]
        shown["metrics"] += f", without {count} test examples that the run has seen"
    if "license" in found.metadata:
        shown["license"] = found.metadata["license"]
    if meta:
        shown |= found.metadata
    table(("", ""), list(shown.items()))


def _fits(found: Inspection) -> str:
    """Name the targets whose profile the file meets, and the one in which it was proved."""
    if not found.fits:
        return "none of the targets"
    target = found.metadata.get("zoo.target")
    proved = f"proved in {target} alone" if target else "it names none that it was proved in"
    return f"{', '.join(found.fits)} (by operators, opset and batch; {proved})"


def _figures(text: str) -> str:
    """Write a JSON object of figures for a person: accuracy 91.83 %, accuracy drop 0.28 points."""
    try:
        value = parse_json(text)
    except ValueError:
        return text
    if not isinstance(value, dict):
        return text
    return ", ".join(f"{key.replace('_', ' ')} {_figure(key, v)}" for key, v in value.items())


def _side(what: str, text: str) -> str:
    """Write what one of two files has: the figures of its metadata as the other table does."""
    key = what.rpartition(".")[2]
    if what == key or key not in SHARES | POINTS:
        return text
    try:
        return _figure(key, parse_json(text))
    except ValueError:
        return text


def _figure(key: str, value: object) -> str:
    """Write one figure: shares of one in percent, a difference of two in points."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if key in POINTS:
        return f"{value * 100:.2f} points"
    return percent(value) if key in SHARES else f"{value:.4g}"
