"""What goes wrong in front of a user: what was wrong, what is allowed, what to type next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

MEMORY_SIGNS = (
    "failed to allocate memory",  # onnxruntime
    "can't allocate memory",  # torch on Linux
    "not enough memory",  # torch on Windows
    "out of memory",  # torch on a GPU, Node
    "cannot allocate memory",  # the system
    "bad_alloc",
    "bad allocation",  # C++ on Windows
)


class ZooError(Exception):
    """Say in one message what was wrong, what is allowed and what to type next.

    The command line prints the message without a traceback and exits with `exit_status`.
    """

    exit_status = 1
    _recurs = False  # see `recurs`


class UsageError(ZooError):
    """The user typed something that cannot be meant: an unknown name, an option out of range."""

    exit_status = 2
    _recurs = True


class UnknownName(UsageError):
    """No component, run or option of that name exists."""


class DuplicateName(ZooError):
    """Two plugins contribute one name, and nothing says which of them is meant."""

    _recurs = True


class BadOption(UsageError):
    """An option's value has the wrong type or lies out of its range."""


class LoggerError(UsageError):
    """A logger that was asked for does not take the run: its server or its disk is not there."""

    _recurs = False


class Unfit(ZooError):
    """A config, an input, a backbone, an objective or a head do not go together."""

    _recurs = True


class PluginFault(ZooError):
    """A plugin's own code failed or broke the contract of `zoo.api`."""

    _recurs = True


class UnknownField(TypeError):
    """A plugin gives a field that this version of `zoo.api` does not know."""


class RunError(ZooError):
    """A run folder is missing, unfinished, foreign or corrupt."""


class OtherExamples(RunError):
    """A run cannot go on: its examples are others now."""

    _recurs = True
    TEXT = "The examples are not those that this run began with, so it cannot go on."


class DataError(ZooError):
    """A data set is absent, truncated, corrupt or cannot be fetched."""

    _recurs = True


class DataUnavailable(DataError):
    """A data set cannot be had now, and perhaps later: a full disk, no network, files that change.

    A run that it stops can be gone on with.
    """

    _recurs = False


class ModelFileError(ZooError):
    """A file is not an ONNX file, or not one that zoo wrote."""

    _recurs = True


class Unanswered(ModelFileError):
    """A file was run, and had not answered when its time was over."""


class NoModelFile(ModelFileError):
    """There is no file of that name, or it is a folder."""

    exit_status = 2


class ProofError(ZooError):
    """An exported file does not reproduce the PyTorch classifier it came from."""

    _recurs = True


class OutOfMemory(ZooError):
    """Memory ended: what was asked for may be right, and was not finished.

    `batch` is how many examples there were at a time, where fewer may be asked.
    """

    batch: int | None = None

    def __init__(self, message: str, batch: int | None = None) -> None:
        super().__init__(message)
        self.batch = batch


class TrainingError(ZooError):
    """Training cannot go on: the loss is not finite, or the device is missing."""


class CellError(TrainingError):
    """A cell of a bench failed in another process, by an error that is none of these."""

    _recurs = True


class NotFinite(TrainingError):
    """A loss became infinite or no number; `lr` is the learning rate that was given."""

    _recurs = True  # at the same rate

    def __init__(self, message: str, lr: float) -> None:
        super().__init__(message)
        self.lr = lr


def recurs(error: BaseException) -> bool:
    """Say whether what was stopped by an error would be stopped by it again, nothing being mended.

    A full disk, want of memory, a lost network or Ctrl-C need not come again; other errors of code
    must.
    """
    if isinstance(error, ZooError):
        return error._recurs and not ran_out(error)
    return not (isinstance(error, OSError | KeyboardInterrupt) or ran_out(error))


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, or its type's name; without its full stop."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__).rstrip(".")


def ran_out(error: BaseException | str) -> bool:
    """Tell whether an error, or what a library said, is of memory that could not be had."""
    if isinstance(error, BaseException):
        if isinstance(error, OutOfMemory):
            return True
        causes = [error, *(each for each in (error.__cause__, error.__context__) if each)]
        return any(isinstance(each, MemoryError) or ran_out(str(each)) for each in causes)
    return any(sign in error.lower() for sign in MEMORY_SIGNS)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ` Did you mean 'x'?` for the closest known name, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean '{close[0]}'?" if close else ""


def joined(names: Sequence[str]) -> str:
    """Join names, of which there is one at least, as a sentence does: `a, b and c`."""
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def listing(names: Iterable[str]) -> str:
    """Join names for a message, sorted, or say that there are none."""
    return ", ".join(sorted(names)) or "none"
