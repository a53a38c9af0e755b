"""Keep a plugin's failure its own: what it may not do, one line of cause, a version."""

from __future__ import annotations

import ast
import contextlib
import faulthandler
import importlib.util
import os
import re
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from zoo import api
from zoo.errors import PluginFault, UnknownField, joined
from zoo.surroundings import FOR_GOOD, as_it_was

OURS = Path(__file__).parent
CALLERS = {"torch", "pluggy", "importlib", "contextlib.py"}
"""What stands between zoo and a plugin's code in a traceback."""
_VERSION = re.compile(r"(\d+)\.(\d+)")


@contextlib.contextmanager
def as_guest(changed: list[str]) -> Iterator[None]:
    """Run a plugin's code: stdout stays zoo's, it cannot end the process, and what it changes of
    what is everybody's is put back in the end.

    What was changed is added to `changed` by its name. Should the process die all the same, in a
    library's machine code, Python says in which file and line.
    """
    with no_way_out(), stdout_to_stderr(), last_words(), as_it_was(changed):
        yield


def note_of_undone(who: str, changed: Sequence[str], deed: str) -> str:
    """Say who changed what, and that it is as it was, where it can be."""
    lasting = any(each.endswith(FOR_GOOD) for each in changed)
    undone = "zoo put back what can be" if lasting else "zoo put it back"
    return f"{who} changed {joined(changed)} while it was {deed}; {undone}"


@contextlib.contextmanager
def last_words() -> Iterator[None]:
    """Let Python say where it was, on stderr, should the process die meanwhile."""
    ours = not faulthandler.is_enabled()
    if ours:
        try:
            faulthandler.enable(file=2, all_threads=False)
        except OSError:  # stderr is closed
            ours = False
    try:
        yield
    finally:
        if ours:
            faulthandler.disable()


class _Diverted:
    """How many blocks divert stdout now, in all threads, and what it was before the first."""

    lock = threading.Lock()
    depth = 0
    stream: Any = None
    descriptor: int | None = None


@contextlib.contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Send what is written to sys.stdout or to descriptor 1 to stderr: stdout is for results.

    What a child process writes is diverted, too, and what machine code writes.
    """
    with _Diverted.lock:
        _Diverted.depth += 1
        if _Diverted.depth == 1:
            _flush()
            _Diverted.stream, _Diverted.descriptor = sys.stdout, _copied(1)
            sys.stdout = sys.stderr
            if _Diverted.descriptor is not None:
                with contextlib.suppress(OSError):  # stderr is closed
                    os.dup2(2, 1)
    try:
        yield
    finally:
        with _Diverted.lock:
            _Diverted.depth -= 1
            if _Diverted.depth == 0:
                _flush()  # what was written meanwhile, before descriptor 1 is the user's again
                sys.stdout = _Diverted.stream
                if _Diverted.descriptor is not None:
                    os.dup2(_Diverted.descriptor, 1)
                    os.close(_Diverted.descriptor)


def _copied(descriptor: int) -> int | None:
    try:
        return os.dup(descriptor)
    except OSError:  # it is closed
        return None


def _flush() -> None:
    """Write out what Python's streams, and those of C where something uses them, still hold."""
    for stream in (sys.stdout, sys.__stdout__):
        with contextlib.suppress(Exception):  # closed, or none, or not what it should be
            stream.flush()  # type: ignore[union-attr]
    if ctypes := sys.modules.get("ctypes"):
        with contextlib.suppress(Exception):
            # That stream alone: one that another thread reads from is locked until it has a line.
            library = ctypes.CDLL(None)
            name = "__stdoutp" if sys.platform == "darwin" else "stdout"
            library.fflush(ctypes.c_void_p.in_dll(library, name))


@contextlib.contextmanager
def no_way_out() -> Iterator[None]:
    """Make `os._exit` a SystemExit in this process meanwhile; a forked child still leaves."""
    leave, here = os._exit, os.getpid()

    def instead(status: int) -> None:
        if os.getpid() != here:
            leave(status)
        raise SystemExit(status)

    os._exit = instead  # type: ignore[assignment]
    try:
        yield
    finally:
        os._exit = leave


def check_version(wanted: object) -> None:
    """Raise `PluginFault` where a plugin's `ZOO_API` is one that this zoo cannot serve."""
    if wanted is None:
        return
    version = _VERSION.fullmatch(wanted) if isinstance(wanted, str) else None
    if version is None:
        raise PluginFault(
            f'its ZOO_API is {shortened(wanted)}, not a version such as "{api.API_VERSION}"'
        )
    major, minor = map(int, version.groups())
    ours = tuple(map(int, api.API_VERSION.split(".")))
    if (major, minor) > ours:
        raise PluginFault(_needs(f"{wanted}"))
    if major < ours[0]:
        raise PluginFault(
            f"it was written for zoo.api {wanted}, and this zoo has {api.API_VERSION}, which took"
            " something away. Type: pip install --upgrade, for a newer version of the plugin"
        )


def _needs(version: str) -> str:
    return (
        f"it needs zoo.api {version}, and this zoo has {api.API_VERSION}."
        " Type: pip install --upgrade plugzoo"
    )


def cause_of(error: BaseException, module: object, source: str) -> str:
    """Say in one line why a plugin failed; what `zoo.api` lacks is told with the version needed.

    `module` is None where the import itself failed; `source` is the module's name, or its file.
    """
    if isinstance(error, SystemExit):
        return f"it ended the interpreter while being loaded (SystemExit: {error.code})"
    if isinstance(error, PluginFault):
        return str(error)
    try:
        text = " ".join(str(error).split())
    except Exception:  # an error may be too broken to be shown
        text = ""
    absent = isinstance(error, ImportError) and error.name == "zoo.api"
    lacking = absent or isinstance(error, UnknownField)
    if absent:
        text = text.partition(" (")[0]  # without the path of api.py
    elif not lacking:
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
        text += "" if isinstance(error, SyntaxError | ImportError) else place(error)
    declared = _declared(source) if module is None else getattr(module, "ZOO_API", None)
    try:
        check_version(declared)
    except PluginFault as fault:
        return f"{text}: {fault}"
    if lacking and declared is None:
        return f"{text}: misspelt, or {_needs(f'newer than {api.API_VERSION}')}"
    if lacking:
        return f"{text}, though the plugin says that {declared} is enough (ZOO_API)"
    return text


def _declared(source: str) -> object:
    """Read `ZOO_API = "…"` from the text of a module that could not be imported."""
    try:
        path = Path(source)
        if not path.is_file():
            found = importlib.util.find_spec(source.partition(":")[0])
            path = Path(str(found.origin if found else None))
        for node in ast.parse(path.read_bytes()).body:
            targets = node.targets if isinstance(node, ast.Assign) else []
            targets = [node.target] if isinstance(node, ast.AnnAssign) else targets
            if any(ast.unparse(target) == "ZOO_API" for target in targets):
                return getattr(getattr(node, "value", None), "value", None)
    except Exception:  # a text that cannot be read says nothing
        return None
    return None


def place(error: BaseException) -> str:
    """Return ` (model.py:23)`: the last line of the plugin's own that an error passed, or nothing.

    The outermost file that zoo did not call by itself, or through what it calls plugins with, is
    the plugin's; so are those in its folder.
    """
    folder, found = None, ""
    trace = error.__traceback__
    while trace is not None:
        file = Path(trace.tb_frame.f_code.co_filename)
        if folder is None and not str(file).startswith("<") and not CALLERS & set(file.parts):
            folder = None if file.is_relative_to(OURS) else file.parent
        if folder is not None and file.is_relative_to(folder):
            found = f" ({file.name}:{trace.tb_lineno})"
        trace = trace.tb_next
    return found


def shortened(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
