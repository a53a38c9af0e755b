"""How long a file takes: in this process (`latency`), or in one of its own (this module run).

The process of its own answers one JSON line for each line it reads, so that importing, loading and
memory are the file's own; until it is asked for more it only waits. It needs no zoo to be loaded.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SEED = 0
LEAST = 3
"""Timed runs even where the first of them takes all the time there is."""


def latency(
    model: bytes | Path, *, batch: int = 1, threads: int = 1, seconds: float = 0.2
) -> float:
    """Return the median seconds of one run on random bytes, measured for about `seconds`.

    A file of a fixed batch is run at that one. Torch is not loaded. Two files are better compared
    by `ratio`.
    """
    session = open_raw(_bytes(model), threads)
    call = caller(session, batch)
    for _ in range(LEAST):
        call()
    return percentiles(time_runs(call, sys.maxsize, seconds))["p50"]


def ratio(
    model: bytes | Path,
    twin: bytes | Path,
    *,
    batch: int = 1,
    threads: int = 1,
    seconds: float = 0.5,
    rounds: int = 5,
) -> float:
    """Return how many times the time of its twin a file takes, both measured by turns.

    The median over rounds: a machine that slows down slows both.
    """
    calls = [caller(open_raw(_bytes(each), threads), batch) for each in (model, twin)]
    found = []
    for _ in range(rounds):
        share = seconds / rounds / len(calls)
        medians = [percentiles(time_runs(call, sys.maxsize, share))["p50"] for call in calls]
        found.append(medians[0] / medians[1])
    return sorted(found)[rounds // 2]


def open_raw(data: bytes, threads: int = 1, provider: str = "CPUExecutionProvider") -> Any:
    """Open a file on so many threads, without spinning; it is not asked whether zoo made it.

    Raises `RuntimeError` where onnxruntime would silently use another provider.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    # A thread that spins while it waits takes the processor from whatever else runs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(data, options, providers=[provider])
    if session.get_providers()[0] != provider:
        raise RuntimeError(f"onnxruntime used {session.get_providers()[0]} in place of {provider}")
    return session


def caller(session: Any, batch: int) -> Callable[[], object]:
    """Return a call that runs a session once, on seeded random bytes of its input's shape."""
    import numpy as np

    port = session.get_inputs()[0]
    first, *rest = port.shape
    shape = (first if isinstance(first, int) else batch, *rest)
    image = np.random.default_rng(SEED).integers(0, 256, shape, dtype=np.uint8)
    feed = {port.name: image}
    return lambda: session.run(None, feed)


def time_runs(
    call: Callable[[], object], runs: int, seconds: float, least: int = LEAST
) -> list[float]:
    """Call again and again; return the seconds of each. Fewer than `runs` where time runs out."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < runs:
        begun = time.perf_counter()
        call()
        now = time.perf_counter()
        times.append(now - begun)
        if now >= end and len(times) >= least:
            break
    return times


def percentiles(times: list[float]) -> dict[str, float]:
    """Return p50, p95 and p99: each one of the times, the nearest rank."""
    ranked = sorted(times)
    return {f"p{p}": ranked[-(-len(ranked) * p // 100) - 1] for p in (50, 95, 99)}


def answer_round(call: Callable[[], object], order: dict[str, Any]) -> dict[str, Any]:
    """Warm up, time a round of runs, and return its percentiles in seconds."""
    half, least = order["seconds"] / 2, order.get("least", LEAST)
    warmup = order["warmup"] if least > 1 else 0  # slow calls are warm after the first
    if warmup:
        time_runs(call, warmup, half, least)
    times = time_runs(call, order["runs"], half if warmup else order["seconds"], least)
    return {**percentiles(times), "runs": len(times)}


def answer_first(call: Callable[[], object]) -> dict[str, float]:
    """Call for the first time, and twice more: the seconds of the first, and of the quickest."""
    times = time_runs(call, LEAST, 0)
    return {"first_seconds": times[0], "seconds": min(times)}


def memory() -> dict[str, int | None]:
    """Return this process's memory in bytes, now and at its highest; None where it is not told."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        told = {line.split(":")[0]: line.split()[1] for line in lines if line.startswith("Vm")}
        return {"now": int(told["VmRSS"]) * 1024, "peak": int(told["VmHWM"]) * 1024}
    except (OSError, KeyError):
        pass
    if sys.platform == "darwin":
        import resource

        return {"now": None, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}
    return {"now": None, "peak": None}


def _bytes(model: bytes | Path) -> bytes:
    return model if isinstance(model, bytes) else model.read_bytes()


def _open(order: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    begun = time.perf_counter()
    import onnxruntime

    imported = time.perf_counter()
    before = memory()["now"]
    names = {name.removesuffix("ExecutionProvider").lower(): name
             for name in onnxruntime.get_available_providers()}  # fmt: skip
    if order["provider"] not in names:
        return None, {"unknown_provider": True, "providers": sorted(names)}
    data = Path(order["file"]).read_bytes()
    loading = time.perf_counter()
    session = open_raw(data, order["threads"], names[order["provider"]])
    loaded = time.perf_counter()
    return session, {
        "import_seconds": imported - begun,
        "load_seconds": loaded - loading,
        "provider": session.get_providers()[0],
        "onnxruntime": onnxruntime.__version__,
        "memory_before": before,
    }


def main() -> None:
    """Answer orders from stdin: a file to open, first calls, rounds of runs, at last the memory."""
    # What libraries print must not be taken for an answer.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    calls: dict[int, Callable[[], object]] = {}
    session: Any = None
    answer: dict[str, Any]
    for line in sys.stdin:
        order = json.loads(line)
        try:
            if "file" in order:
                session, answer = _open(order)
            elif "first" in order:
                calls[order["first"]] = caller(session, order["first"])
                answer = answer_first(calls[order["first"]])
            elif "batch" in order:
                answer = answer_round(calls[order["batch"]], order)
            else:
                answer = memory()
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
