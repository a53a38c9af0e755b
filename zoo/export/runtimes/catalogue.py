"""Which runtimes there are, where each is looked for, and what to type for one that is absent."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from zoo.errors import UnknownName, did_you_mean

_HERE = Path(__file__).parent
_NODE_WORKER = _HERE / "worker.mjs"
PYTHON_WORKER = _HERE / "worker.py"


@dataclasses.dataclass(frozen=True)
class Worker:
    """A process that answers for a runtime; `environment` is added to ours."""

    name: str
    command: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()


@dataclasses.dataclass(frozen=True)
class _Runtime:
    module: str  # a Python module, or a package of Node's
    install: str
    node: bool = False
    variants: tuple[str, ...] = ("",)  # tried in turn until one answers


_NPM = "npm install --ignore-scripts"  # their scripts fetch CUDA, which nothing here uses
_RUNTIMES = {
    "tract": _Runtime("tract", "pip install tract"),
    "openvino": _Runtime("openvino", "pip install openvino"),
    "opencv": _Runtime(
        "cv2",
        "pip install opencv-python-headless",
        # What its users get unasked; and the engine that knows some graphs the new one refuses.
        variants=("ENGINE_AUTO", "ENGINE_CLASSIC"),
    ),
    "onnxruntime-node": _Runtime("onnxruntime-node", f"{_NPM} onnxruntime-node@1.30.0", node=True),
    "onnxruntime-web": _Runtime("onnxruntime-web", f"{_NPM} onnxruntime-web@1.30.0", node=True),
}
NAMES: tuple[str, ...] = tuple(_RUNTIMES)


def installed() -> list[str]:
    """List the runtimes that are at hand; none of them is imported."""
    return [name for name in NAMES if workers(name)]


def how_to_install(name: str) -> str:
    """Return the line to type; a package of Node's is found from the folder it is typed in.

    A `node_modules` elsewhere is named by `ZOO_NODE_MODULES` or by Node's own `NODE_PATH`.
    """
    return _find(name).install


def workers(name: str) -> list[Worker]:
    """Return the processes to try for a runtime, in turn; none where it is not installed."""
    runtime = _find(name)
    if runtime.node:
        found, node = _node_package(runtime.module), shutil.which("node")
        if found is None or node is None:
            return []
        start: tuple[str, ...] = (node, str(_NODE_WORKER), name, str(found))
        return [Worker(name, start)]
    if importlib.util.find_spec(runtime.module) is None:
        return []
    return [python_worker(name, variant) for variant in runtime.variants]


def python_worker(name: str, variant: str = "") -> Worker:
    """Return the process of a runtime of Python's, whether it is installed or not."""
    # -P: the worker's own folder is no place to import from.
    return Worker(name, (sys.executable, "-P", str(PYTHON_WORKER), name, variant))


def _find(name: str) -> _Runtime:
    if name not in _RUNTIMES:
        raise UnknownName(
            f"Unknown runtime '{name}'.{did_you_mean(name, NAMES)} There are: {', '.join(NAMES)}."
        )
    return _RUNTIMES[name]


def _node_package(package: str) -> Path | None:
    for folder in _module_folders():
        if (folder / package / "package.json").is_file():
            return (folder / package).resolve()
    return None


def _module_folders() -> Iterator[Path]:
    for variable in ("ZOO_NODE_MODULES", "NODE_PATH"):
        yield from (Path(part) for part in os.environ.get(variable, "").split(os.pathsep) if part)
    yield Path("node_modules")
