"""`inspect`: what a file holds, without running it."""

from __future__ import annotations

from pathlib import Path

from zoo.export import inspection
from zoo.export.inspection import Difference, Inspection


def inspect(
    model: str | Path, *, diff: str | Path | None = None
) -> tuple[Inspection, list[Difference]]:
    """Read an ONNX file, and list in what another one differs from it where one is given.

    Neither torch nor onnxruntime is loaded. Raises `ModelFileError`.
    """
    if diff is None:
        return inspection.inspect(Path(model)), []
    return inspection.differences(Path(model), Path(diff))
