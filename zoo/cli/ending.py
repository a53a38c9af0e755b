"""How a command ends: what a plugin left to the end is named, and Ctrl-C ends it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import NoReturn

from zoo.cli.output import say

PATIENCE = 10.0
"""Seconds that the interpreter's own end may take before the user is told what it waits for."""


def leave(code: object) -> NoReturn:
    """Let the interpreter end with the code of a `SystemExit`; all results are out by now.

    A text is what somebody's `sys.exit` says: it goes to stderr, and the status is 1. The
    interpreter waits for threads that are no daemons, and for what was registered with atexit.
    Where those hang it is told whose they are, and Ctrl-C ends the process with the same status.
    """
    status = code if isinstance(code, int) else 0 if code is None else 1
    if status == 1 and not isinstance(code, int):
        say(str(code), err=True)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, AttributeError):  # its reader is gone, or there is none
            stream.flush()
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # as a shell starts what runs beside it
        signal.signal(signal.SIGINT, lambda *_: os._exit(status))
    teller = threading.Timer(PATIENCE, _tell)
    teller.daemon = True
    teller.start()
    sys.exit(status)


def _tell() -> None:
    frames = sys._current_frames()
    waited_for = [each for each in threading.enumerate() if not each.daemon]
    places = [_place(frames.get(each.ident or 0)) for each in waited_for]
    named = ", ".join(sorted(set(filter(None, places)))) or "what was left to the end"
    say(f"zoo has finished, and waits for {named}. Ctrl-C ends it.", err=True)


def _place(frame: FrameType | None) -> str | None:
    """Return `zoo_x.py:12`: where a thread is, in a file that is neither Python's nor zoo's."""
    python, ours = Path(os.__file__).parent, Path(__file__).parent.parent
    while frame is not None:
        file = Path(frame.f_code.co_filename)
        installed = "site-packages" in file.parts
        own = file.is_relative_to(ours) or str(file).startswith("<")
        if not own and (installed or not file.is_relative_to(python)):
            return f"{file.name}:{frame.f_lineno}"
        frame = frame.f_back
    return None
