"""README.md of a bundle, in the form of the Hugging Face hub: no number that was not measured."""

from __future__ import annotations

import json
import re
from typing import Any

from zoo.export.bundle.manifest import HERE
from zoo.export.card import NEW

LICENSES = """
    afl-3.0 apache-2.0 artistic-2.0 bsd-2-clause bsd-3-clause bsl-1.0 cc cc0-1.0 cc-by-2.0
    cc-by-3.0 cc-by-4.0 cc-by-nc-4.0 cc-by-nc-sa-4.0 cc-by-sa-3.0 cc-by-sa-4.0 ecl-2.0 epl-2.0
    eupl-1.1 gpl gpl-2.0 gpl-3.0 isc lgpl lgpl-2.1 lgpl-3.0 mit mpl-2.0 ms-pl ncsa odbl ofl-1.1
    osl-3.0 pddl postgresql unknown unlicense wtfpl zlib
"""
"""Names that the hub knows; any other is written beside `other`."""
LABELS_SHOWN = 50
LONGEST_LABEL = 60


def write(
    facts: dict[str, Any],
    proof: dict[str, Any],
    *,
    quantization: dict[str, Any] | None = None,
    web: bool = True,
) -> str:
    """Return the card of a model: `facts` as its manifest has them, and its proof."""
    parts = [
        _front_matter(facts),
        f"# {facts['name']}",
        _what(facts),
        _input(facts),
        _labels(facts["labels"]),
        _measured(facts, proof),
        _precision(facts, quantization),
        _limits(facts),
        _running(facts, web),
        _training(proof),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(facts: dict[str, Any]) -> str:
    result = {
        "task": {"type": "image-classification", "name": "Image classification"},
        "dataset": {"type": facts["dataset"], "name": facts["dataset"], "split": "test"},
        "metrics": [
            {"type": name, "name": name, "value": value}
            for name, value in sorted(facts["metrics"].items())
        ],
    }
    content: dict[str, Any] = {
        **_license(facts["license"]),
        "library_name": "onnxruntime",
        "pipeline_tag": "image-classification",
        "tags": ["onnx", "onnxruntime", "image-classification", "plugzoo"],
        "datasets": [facts["dataset"]],
        "metrics": sorted(facts["metrics"]),
        "model-index": [{"name": facts["name"], "results": [result]}],
    }
    # JSON is YAML: nothing that a name may contain can break it.
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in content.items()]
    return "\n".join(["---", *lines, "---"])


def _license(name: str) -> dict[str, str]:
    known = name.lower()
    if known in LICENSES.split():
        return {"license": known}
    return {"license": "other", "license_name": name}


def _what(facts: dict[str, Any]) -> str:
    parts = facts["components"]
    rows = [
        (kind, part.get("name", ""), _options(part.get("options", {})), part.get("plugin", ""))
        for kind, part in parts.items()
        if isinstance(part, dict)
    ]
    made = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    return (
        f"A classifier of pictures into {len(facts['labels'])} classes, trained on"
        f" `{facts['dataset']}`, as one ONNX file that takes raw bytes: its preprocessing is part"
        f" of it. Made by {made}; the run was `{facts['run']}`.\n\n"
        + _table(("part", "name", "options", "plugin"), rows)
    )


def _options(options: dict[str, Any]) -> str:
    return ", ".join(f"{key}={json.dumps(value)}" for key, value in options.items()) or "none"


def _input(facts: dict[str, Any]) -> str:
    size = facts["input"]
    axes = {"N": size["batch"] or "batch", "C": size["channels"]}
    axes |= {"H": size["height"], "W": size["width"]}
    shape = " × ".join(str(axes[axis]) for axis in size["layout"])
    return (
        "## Input and outputs\n\n"
        f"`{size['name']}`: uint8 0..255, {size['layout']}, {shape}. Nothing is to be scaled or"
        " normalized before it.\n\n"
        f"{_rule(size)}\n\n"
        f"`{facts['outputs']['logits']}` and `{facts['outputs']['probabilities']}`: float32,"
        f" {size['batch'] or 'batch'} × {len(facts['labels'])}."
    )


def _rule(size: dict[str, Any]) -> str:
    if size["channels"] not in (1, 3):
        return f"It takes no picture files: those have 1 or 3 channels, not {size['channels']}."
    return f"A picture file becomes these bytes by one rule: {size['picture']}."


def _labels(labels: list[str]) -> str:
    shown = ", ".join(f"`{_code(name)}`" for name in labels[:LABELS_SHOWN])
    more = len(labels) - LABELS_SHOWN
    rest = f" and {more} more, all in `model.json`" if more > 0 else ""
    return f"## Classes\n\nIn the order of the outputs: {shown}{rest}."


def _code(name: str) -> str:
    """Shorten a name to what stands between backticks on one line."""
    plain = re.sub(r"\s+", " ", name).replace("`", "'")
    return plain if len(plain) <= LONGEST_LABEL else plain[: LONGEST_LABEL - 1] + "…"


def _measured(facts: dict[str, Any], proof: dict[str, Any]) -> str:
    accuracy = facts["metrics"]["accuracy"]
    rows = [(row["name"], row["status"], row["figure"]) for row in proof["rows"]]
    examples = proof.get("examples")
    left_out = facts.get("left_out")
    every = "" if left_out else "all "
    on = f"{every}{examples:,} examples of the test split" if examples else "the test split"
    said = f"{accuracy * 100:.2f} % on {on} of `{facts['dataset']}`{_new(proof, left_out)}."
    said += f" {_readings(facts.get('test_readings'))}"
    if facts.get("proved") == HERE:
        text = (
            f"Accuracy {said}It was proved where this bundle was made, by the run that it came"
            " from, and handed over only because no row of its proof (`proof.json`) failed:"
        )
    else:
        text = (
            f"**Not proved where this bundle was made**: what follows is what the `proof.json` that"
            f" came with the file claims.\n\nClaimed: accuracy {said}These rows are claimed to have"
            " passed:"
        )
    return f"## How it was measured\n\n{text}\n\n" + _table(("check", "", "figure"), rows)


def _new(proof: dict[str, Any], left_out: int | None) -> str:
    """Say that no example of the test split was trained on, where the proof says so."""
    apart = any((row["name"], row["status"]) == (NEW, "passed") for row in proof["rows"])
    said = "; none of them was trained on" if apart else ""
    return f" ({left_out:,} more were left out){said}" if left_out else said


def _readings(readings: dict[str, int] | None) -> str:
    """Say how often the split had been looked at: a figure looked at often is a little chosen."""
    if not readings:
        return ""
    total = sum(readings.values())
    each = ", ".join(f"{count} by `{by}`" for by, count in readings.items())
    times = "once" if total == 1 else f"{total} times"
    return f"When the file was proved, the split had been read {times} for this run: {each}. "


def _precision(facts: dict[str, Any], quantization: dict[str, Any] | None) -> str:
    model = facts["model"]
    said = {
        "fp32": "Weights and arithmetic are 32-bit floats, as in training.",
        "fp16": "Arithmetic is in half precision.",
        "int8": "Weights and activations are quantized to 8 bits.",
    }[model["precision"]]
    text = (
        "## Precision and size\n\n"
        f"{model['bytes']:,} bytes, {model['precision']}. {said} Opset {model['opset']}, IR"
        f" {model['ir_version']}: onnxruntime from {model['oldest_onnxruntime']} on loads it."
    )
    figures = [(k, _figure(k, v)) for k, v in (quantization or {}).items() if _scalar(v)]
    return text + ("\n\n" + _table(("quantization", ""), figures) if figures else "")


def _figure(key: str, value: Any) -> str:
    """Write one figure; what was lost of the accuracy in points, as all else says it."""
    if key in ("accuracy_drop", "max_drop") and value is not None:
        return f"{value * 100:.2f} points"
    return json.dumps(value)


def _scalar(value: Any) -> bool:
    return isinstance(value, str | int | float) or value is None


def _limits(facts: dict[str, Any]) -> str:
    return (
        "## Intended use and limits\n\n"
        f"For pictures like those of `{facts['dataset']}`. It knows its"
        f" {len(facts['labels'])} classes and nothing else: a picture of anything gets one of"
        " them. The accuracy above is that of one test split; on other pictures, from other"
        " cameras, papers or people, it was not measured. Nor was it measured whether the"
        " probabilities are calibrated, how it fares on groups within a class, or how it"
        " withstands pictures made to mislead it. A picture whose dark and light are swapped"
        " against the data set needs `--invert`."
    )


def _running(facts: dict[str, Any], web: bool) -> str:
    page = (
        "`index.html` runs it in a browser, from any static server or with `zoo bundle --serve .`;"
        " no picture leaves the browser."
        if web
        else "`index.html` needs onnxruntime-web's files in `ort/`, which were left out here."
    )
    words = ["PICTURE.png", "selftest"] if facts["input"]["channels"] in (1, 3) else ["selftest"]
    python = "".join(f"python run.py {word}\n" for word in words)
    node = "".join(f"node run.mjs {word}\n" for word in words)
    return (
        "## Run it\n\n"
        f"With Python 3.8 or newer:\n\n```sh\npip install -r requirements.txt\n{python}```\n\n"
        f"With Node 20.9 or newer:\n\n```sh\nnpm install --ignore-scripts\n{node}```\n\n"
        f"{page} Each has the same self-test: the SHA-256 of the files,"
        " the golden tensors and the golden pictures of `golden.json`.\n\n"
        "OpenVINO computes in bfloat16 where the processor has it, unless the model is compiled"
        ' with `{"INFERENCE_PRECISION_HINT": "f32"}`; that is how the proof asks it.'
    )


def _training(proof: dict[str, Any]) -> str:
    if not (proof.get("lineage") or {}).get("run"):
        return ""
    return (
        "## Train it again\n\n"
        "`proof.json` records how it was trained: every option, seed, version, the processor, its"
        " pretraining too. Where zoo and the data set are at hand,\n\n"
        "```sh\nzoo reproduce .\n```\n\n"
        "trains it anew, and says whether the accuracy lies within its 95 % interval; with the same"
        " versions on the same processor, whether the weights are equal to the bit."
    )


def _table(heads: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    lines = [heads, tuple("---" for _ in heads), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(value: Any) -> str:
    return re.sub(r"\s+", " ", str(value)).replace("|", "\\|")
