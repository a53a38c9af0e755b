"""`reproduce`: a run is made again from its record, and held against what that states."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from zoo import drafts
from zoo.api import FinetuneConfig, ImageInput, PretrainConfig, SelfTrainConfig, TrainConfig
from zoo.config import make
from zoo.errors import BadOption, DataError, Unfit, UsageError
from zoo.pipeline import assembly
from zoo.pipeline.assembly import Part
from zoo.pipeline.evaluation import evaluate
from zoo.pipeline.finetuning import make_finetuning
from zoo.pipeline.pretraining import make_pretraining
from zoo.pipeline.sameness import anew, change_of, refusal
from zoo.pipeline.self_training import make_self_training
from zoo.pipeline.stated import Stated, stated
from zoo.pipeline.teaching import Library
from zoo.pipeline.workspace import Workspace
from zoo.progress import current
from zoo.record import DEEDS, Record
from zoo.runs import Run
from zoo.training import resolve_device

BY = "reproduce"
TO_THE_BIT, WITHIN, OUTSIDE, OTHERWISE = "to the bit", "within the interval", "outside", "altered"
UNTOLD = "untold"
MACHINE = ("processor", "device", "threads")
COUNTS = ("train_examples", "validation_examples")
PROBES = ("knn", "linear")


@dataclasses.dataclass(frozen=True)
class Difference:
    """One figure that the record states otherwise than the rerun came to."""

    name: str
    recorded: Any
    rerun: Any


@dataclasses.dataclass(frozen=True)
class Reproduction:
    """What making a run again came to.

    The verdict is `to the bit`: equal weights, and every figure; `within the interval`: on another
    machine, or with other versions, the accuracy lies in the one stated; `outside` it; `altered`:
    on the same machine it came out otherwise than recorded; `untold`: a pretraining states no
    interval, and this is another machine. `elsewhere` is what was other than when it was recorded,
    of the machine, the versions and the sources.
    """

    run: str
    verdict: str
    elsewhere: list[Difference]
    differences: list[Difference]
    accuracy: float | None
    interval: tuple[float, float] | None
    rerun_accuracy: float | None
    reruns: list[str]
    kept: Path | None
    seconds: float

    @property
    def passed(self) -> bool:
        return self.verdict in (TO_THE_BIT, WITHIN)


def reproduce(
    source: Run | str | Path,
    *,
    keep: Path | None = None,
    device: str | None = None,
    workspace: Workspace | None = None,
) -> Reproduction:
    """Make a finished run again, its pretraining first, and say whether it is what was recorded.

    `source` is a run, or a model with its proof beside it: the file, or a bundle. The reruns are
    made in the folder `keep`, or in a temporary one. That the test split is read again is counted
    in the run itself. Raises `ZooError` before any training where something is missing, has
    another version, or where the record contradicts itself.
    """
    workspace = workspace or Workspace()
    found = stated(source, workspace)
    _check(found, workspace, device)
    with _folder(keep, found) as folder:
        own = dataclasses.replace(workspace, runs=folder, run=None)
        pairs: list[tuple[Record, Record]] = []
        reruns: list[Run] = []
        accuracy = None
        for record in (*reversed(found.parents), found.record):
            # Where it failed already, nothing is trained on it, and the test split is not read.
            if _differences(pairs, found.record) and not _elsewhere(pairs):
                break
            library = Library(_beside(found, workspace))
            parent = reruns[-1] if reruns else None
            reruns.append(_again(record, own, parent, device, library))
            pairs.append((record, reruns[-1].record))
        else:
            accuracy = _measured(found, reruns[-1], own)
    elsewhere = _elsewhere(pairs)
    differences = _differences(pairs, found.record)
    if len(reruns) > len(found.parents) and found.accuracy != accuracy:
        differences.append(Difference("accuracy", found.accuracy, accuracy))
    return Reproduction(
        run=found.name,
        verdict=_verdict(found, elsewhere, differences, accuracy),
        elsewhere=elsewhere,
        differences=differences,
        accuracy=found.accuracy,
        interval=found.interval,
        rerun_accuracy=accuracy,
        reruns=[each.name for each in reruns],
        kept=keep,
        seconds=sum(each.record.seconds or 0.0 for each in reruns),
    )


def _verdict(
    found: Stated,
    elsewhere: list[Difference],
    differences: list[Difference],
    accuracy: float | None,
) -> str:
    if not differences:
        return TO_THE_BIT
    counted = [each for each in differences if each.name.split(" ")[-1] in COUNTS]
    if not elsewhere or counted:  # how many examples there are is the same on every machine
        return OTHERWISE
    if found.interval is None or accuracy is None:
        return UNTOLD
    low, high = found.interval
    return WITHIN if low <= accuracy <= high else OUTSIDE


def _check(found: Stated, workspace: Workspace, device: str | None) -> None:
    """Refuse, before any training, what could not be made again as it was."""
    records = [found.record, *found.parents]
    for number, record in enumerate(records):
        if record.training.get("devices", 1) != 1:
            raise BadOption(
                f"Run '{record.run}' was trained by {record.training['devices']} processes;"
                " reproduce trains in one. Type zoo pretrain or zoo finetune with its options."
            )
        parts = _parts(record, workspace)
        for kind, part in parts.items():
            _check_version(record, kind, part)
        _training(record, device)
        resolve_device(device or record.device)
        data = assembly.build_dataset(workspace, parts["dataset"])
        if change := change_of(record, data.classes, data.input.shape):
            commands = anew(record, records[number + 1 :], workspace)
            raise DataError(refusal(record, change, commands))
        if record is found.record and found.accuracy is not None and data.test is None:
            raise DataError(f"Dataset '{record.dataset.name}' has no test split to measure on.")
        assembly.load_split(parts["dataset"], data, data.train)


def _check_version(record: Record, kind: str, part: Part) -> None:
    recorded = getattr(record, kind)
    if part.entry.version != recorded.version or part.entry.plugin != recorded.plugin:
        project = recorded.plugin.partition(":")[0]
        raise Unfit(
            f"Run '{record.run}' was made with {kind} '{recorded.name}' of {recorded.plugin}"
            f" {recorded.version}; installed is that of {part.entry.origin}."
            f" Type: pip install '{project}=={recorded.version}'"
        )


def _parts(record: Record, workspace: Workspace) -> dict[str, Part]:
    kinds = ("dataset", "backbone", "objective", "head")
    recorded = {kind: getattr(record, kind) for kind in kinds}
    return {
        kind: assembly.recorded(workspace, kind, part) for kind, part in recorded.items() if part
    }


def _training(record: Record, device: str | None) -> TrainConfig:
    """Return the recorded options, on the device and with the threads that were really used."""
    changed = {"device": device or record.device, "threads": record.threads, "log": "none"}
    return make(TrainConfig, {**record.training, **changed}, f"run '{record.run}'")


def _beside(found: Stated, workspace: Workspace) -> Workspace:
    """Return the workspace in which the run lies, and the teachers that it had."""
    if found.run is None:
        return workspace
    return dataclasses.replace(workspace, runs=found.run.folder.parent)


def _again(
    record: Record,
    workspace: Workspace,
    parent: Run | None,
    device: str | None,
    library: Library,
) -> Run:
    training, parts = _training(record, device), _parts(record, workspace)
    noted = {"name": BY, "of": record.run}
    if record.kind == "pretrain":
        looked = make(PretrainConfig, record.pretrain or {}, f"run '{record.run}'")
        return make_pretraining(workspace, parts, training, looked, recipe=noted, library=library)
    if record.self_train is not None:
        assert parent is not None  # what it states was held against itself
        taught = make(SelfTrainConfig, record.self_train, f"run '{record.run}'")
        return make_self_training(
            workspace, parent, training, taught, recipe=noted, without_seen=True
        )
    config = make(FinetuneConfig, record.finetune or {}, f"run '{record.run}'")
    channels, height, width = record.input
    return make_finetuning(
        workspace,
        parts,
        training,
        config,
        parent=parent,
        input=ImageInput(channels=channels, height=height, width=width),
        recipe=noted,
        without_seen=True,  # what it was made with decides what it is measured on
    )


# never elsewhere: add_test
def _measured(found: Stated, run: Run, workspace: Workspace) -> float | None:
    """Read the test split once, for the rerun; the run that it repeats counts that, too."""
    if found.accuracy is None:
        return None
    reading = None
    if found.run is not None:
        try:
            reading = found.run.add_test(BY, rerun=run.name)
        except OSError as error:
            current().note(f"'{found.run.folder}' cannot be written: not counted there ({error})")
    accuracy = evaluate(
        run,
        device=run.record.device,
        without_seen=found.left_out > 0,
        workspace=workspace,
    ).accuracy
    if found.run is not None and reading is not None:
        found.run.finish_test(reading, rerun_accuracy=accuracy)
    return accuracy


def _elsewhere(pairs: Sequence[tuple[Record, Record]]) -> list[Difference]:
    """Name what decides the bits of a result and was other than when it was recorded."""
    made: dict[str, Difference] = {}
    for then, now in pairs:
        for name in MACHINE:
            before, after = getattr(then, name), getattr(now, name)
            if before != after:
                made[name] = Difference(name, before or "not recorded", after)
        for name, after in now.versions.items():
            before = then.versions.get(name, "absent")
            if before != after and name not in ("onnx", "onnxscript", "onnxruntime"):
                made[name] = Difference(name, before, after)
        for name in then.sources.keys() & now.sources.keys():
            before, after = then.sources[name], now.sources[name]
            if before != after:  # the same version, and edited
                said = f"source of {name}"
                made[said] = Difference(said, before[:12], after[:12])
    return list(made.values())


def _differences(pairs: Sequence[tuple[Record, Record]], run: Record) -> list[Difference]:
    """Name the figures of training that came out otherwise: of what it began with, of the run."""
    made = []
    for then, now in pairs:
        prefix = "" if then is run else f"{DEEDS[then.kind]}: "
        made += [Difference(prefix + name, *pair) for name, *pair in _figures(then, now)]
    return [each for each in made if each.recorded != each.rerun]


def _figures(then: Record, now: Record) -> Iterator[tuple[str, Any, Any]]:
    yield "teachers", then.teachers, now.teachers
    before, after = (record.data.splits if record.data else {} for record in (then, now))
    for split in sorted(before.keys() & after.keys()):
        yield f"SHA-256 of the {split} split", before[split].sha256, after[split].sha256
    yield "weights_sha256", then.weights_sha256, now.weights_sha256
    for name in COUNTS:
        yield name, then.metrics.get(name), now.metrics.get(name)
    # What a probe was fitted on changed when its examples came to be counted.
    other = len({"probe_examples" in record.metrics for record in (then, now)}) > 1
    for split in ("train", "validation"):
        old, new = _dict(then.metrics.get(split)), _dict(now.metrics.get(split))
        for name in dict.fromkeys([*old, *new]):
            if other and name in PROBES:
                continue
            yield f"{split} {name}", old.get(name), new.get(name)


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


@contextlib.contextmanager
def _folder(keep: Path | None, found: Stated) -> Iterator[Path]:
    if keep is None:
        with drafts.folder() as folder:
            yield folder
        return
    if keep.is_file():
        raise UsageError(f"'{keep}' is a file; name a folder with --keep.")
    if found.run is not None and keep.resolve() == found.run.folder.resolve():
        raise UsageError(f"'{keep}' is the run itself; name another folder with --keep.")
    yield keep
