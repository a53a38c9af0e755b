"""One's own pictures as a data set: class folders, a pile without labels, or both."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path

from zoo.api import Dataset, DatasetSpec, hookimpl, knob


@dataclasses.dataclass(frozen=True, kw_only=True)
class FolderConfig:
    path: str = knob(help="folder of class folders, of train/ and test/, or of pictures alone")
    size: int = knob(64, "height and width that pictures are cut and resized to", low=1)
    channels: int = knob(3, "3 (colour) or 1 (grey)")
    strict: bool = knob(False, "refuse unreadable pictures; otherwise they are listed and skipped")

    def __post_init__(self) -> None:
        """Make the path absolute: a run's record means the same folder from anywhere."""
        with contextlib.suppress(OSError, RuntimeError):  # no such user, links in a circle
            if self.path:
                absolute = str(Path(self.path).expanduser().resolve())
                object.__setattr__(self, "path", absolute)


def _folder(config: FolderConfig, root: Path) -> Dataset:
    from zoo_folder.dataset import build

    return build(config, root)


@hookimpl
def zoo_datasets() -> list[DatasetSpec]:
    return [
        DatasetSpec(
            name="folder",
            summary="your own pictures: a folder of class folders, unlabelled ones beside them",
            config=FolderConfig,
            build=_folder,
        )
    ]
