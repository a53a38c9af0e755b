"""Standard streams that are closed, or that take nothing: the work is done all the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

Done = subprocess.CompletedProcess[str]
ALL = "<&- >&- 2>&-"
CLOSED = (">&-", "2>&-", "<&-", ALL)
FULL = Path("/dev/full").exists()


def typed(folder: Path, streams: str, *words: object) -> Done:
    """Run `zoo` in a folder by a shell that closes or redirects its streams."""
    command = ["sh", "-c", f'exec "$@" {streams}', "sh", sys.executable, "-m", "zoo"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    words = [str(word) for word in words]
    done = subprocess.run(
        [*command, *words], cwd=folder, env=env, capture_output=True, text=True, timeout=120
    )
    assert "Traceback" not in done.stderr
    return done


@pytest.mark.parametrize("streams", CLOSED)
def test_a_closed_stream_is_nowhere(tmp_path: Path, streams: str) -> None:
    done = typed(tmp_path, streams, "plugins")
    assert done.returncode == 0
    assert done.stderr == ""
    assert ("zoo.api" in done.stdout) == (streams in ("2>&-", "<&-"))
    wrong = typed(tmp_path, streams, "pluginz")
    assert wrong.returncode == 2
    assert wrong.stdout == ""
    assert ("No such command" in wrong.stderr) == (streams in (">&-", "<&-"))


# What a file opened in the place of a closed descriptor would show: the first that are opened.
PROBE = """
import json, os, subprocess, sys
from zoo.cli import open_missing_streams
open_missing_streams()
file = open(sys.argv[1], "w")
os.write(1, b"from below")
print("from above")
print("from above", file=sys.stderr)
code = "import os, sys; print([os.fstat(i).st_rdev for i in range(3)])"
heirs = subprocess.run([sys.executable, "-c", code + "; print('x')"], stdout=subprocess.PIPE)
known = [os.fstat(number).st_rdev for number in range(3)]
json.dump({"number": file.fileno(), "known": known, "heirs": heirs.returncode}, file)
"""


@pytest.mark.parametrize("streams", CLOSED)
def test_no_file_gets_the_place_of_a_closed_stream(tmp_path: Path, streams: str) -> None:
    command = ["sh", "-c", f'exec "$@" {streams}', "sh", sys.executable, "-c", PROBE]
    subprocess.run([*command, str(tmp_path / "file")], check=True, capture_output=True)
    found = json.loads((tmp_path / "file").read_text())
    assert found["number"] > 2
    assert found["heirs"] == 0
    null = Path(os.devnull).stat().st_rdev
    for number, word in ((0, "<&-"), (1, " >&-"), (2, "2>&-")):
        if word in f" {streams}":
            assert found["known"][number] == null


@pytest.mark.skipif(not FULL, reason="needs Linux's full device")
def test_an_answer_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    done = typed(tmp_path, ">/dev/full", "plugins")
    assert done.returncode == 1
    assert done.stderr == "Error: The answer cannot be written: No space left on device.\n"
    told = typed(tmp_path, "2>/dev/full", "plugins")
    assert told.returncode == 0
    assert "zoo.api" in told.stdout


def test_a_reader_that_has_seen_enough_is_told_nothing(tmp_path: Path) -> None:
    done = typed(tmp_path, "| true", "plugins")
    assert done.stderr == ""


def test_another_pipe_that_breaks_is_told(tmp_path: Path) -> None:
    source = """if True:
        from zoo import pipeline
        from zoo.cli import main

        def broken(*_, **__):
            raise BrokenPipeError(32, "Broken pipe")

        pipeline.runs = broken
        main()
    """
    command = [sys.executable, "-c", source, "runs"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (
        1,
        "",
        "Error: A pipe to another process is broken.\n",
    )


@pytest.mark.skipif(sys.platform != "linux", reason="limits are Linux's")
def test_torch_that_does_not_load_is_one_line(tmp_path: Path) -> None:
    command = 'ulimit -v 900000; exec "$@" -m zoo finetune --backbone mlp'
    done = subprocess.run(
        ["sh", "-c", command, "sh", sys.executable], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: A library cannot be loaded: ")
    assert line.endswith("Not enough memory: close other programs, or raise the limit.")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ImportError("libx.so: cannot open shared object file"), "cannot open shared object file."),
        (ModuleNotFoundError("No module named 'onnx'"), "No module named 'onnx'. Type: pip check"),
        (MemoryError(), "Out of memory. Not enough memory"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_library_that_does_not_load_is_one_line(
    error: Exception, said: str, cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **named: object) -> None:
        raise error

    monkeypatch.setattr("zoo.pipeline.runs", fail)
    result = cli("runs")
    assert result.exit_code == 1
    assert said in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.slow
def test_the_work_is_done_without_streams(tmp_path: Path, trained: Any) -> None:
    run = trained.finetuned.folder
    few = ("--widths", "4", "--features", "2", "--threads", "1", "--epochs", "1")
    for words, file in (
        (("evaluate", run), None),
        (("report", run, "-o", "page.html"), "page.html"),
        (("bundle", run, "-o", "bundle", "--no-web"), "bundle/model.onnx"),
        (("predict", trained.model, "bundle/golden/grey.png"), None),
        (("pretrain", "mlp", *few, "--devices", "2", "--device", "cpu"), None),
    ):
        done = typed(tmp_path, ALL, *words)
        assert done.returncode == 0, (words, done.stderr)
        assert file is None or (tmp_path / file).exists()
    records = [json.loads(path.read_text()) for path in tmp_path.glob("runs/*/run.json")]
    assert [record["status"] for record in records] == ["finished"] * 3
