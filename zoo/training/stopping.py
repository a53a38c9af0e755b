"""Ctrl-C between two steps: asked for once, it waits for the step; asked for twice, it does not."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from contextvars import ContextVar

from zoo.progress import current


class Stopped(KeyboardInterrupt):
    """Training was asked to stop, and can: nothing is cut in the middle."""


class Stop:
    """Whether training was asked to stop, and whether it is where it can wait for a step's end."""

    asked = False
    waits = False
    held = False

    def release(self) -> None:
        """Let Ctrl-C interrupt again, and at once where it came meanwhile."""
        self.held = False
        if self.asked:
            raise KeyboardInterrupt


_heard: ContextVar[Stop | None] = ContextVar("zoo_stop", default=None)


@contextlib.contextmanager
def listening() -> Iterator[Stop]:
    """Remember each Ctrl-C within this block, while it interrupts as ever.

    An interrupt that falls into a callback, as imports have many, is dropped by Python; training
    then finds that it was asked. Only in the main thread, and only where Ctrl-C means what Python
    makes of it.
    """
    stop = Stop()
    ours = threading.current_thread() is threading.main_thread()
    if not (ours and signal.getsignal(signal.SIGINT) is signal.default_int_handler):
        yield stop
        return

    def ask(number: int, frame: object) -> None:
        again, stop.asked = stop.asked, True
        if stop.held and not again:
            return
        if again or not stop.waits:
            raise KeyboardInterrupt
        current().note("stopping after this step; once more: at once")

    token = _heard.set(stop)
    signal.signal(signal.SIGINT, ask)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _heard.reset(token)


@contextlib.contextmanager
def holding() -> Iterator[Stop]:
    """Let a first Ctrl-C wait until `release` is called: what is begun here gets under guard."""
    stop = _heard.get() or Stop()
    stop.held = True
    try:
        yield stop
    finally:
        stop.held = False


@contextlib.contextmanager
def interruptible(wanted: bool = True) -> Iterator[Stop]:
    """Let the first Ctrl-C within this block wait for the end of a step, told by `asked`.

    A step that is cut in the middle leaves weights that no whole step made: nothing to save.
    """
    heard = _heard.get()
    if not wanted:
        yield Stop()
        return
    with listening() if heard is None else contextlib.nullcontext(heard) as stop:
        stop.waits = True
        try:
            yield stop
        finally:
            stop.waits = False
