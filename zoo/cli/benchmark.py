"""`zoo benchmark MODEL.onnx…`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from zoo.cli.options import RunName, common, config_options, given, progress, workspace_of
from zoo.cli.output import print_json, say, say_text, table
from zoo.config import make
from zoo.export.limits import ProofConfig
from zoo.machine import MOST_THREADS

LARGEST_BATCH = 1_000_000


class Batches(click.ParamType):
    """Batch sizes separated by commas."""

    name = "sizes"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        try:
            sizes = tuple(int(part) for part in value.split(","))
        except ValueError:
            sizes = ()
        if not sizes or min(sizes) < 1 or max(sizes) > LARGEST_BATCH:
            allowed = f"ints from 1 to {LARGEST_BATCH}, separated by commas"
            self.fail(f"'{value}' is not allowed: {allowed}.", param, ctx)
        return sizes


@config_options(ProofConfig, "Options")
@click.command()
@click.argument(
    "models", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="MODEL.onnx…"
)
@click.option(
    "--batch",
    type=Batches(),
    default="1,64",
    show_default=True,
    help="Batch sizes. A file of a fixed batch is run at its own.",
)
@click.option(
    "--threads",
    default=1,
    show_default=True,
    type=click.IntRange(1, MOST_THREADS),
    help="CPU threads of each.",
)
@click.option(
    "--runs",
    default=500,
    show_default=True,
    type=click.IntRange(1),
    help="Timed runs a size.",
)
@click.option(
    "--warmup", default=50, show_default=True, type=click.IntRange(0), help="Untimed runs before."
)
@click.option(
    "--seconds",
    default=5.0,
    show_default=True,
    type=click.FloatRange(0, min_open=True),
    help="At most so long for each file at each batch size; then fewer runs, or none.",
)
@click.option(
    "--provider", default="cpu", show_default=True, help="onnxruntime's provider: cpu, cuda, …"
)
@click.option("--no-torch", is_flag=True, help="Leave PyTorch out.")
@click.option(
    "--run", type=RunName(), help="The run they came from, where it is not found by itself."
)
@common(data=True, quiet=True)
@click.pass_context
def benchmark(
    ctx: click.Context,
    /,
    models: tuple[Path, ...],
    batch: tuple[int, ...],
    threads: int,
    runs: int,
    warmup: int,
    seconds: float,
    provider: str,
    no_torch: bool,
    run: str | None,
    data_root: Path | None,
    quiet: bool,
    as_json: bool,
    **_: Any,
) -> None:
    """Time exported files beside each other and beside PyTorch, each in its own process.

    The run that a file came from is looked for in its folder and under $ZOO_RUNS, else ./runs.
    Each of 5 rounds has a fifth of the runs: p95 takes 20 of them, p99 takes 100; with fewer it
    is a dash, and null in --json. A batch that would take too long, by a first call, or too much
    memory, is left out and named.
    """
    with progress(quiet):
        from zoo.pipeline.benchmarking import benchmark as twin

        found = twin(
            models,
            batches=batch,
            threads=threads,
            runs=runs,
            warmup=warmup,
            seconds=seconds,
            memory=make(ProofConfig, given(ctx, ProofConfig)).memory,
            provider=provider,
            torch=not no_torch,
            run=run,
            workspace=workspace_of(ctx, data_root=data_root),
        )
    if as_json:
        print_json(found)
        return
    versions = ", ".join(f"{name} {version}" for name, version in found.versions.items())
    say(f"{found.cpu}, {found.cores} cores; threads used: {found.threads}", versions)
    files = [
        (
            file.name,
            file.precision,
            "–" if file.bytes is None else f"{file.bytes:,}",
            _ms(file.import_seconds),
            _ms(file.load_seconds),
            _megabytes(file.memory_growth_bytes),
            _megabytes(file.memory_peak_bytes),
            file.provider,
        )
        for file in found.files
    ]
    table(
        ("file", "", "bytes", "import", "load", "memory MB", "peak MB", "provider"),
        files,
    )
    table(
        ("", "batch", "first", "p50", "p95", "p99", "to the first file", "to PyTorch"),
        _rows((*found.files, *found.torch)),
    )
    say(f"Times are medians over {found.rounds} rounds in which all took turns, on random bytes.")
    for note in found.notes:
        say_text(note)


def _rows(sides: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    for side in sides:
        for each in side.timings:
            times = (each.first_seconds, each.p50_seconds, each.p95_seconds, each.p99_seconds)
            ratios = (each.to_first, each.to_torch)
            yield (side.name, each.batch, *map(_ms, times), *map(_ratio, ratios))


def _ms(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds * 1000:,.3f} ms"


def _megabytes(count: int | None) -> str:
    return "–" if count is None else f"{count / 1e6:,.1f}"


def _ratio(ratio: float | None) -> str:
    return "–" if ratio is None else f"{ratio:.2f}"
