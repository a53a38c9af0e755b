"""The source that a result comes of: its digest changes where a version does not."""

from __future__ import annotations

import functools
import hashlib
import inspect
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import zoo
from zoo.pipeline.assembly import Part


def sources_of(parts: Mapping[str, Part]) -> dict[str, str]:
    """Return the digest of zoo's own source, and of each component's, by its kind."""
    found = {kind: source_digest(part.entry.spec) for kind, part in parts.items()}
    return {"zoo": core_digest(), **found}


def source_digest(spec: Any) -> str:
    """Digest the source of the package, or of the single file, that a component comes from.

    A plugin that is being written changes without changing its version. Where a build has no
    source that Python can name, its plugin's version has to do.
    """
    build = getattr(spec.build, "func", spec.build)  # beneath a functools.partial
    try:
        source = inspect.getsourcefile(build)
    except TypeError:  # an object that can be called: what tells is where its class stands
        source = inspect.getsourcefile(type(build))
    if source is None or not Path(source).is_file():
        return "unknown"
    path = Path(source)
    return _digest(path.parent.rglob("*.py") if path.name == "__init__.py" else [path])


@functools.cache
def core_digest() -> str:
    """Digest the source of zoo itself."""
    return _digest(Path(zoo.__file__).parent.rglob("*.py"))


def _digest(files: Iterable[Path]) -> str:
    content = hashlib.sha256()
    for file in sorted(files):
        content.update(file.read_bytes())
    return content.hexdigest()
