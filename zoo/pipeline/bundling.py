"""`bundle`: a proved file → one folder for a device, a server or a web page."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from zoo.errors import ModelFileError, ZooError
from zoo.export.bundle import contents, manifest, signing, web_assets
from zoo.export.golden import proof_path
from zoo.export.modelfile import ModelFile, open_model
from zoo.export.seal import check_seal
from zoo.pipeline.workspace import Workspace
from zoo.runs import Run


@dataclasses.dataclass(frozen=True)
class Bundled:
    """A bundle and where it lies. `web` says whether the page has its runtime."""

    folder: Path
    name: str
    files: int
    bytes: int
    web: bool
    signed: bool
    license: str


@dataclasses.dataclass(frozen=True)
class Verified:
    """What is wrong with a bundle, by file; `signed` says that its signature was checked too.

    `files` counts as `Bundled.files` does: the manifest and the signature too.
    """

    folder: Path
    files: int
    faults: dict[str, str]
    signed: bool

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

    A run without a proved `model.onnx` is exported first; a file needs its proof beside it.
    `web` takes onnxruntime-web's files in, from `web_assets_from`, the cache or npm; `sign` is a
    private key. The folder appears whole or not at all. Raises `ZooError`.
    """
    target = contents.check_target(Path(output), force=force)
    if sign is not None:
        signing.check_key(Path(sign))
    if web and web_assets_from is not None:
        web_assets.check(Path(web_assets_from))
    model, proof = _proved(source, workspace or Workspace())
    found = web_assets.find(_path(web_assets_from)) if web else {}

    def finish(folder: Path) -> None:
        if sign is not None:
            signing.sign(folder, Path(sign))

    content = contents.assemble(model, proof, target, web=found, finish=finish)
    return Bundled(
        folder=Path(output),
        name=content["name"],
        files=_count(target, content),
        bytes=sum(path.stat().st_size for path in target.rglob("*") if path.is_file()),
        web=bool(found),
        signed=sign is not None,
        license=content["license"],
    )


def bundle_verify(folder: str | Path, *, public_key: str | Path | None = None) -> Verified:
    """Hold every file of a bundle against its manifest, and against its signature with a key.

    Raises `ModelFileError` where the manifest itself is absent, foreign or changed.
    """
    folder = Path(folder)
    content = manifest.read(folder)
    faults = manifest.faults(folder, content)
    name = content["model"]["file"]
    if name not in faults:
        try:
            check_seal((folder / name).read_bytes(), name)
        except ModelFileError as error:
            faults[name] = str(error)
    if public_key is not None:
        try:
            signing.check(folder, Path(public_key))
        except ModelFileError as error:
            faults[manifest.SIGNATURE] = str(error)
    return Verified(folder, _count(folder, content), faults, public_key is not None)


def _count(folder: Path, content: dict[str, Any]) -> int:
    """Count the files of a bundle: those recorded, the manifest and a signature."""
    return len(content["files"]) + 1 + (folder / manifest.SIGNATURE).is_file()


def _proved(source: Run | str | Path, workspace: Workspace) -> tuple[ModelFile, dict[str, Any]]:
    """Return a sound file and the proof of its very bytes."""
    if not isinstance(source, Run) and _is_file(Path(source)):
        path = Path(source)
        model = open_model(path)
        proof, reason = _proof_of(model)
        if proof is None:
            raise ZooError(f"'{path}' cannot be bundled: {reason}. Type: zoo export RUN -o {path}")
        return model, proof
    run = workspace.finetuned(source)
    if run.model.is_file():
        try:
            model = open_model(run.model)
            proof, _ = _proof_of(model)
        except ModelFileError:  # damaged, or of an older zoo
            proof = None
        else:
            _check_origin(model, run)
        if proof is not None:
            return model, proof
    from zoo.pipeline.exporting import export

    export(run, workspace=workspace)
    model = open_model(run.model)
    proof, reason = _proof_of(model)
    if proof is None:
        raise ZooError(f"'{run.model}' was exported, but {reason}.")
    return model, proof


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
    """Return the proof beside a file, or why there is none for these bytes."""
    path = proof_path(model.path)
    name = path.name
    try:
        proof = json.loads(path.read_bytes())
        sha256, verdict = proof["file_sha256"], proof["verdict"]
        golden, rows = proof["golden"], [str(row["status"]) for row in proof["rows"]]
        int(proof["examples"])
    except FileNotFoundError:
        return None, f"its proof, '{name}', is not beside it"
    except (OSError, ValueError, KeyError, TypeError):
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
