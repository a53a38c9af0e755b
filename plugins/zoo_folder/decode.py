"""Read pictures in their order, each exactly as it was when its digest was made."""

from __future__ import annotations

import contextlib
import errno
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from zoo.api import DataUnavailable, ImageInput, ZooError, read_picture
from zoo_folder.arrange import Picture, Plan
from zoo_folder.contents import digest_of, mark_of
from zoo_folder.listing import shown
from zoo_folder.parallel import in_order

Row = bytes | str
"""A picture's C x H x W bytes, or why it cannot be read."""

# A damaged file points to where there is nothing, a pipe and a file too large are no pictures;
# any other number is the system's, and may pass.
DAMAGE = (None, errno.EINVAL, errno.EOVERFLOW, errno.EFBIG)


class Rows(Protocol):
    """Whoever gives the rows of pictures, in their order."""

    def rows(self, pictures: Sequence[Picture]) -> Generator[tuple[Picture, Row]]: ...


class Reader:
    """Read pictures below a root as rows; `earlier` finds those that were read before."""

    def __init__(
        self, root: Path, input: ImageInput, earlier: Callable[[bytes], Row | None]
    ) -> None:
        self._root, self._input, self._earlier = root, input, earlier

    def rows(self, pictures: Sequence[Picture]) -> Generator[tuple[Picture, Row]]:
        found = in_order(self._read, pictures)
        with contextlib.closing(found):
            yield from zip(pictures, found, strict=True)

    def _read(self, picture: Picture) -> Row:
        before = self._earlier(picture.digest)
        if before is not None:
            return before
        path = self._root / picture.file.name
        try:
            row: Row = read_picture(path, self._input).tobytes()
        except ZooError as error:
            cause = error.__context__
            if cause is None:  # of no picture: what the environment asks for
                raise
            if isinstance(cause, OSError) and cause.errno not in DAMAGE:
                raise DataUnavailable(
                    f"'{shown(path)}' cannot be read: {cause.strerror}. Type the same command"
                    " again, or take the picture out of the folder."
                ) from error
            row = str(error).replace(f"'{path}' ", "").rstrip(".")
        if not self._unchanged(path, picture):
            raise DataUnavailable(
                f"'{shown(path)}' changed while it was read. Type the same command again."
            )
        return row

    def _unchanged(self, path: Path, picture: Picture) -> bool:
        try:
            same = mark_of(picture.file.name, path.stat()) == picture.file.mark
        except OSError:
            return False
        # A file that was written a moment ago may change without a trace in its times.
        settled = picture.file.settled
        return same and (settled or digest_of(self._root, picture.file) == picture.digest)


def in_splits(plan: Plan, reader: Rows) -> Generator[tuple[str, Picture, Row]]:
    """Yield all of a plan: the test split first, then what trains, then what has no label.

    Where a picture for testing cannot be read, the next one of its class takes its place.
    """
    left: dict[int, list[Picture]] = {}
    for picture in reversed(plan.candidates):
        left.setdefault(picture.label, []).append(picture)
    wanted = dict(plan.quota)
    while batch := _take(left, wanted):
        wanted = dict.fromkeys(wanted, 0)
        for picture, row in reader.rows(batch):
            wanted[picture.label] += isinstance(row, str)
            yield "test", picture, row
    rest = [picture for label in sorted(left) for picture in reversed(left[label])]
    for picture, row in reader.rows(rest + plan.train):
        yield "train", picture, row
    for picture, row in reader.rows(plan.unlabelled):
        yield "unlabelled", picture, row


def _take(left: dict[int, list[Picture]], wanted: Mapping[int, int]) -> list[Picture]:
    return [
        left[label].pop()
        for label in sorted(left)
        for _ in range(min(wanted[label], len(left[label])))
    ]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Set the warnings that reading a picture sets, for all threads at once.

    Filters are the process's: threads that set and restore them one by one end with any of them.
    """
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield
