"""What an exact resume needs, on disk: whole files only, the newest two of them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.folders import write_atomic
from zoo.progress import current
from zoo.untrusted import TENSORS_LIMIT, parse_json, parse_tensors, read_file

SHARE = 0.015
"""The share of the time that writing may take. With what it slows down after it, in caches that it
emptied, it comes to less than 2 %."""

_NAME = re.compile(r"step-(\d+)-([0-9a-f]{64})\.safetensors")
_STATE = "state.json"


class Checkpoints:
    """The checkpoints of one run, in a folder of its own.

    A file is written under another name and renamed; its name holds the SHA-256 of its content, so
    that a torn or altered one is known by itself, and the one before it is used. Nothing but
    tensors and JSON is in it: the JSON as bytes, under a name of its own.
    """

    def __init__(
        self, folder: Path, *, seconds: float | None = None, steps: int | None = None
    ) -> None:
        self.folder = folder
        self._seconds, self._steps = seconds, steps
        self._written = time.perf_counter()
        self._cost = 0.0
        self._step = 0
        self._begun: float | None = None

    def due(self, step: int) -> bool:
        """Say whether a checkpoint is due after step `step`.

        Never sooner than what keeps writing to `SHARE` of the time, going by the last one's cost.
        """
        since = time.perf_counter() - self._written
        if since < self._cost / SHARE:
            return False
        by_steps = self._steps is not None and step - self._step >= self._steps
        return by_steps or (self._seconds is not None and since >= self._seconds)

    def begin(self) -> None:
        """Say that what is to be saved is gathered from here on: it costs time, too."""
        self._begun = time.perf_counter()

    def save(self, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Write a checkpoint, then remove all but the newest two; raises OSError.

        Of one step the later one stays.
        """
        from safetensors.torch import save

        started = self._begun or time.perf_counter()
        text = json.dumps(state).encode()
        body = {name: _apart(tensor) for name, tensor in tensors.items()}
        body[_STATE] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
        data = save(body)
        self.folder.mkdir(exist_ok=True)
        name = f"step-{step:010}-{hashlib.sha256(data).hexdigest()}.safetensors"
        write_atomic(self.folder / name, data)
        self._thin_out(name, step)
        self._written, self._step = time.perf_counter(), step
        self._cost, self._begun = self._written - started, None

    def _thin_out(self, newest: str, step: int) -> None:
        """Remove what the newest checkpoint replaces, but for the one before it."""
        others = [path for _, path in self._files() if path.name != newest]
        same = [path for path in others if _step(path) == step]
        before = [path for path in others if path not in same]
        for old in same + before[1:]:
            with contextlib.suppress(OSError):
                old.unlink()

    def newest(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Read the newest checkpoint that is whole; None where there is none."""
        from safetensors.torch import load

        for digest, path in self._files():
            try:
                data = read_file(path, TENSORS_LIMIT)
                if hashlib.sha256(data).hexdigest() != digest:
                    raise ValueError("its SHA-256 is not the one in its name")
                tensors = parse_tensors(load, data)
                state = parse_json(tensors.pop(_STATE).numpy().tobytes())
            except (OSError, ValueError, KeyError, TypeError) as error:
                current().note(f"'{path}' is torn or corrupt ({error}); taking the one before it")
                continue
            self._step = int(_step(path))
            return {name: tensors[name] for name in sorted(tensors)}, state
        return None

    def last_step(self) -> int | None:
        """Return the step of the newest file, unread."""
        files = self._files()
        return _step(files[0][1]) if files else None

    def clear(self) -> None:
        """Remove all of them, once what they were kept for is done."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _files(self) -> list[tuple[str, Path]]:
        """Return (SHA-256, path) of the checkpoints, newest first."""
        found = []
        if self.folder.is_dir():
            for path in sorted(self.folder.iterdir(), reverse=True):
                if match := _NAME.fullmatch(path.name):
                    found.append((match[2], path))
        return found


def _step(path: Path) -> int:
    match = _NAME.fullmatch(path.name)
    assert match
    return int(match[1])


def _apart(tensor: Tensor) -> Tensor:
    """Return a tensor on the CPU that shares memory with no other, as safetensors demands."""
    return tensor.detach().cpu().contiguous().clone()
