"""The whole page: what it tells, what it does without, that it is safe and the same each time."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import zoo_heads
import zoo_images
import zoo_mlp
import zoo_objectives
from zoo import pipeline
from zoo.api import Component, FinetuneConfig, TrainConfig
from zoo.cli.main import VERBS
from zoo.errors import RunError, UsageError
from zoo.pipeline import Workspace
from zoo.pipeline.observing import observe
from zoo.registry import Registry
from zoo.report.facts import Autoencoded
from zoo.report.outcomes import NAME
from zoo.runs import Run, load

from .plugin import Split, plugin
from .reading import Page

MLP = Component("mlp", widths=(8,), features=4)
SHORT = TrainConfig(epochs=2, batch_size=16)


@pytest.fixture
def split() -> Split:
    return Split()


@pytest.fixture
def odd(tmp_path: Path, split: Split) -> Workspace:
    parts = [zoo_mlp, zoo_heads, zoo_objectives, zoo_images, plugin(split)]
    return Workspace(plugins=Registry(plugins=parts), runs=tmp_path / "runs")


def page_of(run: Run, workspace: Workspace) -> Page:
    page = Page(pipeline.report(run, workspace=workspace).report)
    check(page)
    return page


def check(page: Page) -> None:
    """Hold what is true of every page: whole, loading nothing, readable without eyes."""
    assert page.wrong == []
    assert not page.of("script")
    for tag, attrs in page.tags:
        for name, value in attrs.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "href", "xlink:href", "srcset", "action", "data", "poster"):
                assert re.match(r"#|data:(image/(png|jpeg);base64,|,$)", str(value)), (tag, value)
            if name == "style":
                assert "http" not in str(value)
    style = page.source.partition("<style>")[2].partition("</style>")[0]
    assert "@import" not in style
    assert "url(" not in style
    policy = next(meta for meta in page.of("meta") if "http-equiv" in meta)
    assert str(policy["content"]).startswith("default-src 'none'; img-src data:")
    assert len(page.ids) == len(set(page.ids))
    targets = {str(a["href"])[1:] for a in page.of("a")}
    assert targets
    assert targets <= set(page.ids)
    assert all(image.get("alt") for image in page.of("img"))
    assert all(head.get("scope") in ("row", "col") for head in page.of("th"))
    assert [tag for tag, _ in page.tags].count("h1") == 1
    assert page.of("html")[0]["lang"] == "en"
    assert len(page.source.encode()) < 3_000_000


# --- what it tells ---------------------------------------------------------------------------


def test_a_finetuning_from_end_to_end(trained: Any) -> None:
    run, workspace = trained.finetuned, trained.workspace
    found = pipeline.evaluate(run, workspace=workspace)
    made = pipeline.report(run, workspace=workspace)
    assert made.missing == []
    assert (made.report, made.bytes) == (run.folder / "report.html",
                                         (run.folder / "report.html").stat().st_size)  # fmt: skip
    page = Page(made.report)
    check(page)
    text = page.text
    assert f"{found.accuracy * 100:.2f} %" in text
    assert f"{round(found.accuracy * 360)} of 360 examples are right" in text
    cells = re.findall(r'<td class="[^"]*" style="--share[^>]*>(\d+)</td>', page.source)
    assert [int(cell) for cell in cells] == [n for row in found.confusion for n in row]
    for row in found.classes:
        assert f"{row.recall * 100:.1f} %" in text  # type: ignore[operator]
    record = load(run.folder).record
    assert f"read {len(record.tests)} times for this run" in text
    assert str(record.parent.weights_sha256) in text  # type: ignore[union-attr]
    assert "reconstruct" in text
    assert "Sanity check:" in text
    assert "144 held-out validation examples" in text
    rows = json.loads((run.folder / "proof.json").read_text())["rows"]
    assert f"{sum(row['status'] == 'passed' for row in rows)} of {len(rows)} checks passed" in text
    for row in rows:
        assert row["name"] in text
    assert record.versions["torch"] in text
    values = json.loads((run.folder / "run.json").read_text())["training"]
    assert set(values) <= {word.strip() for word in page.texts}
    lines = [item for item in page.source.splitlines() if 'class="changed"' in item]
    assert any("epochs" in item and ">4 <" in item and ">10<" in item for item in lines)
    assert not any(">momentum<" in item for item in lines)


def test_a_pretraining_shows_what_the_decoder_makes(trained: Any) -> None:
    made = pipeline.report(trained.pretrained, workspace=trained.workspace)
    assert made.missing == []
    page = Page(made.report)
    check(page)
    alts = [str(image["alt"]) for image in page.of("img")]
    for alt in ("Input 1", "Reconstruction of input 16", "Sample 16"):
        assert alt in alts
    assert "codes of 1,293 training examples" in page.text
    assert "Test split" not in page.text
    assert "coloured by class" in page.text


def test_no_model_is_asked_of_the_test_split_and_the_record_not_touched(
    odd: Workspace, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it was measured nobody loads it; then it is digested, to tell whether it changed."""
    first = pipeline.pretrain(MLP, dataset="odd", training=SHORT, workspace=odd)
    run = pipeline.finetune(first, training=SHORT, workspace=odd)
    loads = split.tests
    for each in (first, run):
        before = {p.name: p.read_bytes() for p in each.folder.iterdir() if p.is_file()}
        page_of(each, odd)
        after = {p.name: p.read_bytes() for p in each.folder.iterdir() if p.is_file()}
        assert set(after) == {*before, "report.html"}
        assert {name: after[name] for name in before} == before
    assert split.tests == loads
    assert json.loads((run.folder / "run.json").read_text())["tests"] == []
    evaluation = pipeline.evaluate(run, workspace=odd)
    assert split.tests == loads + 1
    monkeypatch.setattr("zoo.pipeline.evaluation.load_test", forbidden)
    text = page_of(run, odd).text
    assert "read 1 time for this run" in text
    assert "The test split changed" not in text
    split.test_seed = 2
    hits = round(evaluation.accuracy * evaluation.examples)
    text = page_of(run, odd).text
    assert f"{hits} of {evaluation.examples} examples are right" in text
    assert "The test split changed since the run was measured: 40 examples then, 40 now." in text
    split.test_seed = 0  # the training examples
    text = page_of(run, odd).text
    assert "40 examples then, 40 now, 40 of which the run has seen in training." in text


def forbidden(*_: Any) -> Any:
    raise AssertionError("the test split was measured on")


def test_two_reports_have_the_same_bytes(odd: Workspace, split: Split) -> None:
    run = finetuned(odd, split, SHORT)
    first = pipeline.report(run, workspace=odd).report.read_bytes()
    assert pipeline.report(run, workspace=odd).report.read_bytes() == first


@pytest.mark.slow
def test_a_report_of_another_process_has_the_same_bytes(
    trained: Any, zoo: Callable[..., Any]
) -> None:
    run = trained.finetuned
    pipeline.evaluate(run, workspace=trained.workspace)
    first = pipeline.report(run, workspace=trained.workspace).report.read_bytes()
    again = zoo("report", run.folder, "-o", "again.html", "--json", PYTHONHASHSEED="7")
    assert again.returncode == 0, again.stderr
    told = json.loads(again.stdout)
    assert told["missing"] == []
    assert told["run"] == run.name
    assert (run.folder.parent.parent / "again.html").read_bytes() == first


def test_the_commands_make_the_same_weights_again(
    trained: Any, cli: Callable[..., Any], tmp_path: Path
) -> None:
    page = page_of(trained.finetuned, trained.workspace)
    block = page.source.split('id="again"')[1].partition("<code>")[2].partition("</code>")[0]
    pretrain, finetune, *rest = block.strip().splitlines()
    assert [line.split()[1] for line in rest] == ["evaluate", "export", "report"]
    for line in (pretrain, finetune):
        result = cli(*shlex.split(line)[1:], "--runs", tmp_path / "anew", "--quiet")
        assert result.exit_code == 0, result.stderr
    made = {(run := load(folder)).record.kind: run for folder in (tmp_path / "anew").iterdir()}
    for run in (trained.pretrained, trained.finetuned):
        assert made[run.record.kind].record.weights_sha256 == run.record.weights_sha256


# --- what it does without --------------------------------------------------------------------


def test_a_run_that_was_not_evaluated_says_what_to_type(odd: Workspace) -> None:
    run = pipeline.finetune(backbone=MLP, dataset="odd", training=SHORT, workspace=odd)
    made = pipeline.report(run, workspace=odd)
    assert [line.partition(":")[0] for line in made.missing] == ["test", "proof"]
    text = Page(made.report).text
    assert f"This run was not evaluated yet. zoo evaluate {run.name}" in text
    assert f"zoo export {run.name}" in text
    assert "never read" in text
    assert "trained from scratch" in text
    assert "What the backbone loads by itself is not known to zoo." in text


def test_a_run_evaluated_before_keeps_its_accuracy(trained: Any) -> None:
    """By a zoo that left nothing else of it; what is damaged is told as in test_outcomes.py."""
    run, workspace = trained.finetuned, trained.workspace
    accuracy = pipeline.evaluate(run, workspace=workspace).accuracy
    (run.folder / NAME).unlink()
    text = page_of(run, workspace).text
    assert f"{accuracy * 100:.2f} %" in text
    assert "95 % interval" in text
    assert f"the run's folder has no '{NAME}'. zoo evaluate {run.name}" in text


def test_a_data_set_whose_files_are_gone_costs_its_sections(odd: Workspace, split: Split) -> None:
    first = pipeline.pretrain(MLP, dataset="odd", training=SHORT, workspace=odd)
    run = pipeline.finetune(first, training=SHORT, workspace=odd)
    split.gone = True
    for each, parts in ((first, ["reconstructions", "map"]),
                        (run, ["test", "map", "saliency", "proof"])):  # fmt: skip
        made = pipeline.report(each, workspace=odd)
        assert [line.partition(":")[0] for line in made.missing] == parts
        page = Page(made.report)
        check(page)
        assert "odd.bin" in page.text
        assert "Loss" in page.text
        assert "Configuration" in page.text


def test_weights_that_are_gone_cost_their_sections(trained: Any) -> None:
    (trained.finetuned.folder / "weights.safetensors").unlink()
    page = page_of(trained.finetuned, trained.workspace)
    assert "weights.safetensors' is missing. Train the run again." in page.text
    assert "checks passed" in page.text


def test_a_plugin_that_is_gone_is_named(odd: Workspace) -> None:
    run = pipeline.finetune(backbone=MLP, dataset="odd", training=SHORT, workspace=odd)
    without = Workspace(plugins=Registry(plugins=[zoo_mlp, zoo_heads]), runs=odd.runs)
    text = page_of(run, without).text
    assert "Unknown dataset 'odd'" in text
    assert "unknown" in text  # the defaults of its options


def test_another_data_set_of_that_name_is_not_shown(odd: Workspace, split: Split) -> None:
    run = pipeline.finetune(backbone=MLP, dataset="odd", training=SHORT, workspace=odd)
    path = run.folder / "run.json"
    content = json.loads(path.read_text())
    content["metrics"]["validation_examples"] = 999
    path.write_text(json.dumps(content))
    assert "is no longer the one that run" in page_of(run, odd).text


def test_a_pretraining_that_is_gone_or_changed_is_told(trained: Any) -> None:
    parent, run = trained.pretrained, trained.finetuned
    path = parent.folder / "run.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "weights_sha256": "0" * 64}))
    record = json.loads((run.folder / "run.json").read_text())
    record["parent"]["folder"] = str(parent.folder)
    (run.folder / "run.json").write_text(json.dumps(record))
    assert "its folder holds other weights now" in page_of(load(run.folder), trained.workspace).text
    shutil.rmtree(parent.folder)
    text = page_of(load(run.folder), trained.workspace).text
    assert "its folder is gone" in text
    assert f"zoo finetune {parent.name}" in text


def test_a_file_that_is_not_the_proved_one_is_told(trained: Any) -> None:
    trained.model.write_bytes(b"another")
    proof = trained.model.with_name("small.proof.json")
    proof.write_text("[]")
    text = page_of(trained.finetuned, trained.workspace).text
    assert "'model.onnx' is no longer the file that was proved" in text
    assert "'small.proof.json' is damaged or of an older zoo" in text


# --- odd inputs ------------------------------------------------------------------------------


def finetuned(workspace: Workspace, split: Split, training: TrainConfig, **odd: Any) -> Run:
    dataset = Component("odd", **odd)
    run = pipeline.finetune(backbone=MLP, dataset=dataset, training=training, workspace=workspace)
    pipeline.evaluate(run, workspace=workspace)
    return run


def test_names_and_options_are_text_whatever_they_say(odd: Workspace, split: Split) -> None:
    note = "</style><script>alert(2)</script>"
    page = page_of(finetuned(odd, split, SHORT, note=note), odd)
    assert "<script" not in page.source
    assert "<img src=https" not in page.source
    assert "<script>alert(1)</script>" in page.text
    assert note in page.text
    assert not {"\u202e", "\x1b"} & set(page.source)
    assert "字 & <b>\\u202e\\x1b[2J" in page.text


def test_many_classes_with_long_names(odd: Workspace, split: Split) -> None:
    page = page_of(finetuned(odd, split, SHORT, classes=120), odd)
    assert "All 120 classes" in page.text
    assert not re.search(r'class="confusion"', page.source)
    (matrix,) = [image for image in page.of("img") if image.get("class") == "matrix"]
    assert "Confusion matrix of 120 classes" in str(matrix["alt"])


@pytest.mark.parametrize(("channels", "pictures"), [(3, True), (2, False)])
def test_inputs_of_other_channels(
    odd: Workspace, split: Split, channels: int, pictures: bool
) -> None:
    page = page_of(finetuned(odd, split, SHORT, channels=channels), odd)
    assert bool(page.of("img")) == pictures
    assert ("Inputs of 2 channels are no pictures" in page.text) == (not pictures)
    assert "of 40 examples are right" in page.text
    first = pipeline.pretrain(MLP, dataset=Component("odd", channels=channels), training=SHORT,
                              workspace=odd)  # fmt: skip
    assert bool(page_of(first, odd).of("img")) == pictures


def test_an_objective_says_what_its_decoder_takes(odd: Workspace) -> None:
    training = TrainConfig(epochs=8, batch_size=64, lr=1e-2)
    run = pipeline.pretrain(
        Component("mlp", widths=(32,), features=16),
        dataset="digits", objective="turned", training=training, workspace=odd,
    )  # fmt: skip
    shown = observe(run, odd).autoencoded
    assert isinstance(shown, Autoencoded)
    error = ((shown.inputs.astype(float) - shown.outputs.astype(float)) ** 2).mean()
    mean = ((shown.inputs.astype(float) - shown.inputs.astype(float).mean(0)) ** 2).mean()
    assert error < mean / 2  # the features themselves decode to something worse than the mean
    assert shown.samples.std(0).mean() > 1


def test_without_labels_the_map_has_no_colours(odd: Workspace) -> None:
    dataset = Component("odd", labelled=False)
    run = pipeline.pretrain(MLP, dataset=dataset, training=SHORT, workspace=odd)
    text = page_of(run, odd).text
    assert "without classes: there are no labels" in text
    assert "coloured" not in text


def test_without_validation_training_examples_are_shown(odd: Workspace, split: Split) -> None:
    none = dataclasses.replace(SHORT, validation=0.0)
    few = FinetuneConfig(labels=24)
    run = pipeline.finetune(
        backbone=MLP, dataset="odd", training=none, finetune=few, workspace=odd
    )  # fmt: skip
    text = page_of(run, odd).text
    assert "features of 24 training examples" in text
    assert "no example was held out" in text
    assert "with 24 labels" in text


def test_the_figure_of_the_best_epoch_says_which_it_was(odd: Workspace) -> None:
    best = dataclasses.replace(SHORT, epochs=4, lr=1.0, keep="best", validation=0.25)
    run = pipeline.pretrain(MLP, dataset="odd", training=best, workspace=odd)
    losses = [epoch["validation"]["total"] for epoch in run.metrics()]
    kept = 1 + losses.index(min(losses))
    assert f"{min(losses):.4g}" in page_of(run, odd).text
    assert f"epoch {kept}, on 10 held-out examples" in page_of(run, odd).text


def test_no_epoch_has_no_curves(odd: Workspace) -> None:
    none = dataclasses.replace(SHORT, epochs=0)
    run = pipeline.pretrain(MLP, dataset="odd", training=none, workspace=odd)
    assert "Curves" not in page_of(run, odd).text


# --- the verb --------------------------------------------------------------------------------


def test_the_verb_takes_the_newest_finished_run(trained: Any, cli: Callable[..., Any]) -> None:
    result = cli("report", "latest", "--runs", trained.runs, "-q")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith(str(trained.finetuned.folder / "report.html"))
    assert "without test: This run was not evaluated yet." in result.stdout
    assert "report" in VERBS


def refused(result: Any, status: int, *words: str) -> None:
    assert result.exit_code == status, result.stderr
    assert result.stdout == ""
    for word in words:
        assert word in result.stderr, result.stderr


def test_bad_input_is_one_message(trained: Any, cli: Callable[..., Any], tmp_path: Path) -> None:
    run = trained.finetuned
    at = ("report", run.folder, "-q", "-o")
    refused(cli(*at, "no/where.html"), 2, "The folder 'no' does not exist", "mkdir -p 'no'")
    refused(cli(*at, tmp_path), 2, f"'{tmp_path}' is a folder; name a file.")
    refused(cli(*at, "page.txt"), 2, "'page.txt' must end in .html. Type: -o page.html")
    refused(cli(*at, run.folder / "run.json"), 2, "must end in .html")
    refused(cli("report", "nothing"), 1, "There is no run 'nothing' under 'runs'")
    refused(cli("report"), 2, "Missing argument 'RUN'")
    empty = cli("report", "latest", "--runs", tmp_path / "none")
    refused(empty, 1, "There is no finished run under", "See: zoo runs")
    assert not list(tmp_path.rglob("*.html"))


def test_an_unfinished_run_has_no_report(trained: Any, tmp_path: Path) -> None:
    path = trained.finetuned.folder / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "status": "interrupted"}))
    with pytest.raises(RunError, match=r"finetuning; needed is a finished run\."):
        pipeline.report(trained.finetuned.folder, workspace=trained.workspace)
    with pytest.raises(UsageError, match="is a folder"):
        pipeline.report(trained.pretrained, tmp_path, workspace=trained.workspace)
