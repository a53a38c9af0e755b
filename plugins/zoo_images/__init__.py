"""Image data sets: one embedded, five published ones through torchvision."""

from __future__ import annotations

import functools
from pathlib import Path

from zoo.api import Dataset, DatasetSpec, hookimpl
from zoo.api import NoConfig as Config
from zoo_images.catalogue import PUBLISHED, Published


def _digits(config: Config, root: Path) -> Dataset:
    from zoo_images.digits import build

    return build()


def _published(published: Published, config: Config, root: Path) -> Dataset:
    from zoo_images.published import build

    return build(published, root)


@hookimpl
def zoo_datasets() -> list[DatasetSpec]:
    digits = DatasetSpec(
        name="digits",
        summary="1,797 handwritten digits, 8×8 grey, 10 classes; embedded, needs no network",
        build=_digits,
    )
    return [digits] + [
        DatasetSpec(
            name=published.name,
            summary=published.summary,
            build=functools.partial(_published, published),
        )
        for published in PUBLISHED
    ]
