"""The entry module: imported alone in a fresh process, watched for what it imports, and timed."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from zoo.registry import Plugin
from zoo.testing.report import Failure, Skipped

HEAVY = ("torch", "torchvision", "onnx", "onnxruntime")
LIMIT = 120.0
"""Seconds after which an import is given up."""

# Runs in the fresh process: argv is the module or file, then where to write what was seen.
_PROBE = """
import importlib, json, os, sys, time
from pathlib import Path
from zoo.registry import Registry, load_file

source, target, heavy = sys.argv[1], sys.argv[2], sys.argv[3].split(",")
seen, ours = {}, os.path.dirname(sys.modules["zoo"].__file__)

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name in heavy and name not in seen:
            frame, found = sys._getframe(1), []
            while frame:
                file = frame.f_code.co_filename
                if not file.startswith(("<", ours)) and "importlib" not in file:
                    found.append((file, frame.f_lineno))
                frame = frame.f_back
            # The outermost file is the plugin's; its innermost line is the one to change.
            lines = [line for file, line in found if file == found[-1][0]]
            seen[name] = f"{os.path.basename(found[-1][0])}:{lines[0]}" if found else "?"

sys.meta_path.insert(0, Watch())
begun = time.perf_counter()
if source.endswith(".py"):
    module = load_file(Path(source))
else:
    name, _, attribute = source.partition(":")
    module = importlib.import_module(name)
    for part in filter(None, attribute.split(".")):
        module = getattr(module, part)
Registry(plugins=[module])
seconds = time.perf_counter() - begun
Path(target).write_text(json.dumps({"seen": seen, "seconds": seconds}))
"""


@dataclasses.dataclass
class Import:
    """What importing an entry module took, once it has been measured."""

    seconds: float | None = None

    def check(self, plugin: Plugin) -> str:
        """Import the entry module and call its hooks in a fresh process; torch must not come."""
        found = _measured(plugin.module)
        self.seconds = float(found["seconds"])
        if found["seen"]:
            name, line = next(iter(found["seen"].items()))
            raise Failure(
                f"{name} is imported at {line}, {self.seconds * 1000:.0f} ms in all",
                f"move it into build, so that `zoo --help` stays quick: {name} is only needed where"
                " something is built.",
            )
        return f"{self.seconds * 1000:.0f} ms, no torch"


def _measured(source: str) -> dict[str, Any]:
    in_memory = not source.endswith(".py") and not _has_file(source)
    if in_memory:
        raise Skipped("the plugin was made in memory: no module of that name can be imported")
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "seen.json"
        command = [sys.executable, "-c", _PROBE, source, str(target), ",".join(HEAVY)]
        # The paths of this process: a test's own folder, a package not installed yet.
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        try:
            done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=LIMIT)
        except subprocess.TimeoutExpired:
            raise Failure(
                f"the import was given up after {LIMIT:.0f} s", "import less, and wait for nothing."
            ) from None
        try:
            found: dict[str, Any] = json.loads(target.read_text())
        except (OSError, ValueError):
            said = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
            raise Failure(
                f"it does not import in a fresh process: {said[0]}",
                "make the entry module importable on its own.",
            ) from None
    return found


def _has_file(source: str) -> bool:
    import importlib.util

    name = source.partition(":")[0]
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False
