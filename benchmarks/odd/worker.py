"""A process that scans networks: it may hang or die without taking the scan with it."""

from __future__ import annotations

import multiprocessing
import warnings
from multiprocessing.connection import Connection

from odd.network import Network
from odd.scan import Result, operators_read_once, scanned

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
        if self._line:
            self._line.close()  # it leaves by itself, and tidies up
            self._line = None
        if self._process:
            self._process.join(5)
        self._end()

    def scan(self, network: Network) -> Result:
        """Scan one network; `hung` where it took longer than its seconds, `died` without answer."""
        line = self._line or self._begin()
        line.send(network.name)
        found: tuple[str, str]
        try:
            if line.poll(self.seconds):
                return line.recv()  # type: ignore[no-any-return]
            found = "hung", f"no answer within {self.seconds:.0f} s"
        except EOFError:
            found = "died", ""
        process = self._process
        self._end()
        if found[0] == "died" and process:
            found = "died", f"exit status {process.exitcode}"
        return Result(network.name, network.kind, network.expected, found[0], "", found[1])

    def _begin(self) -> Connection:
        self._line, theirs = CONTEXT.Pipe()
        self._process = CONTEXT.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()  # so that its end is told by the end of the line
        return self._line

    def _end(self) -> None:
        if self._line:
            self._line.close()
        if self._process:
            self._process.kill()
            self._process.join()
        self._line = self._process = None


def _serve(line: Connection) -> None:
    import torch

    from odd import by_name

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    with operators_read_once():
        while True:
            try:
                name = line.recv()
            except (EOFError, KeyboardInterrupt):
                return
            line.send(scanned(by_name(name)))
