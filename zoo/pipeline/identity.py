"""Which examples a run is made with: digests, kept beside it from its first moment on."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from zoo.api import Dataset, Examples
from zoo.data import checked
from zoo.digests import Array, Digested, digest_split, distinct, found_in, none, usable
from zoo.errors import RunError, ZooError
from zoo.folders import write_atomic
from zoo.pipeline import assembly
from zoo.pipeline.assembly import Part
from zoo.pipeline.workspace import Workspace
from zoo.progress import current, note_once
from zoo.record import DataRecord, PartRecord, SplitRecord
from zoo.runs import Run
from zoo.training import Place

FILE = "examples.safetensors"
SPLITS = ("train", "unlabelled")
UNKEPT = "{} was made before digests were kept"
OTHER_SIZE = "{} was trained on examples stored as {}, and these are {}"
A_FILE = "{} is a file, which does not say what it was trained on"
"""Why it is not known what a run has seen, in words that follow each other in a sentence."""
TOLD = "told"
"""Folder among the data sets that remembers which contents a note was given of."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Identity:
    """The digests of the examples that a run was made with: uint8 N x 16 each.

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

    def leaked(self, examples: Array) -> Array:
        """Say which examples the run has seen that were no test examples when it was made."""
        leaked: Array = found_in(examples, self.seen) & ~found_in(examples, self.test)
        return leaked


@dataclasses.dataclass(frozen=True, kw_only=True)
class Origin:
    """What is known before a run begins: the test split as it is, and what was seen before.

    `dataset` is what the run reads. `pretrained` is what the runs that it comes of saw, and
    `leaked` says which test examples are among these that were no test examples then; `unknown`
    says of which runs and files that cannot be told, and why.
    """

    dataset: PartRecord
    test: Digested | None
    pretrained: Array
    leaked: Array
    unknown: list[str]


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
    known, unknown = [], []
    for run in parents:
        each = read(run)
        if each is None:
            unknown.append(UNKEPT.format(run.name))
        elif run.data_input.shape != data.input.shape:  # equal pictures have other bytes
            sizes = (_sizes(shape) for shape in (run.data_input.shape, data.input.shape))
            unknown.append(OTHER_SIZE.format(run.name, *sizes))
        else:
            known.append(each)
        unknown += run.record.data.unknown if run.record.data else []
    unknown = list(dict.fromkeys([*unknown, *map(A_FILE.format, files)]))
    tell_unknown(unknown)
    test = digest_test(part, data, "this run will not record which examples are in it")
    examples = none() if test is None else test.examples
    leaked = np.zeros(len(examples), bool)
    for each in known:
        leaked |= each.leaked(examples)
    return Origin(
        dataset=part.record,
        test=test,
        pretrained=distinct(*(each.seen for each in known)),
        leaked=leaked,
        unknown=unknown,
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
        with assembly.guarded(part.entry, "loaded"):
            loaded = data.test()
        return digested(checked(loaded, data.input.shape, None, part.entry.owner))
    except ZooError as error:
        why = str(error).rstrip(".")
        current().note(f"the test split cannot be read ({why}), so {so}")
        return None


def digested(examples: Examples) -> Digested:
    """Digest a split as its data set gives it."""
    found = digest_split(examples.inputs, usable(examples.labels, len(examples)))
    return dataclasses.replace(found, names=examples.names)


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
    every = np.concatenate([split.examples for split in splits.values()])
    trained, held_out = every[train.numpy()], every[held.numpy()]
    if origin is None:
        _check_same(run, trained, held_out)
        return
    test = origin.test
    equal = 0
    if test is not None:
        splits["test"] = test
        equal = int(found_in(test.examples, every).sum())
        _tell_equal(part, splits, equal, workspace.data_root)
    identity = Identity(
        trained=trained,
        held_out=held_out,
        pretrained=origin.pretrained,
        test=none() if test is None else test.examples[~origin.leaked],
    )
    run.record.data = DataRecord(
        sha256=_write(run, identity),
        trained=len(trained),
        held_out=len(held_out),
        pretrained=len(origin.pretrained),
        splits={name: SplitRecord(len(split), split.sha256) for name, split in splits.items()},
        equal=equal,
        left_out=int(origin.leaked.sum()),
        unknown=origin.unknown,
    )
    run.save()


def _check_same(run: Run, trained: Array, held_out: Array) -> None:
    before = read(run)
    assert before is not None  # otherwise its origin would have been looked at
    if not (np.array_equal(before.trained, trained) and np.array_equal(before.held_out, held_out)):
        raise RunError(
            "The examples are not those that this run began with, so it cannot go on."
            " Bring them back, or train anew."
        )


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
    from safetensors import SafetensorError
    from safetensors.numpy import load

    if run.record.data is None:
        return None
    path = run.folder / FILE
    again = "It says which examples the run was trained on. Bring it back, or train the run again."
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RunError(f"'{path}' cannot be read: {error.strerror or error}. {again}") from None
    if hashlib.sha256(data).hexdigest() != run.record.data.sha256:
        raise RunError(
            f"'{path}' is corrupt: its SHA-256 is not the one that run.json records. {again}"
        )
    try:
        return Identity(**load(data))
    except (SafetensorError, TypeError):
        raise RunError(f"'{path}' is corrupt: it holds no digests of examples. {again}") from None
