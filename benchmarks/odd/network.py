"""What an odd network is: how it is built, and what a sound product would do with it."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable
from typing import Literal

from torch import nn

from zoo.api import Preprocessing

Outcome = Literal["proved", "intact", "failed", "refused"]
"""`intact`: no row contradicts the file, and one could not be run; `failed`: a row contradicts it,
and there is no file; `refused`: one message before that."""

FEATURES = 16

PROVED: tuple[Outcome, ...] = ("proved",)
EXACT: tuple[Outcome, ...] = ("proved", "intact")
"""PyTorch and onnxruntime agree; ONNX's own reference may lack the operator."""
REFUSED: tuple[Outcome, ...] = ("refused",)
NOT_PROVED: tuple[Outcome, ...] = ("failed", "refused")
"""No file of it can be right."""
ANY: tuple[Outcome, ...] = ("proved", "intact", "failed", "refused")
"""Whatever comes of it, so long as what is proved is right."""


@dataclasses.dataclass(frozen=True)
class Network:
    """An encoder of 8×8 grey pictures, and the outcomes that a careful reader would accept.

    `build` returns an `nn.Module`, float32 N x 1 x 8 x 8 -> N x 16, of another picture where
    `preprocessing` says so. `head` is one of its own: features, classes -> `nn.Module`.
    `builds` is false where building it is what is to be refused.
    """

    name: str
    kind: str
    summary: str
    expected: tuple[Outcome, ...]
    build: Callable[[], nn.Module]
    preprocessing: Preprocessing | None = None
    head: Callable[[int, int], nn.Module] | None = None
    builds: bool = True


def network(
    expected: tuple[Outcome, ...],
    *,
    preprocessing: Preprocessing | None = None,
    head: Callable[[int, int], nn.Module] | None = None,
    builds: bool = True,
) -> Callable[[Callable[[], nn.Module]], Network]:
    """Make a network of the function that builds its encoder: name and summary are its own.

    The kind is the function's module.
    """

    def made(build: Callable[[], nn.Module]) -> Network:
        name, kind = (text.replace("_", " ").strip() for text in (build.__name__, build.__module__))
        return Network(
            name=name.replace(" ", "-"),
            kind=kind.rpartition(".")[2],
            summary=" ".join((build.__doc__ or "").split()),
            expected=expected,
            build=build,
            preprocessing=preprocessing,
            head=head,
            builds=builds,
        )

    return made


def networks_of(*modules: types.ModuleType) -> list[Network]:
    """Return the networks that modules define, in their order."""
    return [each for m in modules for each in vars(m).values() if isinstance(each, Network)]
