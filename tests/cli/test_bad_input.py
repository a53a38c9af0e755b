"""Bad input: one clear message, the right exit status, no traceback, nothing half-written."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from zoo.runs import load

Cli = Callable[..., Any]
VAST = str(10**40)
QUICK = ("--epochs", "1", "--quiet")


def refused(result: Any, status: int, *words: str) -> None:
    """Assert one message on stderr, this exit status, nothing on stdout."""
    output = result.stderr
    assert (result.exit_code if hasattr(result, "exit_code") else result.returncode) == status, (
        output
    )
    assert "Traceback" not in output
    assert result.stdout == ""
    for word in words:
        assert word in output, output


def no_run(folder: Path) -> bool:
    return not list(folder.glob("runs/*"))


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("pretrian", "mlp"), ("No such command 'pretrian'", "Did you mean 'pretrain'?")),
        (("pretrain", "mpl"), ("Unknown backbone 'mpl'", "Did you mean 'mlp'?", "Installed: conv")),
        (("pretrain", "mlp", "--dataset", "mnits"), ("Unknown dataset", "Did you mean 'mnist'?")),
        (("pretrain", "mlp", "--objective", "noise"), ("Unknown objective 'noise'", "denoise")),
        (("finetune", "--backbone", "mlp", "--head", "lin"), ("Unknown head", "'linear'?")),
        (("run", "quick"), ("Unknown recipe 'quick'", "Did you mean 'quickstart'?")),
        (("list", "models"), ("Unknown kind 'models'", "dataset, backbone")),
        (("show", "backbone", "mlpp"), ("Unknown backbone 'mlpp'",)),
        (("pretrain", "mlp", "--lr", "fast"), ("'--lr'", "'fast' is not allowed", "a number")),
        (("pretrain", "mlp", "--lr", "-1"), ("'--lr'", "from 0")),
        (("pretrain", "mlp", "--lr", "nan"), ("'--lr'", "'nan' is not allowed")),
        (("pretrain", "mlp", "--epochs", "1.5"), ("'--epochs'", "a whole number")),
        (("pretrain", "mlp", "--batch-size", "0"), ("'--batch-size'", "from 1")),
        (("pretrain", "mlp", "--optimizer", "adamm"), ("Did you mean 'adam'?", "sgd, adam")),
        (("pretrain", "mlp", "--widths", "64,x"), ("'--widths'", "ints separated by commas")),
        (("pretrain", "mlp", "--widths", "64,0"), ("'--widths'", "from 1")),
        (("pretrain", "mlp", "--objective", "denoise", "-o", "noise=2"),
         ("objective 'denoise': noise", "up to 1")),
        (("pretrain", "mlp", "--objective", "denoise", "-o", "nose=0.2"),
         ("objective 'denoise': unknown option 'nose'", "Did you mean 'noise'?")),
        (("pretrain", "mlp", "--objective", "denoise", "-o", "noise"), ("is not key=value",)),
        (("pretrain", "mlp", "-o", "noise=0.2"), ("objective 'reconstruct'", "Options: none")),
        (("pretrain", "mlp", "--validation", "1.5"), ("neither a share below 1 nor",)),
        (("pretrain", "mlp", "--validation", "5000"), ("leaves no example", "1,437")),
        (("pretrain", "mlp", "--device", "cuda:99"), ("The device 'cuda:99' cannot be used",)),
        (("pretrain", "mlp", "--device", "gpu"), ("The device 'gpu'", "--device cpu")),
        (("pretrain", "mlp", "--threads", "100000"), ("'--threads'", "from 1 up to 4096, or none")),
        (("run", "quickstart", "--threads", VAST), ("'--threads'", "up to 4096")),
        (("bench", "labels", "--threads", "100000"), ("'--threads'", "1<=x<=4096")),
        (("benchmark", "x.onnx", "--threads", "100000"), ("'--threads'", "1<=x<=4096")),
        (("benchmark", "x.onnx", "--batch", f"1,{VAST}"), ("'--batch'", "ints from 1 to 1000000")),
        (("pretrain", "mlp", "--devices", VAST), ("'--devices'", "from 1 up to 1024")),
        (("pretrain", "mlp", "--devices", "1000"), ("devices: 1000", "too many here")),
        (("pretrain", "mlp", "--widths", VAST), ("'--widths'", "up to 9223372036854775807")),
        (("pretrain", "mlp", "--seed", VAST), ("'--seed'", "up to 9223372036854775807")),
        (("run", "quickstart", "--seeds", f"{VAST},1"), ("--seeds", "a count, or seeds")),
        (("finetune",), ("Name a pretraining", "--backbone NAME")),
        (("finetune", "latest", "--backbone", "mlp"), ("leave RUN or --backbone out",)),
        (("finetune", "latest", "-b", "widths=3"), ("-b goes with --backbone",)),
        (("finetune", "--backbone", "mlp", "-d", "path=x"), ("-d goes with --dataset",)),
        (("--plugin", "nowhere.py", "list"), ("Plugin file 'nowhere.py' does not exist",)),
        (("export", "latest", "--opset", "17"), ("'17' is not allowed. Allowed: one of: 18",)),
        (("run", "quickstart", "--seeds", "a"), ("--seeds", "a count, or seeds")),
        (("run", "quickstart", "--seeds", "1,1"), ("each once",)),
    ],
)  # fmt: skip
def test_wrong_names_and_options(
    cli: Cli, tmp_path: Path, args: tuple[str, ...], words: Any
) -> None:
    refused(cli(*args), 2, *words)
    assert no_run(tmp_path)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("pretrain", "conv", "--channels", "8,8,8,8,8", *QUICK),
         ("backbone 'conv'", "5 stages halve 1×8×8 below one pixel", "at most 3 fit")),
        (("pretrain", "conv", "--channels", "", *QUICK), ("channels is empty",)),
        (("finetune", "--backbone", "mlp", "--labels", "9", *QUICK),
         ("9 cannot cover 10 classes", "--labels 10")),
        (("finetune", "--backbone", "mlp", "--labels", "9000", *QUICK),
         ("9,000 are asked for", "--labels 1293")),
        (("finetune", "latest", *QUICK), ("There is no finished pretraining under 'runs'",)),
        (("evaluate", "latest"), ("There is no finished finetuning under 'runs'", "zoo runs")),
        (("evaluate", "nowhere"), ("There is no run 'nowhere' under 'runs'",)),
        (("export", "latest"), ("There is no finished finetuning",)),
    ],
)  # fmt: skip
def test_what_does_not_go_together_or_is_not_there(
    cli: Cli, tmp_path: Path, args: tuple[str, ...], words: Any
) -> None:
    result = cli(*args)
    refused(result, 1, *words)
    assert no_run(tmp_path)
    assert "zoo resume" not in result.stderr


@pytest.mark.parametrize("length", [251, 300])
def test_a_name_that_is_too_long_is_told_first(cli: Cli, trained_once: Any, length: int) -> None:
    """That of the proof beside a file, too, which is longer than the file's."""
    runs, folder = ("--runs", trained_once.runs), trained_once.finetuned.folder
    words = [("export", folder, "-o", "a" * (length - 5) + ".onnx")]
    if length > 255:
        words += [("report", folder, "-o", "a" * (length - 5) + ".html")]
        words += [("bundle", folder, "-o", "a" * length, "--no-web")]
    for command in words:
        result = cli(*command, *runs)
        refused(result, 2, "a name may have 255 here", "Type a shorter one")
        assert "exporting" not in result.stderr
        assert "drawing" not in result.stderr


def test_an_option_of_the_data_set_that_a_run_brings(cli: Cli, trained_once: Any) -> None:
    command = ("finetune", trained_once.pretrained.folder, "--runs", trained_once.runs)
    result = cli(*command, "-d", "size=64")
    words = f"{trained_once.pretrained.folder} --dataset digits -d size=64"
    refused(result, 2, "-d goes with --dataset NAME", "taken as it was", words)


PLUGIN = """
import dataclasses
from zoo.api import *

def encoder_only(config, input):
    from torch import nn
    class Model(nn.Module):
        features = 4
        decoder = None
        def __init__(self):
            super().__init__()
            self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    if input.height != 8:
        raise Unfit(f"it takes 8×8 images, not {input}. Type: --dataset digits")
    return Model()

def picky_head(config, features, classes):
    raise Unfit(f"it needs 128 features, not {features}. Type: --features 128")

@hookimpl
def zoo_backbones():
    yield BackboneSpec(name="only-encoder", summary="", build=encoder_only)

@hookimpl
def zoo_heads():
    yield HeadSpec(name="picky", summary="", build=picky_head)
"""


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("pretrain", "only-encoder"),
         ("objective 'reconstruct' needs a decoder", "Objectives without that need")),
        (("finetune", "--backbone", "only-encoder", "--head", "picky"),
         ("head 'picky': it needs 128 features, not 4",)),
        (("finetune", "--backbone", "only-encoder", "--dataset", "mnist"),
         ("backbone 'only-encoder': it takes 8×8 images, not 1×28×28",)),
    ],
)  # fmt: skip
def test_parts_that_do_not_fit_are_told_before_data_is_loaded(
    cli: Cli, tmp_path: Path, args: tuple[str, ...], words: Any
) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN)
    refused(cli("--plugin", "mine.py", *args), 1, *words)
    assert no_run(tmp_path)


# --- run folders ----------------------------------------------------------------------------


def test_a_foreign_folder_is_no_run(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "holiday").mkdir()
    refused(cli("evaluate", "holiday"), 1, "'holiday' is not a run folder", "run.json")


def test_a_pretraining_cannot_be_evaluated(cli: Cli, trained: Any) -> None:
    refused(cli("evaluate", trained.pretrained.name), 1, "pretraining; needed is a finished fine")


def test_an_unfinished_run_is_refused(cli: Cli, trained: Any) -> None:
    path = trained.finetuned.folder / "run.json"
    path.write_text(path.read_text().replace('"status": "finished"', '"status": "running"'))
    refused(cli("export", trained.finetuned.name), 1, "is a dead finetuning")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"schema": 1}', "\x00\xff"])
def test_a_corrupt_record_is_named(cli: Cli, trained: Any, text: str) -> None:
    (trained.finetuned.folder / "run.json").write_text(text)
    refused(cli("evaluate", trained.finetuned.name), 1, "run.json' is corrupt")
    listed = cli("runs")
    assert listed.exit_code == 0
    assert "is corrupt" in listed.stderr
    assert trained.pretrained.name in listed.stdout


@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing"])
def test_corrupt_weights_are_named(cli: Cli, trained: Any, damage: str) -> None:
    path = trained.finetuned.folder / "weights.safetensors"
    data = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(data[:-7])
    else:
        data[-1] ^= 1
        path.write_bytes(data)
    refused(cli("evaluate", trained.finetuned.name), 1, "weights.safetensors' is ")
    refused(cli("export", trained.finetuned.name, "-o", "m.onnx"), 1, "weights.safetensors' is ")
    assert not Path("m.onnx").exists()


def test_a_run_of_a_plugin_that_is_gone_says_whose_it_was(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN)
    args = ("finetune", "--backbone", "only-encoder", *QUICK)
    assert cli("--plugin", "mine.py", *args).exit_code == 0
    refused(cli("evaluate", "latest"), 2, "Unknown backbone 'only-encoder'", "plugin file:mine")


def test_a_file_is_no_run(cli: Cli, trained: Any) -> None:
    refused(cli("export", trained.model), 1, "is a file; a run is named by its", "zoo validate")


# --- pictures and outputs; tests/cli/test_bad_models.py has the model files ------------------


@pytest.mark.parametrize("kind", ["missing", "text", "empty", "truncated", "folder"])
def test_unreadable_pictures(cli: Cli, trained: Any, kind: str) -> None:
    good, bad = Path("good.png"), Path("bad.png")
    Image.effect_noise((60, 60), 80).save(good)
    words = "'bad.png' is no readable picture"
    status = 2 if kind in ("missing", "folder") else 1
    if kind == "missing":
        words = "There is no picture 'bad.png'"
    elif kind == "folder":
        bad.mkdir()
        words = "'bad.png' is a folder"
    else:
        data = {"text": b"hello", "empty": b"", "truncated": good.read_bytes()[:900]}[kind]
        bad.write_bytes(data)
    refused(cli("predict", trained.model, good, bad), status, words)


def test_an_output_that_cannot_be(cli: Cli, trained: Any, tmp_path: Path) -> None:
    name = trained.finetuned.name
    refused(cli("export", name, "-o", "no/such/m.onnx"), 2, "'no/such' does not exist", "mkdir -p")
    refused(cli("export", name, "-o", tmp_path), 2, "is a folder; name a file")


# --- the world outside ----------------------------------------------------------------------


def test_an_absent_set_without_a_network_says_what_to_do(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from urllib.error import URLError

    import torchvision.datasets.utils as theirs

    def offline(*args: object, **kwargs: object) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr(theirs, "_get_redirect_url", offline)
    root = tmp_path / "data"
    result = cli("pretrain", "mlp", "--dataset", "kmnist", "--data-root", root, "--quiet")
    refused(
        result,
        1,
        f"kmnist is not under '{root}' and could not be fetched",
        "KMNIST/raw/train-images-idx3-ubyte",
        f"KMNIST('{root}', download=True)",
        "--data-root or ZOO_DATA",
    )
    assert [path.name for path in root.iterdir()] == [".kmnist.lock"]
    assert load(next((tmp_path / "runs").iterdir())).state == "failed"


def test_a_runs_folder_that_cannot_be_made(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = cli("pretrain", "mlp", "--runs", tmp_path / "file" / "runs", *QUICK)
    refused(result, 1, "Not a directory")


LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write beyond the limit fails, as on a full disk
from zoo.cli import main
import zoo.pipeline.{module}
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
sys.argv = ["zoo", *sys.argv[1:]]
main()
"""


def limited(tmp_path: Path, module: str, limit: int, *args: object) -> Any:
    code = LIMITED.format(module=module, limit=limit)
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, args)], cwd=tmp_path, capture_output=True, text=True
    )


@pytest.mark.slow
def test_a_disk_that_fills_while_training(tmp_path: Path) -> None:
    result = limited(tmp_path, "pretraining", 40_000, "pretrain", "mlp", *QUICK)
    refused(result, 1, "Error: File too large", "weights.safetensors'")
    folder = next((tmp_path / "runs").iterdir())
    left = {"run.json", "metrics.jsonl", "examples.safetensors", ".lock"}
    assert {p.name for p in folder.iterdir()} <= left
    assert load(folder).state == "failed"


@pytest.mark.slow
def test_a_disk_that_fills_while_exporting(trained: Any, tmp_path: Path) -> None:
    name = trained.finetuned.name
    result = limited(tmp_path, "exporting", 12_000, "export", name, "-o", "m.onnx", "--quiet")
    refused(result, 1, "Error: File too large")
    assert not [p.name for p in tmp_path.iterdir() if "onnx" in p.name or "proof" in p.name]


@pytest.mark.slow
def test_a_read_only_folder_is_told_in_one_line(trained: Any, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "zoo", "export", trained.finetuned.name, "--quiet"]
    if os.geteuid() == 0:  # whom permissions do not bind, until that power is taken away
        if shutil.which("setpriv") is None:
            pytest.skip("root may write anywhere, and there is no setpriv to forbid it")
        powers = "-dac_override,-dac_read_search"
        command = ["setpriv", f"--bounding-set={powers}", f"--inh-caps={powers}", *command]
    trained.finetuned.folder.chmod(0o555)
    try:
        result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    finally:
        trained.finetuned.folder.chmod(0o755)
    refused(result, 2, "cannot be written to")


@pytest.mark.parametrize("moment", [pytest.param("start", marks=pytest.mark.slow), "training"])
def test_ctrl_c_is_one_line_and_130(tmp_path: Path, moment: str) -> None:
    command = [sys.executable, "-m", "zoo", "pretrain", "mlp", "--epochs", "100000"]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background jobs ignore Ctrl-C; a person's command does not.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    wanted = "runs/*/metrics.jsonl" if moment == "training" else "runs/*/run.json"
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(wanted)) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    # As a shell reports it: Python ends by the signal itself where Ctrl-C falls into an exec of a
    # text, as dataclasses do on import, whatever the exit status that was asked for.
    code = process.returncode
    assert (128 - code if code < 0 else code) == 130, stderr
    assert "Traceback" not in stderr
    assert stdout == ""
    run = load(next((tmp_path / "runs").iterdir()))
    assert run.state == "interrupted"
    following = f"Go on with: zoo resume {run.folder.relative_to(tmp_path)}"
    said = stderr.splitlines()
    assert said[-1] == following
    # Between the two it says which plugin was at work, where one was.
    assert "Interrupted." in said[-3:]
    assert str(run.folder.relative_to(tmp_path)) in stderr
    assert not list(run.folder.glob("*.partial"))


def test_json_is_the_only_thing_on_stdout(cli: Cli, tmp_path: Path) -> None:
    result = cli("pretrain", "mlp", "--epochs", "1", "--json")
    assert json.loads(result.stdout)["kind"] == "pretrain"
    assert "pretraining mlp on digits" in result.stderr
    assert cli("pretrain", "mlp", *QUICK).stderr == ""
