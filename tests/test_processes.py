"""One training in several processes: the same curve, one run, one voice; it ends as one."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import json
import os
import random
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from zoo import api, pipeline, runs
from zoo.api import Component, TrainConfig
from zoo.pipeline import Workspace
from zoo.runs import Run

from .forked import Forked

Cli = Callable[..., Any]
Process = subprocess.Popen[str] | Forked
PIPES: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}

TWO = ("--devices", "2", "--device", "cpu", "--threads", "1")
# 1,293 examples to train on: 13 batches an epoch, the last one of 93, which two do not share
# evenly, and alone in its step.
FOLLOWED = TrainConfig(
    epochs=3,
    batch_size=100,
    accumulate=2,
    lr=3e-3,
    ema=0.9,
    shift=1,
    flip=True,
    threads=1,
    device="cpu",
)
AS_TYPED = (
    "--epochs", "3", "--batch-size", "100", "--accumulate", "2", "--lr", "0.003", "--ema", "0.9",
    "--shift", "1", "--flip",
)  # fmt: skip
WARNING = (
    "batch normalization sees each process's own examples on a cpu:"
    " the loss differs a little from that of one process"
)


# --- commands of several processes ----------------------------------------------------------


pytestmark = pytest.mark.begun_first  # what they all ask about takes two minutes to make


@pytest.fixture(scope="module", autouse=True)
def _pythons_own_handler() -> Iterator[None]:
    """What Ctrl-C means in a program, whatever it means to those who run the tests."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def begin(folder: Path, *args: object, before: tuple[str, ...] = (), **env: str) -> Process:
    """Type a command, whose processes are a group of their own."""
    given = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "1000", **env}
    if not before:
        return Forked(args, cwd=folder, env=given, start_new_session=True, **PIPES)
    return subprocess.Popen(
        [*before, *map(str, args)],
        cwd=folder,
        env=given,
        text=True,
        start_new_session=True,
        **PIPES,
    )


@dataclasses.dataclass(frozen=True)
class Ended:
    """What a command left when all its processes had ended."""

    status: int
    stdout: str
    stderr: str

    @property
    def said(self) -> list[str]:
        """The lines on stderr, without the blank one that closes the ^C which a terminal shows."""
        return [line for line in self.stderr.splitlines() if line]

    @property
    def next(self) -> list[str]:
        """The arguments of the command that is said to go on."""
        [line] = [line for line in self.said if line.startswith("Go on with: zoo ")]
        return shlex.split(line)[4:]


def ended(process: Process, seconds: float = 300) -> Ended:
    """Wait for every process of a command: all hold its streams. Those that hang are killed."""
    try:
        stdout, stderr = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        stdout, stderr = process.communicate()
        pytest.fail(f"it hangs, after it said:\n{stderr}")
    return Ended(process.returncode, stdout, stderr)


def done(found: Ended) -> Ended:
    assert found.status == 0, found.stderr
    assert "Traceback" not in found.stderr
    return found


def zoo_of_two(folder: Path, *args: object, **env: str) -> Ended:
    return ended(begin(folder, *args, *TWO, **env))


def the_run(root: Path, kind: str = "") -> Run:
    """The only run, or the only one of a kind: none is another process's."""
    [found] = [run for run in runs.every(root)[0] if run.record.kind.startswith(kind)]
    return found


def one_message(found: Ended, status: int, *words: str) -> None:
    """Assert that one of the processes tells what is wrong, and no other says a thing."""
    assert len([line for line in found.said if line.startswith("Error: ")]) == 1, found.stderr
    assert "Traceback" not in found.stderr, found.stderr
    assert (found.status, found.stdout) == (status, "")
    for word in words:
        assert word in found.stderr


# --- what is typed: what a command leaves is looked at in several tests ----------------------

CASES = {
    "even": ([8], False),
    "uneven": ([7], False),
    "several batches": ([7, 7, 5], False),
    "own rows, even": ([8], True),
    "own rows, uneven": ([7], True),
    "own rows, several batches": ([7, 7, 5], True),
}

GATHER = '''
import json, sys
import torch
from torch import nn
from zoo.api import Losses, TrainConfig, gather
from zoo.data import Batches
from zoo.training import fit, placed, whole

WEIGHT = torch.tensor([[0.3, -0.2], [0.1, 0.5], [-0.4, 0.2]])

class Pairs(nn.Module):
    """A loss over all pairs of rows, or over this process's `own` rows with all there are."""
    def __init__(self, own):
        super().__init__()
        self.weight, self.own = nn.Parameter(WEIGHT.clone()), own
    def forward(self, inputs, marks):
        rows = torch.tanh(inputs @ self.weight)
        every, all_marks = gather(rows), gather(marks)
        mine, my_marks = (rows, marks) if self.own else (every, all_marks)
        like = (my_marks[:, None] == all_marks[None]).double()
        loss = (like * torch.cdist(mine, every).square() + (mine @ every.T).exp()).mean()
        return Losses(loss, rows=torch.tensor(float(len(every))))

cases, strategy, path = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3]
torch.set_default_dtype(torch.float64)
WEIGHT = WEIGHT.double()
found = {}
config = TrainConfig(devices=2, strategy=strategy, device="cpu")
with placed(config, torch.device("cpu")) as place:
    for name, (sizes, own) in cases.items():
        count, size = sum(sizes), sizes[0]
        inputs = torch.randn(count, 3, generator=torch.Generator().manual_seed(1))
        marks = torch.arange(count) % 3
        module = Pairs(own)
        training = TrainConfig(
            epochs=1, batch_size=size, accumulate=len(sizes), optimizer="sgd", momentum=0.0,
            lr=1.0, weight_decay=0.0, schedule="constant", strategy=strategy, devices=2,
        )
        batches = Batches((inputs, marks), size, least=4)
        assert batches.sizes == sizes
        [epoch] = fit(module, batches, training, place=place)
        after = whole(module.state_dict())["weight"].detach()
        found[name] = {"gradient": WEIGHT - after, "total": epoch.train["total"]}
    own = torch.arange(3.0 + place.rank) + 10 * place.rank
    own.requires_grad_()
    every = gather(own)
    every.square().sum().backward()
    each = place.each(own.grad.sum())
    few = gather(torch.ones(place.rank, 2, dtype=torch.int64))  # none in the first process
    found["rows"] = {
        "every": torch.stack(place.each(every.detach())),
        "few": few,
        "gradients": torch.stack(each),
    }
    if place.main:
        torch.save(found, path)
'''

EXCHANGES = """
import torch
from torch import nn
from zoo.api import Losses, TrainConfig
from zoo.data import Batches
from zoo.training import fit, placed

class Squares(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 1)
    def forward(self, inputs):
        return Losses(self.linear(inputs).square().mean())

def counted(place):
    made, wrap = [], place.wrap
    def hook(state, bucket):
        made.append(bucket.buffer())
        summed = torch.distributed.all_reduce(bucket.buffer().div_(2), async_op=True)
        return summed.get_future().then(lambda future: future.value()[0])
    def wrapped(module):
        result = wrap(module)
        [parallel] = [
            each for each in result.modules()
            if isinstance(each, nn.parallel.DistributedDataParallel)
        ]
        parallel.register_comm_hook(None, hook)
        return result
    place.wrap = wrapped
    return made

config = TrainConfig(epochs=3, batch_size=4, accumulate=4, devices=2, device="cpu")
with placed(config, torch.device("cpu")) as place:
    made = counted(place)
    fit(Squares(), Batches((torch.randn(32, 3),), 4), config, place=place)
    if place.main:
        print(len(made))
"""

ALONE = """
import sys
from zoo.cli import main
try:
    main()
finally:
    print(sorted({name.partition(".")[0] for name in sys.modules if "lightning" in name}))
"""

AGAIN = """
import sys
from zoo import pipeline
from zoo.api import Component, TrainConfig
from zoo.errors import ZooError

def tried(**options):
    training = TrainConfig(epochs=1, device="cpu", **options)
    try:
        run = pipeline.pretrain("mlp", training=training)
    except ZooError as error:
        print(type(error).__name__, error)
    else:
        print(run.record.training["devices"])

tried(devices=2)
tried(devices=2)
tried(devices=1)
tried(devices=2, lr=1e30, schedule="constant", optimizer="sgd")
tried(devices=2)
"""

PLUGIN = """
import os, time
from pathlib import Path
from zoo.api import *

HERE = Path(__file__).parent

def number(name):
    return int((HERE / name).read_text()) if (HERE / name).exists() else 0

def rank():
    return os.environ.get("LOCAL_RANK", "0")

if rank() == "1" and number("early"):
    raise RuntimeError("no such library on this machine")

if rank() == "1" and number("late"):
    (HERE / "late").unlink()
    while True:
        time.sleep(0.01)

def objective(config, backbone):
    import torch
    from torch import nn
    class Eventful(nn.Module):
        calls = 0
        def forward(self, backbone, inputs, raw):
            self.calls += self.training
            if self.training and self.calls == number("wait"):
                (HERE / f"pid{rank()}.partial").write_text(str(os.getpid()))
                (HERE / f"pid{rank()}.partial").rename(HERE / f"pid{rank()}")
                while not (HERE / "go").exists():
                    time.sleep(0.01)
            if self.training and self.calls == number(f"break{rank()}"):
                raise RuntimeError("broken on purpose")
            noisy = inputs + torch.randn_like(inputs)
            loss = (backbone.decoder(backbone.encoder(noisy)) - inputs).square().mean()
            return Losses(loss, half=loss / 2)
    return Eventful()

@hookimpl
def zoo_objectives():
    yield ObjectiveSpec(name="eventful", summary="", build=objective, needs_decoder=True)
"""

# 41 batches an epoch, two of them a step, the last one alone: 21 steps, 252 in all.
EVENTFUL = (
    "--plugin", "mine.py", "pretrain", "mlp", "--widths", "32", "--features", "8", "--dropout",
    "0.1", "--norm", "--objective", "eventful", "--epochs", "12", "--batch-size", "32",
    "--accumulate", "2", "--lr", "0.01", "--ema", "0.9", "--keep", "best", "--patience", "10",
    "--shift", "1", "--checkpoint-steps", "1",
)  # fmt: skip


def tell(folder: Path, **numbers: int) -> None:
    """Say in which call what happens: `tell(folder, wait=3)`; 0 takes it back."""
    (folder / "mine.py").write_text(PLUGIN)
    for name, value in numbers.items():
        (folder / name).unlink(missing_ok=True)
        if value:
            (folder / name).write_text(str(value))


@dataclasses.dataclass(frozen=True)
class Typed:
    """A command that nothing disturbs, and what lies in its folder."""

    words: tuple[str, ...]
    before: tuple[str, ...] = ()
    env: Mapping[str, str] = dataclasses.field(default_factory=dict)
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)


def torchrun(*options: str) -> tuple[str, ...]:
    zoo = Path(sysconfig.get_path("scripts")) / "zoo"
    return (sys.executable, "-m", "torch.distributed.run", *options, "--no-python", str(zoo))


def script(name: str, text: str, *arguments: str) -> Typed:
    return Typed((), before=(sys.executable, name, *arguments), files={name: text})


def broken(**calls: int) -> Typed:
    files = {name: str(call) for name, call in calls.items()}
    return Typed((*EVENTFUL, "--quiet", *TWO), files={"mine.py": PLUGIN, **files})


PRETRAIN = ("pretrain", "mlp", *TWO)
BRIEF = (*PRETRAIN, "--epochs", "1", "--quiet")
SMALL_CONV = ("pretrain", "conv", "--channels", "4,8", "--features", "8", *TWO, *AS_TYPED)
DIVERGING = (
    "--output", "linear", "--lr", "1e30", "--optimizer", "sgd", "--schedule", "constant", "--quiet",
)  # fmt: skip
# A batch job of Slurm with one task.
JOB = {"JOB_ID": "7", "JOB_NAME": "train", "NTASKS": "1", "NTASKS_PER_NODE": "1", "NODEID": "0"}
JOB |= {"PROCID": "0", "LOCALID": "0", "NODELIST": "localhost"}

COMMANDS = {
    "ddp": Typed((*EVENTFUL, *TWO), files={"mine.py": PLUGIN}),
    "fsdp": Typed((*EVENTFUL, *TWO, "--strategy", "fsdp"), files={"mine.py": PLUGIN}),
    "shards": Typed((
        *PRETRAIN, *AS_TYPED, "--epochs", "5", "--lr", "0.02", "--keep", "best", "--clip-norm",
        "0.05", "--strategy", "fsdp", "--log", "tensorboard", "--json",
    )),
    "shards of a conv": Typed((*SMALL_CONV, "--epochs", "1", "--strategy", "fsdp")),
    "conv": Typed(SMALL_CONV),
    "gather shards": script("gathering.py", GATHER, json.dumps(CASES), "fsdp", "found.pt"),
    "exchanges": script("exchanges.py", EXCHANGES),
    "torchrun": Typed(
        ("pretrain", "mlp", *AS_TYPED, "--device", "cpu", "--threads", "1"),
        before=torchrun("--standalone", "--nproc-per-node", "2"),
    ),
    "job": Typed(BRIEF, env={f"SLURM_{name}": value for name, value in JOB.items()}),
    "diverging": Typed((*PRETRAIN, *DIVERGING)),
    "all held out": Typed((*BRIEF, "--validation", "5000")),
    "no place for runs": Typed((*BRIEF, "--runs", "file/runs"), files={"file": ""}),
    "batch of one": Typed((*BRIEF, "--batch-size", "1", "--validation", "1400")),
    "validation of one": Typed((*BRIEF, "--validation", "1")),
    "broken in both": broken(break0=30, break1=30),
    "broken in the other": broken(break1=30),
    "broken before it began": broken(early=1),
    "no data": Typed((*BRIEF, "--dataset", "folder", "-d", "path=nowhere")),
    "begun again": script("again.py", AGAIN),
    "alone": Typed(
        ("pretrain", "mlp", "--epochs", "1", "--quiet", "--devices", "1"),
        before=(sys.executable, "-c", ALONE),
    ),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Left:
    """A command that has ended, and the folder that it was typed in."""

    folder: Path
    ended: Ended

    @property
    def run(self) -> Run:
        return the_run(self.folder / "runs")


def type_all(folder: Path) -> None:
    """Type every command, each in a folder of its own; `ended.json` says how they ended.

    Two at a time: while processes start, all but one wait.
    """

    def type_it(name: str) -> tuple[int, str, str]:
        typed, place = COMMANDS[name], folder / name
        place.mkdir()
        for file, text in typed.files.items():
            (place / file).write_text(text)
        found = ended(begin(place, *typed.words, before=typed.before, **typed.env))
        return found.status, found.stdout, found.stderr

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        made = dict(zip(COMMANDS, pool.map(type_it, COMMANDS), strict=True))
    (folder / "ended.json").write_text(json.dumps(made))


@pytest.fixture(scope="module")
def left(made_once: Callable[..., Path]) -> Callable[[str], Left]:
    """Return what a command left: `left("conv")`."""
    folder = made_once(type_all)
    made = json.loads((folder / "ended.json").read_text())
    return lambda name: Left(folder / name, Ended(*made[name]))


# --- the same curve -------------------------------------------------------------------------


def follows(found: Run, reference: Run) -> None:
    """Assert that a run is another one but for rounding."""
    assert found.state == "finished"
    lines, expected = found.metrics(), reference.metrics()
    assert [line["epoch"] for line in lines] == [line["epoch"] for line in expected]
    for line, other in zip(lines, expected, strict=True):
        assert line["lr"] == other["lr"]
        for split in ("train", "validation"):
            for name, figure in line[split].items():
                # Each process takes a logarithm of its own share of a batch.
                rel = 1e-3 if name == "psnr" else 1e-5
                assert figure == pytest.approx(other[split][name], rel=rel), (split, name)
            assert split == "validation" or line[split].keys() == other[split].keys()
    tensors = load_file(found.folder / "weights.safetensors")
    wanted = load_file(reference.folder / "weights.safetensors")
    assert tensors.keys() == wanted.keys()
    for name, tensor in tensors.items():
        assert torch.allclose(tensor, wanted[name], rtol=0, atol=1e-5), name


@dataclasses.dataclass(frozen=True)
class Pair:
    """One training in one process, and in two, whose command left this."""

    one: Run
    two: Run
    left: Ended


def train_both(folder: Path) -> None:
    two = done(zoo_of_two(folder, "pretrain", "mlp", *AS_TYPED, "--json"))
    pipeline.pretrain("mlp", training=FOLLOWED, workspace=Workspace(runs=folder / "one"))
    (folder / "ended.json").write_text(json.dumps((two.status, two.stdout, two.stderr)))


@pytest.fixture(scope="module")
def pair(made_once: Callable[..., Path]) -> Pair:
    folder = made_once(train_both)
    found = Ended(*json.loads((folder / "ended.json").read_text()))
    return Pair(the_run(folder / "one"), the_run(folder / "runs"), found)


@pytest.mark.slow
def test_two_processes_follow_the_curve_of_one(pair: Pair) -> None:
    follows(pair.two, pair.one)
    assert len(pair.one.metrics()) == 3
    rate = {"examples_per_second": None}
    one = pair.one.record.metrics.keys() - {"probe_examples"}  # no probe in several processes
    assert (pair.two.record.metrics | rate).keys() == one | rate.keys()
    counts = ("train_examples", "validation_examples")
    assert [pair.two.record.metrics[name] for name in counts] == [1293, 144]


@pytest.mark.slow
def test_two_processes_make_one_run(pair: Pair) -> None:
    assert [path.name for path in pair.two.folder.parent.iterdir()] == [pair.two.name]
    assert sorted(path.name for path in pair.two.folder.iterdir()) == [
        ".lock", "examples.safetensors", "metrics.jsonl", "run.json", "weights.safetensors",
    ]  # fmt: skip
    lines = (pair.two.folder / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3]
    pair.two.load_weights()
    assert pair.two.record.training["devices"] == 2
    assert pair.two.record.data == pair.one.record.data  # the main one alone wrote it down


@pytest.mark.slow
def test_two_processes_speak_with_one_voice(pair: Pair) -> None:
    printed = json.loads(pair.left.stdout)  # one object, and nothing after it
    assert printed["run"] == pair.two.name
    assert printed["weights_sha256"] == pair.two.record.weights_sha256
    said = pair.left.said
    assert said[0] == "1,437 examples of digits, labels unused"
    assert len([line for line in said if "100%" in line]) == 1
    assert all(line.startswith("pretraining mlp on digits ") for line in said[1:])


@pytest.mark.slow
def test_shards_follow_the_curve_too(left: Callable[[str], Left], tmp_path: Path) -> None:
    training = dataclasses.replace(FOLLOWED, keep="best", clip_norm=0.05, lr=0.02, epochs=5)
    unclipped = dataclasses.replace(training, clip_norm=None)
    one, other = (
        pipeline.pretrain("mlp", training=each, workspace=Workspace(runs=tmp_path / name))
        for name, each in (("one", training), ("unclipped", unclipped))
    )
    assert one.record.weights_sha256 != other.record.weights_sha256
    found = left("shards")
    follows(found.run, one)
    assert json.loads(done(found.ended).stdout)["run"] == found.run.name
    training_of_two = found.run.record.training
    assert (training_of_two["strategy"], training_of_two["devices"]) == ("fsdp", 2)
    assert len(list((found.run.folder / "tensorboard").iterdir())) == 1  # one process tells it


@pytest.mark.slow
def test_shards_of_a_model_with_running_statistics(left: Callable[[str], Left]) -> None:
    """They are not cut into shards, and are averaged with the weights that are."""
    found = left("shards of a conv")
    done(found.ended)
    [line] = found.run.metrics()
    assert 0 < line["train"]["total"] < 1.5
    assert 0 < line["validation"]["total"] < 1.5


@pytest.mark.slow
def test_gradients_are_exchanged_once_a_step(left: Callable[[str], Left]) -> None:
    """Not for each batch that is accumulated: two steps an epoch, of four batches each."""
    assert done(left("exchanges").ended).stdout == "6\n"


# --- gather: rows that are compared with each other -----------------------------------------


def pairs_in_one_process(sizes: list[int]) -> tuple[float, Tensor]:
    """The mean over batches of the loss over all pairs of a batch, and its gradient."""
    weight = torch.tensor([[0.3, -0.2], [0.1, 0.5], [-0.4, 0.2]]).double().requires_grad_()
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(sum(sizes), 3, generator=generator, dtype=torch.float64)
    marks = torch.arange(sum(sizes)) % 3
    total = torch.zeros((), dtype=torch.float64)
    for batch, signs in zip(inputs.split(sizes), marks.split(sizes), strict=True):
        rows = torch.tanh(batch @ weight)
        for row, mark in zip(rows, signs, strict=True):
            for other, sign in zip(rows, signs, strict=True):
                term = (row * other).sum().exp()
                if mark == sign:
                    term = term + (row - other).square().sum()
                total = total + term / len(batch) ** 2 * len(batch) / sum(sizes)
    return total.item(), torch.autograd.grad(total, weight)[0]


def compared_as_in_one_process(found: dict[str, dict[str, Any]]) -> None:
    for name, (sizes, _) in CASES.items():
        total, gradient = pairs_in_one_process(sizes)
        assert found[name]["total"] == pytest.approx(total, rel=1e-6), name
        assert torch.allclose(found[name]["gradient"], gradient, rtol=0, atol=1e-6), name
        assert gradient.abs().min() > 1e-3
    rows = found["rows"]
    assert rows["every"].tolist() == [[0, 1, 2, 10, 11, 12, 13]] * 2  # alike in both
    assert rows["few"].tolist() == [[1, 1]]
    # Both processes made the sum of all squares: twice the gradient in each, to be averaged.
    assert rows["gradients"].tolist() == [2 * 2 * (0 + 1 + 2), 2 * 2 * (10 + 11 + 12 + 13)]


@pytest.mark.slow
def test_gather_compares_the_rows_of_two_processes_as_one_would(tmp_path: Path) -> None:
    command = (sys.executable, "gathering.py", json.dumps(CASES), "ddp", "found.pt")
    (tmp_path / "gathering.py").write_text(GATHER)
    done(ended(begin(tmp_path, before=command)))
    compared_as_in_one_process(torch.load(tmp_path / "found.pt"))


@pytest.mark.slow
def test_gather_compares_the_rows_of_shards_as_one_process_would(
    left: Callable[[str], Left],
) -> None:
    found = left("gather shards")
    done(found.ended)
    compared_as_in_one_process(torch.load(found.folder / "found.pt"))


def test_gather_returns_its_argument_in_one_process() -> None:
    rows = torch.randn(3, 2, requires_grad=True)
    assert api.gather(rows) is rows
    whole_numbers = torch.arange(4)
    assert api.gather(whole_numbers) is whole_numbers


# --- started from outside -------------------------------------------------------------------


@pytest.mark.slow
def test_under_torchrun_there_are_as_many_processes_as_it_says(
    pair: Pair, left: Callable[[str], Left]
) -> None:
    """Without --devices; the weights are, to the bit, those of the processes that zoo starts."""
    found = left("torchrun")
    done(found.ended)
    follows(found.run, pair.one)
    assert found.run.record.weights_sha256 == pair.two.record.weights_sha256
    first, second = found.ended.stdout.splitlines()
    assert first.startswith(f"runs/{found.run.name}  validation loss ")
    assert second.startswith(f"Next: zoo finetune runs/{found.run.name} ")


@pytest.mark.slow
def test_two_machines_train_one_model(pair: Pair, tmp_path: Path) -> None:
    """Each with a folder of its own: the first one's holds the run."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    before = torchrun(
        "--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d",
        "--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-id", "plugzoo", "--local-addr", "127.0.0.1",
    )  # fmt: skip
    command = ("pretrain", "mlp", *AS_TYPED, "--device", "cpu", "--threads", "1", "--json")
    machines = [tmp_path / "first", tmp_path / "second"]
    for machine in machines:
        machine.mkdir()
    processes = [begin(machine, *command, before=before) for machine in machines]
    left = [done(ended(process)) for process in processes]
    [run] = [run for machine in machines for run in runs.every(machine / "runs")[0]]
    follows(run, pair.one)
    assert run.record.weights_sha256 == pair.two.record.weights_sha256
    [printed] = [each.stdout for each in left if each.stdout]
    assert json.loads(printed)["run"] == run.name


@pytest.mark.slow
def test_a_job_of_one_task_starts_its_processes_or_says_why_not(
    left: Callable[[str], Left],
) -> None:
    """Slurm counts tasks, not processes."""
    found = left("job")
    if found.ended.status:
        one_message(found.ended, 2, "SLURM")
    else:
        assert found.run.record.training["devices"] == 2


# --- what is said ---------------------------------------------------------------------------


@pytest.mark.slow
def test_batch_statistics_of_each_process_are_told_once(
    pair: Pair, left: Callable[[str], Left], tmp_path: Path
) -> None:
    found = left("conv")
    assert done(found.ended).said.count(WARNING) == 1
    assert found.ended.stderr.count("batch normalization") == 1
    backbone = Component("conv", channels=(4, 8), features=8)
    one = pipeline.pretrain(backbone, training=FOLLOWED, workspace=Workspace(runs=tmp_path))
    for line, other in zip(found.run.metrics(), one.metrics(), strict=True):
        assert line["train"] == pytest.approx(other["train"], rel=0.05)
        wanted = {name: other["validation"][name] for name in ("total", "psnr")}
        assert line["validation"] == pytest.approx(wanted, rel=0.05)  # one process alone probes
    assert "batch normalization" not in pair.left.stderr


@pytest.mark.slow
def test_a_loss_that_is_no_number_is_told_once_and_at_its_step(
    cli: Cli, left: Callable[[str], Left]
) -> None:
    alone = cli("pretrain", "mlp", *DIVERGING, "--device", "cpu")
    step = re.search(r"at step (\d+), in epoch 1\.", alone.stderr)
    assert step
    found = left("diverging")
    one_message(found.ended, 1)
    first, second = found.ended.said
    assert first == (
        f"Error: The loss is nan at step {step[1]}, in epoch 1. Type a smaller --lr than 1e+30."
    )
    assert second.startswith(f"Go on with: zoo resume runs/{found.run.name}")
    assert found.run.state == "failed"
    assert not found.run.checkpoint.exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "status", "message"),
    [
        (
            "all held out",
            2,
            "Error: validation: 5000 leaves no example to train on; there are 1,437.",
        ),
        ("no data", 1, "nowhere"),
        ("no place for runs", 1, "Error: Not a directory 'file/runs'."),
    ],
)
def test_what_is_wrong_is_told_once(
    name: str, status: int, message: str, left: Callable[[str], Left]
) -> None:
    """Whether all processes find it, or the main one alone."""
    one_message(left(name).ended, status, message)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["broken in both", "broken in the other"])
def test_a_plugin_that_fails_is_told_once(name: str, left: Callable[[str], Left]) -> None:
    found = left(name)
    one_message(found.ended, 1, "objective 'eventful'", "RuntimeError: broken on purpose")
    assert found.run.state == "failed"


@pytest.mark.slow
def test_a_process_that_does_not_start_is_told(left: Callable[[str], Left]) -> None:
    found = left("broken before it began")
    began = "Process 2 of 2 ended with exit status 1 before training began. It said: Error: Plugin"
    one_message(found.ended, 1, began, "no such library on this machine")
    assert not (found.folder / "runs").exists()


@pytest.mark.slow
def test_a_script_may_train_twice_in_the_same_processes(left: Callable[[str], Left]) -> None:
    """Not in other ones, and not after one of them failed."""
    first, second, third, fourth, fifth = done(left("begun again").ended).stdout.splitlines()
    assert (first, second) == ("2", "2")
    assert third.startswith("BadOption devices: 1, where the training before had 2.")
    assert fourth.startswith("NotFinite The loss is ")
    assert fifth.startswith("TrainingError The other processes ended with the training before.")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "option"), [("batch of one", "batch_size"), ("validation of one", "validation")]
)
def test_a_batch_that_leaves_a_process_without_an_example(
    name: str, option: str, left: Callable[[str], Left]
) -> None:
    """It is refused or trained, but no learning rate is blamed."""
    found = left(name)
    assert "--lr" not in found.ended.stderr
    if found.ended.status:
        one_message(found.ended, 2, option)
        return
    [line] = found.run.metrics()
    assert all(0 < line[split]["total"] < 10 for split in ("train", "validation"))


# --- what is refused, or not even loaded ----------------------------------------------------


def test_stages_are_thawed_in_one_process_only(cli: Cli, tmp_path: Path) -> None:
    result = cli("finetune", "--backbone", "mlp", "--unfreeze", "1", "--devices", "2")
    assert result.stderr == "Error: unfreeze: it trains in one process. Leave --devices out.\n"
    assert (result.exit_code, result.stdout) == (2, "")
    assert not (tmp_path / "runs").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_devices_that_are_not_there(cli: Cli, tmp_path: Path) -> None:
    result = cli("pretrain", "mlp", "--devices", "2", "--device", "cuda")
    first, second = result.stderr.splitlines()
    assert first.startswith("Error: The device 'cuda' cannot be used: ")
    assert second == "  Type --device cpu, or auto."
    assert (result.exit_code, result.stdout) == (2, "")
    assert not (tmp_path / "runs").exists()


def test_several_processes_need_a_package(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("lightning_fabric")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)  # as where it is not installed
    result = cli("pretrain", "mlp", "--devices", "2")
    assert result.stderr == (
        "Error: Several processes need lightning-fabric. Type: pip install 'plugzoo[fabric]'\n"
    )
    assert (result.exit_code, result.stdout) == (2, "")
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_one_process_loads_nothing_of_it(left: Callable[[str], Left]) -> None:
    found = left("alone")
    assert done(found.ended).stdout.splitlines()[-1] == "[]"
    assert found.run.state == "finished"


# --- stopped, killed, and gone on with ------------------------------------------------------


def waiting(folder: Path, process: Process) -> list[int]:
    """Wait until both processes wait, in the call that they were told; return their numbers."""
    paths = [folder / "pid0", folder / "pid1"]
    while not all(path.exists() for path in paths):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    found = [int(path.read_text()) for path in paths]
    for path in paths:
        path.unlink()
    return found


def finished_as(run: Run, reference: Run) -> None:
    """Assert that a run is finished, with the very weights of the one that never stopped.

    An epoch's mean in training is a sum over processes, which is rounded when it is written.
    """
    found = runs.load(run.folder)
    assert found.state == "finished"
    assert found.record.error is None
    assert found.record.weights_sha256 == reference.record.weights_sha256
    lines, expected = found.metrics(), reference.metrics()
    assert [line["epoch"] for line in lines] == [line["epoch"] for line in expected]
    for line, other in zip(lines, expected, strict=True):
        assert (line["lr"], line["validation"]) == (other["lr"], other["validation"])
        assert line["train"] == pytest.approx(other["train"], rel=1e-6)
    found.load_weights()
    assert sorted(path.name for path in found.folder.iterdir()) == [
        ".lock", "examples.safetensors", "metrics.jsonl", "run.json", "weights.safetensors",
    ]  # fmt: skip


def killed(process: Process) -> bool:
    """Kill all processes of a command; say whether it had ended by itself."""
    by_itself = process.poll() == 0
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return by_itself


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "call", "step", "epochs"),
    [
        ("ddp", 150, 80, 3),  # step 77, of 64 to 84: they ask each other every 16 steps
        ("fsdp", 36, 21, 0),  # step 18: they do at the end of an epoch, before it is validated
    ],
)
def test_processes_that_were_stopped_and_killed_end_as_if_they_never_were(
    strategy: str, call: int, step: int, epochs: int, left: Callable[[str], Left], tmp_path: Path
) -> None:
    reference = left(strategy)
    done(reference.ended)
    # Ctrl-C reaches all of them, in the middle of a step.
    tell(tmp_path, wait=call)
    process = begin(tmp_path, *COMMANDS[strategy].words)
    waiting(tmp_path, process)
    os.killpg(process.pid, signal.SIGINT)
    (tmp_path / "go").touch()
    found = ended(process)
    tell(tmp_path, wait=0, go=0)
    run = the_run(tmp_path / "runs")
    assert found.status == 130, found.stderr
    assert found.stdout == ""
    assert found.said[2:] == [
        "stopping after this step; once more: at once",
        "Interrupted.",
        f"Go on with: zoo --plugin mine.py resume runs/{run.name}",
    ]
    assert (run.state, len(run.metrics())) == ("interrupted", epochs)
    names = sorted(path.name for path in run.checkpoint.iterdir())
    assert names[-1].startswith(f"step-{step:010}-")
    # Gone on with as it is printed, all of them are killed, some time after the next checkpoint.
    process = begin(tmp_path, *found.next)
    while process.poll() is None:
        if max((path.name for path in run.checkpoint.glob("step-*")), default="") > names[-1]:
            break
        time.sleep(0.001)
    time.sleep(random.Random(strategy).random() / 4)
    if killed(process):
        finished_as(run, reference.run)
        return
    assert runs.load(run.folder).state in ("dead", "finished")
    if runs.load(run.folder).state == "dead":
        done(ended(begin(tmp_path, *found.next)))
    finished_as(run, reference.run)


@pytest.mark.slow
def test_ctrl_c_before_the_processes_have_met(tmp_path: Path) -> None:
    tell(tmp_path, late=1)
    process = begin(tmp_path, *EVENTFUL, *TWO)
    while (tmp_path / "late").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    found = ended(process, 120)
    assert found.status == 130, (found.status, found.stderr)
    assert found.said == ["Interrupted."]
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["exchanging", "computing"])
def test_a_process_that_dies_ends_the_others_with_a_message(moment: str, tmp_path: Path) -> None:
    """It was killed, for memory say: nobody's code is at fault, and the run can go on."""
    tell(tmp_path, wait=150)
    process = begin(tmp_path, *EVENTFUL, *TWO, "--quiet")
    other = waiting(tmp_path, process)[1]
    os.kill(other, signal.SIGKILL)
    if moment == "computing":
        time.sleep(1)  # the main one hears of it when it wants to exchange gradients
    (tmp_path / "go").touch()
    found = ended(process, 120)
    run = the_run(tmp_path / "runs")
    assert run.state in ("failed", "dead")
    one_message(found, 1, "Process 2 of 2 was ended by SIGKILL, for want of memory perhaps,")
    assert "objective" not in found.stderr  # nor is a backbone at fault
    assert found.next == ["--plugin", "mine.py", "resume", f"runs/{run.name}"]


@pytest.mark.slow
def test_no_process_outlives_the_main_one(tmp_path: Path) -> None:
    tell(tmp_path, wait=150)
    process = begin(tmp_path, *EVENTFUL, *TWO, "--quiet")
    waiting(tmp_path, process)
    process.kill()
    (tmp_path / "go").touch()
    found = ended(process, 120)  # the other one holds the streams, too
    assert found.stdout == ""
    assert the_run(tmp_path / "runs").state == "dead"


# --- gone on with by another number of processes --------------------------------------------


@pytest.mark.slow
def test_a_run_goes_on_in_as_many_processes_as_it_began_in(tmp_path: Path) -> None:
    """Begun under torchrun, where Ctrl-C reached one process alone: the main one hears of it."""
    outside = ("--device", "cpu", "--threads", "1")
    before = torchrun("--standalone", "--nproc-per-node", "2")
    tell(tmp_path, wait=150)
    process = begin(tmp_path, *EVENTFUL, *outside, before=before)
    os.kill(waiting(tmp_path, process)[1], signal.SIGINT)
    (tmp_path / "go").touch()
    first = ended(process)
    tell(tmp_path, wait=0, go=0)
    run = the_run(tmp_path / "runs")
    assert run.state == "interrupted", first.stderr
    assert len([line for line in first.said if line == "Interrupted."]) == 1
    before_it = (run.folder / "metrics.jsonl").read_bytes()
    found = ended(begin(tmp_path, *first.next, "--quiet"))
    one_message(found, 1, "2 processes", "this is 1")
    assert (run.folder / "metrics.jsonl").read_bytes() == before_it
    assert list(run.checkpoint.iterdir())


@pytest.mark.slow
def test_a_run_of_one_process_does_not_go_on_in_two(tmp_path: Path) -> None:
    tell(tmp_path, wait=150)
    process = begin(tmp_path, *EVENTFUL, "--device", "cpu", "--threads", "1")
    while not (tmp_path / "pid0").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    (tmp_path / "go").touch()
    first = ended(process)
    assert first.status == 130
    tell(tmp_path, wait=0, go=0)
    before = torchrun("--standalone", "--nproc-per-node", "2")
    found = ended(begin(tmp_path, *first.next, "--quiet", before=before))
    assert found.status != 0
    messages = [line for line in found.said if line.startswith("Error: ")]
    assert len(messages) == 1, found.stderr
    assert "1 processes, and this is 2" in messages[0]
    assert list(the_run(tmp_path / "runs").checkpoint.iterdir())


# --- the whole way --------------------------------------------------------------------------


@pytest.mark.slow
def test_a_classifier_of_two_processes_is_finetuned_measured_exported(
    pair: Pair, cli: Cli, tmp_path: Path
) -> None:
    """1,293 = 19 · 68 + 1: the last batch has 69."""
    pretrained = tmp_path / "runs" / pair.two.name
    shutil.copytree(pair.two.folder, pretrained)
    options = (
        "--epochs", "4", "--batch-size", "68", "--mixup", "0.2", "--label-smoothing", "0.1",
        "--optimizer", "sgd", "--lr", "0.05",
    )  # fmt: skip
    found = done(zoo_of_two(tmp_path, "finetune", "latest", *options, "--json"))
    finetuned = the_run(tmp_path / "runs", "finetune")
    printed = json.loads(found.stdout)
    assert (printed["run"], printed["parent"]) == (finetuned.name, pretrained.name)
    assert len(list((tmp_path / "runs").iterdir())) == 2
    alone = cli("finetune", pretrained, *options, "--threads", "1", "--runs", "alone")
    assert alone.exit_code == 0
    follows(finetuned, the_run(tmp_path / "alone"))
    measured = cli("evaluate", finetuned.folder, "--json", "--quiet")
    assert measured.exit_code == 0, measured.stderr
    assert json.loads(measured.stdout)["accuracy"] > 0.8
    exported = cli("export", finetuned.folder, "--json", "--quiet")
    assert exported.exit_code == 0, exported.stderr
    assert json.loads(exported.stdout)["proof"]["passed"] is True
