"""Read the pictures that stdin names as one program does, `zoo` or a bundle's run.py."""

from __future__ import annotations

import base64
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    task = json.load(sys.stdin)
    reader: Any
    if task["runner"]:
        spec = importlib.util.spec_from_file_location("bundle_run", task["runner"])
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        reader, refusal, size = module.read_picture, module.Fault, dict
    else:
        from zoo.api import ImageInput, ZooError, read_picture

        reader, refusal, size = read_picture, ZooError, ImageInput
    for path in task["paths"]:
        told: list[str] = []
        for input in task["inputs"]:
            try:
                pixels = reader(Path(path), size(**input))
                told.append("=" + base64.b64encode(pixels.tobytes()).decode())
            except refusal as error:
                told.append(str(error))
            except Exception as error:
                told.append(f"CRASH {type(error).__name__}: {error}")
        print(json.dumps(told))


if __name__ == "__main__":
    main()
