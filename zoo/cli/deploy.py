"""`zoo export RUN`, `zoo validate MODEL.onnx` and `zoo predict MODEL.onnx IMAGE…`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from zoo.cli.options import (
    WITHOUT_SEEN,
    RunName,
    Sectioned,
    common,
    config_options,
    given,
    progress,
    workspace_of,
)
from zoo.cli.output import percent, print_json, say, table
from zoo.config import make
from zoo.export.limits import ProofConfig
from zoo.export.targets import ExportConfig
from zoo.showing import shown

MODEL = click.argument("model", type=click.Path(path_type=Path), metavar="MODEL.onnx")
PARTIAL = click.option(
    "--partial", is_flag=True, help="Be content where checks were skipped and none failed."
)
RUNTIMES = click.option(
    "--runtimes",
    envvar="ZOO_RUNTIMES",
    metavar="NAME,…",
    help="Runtimes that must give the same answers: tract, openvino, opencv, onnxruntime-node,"
    " onnxruntime-web; or none. Without it those installed are tried and told.",
)
SOURCES = {"run": "Run", "golden": "Golden vectors"}
MARKS = {"passed": "ok", "failed": "FAILED", "skipped": "skipped", "reported": "told"}


@config_options(ExportConfig, "The file")
@config_options(ProofConfig, "The proof")
@click.command(cls=Sectioned)
@click.argument("run", type=RunName())
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="The file; default: in the run's folder.",
)
@RUNTIMES
@PARTIAL
@WITHOUT_SEEN
@common(runs=True, data=True, quiet=True)
@click.pass_context
def export(
    ctx: click.Context,
    /,
    run: str,
    output: Path | None,
    runtimes: str | None,
    partial: bool,
    without_seen: bool,
    runs_root: Path | None,
    data_root: Path | None,
    quiet: bool,
    as_json: bool,
    **_: Any,
) -> None:
    """Write a finetuned classifier as one ONNX file, once it has been proved."""
    config = make(ExportConfig, given(ctx, ExportConfig))
    memory = make(ProofConfig, given(ctx, ProofConfig)).memory
    with progress(quiet):
        from zoo.pipeline import export as twin

        found = twin(
            run,
            output,
            config=config,
            runtimes=_names(runtimes),
            partial=partial,
            without_seen=without_seen,
            memory=memory,
            workspace=workspace_of(ctx, runs_root, data_root),
        )
    if as_json:
        print_json(
            {
                "model": str(found.model),
                "bytes": found.bytes,
                "proof": found.proof.to_json(),
                "candidates": [candidate.to_json() for candidate in found.candidates],
            }
        )
        return
    _print_candidates(found.candidates)
    _print_proof(found.proof)
    say(f"{found.model}  {found.bytes:,} bytes, {found.proof.verdict}")
    if config.license == "unknown":
        say("Its license is 'unknown'. To state one: --license MIT")
    if _takes_pictures(found.model):
        say(f"Next: zoo predict {shlex.quote(str(found.model))} PICTURE…")


@config_options(ProofConfig, "The proof")
@click.command(cls=Sectioned)
@MODEL
@click.option(
    "--run", type=RunName(), help="The run it came from, where it is not found by itself."
)
@RUNTIMES
@PARTIAL
@common(runs=True, data=True, quiet=True)
@click.pass_context
def validate(
    ctx: click.Context,
    /,
    model: Path,
    run: str | None,
    runtimes: str | None,
    partial: bool,
    runs_root: Path | None,
    data_root: Path | None,
    quiet: bool,
    as_json: bool,
    **_: Any,
) -> int:
    """Prove an exported file once more, by all that is at hand.

    proved: every check was run and passed. intact: none failed, some could not be run; exit status
    1, or 0 with --partial.
    """
    memory = make(ProofConfig, given(ctx, ProofConfig)).memory
    with progress(quiet):
        from zoo.pipeline import validate as twin

        proof = twin(
            model,
            run=run,
            runtimes=_names(runtimes),
            memory=memory,
            workspace=workspace_of(ctx, runs_root, data_root),
        )
    verdict = {"proved": "proved", "intact": "intact, NOT PROVED", "failed": "NOT PROVED"}
    if as_json:
        print_json(proof.to_json())
    else:
        _print_proof(proof)
        for what, place in proof.read_from.items():
            say(f"{SOURCES[what]} read from '{shown(place)}'")
        say(f"{model}  {verdict[proof.verdict]}")
    if proof.verdict == "intact" and not partial:
        count = len(proof.skipped)
        checks = "1 check was" if count == 1 else f"{count} checks were"
        say(f"{checks} skipped. To be content with that: --partial", err=True)
    return 0 if proof.passed or (partial and proof.verdict == "intact") else 1


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


def _takes_pictures(model: Path) -> bool:
    from zoo.export.runtime import open_session

    return open_session(model).card.input.channels in (1, 3)


def _names(runtimes: str | None) -> list[str] | None:
    return None if runtimes is None else [n.strip() for n in runtimes.split(",") if n.strip()]


def _print_proof(proof: Any) -> None:
    table(
        ("check", "", "figure"),
        [(row.name, MARKS[row.status], row.figure) for row in proof.rows],
    )


def _print_candidates(candidates: list[Any]) -> None:
    """Show what was measured to choose a smaller file, and say plainly when it is slower."""
    if not candidates:
        return
    rows = []
    for each in candidates:
        outcome = "kept" if each.kept else each.reason or "passed"
        time = "–" if each.latency is None else f"{each.latency:.2f}"
        agreement = f"{percent(each.agreement)} of {each.examples:,}"
        lost = f"{each.accuracy_drop * 100:+.2f} of {each.labelled:,}"
        rows.append((each.name, f"{each.bytes:,}", agreement, lost, time, outcome))
    columns = ("candidate", "bytes", "agreement", "points lost", "time / fp32", "")
    table(columns, rows, title="Measured on other examples than the test split's, on this machine")
    kept = next(each for each in candidates if each.kept)
    if kept.latency is not None and kept.latency > 1:
        say(f"It is smaller, and SLOWER on this machine: {kept.latency:.2f} × fp32's time.")
