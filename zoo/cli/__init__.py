"""The `zoo` command: parse, call one pipeline function, print."""

from __future__ import annotations


def main() -> None:
    """Run the command line; the entry point of the `zoo` script."""
    from zoo.cli.main import zoo

    zoo(prog_name="zoo")
