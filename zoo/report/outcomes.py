"""What `evaluate` leaves in a run's folder, so that a report need not read the test split."""

from __future__ import annotations

import dataclasses
import json

import torch
from torch import Tensor

from zoo.folders import write_atomic
from zoo.runs import Run
from zoo.untrusted import TENSORS_LIMIT, parse_json, parse_tensors, read_file

NAME = "test-outcomes.safetensors"
SCHEMA = 1
MISTAKES = 24
CORRECT = 8
PICTURE_BYTES = 4 << 20
"""Of all pictures together: large ones are fewer."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcomes:
    """The logits of a whole test split, and the pictures of a few examples.

    labels: int64 N. logits: float32 N x classes. `shown`: int64 K, positions of the examples whose
    pictures, uint8 K x C x H x W, are kept: the most confident mistakes, then a few correct ones.
    `when` is that of the reading.
    """

    labels: Tensor
    logits: Tensor
    shown: Tensor
    pictures: Tensor
    weights_sha256: str
    when: str


def outcomes_of(run: Run, inputs: Tensor, labels: Tensor, logits: Tensor, when: str) -> Outcomes:
    """Choose what is kept of a test split: uint8 N x C x H x W, int64 N, float32 N x classes."""
    shown = _chosen(labels, logits, PICTURE_BYTES // max(1, inputs[0].numel()))
    return Outcomes(
        labels=labels,
        logits=logits.float(),
        shown=shown,
        pictures=inputs[shown],
        weights_sha256=str(run.record.weights_sha256),
        when=when,
    )


def _chosen(labels: Tensor, logits: Tensor, room: int) -> Tensor:
    """Return the most confident mistakes, then correct examples spread evenly over the split."""
    confidence, predicted = logits.double().softmax(1).max(1)
    wrong = torch.nonzero(predicted != labels).flatten()
    right = torch.nonzero(predicted == labels).flatten()
    surest = torch.argsort(confidence[wrong], descending=True, stable=True)
    worst = wrong[surest][: min(MISTAKES, room)]
    few = min(CORRECT, room - len(worst), len(right))
    spread = torch.arange(few) * len(right) // max(1, few)
    return torch.cat([worst, right[spread]])


def save(run: Run, outcomes: Outcomes) -> None:
    """Write the outcomes into the run's folder, whole or not at all; older ones are replaced."""
    from safetensors.torch import save as dump

    # One key: the order of several differs from process to process.
    about = {"schema": SCHEMA, "weights_sha256": outcomes.weights_sha256, "when": outcomes.when}
    tensors = {
        "labels": outcomes.labels,
        "logits": outcomes.logits,
        "shown": outcomes.shown,
        "pictures": outcomes.pictures,
    }
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    write_atomic(run.folder / NAME, dump(plain, {"zoo": json.dumps(about, sort_keys=True)}))


def load(run: Run) -> Outcomes | str:
    """Read the outcomes of a run, or say why there are none that may be believed."""
    from safetensors.torch import load as parse

    path = run.folder / NAME
    try:
        data = read_file(path, TENSORS_LIMIT)
        tensors = parse_tensors(parse, data)
        header = parse_json(data[8 : 8 + int.from_bytes(data[:8], "little")])
        about = parse_json(header["__metadata__"]["zoo"])
        if about["schema"] != SCHEMA:
            return f"'{path.name}' is of another version of zoo"
        outcomes = Outcomes(
            **tensors, weights_sha256=about["weights_sha256"], when=str(about["when"])
        )
        sound = _sound(outcomes, run)
    except FileNotFoundError:
        return f"the run's folder has no '{path.name}'"
    except (OSError, ValueError, KeyError, TypeError, IndexError, RuntimeError):
        return f"'{path.name}' is damaged"
    if outcomes.weights_sha256 != run.record.weights_sha256:
        return f"'{path.name}' is of other weights than the run's"
    return outcomes if sound else f"'{path.name}' is damaged"


def _sound(outcomes: Outcomes, run: Run) -> bool:
    """Say whether the tensors are such that every figure of a report can be made of them."""
    count, classes = outcomes.logits.shape
    labels, shown = outcomes.labels, outcomes.shown
    return (
        count > 0
        and classes == len(run.record.classes)
        and (labels.dtype, labels.shape) == (torch.int64, (count,))
        and bool((labels >= 0).all() and (labels < classes).all())
        and outcomes.logits.dtype == torch.float32
        and bool(outcomes.logits.isfinite().all())
        and (shown.dtype, shown.ndim) == (torch.int64, 1)
        and bool((shown >= 0).all() and (shown < count).all())
        and outcomes.pictures.dtype == torch.uint8
        and outcomes.pictures.shape == (len(shown), *run.data_input.shape)
    )
