"""`zoo benchmark`: what it tells, that each figure is of the right thing, and what it refuses."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from zoo import pipeline
from zoo.errors import ModelFileError, UsageError
from zoo.export import timing
from zoo.export.targets import ExportConfig
from zoo.pipeline.affordable import Allowance, Pace, paced
from zoo.pipeline.benchmarking import Measured, Timing, _percentile, _slower, benchmark
from zoo.pipeline.timed_sides import Side, open_file

Cli = Callable[..., Any]
SHORT = ("--runs", "10", "--warmup", "1", "--seconds", "1", "--quiet")


@pytest.fixture(scope="module")
def fixed(trained_once: Any, made_once: Callable[..., Path]) -> Path:
    """A file of a fixed batch of 4, outside its run's folder."""

    def export(folder: Path) -> None:
        mine = trained_once.copied(folder / "runs")
        path, config = folder / "fixed.onnx", ExportConfig(batch=4)
        pipeline.export(mine.finetuned, path, config=config, workspace=mine.workspace)
        shutil.rmtree(mine.runs)

    return made_once(export) / "fixed.onnx"


def test_every_figure_is_told(cli: Cli, trained: Any) -> None:
    done = cli("benchmark", trained.model, "--batch", "1,8", "--json", *SHORT)
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["threads"] == 1
    assert found["cpu"]
    assert found["cores"] >= 1
    assert set(found["versions"]) == {"plugzoo", "python", "onnxruntime", "torch"}
    [file], [eager] = found["files"], found["torch"]
    assert file["name"] == str(trained.model)
    assert file["bytes"] == trained.model.stat().st_size
    assert file["precision"] == "fp32"
    assert file["provider"] == "CPUExecutionProvider"
    assert file["runtime"] == f"onnxruntime {onnxruntime.__version__}"
    assert file["import_seconds"] > 0
    assert file["load_seconds"] > 0
    assert eager["run"] == file["run"] == trained.finetuned.name
    assert eager["import_seconds"] is eager["memory_peak_bytes"] is None
    for side in (file, eager):
        assert [each["batch"] for each in side["timings"]] == [1, 8]
        for each in side["timings"]:
            assert each["p50_seconds"] > 0
            assert each["p95_seconds"] is each["p99_seconds"] is None  # 2 runs a round
            assert each["first_seconds"] > 0
            assert each["runs"] == 10
            assert each["examples_per_second"] * each["p50_seconds"] == pytest.approx(each["batch"])
    for ours, theirs in zip(file["timings"], eager["timings"], strict=True):
        assert ours["to_first"] == theirs["to_torch"] == 1
        assert ours["to_torch"] == pytest.approx(ours["p50_seconds"] / theirs["p50_seconds"])
        assert theirs["to_first"] == pytest.approx(theirs["p50_seconds"] / ours["p50_seconds"])
    assert found["notes"] == []


def pace_of(allowance: Allowance, batches: list[int], each: float) -> tuple[Any, list[str]]:
    """Choose batch sizes for a side that takes so many seconds an example."""
    notes: list[str] = []
    return paced("m.onnx", batches, lambda batch: each * batch, allowance, notes), notes


def test_a_batch_that_takes_too_long_is_left_out_by_an_estimate() -> None:
    found, notes = pace_of(Allowance(seconds=5.0), [1, 64], 0.025)
    assert found == {1: Pace(5, 3)}
    assert notes == [
        "m.onnx was not run at batch 64: 5 runs would take about 8 s, more than --seconds 5."
        " To run it: --seconds 8"
    ]
    found, notes = pace_of(Allowance(seconds=8.0), [1, 64], 0.025)
    assert found == {1: Pace(5, 3), 64: Pace(5, 1)}
    assert notes == []


def test_a_batch_that_takes_too_much_memory_is_left_out() -> None:
    found, notes = pace_of(Allowance(5.0, 10**9, 26 * 10**6), [1, 7, 64], 1e-4)
    assert list(found) == [1, 7]
    assert notes == [
        "m.onnx was not run at batch 64: its activations would take about 1700MB, more than"
        " --memory 1GB. To run it: --memory 1700MB"
    ]


def test_the_smallest_batch_is_measured_whatever_it_takes_in_fewer_rounds() -> None:
    found, notes = pace_of(Allowance(5.0, 10, 100), [8, 4], 0.5)
    assert found == {4: Pace(2, 1)}
    assert [note.partition(":")[0] for note in notes] == [
        "m.onnx was not run at batch 8",
        "m.onnx had 2 of 5 rounds at batch 4",
    ]
    assert notes[1].endswith("a run takes about 2 s. For all of them: --seconds 10")


def test_a_batch_that_was_left_out_is_not_run_for_the_next_file() -> None:
    """Nor is another that does not fit, now that it is known how long an example takes."""
    called: list[int] = []

    def ask(order: dict[str, Any]) -> dict[str, Any]:
        called.append(order["first"])
        return {"first_seconds": 1.0, "seconds": 0.1 * order["first"]}

    side, notes = Side(ask, {"first_seconds": {}}), list[str]()
    for batches in ([1, 64], [1, 64], [64], [64, 32], [4]):
        side.add("PyTorch", batches, Allowance(seconds=5.0), notes)
    assert called == side.batches == [1, 4]
    assert [note.partition(":")[0] for note in notes] == [
        "PyTorch was not run at batch 64",
        "PyTorch was not run at batch 32",
    ]


def test_what_is_left_out_is_told(cli: Cli, trained: Any) -> None:
    args = ("--batch", "1,100000", "--memory", "10MB", "--json", "--no-torch", *SHORT)
    found = json.loads(cli("benchmark", trained.model, *args).stdout)
    assert [each["batch"] for each in found["files"][0]["timings"]] == [1]
    [note] = found["notes"]
    assert note.startswith(f"{trained.model} was not run at batch 100000: its activations would")
    assert "more than --memory 10MB. To run it: --memory " in note


@pytest.mark.parametrize(
    ("runs", "told"),
    [((19, 100), []), ((20, 99), ["p95"]), ((100, 100), ["p95", "p99"])],
)
def test_a_percentile_is_told_where_every_round_has_runs_for_it(
    runs: tuple[int, ...], told: list[str]
) -> None:
    times = {"p50": 1.0, "p95": 2.0, "p99": 3.0}
    rounds = [{**times, "runs": count} for count in runs]
    found = {name: _percentile(rounds, name) for name in ("p95", "p99")}
    assert found == {name: times[name] if name in told else None for name in found}


@pytest.mark.skipif(sys.platform != "linux", reason="memory is told by /proc alone")
def test_memory_is_that_of_the_files_own_process(trained: Any) -> None:
    held = bytearray(500_000_000)  # this process is large; the other must not inherit its peak
    held[::4096] = b"x" * len(held[::4096])
    found = benchmark([trained.model], batches=(1,), runs=5, warmup=0, torch=False)
    [file] = found.files
    assert file.memory_growth_bytes is not None
    assert file.memory_peak_bytes is not None
    assert 0 < file.memory_growth_bytes < file.memory_peak_bytes < len(held)


def test_a_file_of_a_fixed_batch_is_run_at_its_own(cli: Cli, trained: Any, fixed: Path) -> None:
    done = cli("benchmark", trained.model, fixed, "--batch", "1,4", "--json", "--no-torch", *SHORT)
    first, second = json.loads(done.stdout)["files"]
    assert [each["batch"] for each in first["timings"]] == [1, 4]
    [timed] = second["timings"]
    assert timed["batch"] == 4
    assert timed["to_torch"] is None
    same = first["timings"][1]["p50_seconds"]
    assert timed["to_first"] == pytest.approx(timed["p50_seconds"] / same)


def test_two_files_of_one_run_share_its_pytorch(cli: Cli, trained: Any, fixed: Path) -> None:
    done = cli("benchmark", trained.model, fixed, "--batch", "1", "--json",
               "--run", trained.finetuned.folder, *SHORT)  # fmt: skip
    found = json.loads(done.stdout)
    assert [each["batch"] for each in found["torch"][0]["timings"]] == [1, 4]
    assert len(found["torch"]) == 1
    assert found["files"][1]["timings"][0]["to_torch"] > 0
    assert found["files"][1]["timings"][0]["to_first"] is None  # the first file has no batch of 4


def test_a_run_that_is_not_found_is_said_and_left_out(cli: Cli, fixed: Path) -> None:
    done = cli("benchmark", fixed, *SHORT)
    assert done.exit_code == 0, done.stderr
    assert f"PyTorch was left out for {fixed}: its run" in done.stdout
    assert "PyTorch eager" not in done.stdout


def test_a_run_with_other_weights_is_not_taken_for_its_own(trained: Any) -> None:
    trained.finetuned.record.weights_sha256 = "0" * 64
    trained.finetuned.save()
    found = benchmark([trained.model], batches=(1,), runs=5, warmup=0, workspace=trained.workspace)
    assert found.torch == []
    assert "with its weights" in found.notes[0]


def test_the_table_names_machine_versions_and_ratios(
    cli: Cli, trained: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS")
    done = cli("benchmark", trained.model, "--threads", "2", *SHORT)
    assert done.exit_code == 0, done.stderr
    for word in ("threads used: 2", "onnxruntime", "torch", "p99", "to the first file",
                 "to PyTorch", "PyTorch eager", "CPUExecutionProvider", "peak MB"):  # fmt: skip
        assert word in done.stdout


@pytest.mark.parametrize(
    ("args", "status", "words"),
    [
        (("absent.onnx",), 2, ("absent.onnx",)),
        (("garbage.onnx",), 1, ("'garbage.onnx'",)),
        (("MODEL", "--provider", "nonsense"), 2, ("no provider 'nonsense'", "Installed:", "cpu")),
        (("MODEL", "--batch", "0"), 2, ("'--batch'", "'0' is not allowed", "ints from 1")),
        (("MODEL", "--batch", "1,x"), 2, ("'--batch'", "'1,x' is not allowed")),
        (("MODEL", "--threads", "0"), 2, ("'--threads'",)),
        (("MODEL", "--runs", "0"), 2, ("'--runs'",)),
        (("MODEL", "--seconds", "0"), 2, ("'--seconds'",)),
        (("MODEL", "--run", "absent"), 1, ("There is no run 'absent'",)),
    ],
)
def test_bad_input_is_one_message(
    cli: Cli, trained: Any, args: tuple[str, ...], status: int, words: tuple[str, ...]
) -> None:
    Path("garbage.onnx").write_bytes(b"not a model")
    done = cli("benchmark", *(trained.model if arg == "MODEL" else arg for arg in args))
    assert done.exit_code == status, done.output
    assert "Traceback" not in done.output
    assert done.stdout == ""
    for word in words:
        assert word in done.stderr


def test_no_files_are_refused() -> None:
    with pytest.raises(UsageError, match="takes a file"):
        benchmark([])


def test_a_process_that_fails_or_dies_is_one_message(trained: Any, tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        side = open_file(stack, trained.model, [1], 1, "cpu")
        with pytest.raises(ModelFileError, match=r"model.onnx' cannot be measured: KeyError"):
            side.ask({"batch": 99, "runs": 1, "seconds": 1, "warmup": 0})
        with pytest.raises(ModelFileError, match="FileNotFoundError"):
            open_file(stack, tmp_path / "gone.onnx", [1], 1, "cpu")
    with pytest.raises((ModelFileError, ValueError)):  # its process is gone
        side.ask({"memory": True})


def test_a_slower_int8_file_is_called_slower() -> None:
    def measured(name: str, precision: str, run: str, *seconds: float) -> Measured:
        timings = [Timing(batch, 1.0, s, s, s, 1, 1.0) for batch, s in enumerate(seconds, 1)]
        return Measured(name, run, precision, "", "", 1, 1.0, 1.0, None, None, timings)

    whole = measured("whole.onnx", "fp32", "one", 1.0, 1.0)
    small = measured("small.onnx", "int8", "one", 1.5, 0.5)
    other = measured("other.onnx", "int8", "two", 9.0, 9.0)
    half = measured("half.onnx", "fp16", "one", 9.0, 9.0)
    [note] = _slower([whole, small, other, half])
    assert note.startswith("small.onnx is SLOWER than whole.onnx at batch 1")
    assert "1.50 times" in note


def test_latency_and_ratio_of_bytes_and_of_a_path(trained: Any, fixed: Path) -> None:
    assert timing.latency(trained.model, seconds=0.01) > 0
    assert timing.latency(fixed.read_bytes(), seconds=0.01) > 0
    assert timing.ratio(fixed, trained.model, seconds=0.01, rounds=3) > 0


def test_time_runs_stops_at_its_count_or_its_time() -> None:
    assert len(timing.time_runs(lambda: None, 7, 100)) == 7
    assert len(timing.time_runs(lambda: None, 1_000_000_000, 0)) == timing.LEAST


def test_percentiles_are_times_that_were_measured() -> None:
    times = [float(n) for n in range(100, 0, -1)]
    assert timing.percentiles(times) == {"p50": 50.0, "p95": 95.0, "p99": 99.0}
    assert timing.percentiles([3.0]) == {"p50": 3.0, "p95": 3.0, "p99": 3.0}


def test_the_random_inputs_are_the_same_each_time(trained: Any) -> None:
    outputs = []
    for _ in range(2):
        call = timing.caller(timing.open_raw(trained.model.read_bytes()), 3)
        outputs.append(np.asarray(call()[1]))  # type: ignore[index]
    np.testing.assert_array_equal(*outputs)
    assert len(outputs[0]) == 3


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_another_provider_than_the_one_asked_for_is_no_answer(trained: Any) -> None:
    with pytest.raises(RuntimeError, match="in place of NoSuchExecutionProvider"):
        timing.open_raw(trained.model.read_bytes(), provider="NoSuchExecutionProvider")


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from zoo.cli.benchmark import benchmark;"
        "benchmark(['--help'], standalone_mode=False);"
        "print(sorted({'torch', 'numpy', 'onnx', 'onnxruntime'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--provider" in done.stdout
    assert done.stdout.endswith("[]\n")
