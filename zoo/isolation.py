"""Keep a plugin's failure its own: no way out of the process, one line of cause, a version."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import os
import re
from collections.abc import Iterator
from pathlib import Path

from zoo import api
from zoo.errors import PluginFault, UnknownField

OURS = Path(__file__).parent
CALLERS = {"torch", "pluggy", "importlib", "contextlib.py"}
"""What stands between zoo and a plugin's code in a traceback."""
_VERSION = re.compile(r"(\d+)\.(\d+)")


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
