"""Ctrl-C between two steps: asked for once, it waits for the step; asked for twice, it does not."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

from zoo.progress import current


class Stopped(KeyboardInterrupt):
    """Training was asked to stop, and can: nothing is cut in the middle."""


class Stop:
    """Whether training was asked to stop."""

    asked = False


@contextlib.contextmanager
def interruptible(wanted: bool = True) -> Iterator[Stop]:
    """Turn the first Ctrl-C within this block into `asked`; the second one interrupts as ever.

    A step that is cut in the middle leaves weights that no whole step made: nothing to save.
    Only in the main thread, and only where Ctrl-C means what Python makes of it.
    """
    stop = Stop()
    ours = threading.current_thread() is threading.main_thread()
    if not (wanted and ours and signal.getsignal(signal.SIGINT) is signal.default_int_handler):
        yield stop
        return

    def ask(number: int, frame: object) -> None:
        if stop.asked:
            raise KeyboardInterrupt
        stop.asked = True
        current().note("stopping after this step; once more: at once")

    signal.signal(signal.SIGINT, ask)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
