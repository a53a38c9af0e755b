"""Whose fault it is that a training fails, told in one line."""

from __future__ import annotations

import contextlib
import os
import traceback
from collections.abc import Iterator, Mapping, Sequence

from zoo.api import TrainConfig
from zoo.errors import OutOfMemory, PluginFault, ZooError, first_line, ran_out
from zoo.isolation import place as line_of
from zoo.pipeline.assembly import Part
from zoo.tasks import Task


@contextlib.contextmanager
def training_guard(parts: dict[str, Part], training: TrainConfig) -> Iterator[None]:
    """Tell what plugins raise while they are trained in one line that names them."""
    try:
        yield
    except (ZooError, OSError):
        raise
    except Exception as error:
        if ran_out(error):
            raise OutOfMemory(
                f"Out of memory in training: {first_line(error)}. Close other programs, or train"
                f" anew with a smaller --batch-size than {training.batch_size}."
            ) from error
        if os.environ.get("ZOO_STRICT") == "1":
            raise
        trained = [part for kind, part in parts.items() if kind != "dataset"]
        raise training_fault("Training failed", trained, error, training) from error


def training_fault(
    what: str, blamed: Sequence[Part], error: Exception, training: TrainConfig
) -> PluginFault:
    """Tell in one line what the code of a component, one of those blamed, raised in training."""
    names = " or ".join(f"{part.entry.owner} of plugin {part.entry.plugin}" for part in blamed)
    small = " Type --batch-size 2 or more." if training.batch_size == 1 else ""
    text = " ".join(str(error).split()).rstrip(".")
    return PluginFault(
        f"{what} in {names}: {type(error).__name__}: {text}{line_of(error)}.{small}"
        " For the traceback, set ZOO_STRICT=1."
    )


def blamed(error: BaseException, tasks: Sequence[Task], parts: Mapping[str, Part]) -> list[Part]:
    """Return the component in whose module an error was raised; all of them where none tells."""
    owners = {
        id(module): kind
        for task in tasks
        for kind, whole in task.components.items()
        for module in whole.modules()
    }
    passed = [id(f.f_locals.get("self")) for f, _ in traceback.walk_tb(error.__traceback__)]
    kinds = [owners[each] for each in passed if each in owners]
    return [parts[kinds[-1]]] if kinds else [p for kind, p in parts.items() if kind != "dataset"]
