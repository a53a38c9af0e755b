"""The five hooks of a plugin.

Each takes no argument, has no side effect and returns specs. A hook is a module-level function
marked with `zoo.api.hookimpl`; it may be missing, and it may be a generator.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from zoo.api import BackboneSpec, DatasetSpec, HeadSpec, ObjectiveSpec, RecipeSpec

hookspec = pluggy.HookspecMarker("zoo")


@hookspec
def zoo_datasets() -> Iterable[DatasetSpec]:
    """Contribute data sets."""
    return ()


@hookspec
def zoo_backbones() -> Iterable[BackboneSpec]:
    """Contribute backbones."""
    return ()


@hookspec
def zoo_objectives() -> Iterable[ObjectiveSpec]:
    """Contribute unsupervised objectives."""
    return ()


@hookspec
def zoo_heads() -> Iterable[HeadSpec]:
    """Contribute heads."""
    return ()


@hookspec
def zoo_recipes() -> Iterable[RecipeSpec]:
    """Contribute recipes."""
    return ()
