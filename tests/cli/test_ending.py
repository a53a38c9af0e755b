"""The status that a command ends with."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("code", "status", "said"),
    [("0", 0, ""), ("None", 0, ""), ("3", 3, ""), ("'no \\x1b[2Jluck'", 1, "no \\x1b[2Jluck\n")],
)
def test_what_a_system_exit_carries(code: str, status: int, said: str) -> None:
    source = f"from zoo.cli.ending import leave; leave({code})"
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (status, "", said)
