"""Every built-in backbone, objective and head on digits, from pretraining to a proved file.

python benchmarks/combinations.py                # all of them: six minutes
python benchmarks/combinations.py --sample 8     # of these, drawn by a seed
python benchmarks/combinations.py --write        # each as it is proved

Typed again on the same commit and machine, `--write` goes on; elsewhere it starts anew.
"""

from __future__ import annotations

import itertools
import json
import random
import re
import tempfile
from pathlib import Path
from typing import Any

import click
import onnx
from report import machine, plainly, print_machine, refuse_part

from zoo import pipeline
from zoo.api import Component, FinetuneConfig, TrainConfig
from zoo.pipeline import Workspace
from zoo.registry import Registry

RESULT = Path(__file__).parent / "results" / "combinations.json"
REGISTRY = Registry.installed()
Names = tuple[str, ...]
EVERY: list[Names] = list(
    itertools.product(*(REGISTRY.names(kind) for kind in ("backbone", "objective", "head")))
)
# Small, since what is looked at is that the parts go together.
SMALL = {name: {"channels": (8, 16)} for name in ("conv", "conv-patch", "conv-residual")}
TRAINING = TrainConfig(epochs=3, batch_size=64, lr=3e-3, threads=1)


def sample(count: int, seed: int = 0, leave_out: frozenset[Names] = frozenset()) -> list[Names]:
    """Draw so many combinations."""
    rest = [names for names in EVERY if names not in leave_out]
    return random.Random(seed).sample(rest, count)


def check(names: Names, workspace: Workspace, teacher: Path) -> float:
    """Pretrain, finetune, evaluate, export and validate; return the accuracy.

    Raises AssertionError where one of them is not what it should be.
    """
    backbone, objective, head = names
    needed = {"teacher": str(teacher)} if objective == "distill" else {}
    pretrained = pipeline.pretrain(
        Component(backbone, **SMALL.get(backbone, {})),
        dataset="digits",
        objective=Component(objective, **needed),
        training=TRAINING,
        workspace=workspace,
    )
    epochs = pretrained.metrics()
    watch = REGISTRY.lookup("objective", objective).spec.watch
    assert epochs[-1]["train"][watch] < epochs[0]["train"][watch]

    finetuned = pipeline.finetune(
        pretrained, head=head, training=TRAINING, finetune=FinetuneConfig(), workspace=workspace
    )
    assert finetuned.record.parent is not None
    assert finetuned.record.parent.weights_sha256 == pretrained.record.weights_sha256

    evaluation = pipeline.evaluate(finetuned, workspace=workspace)
    assert evaluation.accuracy > 0.3  # chance is 0.1
    assert sum(map(sum, evaluation.confusion)) == evaluation.examples == 360

    exported = pipeline.export(finetuned, workspace=workspace)
    assert exported.proof.passed
    assert exported.proof.comparison is not None
    assert abs(exported.proof.comparison.reference_accuracy - evaluation.accuracy) < 1e-6
    files = {path.name for path in finetuned.folder.iterdir()}
    assert {"model.onnx", "proof.json", "run.json", "weights.safetensors"} <= files
    assert not [name for name in files if name.endswith((".data", ".partial"))]

    assert pipeline.validate(exported.model, workspace=workspace).passed
    readings = json.loads((finetuned.folder / "run.json").read_text())["tests"]
    assert [reading["by"] for reading in readings] == ["evaluate", "export", "validate"]

    graph = onnx.load(exported.model).graph
    assert graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [output.name for output in graph.output] == ["logits", "probabilities"]
    return evaluation.accuracy


def begun(here: dict[str, Any], result: Path = RESULT) -> dict[str, Any]:
    """Return what was proved of this very commit on this machine; nothing of any other."""
    if result.exists() and re.fullmatch("[0-9a-f]{40}", here["commit"]):
        told: dict[str, Any] = json.loads(result.read_text())
        if told["machine"] == here:
            return told
    return {"machine": here, "proved": {}}


@click.command(help=__doc__)
@click.option("--sample", "count", type=click.IntRange(1, len(EVERY)), help="So many of them.")
@click.option("--seed", default=0, show_default=True, help="Of the sample.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--write", is_flag=True, help="Keep in benchmarks/results/combinations.json.")
def main(count: int | None, seed: int, as_json: bool, write: bool) -> None:
    refuse_part(write, count is not None, "--sample")
    here = machine()
    told = begun(here) if write else {"machine": here, "proved": {}}
    found = told["proved"]
    with tempfile.TemporaryDirectory() as name, plainly():
        folder = Path(name)
        first = Workspace(runs=folder / "teacher")
        backbone = Component("mlp", widths=(32,), features=16)
        made = pipeline.finetune(backbone=backbone, training=TRAINING, workspace=first)
        teacher = pipeline.export(made, workspace=first).model
        for names in EVERY if count is None else sample(count, seed):
            title = " ".join(names)
            if title in found:
                continue
            workspace = Workspace(runs=folder / "runs" / title)
            found[title] = round(check(names, workspace, teacher), 3)
            if write:
                RESULT.write_text(json.dumps(told, indent=2) + "\n")
            if not as_json:
                print(f"{title}: proved, accuracy {found[title]:.3f}", flush=True)
    if as_json:
        print(json.dumps(told, indent=2))
        return
    print_machine(told["machine"])
    print(f"{len(found)} combinations, each proved")


if __name__ == "__main__":
    main()
