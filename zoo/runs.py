"""Run folders: create, record, load, list, find."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import datetime
import errno
import hashlib
import json
import os
import secrets
import shlex
import shutil
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from zoo.api import ImageInput
from zoo.errors import RunError, did_you_mean
from zoo.folders import workshop, write_atomic
from zoo.progress import current
from zoo.record import DEEDS, Record, from_json, unknown_in, with_unknown
from zoo.untrusted import TENSORS_LIMIT, parse_json, parse_tensors, plain, read_file

if TYPE_CHECKING:
    from torch import Tensor


READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)


@dataclasses.dataclass
class Run:
    """One run on disk: its folder and its record."""

    folder: Path
    record: Record
    unknown: dict[str, Any] = dataclasses.field(default_factory=dict, compare=False)
    """What a newer zoo wrote into its run.json beyond that; it is kept there."""
    earlier: float = dataclasses.field(default=0.0, compare=False)
    """Seconds that it took before it was resumed."""
    fresh: bool = dataclasses.field(default=False, compare=False)
    """Whether it was made a moment ago, and nobody has worked on it."""
    main: bool = dataclasses.field(default=True, compare=False)
    """Whether this process writes it; others that train it with this one do not."""

    _unwritten: bool = dataclasses.field(default=False, compare=False, repr=False)
    """Whether a reading of the test split could not be written down."""

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def instant(self) -> datetime.datetime:
        return datetime.datetime.fromisoformat(self.record.created)

    @property
    def state(self) -> str:
        """finished, failed, interrupted, running, or dead: its process ended without a word."""
        if self.record.status != "running":
            return self.record.status
        try:
            with FileLock(self.folder / ".lock", timeout=0):
                return "dead"
        except Timeout:
            return "running"
        except OSError:  # a folder of somebody else's, which this user may only read
            return "running" if _alive(self.record.process) else "dead"

    @property
    def input(self) -> ImageInput:
        channels, height, width = self.record.input
        return ImageInput(channels=channels, height=height, width=width)

    @property
    def data_input(self) -> ImageInput:
        channels, height, width = self.record.data_input
        return ImageInput(channels=channels, height=height, width=width)

    @property
    def model(self) -> Path:
        return self.folder / "model.onnx"

    def save(self) -> None:
        if not self.main:
            return
        content = with_unknown(self.record, self.unknown)
        text = json.dumps(content, indent=2, ensure_ascii=False)
        write_atomic(self.folder / "run.json", text.encode())

    @property
    def checkpoint(self) -> Path:
        """The folder of what an exact resume needs; gone when the run is finished."""
        return self.folder / "checkpoint"

    def append_metrics(self, line: Mapping[str, Any]) -> None:
        if not self.main:
            return
        with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def write_metrics(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Write the epochs anew, a torn line or those after a checkpoint left out."""
        if not self.main:
            return
        text = "".join(json.dumps(line) + "\n" for line in lines)
        write_atomic(self.folder / "metrics.jsonl", text.encode())

    def metrics(self) -> list[dict[str, Any]]:
        """Read the epochs written so far, up to a line that is torn or none of an epoch."""
        lines: list[dict[str, Any]] = []
        with contextlib.suppress(OSError, ValueError):
            for text in read_file(self.folder / "metrics.jsonl").split(b"\n")[:-1]:
                line = parse_json(text)
                if not _is_epoch(line):
                    break
                lines.append(line)
        return lines

    def add_test(self, by: str, **figures: Any) -> str:
        """Write down that the test split is about to be measured on, and by which verb.

        Written before the model is asked of any example, so that no reading goes uncounted; where
        the run may only be read, that is noted. Raises `RunError` where recording it is what the
        verb is there for. Returns what `finish_test` takes, to add the figures.
        """
        when = _now()
        reading = {"by": by, "when": when, **figures}
        try:
            with FileLock(self.folder / ".lock"):  # another process may be writing its own reading
                self.record.tests = load(self.folder).record.tests
                self.record.tests.append(reading)
                self.save()
        except OSError as error:
            if error.errno not in READ_ONLY:
                raise
            why = f"'{self.folder}' may only be read"
            if by == "evaluate":
                typed = f"cp -r {shlex.quote(str(self.folder))} ."
                raise RunError(
                    f"{why}, so no evaluation can be recorded there. Copy the run, and evaluate the"
                    f" copy. Type: {typed}"
                ) from None
            current().note(f"{why}: that its test split is read now is not written down there")
            self.record.tests = [test for test in self.record.tests if test is not reading]
            self._unwritten = True
        return when

    def finish_test(self, reading: str, **figures: Any) -> None:
        """Add to a reading of the test split what it showed."""
        if self._unwritten:
            return
        with FileLock(self.folder / ".lock"):
            self.record.tests = load(self.folder).record.tests
            for test in self.record.tests:
                if test.get("when") == reading:
                    test.update(figures)
            self.save()

    def test_readings(self) -> dict[str, int]:
        """Count the readings of the test split by the verb that read it."""
        return dict(collections.Counter(str(test.get("by")) for test in self.record.tests))

    def save_weights(self, tensors: Mapping[str, Tensor]) -> None:
        """Write tensors alone to `weights.safetensors`, and their SHA-256 into the record."""
        from safetensors.torch import save

        # Clones: safetensors refuses tensors that share memory, as tied weights do.
        data = save({name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()})
        if self.main:
            write_atomic(self.folder / "weights.safetensors", data)
        self.record.weights_sha256 = hashlib.sha256(data).hexdigest()

    def load_weights(self) -> dict[str, Tensor]:
        """Read the weights; raises `RunError` where they are not those that were saved."""
        from safetensors.torch import load

        path = self.folder / "weights.safetensors"
        try:
            data = read_file(path, TENSORS_LIMIT)
        except FileNotFoundError:
            raise RunError(
                f"Run '{self.name}' has no weights: '{path}' is missing. Train the run again."
            ) from None
        except OSError as error:
            raise RunError(unreadable(path, error)) from None
        if hashlib.sha256(data).hexdigest() != self.record.weights_sha256:
            raise RunError(
                f"'{path}' is corrupt: its SHA-256 is not the one that run.json records."
                " Train the run again."
            )
        try:
            tensors: dict[str, Tensor] = parse_tensors(load, data)
        except ValueError as error:
            raise RunError(f"'{path}' is no safetensors file: {error}.") from None
        return tensors

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Keep the status true while a run is made: finished, failed, interrupted, or dead.

        Raises `RunError` where another process is making it. What a killed process left
        half-written is removed.
        """
        started = time.perf_counter()
        self.earlier = self.record.seconds or 0.0
        if not self.main:
            yield
            return
        with self._locked():
            self._open()
            try:
                yield
            except BaseException as error:
                interrupted = isinstance(error, KeyboardInterrupt)
                self.record.status = "interrupted" if interrupted else "failed"
                self.record.error = None if interrupted else f"{type(error).__name__}: {error}"
                self._close(started)
                raise
            self.record.status = "finished"
            self.record.error = None
            self.record.seconds = round(self.earlier + time.perf_counter() - started, 3)
            self.save()
            shutil.rmtree(self.checkpoint, ignore_errors=True)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        lock = FileLock(self.folder / ".lock", timeout=5)  # `state` holds it for a moment, too
        try:
            lock.acquire()
        except Timeout:
            raise RunError(f"Run '{self.name}' is being made by another process.") from None
        try:
            yield
        finally:
            lock.release()

    def _open(self) -> None:
        if self.fresh:
            self.fresh = False
            return
        if load(self.folder).record.status == "finished":
            raise RunError(f"Run '{self.name}' was finished meanwhile. See: zoo runs")
        # Whoever holds the run's lock is alone here, so that no file's own lock need be asked; and
        # zoo 0.1 called them otherwise.
        for partial in self.folder.rglob(".*.partial"):
            partial.unlink(missing_ok=True)
        self.record.status, self.record.process = "running", _process()
        self.save()

    def _close(self, started: float) -> None:
        self.record.seconds = round(self.earlier + time.perf_counter() - started, 3)
        with contextlib.suppress(OSError):  # the disk may be what failed
            self.save()


def create(root: Path, record: Record) -> Run:
    """Make the run's folder with its resolved options, before any data is loaded."""
    root.mkdir(parents=True, exist_ok=True)
    stamp = datetime.datetime.now().strftime("%Y-%m-%dT%H-%M-%S")
    title = f"{record.kind}-{record.backbone.name}-{record.dataset.name}"
    while True:
        name = f"{stamp}-{title}-{secrets.token_hex(2)}"
        if not (root / name).exists():
            break
    record.run, record.created, record.status = name, _now(), "running"
    record.process = _process()
    # A folder under its name has its record: one that was killed before leaves none.
    with workshop(root / name) as place:
        draft = Run(place / name, record)
        draft.folder.mkdir()
        draft.save()
        draft.folder.rename(root / name)
    return Run(root / name, record, fresh=True)


def load(folder: Path) -> Run:
    """Read a run folder; raises `RunError` where it is missing, foreign or corrupt."""
    path = folder / "run.json"
    if not folder.is_dir():
        raise RunError(f"There is no run folder '{folder}'. See: zoo runs")
    try:
        content = parse_json(read_file(path))
    except FileNotFoundError:
        raise RunError(
            f"'{folder}' is not a run folder: it has no run.json. See: zoo runs"
        ) from None
    except OSError as error:
        raise RunError(unreadable(path, error)) from None
    except ValueError as error:
        raise RunError(f"'{path}' is corrupt: {error}. Train the run again.") from None
    record = from_json(path, content)
    return Run(folder, record, unknown_in(content, record))


def unreadable(path: Path, error: OSError) -> str:
    """Say why a file of a run cannot be read, and how to see what it is."""
    typed = f"ls -ld {shlex.quote(str(path))}"
    return f"'{path}' cannot be read: {error.strerror or error}. Type: {typed}"


def every(root: Path) -> tuple[list[Run], list[str]]:
    """Return the runs under a folder, oldest first, and what is wrong with those left out.

    Raises `RunError` where the folder itself cannot be listed.
    """
    runs, faults = [], []
    try:
        folders = sorted(path for path in root.iterdir() if _is_folder(path))
    except (FileNotFoundError, NotADirectoryError):
        folders = []
    except OSError as error:
        raise RunError(unreadable(root, error)) from None
    for folder in folders:
        try:
            (folder / "run.json").lstat()
            runs.append(load(folder))
        except FileNotFoundError:
            continue
        except OSError as error:
            faults.append(unreadable(folder, error))
        except RunError as error:
            faults.append(str(error))
    return sorted(runs, key=lambda run: (run.instant, run.name)), faults


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a link into a place that may not be entered
        return False


def find(root: Path, text: str, fits: Callable[[Run], bool], wanted: str) -> Run:
    """Resolve RUN: a folder, a run's name, or `latest`, the newest run that `fits`.

    `wanted` says in words what fits. Raises `RunError`.
    """
    if text == "latest":
        found = [run for run in every(root)[0] if fits(run)]
        if not found:
            raise RunError(f"There is no {wanted} under '{root}'. See: zoo runs")
        return found[-1]
    folder = Path(text)
    if folder.is_file():
        raise RunError(
            f"'{text}' is a file; a run is named by its folder, its name, or latest. See: zoo runs."
            " To prove a file again, type: zoo validate FILE"
        )
    if not folder.is_dir():
        folder = root / text
    if not folder.is_dir():
        names = [run.name for run in every(root)[0]]
        raise RunError(
            f"There is no run '{text}' under '{root}', and no such folder."
            f"{did_you_mean(text, names)} See: zoo runs"
        )
    run = load(folder)
    if not fits(run):
        raise RunError(
            f"Run '{run.name}' is a {run.state} {DEEDS[run.record.kind]}; needed is a {wanted}."
            " See: zoo runs"
        )
    return run


def _is_epoch(line: Any) -> bool:
    """Say whether a line of metrics.jsonl is as training writes it, as far as it is read."""
    if not (isinstance(line, dict) and plain(line)):
        return False
    epoch, figures = line.get("epoch"), [line.get("lr", 0.0), line.get("seconds", 0.0)]
    for side in ("train", "validation"):
        held = {} if line.get(side) is None else line[side]
        if not isinstance(held, dict):
            return False
        figures += held.values()
    numbers = all(isinstance(f, int | float) and not isinstance(f, bool) for f in figures)
    return numbers and isinstance(epoch, int) and epoch >= 1


def _process() -> dict[str, Any]:
    return {"pid": os.getpid(), "host": socket.gethostname()}


def _alive(process: Mapping[str, Any]) -> bool:
    """Say whether a recorded process may still be there; one on another host may."""
    if process.get("host") != socket.gethostname():
        return True
    try:
        os.kill(int(process["pid"]), 0)
    except (ProcessLookupError, KeyError, TypeError, ValueError, OverflowError):
        return False
    except OSError:
        return True
    return True


def _now() -> str:
    return datetime.datetime.now().astimezone().isoformat(timespec="microseconds")
