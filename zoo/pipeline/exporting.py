"""`export` and `validate`: one ONNX file, handed over only when it is proved."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from zoo.config import size_text
from zoo.errors import (
    ModelFileError,
    OutOfMemory,
    ProofError,
    UsageError,
    ZooError,
    first_line,
    ran_out,
)
from zoo.export import golden as vectors
from zoo.export.comparison import softmax32
from zoo.export.golden import Golden, proof_path
from zoo.export.limits import LEAST
from zoo.export.modelfile import ModelFile, open_model
from zoo.export.proof import LOSSES, TWIN, Evidence, Proof, Reference, Row, prove
from zoo.export.runtimes import how_to_install, installed
from zoo.export.targets import TARGETS, ExportConfig, settled
from zoo.folders import check_writable, workshop, write_atomic
from zoo.memory import MEMORY
from zoo.pipeline import model_files, shrinking
from zoo.pipeline.candidates import DRAFT, Candidate
from zoo.pipeline.lineage import KEY, lineage
from zoo.pipeline.model_files import Source
from zoo.pipeline.provenance import Provenance, provenance
from zoo.pipeline.workspace import Workspace
from zoo.progress import current
from zoo.runs import Run
from zoo.training import cpu_threads
from zoo.untrusted import parse_json, read_file

__all__ = ["ExportConfig", "Exported", "export", "validate"]

INSTALLED, NONE = "installed", "none"
ONE_RUN = "one run of that name"


@dataclasses.dataclass(frozen=True)
class Exported:
    """A proved file and where it lies; of a smaller one, what was measured to choose it."""

    model: Path
    bytes: int
    proof: Proof
    candidates: list[Candidate] = dataclasses.field(default_factory=list)


def export(
    run: Run | str | Path,
    output: Path | None = None,
    *,
    config: ExportConfig | None = None,
    runtimes: Sequence[str] | None = None,
    partial: bool = False,
    without_seen: bool = False,
    memory: int = MEMORY,
    workspace: Workspace | None = None,
) -> Exported:
    """Write a finished finetuning as one ONNX file, by default `model.onnx` in the run's folder.

    An int8 or fp16 file is `model.int8.onnx` or `model.fp16.onnx` there. The file appears under
    its name only when it is proved: onnxruntime has reproduced PyTorch on the whole test split,
    or a smaller file its fp32 twin within its bounds; `ProofError` otherwise. `partial` lets rows
    be skipped. `runtimes` must run it as well; None asks `ZOO_RUNTIMES`, else only reports those
    that are installed. `memory` bounds, in bytes, what a batch may take while it is proved; it
    changes nothing of the file. `proof.json` stands beside it. Raises `DataError` where the test
    split changed and has examples by now that the run has seen, unless `without_seen` leaves them
    out, and `OutOfMemory` where memory ends even so.
    """
    workspace = workspace or Workspace()
    config = settled(config or ExportConfig())
    gates, others = _chosen(runtimes, config.target)
    run = workspace.finetuned(run)
    small = "" if config.precision == "fp32" else f".{config.precision}"
    target = Path(output) if output is not None else run.folder / f"model{small}.onnx"
    check_writable(target)
    if target.suffix != ".onnx":
        named = target.with_suffix(".onnx")
        raise UsageError(f"'{target}' must end in .onnx. Type: -o {named}")
    check_writable(proof_path(target))
    way = "Type --batch {}" if config.batch else ""
    with cpu_threads(run.record.threads), _advising(memory, "No file was written: ", way):
        source = model_files.read(run, workspace, "export", memory, without_seen=without_seen)
        current().note("exporting")
        with _unwritten(DRAFT):
            made = shrinking.make(source, config, memory)
        with workshop(target) as folder, _unwritten(candidate := folder / target.name):
            candidate.write_bytes(made.data)
            current().note("proving with onnxruntime")
            file = open_model(candidate, made.data)
            evidence = Evidence(
                reference=_apart(
                    source,
                    shrinking.reference_of(source, file, made.twin, made.samples, memory),
                ),
                golden=_own_golden(source, made),
                remake=lambda: shrinking.make_again(source, file, memory=memory),
                runtimes=gates,
                others=others,
                at_opset=_at_opset(source, file),
            )
            proof = prove(file, evidence, memory=memory)
        if proof.verdict == "failed" or not (proof.passed or partial):
            raise ProofError(f"No file was written: {failure(proof)}")
        # The proof first: a model under its final name always has one.
        content = {
            **proof.to_json(),
            "candidates": [c.to_json() for c in made.candidates],
            "test_readings": run.test_readings(),
            KEY: lineage(run, workspace),
        }
        write_atomic(proof_path(target), _dump(content))
        write_atomic(target, made.data)
    return Exported(target, len(made.data), proof, made.candidates)


@contextlib.contextmanager
def _unwritten(draft: Path) -> Iterator[None]:
    """Say that no file was written; what is wrong with a draft is told without its path."""
    try:
        yield
    except (ModelFileError, ProofError) as error:
        said = str(error).replace(f"'{draft}'", "what was exported")
        raise type(error)(f"No file was written: {said}") from error


def validate(
    model: str | Path,
    *,
    run: Run | str | Path | None = None,
    runtimes: Sequence[str] | None = None,
    memory: int = MEMORY,
    workspace: Workspace | None = None,
) -> Proof:
    """Prove a file that zoo exported once more, by all that is at hand.

    The run is the one given, the one of the file's metadata under the runs folder, or the one
    whose folder the file lies in; where both are there and differ, the proof fails. Golden vectors
    are those of the `proof.json` in the run, or beside the file. The proof says what was read
    where. What is not there is skipped, and the verdict `intact` at best. Test examples that were
    left out of the file's own measure are left out again. `memory` is as for `export`. Raises
    `ModelFileError` for a file whose structure is not sound, and `OutOfMemory`.
    """
    workspace = workspace or Workspace()
    file = open_model(Path(model))
    if run is not None:
        origin = Provenance(workspace.finetuned(run))
    else:
        origin = provenance(file.path, file.card, workspace)
    return prove_again(file, origin, runtimes=runtimes, memory=memory, workspace=workspace)


def prove_again(
    file: ModelFile,
    origin: Provenance,
    *,
    runtimes: Sequence[str] | None = None,
    memory: int = MEMORY,
    workspace: Workspace,
) -> Proof:
    """Prove a sound file by the run that it came from, if that is at hand; as `validate` does."""
    gates, others = _chosen(runtimes, file.card.target or None)
    found, (golden, read_from) = origin.run, _golden_of(file, origin)
    way = "Type: zoo export RUN --batch {}" if file.card.batch else ""
    with _advising(memory, "The proof was not finished: ", way):
        if isinstance(found, str):
            evidence = Evidence(found, golden, found, gates, others)
            return prove(file, dataclasses.replace(evidence, read_from=read_from), memory=memory)
        with cpu_threads(found.record.threads):
            evidence = _evidence(file, found, golden, gates, others, workspace, memory)
            evidence = dataclasses.replace(evidence, origin=_two(origin), read_from=read_from)
            return prove(file, evidence, memory=memory)


def failure(proof: Proof) -> str:
    """Say in one line what a proof failed on, or what it lacks."""
    rows = [*proof.failures] if proof.verdict == "failed" else proof.skipped
    said = "; ".join(f"{row.name}: {row.figure}" for row in rows)
    if proof.verdict != "failed":
        other = re.search(r"--opset \d+", said)
        ways = f"{other[0]}, or --partial" if other else "--partial"
        return f"not every check could be run ({said}). Type {ways} to do without."
    names = {row.name for row in rows}
    if names <= set(LOSSES):
        lost = "; ".join(row.figure for row in rows)
        other_way = "--fp16, or " if proof.precision == "int8" else ""
        return (
            f"{proof.precision} loses too much here: {lost}. Type {other_way}--max-drop with more"
            " points, or leave it in fp32."
        )
    if any(row.of_the_classifier for row in rows):
        return f"the classifier itself is at fault ({said})."
    if proof.precision != "fp32" and TWIN not in names:
        return f"the {proof.precision} file fails its proof ({said})."
    return f"the exported graph does not reproduce PyTorch ({said})."


def _evidence(
    file: ModelFile,
    run: Run,
    golden: Golden | str,
    gates: tuple[str, ...],
    others: tuple[str, ...],
    workspace: Workspace,
    memory: int,
) -> Evidence:
    """Gather what the run has to say; a data set that is gone leaves its rows to be skipped."""
    try:
        left_out = file.card.left_out > 0
        source = model_files.read(
            run, workspace, "validate", memory, without_seen=left_out, refuse=False
        )
    except ZooError as error:
        if ran_out(error):
            raise
        reason = f"the run cannot be read again: {error}"
        return Evidence(reason, golden, reason, gates, others)
    source = model_files.as_in(source, file.card)
    reference, remake = shrinking.traced(source, file, memory)
    if other := model_files.other_versions(file.card):
        remake = f"made by {other}"
    evidence = Evidence(_apart(source, reference), golden, remake, gates, others)
    return dataclasses.replace(evidence, at_opset=_at_opset(source, file))


def _apart(source: Source, reference: Reference) -> Reference:
    """Add whether what a file must say is said of examples that are new to the run."""
    return dataclasses.replace(reference, apart=model_files.apart_row(source.held))


@contextlib.contextmanager
def _advising(memory: int, what: str, way: str) -> Iterator[None]:
    """Say what to type where memory ends, whoever is the first to meet its end.

    `way` is what makes a smaller batch of a fixed one; empty for a file that takes any. Where it
    is not the batch that does not fit, neither helps.
    """
    try:
        yield
    except Exception as error:
        if not ran_out(error):
            raise
        said, batch = f"Out of memory: {first_line(error)}.", 1
        if isinstance(error, OutOfMemory):
            said, batch = str(error), error.batch or 1
        less, ways = max(LEAST, memory // 4), "Close"
        if batch > 1 and way:
            ways = f"{way.format(batch // 2)}, or close"
        elif batch > 1 and less < memory:
            ways = f"Type --memory {size_text(less)}, or close"
        raise OutOfMemory(f"{what}{said} {ways} other programs.") from error


def _at_opset(source: Source, file: ModelFile) -> Callable[[int], bytes]:
    """Return what exports a run at another opset; raises `ProofError` for what no target takes."""

    def export_at(opset: int) -> bytes:
        target = TARGETS.get(file.card.target)
        if target is not None and opset > target.opset:
            raise ProofError(f"{file.card.target} loads opsets up to {target.opset}.")
        return shrinking.at_opset(source, file, opset)

    return export_at


def _two(origin: Provenance) -> Row | None:
    """Say whether the run beside a file is the user's own of that name, where there are both."""
    if origin.beside is None:
        return None
    folders = f"'{origin.folder}' and '{origin.beside}'"
    if origin.differ:
        return Row(ONE_RUN, "failed", f"{folders} differ: {origin.differ}")
    return Row(ONE_RUN, "passed", f"{folders} agree")


def _golden_of(file: ModelFile, origin: Provenance) -> tuple[Golden | str, dict[str, str]]:
    """Read the golden vectors of the proof of these bytes; say too what was read where."""
    run, read_from = origin.folder, {}
    places = [proof_path(file.path), file.path.with_name("proof.json")]
    if run is not None:
        read_from["run"] = str(run)
        places = [*sorted(run.glob("*proof.json")), *places]
    for path in places:
        try:
            content = parse_json(read_file(path))
        except (OSError, ValueError):
            continue
        if isinstance(content, dict) and content.get("file_sha256") == file.sha256:
            golden = vectors.from_json(content.get("golden"), path)
            return golden, {**read_from, "golden": str(path)}
    return f"no {proof_path(file.path).name} of these bytes stands beside the file", read_from


def _own_golden(source: Source, made: shrinking.Made) -> Golden:
    """Return vectors of a file that has none yet, from what it must reproduce."""
    at = vectors.chosen(source.labels, vectors.count_for(source.images.shape[1:]))
    logits = made.expected[at]
    return Golden(source.images[at], source.labels[at], logits, softmax32(logits))


def _chosen(
    runtimes: Sequence[str] | None, target: str | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the runtimes that must pass, and those that are told; raises `UnknownName`."""
    if runtimes is None:
        text = os.environ.get("ZOO_RUNTIMES", INSTALLED)
        runtimes = [name for name in text.split(",") if name]
    named = [name for name in runtimes if name not in (INSTALLED, NONE)]
    gates = [*named, *(TARGETS[target].runtimes if target else ())]
    at_hand = installed()
    for name in gates:
        how_to_install(name)  # raises for a name that is none
    others = [name for name in at_hand if name not in gates] if INSTALLED in runtimes else []
    return tuple(dict.fromkeys(gates)), tuple(others)


def _dump(content: Any) -> bytes:
    return json.dumps(content, indent=2).encode()
