"""`zoo resume`: killed, interrupted, failed or out of disk, a run ends as if it never had been."""

from __future__ import annotations

import errno
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from zoo import runs
from zoo.errors import RunError
from zoo.runs import Run
from zoo.training import Checkpoints, checkpoints

from .forked import Forked

Cli = Callable[..., Any]
Process = Forked

PLUGIN = '''
import os, signal, time
from pathlib import Path
from zoo.api import *

HERE = Path(__file__).parent

def number(name, otherwise=0):
    return int((HERE / name).read_text()) if (HERE / name).exists() else otherwise

def dataset(config, root):
    import torch
    def train():
        inputs = torch.arange(60 * 64).view(60, 1, 8, 8) * number("factor", 7) % 251
        return Examples(inputs=inputs.to(torch.uint8), labels=torch.arange(60) % 3)
    classes = tuple("abcdef"[: number("classes", 3)])
    return Dataset(
        input=ImageInput(channels=1, height=8, width=8), classes=classes, train=train, test=train
    )

def event(module):
    """What happens in one of the calls in training: files of these names hold their numbers."""
    if number("often"):  # a checkpoint after each step, whatever it costs
        from zoo.training import checkpoints
        checkpoints.SHARE = 1e9
    module.calls = getattr(module, "calls", 0) + module.training
    if module.training and module.calls == number("stop"):
        for _ in range(number("times", 1)):
            os.kill(os.getpid(), signal.SIGINT)
    if module.training and module.calls == number("wait"):
        (HERE / "waiting").touch()
        while not (HERE / "go").exists():
            time.sleep(0.01)
    return module.training and module.calls == number("break")

def head(config, features, classes):
    import torch
    from torch import nn
    class Eventful(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(features, classes)
            self.scale = nn.Parameter(torch.ones(1))
        def forward(self, inputs):
            return self.linear(inputs) * self.scale * (torch.nan if event(self) else 1)
    return Eventful()

def objective(config, backbone):
    import torch
    from torch import nn
    class Eventful(nn.Module):
        def forward(self, backbone, inputs, raw):
            event(self)
            noisy = inputs + torch.randn_like(inputs)
            return Losses((backbone.decoder(backbone.encoder(noisy)) - inputs).square().mean())
    return Eventful()

@hookimpl
def zoo_datasets():
    yield DatasetSpec(name="mine", summary="", build=dataset)

@hookimpl
def zoo_heads():
    yield HeadSpec(name="eventful", summary="", build=head)

@hookimpl
def zoo_objectives():
    yield ObjectiveSpec(name="eventful", summary="", build=objective, needs_decoder=True)

@hookimpl
def zoo_recipes():
    yield RecipeSpec(
        name="tiny",
        summary="",
        dataset=Component("mine"),
        backbone=Component("mlp", widths=(8,), features=4),
        objective=Component("reconstruct"),
        head=Component("eventful"),
        pretraining=TrainConfig(epochs=2, threads=1),
        finetuning=TrainConfig(epochs=4, batch_size=8, threads=1, checkpoint_steps=1, ema=0.9),
        scratch=False,
    )
'''

MINE = ("--plugin", "mine.py")
# 54 examples to train on, seven batches an epoch.
FEW = (
    "--dataset", "mine", "--batch-size", "8", "--epochs", "4", "--lr", "0.01", "--threads", "1",
    "--checkpoint-steps", "1",
)  # fmt: skip
TRAIN = (
    *MINE, "finetune", "--backbone", "mlp", "-b", "widths=8", "-b", "features=4", "--head",
    "eventful", *FEW, "--quiet",
)  # fmt: skip


@pytest.fixture
def tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Say in which call what happens: `tell(stop=3)`; 0 takes it back."""
    monkeypatch.setattr(checkpoints, "SHARE", checkpoints.SHARE)  # whatever is set, put back
    (tmp_path / "mine.py").write_text(PLUGIN)

    def write(**numbers: int) -> None:
        for name, value in numbers.items():
            (tmp_path / name).unlink(missing_ok=True)
            if value:
                (tmp_path / name).write_text(str(value))

    return write


def resume(name: str) -> tuple[str, ...]:
    return (*MINE, "resume", name, "--quiet")


@pytest.fixture(autouse=True)
def _pythons_own_handler() -> Iterator[None]:
    """What Ctrl-C means in a program, whatever it means to those who run the tests."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def begin(folder: Path, *args: object) -> Process:
    """Type a command, in a process of its own."""
    given = {**os.environ, "OMP_NUM_THREADS": "1"}
    return Forked(args, cwd=folder, env=given, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def the_run(root: Path, kind: str = "") -> Run:
    """The only run, or the only one of a kind."""
    [found] = [run for run in runs.every(root)[0] if run.record.kind.startswith(kind)]
    return found


def waiting(folder: Path, process: Process) -> None:
    """Wait until the process waits, in the call that it was told."""
    while not (folder / "waiting").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    (folder / "waiting").unlink()


def killed(folder: Path, process: Process, kind: str = "") -> Run:
    """Kill the process where it waits; return its run."""
    waiting(folder, process)
    process.kill()
    process.communicate()
    run = the_run(folder / "runs", kind)
    assert run.state == "dead"
    return run


def finished_as(run: Run, reference: Run) -> None:
    """Assert that a run is finished, and is to the bit what the one that never stopped is."""
    found = runs.load(run.folder)
    assert found.state == "finished"
    assert found.record.error is None
    assert found.record.weights_sha256 == reference.record.weights_sha256
    found.load_weights()
    lines = [{**line, "seconds": None} for line in found.metrics()]
    assert lines == [{**line, "seconds": None} for line in reference.metrics()]
    timed = {"examples_per_second": None}
    assert found.record.metrics | timed == reference.record.metrics | timed
    assert sorted(path.name for path in found.folder.iterdir()) == [
        ".lock", "examples.safetensors", "metrics.jsonl", "run.json", "weights.safetensors",
    ]  # fmt: skip


def said(text: str) -> list[str]:
    """Return the lines, without the blank one that closes the ^C which a terminal shows."""
    return [line for line in text.splitlines() if line]


def done(result: Any) -> Any:
    assert result.exit_code == 0, result.stderr
    return result


# --- through the real command ---------------------------------------------------------------


@pytest.mark.slow
def test_a_pretraining_that_was_killed_and_stopped_ends_as_if_it_never_was(
    cli: Cli, tell: Callable[..., None], tmp_path: Path
) -> None:
    train = (
        *MINE, "pretrain", "mlp", "--widths", "16", "--features", "4", "--dropout", "0.1",
        "--objective", "eventful", *FEW, "--accumulate", "2", "--ema", "0.9", "--keep", "best",
        "--shift", "1",
    )  # fmt: skip
    done(cli(*train, "--runs", "reference"))
    tell(often=1, wait=18)
    run = killed(tmp_path, begin(tmp_path, *train))
    assert len(run.metrics()) == 2
    # It goes on, and is stopped by Ctrl-C later on.
    tell(wait=5)
    process = begin(tmp_path, *MINE, "resume", "latest")
    waiting(tmp_path, process)
    process.send_signal(signal.SIGINT)
    tell(go=1)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert stdout == ""
    assert said(stderr)[-3:] == [
        "stopping after this step; once more: at once",
        "Interrupted.",
        f"Go on with: zoo --plugin mine.py resume runs/{run.name}",
    ]
    assert runs.load(run.folder).state == "interrupted"
    # Typed as it is printed, it is finished.
    command = said(stderr)[-1].removeprefix("Go on with: ")
    result = done(cli(*shlex.split(command)[1:]))
    assert result.stdout.startswith(f"runs/{run.name}  validation loss ")
    assert f"\nNext: zoo --plugin mine.py finetune runs/{run.name} " in result.stdout
    finished_as(run, the_run(tmp_path / "reference"))


@pytest.mark.slow
def test_a_finetuning_that_was_killed_ends_as_if_it_never_was(
    cli: Cli, tell: Callable[..., None], tmp_path: Path
) -> None:
    tell()
    small = ("--widths", "16", "--features", "4", "--norm", "--epochs", "1", "--threads", "1")
    done(cli(*MINE, "pretrain", "mlp", "--dataset", "mine", *small, "--runs", "parents"))
    parent = the_run(tmp_path / "parents")
    train = (
        *MINE, "finetune", parent.folder, "--head", "eventful", *FEW, "--labels", "40",
        "--unfreeze", "1", "--layer-decay", "0.8", "--label-smoothing", "0.1", "--mixup", "0.2",
        "--patience", "3",
    )  # fmt: skip
    done(cli(*train, "--runs", "reference"))
    tell(often=1, wait=13)
    run = killed(tmp_path, begin(tmp_path, *train))
    assert Checkpoints(run.checkpoint).last_step() == 12
    assert len(run.metrics()) == 2
    tell(wait=0)
    reference = the_run(tmp_path / "reference")
    run.folder.rename(tmp_path / "parents" / run.name)  # beside the one that it started from
    run = the_run(tmp_path / "parents", "finetune")
    result = done(cli(*MINE, "resume", run.name, "--runs", "parents", "--json"))
    found = json.loads(result.stdout)
    assert (found["run"], found["parent"]) == (run.name, parent.name)
    assert found["weights_sha256"] == reference.record.weights_sha256
    assert "going on after 2 whole epochs" in result.stderr
    finished_as(run, reference)


@pytest.mark.slow
def test_a_recipe_that_was_killed_goes_on_where_it_was(
    cli: Cli, tell: Callable[..., None], tmp_path: Path
) -> None:
    tell(often=1, wait=17)
    command = (*MINE, "run", "tiny", "--seeds", "1")
    run = killed(tmp_path, begin(tmp_path, *command), "finetune")
    assert len(run.metrics()) == 2
    tell(wait=0)
    result = done(cli(*command))
    pretrained = the_run(tmp_path / "runs", "pretrain")
    lines = result.stderr.splitlines()
    assert f"using finished run {pretrained.name}" in lines
    assert f"going on with {run.name}" in lines
    assert "going on after 2 whole epochs" in lines
    assert f"runs/{run.name}/model.onnx" in result.stdout
    # The same, made by hand from the same pretraining, is the same to the bit.
    done(cli(
        *MINE, "finetune", pretrained.folder, "--head", "eventful", "--epochs", "4",
        "--batch-size", "8", "--threads", "1", "--ema", "0.9", "--runs", "reference",
    ))  # fmt: skip
    found, reference = the_run(tmp_path / "runs", "finetune"), the_run(tmp_path / "reference")
    assert found.name == run.name
    assert found.record.weights_sha256 == reference.record.weights_sha256
    assert [line["epoch"] for line in found.metrics()] == [1, 2, 3, 4]
    assert not found.checkpoint.exists()


# --- killed at any moment -------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.begun_first
@pytest.mark.parametrize("kind", ["pretrain", "finetune"])
def test_a_run_may_be_killed_at_any_moment_of_its_life(
    kind: str, bench_script: Callable[[str], Any], tmp_path: Path
) -> None:
    """Four kills of the sixteen of `python benchmarks/kills.py`, which end in this too."""
    found = bench_script("kills").kill_and_resume(kind, tmp_path, 4)
    assert found["kills"] >= 4
    assert found["runs hit"] >= 2


def test_the_committed_kills_are_sixteen_of_each_kind(bench_script: Callable[[str], Any]) -> None:
    script = bench_script("kills")
    counts = json.loads(script.RESULT.read_text())["counts"]
    assert counts.keys() == set(script.KINDS)
    for found in counts.values():
        assert found["kills"] >= script.KILLS
        assert found["runs hit"] >= 10


@pytest.mark.slow
@pytest.mark.begun_first
def test_a_verb_may_be_killed_at_any_moment() -> None:
    """Two kills of each of two verbs of `python benchmarks/kills_of_verbs.py`."""
    script = Path(__file__).parents[1] / "benchmarks" / "kills_of_verbs.py"
    verbs = ["--verb", "bundle", "--verb", "cache"]
    command = [sys.executable, str(script), "--kills", "2", *verbs]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_committed_kills_are_of_many_moments(bench_script: Callable[[str], Any]) -> None:
    script = bench_script("kills_of_verbs")
    counts = json.loads(script.RESULT.read_text())["counts"]
    assert counts.keys() == script.VERBS.keys()
    assert sum(found["kills"] for found in counts.values()) >= 200
    left = "left something, cleared by the next"
    assert sum(found[left] for found in counts.values()) >= 20
    for found in counts.values():
        assert found["kills"] >= script.KILLS
        assert min(found["in each quarter of its life"]) > 0
        assert len(found["commit"]) == 40


# --- stopped by Ctrl-C, at a known step ------------------------------------------------------


@pytest.fixture
def stopped(cli: Cli, tell: Callable[..., None], tmp_path: Path) -> Run:
    """A run that was stopped by Ctrl-C in the third step of its second epoch."""
    tell()
    done(cli(*TRAIN, "--runs", "reference"))
    tell(stop=10)
    assert cli(*TRAIN).exit_code == 130
    tell(stop=0)
    run = the_run(tmp_path / "runs")
    assert run.state == "interrupted"
    assert len(run.metrics()) == 1
    return run


def refused(result: Any, status: int, *lines: str) -> None:
    """Assert these lines on stderr and no other, this exit status, nothing on stdout."""
    assert result.stderr.splitlines() == list(lines)
    assert result.exit_code == status
    assert result.stdout == ""


def test_a_stopped_run_goes_on_by_name_by_folder_and_as_the_latest(
    cli: Cli, stopped: Run, tmp_path: Path
) -> None:
    reference = the_run(tmp_path / "reference")
    for number, text in enumerate((stopped.name, f"runs/{stopped.name}", "latest")):
        kept = tmp_path / f"kept{number}"
        subprocess.run(["cp", "-r", stopped.folder, kept], check=True)
        result = done(cli(*resume(text)))
        assert result.stderr == ""
        finished_as(stopped, reference)
        subprocess.run(["rm", "-r", stopped.folder], check=True)
        kept.rename(stopped.folder)


def test_a_run_may_stop_many_times(
    cli: Cli, stopped: Run, tell: Callable[..., None], tmp_path: Path
) -> None:
    """Three steps in each of its lives; the time that it took adds up."""
    tell(stop=3)
    lives, before = 0, stopped.record.seconds
    while (result := cli(*resume("latest"))).exit_code == 130:
        lives += 1
        assert said(result.stderr) == [
            "Interrupted.",
            f"Go on with: zoo --plugin mine.py resume runs/{stopped.name}",
        ]
        now = runs.load(stopped.folder).record.seconds
        assert now > before  # type: ignore[operator]
        before = now
    done(result)
    assert lives == 6  # 18 steps were left, and what was left at last is validation
    finished_as(stopped, the_run(tmp_path / "reference"))


def test_a_run_without_a_checkpoint_begins_anew(
    cli: Cli, tell: Callable[..., None], tmp_path: Path
) -> None:
    """Stopped before the first one was written, with two epochs told: none is told twice."""
    done(cli(*TRAIN, "--runs", "reference"))
    tell(stop=17, times=2)  # twice is at once: none is written
    train = (*TRAIN[: TRAIN.index("--checkpoint-steps")], "--quiet")
    assert cli(*train).exit_code == 130
    tell(stop=0)
    run = the_run(tmp_path / "runs")
    assert len(run.metrics()) == 2
    assert not run.checkpoint.exists()
    with (run.folder / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 3, "tr')
    done(cli(*resume("latest")))
    finished_as(run, the_run(tmp_path / "reference"))


def test_a_run_whose_checkpoints_are_all_torn_begins_anew(
    cli: Cli, stopped: Run, tmp_path: Path
) -> None:
    paths = sorted(stopped.checkpoint.iterdir(), reverse=True)
    for path in paths:
        path.write_bytes(path.read_bytes()[:-1])
    lines = done(cli(*MINE, "resume", stopped.name)).stderr.splitlines()
    assert [line for line in lines if "torn" in line] == [
        f"'runs/{stopped.name}/checkpoint/{path.name}' is torn or corrupt"
        " (its SHA-256 is not the one in its name); taking the one before it"
        for path in paths
    ]
    finished_as(stopped, the_run(tmp_path / "reference"))


def test_what_a_killed_process_left_half_written_is_removed(
    cli: Cli, stopped: Run, tmp_path: Path
) -> None:
    """Whatever number the process had: in a container it may be the same each time."""
    record = json.loads((stopped.folder / "run.json").read_text())
    record |= {"status": "running", "process": {**record["process"], "pid": os.getpid()}}
    (stopped.folder / "run.json").write_text(json.dumps(record))
    for name in (".run.json.x.partial", ".weights.safetensors.y.partial"):
        (stopped.folder / name).write_bytes(b"half")
    (stopped.checkpoint / ".step-0000000099-ab.safetensors.z.partial").write_bytes(b"half")
    assert runs.load(stopped.folder).state == "dead"
    done(cli(*resume("latest")))
    finished_as(stopped, the_run(tmp_path / "reference"))


def test_it_says_where_it_goes_on_and_with_what(cli: Cli, stopped: Run, tmp_path: Path) -> None:
    record = json.loads((stopped.folder / "run.json").read_text())
    record["versions"]["torch"] = "2.0.0"
    (stopped.folder / "run.json").write_text(json.dumps(record))
    lines = done(cli(*MINE, "resume", stopped.name)).stderr.splitlines()
    assert "going on after 1 whole epochs" in lines
    [told] = [line for line in lines if "2.0.0" in line]
    assert told.startswith("the run began with torch 2.0.0, and this is ")
    assert told.endswith(": its weights may differ in the last bits")


# --- what is refused ------------------------------------------------------------------------


def test_a_finished_run_is_not_resumed(cli: Cli, trained: Any) -> None:
    for run, kind in ((trained.pretrained, "pretraining"), (trained.finetuned, "finetuning")):
        before = (run.folder / "run.json").read_bytes()
        refused(
            cli("resume", run.name),
            1,
            f"Error: Run '{run.name}' is a finished {kind}; needed is a run that stopped before"
            " its end. See: zoo runs",
        )
        assert (run.folder / "run.json").read_bytes() == before


def test_a_run_that_is_being_made_is_not_resumed(cli: Cli, stopped: Run) -> None:
    with runs.load(stopped.folder).recording():
        refused(
            cli(*resume(stopped.name)),
            1,
            f"Error: Run '{stopped.name}' is a running finetuning; needed is a run that stopped"
            " before its end. See: zoo runs",
        )
        refused(
            cli(*resume("latest")),
            1,
            "Error: There is no run that stopped before its end under 'runs'. See: zoo runs",
        )


def test_two_who_go_on_with_one_run_are_told_apart(stopped: Run) -> None:
    """Both found it unfinished; the later one finds it finished."""
    first, second = runs.load(stopped.folder), runs.load(stopped.folder)
    with first.recording():
        pass
    with pytest.raises(RunError) as caught, second.recording():
        raise AssertionError
    assert str(caught.value) == f"Run '{stopped.name}' was finished meanwhile. See: zoo runs"
    assert runs.load(stopped.folder).state == "finished"


def test_a_run_that_is_not_there(cli: Cli, trained: Any, tmp_path: Path) -> None:
    refused(
        cli("resume", "nowhere"),
        1,
        "Error: There is no run 'nowhere' under 'runs', and no such folder. See: zoo runs",
    )
    refused(
        cli("resume", "latest"),
        1,
        "Error: There is no run that stopped before its end under 'runs'. See: zoo runs",
    )
    (tmp_path / "holiday").mkdir()
    refused(
        cli("resume", "holiday"),
        1,
        "Error: 'holiday' is not a run folder: it has no run.json. See: zoo runs",
    )
    assert cli("resume").exit_code == 2


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        (
            "factor",
            "11",
            "The examples are not those that this run began with, so it cannot go on."
            " Bring them back and type zoo resume runs/{name}, or train anew:",
        ),
        (
            "classes",
            "4",
            "Dataset 'mine' is no longer the one that run '{name}' was trained on: class 'd' is"
            " new. Take away what is new, or train anew:",
        ),
    ],
)
def test_a_run_whose_data_changed(
    file: str, text: str, message: str, cli: Cli, stopped: Run, tmp_path: Path
) -> None:
    """It goes on when they are back; until then nothing of it changes."""
    before = {path.name: path.read_bytes() for path in stopped.checkpoint.iterdir()}
    (tmp_path / file).write_text(text)
    result = cli(*resume(stopped.name))
    first, command = result.stderr.splitlines()
    assert first == f"Error: {message.format(name=stopped.name)}"
    assert command.startswith("  zoo --plugin mine.py ")
    assert result.exit_code == 1
    assert {path.name: path.read_bytes() for path in stopped.checkpoint.iterdir()} == before
    assert len(runs.load(stopped.folder).metrics()) == 1
    (tmp_path / file).unlink()
    done(cli(*resume(stopped.name)))
    finished_as(stopped, the_run(tmp_path / "reference"))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("nn.Linear(features, classes)", "nn.Linear(features, classes, bias=False)"),
        ("nn.Linear(features, classes)", "nn.Sequential(nn.Linear(features, classes))"),
        ("torch.ones(1)", "torch.ones(classes)"),  # what is one number would fit all of them
    ],
)
def test_a_run_whose_model_changed(
    before: str, after: str, cli: Cli, stopped: Run, tmp_path: Path
) -> None:
    """As when a plugin is edited: one message, of what changed; and it goes on when it is back."""
    plugin = tmp_path / "mine.py"
    text = plugin.read_text()
    assert before in text
    plugin.write_text(text.replace(before, after))
    kept = {path.name: path.read_bytes() for path in stopped.checkpoint.iterdir()}
    result = cli(*resume(stopped.name))
    assert result.exit_code == 1, result.stdout
    assert result.stderr.startswith("Error: ")
    # Not what came of it later on.
    assert "Training failed in" not in result.stderr
    assert "The loss" not in result.stderr
    assert {path.name: path.read_bytes() for path in stopped.checkpoint.iterdir()} == kept
    plugin.write_text(text)
    done(cli(*resume(stopped.name)))
    finished_as(stopped, the_run(tmp_path / "reference"))


def test_a_finetuning_whose_pretraining_changed(
    cli: Cli, tell: Callable[..., None], tmp_path: Path
) -> None:
    done(cli("pretrain", "mlp", "--widths", "8", "--epochs", "1", "--threads", "1", "--quiet"))
    parent = the_run(tmp_path / "runs", "pretrain")
    tell(stop=30)
    stop = (*MINE, "finetune", "latest", "--head", "eventful", "--threads", "1", "--quiet")
    assert cli(*stop).exit_code == 130
    tell(stop=0)
    run = the_run(tmp_path / "runs", "finetune")
    record = (parent.folder / "run.json").read_text()
    other = parent.record.weights_sha256[::-1]  # type: ignore[index]
    (parent.folder / "run.json").write_text(
        record.replace(str(parent.record.weights_sha256), other)
    )
    refused(
        cli(*resume("latest")),
        1,
        f"Error: Run '{run.name}' started from '{parent.name}', whose weights are others now.",
    )
    parent.folder.rename(tmp_path / "elsewhere")
    refused(
        cli(*resume("latest")),
        1,
        f"Error: There is no run '{parent.name}' under 'runs', and no such folder."
        f" Did you mean '{run.name}'? See: zoo runs",
    )
    (tmp_path / "elsewhere").rename(parent.folder)
    (parent.folder / "run.json").write_text(record)
    done(cli(*resume("latest")))
    assert runs.load(run.folder).state == "finished"


def test_a_finetuning_goes_on_wherever_its_pretraining_lies(
    cli: Cli, tell: Callable[..., None], tmp_path: Path
) -> None:
    """It was named by its folder, outside of the folder of the runs."""
    tell()
    small = ("pretrain", "mlp", "--widths", "8", "--epochs", "1", "--threads", "1", "--quiet")
    done(cli(*small, "--runs", "elsewhere"))
    parent = the_run(tmp_path / "elsewhere")
    tell(stop=30)
    stopped = cli(
        *MINE, "finetune", f"elsewhere/{parent.name}", "--head", "eventful", "--threads", "1"
    )
    tell(stop=0)
    command = said(stopped.stderr)[-1].removeprefix("Go on with: ")
    done(cli(*shlex.split(command)[1:]))
    assert the_run(tmp_path / "runs").state == "finished"


def test_a_run_of_a_plugin_that_is_not_there(cli: Cli, stopped: Run) -> None:
    result = cli("resume", "latest", "--quiet")
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: Unknown dataset 'mine'")
    assert "plugin file:mine" in result.stderr  # whose it was
    assert runs.load(stopped.folder).state == "interrupted"


# --- a loss that was no number --------------------------------------------------------------


def test_a_failed_run_goes_on_with_a_smaller_rate(
    cli: Cli, tell: Callable[..., None], tmp_path: Path
) -> None:
    """From the checkpoint before the loss was no number; what is done keeps its rate."""
    tell(often=1, **{"break": 10})
    result = cli(*TRAIN, "--schedule", "constant")
    run = the_run(tmp_path / "runs")
    refused(
        result,
        1,
        "Error: The loss is nan at step 10, in epoch 2. Type a smaller --lr than 0.01."
        " The last good checkpoint is that of step 9.",
        f"Go on with: zoo --plugin mine.py resume runs/{run.name} --lr 0.001",
    )
    assert run.state == "failed"
    assert run.record.error is not None
    assert run.record.error.startswith("NotFinite: The loss is nan at step 10")
    tell(**{"break": 0})
    for text, wrong in (("nan", "'nan'"), ("-1", "-1"), ("fast", "'fast'")):
        refusal = cli(*resume("latest"), "--lr", text)
        assert refusal.exit_code == 2
        assert wrong in refusal.stderr
        assert runs.load(run.folder).record.training["lr"] == 0.01
    command = said(result.stderr)[-1].removeprefix("Go on with: ")
    done(cli(*shlex.split(command)[1:]))
    found = runs.load(run.folder)
    assert (found.state, found.record.error) == ("finished", None)
    assert found.record.training["lr"] == 0.001
    assert [line["lr"] for line in found.metrics()] == [0.01, 0.001, 0.001, 0.001]


# --- a disk that fills ----------------------------------------------------------------------


def test_a_disk_that_fills_in_training(
    cli: Cli, tell: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small files go on to be written, as they often do; a third checkpoint does not fit."""
    tell(often=1)
    train = (*TRAIN, "--checkpoint-steps", "3")
    done(cli(*train, "--runs", "reference"))
    real, sizes = os.fsync, []

    def filling(handle: int) -> None:
        size = os.fstat(handle).st_size
        sizes.append(size)
        if len([each for each in sizes if each > 8000]) > 2 and size > 8000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", filling)
        result = cli(*train)
    run = the_run(tmp_path / "runs")
    first, second = result.stderr.splitlines()
    assert first.startswith(
        f"Error: No space left on device 'runs/{run.name}/checkpoint/step-0000000009-"
    )
    assert second == f"Go on with: zoo --plugin mine.py resume runs/{run.name}"
    assert (result.exit_code, result.stdout) == (1, "")
    assert run.state == "failed"
    steps = sorted(path.name[:15] for path in run.checkpoint.iterdir())
    assert steps == ["step-0000000003", "step-0000000006"]
    assert not list(run.folder.rglob("*.partial"))
    done(cli(*resume("latest")))
    finished_as(run, the_run(tmp_path / "reference"))


LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write beyond the limit fails, as on a full disk
from zoo.cli import main
import zoo.pipeline.pretraining
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
sys.argv = ["zoo", *sys.argv[1:]]
main()
"""


@pytest.mark.slow
def test_a_file_that_may_not_grow_ends_training_in_one_message(cli: Cli, tmp_path: Path) -> None:
    """With the best epoch's weights in it, a checkpoint is larger than those before."""
    train = (
        "pretrain", "mlp", "--widths", "64", "--features", "8", "--epochs", "30", "--keep", "best",
        "--batch-size", "16", "--checkpoint-steps", "1", "--threads", "1", "--quiet",
    )  # fmt: skip
    done(cli(*train, "--runs", "reference"))
    weights = (the_run(tmp_path / "reference").folder / "weights.safetensors").stat().st_size
    code = LIMITED.format(limit=int(3.7 * weights))
    result = subprocess.run(
        [sys.executable, "-c", code, *train], cwd=tmp_path, capture_output=True, text=True
    )
    run = the_run(tmp_path / "runs")
    first, second = result.stderr.splitlines()
    assert first.startswith(f"Error: File too large 'runs/{run.name}/checkpoint/step-")
    assert second == f"Go on with: zoo resume runs/{run.name}"
    assert (result.returncode, result.stdout) == (1, "")
    assert run.state == "failed"
    assert len(list(run.checkpoint.iterdir())) >= 1
    assert not list(run.folder.rglob("*.partial"))
    done(cli("resume", "latest", "--quiet"))
    finished_as(run, the_run(tmp_path / "reference"))
