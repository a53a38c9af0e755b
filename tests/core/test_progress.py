"""Progress: silent in Python, plain lines in a pipe, one live line on a terminal."""

from __future__ import annotations

import io
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from zoo import api
from zoo.api import note
from zoo.progress import Live, Once, Plain, Silent, current, reporting


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    # Only the clock that zoo.progress reads: rich has a thread with one of its own.
    made = Clock()
    monkeypatch.setattr("zoo.progress.time", SimpleNamespace(monotonic=made))
    return made


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


class Notes(Silent):
    """Keep the notes."""

    def __init__(self) -> None:
        self.kept: list[str] = []

    def note(self, text: str) -> None:
        self.kept.append(text)


class Full(io.StringIO):
    """A stream that takes nothing: a full disk, a reader that has gone."""

    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")


def test_a_line_that_cannot_be_printed_costs_nothing_else() -> None:
    reporter = Plain(Full(), every=0)
    reporter.note("not seen")
    with reporter.task("not seen", 10, "examples") as task:
        task.update(5, 10, "not seen")


# --- which reporter -------------------------------------------------------------------------


def test_python_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    reporter = current()
    assert isinstance(reporter, Silent)
    reporter.note("not seen")
    with reporter.task("not seen", 10, "examples") as task:
        assert not task.due()  # so that nothing is computed for a text that nobody sees
        task.update(5, 10, "not seen")
    assert capfd.readouterr() == ("", "")


def test_a_reporter_is_in_force_within_its_block() -> None:
    outer, inner = Notes(), Notes()
    with reporting(outer):
        with reporting(inner):
            assert current() is inner
        assert current() is outer
        with pytest.raises(ValueError, match="boom"), reporting(inner):
            raise ValueError("boom")
        assert current() is outer
    assert isinstance(current(), Silent)


def test_what_is_told_once_is_told_when_somebody_hears_it(tmp_path: Path) -> None:
    memory, notes = tmp_path / "data" / "told", Notes()
    note("two are alike", once=memory)
    with reporting(Once(Silent())):
        note("two are alike", once=memory)
    assert not memory.parent.exists()
    with reporting(Once(notes)):
        note("two are alike", once=memory)
    with reporting(notes):
        note("two are alike", once=memory)
        assert notes.kept == ["two are alike"]
        note("others are", once=tmp_path / "others")
        (tmp_path / "a file").touch()
        note("it cannot be kept", once=tmp_path / "a file" / "told")
    assert notes.kept == ["two are alike", "others are", "it cannot be kept"]


def test_a_plugin_reaches_the_reporter_in_force(stream: io.StringIO) -> None:
    with reporting(Plain(stream)):
        api.note("reading the archive")
        with api.progress("decoding", 4, unit="pictures") as task:
            task.update(4)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "reading the archive"
    assert lines[1].startswith("decoding 100%")
    assert " pictures/s" in lines[1]


# --- plain lines ----------------------------------------------------------------------------


def test_plain_shows_a_line_now_and_then_and_the_last_one(
    clock: Clock, stream: io.StringIO
) -> None:
    with Plain(stream, every=5.0).task("pretrain", 100, "examples") as task:
        for second in range(1, 8):
            clock.now += 1
            assert task.due() == (second == 5)
            task.update(second * 10, 100, f"epoch {second}")
        assert stream.getvalue() == "pretrain  50%  epoch 5  10 examples/s, 0:05 left\n"
    assert stream.getvalue() == (
        "pretrain  50%  epoch 5  10 examples/s, 0:05 left\n"
        "pretrain  70%  epoch 7  10 examples/s, 0:03 left\n"
    )


def test_plain_does_not_show_the_last_line_twice(clock: Clock, stream: io.StringIO) -> None:
    with Plain(stream, every=5.0).task("export", 10, "examples") as task:
        clock.now += 5
        task.update(10, 10, "done")
    assert stream.getvalue() == "export 100%  done  2 examples/s, 0:00 left\n"


def test_plain_shows_nothing_of_a_task_without_updates(stream: io.StringIO) -> None:
    with Plain(stream, every=0.0).task("nothing", 10, "examples"):
        pass
    assert stream.getvalue() == ""


def test_plain_knows_the_total_that_the_task_was_begun_with(
    clock: Clock, stream: io.StringIO
) -> None:
    with Plain(stream).task("decoding", 10, "pictures") as task:
        clock.now += 1
        task.update(4, text="two.zip")
    assert stream.getvalue() == "decoding  40%  two.zip  4 pictures/s, 0:02 left\n"


def test_plain_takes_a_total_that_is_known_later(clock: Clock, stream: io.StringIO) -> None:
    with Plain(stream, every=1.0).task("fetching", None, "bytes") as task:
        clock.now += 1
        task.update(4, text="a")
        clock.now += 1
        task.update(8, 16, text="b")
    assert stream.getvalue() == ("fetching  a  4 bytes/s\nfetching  50%  b  4 bytes/s, 0:02 left\n")


@pytest.mark.parametrize(
    ("completed", "total", "seconds"),
    # More than was announced, nothing yet, no time gone by, nothing to do.
    [(12, 10, 2.0), (10_000, 10, 1.0), (0, 10, 2.0), (5, 10, 0.0), (0, 0, 1.0), (3, 0, 1.0)],
)
def test_plain_is_never_negative_and_never_divides_by_nothing(
    completed: int, total: int, seconds: float, clock: Clock, stream: io.StringIO
) -> None:
    with Plain(stream).task("work", total, "examples") as task:
        clock.now += seconds
        task.update(completed, total, "text")
    line = stream.getvalue()
    assert line.startswith("work")
    assert "-" not in line
    rate = completed / seconds if seconds else 0
    assert f" {rate:,.0f} examples/s" in line


@pytest.mark.parametrize(
    ("seconds", "shown"), [(9, "0:09"), (61, "1:01"), (3599, "59:59"), (3605, "1:00:05")]
)
def test_plain_writes_the_time_left_as_a_clock(
    seconds: int, shown: str, clock: Clock, stream: io.StringIO
) -> None:
    with Plain(stream).task("work", None, "examples") as task:
        clock.now += 1
        task.update(1, 1 + seconds, "text")
    assert stream.getvalue().endswith(f"  1 examples/s, {shown} left\n")


def test_plain_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    Plain().note("hello")
    assert capsys.readouterr() == ("", "hello\n")


# --- one live line --------------------------------------------------------------------------


def live_on(stream: io.StringIO) -> Live:
    terminal = Console(
        file=stream, force_terminal=True, width=120, _environ={"TERM": "xterm-256color"}
    )
    return Live(terminal)


def shown(stream: io.StringIO) -> str:
    """Return what went to the terminal, without colours and cursor movements."""
    return re.sub(r"\x1b\[[?0-9;]*[a-zA-Z]", "", stream.getvalue())


def last_line(stream: io.StringIO) -> str:
    return re.split(r"[\r\n]+", shown(stream).strip())[-1].rstrip()


def test_live_shows_description_share_text_and_rate(clock: Clock, stream: io.StringIO) -> None:
    with live_on(stream).task("pretrain", 200, "examples") as task:
        clock.now += 2
        task.update(50, 200, "epoch 3  loss 0.25")
    line = last_line(stream)
    assert line.startswith("pretrain ")
    assert re.search(r" 25% \S+ epoch 3  loss 0.25  25 examples/s", line)
    assert stream.getvalue().endswith("\x1b[?25h")  # the cursor is there again


def test_live_knows_the_total_that_the_task_was_begun_with(stream: io.StringIO) -> None:
    with live_on(stream).task("decoding", 10, "pictures") as task:
        task.update(4)
    assert "  40% " in last_line(stream)


def test_live_shows_text_as_it_is(stream: io.StringIO) -> None:
    live = live_on(stream)
    live.note("note [bold]x[/bold] [/nothing]")
    with live.task("work [red]", 2, "examples") as task:
        task.update(1, 2, "text [/blue] {task.id}")
    assert "note [bold]x[/bold] [/nothing]" in shown(stream)
    assert last_line(stream).startswith("work [red] ")
    assert "text [/blue] {task.id}" in last_line(stream)


def test_live_prints_a_note_above_its_line(stream: io.StringIO) -> None:
    live = live_on(stream)
    with live.task("work", 2, "examples") as task:
        task.update(1, 2)
        live.note("a note")
        task.update(2, 2)
    assert "a note" in shown(stream)
    assert last_line(stream).startswith("work ")


@pytest.mark.parametrize(("completed", "total"), [(0, None), (3, None), (12, 10), (0, 0)])
def test_live_bears_a_total_that_is_missing_or_wrong(
    completed: int, total: int | None, clock: Clock, stream: io.StringIO
) -> None:
    with live_on(stream).task("work", total, "examples") as task:
        task.update(completed, total, "text")  # no time has gone by
        clock.now += 1
        task.update(completed, total, "text")
    assert f"text  {completed} examples/s" in last_line(stream)
    assert not re.search(r"-\d", last_line(stream))


def test_live_is_due_five_times_a_second(clock: Clock, stream: io.StringIO) -> None:
    with live_on(stream).task("work", 2, "examples") as task:
        assert task.due()
        task.update(1, 2)
        assert not task.due()
        clock.now += 0.25
        assert task.due()


def test_live_shows_a_task_within_a_task(stream: io.StringIO) -> None:
    # Training may begin with a data set that shows how it is decoded.
    live = live_on(stream)
    with live.task("outer", 2, "examples") as outer:
        with live.task("inner", 4, "pictures") as inner:
            inner.update(4, 4)
        outer.update(1, 2)
    assert "inner " in shown(stream)
    assert "  50% " in last_line(stream)


def test_live_gives_the_terminal_back_after_an_error(stream: io.StringIO) -> None:
    with pytest.raises(KeyboardInterrupt), live_on(stream).task("work", 2, "examples"):
        raise KeyboardInterrupt
    assert stream.getvalue().endswith("\x1b[?25h")
