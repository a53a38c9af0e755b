"""How long evaluation, embedding and the proof of an export take on 60,000 pictures.

For each backbone, with a linear head on MNIST's training split and initial weights, which take as
long as trained ones: the logits of all pictures, the features of all pictures, the export to ONNX
bytes, and the proof of that file by onnxruntime against PyTorch's logits, at all its batch sizes.
onnxruntime takes all cores, whatever --threads says.

\b
    ZOO_DATA=DIR python benchmarks/throughput.py
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click
import torch
from report import Spread, machine, plainly, print_machine, spread
from torch import nn

from zoo.api import Component, Dataset, Examples
from zoo.cli.output import print_json, table
from zoo.export.card import Card
from zoo.export.graph import finished, to_graph
from zoo.export.modelfile import open_model
from zoo.export.proof import Evidence, Reference, prove
from zoo.models import Classifier
from zoo.pipeline.assembly import (
    build_backbone,
    build_dataset,
    build_head,
    choose,
    preprocess_for,
)
from zoo.pipeline.evaluation import accuracy_of
from zoo.pipeline.making import versions
from zoo.pipeline.workspace import Workspace
from zoo.training import cpu_threads, outputs

T = TypeVar("T")

BACKBONES = ("mlp", "conv")
DEEDS = ("evaluation", "embedding", "export", "proof")


def build(name: str, workspace: Workspace, data: Dataset) -> Classifier:
    """Return a classifier of a backbone at its own defaults and a linear head."""
    torch.manual_seed(0)
    backbone = build_backbone(choose(workspace, "backbone", name), data.input)
    features: int = backbone.features  # type: ignore[assignment]
    head = build_head(choose(workspace, "head", Component("linear")), features, len(data.classes))
    preprocess = preprocess_for(data.input, data.input, backbone)
    return Classifier(preprocess, backbone.encoder, head).eval()  # type: ignore[arg-type]


def measure(classifier: Classifier, data: Dataset, examples: Examples) -> dict[str, float]:
    """Return the seconds of each deed, done once; raises where the proof does not pass."""
    assert examples.labels is not None
    seconds: dict[str, float] = {}
    embedder = nn.Sequential(classifier.preprocess, classifier.encoder)
    logits = timed(seconds, "evaluation", lambda: outputs(classifier, examples.inputs))
    timed(seconds, "embedding", lambda: outputs(embedder, examples.inputs))
    card = Card(
        run="benchmark",
        labels=list(data.classes),
        input=data.input,
        components={},
        metrics={"accuracy": accuracy_of(logits, examples.labels)},
        weights_sha256="",
        versions=versions(),
    )
    exported = timed(seconds, "export", lambda: finished(to_graph(classifier, data.input), card))
    reference = Reference(
        images=examples.inputs.numpy(),
        labels=examples.labels.numpy(),
        logits=logits.numpy(),
        card=card,
    )
    file = open_model(Path("model.onnx"), exported)
    evidence = Evidence(reference, "not measured", lambda: exported)
    proof = timed(seconds, "proof", lambda: prove(file, evidence))
    if proof.verdict == "failed":
        raise click.ClickException(f"the proof did not pass: {proof.failures}")
    return seconds


def timed(seconds: dict[str, float], deed: str, work: Callable[[], T]) -> T:
    started = time.perf_counter()
    result = work()
    seconds[deed] = time.perf_counter() - started
    return result


@click.command(help=__doc__)
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, help="repetitions")
@click.option(
    "--threads", type=click.IntRange(1), default=2, show_default=True, help="torch's CPU threads"
)
@click.option(
    "--data-root", type=click.Path(path_type=Path), help="folder of the data sets, for ZOO_DATA"
)
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
def main(rounds: int, threads: int, data_root: Path | None, as_json: bool) -> None:
    workspace = Workspace(data=data_root)
    with plainly():
        data = build_dataset(workspace, choose(workspace, "dataset", "mnist"))
        examples = data.train()
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in BACKBONES}
    with cpu_threads(threads):
        found = machine()
        for number in range(1, rounds + 1):
            for name in BACKBONES:
                runs[name].append(measure(build(name, workspace, data), data, examples))
                click.echo(f"round {number} of {rounds}, {name}", err=True)
    figures: dict[str, dict[str, Spread]] = {
        name: {deed: spread([run[deed] for run in done]) for deed in DEEDS}
        for name, done in runs.items()
    }
    if as_json:
        print_json({"machine": found, "examples": len(examples), "seconds": figures})
        return
    print_machine(found)
    cells = [(name, deed, str(row[deed])) for name, row in figures.items() for deed in DEEDS]
    table(("backbone", "deed", "s: min / median / spread"), cells, f"{len(examples):,} pictures")


if __name__ == "__main__":
    main()
