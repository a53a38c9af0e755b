"""`zoo export RUN`, `zoo validate MODEL.onnx` and `zoo predict MODEL.onnx IMAGE…`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from zoo.cli.options import RunName, common, progress, workspace_of
from zoo.cli.output import percent, print_json, table

MODEL = click.argument("model", type=click.Path(path_type=Path), metavar="MODEL.onnx")


@click.command()
@click.argument("run", type=RunName())
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="The file; default: in the run's folder.",
)
@common(runs=True, data=True, quiet=True)
@click.pass_context
def export(
    ctx: click.Context,
    run: str,
    output: Path | None,
    runs_root: Path | None,
    data_root: Path | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Write a finetuned classifier as one ONNX file, once onnxruntime has proved it."""
    with progress(quiet):
        from zoo.pipeline import export as twin

        found = twin(run, output, workspace=workspace_of(ctx, runs_root, data_root))
    if as_json:
        print_json(
            {"model": str(found.model), "bytes": found.bytes, "proof": found.proof.to_json()}
        )
        return
    _print_proof(found.proof)
    click.echo(f"{found.model}  {found.bytes:,} bytes, proved")
    click.echo(f"Next: zoo predict {found.model} PICTURE…")


@click.command()
@MODEL
@click.option(
    "--run", type=RunName(), help="The run it came from, where it is not found by itself."
)
@common(runs=True, data=True, quiet=True)
@click.pass_context
def validate(
    ctx: click.Context,
    model: Path,
    run: str | None,
    runs_root: Path | None,
    data_root: Path | None,
    quiet: bool,
    as_json: bool,
) -> int:
    """Prove an exported file once more: PyTorch against onnxruntime on the whole test split."""
    with progress(quiet):
        from zoo.pipeline import validate as twin

        proof = twin(model, run=run, workspace=workspace_of(ctx, runs_root, data_root))
    if as_json:
        print_json(proof.to_json())
    else:
        _print_proof(proof)
        click.echo(f"{model}  {'proved' if proof.passed else 'NOT PROVED'}")
    return 0 if proof.passed else 1


@click.command()
@MODEL
@click.argument("images", nargs=-1, required=True, metavar="IMAGE…", type=click.Path())
@click.option("--invert", is_flag=True, help="Turn dark strokes on a light ground into light ones.")
@click.option(
    "--top", default=1, show_default=True, type=click.IntRange(1), help="Classes to show."
)
@common()
def predict(model: Path, images: tuple[str, ...], invert: bool, top: int, as_json: bool) -> None:
    """Classify picture files of any size and mode, through onnxruntime alone."""
    from zoo.pipeline import predict as twin

    found = twin(model, images, invert=invert)
    if as_json:
        print_json({"predictions": found})
        return
    rows: list[tuple[Any, ...]] = []
    for prediction in found:
        best = list(prediction.classes.items())[:top]
        rows += [(prediction.picture, label, percent(p)) for label, p in best]
    table(("picture", "class", "probability"), rows)


def _print_proof(proof: Any) -> None:
    table(
        ("check", "", "figure"),
        [(row.name, "ok" if row.passed else "FAILED", row.figure) for row in proof.rows],
    )
