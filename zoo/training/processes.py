"""Several processes of one command: started by the main one, they end as one, with one voice."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import torch
from torch.distributed import distributed_c10d

from zoo import drafts, errors
from zoo.errors import TrainingError, ZooError, recurs

_VARIABLE = "ZOO_PROCESS"
"""Tells a process that was started where to meet: `PORT FOLDER`. LOCAL_RANK is its rank."""
_FAULT = "zoo/fault"
"""Key of the common store under which the first process to fail leaves what it has to say."""


class Team:
    """The processes of one command as one of them knows them: what `rank` is one of `world`.

    `here` of them are on this machine. Those that torchrun started are not `ours`.
    """

    def __init__(self, world: int, rank: int, here: int, port: int = 0, folder: str = "") -> None:
        self.world, self.rank, self.here, self.port = world, rank, here, port
        self.ours = port != 0
        self._folder = folder
        self._started: list[tuple[subprocess.Popen[bytes], IO[bytes]]] = []
        self._met = self._over = False

    @classmethod
    def of_this_command(cls, world: int) -> Team:
        """Return this process's team: it is the main one unless it was started by another."""
        if _VARIABLE in os.environ:
            port, _, folder = os.environ.pop(_VARIABLE).partition(" ")
            return cls(world, int(os.environ["LOCAL_RANK"]), world, int(port), folder)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            return cls(world, 0, world, free.getsockname()[1])

    @property
    def main(self) -> bool:
        return self.rank == 0

    def meet(self) -> None:
        """Start the others, copies of this command, and wait until all have come this far.

        Raises `TrainingError` where one of them does not.
        """
        if self._over:
            raise TrainingError(
                "The other processes ended with the training before. Start the command again."
            )
        if not self.ours or self._met:
            return
        if "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(max(1, torch.get_num_threads() // self.here))
        if self.main:
            self._start()
        else:
            self._arrive(Path(self._folder))
        self._met = True

    def _start(self) -> None:
        strict = os.environ.get("ZOO_STRICT") == "1"
        atexit.register(self._stop, patience=10.0)
        with drafts.folder() as folder:
            for rank in range(1, self.world):
                env = {**os.environ, "LOCAL_RANK": str(rank), _VARIABLE: f"{self.port} {folder}"}
                said = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
                process = subprocess.Popen(
                    [sys.executable, *sys.orig_argv[1:]],
                    env=env,
                    stdin=subprocess.DEVNULL,
                    stdout=None if strict else subprocess.DEVNULL,
                    stderr=None if strict else said,
                )
                self._started.append((process, said))
            while not all((folder / str(rank)).exists() for rank in range(1, self.world)):
                self._look()
            (folder / "all").touch()
            while any((folder / str(rank)).exists() for rank in range(1, self.world)):
                self._look()

    def _look(self) -> None:
        time.sleep(0.02)
        if ended := self._ended("before training began"):
            raise TrainingError(ended)

    def _arrive(self, folder: Path) -> None:
        parent = os.getppid()
        (folder / str(self.rank)).touch()
        while not (folder / "all").exists():
            if os.getppid() != parent or not folder.exists():
                raise SystemExit(1)  # there is nobody left to be met
            time.sleep(0.02)
        (folder / str(self.rank)).unlink()

    def _stop(self, patience: float) -> None:
        """Let the others end in so many seconds, or end them."""
        deadline = time.monotonic() + patience
        for end in (None, subprocess.Popen.terminate, subprocess.Popen.kill):
            for process, _ in self._started:
                if end and process.poll() is None:
                    end(process)
            for process, _ in self._started:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.0, deadline - time.monotonic()))
            deadline = time.monotonic() + 2

    @contextlib.contextmanager
    def ending_as_one(self) -> Iterator[None]:
        """End all processes where one fails, and let the main one alone tell of it."""
        try:
            with self.together():
                yield
        except (Exception, KeyboardInterrupt) as error:
            if self.main:
                self._over = True
                self._stop(patience=0)
                raise
            self._leave(error)
            if os.environ.get("ZOO_STRICT") == "1" and not _severed(error):
                raise
            # Torchrun would kill the main process at any other status, before it can speak.
            raise SystemExit(0) from None

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """In the main process, raise another's error in place of the lost connection to it."""
        try:
            yield
        except Exception as error:
            if not self.main or not _severed(error):
                raise
            raise self._cause(error) from None

    def _leave(self, error: BaseException) -> None:
        """Leave an error where the main process finds it."""
        if not isinstance(error, Exception) or _severed(error):
            return
        known = isinstance(error, ZooError)
        text = str(error) if known else f"{type(error).__name__}: {error}"
        said = {
            "kind": type(error).__name__ if known else "TrainingError",
            "message": text,
            "recurs": recurs(error),
        }
        with contextlib.suppress(RuntimeError, ValueError):  # they never met, or all is over
            _store().compare_set(_FAULT, "", json.dumps(said))

    def _cause(self, error: BaseException) -> ZooError:
        """Return why the connection to another process was lost."""
        with contextlib.suppress(RuntimeError, ValueError):
            if _store().check([_FAULT]):
                said = json.loads(_store().get(_FAULT))
                kind = getattr(errors, said["kind"], TrainingError)
                found: ZooError = kind.__new__(kind, said["message"])
                found._recurs = said["recurs"]
                return found
        deadline = time.monotonic() + 5
        while self._started and not self._ended("") and time.monotonic() < deadline:
            time.sleep(0.02)
        if ended := self._ended("while it trained"):
            return TrainingError(ended)
        reason = " ".join(str(error).split())
        return TrainingError(f"The connection to another process was lost: {reason}")

    def _ended(self, when: str) -> str:
        """Say which of the processes that were started ended, and how; nothing where all live."""
        for rank, (process, said) in enumerate(self._started, start=1):
            status = process.poll()
            if status is None:
                continue
            how = f"ended with exit status {status}"
            if status < 0:
                with contextlib.suppress(ValueError):
                    how = f"was ended by {signal.Signals(-status).name}"
                if how.endswith("SIGKILL"):
                    how += ", for want of memory perhaps,"
            said.seek(0)
            lines = said.read().decode(errors="replace").strip().splitlines()
            last = f" It said: {lines[-1]}" if lines and status > 0 else ""
            return f"Process {rank + 1} of {self.world} {how} {when}.{last}"
        return ""


def _severed(error: BaseException | None) -> bool:
    """Say whether an error comes of a connection that broke, or was never made."""
    while error is not None:
        if isinstance(error, torch.distributed.DistError):
            return True
        if isinstance(error, RuntimeError) and "gloo" in str(error).lower():
            return True
        hidden = error.__suppress_context__
        error = error.__cause__ or (None if hidden else error.__context__)
    return False


def _store() -> Any:
    """Return what all processes read and write, kept by the main one or by torchrun."""
    return distributed_c10d._get_default_store()
