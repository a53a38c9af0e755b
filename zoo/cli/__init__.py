"""The `zoo` command: parse, call one pipeline function, print."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the command line; the entry point of the `zoo` script."""
    open_missing_streams()
    try:
        from zoo.cli.main import zoo
    except KeyboardInterrupt:  # from then on the group itself answers it
        sys.exit(130)

    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # A pipe on Windows may lack ×, ± or a class name; that must not cost the result.
            stream.reconfigure(errors="replace")
    try:
        zoo(prog_name="zoo")
    except SystemExit as ended:
        from zoo.cli.ending import leave

        leave(ended.code)


def open_missing_streams() -> None:
    """Let standard streams that the command was started without, as cron may, be the null device.

    Before anything is opened: a file that got descriptor 1 would be written into by whatever
    prints. Processes that are started inherit them.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # the lowest free one is what `open` takes
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            way = "w" if number else "r"
            stream = open(number, way, encoding="utf-8", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)
