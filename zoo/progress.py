"""Progress of long work: silent in Python, plain lines in a pipe, one live line on a terminal."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TextIO

from zoo.showing import shown, shown_lines

if TYPE_CHECKING:
    import rich.console


class Task(Protocol):
    """One piece of long work on display."""

    def due(self) -> bool:
        """Say whether an update would be seen now; what an update costs is spared otherwise."""

    def update(self, completed: int, total: int | None = None, text: str = "") -> None:
        """Show how much is done, and a text: an epoch, losses."""


class Reporter(Protocol):
    """What shows notes and tasks to a person."""

    def note(self, text: str) -> None: ...

    def task(
        self, description: str, total: int | None, unit: str, done: int = 0
    ) -> AbstractContextManager[Task]:
        """Begin a task, so much of which was done before: the rate leaves that out."""
        ...


# never elsewhere: print
def _print(text: str, stream: TextIO) -> None:
    """Print a line; one that the stream does not take must not cost the work."""
    with contextlib.suppress(OSError):
        print(text, file=stream, flush=True)


class _SilentTask:
    def due(self) -> bool:
        return False

    def update(self, completed: int, total: int | None = None, text: str = "") -> None:
        pass


class Silent:
    """Show nothing."""

    def note(self, text: str) -> None:
        pass

    @contextlib.contextmanager
    def task(self, description: str, total: int | None, unit: str, done: int = 0) -> Iterator[Task]:
        yield _SilentTask()


class _PlainTask:
    def __init__(
        self,
        stream: TextIO,
        description: str,
        total: int | None,
        unit: str,
        every: float,
        done: int,
    ) -> None:
        self._stream, self._description, self._unit, self._every = stream, description, unit, every
        self._total, self._before = total, done
        self._started = self._shown = time.monotonic()
        self._last = ""

    def due(self) -> bool:
        return time.monotonic() - self._shown >= self._every

    def update(self, completed: int, total: int | None = None, text: str = "") -> None:
        total = self._total = self._total if total is None else total
        elapsed = time.monotonic() - self._started
        rate = (completed - self._before) / elapsed if elapsed > 0 else 0.0
        left = f", {clock(max(0, total - completed) / rate)} left" if total and rate else ""
        share = f" {completed / total:4.0%}" if total else ""
        line = f"{self._description}{share}  {text}  {rate:,.0f} {self._unit}/s{left}"
        self._last = line
        if self.due():
            self._show()

    def close(self) -> None:
        if self._last:
            self._show()

    def _show(self) -> None:
        self._shown = time.monotonic()
        _print(shown(self._last), self._stream)
        self._last = ""


class Plain:
    """Print a line now and then, and one at the end of each task."""

    def __init__(self, stream: TextIO | None = None, every: float = 5.0) -> None:
        self._stream = stream or sys.stderr
        self._every = every

    def note(self, text: str) -> None:
        _print(shown_lines(text), self._stream)

    @contextlib.contextmanager
    def task(self, description: str, total: int | None, unit: str, done: int = 0) -> Iterator[Task]:
        task = _PlainTask(self._stream, description, total, unit, self._every, done)
        yield task
        task.close()


class Once:
    """Show everything as another reporter does, but no note a second time."""

    def __init__(self, reporter: Reporter) -> None:
        self.inner = reporter
        self._noted: set[str] = set()

    def note(self, text: str) -> None:
        if text not in self._noted:
            self._noted.add(text)
            self.inner.note(text)

    def task(
        self, description: str, total: int | None, unit: str, done: int = 0
    ) -> AbstractContextManager[Task]:
        return self.inner.task(description, total, unit, done)


class _LiveTask:
    def __init__(self, bar: object, handle: object, unit: str, done: int) -> None:
        self._bar, self._handle, self._unit, self._before = bar, handle, unit, done
        self._started = time.monotonic()
        self._shown = 0.0

    def due(self) -> bool:
        return time.monotonic() - self._shown >= 0.2

    def update(self, completed: int, total: int | None = None, text: str = "") -> None:
        self._shown = time.monotonic()
        rate = (completed - self._before) / max(1e-9, self._shown - self._started)
        line = shown(f"{text}  {rate:,.0f} {self._unit}/s")
        self._bar.update(self._handle, completed=completed, total=total, text=line)  # type: ignore[attr-defined]


class Live:
    """Show one line with a bar, the loss, the rate and the time left; rich is loaded only here."""

    def __init__(self, console: rich.console.Console | None = None) -> None:
        from rich.console import Console

        # This stream itself: others may redirect sys.stderr while the bar is shown.
        self._console = console or Console(file=sys.stderr)

    # never elsewhere: print
    def note(self, text: str) -> None:
        self._console.print(shown_lines(text), markup=False, highlight=False)

    @contextlib.contextmanager
    def task(self, description: str, total: int | None, unit: str, done: int = 0) -> Iterator[Task]:
        from rich.progress import (
            BarColumn,
            Progress,
            ProgressColumn,
            TextColumn,
            TimeRemainingColumn,
        )
        from rich.table import Column

        # What is cut on a narrow terminal is the text at the end: never the share, the time left.
        name = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True))
        columns: list[ProgressColumn] = [name]
        if self._console.width >= 110:
            columns.append(BarColumn(bar_width=16))
        columns += [
            TextColumn("{task.percentage:>3.0f}%", table_column=Column(min_width=4)),
            TimeRemainingColumn(compact=True, table_column=Column(min_width=5)),
            TextColumn(
                "{task.fields[text]}",
                markup=False,
                table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1),
            ),
        ]
        with Progress(*columns, console=self._console, refresh_per_second=5, expand=True) as bar:
            handle = bar.add_task(shown(description), total=total, completed=done, text="")
            yield _LiveTask(bar, handle, unit, done)


_current: ContextVar[Reporter | None] = ContextVar("zoo_reporter", default=None)


def current() -> Reporter:
    """Return the reporter in force; silent unless `reporting` set one."""
    return _current.get() or Silent()


def heard() -> bool:
    """Say whether anybody is shown a note."""
    reporter = current()
    while isinstance(reporter, Once):
        reporter = reporter.inner
    return type(reporter) is not Silent


def note_once(text: str, memory: Path) -> None:
    """Note what was never noted before: the file `memory` is made once somebody was shown it."""
    with contextlib.suppress(OSError):
        if memory.exists():
            return
    if not heard():
        return
    current().note(text)
    with contextlib.suppress(OSError):  # a folder of somebody else's: it is told again
        memory.parent.mkdir(parents=True, exist_ok=True)
        memory.touch()


@contextlib.contextmanager
def reporting(reporter: Reporter) -> Iterator[None]:
    """Show progress through `reporter` within this block."""
    token = _current.set(reporter)
    try:
        yield
    finally:
        _current.reset(token)


def clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
