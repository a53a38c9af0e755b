"""`plugin_new` and `plugin_check`: a package to start from, and the conformance of what it adds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from zoo import scaffold
from zoo.pipeline.catalogue import kind_of
from zoo.pipeline.workspace import Workspace
from zoo.scaffold import Scaffold

if TYPE_CHECKING:
    from zoo.testing import Report


def plugin_new(
    name: str,
    kind: str = "backbone",
    *,
    folder: Path | None = None,
    workspace: Workspace | None = None,
) -> Scaffold:
    """Write a package in `folder`/`name` that contributes one component of a kind.

    Raises `UsageError` for a name that cannot be one, `ZooError` where something of that name is
    there already.
    """
    workspace = workspace or Workspace()
    return scaffold.write(name, kind_of(kind), folder or Path(), workspace.registry)


def plugin_check(
    target: str | Path,
    *,
    settings: Sequence[str] = (),
    workspace: Workspace | None = None,
) -> Report:
    """Check a plugin, a component or a plugin file; see `zoo.testing.check`."""
    from zoo.testing import check

    workspace = workspace or Workspace()
    return check(
        target, registry=workspace.registry, settings=settings, data_root=workspace.data_root
    )
