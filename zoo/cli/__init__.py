"""The `zoo` command: parse, call one pipeline function, print."""

from __future__ import annotations


def main() -> None:
    """Run the command line; the entry point of the `zoo` script."""
    import sys

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

        leave(ended.code if isinstance(ended.code, int) else 0)
