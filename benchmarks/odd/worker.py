"""A process that scans networks: it may hang or die without taking the scan with it."""

from __future__ import annotations

import multiprocessing
import warnings
from multiprocessing.connection import Connection

from once import read_operators_once

from odd.network import Network
from odd.scan import Result, scanned

CONTEXT = multiprocessing.get_context("spawn")


class Worker:
    """Scan networks in one process after another's; a new one takes over from one that was lost."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._process: multiprocessing.process.BaseProcess | None = None
        self._line: Connection | None = None

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._end(patience=5)

    def scan(self, network: Network) -> Result:
        """Scan one network; `hung` where it took longer than its seconds, `died` without answer."""
        line = self._line or self._begin()
        line.send(network.name)
        try:
            if line.poll(self.seconds):
                return line.recv()  # type: ignore[no-any-return]
            self._end()
            outcome, message = "hung", f"no answer within {self.seconds:g} s"
        except EOFError:
            outcome, message = "died", f"exit status {self._end(patience=5)}"
        return Result(network.name, network.kind, network.expected, outcome, "", message)

    def _begin(self) -> Connection:
        self._line, theirs = CONTEXT.Pipe()
        self._process = CONTEXT.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()  # so that its end is told by the end of the line
        return self._line

    def _end(self, patience: float = 0) -> int | None:
        """Close the line, at which the process leaves and tidies up; kill it where it does not."""
        process, line = self._process, self._line
        self._process = self._line = None
        if line:
            line.close()
        if process is None:
            return None
        process.join(patience)
        process.kill()
        process.join()
        return process.exitcode


def _serve(line: Connection) -> None:
    import torch

    from odd import by_name

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    read_operators_once()
    while True:
        try:
            line.send(scanned(by_name(line.recv())))
        except (EOFError, BrokenPipeError, KeyboardInterrupt):
            return  # nobody is there to ask
