"""The folder of a bundle: assembled apart, then renamed; whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from zoo import drafts
from zoo.errors import ZooError
from zoo.export.bundle import golden_files, licenses, manifest, model_card
from zoo.export.card import INPUT, Card
from zoo.export.comparison import SPREAD, apart
from zoo.export.golden import Golden, from_json
from zoo.export.modelfile import ModelFile
from zoo.export.runtime import Session, open_session
from zoo.export.targets import OPSET, oldest_onnxruntime
from zoo.folders import check_parent, is_empty, workshop
from zoo.pictures import RULE

MODEL = "model.onnx"
WEB = "ort"
POLARITY = "false: the data set's own polarity"


def check_target(folder: Path, *, force: bool = False) -> Path:
    """Return the folder to be written, its links followed; raises `ZooError`, nothing is touched.

    Only an empty folder or, with `force`, a bundle with nothing of anybody else's is replaced.
    """
    check_parent(folder)
    target = Path(os.path.realpath(folder))
    drafts.clear(target.parent)  # a bundle that a killed process put aside is there again
    if not target.exists():
        return target
    if not target.is_dir():
        raise ZooError(f"'{folder}' is a file; name a folder.")
    if is_empty(target):
        return target
    try:
        content = manifest.read(target)
    except ZooError:
        raise ZooError(
            f"'{folder}' is not empty and no bundle; nothing was written. Name another folder."
        ) from None
    others = [n for n in manifest.strangers(target, content) if not _by_product(n)]
    if others:
        raise ZooError(
            f"'{folder}' holds what is not of its bundle ({', '.join(others[:3])}); nothing was"
            " written. Move it away, or name another folder."
        )
    if not force:
        raise ZooError(f"'{folder}' is a bundle already. Type the command again with --force")
    return target


def _by_product(name: str) -> bool:
    return name.rsplit("/", 1)[-1] in manifest.BY_PRODUCTS


def assemble(
    model: ModelFile,
    proof: dict[str, Any],
    target: Path,
    *,
    proved: bool = False,
    web: dict[str, bytes],
    finish: Callable[[Path], None] = lambda folder: None,
) -> dict[str, Any]:
    """Write the bundle of a proved file as `target`, and return its manifest.

    `proved` says that the proof was made here; else it is what came with the file. `web` are the
    files of `ort/`; `finish` works on the whole draft, before it gets its name.
    """
    # Within a folder beside the target, so that a rename makes it appear at once.
    with workshop(target) as place:
        draft, older = place / "new" / target.name, place / drafts.OLDER / target.name
        draft.mkdir(parents=True)
        older.parent.mkdir()
        _fill(draft, model, proof, web, proved)
        finish(draft)
        _rename(draft, target, older)
    return manifest.read(target)


def _fill(
    folder: Path, model: ModelFile, proof: dict[str, Any], web: dict[str, bytes], proved: bool
) -> None:
    card = model.card
    oldest = oldest_onnxruntime(model.opset, model.ir_version) or "1.15"
    (folder / MODEL).write_bytes(model.data)
    (folder / "proof.json").write_text(json.dumps(proof, indent=2) + "\n", encoding="utf-8")
    for name, data in device_files().items():
        (folder / name).write_bytes(data)
    floor = f"onnxruntime>={oldest_onnxruntime(OPSET, 8)}"
    requirements = folder / "requirements.txt"
    requirements.write_text(requirements.read_text().replace(floor, f"onnxruntime>={oldest}"))
    golden = from_json(proof.get("golden"), "proof.json")
    session = open_session(model.path, model.data)
    _check_golden(golden, session)
    golden_files.write(folder, golden, session)
    for name, data in web.items():
        (folder / WEB).mkdir(exist_ok=True)
        (folder / WEB / name).write_bytes(data)
    facts = describe(model, oldest, proof.get("test_readings"), proved=proved)
    text = model_card.write(facts, proof, quantization=card.quantization, web=bool(web))
    (folder / "README.md").write_text(text, encoding="utf-8")
    licenses.write(folder, facts, WEB)
    manifest.write(folder, facts)


def _check_golden(golden: Golden, session: Session) -> None:
    """Try the vectors before they are handed over to be believed."""
    card, sound = session.card, False
    if golden.inputs.shape[1:] == card.input.shape:
        bound = SPREAD[card.precision]
        logits, found = session.run(golden.inputs)
        far, flips = apart(found, golden.probabilities, bound)
        sound = far <= bound and not flips and bool(np.isfinite(logits).all())
    if not sound:
        raise ZooError(
            f"The golden vectors beside '{session.path}' are not this file's: it answers otherwise."
            " Type: zoo export RUN"
        )


def device_files() -> dict[str, bytes]:
    """Return the files that every bundle has as they are, by name."""
    found = resources.files("zoo.export.bundle") / "device"
    return {
        each.name: each.read_bytes()
        for each in sorted(found.iterdir(), key=lambda each: each.name)
        if each.is_file() and not each.name.startswith((".", "__"))
    }


def describe(
    model: ModelFile, oldest: str, readings: Any, *, proved: bool = False
) -> dict[str, Any]:
    """Return what the manifest says of a model, in its order of keys.

    `readings` of the test split are None where the file's proof, of an older zoo, has none.
    """
    card: Card = model.card
    size = card.input
    return {
        "name": card.model,
        "run": card.run,
        "model": {
            "file": MODEL,
            "sha256": model.sha256,
            "bytes": len(model.data),
            "opset": model.opset,
            "ir_version": model.ir_version,
            "precision": card.precision,
            "oldest_onnxruntime": oldest,
        },
        "input": {
            "name": INPUT,
            "dtype": "uint8",
            "layout": card.layout,
            "batch": card.batch,
            "channels": size.channels,
            "height": size.height,
            "width": size.width,
            "range": [0, 255],
            "invert": POLARITY,
            "picture": RULE,
        },
        "outputs": {"logits": "logits", "probabilities": "probabilities"},
        "labels": card.labels,
        "dataset": card.dataset,
        "metrics": card.metrics,
        **({"left_out": card.left_out} if card.left_out else {}),
        "test_readings": _counts(readings),
        "proved": manifest.HERE if proved else manifest.CLAIMED,
        "license": card.license,
        "components": card.components,
        "versions": card.versions,
        "tolerance": {"probabilities": SPREAD[card.precision]},
        "golden": golden_files.NAME,
    }


def contradictions(content: dict[str, Any], model: ModelFile) -> list[str]:
    """Name what a sound manifest says otherwise than the model's own metadata and bytes."""
    said = describe(model, "", None)
    keys = ["name", "run", "labels", "dataset", "metrics", "license", "components", "versions"]
    wrong = [key for key in (*keys, "outputs", "tolerance") if content[key] != said[key]]
    if content.get("proved", manifest.CLAIMED) not in (manifest.HERE, manifest.CLAIMED):
        wrong.append("proved")  # an older zoo's says nothing of it
    if content.get("left_out", 0) != model.card.left_out:
        wrong.append("left_out")
    own = ("sha256", "bytes", "opset", "ir_version", "precision")
    wrong += [f"model.{key}" for key in own if content["model"].get(key) != said["model"][key]]
    metadata = {prop.key: prop.value for prop in model.model.metadata_props}
    # The rule of the zoo that made it, which need not be today's.
    wanted = {**said["input"], "picture": json.loads(metadata["zoo.input"]).get("picture")}
    return wrong + [f"input.{key}" for key in wanted if content["input"].get(key) != wanted[key]]


def _counts(readings: Any) -> dict[str, int] | None:
    if not isinstance(readings, dict):
        return None
    return {str(by): n for by, n in readings.items() if type(n) is int and n > 0} or None


def _rename(draft: Path, target: Path, older: Path) -> None:
    """Give the draft its name; what stood there comes back where that fails."""
    try:
        if target.exists():
            target.rename(older)
        draft.rename(target)
    except BaseException:
        if older.exists() and not target.exists():
            older.rename(target)
        raise
