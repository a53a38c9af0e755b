"""`benchmark`: how long files take, each in a process of its own, beside PyTorch and each other."""

from __future__ import annotations

import contextlib
import dataclasses
import platform
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx

from zoo.errors import UsageError
from zoo.export.card import Card
from zoo.export.runtime import open_session
from zoo.export.work import cost_of
from zoo.machine import cores, processor, sensible_threads
from zoo.memory import MEMORY
from zoo.pipeline.affordable import ROUNDS, Allowance
from zoo.pipeline.timed_sides import Order, Origin, Side, open_file, open_torch, take_turn
from zoo.pipeline.workspace import Workspace
from zoo.progress import current
from zoo.runs import Run

NEEDED = {"p95": 20, "p99": 100}
"""So many runs a round takes for a percentile to be another run than the slowest."""


@dataclasses.dataclass(frozen=True)
class Timing:
    """One batch size of one side, in seconds: the median over rounds of their percentiles.

    p95 is None where a round had fewer than 20 runs, p99 where it had fewer than 100.
    `to_first` and `to_torch` are its p50 in units of that of the first file, and of PyTorch.
    """

    batch: int
    first_seconds: float
    p50_seconds: float
    p95_seconds: float | None
    p99_seconds: float | None
    runs: int
    examples_per_second: float
    to_first: float | None = None
    to_torch: float | None = None


@dataclasses.dataclass(frozen=True)
class Measured:
    """One side: a file in onnxruntime, or the run it came from in PyTorch.

    Memory is that of the file's own process: growth from before it was loaded to the end. PyTorch
    is measured in this process, so that its import and memory are not told.
    """

    name: str
    run: str
    precision: str
    runtime: str
    provider: str
    bytes: int | None
    import_seconds: float | None
    load_seconds: float | None
    memory_growth_bytes: int | None
    memory_peak_bytes: int | None
    timings: list[Timing]


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """What was measured, on what, how; `notes` say what a reader should not miss."""

    cpu: str
    cores: int
    threads: int
    rounds: int
    files: list[Measured]
    torch: list[Measured]
    notes: list[str]
    versions: dict[str, str]


def benchmark(
    files: Sequence[str | Path],
    *,
    batches: Sequence[int] = (1, 64),
    threads: int = 1,
    runs: int = 500,
    warmup: int = 50,
    seconds: float = 5.0,
    memory: int = MEMORY,
    provider: str = "cpu",
    torch: bool = True,
    run: Run | str | Path | None = None,
    workspace: Workspace | None = None,
) -> Benchmark:
    """Time files on random bytes: importing, loading, the first run, then `runs` at each batch.

    All sides take turns in rounds, for a machine is now faster, now slower. `seconds` bounds each
    file at each batch size, `memory` what the activations of a batch may take, in bytes: a batch
    that does not fit, by an estimate from a first call, is left out, and `notes` say so. A file of
    a fixed batch is run at its own. PyTorch runs eagerly on as many threads, from the run that a
    file came from; `run` says which where it is not found by itself. p95 takes 100 runs in all, p99
    500. Raises `ModelFileError` or `UsageError`.
    """
    if not files or not batches or min((*batches, threads, runs)) < 1 or seconds <= 0:
        raise UsageError("Benchmarking takes a file, and batches, threads and runs from 1.")
    wanted, threads = threads, sensible_threads(threads)
    workspace = workspace or Workspace()
    origin = Origin(None if run is None else workspace.finetuned(run), workspace)
    paths = [Path(file) for file in files]
    cards = [open_session(path).card for path in paths]
    sizes = [[card.batch] if card.batch else list(dict.fromkeys(batches)) for card in cards]
    share: Order = {"runs": -(-runs // ROUNDS), "seconds": seconds / ROUNDS}
    notes: list[str] = []
    if threads < wanted:
        notes.append(f"{threads} threads in the place of {wanted}: this machine has fewer cores.")
    with contextlib.ExitStack() as stack:
        sides, allowances = [], []
        for path, each in zip(paths, sizes, strict=True):
            current().note(f"loading {path.name}")
            allowances.append(Allowance(seconds, memory, _activations(path)))
            sides.append(open_file(stack, path, each, threads, provider, allowances[-1], notes))
        origins: dict[str, Side] = {}
        if torch and provider != "cpu":
            notes.append(
                f"PyTorch was left out: it is measured beside provider cpu alone, not {provider}."
            )
        elif torch:
            run_at = [side.batches for side in sides]
            origins = open_torch(stack, paths, cards, run_at, threads, origin, allowances, notes)
        for turn in range(ROUNDS):
            current().note(f"round {turn + 1} of {ROUNDS}")
            for side in (*sides, *origins.values()):
                take_turn(side, {**share, "warmup": 0 if turn else warmup}, turn)
        memories = [side.ask({"memory": True}) for side in sides]
    by_torch = {run: _timings(side, None, None) for run, side in origins.items()}
    first = _timings(sides[0], None, None)
    found = [
        _measured_file(path, card, side, memory, _timings(side, first, by_torch.get(card.run)))
        for path, card, side, memory in zip(paths, cards, sides, memories, strict=True)
    ]
    eager = [_measured_torch(run, origins[run], by_torch[run], first) for run in origins]
    return Benchmark(
        cpu=processor(),
        cores=cores(),
        threads=threads,
        rounds=ROUNDS,
        files=found,
        torch=eager,
        notes=notes + _slower(found),
        versions=_versions(sides, eager),
    )


def _activations(path: Path) -> int:
    """Return the bytes of one example's activations; 0 where they cannot be told."""
    try:
        return cost_of(onnx.load(path)).activations
    except Exception:  # whatever it holds, onnxruntime has loaded it
        return 0


def _timings(side: Side, first: list[Timing] | None, torch: list[Timing] | None) -> list[Timing]:
    """Return the figures of each batch size, beside those of the same size on other sides."""
    made = []
    for batch in side.batches:
        rounds = side.rounds[batch]
        p50 = statistics.median(each["p50"] for each in rounds)
        others = [
            next((each.p50_seconds for each in other or () if each.batch == batch), None)
            for other in (first, torch)
        ]
        to_first, to_torch = (p50 / other if other else None for other in others)
        made.append(
            Timing(
                batch=batch,
                first_seconds=side.opened["first_seconds"][batch],
                p50_seconds=p50,
                p95_seconds=_percentile(rounds, "p95"),
                p99_seconds=_percentile(rounds, "p99"),
                runs=sum(each["runs"] for each in rounds),
                examples_per_second=batch / p50,
                to_first=to_first,
                to_torch=to_torch,
            )
        )
    return made


def _percentile(rounds: list[dict[str, Any]], name: str) -> float | None:
    """Return the median of the rounds' percentiles; None where one has too few runs for it."""
    if min(each["runs"] for each in rounds) < NEEDED[name]:
        return None
    return float(statistics.median(each[name] for each in rounds))


def _measured_file(
    path: Path, card: Card, side: Side, memory: dict[str, Any], timings: list[Timing]
) -> Measured:
    before, now = side.opened["memory_before"], memory["now"]
    return Measured(
        name=str(path),
        run=card.run,
        precision=card.precision,
        runtime=f"onnxruntime {side.opened['onnxruntime']}",
        provider=side.opened["provider"],
        bytes=path.stat().st_size,
        import_seconds=side.opened["import_seconds"],
        load_seconds=side.opened["load_seconds"],
        memory_growth_bytes=None if before is None or now is None else now - before,
        memory_peak_bytes=memory["peak"],
        timings=timings,
    )


def _measured_torch(run: str, side: Side, timings: list[Timing], first: list[Timing]) -> Measured:
    return Measured(
        name="PyTorch eager",
        run=run,
        precision="fp32",
        runtime=f"torch {side.opened['torch']}",
        provider="cpu",
        bytes=None,
        import_seconds=None,
        load_seconds=None,
        memory_growth_bytes=None,
        memory_peak_bytes=None,
        timings=_timings(side, first, timings),
    )


def _slower(files: list[Measured]) -> list[str]:
    """Say where an int8 file takes longer than an fp32 file of the same run."""
    said = []
    for small in (each for each in files if each.precision == "int8"):
        for twin in (each for each in files if each.precision == "fp32" and each.run == small.run):
            whole = {each.batch: each.p50_seconds for each in twin.timings}
            for each in small.timings:
                times = each.p50_seconds / whole[each.batch] if each.batch in whole else 0.0
                if times > 1:
                    said.append(
                        f"{small.name} is SLOWER than {twin.name} at batch {each.batch}: int8 takes"
                        f" {times:.2f} times as long as fp32 on this machine."
                    )
    return said


def _versions(sides: list[Side], torch: list[Measured]) -> dict[str, str]:
    from importlib.metadata import version

    found = {"plugzoo": version("plugzoo"), "python": platform.python_version()}
    found["onnxruntime"] = str(sides[0].opened["onnxruntime"])
    if torch:
        found["torch"] = torch[0].runtime.removeprefix("torch ")
    return found
