"""Which examples a run is made with: digests, kept beside it from its first moment on."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from zoo.api import Dataset, Examples
from zoo.digests import (
    Array,
    Digested,
    digest_contents,
    digest_split,
    distinct,
    is_digests,
    none,
    usable,
)
from zoo.errors import OtherExamples, RunError, ZooError
from zoo.folders import write_atomic
from zoo.pipeline import assembly
from zoo.pipeline.assembly import Part
from zoo.pipeline.workspace import Workspace
from zoo.progress import current, note_once
from zoo.record import DataRecord, PartRecord, SplitRecord
from zoo.runs import Run
from zoo.training import Place
from zoo.untrusted import TENSORS_LIMIT, parse_tensors, read_file

FILE = "examples.safetensors"
SPLITS = ("train", "unlabelled")
UNKEPT = "{} was made before digests were kept"
OTHER_SIZE = "{} was trained on examples stored as {}, and these are {}"
RESIZED = "{} came of examples stored at another size"
A_FILE = "{} is a file, which does not say what it was trained on"
"""Why it is not known what a run has seen, in words that follow each other in a sentence."""
TOLD = "told"
"""Folder among the data sets that remembers which contents a note was given of."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Identity:
    """The digests of the examples that a run was made with: uint8 N x 16 each.

    Where a data set says what its examples are made of, digests of that follow those of all bytes.
    `pretrained` are those that the runs it came of had seen, each once. `test` is the test split as
    it was, less what those runs had seen that was no test example when they were made.
    """

    trained: Array
    held_out: Array
    pretrained: Array
    test: Array

    @property
    def seen(self) -> Array:
        return np.concatenate([self.trained, self.held_out, self.pretrained])

    def leaked(self, test: Digested) -> Array:
        """Say which examples the run has seen that were no test examples when it was made."""
        leaked: Array = test.among(self.seen) & ~test.among(self.test)
        return leaked


@dataclasses.dataclass(frozen=True, kw_only=True)
class Origin:
    """What is known before anything is trained: the test split as it is, and what was seen before.

    `dataset` is what the run reads. `pretrained` is what the runs that it comes of saw, and
    `leaked` says which test examples are among these that were no test examples then; `unknown`
    says of which runs and files that cannot be told, and why. `contents` and `resized` are those of
    a `DataRecord`, for the runs alone that it comes of.
    """

    dataset: PartRecord
    test: Digested | None
    pretrained: Array
    leaked: Array
    unknown: list[str]
    contents: bool
    resized: bool


# never elsewhere: digest_test
def origin_of(
    part: Part,
    data: Dataset,
    parents: Sequence[Run],
    place: Place,
    resumed: Run | None,
    files: Sequence[str] = (),
) -> Origin | None:
    """Look at the test split and at the runs that one comes of; None where that is kept already.

    `files` are teachers that are no runs. In the main process alone, which is the one that writes.
    Raises `RunError` where the file of a parent is damaged.
    """
    if not place.main or (resumed is not None and resumed.record.data is not None):
        return None
    test = digest_test(part, data, "this run will not record which examples are in it")
    leaked = np.zeros(0 if test is None else len(test), bool)
    known, unknown, contents, resized = [], [], True, False
    for run in parents:
        each, before = read(run), run.record.data
        other_size = run.data_input.shape != data.input.shape
        if each is None or before is None:
            unknown.append(UNKEPT.format(run.name))
            continue
        unknown += before.unknown
        by_content = before.contents and test is not None and test.contents is not None
        if (other_size or before.resized) and not by_content:
            sizes = map(_sizes, (run.data_input.shape, data.input.shape))
            why = OTHER_SIZE.format(run.name, *sizes) if other_size else RESIZED.format(run.name)
            unknown.append(why)
            continue
        known.append(each)
        contents, resized = contents and before.contents, resized or other_size or before.resized
        leaked |= False if test is None else each.leaked(test)
    unknown = list(dict.fromkeys([*unknown, *map(A_FILE.format, files)]))
    tell_unknown(unknown)
    return Origin(
        dataset=part.record,
        test=test,
        pretrained=distinct(*(each.seen for each in known)),
        leaked=leaked,
        unknown=unknown,
        contents=contents,
        resized=resized,
    )


def tell_unknown(unknown: Sequence[str]) -> None:
    """Tell of what a run comes of whose examples are not known."""
    for why in unknown:
        current().note(f"{why}: whether a test example was trained on is not known")


def _sizes(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))


# never elsewhere: test
def digest_test(
    part: Part, data: Dataset, so: str = "it is not compared with what it was"
) -> Digested | None:
    """Digest the test split, and return that alone: no example leaves here, and no label.

    This is no reading of the test split: no model is asked. None where there is none, or where it
    cannot be read, which is told with what follows from it.
    """
    if data.test is None:
        return None
    try:
        return digested(assembly.load_split(part, data, data.test))
    except ZooError as error:
        why = str(error).rstrip(".")
        current().note(f"the test split cannot be read ({why}), so {so}")
        return None


def digested(examples: Examples) -> Digested:
    """Digest a split as its data set gives it."""
    found = digest_split(examples.inputs, usable(examples.labels, len(examples)))
    contents = None if examples.contents is None else digest_contents(examples.contents)
    return dataclasses.replace(found, names=examples.names, contents=contents)


def keep(
    run: Run,
    origin: Origin | None,
    part: Part,
    given: Examples | Sequence[Examples],
    train: Tensor,
    held: Tensor,
    workspace: Workspace,
) -> None:
    """Write down which examples a run is trained on, `train` of all given, and which it holds out.

    Given are the training split and the unlabelled one, numbered through. A run that goes on keeps
    what it has: raises `RunError` where the examples are others now.
    """
    if not run.main:
        return
    several = [given] if isinstance(given, Examples) else given
    splits = {n: digested(split) for n, split in zip(SPLITS, several, strict=False)}
    contents = all(split.contents is not None for split in splits.values())
    sorts = [split.every if contents else [split.examples] for split in splits.values()]
    every = [np.concatenate(sort) for sort in zip(*sorts, strict=True)]
    trained, held_out = (np.concatenate([e[at.numpy()] for e in every]) for at in (train, held))
    if origin is None:
        _check_same(run, trained, held_out)
        return
    test = origin.test
    equal = 0
    if test is not None:
        splits["test"] = test
        equal = int(test.among(np.concatenate(every)).sum())
        _tell_equal(part, splits, equal, workspace.data_root)
    identity = Identity(
        trained=trained,
        held_out=held_out,
        pretrained=origin.pretrained,
        test=none() if test is None else np.concatenate([e[~origin.leaked] for e in test.every]),
    )
    run.record.data = DataRecord(
        sha256=_write(run, identity),
        trained=len(train),
        held_out=len(held),
        pretrained=len(origin.pretrained),
        splits={name: SplitRecord(len(split), split.sha256) for name, split in splits.items()},
        equal=equal,
        left_out=int(origin.leaked.sum()),
        unknown=origin.unknown,
        contents=contents and origin.contents,
        resized=origin.resized,
    )
    run.save()


def _check_same(run: Run, trained: Array, held_out: Array) -> None:
    before = read(run)
    assert before is not None  # otherwise its origin would have been looked at
    if not (np.array_equal(before.trained, trained) and np.array_equal(before.held_out, held_out)):
        raise OtherExamples(OtherExamples.TEXT)


def _tell_equal(part: Part, splits: dict[str, Digested], equal: int, root: Path) -> None:
    """Tell of equal examples in the splits as they are made, once for each content."""
    if not equal:
        return
    content = hashlib.sha256("".join(each.sha256 for each in splits.values()).encode()).hexdigest()
    note_once(
        f"{part.entry.name}: {equal:,} of {len(splits['test']):,} test examples are in another"
        " split too, as the data set was made. To measure without those that were trained on:"
        " --without-seen",
        root / TOLD / content[:32],
    )


def _write(run: Run, identity: Identity) -> str:
    from safetensors.numpy import save

    data = save(dataclasses.asdict(identity))
    write_atomic(run.folder / FILE, data)
    return hashlib.sha256(data).hexdigest()


def read(run: Run) -> Identity | None:
    """Read what a run was made with; None where it was made before digests were kept.

    Raises `RunError` where the file is not the one that was written.
    """
    from safetensors.numpy import load

    if run.record.data is None:
        return None
    path = run.folder / FILE
    again = "It says which examples the run was trained on. Bring it back, or train the run again."
    try:
        data = read_file(path, TENSORS_LIMIT)
    except OSError as error:
        raise RunError(f"'{path}' cannot be read: {error.strerror or error}. {again}") from None
    if hashlib.sha256(data).hexdigest() != run.record.data.sha256:
        raise RunError(
            f"'{path}' is corrupt: its SHA-256 is not the one that run.json records. {again}"
        )
    try:
        found = Identity(**parse_tensors(load, data))
        if not all(map(is_digests, dataclasses.astuple(found))):
            raise ValueError("no digests")
        return found
    except (ValueError, TypeError):
        raise RunError(f"'{path}' is corrupt: it holds no digests of examples. {again}") from None
