"""int8 and fp16 where labels are few: which examples judge a smaller file, and by what rule."""

from __future__ import annotations

import dataclasses
import io
import re
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import zoo_heads
import zoo_mlp
from zoo import pipeline
from zoo.api import (
    BackboneSpec,
    Component,
    Dataset,
    DatasetSpec,
    Examples,
    FinetuneConfig,
    ImageInput,
    TrainConfig,
    hookimpl,
)
from zoo.cli.deploy import _print_candidates
from zoo.config import make
from zoo.errors import DataError, OutOfMemory, ProofError
from zoo.export.agreement import Agreement, Drop, allowed, needed
from zoo.export.budget import Budget
from zoo.export.graph import finished
from zoo.export.modelfile import ModelFile, open_model
from zoo.export.proof import AGREEMENT, DROP, TWIN, Evidence, Proof, Reference, Row, prove
from zoo.export.quantization import to_int8
from zoo.export.runtime import Session
from zoo.export.trials import run_all
from zoo.export.work import Cost
from zoo.memory import MEMORY
from zoo.pipeline import ExportConfig, Workspace, assembly, candidates, model_files, shrinking
from zoo.pipeline.candidates import Candidate, answers, measure
from zoo.pipeline.exporting import failure
from zoo.pipeline.finetuning import labelled_examples
from zoo.pipeline.samples import Samples, drawn
from zoo.progress import Plain, reporting
from zoo.registry import Registry
from zoo.runs import Run, every

pytestmark = pytest.mark.usefixtures("graphs_kept")

INPUT = ImageInput(channels=1, height=6, width=6)
TRAIN, HELD, TEST, UNLABELLED = 206, 21, 40, 1500


# --- the rule ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("share", "examples", "most"),
    [
        *[(0.02, 10_000, 200), (0.02, 360, 7), (0.005, 2000, 10), (0.005, 199, 1), (0, 5000, 0)],
        # One of a few may be lost, unless one of so few is more than chance.
        *[(0.02, 40, 1), (0.02, 21, 1), (0.02, 3, 1), (0.02, 2, 0), (0.02, 1, 0)],
        *[(0.005, 21, 1), (0.005, 11, 1), (0.005, 10, 0), (0.0, 21, 0), (1.0, 21, 21)],
    ],
)
def test_a_share_is_judged_on_counts(share: float, examples: int, most: int) -> None:
    assert allowed(share, examples) == most
    assert Drop(examples, examples - most, examples).small(share)
    assert not Drop(examples + 1, examples - most, examples).small(share)


def test_figures_give_counts_shares_and_bounds() -> None:
    assert Agreement(37, 40).figure(0.005) == (
        "37 of 40 labels agree with fp32 (92.50 %; at least 98 %, or all but 1)"
    )
    assert Agreement(1980, 2000).figure(0.005) == (
        "1,980 of 2,000 labels agree with fp32 (99.00 %; at least 98 %)"
    )
    assert Drop(20, 18, 21).figure(0.005) == (
        "18 of 21 right, fp32 20 (9.52 points lost; at most 0.5, or 1 example)"
    )
    assert Drop(900, 905, 1000).figure(0.005) == (
        "905 of 1,000 right, fp32 900 (0.50 points gained; at most 0.5)"
    )


def test_whoever_lets_more_answers_go_wrong_lets_more_of_them_change() -> None:
    few, same = Agreement(370, 400), Drop(380, 380, 400)
    assert not few.enough(0.02)
    share = needed(few, same, 0.005)
    assert share == pytest.approx(0.075)
    assert few.enough(share)
    assert not few.enough(share - 0.01)
    assert "at least 92.5 %" in few.figure(share)
    assert needed(Agreement(400, 400), Drop(380, 340, 400), 0.005) == pytest.approx(0.1)


# --- which examples ---------------------------------------------------------------------------


def quarters(count: int, seed: int, noise: int = 120) -> Examples:
    """A bright quarter, one of four; no two examples are equal."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randint(0, noise, (count, *INPUT.shape), generator=generator)
    labels = torch.arange(count) % 4
    for number in range(4):
        row, column = 3 * (number // 2), 3 * (number % 2)
        inputs[labels == number, :, row : row + 3, column : column + 3] += 90
    return Examples(inputs=inputs.to(torch.uint8), labels=labels)


class Loud(nn.Module):
    """Makes the first feature a thousand times larger: 8 bits are not enough for the others."""

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.cat([inputs[:, :1] * 1000, inputs[:, 1:]], 1)


def unmarked(count: int) -> Callable[[], Examples]:
    return lambda: Examples(inputs=quarters(count, 2).inputs)


MORE = unmarked(UNLABELLED)


def workspace_with(folder: Path, unlabelled: Callable[[], Examples] | None = MORE) -> Workspace:
    def dataset(config: Any, root: Path) -> Dataset:
        return Dataset(
            input=INPUT,
            classes=("a", "b", "c", "d"),
            train=lambda: quarters(TRAIN, 0),
            test=lambda: quarters(TEST, 1),
            unlabelled=unlabelled,
        )

    def loud(config: Any, input: ImageInput) -> nn.Module:
        made: Any = nn.Module()
        made.features, made.decoder = 16, None
        layers = [nn.Flatten(), Loud(), nn.Linear(36, 16), nn.ReLU(), Loud()]
        made.encoder = nn.Sequential(*layers)
        return made

    @hookimpl
    def zoo_datasets() -> list[DatasetSpec]:
        return [DatasetSpec(name="quarters", summary="quarters", build=dataset)]

    @hookimpl
    def zoo_backbones() -> list[BackboneSpec]:
        return [BackboneSpec(name="loud", summary="loud", build=loud)]

    plugin: Any = types.ModuleType("few")
    plugin.zoo_datasets, plugin.zoo_backbones = zoo_datasets, zoo_backbones
    return Workspace(plugins=Registry(plugins=[zoo_heads, zoo_mlp, plugin]), runs=folder / "runs")


def finetuned(workspace: Workspace, backbone: Component) -> Run:
    training = TrainConfig(epochs=12, batch_size=32, lr=5e-3, validation=HELD)
    return pipeline.finetune(
        backbone=backbone, dataset="quarters", training=training, workspace=workspace
    )


def train_few(folder: Path) -> None:
    finetuned(workspace_with(folder), Component("mlp", widths=(16,), features=8))


@pytest.fixture(scope="module")
def few(made_once: Callable[..., Path]) -> tuple[Run, Workspace]:
    folder = made_once(train_few)
    (run,), _ = every(folder / "runs")
    return run, workspace_with(folder)


def keys(images: Any) -> set[bytes]:
    return {np.asarray(image).tobytes() for image in images}


def samples_of(
    few: tuple[Run, Workspace], unlabelled: int, macs: int = 1, **options: Any
) -> Samples:
    """Draw as for a run with other options and another number of unlabelled examples."""
    run, _ = few
    training = {**run.record.training, **options}
    finetune = {**(run.record.finetune or {}), "labels": training.pop("labels", None)}
    record = dataclasses.replace(run.record, training=training, finetune=finetune)
    workspace = workspace_with(run.folder, unmarked(unlabelled) if unlabelled else None)
    source = model_files.read(run, workspace, "test")
    return drawn(dataclasses.replace(source, run=Run(run.folder, record)), Budget(Cost(macs, 1)))


@pytest.mark.parametrize(
    ("unlabelled", "options", "calibration", "choosing", "labels", "fresh", "proving"),
    [
        (1500, {}, 512, 21 + 587, 21, 0, 586),
        (0, {}, 185, 21, 21, 0, 0),
        (100, {"labels": 40}, 121, 21 + 82, 21, 0, 82),
        (1500, {"labels": 40, "validation": 0}, 512, 597 + 40, 40, 40, 597),
        (0, {"validation": 0}, 103, 103, 103, 0, 0),
    ],
    ids=["few labels", "nothing else", "unasked labels", "none held out", "all labels"],
)
def test_calibrating_choosing_and_proving_share_no_example(
    few: tuple[Run, Workspace],
    unlabelled: int,
    options: dict[str, Any],
    calibration: int,
    choosing: int,
    labels: int,
    fresh: int,
    proving: int,
) -> None:
    found = samples_of(few, unlabelled, **options)
    parts = [keys(found.calibration), keys(found.choosing), keys(found.proving)]
    assert [len(part) for part in parts] == [calibration, choosing, proving]
    assert (len(found.labels), found.fresh) == (labels, fresh)
    assert len(parts[1] & parts[2]) == 0
    assert len(parts[0] & parts[2]) == 0
    train = quarters(TRAIN, 0)
    known = keys(train.inputs)
    assert not keys(quarters(TEST, 1).inputs) & set.union(*parts)
    assert set.union(*parts) <= known | keys(quarters(unlabelled or 1, 2).inputs)
    assert train.labels is not None
    pairs = zip(train.inputs, train.labels, strict=True)
    told = {image.numpy().tobytes(): label for image, label in pairs}
    assert [told[image.tobytes()] for image in found.choosing[:labels]] == found.labels.tolist()


def test_no_label_is_read_that_the_run_did_not_use(few: tuple[Run, Workspace]) -> None:
    """Those of the examples held out, or those trained on: never the labels not asked for."""
    run, workspace = few
    found = samples_of(few, 1500, labels=40, validation=0)
    record = dataclasses.replace(run.record, training={**run.record.training, "validation": 0})
    part = assembly.recorded(workspace, "dataset", record.dataset)
    data = model_files.read(run, workspace, "test").data
    training = make(TrainConfig, record.training)
    examples, known, _ = labelled_examples(part, data, training, FinetuneConfig(labels=40))
    assert keys(found.choosing[: len(found.labels)]) == keys(examples.inputs[known])


def test_unlabelled_examples_that_cannot_be_loaded_are_done_without(
    few: tuple[Run, Workspace],
) -> None:
    def gone() -> Examples:
        raise DataError("No picture is left in unlabelled/.")

    run, _ = few
    told = io.StringIO()
    source = model_files.read(run, workspace_with(run.folder, gone), "test")
    with reporting(Plain(told)):
        found = drawn(source, Budget(Cost(1, 1)))
    assert "measuring without unlabelled examples: No picture is left in unlab" in told.getvalue()
    assert found.digest == samples_of(few, 0).digest


def test_a_large_network_is_measured_on_fewer(few: tuple[Run, Workspace]) -> None:
    found = samples_of(few, 1500, macs=10**10)
    assert (len(found.calibration), len(found.choosing), len(found.proving)) == (64, 64, 64)
    assert len(found.labels) == 21
    assert found.digest != samples_of(few, 1500).digest
    assert samples_of(few, 1500).digest == samples_of(few, 1500).digest


# --- the choice -------------------------------------------------------------------------------


def export_pair(folder: Path, run: Run) -> None:
    source = model_files.read(run, workspace_with(run.folder.parent.parent), "test")
    twin = model_files.full_precision(source, ExportConfig(opset="18"))
    dark = np.zeros((64, *INPUT.shape), np.uint8)
    dark[:, :, :3] = 60
    card = dataclasses.replace(
        open_model(Path("twin"), twin).card, precision="int8", quantization={"max_drop": 0.005}
    )
    (folder / "twin.onnx").write_bytes(twin)
    (folder / "small.onnx").write_bytes(finished(to_int8(twin, dark), card))


@pytest.fixture(scope="module")
def pair(few: tuple[Run, Workspace], made_once: Callable[..., Path]) -> tuple[bytes, bytes]:
    """An fp32 file and a rough int8 one: their labels differ on some noise."""
    run, _ = few

    def export(folder: Path) -> None:
        export_pair(folder, run)

    folder = made_once(export)
    return (folder / "twin.onnx").read_bytes(), (folder / "small.onnx").read_bytes()


def chosen(pair: tuple[bytes, bytes], *, differing: int, of: int, others: int) -> Samples:
    """Take examples on which the two agree, but for `differing` of the first `of`.

    The labels are the twin's answers, so that each difference is an answer lost.
    """
    noise = np.random.default_rng(0).integers(0, 256, (20_000, *INPUT.shape), np.uint8)
    wanted, found = (answers(each, noise)[1].argmax(1) for each in pair)
    apart, alike = (np.flatnonzero((wanted != found) == side) for side in (True, False))
    assert len(apart) >= differing
    at = np.concatenate([apart[:differing], alike[: of - differing + others]])
    return Samples(noise[:0], noise[at], wanted[at[:of]], 0, noise[:0])


def measured(pair: tuple[bytes, bytes], samples: Samples, max_drop: float = 0.005) -> Any:
    twin, small = pair
    return measure("a way", small, twin, samples, answers(twin, samples.choosing)[0], max_drop)


def test_one_flip_of_21_labels_is_outweighed_by_thousands_without(
    pair: tuple[bytes, bytes],
) -> None:
    found = measured(pair, chosen(pair, differing=1, of=21, others=1900))
    assert found.kept
    assert (found.examples, found.labelled) == (1921, 21)
    assert found.agreement == pytest.approx(1920 / 1921)
    assert found.accuracy_drop == pytest.approx(1 / 21)


def test_two_flips_of_21_labels_are_a_loss(pair: tuple[bytes, bytes]) -> None:
    found = measured(pair, chosen(pair, differing=2, of=21, others=1900))
    assert not found.kept
    assert found.reason == "19 of 21 right, fp32 21 (9.52 points lost; at most 0.5, or 1 example)"
    assert found.needs == pytest.approx(2 / 21)
    assert measured(pair, chosen(pair, differing=2, of=21, others=1900), 0.096).kept


def test_labels_that_differ_are_counted_where_none_is_known(pair: tuple[bytes, bytes]) -> None:
    samples = chosen(pair, differing=50, of=50, others=950)
    right = answers(pair[1], samples.choosing)[1].argmax(1)[:50]  # the twin is wrong there
    samples = dataclasses.replace(samples, labels=right)
    found = measured(pair, samples)
    assert found.reason == "950 of 1,000 labels agree with fp32 (95.00 %; at least 98 %)"
    assert found.accuracy_drop == -1
    aside = dataclasses.replace(samples, fresh=50)  # trained on: the others alone count
    assert measured(pair, aside).agreement == 1


# --- the file ---------------------------------------------------------------------------------


def test_the_table_of_what_was_measured_gives_counts(capsys: pytest.CaptureFixture[str]) -> None:
    found = Candidate("a way", 6012, 0.998, 1 / 21, 1.25, True, "", examples=1921, labelled=21)
    _print_candidates([found])
    shown = capsys.readouterr().out
    assert "99.80 % of 1,921" in shown
    assert "+4.76 of 21" in shown


def row(proof: Proof, name: str) -> Any:
    return next(each for each in proof.rows if each.name == name)


def test_few_labels_and_many_unlabelled_examples_get_an_int8_file(
    few: tuple[Run, Workspace], tmp_path: Path
) -> None:
    run, workspace = few
    path = tmp_path / "small.onnx"
    config, none = ExportConfig(int8=True), ["none"]
    made = pipeline.export(run, path, config=config, runtimes=none, workspace=workspace)
    assert made.proof.verdict == "proved"
    assert {each.examples for each in made.candidates} == {21 + 587}
    assert {each.labelled for each in made.candidates} == {21}
    said = row(made.proof, AGREEMENT).figure
    assert "of 626 labels agree with fp32" in said
    assert " of 40 test examples, " in said
    assert said.endswith(" of 586 others")
    assert "of 40 right, fp32 " in row(made.proof, DROP).figure
    quantization = open_model(path).card.quantization or {}
    assert quantization["examples"] == 512
    assert len(quantization["samples"]) == 16
    # Pictures that came after the export are no fault of the file's.
    proof = pipeline.validate(path, run=run, runtimes=none, workspace=workspace)
    assert proof.verdict == "proved"
    more = workspace_with(tmp_path, unmarked(UNLABELLED + 1))
    proof = pipeline.validate(path, run=run, runtimes=none, workspace=more)
    assert proof.verdict == "intact"
    assert row(proof, "exported again").figure == (
        "the data set has other examples now to calibrate and choose by"
    )
    # By some of those that are left the file may have been chosen.
    assert re.match(r"\d+ of 40 labels agree .* but 1\)$", row(proof, AGREEMENT).figure)


def test_what_is_measured_keeps_within_memory_and_is_the_same_file(
    few: tuple[Run, Workspace], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, workspace = few
    sizes: list[int] = []

    def bounded(session: Session, images: Any, most: int) -> Any:
        sizes.append(most)
        assert not session.session.get_session_options().enable_cpu_mem_arena  # kept to the end
        return run_all(session, images, most)

    for module in (candidates, shrinking):
        monkeypatch.setattr(module, "run_all", bounded)
    made = []
    for memory in (MEMORY, 5000):
        path, config = tmp_path / f"{memory}.onnx", ExportConfig(fp16=True)
        pipeline.export(
            run, path, config=config, runtimes=["none"], memory=memory, workspace=workspace
        )
        made.append((path.read_bytes(), {*sizes}))
        sizes.clear()
    assert made[0][0] == made[1][0]
    assert made[0][1] == {64, 1}
    assert max(made[1][1]) < 32


@pytest.mark.parametrize("part", ["calibration", "choosing", "labels", "proving"])
def test_the_digest_is_of_all_examples(few: tuple[Run, Workspace], part: str) -> None:
    found = samples_of(few, 1500)
    changed = dataclasses.replace(found, **{part: getattr(found, part)[::-1]})
    assert changed.digest != found.digest


def test_a_file_that_cannot_be_made_again_keeps_its_other_rows(
    pair: tuple[bytes, bytes],
) -> None:
    def fail() -> bytes:
        raise ProofError("an answer in int8 is not finite.")

    proof = proof_of(pair, differing=0, others=0, remake=fail)
    assert proof.failures == [
        Row(
            "exported again",
            "failed",
            "it cannot be exported again: an answer in int8 is not finite",
        )
    ]
    assert row(proof, AGREEMENT).passed

    def starve() -> bytes:
        raise OutOfMemory("Memory.")

    with pytest.raises(OutOfMemory):
        proof_of(pair, differing=0, others=0, remake=starve)


def test_a_refusal_says_what_int8_loses_and_what_to_type(
    few: tuple[Run, Workspace], tmp_path: Path
) -> None:
    workspace = workspace_with(tmp_path)
    run = finetuned(workspace, Component("loud"))
    with pytest.raises(ProofError) as error:
        pipeline.export(run, config=ExportConfig(int8=True), workspace=workspace)
    found = re.fullmatch(
        r"No file was written: int8 loses too much here \(of [3-5] ways least by [a-z0-9 ,-]+\):"
        r" (\d+) of 608 labels agree with fp32 \(\d+\.\d\d %; at least 98 %\)(, .*points lost.*)?\."
        r" Type --fp16, or --max-drop ([\d.]+), or leave it in fp32\.",
        str(error.value),
    )
    assert found, str(error.value)
    assert float(found[3]) == pytest.approx((608 - int(found[1])) / 6.08, abs=0.1)
    assert not list(run.folder.glob("*int8*"))


def proof_of(
    pair: tuple[bytes, bytes],
    differing: int,
    others: int,
    remake: Callable[[], bytes] | str = "not asked",
) -> Proof:
    """Prove the rough int8 file on 40 test examples of which some get another label."""
    twin, small = pair
    file: ModelFile = open_model(Path("small"), small)
    samples = chosen(pair, differing=differing, of=TEST, others=others)
    images, more = samples.choosing[:TEST], samples.choosing[TEST:]
    logits, said = answers(twin, images)[0], answers(twin, more)[0] if others else None
    labels = answers(small, images)[1].argmax(1)  # int8 is right, so that no accuracy is lost
    card = dataclasses.replace(file.card, metrics={"accuracy": 1.0})
    file = dataclasses.replace(file, card=card)
    reference = Reference(images, labels, logits, logits, card)
    if said is not None:
        reference = dataclasses.replace(reference, unlabelled=more, said=said.argmax(1))
    return prove(file, Evidence(reference, "none", remake))


def test_three_flips_of_40_test_examples_are_worded_as_the_loss_of_int8(
    pair: tuple[bytes, bytes],
) -> None:
    proof = proof_of(pair, differing=3, others=0)
    assert [each.name for each in proof.failures] == [AGREEMENT]
    assert failure(proof) == (
        "int8 loses too much here: 37 of 40 labels agree with fp32 (92.50 %; at least 98 %, or all"
        " but 1). Type --fp16, or --max-drop with more points, or leave it in fp32."
    )


def test_the_proof_counts_unlabelled_examples_beside_the_test_split(
    pair: tuple[bytes, bytes],
) -> None:
    proof = proof_of(pair, differing=1, others=960)
    assert row(proof, AGREEMENT).figure == (
        "999 of 1,000 labels agree with fp32 (99.90 %; at least 98 %): 39 of 40 test examples, 960"
        " of 960 others"
    )
    assert not proof.failures


def test_others_do_not_make_up_for_the_test_split(pair: tuple[bytes, bytes]) -> None:
    proof = proof_of(pair, differing=3, others=960)
    assert [each.name for each in proof.failures] == [AGREEMENT]
    assert row(proof, AGREEMENT).figure == (
        "997 of 1,000 labels agree with fp32 (99.70 %; at least 98 %): 37 of 40 test examples (at"
        " least 98 %, or all but 1), 960 of 960 others"
    )


@pytest.mark.parametrize(
    ("precision", "name", "words"),
    [
        ("fp32", "logits", r"the exported graph does not reproduce PyTorch \(logits: 3 off\)\."),
        ("int8", TWIN, r"the exported graph does not reproduce PyTorch \(its fp32 twin.*"),
        ("int8", "golden vectors", r"the int8 file fails its proof \(golden vectors: 3 off\)\."),
        (
            "fp16",
            DROP,
            r"fp16 loses too much here: 3 off\. Type --max-drop with more points, or le.*",
        ),
    ],
)
def test_a_failed_proof_names_what_is_at_fault(
    pair: tuple[bytes, bytes], precision: str, name: str, words: str
) -> None:
    proof = proof_of(pair, differing=0, others=0)
    rows = [Row(name, "failed", "3 off")]
    failed = dataclasses.replace(proof, verdict="failed", precision=precision, rows=rows)
    assert re.fullmatch(words, failure(failed))
