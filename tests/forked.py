"""`python -m zoo …` in a process of its own that need not import anew what all commands import.

Importing torch and what stands on it takes four of the five seconds of a short training. Python's
own fork server has it imported, and each command begins as a fork of that: with its own folder,
environment, streams and signals, through `zoo.__main__`, to its exit status. What a command is
before it has imported anything is for tests that start an interpreter.
"""

from __future__ import annotations

import copy
import functools
import multiprocessing
import os
import runpy
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerContext
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import IO, Any

CHILD = Path(__file__).with_name("forked_child.py")
PRELOADED = [
    "torch", "torch.onnx", "torchvision", "onnx", "onnxruntime", "onnxscript", "sklearn.datasets",
    "lightning_fabric", "rich.console", "rich.table", "click", "zoo.pipeline", "zoo.registry",
]  # fmt: skip
HEAVY = frozenset({
    "pretrain", "finetune", "resume", "run", "bench", "evaluate", "reproduce", "report", "export",
    "validate", "bundle", "predict",
})  # fmt: skip
"""The verbs that import enough to be worth it: the server takes five seconds to be there."""
_beginning = threading.Lock()


def imports_much(words: Sequence[object]) -> bool:
    """Say whether a command's verb is one of `HEAVY`: its first word that is no group's option."""
    rest = iter(map(str, words))
    for word in rest:
        if word == "--plugin":
            next(rest, "")
        elif not word.startswith("-"):
            return word in HEAVY
    return False


class Forked:
    """A command that has begun, with as much of `subprocess.Popen` as tests need.

    `stdout` and `stderr` are `subprocess.PIPE`, `subprocess.DEVNULL`, an open file, or None for
    those of the tests.
    """

    def __init__(
        self,
        words: Sequence[object],
        *,
        cwd: Path,
        env: Mapping[str, str],
        stdout: Any = None,
        stderr: Any = None,
        start_new_session: bool = False,
    ) -> None:
        self.args = [str(word) for word in words]
        self._pipes: list[IO[str]] = []
        with Path(os.devnull).open("rb") as stdin:
            places = [stdin.fileno(), self._place(stdout, 1), self._place(stderr, 2)]
            given = {
                "words": self.args,
                "folder": str(cwd),
                "environment": dict(env),
                "streams": [_Stream(place) for place in places],
                "alone": start_new_session,
            }
            with _beginning:
                start = _server().Process
                self._process = start(target=runpy.run_path, args=(str(CHILD), {"given": given}))
                self._process.start()
        for place, asked in zip(places[1:], (stdout, stderr), strict=True):
            if asked in (subprocess.PIPE, subprocess.DEVNULL):
                os.close(place)
        assert self._process.pid is not None
        self.pid = self._process.pid

    def _place(self, asked: Any, own: int) -> int:
        if asked is None:
            return own
        if asked == subprocess.DEVNULL:
            return os.open(os.devnull, os.O_WRONLY)
        if asked != subprocess.PIPE:
            return int(asked.fileno())
        reading, writing = os.pipe()
        self._pipes.append(os.fdopen(reading, encoding="utf-8", errors="replace"))
        return writing

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, ...]:
        """Return all that was written to each pipe, once every process that holds it has ended."""
        if not hasattr(self, "_readers"):
            self._said = [""] * len(self._pipes)
            self._readers = [
                threading.Thread(target=self._read, args=(at,), daemon=True)
                for at in range(len(self._pipes))
            ]
            for reader in self._readers:
                reader.start()
        deadline = None if timeout is None else time.monotonic() + timeout
        for reader in self._readers:
            reader.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
            if reader.is_alive():
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
        self.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
        return tuple(self._said)

    def _read(self, at: int) -> None:
        with self._pipes[at] as pipe:
            self._said[at] = pipe.read()

    def send_signal(self, kind: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, kind)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


class _Stream:
    """A descriptor that the other process gets a copy of."""

    def __init__(self, place: int) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Any, ...]:
        return copy.copy, (DupFd(self.place),)


@functools.cache
def _server() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def run(
    words: Sequence[object], *, cwd: Path, env: Mapping[str, str], timeout: float
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, as `subprocess.run` would; one that hangs is killed."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = Forked(words, cwd=cwd, env=env, **pipes)
    try:
        stdout, stderr = process.communicate(timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return subprocess.CompletedProcess(process.args, process.wait(), stdout, stderr)
