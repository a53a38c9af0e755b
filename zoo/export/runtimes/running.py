"""One process for one answer: its time limit, its crash, and nothing of it left behind."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo import drafts
from zoo.export.runtimes.catalogue import Worker, workers

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

OUTPUTS = ("logits", "probabilities")  # card.py names them too, and needs numpy
MOST_LETTERS = 200
"""Characters of a problem; of a longer one the middle is left out."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a runtime said, float32 N x classes each; or in `problem`, one line, why nothing."""

    name: str
    version: str = ""
    probabilities: Array | None = None
    logits: Array | None = None
    problem: str = ""


def run(
    name: str,
    model: bytes | Path,
    images: Array,
    *,
    batch: int,
    layout: str = "NCHW",
    fixed_batch: int | None = None,
    seconds: float = 60.0,
) -> Answer:
    """Run raw examples, uint8 N x C x H x W, by a runtime in batches of one size.

    `layout` and `fixed_batch` are what the file's metadata says of its input; a file of a fixed
    batch is run at that one. Whatever the runtime does comes back as an answer: "not installed",
    "unsupported: …", "crashed: SIGSEGV", "took longer than 60 s". Raises `UnknownName`.
    """
    answer = Answer(name, problem="not installed")
    ends = time.monotonic() + seconds
    for number, worker in enumerate(workers(name)):
        left = ends - time.monotonic()
        if number and left <= 0:
            break
        tried = ask(
            worker, model, images, batch=batch, layout=layout, fixed_batch=fixed_batch, seconds=left
        )
        if not tried.problem:
            return tried
        answer = tried if number == 0 else answer  # the first is what its users meet
    return answer


def ask(
    worker: Worker,
    model: bytes | Path,
    images: Array,
    *,
    batch: int,
    layout: str = "NCHW",
    fixed_batch: int | None = None,
    seconds: float = 60.0,
) -> Answer:
    """Run raw examples in a worker's process; fewer than a batch are repeated to make one."""
    import numpy as np

    count, size = len(images), fixed_batch or batch
    full = -(-count // size) * size if fixed_batch else max(count, size)
    given = np.resize(images, (full, *images.shape[1:]))
    given = given.transpose(0, 2, 3, 1) if layout == "NHWC" else given
    with drafts.folder() as folder:
        data = model if isinstance(model, bytes) else model.read_bytes()
        (folder / "model.onnx").write_bytes(data)
        (folder / "images").write_bytes(np.ascontiguousarray(given).tobytes())
        (folder / "task.json").write_text(json.dumps({"shape": given.shape, "batch": size}))
        problem = _run_process(worker, folder, seconds)
        version = _read(folder / "version")
        if problem:
            return Answer(worker.name, version, problem=problem)
        outputs = [np.fromfile(folder / output, np.float32) for output in OUTPUTS]
    if any(not output.size or output.size % full for output in outputs):
        return Answer(worker.name, version, problem="crashed: its answer is not whole")
    logits, probabilities = (output.reshape(full, -1)[:count] for output in outputs)
    return Answer(worker.name, version, probabilities, logits)


def _run_process(worker: Worker, folder: Path, seconds: float) -> str:
    """Run a worker on a folder; return what went wrong, or nothing."""
    with (folder / "said").open("wb") as said:
        try:
            process = subprocess.Popen(
                [*worker.command, str(folder)],
                cwd=folder,  # a core dump goes with it
                env={**os.environ, **dict(worker.environment)},
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )
        except OSError as error:
            return f"crashed: it cannot be started: {error.strerror}"
        try:
            status = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            return f"took longer than {seconds:.3g} s"
        finally:
            if process.returncode is None:  # too slow, or Ctrl-C
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    if status < 0:
        return f"crashed: {signal.Signals(-status).name}"
    problem = _read(folder / "problem")
    if problem:
        return f"unsupported: {_one_line(problem, folder)}"
    if status or not all((folder / output).is_file() for output in OUTPUTS):
        last = _read(folder / "said").splitlines()[-1:] or ["it said nothing"]
        return f"crashed: exit status {status}: {_one_line(last[0], folder)}"
    return ""


def _read(path: Path) -> str:
    return path.read_text(errors="replace").strip() if path.is_file() else ""


def _one_line(text: str, folder: Path) -> str:
    """Shorten what a runtime said to one line that names no folder of this machine."""
    line = " ".join(text.replace(f"{folder}{os.sep}", "").replace(str(folder), ".").split())
    line = re.sub(r"(?<![\w.:])/(?:[\w.+@ -]+/)+", "…/", line)  # of a path its last name
    if len(line) <= MOST_LETTERS:
        return line
    head = MOST_LETTERS // 3
    return f"{line[:head]} … {line[head + 3 - MOST_LETTERS :]}"  # reasons often stand at the end
