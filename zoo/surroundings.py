"""Put back what a plugin's code changed of what the whole process shares, and name it.

A plugin may change its own modules as it likes. What is looked at here is everybody's: the working
folder, the environment, streams and signals, and the settings of torch, numpy and some modules of
Python. What cannot be put back, such as a thread that was started, is left alone; so are random
numbers, which zoo seeds before it builds and trains.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib.abc
import importlib.util
import locale
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from zoo.errors import joined

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

Undo = Callable[[], str | None]
"""Puts one thing back as it was; returns what it is called where it had changed, else None."""
Watch = Callable[[], Undo]
"""Looks at one thing, and returns what puts it back."""

STEERING = ("ZOO_", "PYTHON", "XDG_", "LC_")
STEERING_NAMES = {
    *("PATH", "HOME", "TMPDIR", "TMP", "TEMP", "LANG", "LANGUAGE", "COLUMNS", "NO_COLOR"),
    *("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"),
}
"""New variables that steer zoo, Python or torch for everybody; any other new one stays."""


_CATCHABLE = ("INT", "TERM", "HUP", "QUIT", "PIPE", "CHLD", "ALRM", "TSTP", "CONT", "USR1", "USR2")
SIGNALS = [each for each in signal.Signals if each.name.removeprefix("SIG") in _CATCHABLE]


@contextlib.contextmanager
def as_it_was(changed: list[str]) -> Iterator[None]:
    """Put back in the end what was changed meanwhile; what that is called is added to `changed`.

    A library that is first imported meanwhile is held to what it was right after its import.
    """
    undos = [undo for watch in EVERYWHERE for undo in _looked_at(watch)]
    for name in LIBRARIES:
        if name in sys.modules:
            undos += _looked_at_library(name)
    arriving = _Arriving(undos)
    sys.meta_path.insert(0, arriving)
    try:
        yield
    finally:
        if arriving in sys.meta_path:
            sys.meta_path.remove(arriving)
        for undo in undos:
            with contextlib.suppress(Exception):  # what is too broken to be put back
                changed += filter(None, [undo()])


def _looked_at(watch: Watch) -> list[Undo]:
    """Return what puts a thing back, or nothing where it cannot be looked at here."""
    try:
        return [watch()]
    except Exception:  # a system, or a version of torch, that lacks it
        return []


def _looked_at_library(name: str) -> list[Undo]:
    try:
        watches = LIBRARIES[name](sys.modules[name])
    except Exception:  # half imported, or a stand-in
        return []
    return [undo for watch in watches for undo in _looked_at(watch)]


class _Arriving(importlib.abc.MetaPathFinder):
    """Look at each of `LIBRARIES` as soon as its import has ended."""

    def __init__(self, undos: list[Undo]) -> None:
        self._undos = undos
        self._asking = False

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in LIBRARIES or self._asking:
            return None
        self._asking = True
        try:
            spec = importlib.util.find_spec(name)  # of those that come after this finder
        finally:
            self._asking = False
        if spec is None or spec.loader is None or isinstance(spec.loader, type):
            return spec
        loader = spec.loader

        def execute(module: ModuleType) -> None:
            del loader.exec_module  # the class's own again
            loader.exec_module(module)
            self._undos += _looked_at_library(name)

        loader.exec_module = execute  # type: ignore[method-assign]
        return spec


FOR_GOOD = " for good"
"""How the name ends of what could not be put back as it was."""
UNREADABLE = object()
GUARDS: list[Any] = []
"""What keeps a mode of torch as it was, to the end of the process."""


def setting(name: str, read: Callable[[], Any], write: Callable[[Any], object]) -> Watch:
    """Return the watch of a thing that is one value.

    One that cannot be read is left alone; it was changed where it could be read before. torch has
    settings that no longer can be where one of its newer ones contradicts them.
    """

    def look() -> Any:
        try:
            return read()
        except RuntimeError:
            return UNREADABLE

    def watch() -> Undo:
        before = look()

        def undo() -> str | None:
            if before is UNREADABLE or look() == before:
                return None
            write(before)
            return name

        return undo

    return watch


# --- the process ----------------------------------------------------------------------------


def _working_folder() -> Undo:
    before = _folder()

    def undo() -> str | None:
        if before is None or _folder() == before:
            return None
        os.chdir(before)
        return "the working folder"

    return undo


def _folder() -> str | None:
    try:
        return os.getcwd()  # noqa: PTH109 (a path object costs more than all the rest here)
    except OSError:  # it was removed
        return None


def _environment() -> Undo:
    before = dict(os.environ)

    def undo() -> str | None:
        after = dict(os.environ)
        if after == before:
            return None
        names = sorted(
            name
            for name in before.keys() | after.keys()
            if before.get(name) != after.get(name)
            and not _harmless(name, before.get(name), after.get(name))
        )
        for name in names:
            if name in before:
                os.environ[name] = before[name]
            else:
                del os.environ[name]
        return f"the environment's {joined(names)}" if names else None

    return undo


def _harmless(name: str, before: str | None, after: str | None) -> bool:
    """Say whether a variable's change may stay: libraries set their own when they are imported."""
    if before is None:
        return not (name.startswith(STEERING) or name in STEERING_NAMES)
    if after is None or name.startswith(STEERING) or not name.endswith("PATH"):
        return False
    return set(before.split(os.pathsep)) <= set(after.split(os.pathsep))  # it only grew


def _s(names: Sequence[str]) -> str:
    return "s" if len(names) > 1 else ""


def _descriptors() -> Undo:
    kept = {}
    for number in (0, 1, 2):
        with contextlib.suppress(OSError):  # it was closed before
            kept[number] = (os.dup(number), _file_of(number))

    def undo() -> str | None:
        lost = []
        for number, (copy, file) in kept.items():
            try:
                if _file_of(number) != file:
                    os.dup2(copy, number)
                    lost.append(str(number))
            finally:
                os.close(copy)
        return f"descriptor{_s(lost)} {joined(lost)}" if lost else None

    return undo


def _file_of(number: int) -> tuple[int, int, int] | None:
    try:
        found = os.fstat(number)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_rdev


def _streams() -> Undo:
    before = {name: getattr(sys, name) for name in ("stdin", "stdout", "stderr")}

    def undo() -> str | None:
        lost = [name for name, stream in before.items() if getattr(sys, name, None) is not stream]
        for name in lost:
            setattr(sys, name, before[name])
        return joined([f"sys.{name}" for name in lost]) if lost else None

    return undo


def _handlers() -> Undo:
    here = threading.current_thread() is threading.main_thread()  # others cannot set any
    before = {each: signal.getsignal(each) for each in SIGNALS} if here else {}

    def undo() -> str | None:
        lost = []
        for each, handler in before.items():
            if (
                handler is not None and signal.getsignal(each) != handler
            ):  # None: it is not Python's
                signal.signal(each, handler)
                lost.append(each.name)
        return f"the handler{_s(lost)} of {joined(lost)}" if lost else None

    return undo


def _search_path() -> Undo:
    path, before = sys.path, sys.path.copy()

    def undo() -> str | None:
        after = list(sys.path)
        if sys.path is path and all(each in after for each in before):
            return None  # what was added may be needed later
        sys.path = path
        path[:] = before + [each for each in after if each not in before]
        return "sys.path"

    return undo


def _filters() -> Undo:
    before = list(warnings.filters)

    def undo() -> str | None:
        after = list(warnings.filters)
        new = [each for each in after if each not in before]
        own = [each for each in new if not _sweeping(each)]
        if own == new and all(each in after for each in before):
            return None
        warnings.filters[:] = own + before  # type: ignore[index]
        with warnings.catch_warnings():  # which makes the change known
            pass
        return "the filters of warnings"

    return undo


def _sweeping(filter: tuple[Any, ...]) -> bool:
    """Say whether a filter is for everybody's warnings, not for those of one module or message."""
    action, message, category, module, _ = filter
    return message is None and module is None and (action == "error" or category is Warning)


def _recursion_limit() -> Undo:
    before = sys.getrecursionlimit()

    def undo() -> str | None:
        if sys.getrecursionlimit() >= before:
            return None
        sys.setrecursionlimit(before)
        return "the recursion limit"

    return undo


def _limits() -> Undo:
    before = _read_limits()

    def undo() -> str | None:
        if _read_limits() == before:
            return None
        _set_limits(before)
        return "the limits of resources" + ("" if _read_limits() == before else FOR_GOOD)

    return undo


def _read_limits() -> dict[str, tuple[int, int]]:
    names = [name for name in dir(resource) if name.startswith("RLIMIT_")]
    return {name: resource.getrlimit(getattr(resource, name)) for name in names}


def _set_limits(before: dict[str, tuple[int, int]]) -> None:
    for name, (soft, hard) in before.items():
        kind = getattr(resource, name)
        _, most = resource.getrlimit(kind)
        try:
            resource.setrlimit(kind, (soft, hard))
        except (OSError, ValueError):  # a hard limit that was lowered stays so, but for root
            within = most == resource.RLIM_INFINITY or resource.RLIM_INFINITY != soft <= most
            resource.setrlimit(kind, (soft if within else most, most))


def _umask() -> int:
    found = os.umask(0o077)
    os.umask(found)
    return found


EVERYWHERE: tuple[Watch, ...] = (
    _filters,  # first: putting the others back may warn
    _working_folder,
    _environment,
    _descriptors,
    _streams,
    _handlers,
    setting(
        "the blocked signals",
        lambda: signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        lambda before: signal.pthread_sigmask(signal.SIG_SETMASK, before),
    ),
    setting(
        "the timer of SIGALRM",
        lambda: signal.getitimer(signal.ITIMER_REAL)[0] > 0,
        lambda running: None if running else signal.setitimer(signal.ITIMER_REAL, 0),
    ),
    setting("the umask", _umask, os.umask),
    _limits,
    _search_path,
    _recursion_limit,
    setting("the garbage collector", gc.isenabled, lambda on: gc.enable() if on else gc.disable()),
    setting(
        "the locale",
        lambda: locale.setlocale(locale.LC_ALL),
        lambda before: locale.setlocale(locale.LC_ALL, before),
    ),
)


# --- libraries ------------------------------------------------------------------------------


def _of_logging(logging: Any) -> list[Watch]:
    root = logging.root

    def write(before: tuple[int, list[Any], int]) -> None:
        root.setLevel(before[0])
        root.handlers[:] = before[1]
        logging.disable(before[2])

    return [
        setting(
            "the root logger",
            lambda: (root.level, list(root.handlers), root.manager.disable),
            write,
        )
    ]


def _of_multiprocessing(multiprocessing: Any) -> list[Watch]:
    return [
        setting(
            "how processes are started",
            lambda: multiprocessing.get_start_method(allow_none=True),
            lambda before: multiprocessing.set_start_method(before, force=True),
        )
    ]


def _of_numpy(numpy: Any) -> list[Watch]:
    return [setting("numpy's seterr", numpy.geterr, lambda before: numpy.seterr(**before))]


def _of_socket(socket: Any) -> list[Watch]:
    return [setting("the time-out of sockets", socket.getdefaulttimeout, socket.setdefaulttimeout)]


def _of_torch(torch: Any) -> list[Watch]:
    def device(before: Any) -> None:
        torch.set_default_device(None if before.type == "cpu" else before)

    def deterministic() -> tuple[bool, bool]:
        only_warns = torch.is_deterministic_algorithms_warn_only_enabled()
        return torch.are_deterministic_algorithms_enabled(), only_warns

    def set_deterministic(before: tuple[bool, bool]) -> None:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])

    def autocast(device: str) -> Watch:
        read = functools.partial(torch.is_autocast_enabled, device)
        write = functools.partial(torch.set_autocast_enabled, device)
        return setting(f"torch's autocast on {device}", read, write)

    def set_inference(before: bool) -> None:
        guard = torch.inference_mode(before)
        guard.__enter__()  # a mode ends with its guard alone, and that of the plugin is not at hand
        GUARDS.append(guard)

    def flag(library: str, name: str) -> Watch:
        module = getattr(torch.backends, library)
        read = functools.partial(getattr, module, name)
        return setting(f"torch's {library}.{name}", read, functools.partial(setattr, module, name))

    return [
        setting("torch's default dtype", torch.get_default_dtype, torch.set_default_dtype),
        setting("torch's default device", torch.get_default_device, device),
        # Before the gradient mode, which it sets as well.
        setting("torch's inference mode", torch.is_inference_mode_enabled, set_inference),
        setting("torch's gradient mode", torch.is_grad_enabled, torch.set_grad_enabled),
        setting("torch's deterministic algorithms", deterministic, set_deterministic),
        setting("torch's number of threads", torch.get_num_threads, torch.set_num_threads),
        setting(
            "torch's precision of products",
            torch.get_float32_matmul_precision,
            torch.set_float32_matmul_precision,
        ),
        setting(
            "torch's anomaly mode", torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly
        ),
        *map(autocast, ("cpu", "cuda")),
        flag("cudnn", "benchmark"),
        flag("cudnn", "deterministic"),
        flag("cudnn", "enabled"),
        flag("cudnn", "allow_tf32"),
        flag("mkldnn", "enabled"),
        setting(
            "how torch's processes share tensors",
            torch.multiprocessing.get_sharing_strategy,
            torch.multiprocessing.set_sharing_strategy,
        ),
    ]


LIBRARIES: dict[str, Callable[[Any], list[Watch]]] = {
    "logging": _of_logging,
    "multiprocessing": _of_multiprocessing,
    "numpy": _of_numpy,
    "socket": _of_socket,
    "torch": _of_torch,
}
