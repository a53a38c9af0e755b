"""`--log`: TensorBoard and MLflow are told what metrics.jsonl holds, and cost no run its end."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from zoo import pipeline, runs
from zoo.api import Component, FinetuneConfig, TrainConfig
from zoo.errors import UsageError
from zoo.pipeline import Workspace
from zoo.runs import Run

Cli = Callable[..., Any]
Zoo = Callable[..., "subprocess.CompletedProcess[str]"]

SMALL = Component("mlp", widths=(16,), features=4)
QUICK = ("--widths", "16", "--features", "4", "--threads", "1", "--device", "cpu")
TOLD = TrainConfig(epochs=3, lr=3e-3, threads=1, device="cpu", log="tensorboard")

PLUGIN = '''
import os, shutil, signal, sqlite3
from pathlib import Path
from zoo.api import *

HERE = Path(__file__).parent

def event():
    """What happens in the middle of the run: a file of this name says in which call."""
    for path in HERE.glob("runs/*/tensorboard"):
        if (HERE / "remove").exists():
            shutil.rmtree(path)
            path.touch()
    if (HERE / "drop").exists():
        with sqlite3.connect(HERE / "runs/mlflow.db", isolation_level=None) as database:
            database.execute("DROP TABLE latest_metrics")
    if (HERE / "stop").exists():
        os.kill(os.getpid(), signal.SIGINT)

def objective(config, backbone):
    import torch
    from torch import nn
    class Eventful(nn.Module):
        calls = 0
        def forward(self, backbone, inputs, raw):
            self.calls += self.training
            if self.training and self.calls == 15:
                event()
            return Losses((backbone.decoder(backbone.encoder(inputs)) - inputs).square().mean())
    return Eventful()

@hookimpl
def zoo_objectives():
    yield ObjectiveSpec(name="eventful", summary="", build=objective, needs_decoder=True)
'''

# 11 steps an epoch: the event is in the second one.
EVENTFUL = (
    "--plugin", "mine.py", "pretrain", "mlp", *QUICK, "--objective", "eventful", "--epochs", "3",
    "--batch-size", "128",
)  # fmt: skip


@pytest.fixture
def happens(tmp_path: Path) -> Callable[[str], None]:
    """Say what happens in the middle of a run of the objective `eventful`."""
    (tmp_path / "mine.py").write_text(PLUGIN)

    def tell(name: str) -> None:
        (tmp_path / name).touch()

    return tell


@pytest.fixture(autouse=True)
def _pythons_own_handler() -> Iterator[None]:
    """What Ctrl-C means in a program, whatever it means to those who run the tests."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def the_run(root: Path) -> Run:
    [found] = runs.every(root)[0]
    return found


def figures(run: Run) -> dict[str, dict[int, float]]:
    """What metrics.jsonl holds, as it is told: by name, then by epoch."""
    found: dict[str, dict[int, float]] = {}
    for line in run.metrics():
        epoch = line["epoch"]
        for split in ("train", "validation"):
            for part, value in (line[split] or {}).items():
                found.setdefault(f"{split}/{part}", {})[epoch] = value
        for name in ("lr", "seconds"):
            found.setdefault(name, {})[epoch] = line[name]
    return found


def same(told: dict[str, dict[int, float]], run: Run) -> None:
    """Assert that these are a run's figures, but for the rounding of float32."""
    expected = figures(run)
    assert told.keys() == expected.keys()
    for name, by_epoch in expected.items():
        assert told[name] == pytest.approx(by_epoch, rel=1e-6), name


# --- TensorBoard ----------------------------------------------------------------------------


def read(run: Run) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(run.folder / "tensorboard"), size_guidance={"scalars": 0})
    return reader.Reload()


def scalars(run: Run) -> dict[str, dict[int, float]]:
    reader = read(run)
    names = [name for name in reader.Tags()["scalars"] if name != "hp_metric"]
    return {name: {each.step: each.value for each in reader.Scalars(name)} for name in names}


def settings(run: Run) -> dict[str, Any]:
    """What the run was made with, as TensorBoard shows it."""
    from tensorboard.plugins.hparams import plugin_data_pb2

    content = read(run).summary_metadata["_hparams_/session_start_info"].plugin_data.content
    data = plugin_data_pb2.HParamsPluginData.FromString(content)
    return {
        name: getattr(value, str(value.WhichOneof("kind")))
        for name, value in data.session_start_info.hparams.items()
    }


def test_tensorboard_is_told_each_epoch_of_a_pretraining(workspace: Workspace) -> None:
    run = pipeline.pretrain(SMALL, training=TOLD, workspace=workspace)
    same(scalars(run), run)
    assert sorted(scalars(run)["train/total"]) == [1, 2, 3]
    found = settings(run)
    assert (found["dataset"], found["backbone"]) == ("digits", "mlp")
    assert found["backbone.features"] == 4
    assert found["lr"] == 3e-3
    assert found["objective"] == "reconstruct"


def test_tensorboard_is_told_each_epoch_of_a_finetuning(workspace: Workspace) -> None:
    run = pipeline.finetune(
        backbone=SMALL, training=TOLD, finetune=FinetuneConfig(labels=200), workspace=workspace
    )
    same(scalars(run), run)
    assert {"train/accuracy", "validation/accuracy"} <= scalars(run).keys()
    assert settings(run)["labels"] == 200


def test_a_run_without_validation_tells_none(workspace: Workspace) -> None:
    training = TrainConfig(
        epochs=1, validation=0, threads=1, device="cpu", log="tensorboard"
    )  # fmt: skip
    run = pipeline.pretrain(SMALL, training=training, workspace=workspace)
    assert scalars(run).keys() == {"train/total", "train/psnr", "lr", "seconds"}
    same(scalars(run), run)


@pytest.mark.slow
def test_a_task_of_a_job_tells_its_run_whatever_its_number(zoo: Zoo, tmp_path: Path) -> None:
    """One of many runs that Slurm starts beside each other, each alone."""
    command = ("pretrain", "mlp", *QUICK, "--epochs", "1", "--log", "tensorboard", "--quiet")
    result = zoo(*command, SLURM_PROCID="3", SLURM_NTASKS="4", SLURM_JOB_ID="7")
    assert result.returncode == 0, result.stderr
    run = the_run(tmp_path / "runs")
    assert (run.folder / "tensorboard").is_dir()
    same(scalars(run), run)


def test_a_logger_changes_no_weight(workspace: Workspace) -> None:
    told = pipeline.pretrain(SMALL, training=TOLD, workspace=workspace)
    silent = TrainConfig(epochs=3, lr=3e-3, threads=1, device="cpu")
    run = pipeline.pretrain(SMALL, training=silent, workspace=workspace)
    assert run.record.weights_sha256 == told.record.weights_sha256
    assert not (run.folder / "tensorboard").exists()


def test_a_resumed_run_tells_tensorboard_each_epoch(
    cli: Cli, happens: Callable[[str], None], tmp_path: Path
) -> None:
    happens("stop")
    assert cli(*EVENTFUL, "--log", "tensorboard", "--quiet").exit_code == 130
    (tmp_path / "stop").unlink()
    run = the_run(tmp_path / "runs")
    assert sorted(scalars(run)["train/total"]) == [1]
    result = cli("--plugin", "mine.py", "resume", "latest", "--quiet")
    assert result.exit_code == 0, result.stderr
    assert sorted(scalars(run)["train/total"]) == [1, 2, 3]
    same(scalars(run), run)


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("tensorboard", "tensorboard"),
        ("tensorboard", "lightning_fabric"),
        ("mlflow", "mlflow"),
        ("mlflow", "pytorch_lightning"),
    ],
)
@pytest.mark.parametrize("verb", [("pretrain", "mlp"), ("finetune", "--backbone", "mlp")])
def test_a_logger_whose_packages_are_absent_is_refused_before_a_run_begins(
    verb: tuple[str, ...],
    name: str,
    missing: str,
    cli: Cli,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = importlib.util.find_spec

    def without(module: str, package: str | None = None) -> Any:
        return None if module == missing else real(module, package)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    result = cli(*verb, "--log", name)
    assert result.stderr == (
        f"Error: --log {name} needs more packages. Type: pip install 'plugzoo[{name}]'\n"
    )
    assert (result.exit_code, result.stdout) == (2, "")
    assert not (tmp_path / "runs").exists()


def test_an_unknown_logger_is_refused(cli: Cli, workspace: Workspace, tmp_path: Path) -> None:
    result = cli("pretrain", "mlp", "--log", "tensorbord")
    assert result.exit_code == 2
    assert "Did you mean 'tensorboard'?" in result.stderr
    assert "none, tensorboard, mlflow" in result.stderr
    with pytest.raises(UsageError):
        pipeline.pretrain(SMALL, training=TrainConfig(log="wandb"), workspace=workspace)  # type: ignore[arg-type]
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_what_tensorboard_does_not_take_costs_a_note(
    zoo: Zoo, happens: Callable[[str], None], tmp_path: Path
) -> None:
    """Its folder is gone in the middle of the run."""
    happens("remove")
    result = zoo(*EVENTFUL, "--log", "tensorboard")
    assert result.returncode == 0, result.stderr
    run = the_run(tmp_path / "runs")
    assert run.state == "finished"
    assert len(run.metrics()) == 3
    notes = [line for line in result.stderr.splitlines() if "did not take it" in line]
    assert notes
    assert all(note.startswith("tensorboard did not take it: ") for note in notes)
    assert "Traceback" not in result.stderr


def test_where_tensorboard_cannot_write_at_all_is_one_message(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file lies where its folder belongs."""
    real = Run.save

    def save(self: Run) -> None:
        real(self)
        (self.folder / "tensorboard").touch()

    monkeypatch.setattr(Run, "save", save)
    result = cli("pretrain", "mlp", *QUICK, "--epochs", "1", "--log", "tensorboard", "--quiet")
    first, second = result.stderr.splitlines()
    assert first.startswith("Error: --log tensorboard: ")
    run = the_run(tmp_path / "runs")
    assert second == f"Go on with: zoo resume runs/{run.name}"
    assert (result.exit_code, result.stdout, run.state) == (2, "", "failed")


@pytest.mark.slow
def test_a_run_that_no_logger_is_asked_for_loads_none(tmp_path: Path) -> None:
    code = (
        "import sys; from zoo import pipeline; from zoo.api import *; from pathlib import Path\n"
        "pipeline.pretrain('mlp', training=TrainConfig(epochs=1))\n"
        "print([m for m in ('tensorboard', 'mlflow', 'lightning_fabric') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert result.stdout == "[]\n"


# --- MLflow ---------------------------------------------------------------------------------


@pytest.fixture
def mlflow() -> Any:
    """MLflow and what zoo tells it through, where they are installed."""
    pytest.importorskip("pytorch_lightning")
    return pytest.importorskip("mlflow")


def recorded(mlflow: Any, database: Path) -> Any:
    """The only run in MLflow's database."""
    client = mlflow.MlflowClient(f"sqlite:///{database}")
    experiment = client.get_experiment_by_name("zoo")
    [found] = client.search_runs([experiment.experiment_id])
    return found


def history(mlflow: Any, database: Path) -> dict[str, dict[int, float]]:
    client = mlflow.MlflowClient(f"sqlite:///{database}")
    found = recorded(mlflow, database)
    return {
        name: {each.step: each.value for each in client.get_metric_history(found.info.run_id, name)}
        for name in found.data.metrics
    }


@pytest.mark.slow
def test_mlflow_is_told_each_epoch_in_a_database_beside_the_runs(
    zoo: Zoo, mlflow: Any, tmp_path: Path
) -> None:
    result = zoo("pretrain", "mlp", *QUICK, "--epochs", "3", "--log", "mlflow", timeout=600)
    assert result.returncode == 0, result.stderr
    run = the_run(tmp_path / "runs")
    database = tmp_path / "runs" / "mlflow.db"
    same(history(mlflow, database), run)
    found = recorded(mlflow, database)
    assert found.info.run_name == run.name
    assert found.info.status == "FINISHED"
    assert found.data.params["backbone"] == "mlp"
    assert found.data.params["backbone.widths"] == "[16]"
    assert found.data.params["epochs"] == "3"
    lines = result.stderr.splitlines()
    assert [line for line in lines if "1,437 examples" not in line and "100%" not in line] == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs"]
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == [run.name, "mlflow.db"]


@pytest.mark.slow
def test_a_server_that_is_not_there_is_one_message(zoo: Zoo, mlflow: Any, tmp_path: Path) -> None:
    result = zoo(
        "pretrain", "mlp", *QUICK, "--epochs", "1", "--log", "mlflow", "--quiet",
        MLFLOW_TRACKING_URI="http://127.0.0.1:9", MLFLOW_HTTP_REQUEST_MAX_RETRIES="0", timeout=600,
    )  # fmt: skip
    run = the_run(tmp_path / "runs")
    first, second = result.stderr.splitlines()
    assert first.startswith("Error: --log mlflow: MlflowException: ")
    assert "127.0.0.1" in first
    assert second == f"Go on with: zoo resume runs/{run.name}"
    assert (result.returncode, result.stdout) == (2, "")
    assert run.state == "failed"
    assert run.metrics() == []
    assert not (tmp_path / "runs" / "mlflow.db").exists()


@pytest.mark.slow
def test_what_mlflow_does_not_take_costs_a_note(
    zoo: Zoo, mlflow: Any, happens: Callable[[str], None], tmp_path: Path
) -> None:
    """A table of its database is gone in the middle of the run."""
    happens("drop")
    result = zoo(*EVENTFUL, "--log", "mlflow", timeout=600)
    assert result.returncode == 0, result.stderr
    run = the_run(tmp_path / "runs")
    assert run.state == "finished"
    assert len(run.metrics()) == 3
    lines = result.stderr.splitlines()
    assert len([line for line in lines if line.startswith("mlflow did not take it: ")]) >= 2
    assert "Traceback" not in result.stderr
    known = ("mlflow did not take it: ", "1,437 examples", "pretraining mlp on digits ")
    assert [line for line in lines if not line.startswith(known)] == []  # a line each


@pytest.mark.slow
def test_a_stopped_run_is_no_finished_one_in_mlflow(
    zoo: Zoo, mlflow: Any, happens: Callable[[str], None], tmp_path: Path
) -> None:
    happens("stop")
    result = zoo(*EVENTFUL, "--log", "mlflow", "--quiet", timeout=600)
    assert result.returncode == 130
    database = tmp_path / "runs" / "mlflow.db"
    assert recorded(mlflow, database).info.status == "FAILED"
    assert sorted(history(mlflow, database)["train/total"]) == [1]
    # It goes on under its name, and is told each epoch.
    (tmp_path / "stop").unlink()
    result = zoo("--plugin", "mine.py", "resume", "latest", "--quiet", timeout=600)
    assert result.returncode == 0, result.stderr
    same(history(mlflow, database), the_run(tmp_path / "runs"))
    assert recorded(mlflow, database).info.status == "FINISHED"
