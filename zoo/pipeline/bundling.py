"""`bundle`: a proved file → one folder for a device, a server or a web page."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from shlex import quote
from typing import Any

from zoo import runs
from zoo.errors import ModelFileError, OutOfMemory, ZooError
from zoo.export.bundle import contents, golden_files, manifest, signing, web_assets
from zoo.export.golden import proof_path
from zoo.export.modelfile import ModelFile, open_model
from zoo.pipeline.lineage import KEY, lineage
from zoo.pipeline.provenance import Provenance, provenance
from zoo.pipeline.workspace import Workspace
from zoo.progress import current
from zoo.runs import Run
from zoo.untrusted import parse_json, read_file


@dataclasses.dataclass(frozen=True)
class Bundled:
    """A bundle and where it lies. `web` says whether the page has its runtime.

    `proved_by` is the folder of the run by which the file was proved here. It is None where the
    proof that came with the file is handed on unproved, and `not_proved` then says why.
    """

    folder: Path
    name: str
    files: int
    bytes: int
    web: bool
    signed: bool
    license: str
    proved_by: Path | None
    not_proved: str = ""


@dataclasses.dataclass(frozen=True)
class Verified:
    """What is wrong with a bundle, by file; `signed` says that its signature was checked too.

    `files` counts as `Bundled.files` does: the manifest and the signature too. `ignored` is what
    `npm install` has added, which nothing vouches for.
    """

    folder: Path
    files: int
    faults: dict[str, str]
    signed: bool
    ignored: list[str] = dataclasses.field(default_factory=list)

    @property
    def passed(self) -> bool:
        return not self.faults


def bundle(
    source: Run | str | Path,
    output: str | Path,
    *,
    web: bool = True,
    web_assets_from: str | Path | None = None,
    sign: str | Path | None = None,
    force: bool = False,
    workspace: Workspace | None = None,
) -> Bundled:
    """Write the folder `output` from a run, or from a file that `export` wrote.

    A run without a proved `model.onnx` is exported first; a file needs its proof beside it. What
    the run gives is proved anew, of a file too where its run is at hand; else the bundle says that
    its proof is a claim. `web` takes onnxruntime-web's files in, from `web_assets_from`, the cache
    or npm; `sign` is a private key. The folder appears whole or not at all. Raises `ZooError`.
    """
    target = contents.check_target(Path(output), force=force)
    if sign is not None:
        signing.check_key(Path(sign))
    if web and web_assets_from is not None:
        web_assets.check(Path(web_assets_from))
    taken = _taken(source, workspace or Workspace())
    found = web_assets.find(_path(web_assets_from)) if web else {}

    def finish(folder: Path) -> None:
        if sign is not None:
            signing.sign(folder, Path(sign))

    proved = taken.run is not None
    content = contents.assemble(
        taken.model, taken.proof, target, proved=proved, web=found, finish=finish
    )
    return Bundled(
        folder=Path(output),
        name=content["name"],
        files=_count(target, content),
        bytes=sum(path.stat().st_size for path in target.rglob("*") if path.is_file()),
        web=bool(found),
        signed=sign is not None,
        license=content["license"],
        proved_by=taken.run,
        not_proved=taken.reason,
    )


def bundle_verify(folder: str | Path, *, public_key: str | Path | None = None) -> Verified:
    """Hold every file of a bundle against its manifest, and against its signature with a key.

    The manifest is held against the model's own metadata too. Raises `ModelFileError` where the
    manifest itself is absent, foreign, changed or not sound.
    """
    folder = Path(folder)
    content = manifest.read(folder)
    faults = manifest.faults(folder, content)
    faults |= _inner_faults(folder, content, faults)
    if public_key is not None:
        try:
            signing.check(folder, Path(public_key))
        except ModelFileError as error:
            faults[manifest.SIGNATURE] = str(error)
    found, signed = manifest.installed(folder), public_key is not None
    return Verified(folder, _count(folder, content), faults, signed, found)


def _inner_faults(folder: Path, content: dict[str, Any], faults: dict[str, str]) -> dict[str, str]:
    """Say what is wrong within the files whose bytes are as recorded: model, golden vectors."""
    name, golden = content["model"]["file"], content["golden"]
    if name in faults:
        return {}
    found = {}
    try:
        model = open_model(folder / name, _read(folder, name, content))
        wrong = contents.contradictions(content, model)
        if wrong:
            found[manifest.NAME] = f"contradicts {name}: {', '.join(wrong)}"
        if golden not in faults:
            data = _read(folder, golden, content)
            if fault := golden_files.fault(data, model.card, content["files"]):
                found[golden] = fault
    except ModelFileError as error:
        found[name] = str(error)
    return found


def _read(folder: Path, name: str, content: dict[str, Any]) -> bytes:
    try:
        return read_file(folder / name, content["files"][name]["bytes"])
    except OSError as error:
        raise ModelFileError(f"'{folder / name}' cannot be read: {error.strerror}.") from None


def _count(folder: Path, content: dict[str, Any]) -> int:
    """Count the files of a bundle: those recorded, the manifest and a signature."""
    return len(content["files"]) + 1 + (folder / manifest.SIGNATURE).is_file()


@dataclasses.dataclass(frozen=True)
class _Taken:
    """What is bundled: a sound file, its proof, and on whose word that stands.

    `run` is the folder of the run by which it was proved here; None where nothing was, and then
    `reason` says why not.
    """

    model: ModelFile
    proof: dict[str, Any]
    run: Path | None
    reason: str = ""


def _taken(source: Run | str | Path, workspace: Workspace) -> _Taken:
    """Prove what can be proved here; raises `ZooError` where a file is not what its run gives."""
    if not isinstance(source, Run) and _is_file(Path(source)):
        return _file_taken(Path(source), workspace)
    run = workspace.finetuned(source)
    if run.model.is_file():
        try:
            model = open_model(run.model)
        except ModelFileError:  # damaged, or of an older zoo
            return _exported(run, workspace)
        _check_origin(model, run)
        if _proof_of(model)[0] is not None:
            proof, reason = _again(model, Provenance(run), workspace)
            if proof is None:
                folder, file = quote(str(run.folder)), quote(str(run.model))
                raise ZooError(
                    f"'{run.model}' cannot be proved here: {reason}. Type: zoo export {folder},"
                    f" or, to hand it over as its proof.json claims, zoo bundle {file} -o DIR"
                )
            return _Taken(model, proof, run.folder)
    return _exported(run, workspace)


def _file_taken(path: Path, workspace: Workspace) -> _Taken:
    """Take a file: proved by its run where that is at hand, else as its proof claims."""
    model = open_model(path)
    claimed, reason = _proof_of(model)
    if claimed is None:
        raise ZooError(f"'{path}' cannot be bundled: {reason}. Type: zoo export RUN -o {path}")
    origin = provenance(path, model.card, workspace)
    if isinstance(origin.run, str):
        return _Taken(model, claimed, None, origin.run.partition(";")[0])
    proof, reason = _again(model, origin, workspace)
    return _Taken(model, proof or claimed, origin.folder if proof else None, reason)


def _exported(run: Run, workspace: Workspace) -> _Taken:
    """Export a run that has no proved file: that is its proof."""
    from zoo.pipeline.exporting import export

    made = export(run, workspace=workspace)
    model = open_model(run.model)
    proof, reason = _proof_of(model)
    if proof is None or model.sha256 != made.proof.file_sha256:
        raise ZooError(f"'{run.model}' was exported, but {reason or 'is another file now'}.")
    return _Taken(model, proof, run.folder)


def _again(
    model: ModelFile, origin: Provenance, workspace: Workspace
) -> tuple[dict[str, Any] | None, str]:
    """Prove a file by its run; return the proof, or why it cannot be proved here.

    Raises `ZooError` where a row fails: whatever its proof.json says, it is another file.
    """
    from zoo.pipeline.exporting import prove_again

    assert isinstance(origin.run, Run)
    current().note(f"proving it by run '{origin.run.name}'")
    try:
        found = prove_again(model, origin, workspace=workspace)
    except OutOfMemory as error:
        return None, str(error).rstrip(".")
    if found.verdict == "failed":
        first, *more = found.failures
        others = f"; and {len(more)} more" if more else ""
        raise ZooError(
            f"'{model.path}' is not what run '{origin.folder}' gives, whatever its proof says"
            f" ({first.name}: {first.figure}{others}). Nothing was written."
            f" Type: zoo validate {quote(str(model.path))}"
        )
    if not found.passed:
        return None, "; ".join(f"{row.name}: {row.figure}" for row in found.skipped)
    content = dataclasses.replace(found, read_from={}).to_json()
    # Another process may have read the test split since: the record is read again.
    run = runs.load(origin.run.folder)
    readings, origins = run.test_readings(), lineage(run, workspace)
    return {**content, "candidates": [], "test_readings": readings, KEY: origins}, ""


def _check_origin(model: ModelFile, run: Run) -> None:
    """Refuse another run's file that lies in a run's folder."""
    record = run.record
    if (model.card.run, model.card.weights_sha256) != (record.run, record.weights_sha256):
        raise ZooError(
            f"'{model.path}' is no export of this run but of '{model.card.run}'. Move it away, or"
            f" type: zoo bundle {model.path} -o DIR"
        )


def _is_file(path: Path) -> bool:
    return path.suffix == ".onnx" or path.is_file()


def _proof_of(model: ModelFile) -> tuple[dict[str, Any] | None, str]:
    """Return what the proof beside a file claims, or why there is none for these bytes."""
    path = proof_path(model.path)
    name = path.name
    try:
        proof = parse_json(read_file(path))
        sha256, verdict = proof["file_sha256"], proof["verdict"]
        golden, rows = proof["golden"], [str(row["status"]) for row in proof["rows"]]
        int(proof["examples"])
    except FileNotFoundError:
        return None, f"its proof, '{name}', is not beside it"
    except OSError as error:
        return None, f"its proof, '{name}', cannot be read: {error.strerror}"
    except (ValueError, KeyError, TypeError, OverflowError):
        return None, f"its proof, '{name}', is damaged or of an older zoo"
    if sha256 != model.sha256:
        return None, f"'{name}' proves another file: its SHA-256 differs"
    if verdict != "proved":
        return None, f"'{name}' says '{verdict}', not 'proved'"
    if not isinstance(golden, dict):
        return None, f"'{name}' has no golden vectors"
    if not rows or not set(rows) <= {"passed", "reported"}:
        return None, f"'{name}' has rows that did not pass"
    return proof, ""


def _path(given: str | Path | None) -> Path | None:
    return None if given is None else Path(given)
