"""Checkpoints stay whole, and training goes on from each of them to the bit; Ctrl-C writes one."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import itertools
import os
import pickle
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.api import Losses, TrainConfig
from zoo.data import Batches
from zoo.errors import RunError
from zoo.progress import Silent, reporting
from zoo.training import Checkpoints, Epoch, Goal, fit
from zoo.training.checkpoints import SHARE
from zoo.training.stopping import interruptible

State = Mapping[str, Any]


class Notes(Silent):
    """A reporter that keeps the notes."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture
def notes() -> Iterator[list[str]]:
    reporter = Notes()
    with reporting(reporter):
        yield reporter.lines


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "checkpoint"


# --- files ----------------------------------------------------------------------------------


def tensors(number: int) -> dict[str, Tensor]:
    """Tensors of several types and layouts, some of which share memory; others by number."""
    shared = torch.arange(12.0).reshape(3, 4) + number
    return {
        "weights/a": shared,
        "weights/b": shared.T,
        "weights/c": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "weights/d": torch.tensor(1.5, dtype=torch.float64),
        "weights/e": torch.tensor([True, False]),
        "weights/f": torch.tensor([0.1, 3e38]).bfloat16(),
        "generators/order": torch.empty(0, dtype=torch.uint8),
        "count": torch.tensor(number),
    }


def whole(found: tuple[Mapping[str, Tensor], State] | None, number: int, state: State) -> None:
    """Assert that a checkpoint is that of this number."""
    assert found is not None
    assert int(found[0]["count"]) == number
    assert found[1] == state


def written(folder: Path, count: int) -> list[Path]:
    """Write so many checkpoints, of steps 1, 2, …; return the files that stay, oldest first."""
    checkpoints = Checkpoints(folder)
    for number in range(1, count + 1):
        checkpoints.save(number, tensors(number), {"number": number})
    return sorted(folder.iterdir())


def test_a_checkpoint_reads_back_as_it_was_written(folder: Path) -> None:
    kept = tensors(3)
    state = {"floats": [0.1, 1e-300, 2.0], "text": "ß", "none": None, "nested": {"a": [True]}}
    before = {name: tensor.clone() for name, tensor in kept.items()}
    Checkpoints(folder).save(17, kept, state)
    checkpoints = Checkpoints(folder)
    assert checkpoints.last_step() == 17
    found = checkpoints.newest()
    whole(found, 3, state)
    assert found is not None
    assert found[0].keys() == kept.keys()
    for name, tensor in found[0].items():
        assert torch.equal(tensor, before[name]), name
        assert tensor.dtype == before[name].dtype
        assert torch.equal(kept[name], before[name])  # and what was written was left alone


def test_a_file_is_known_by_its_digest_and_holds_tensors_alone(folder: Path) -> None:
    [path] = written(folder, 1)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert path.name == f"step-0000000001-{digest}.safetensors"
    assert load_file(path)["state.json"].numpy().tobytes() == b'{"number": 1}'


def test_without_a_checkpoint_there_is_none(folder: Path, notes: list[str]) -> None:
    checkpoints = Checkpoints(folder)
    assert checkpoints.newest() is None
    assert checkpoints.last_step() is None
    checkpoints.clear()
    folder.mkdir()
    assert checkpoints.newest() is None
    assert checkpoints.last_step() is None
    assert notes == []


@pytest.mark.parametrize("count", [1, 2, 3, 12])
def test_the_newest_two_stay(folder: Path, count: int) -> None:
    paths = written(folder, count)
    steps = [int(path.name.split("-")[1]) for path in paths]
    assert steps == list(range(1, count + 1))[-2:]
    checkpoints = Checkpoints(folder)
    whole(checkpoints.newest(), count, {"number": count})
    assert checkpoints.last_step() == count


def test_of_one_step_the_one_written_last_is_the_newest(folder: Path) -> None:
    """As after an epoch's last step, and again when it was validated."""
    checkpoints = Checkpoints(folder)
    for number in range(8):
        checkpoints.save(45, tensors(number), {"number": number})
        whole(Checkpoints(folder).newest(), number, {"number": number})


def test_what_others_put_there_is_neither_read_nor_removed(folder: Path) -> None:
    folder.mkdir()
    names = ["notes.txt", "step-0000000099.safetensors", "step-99-abc.safetensors", "step-7"]
    names += [f".step-0000000099-{'0' * 64}.safetensors.x1.partial", f"{'0' * 64}.safetensors"]
    for name in names:
        (folder / name).write_bytes(b"what is this")
    (folder / "step-0000000098").mkdir()
    written(folder, 4)
    whole(Checkpoints(folder).newest(), 4, {"number": 4})
    assert {path.name for path in folder.iterdir()} >= {*names, "step-0000000098"}
    assert Checkpoints(folder).last_step() == 4
    Checkpoints(folder).clear()
    assert not folder.exists()


def flip(place: float) -> Callable[[bytes], bytes]:
    def damage(data: bytes) -> bytes:
        changed = bytearray(data)
        changed[int(place * (len(data) - 1))] ^= 1
        return bytes(changed)

    return damage


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "first byte": flip(0.0),
    "header": flip(0.1),
    "middle": flip(0.6),
    "last byte": flip(1.0),
    "truncated": lambda data: data[:-1],
    "half": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "longer": lambda data: data + b"x",
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_told_and_the_one_before_it_taken(
    damage: Callable[[bytes], bytes], folder: Path, notes: list[str]
) -> None:
    before, last = written(folder, 5)
    last.write_bytes(damage(last.read_bytes()))
    checkpoints = Checkpoints(folder)
    whole(checkpoints.newest(), 4, {"number": 4})
    assert notes == [
        f"'{last}' is torn or corrupt (its SHA-256 is not the one in its name);"
        " taking the one before it"
    ]
    before.write_bytes(damage(before.read_bytes()))
    assert checkpoints.newest() is None
    assert len(notes) == 3


def test_a_folder_in_a_files_place_is_told(folder: Path, notes: list[str]) -> None:
    _, last = written(folder, 2)
    last.unlink()
    last.mkdir()
    whole(Checkpoints(folder).newest(), 1, {"number": 1})
    assert len(notes) == 1
    assert "Is a directory" in notes[0]


class Hostile:
    """Unpickled, it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.path, "w")


@pytest.mark.parametrize("kind", ["pickle", "torch", "no state", "no JSON"])
def test_a_foreign_file_of_the_right_digest_is_not_trusted(
    kind: str, folder: Path, tmp_path: Path, notes: list[str]
) -> None:
    """Nothing is unpickled, whatever the name says."""
    mark = tmp_path / "unpickled"
    written(folder, 2)
    data = {
        "pickle": lambda: pickle.dumps(Hostile(mark)),
        "torch": lambda: _torch_saved(Hostile(mark), tmp_path),
        "no state": lambda: save({"weights/a": torch.ones(3)}),
        "no JSON": lambda: save({"state.json": torch.tensor([123, 1], dtype=torch.uint8)}),
    }[kind]()
    digest = hashlib.sha256(data).hexdigest()
    (folder / f"step-0000000003-{digest}.safetensors").write_bytes(data)
    whole(Checkpoints(folder).newest(), 2, {"number": 2})
    assert len(notes) == 1
    assert "is torn or corrupt (" in notes[0]
    assert not mark.exists()
    if kind == "pickle":  # as it would have been
        pickle.loads(data)
        assert mark.exists()


def _torch_saved(content: object, folder: Path) -> bytes:
    torch.save(content, folder / "saved")
    return (folder / "saved").read_bytes()


def disk_full(handle: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_keeps_the_checkpoints_that_are_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = written(folder, 3)
    checkpoints = Checkpoints(folder)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", disk_full)
        with pytest.raises(OSError, match="No space left on device") as caught:
            checkpoints.save(4, tensors(4), {"number": 4})
    assert Path(caught.value.filename).name.startswith("step-0000000004-")
    assert sorted(folder.iterdir()) == paths  # no partial one either
    whole(Checkpoints(folder).newest(), 3, {"number": 3})
    checkpoints.save(5, tensors(5), {"number": 5})  # and where there is space again
    whole(Checkpoints(folder).newest(), 5, {"number": 5})


# --- when one is due ------------------------------------------------------------------------


class Clock:
    """Time that passes only when it is told to."""

    def __init__(self) -> None:
        self.now, self.cost = 1024.0, 0.0

    def __call__(self) -> float:
        return self.now

    def write(self, handle: int) -> None:
        """Take so long to write a file."""
        self.now += self.cost


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(time, "perf_counter", found)
    monkeypatch.setattr(os, "fsync", found.write)
    return found


def due(checkpoints: Checkpoints, clock: Clock, steps: int, each: float) -> list[int]:
    """Train so many steps, writing where one is due; return after which ones."""
    found = []
    for step in range(1, steps + 1):
        clock.now += each
        if checkpoints.due(step):
            checkpoints.save(step, {}, {})
            found.append(step)
    return found


@pytest.mark.parametrize(
    ("seconds", "steps", "wanted"),
    [
        (None, None, []),
        (6.0, None, [12, 24]),  # steps of half a second
        (None, 10, [10, 20]),
        (6.0, 10, [10, 20]),  # a save counts for both
        (6.0, 20, [12, 24]),
        (0.0, None, list(range(1, 25))),
        (None, 1, list(range(1, 25))),
    ],
)
def test_a_checkpoint_is_due_by_the_clock_and_by_steps(
    seconds: float | None, steps: int | None, wanted: list[int], folder: Path, clock: Clock
) -> None:
    checkpoints = Checkpoints(folder, seconds=seconds, steps=steps)
    assert due(checkpoints, clock, 24, 0.5) == wanted


@pytest.mark.parametrize("options", [{"seconds": 0.0}, {"steps": 1}, {"seconds": 5.0, "steps": 3}])
@pytest.mark.parametrize("cost", [0.015625, 0.1875, 1.5])
def test_writing_takes_two_percent_of_the_time_at_most(
    options: dict[str, Any], cost: float, folder: Path, clock: Clock
) -> None:
    clock.cost, began = cost, clock.now
    found = due(Checkpoints(folder, **options), clock, 2000, 0.25)
    # What the first one costs is known when it is written: the share is that of the others.
    share = cost * (len(found) - 1) / (clock.now - began)
    assert share <= 0.02
    # And no rarer than that rule and the options ask for.
    apart = min(
        steps for steps in range(1, 2000)
        if steps * 0.25 >= cost / SHARE - 1e-9
        and (steps * 0.25 >= options.get("seconds", 9e9) or steps >= options.get("steps", 9e9))
    )  # fmt: skip
    gaps = [second - first for first, second in itertools.pairwise(found)]
    assert set(gaps) <= {apart}
    assert len(found) > 3


def test_what_is_gathered_first_counts_as_writing(folder: Path, clock: Clock) -> None:
    checkpoints = Checkpoints(folder, steps=1)
    checkpoints.begin()
    clock.now += 0.5
    checkpoints.save(1, {}, {})
    clock.now += 0.5 / SHARE - 1
    assert not checkpoints.due(2)
    clock.now += 2
    assert checkpoints.due(3)


def test_a_resumed_run_counts_its_steps_from_the_checkpoint(folder: Path, clock: Clock) -> None:
    Checkpoints(folder).save(40, {}, {})
    checkpoints = Checkpoints(folder, steps=10)
    checkpoints.newest()
    clock.now += 1e6
    assert [step for step in range(41, 52) if checkpoints.due(step)] == [50, 51]


# --- exactness ------------------------------------------------------------------------------


class Net(nn.Module):
    """A norm, dropout, noise from the global generator, and losses with a part."""

    def __init__(self, *, dropout: float = 0.2, noise: float = 0.1) -> None:
        super().__init__()
        self.first = nn.Linear(4, 8, bias=False)
        self.norm = nn.BatchNorm1d(8)
        self.drop = nn.Dropout(dropout)
        self.last = nn.Linear(8, 1)
        self.noise = noise

    def forward(self, inputs: Tensor, targets: Tensor) -> Losses:
        noisy = inputs + self.noise * torch.randn_like(inputs)
        found = self.last(self.drop(self.norm(self.first(noisy)).tanh())).flatten()
        return Losses(F.mse_loss(found, targets), near=(found - targets).abs().mean())


class Pictures(nn.Module):
    """Convolutions, whose weights and moments may lie channels last in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(4, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU(),
            nn.ConvTranspose2d(6, 3, 2), nn.Flatten(), nn.Linear(27, 1),
        )  # fmt: skip

    def forward(self, inputs: Tensor, targets: Tensor) -> Losses:
        images = inputs.view(-1, 4, 1, 1).expand(-1, 4, 2, 2) * torch.randn(2, 2)
        return Losses(F.mse_loss(self.net(images).flatten(), targets))


def examples(count: int, seed: int = 7) -> tuple[Tensor, Tensor]:
    inputs = torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))
    return inputs, inputs.sum(1).tanh()


def jittered(batch: tuple[Tensor, ...], generator: torch.Generator) -> tuple[Tensor, ...]:
    """Augment as a plugin might: drawing so many numbers as the batch is large."""
    inputs, targets = batch
    order = torch.randperm(len(inputs), generator=generator)
    share = torch.rand(len(inputs), 1, generator=generator)
    mixed = share * inputs + (1 - share) * inputs[order]
    return mixed, share[:, 0] * targets + (1 - share[:, 0]) * targets[order]


def thaw(module: nn.Module, number: int) -> None:
    """Train the first layer from the third epoch on: it has no moments before."""
    module.first.requires_grad_(number > 2)  # type: ignore[union-attr]
    module.norm.requires_grad_(number > 1)  # type: ignore[union-attr]


class Queue(Net):
    """Compares its examples with earlier ones, in a buffer that is no part of its state."""

    kept: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kept", torch.zeros(3, 4), persistent=False)

    def forward(self, inputs: Tensor, targets: Tensor) -> Losses:
        losses = super().forward(inputs - self.kept.mean(0), targets)
        if self.training:
            self.kept = torch.cat([inputs.detach(), self.kept])[:3]
        return losses


LOSS = Goal()


@dataclasses.dataclass(frozen=True)
class Case:
    """What is trained, how, and on how many examples."""

    options: dict[str, Any]
    module: Callable[[], nn.Module] = Net
    count: int = 29
    validate: bool = True
    augment: Any = None
    thaws: bool = False
    goal: Goal = LOSS
    rates: dict[str, float] = dataclasses.field(default_factory=dict)

    @property
    def config(self) -> TrainConfig:
        return TrainConfig(**{"epochs": 4, "batch_size": 8, "lr": 0.05, **self.options})

    def made(self, seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return self.module()

    def fit(
        self,
        module: nn.Module,
        checkpoints: Checkpoints | None,
        on_resume: Callable[[list[Epoch]], None] = lambda epochs: None,
        on_epoch: Callable[[Epoch], None] = lambda epoch: None,
    ) -> list[Epoch]:
        return fit(
            module,
            Batches(examples(self.count), self.config.batch_size, seed=5),
            self.config,
            validation=Batches(examples(11, seed=8), 4) if self.validate else None,
            goal=self.goal,
            augment=self.augment,
            rates=self.rates,
            before_epoch=(lambda number: thaw(module, number)) if self.thaws else lambda n: None,
            on_resume=on_resume,
            on_epoch=on_epoch,
            checkpoints=checkpoints,
        )


CASES = {
    "all of it": Case(
        {"optimizer": "adamw", "ema": 0.9, "keep": "best", "patience": 3, "accumulate": 2,
         "clip_norm": 0.5},
        augment=jittered,
    ),
    "nesterov": Case(
        {"optimizer": "sgd", "nesterov": True, "schedule": "cosine", "warmup": 1.5},
        validate=False,
    ),
    "plain": Case({"optimizer": "sgd", "momentum": 0.0, "schedule": "constant"}),
    # Its rate is far too large: the best epoch is not the last, and patience ends.
    "patience": Case(
        {"optimizer": "adam", "lr": 0.4, "keep": "best", "patience": 2, "epochs": 9},
        goal=Goal("near"),
    ),
    "average": Case({"ema": 0.999, "patience": 1, "epochs": 5}, augment=jittered),
    "rising": Case({"keep": "best"}, goal=Goal("near", rises=True)),
    "thawed": Case({"weight_decay": 0.3}, thaws=True, rates={"first.weight": 0.5}),
    "thawed, momentum": Case({"optimizer": "sgd", "ema": 0.5}, thaws=True),
    "pictures": Case({"channels_last": True}, module=Pictures),
    "pictures, momentum": Case(
        {"optimizer": "sgd", "lr": 0.01, "ema": 0.9, "keep": "best"}, module=Pictures
    ),
    "unsaved": Case({"ema": 0.9, "keep": "best"}, module=Queue),
    "bf16": Case({"precision": "bf16", "accumulate": 3}),
    "one batch": Case({"batch_size": 64, "keep": "best"}),
}  # fmt: skip


def told(epochs: list[Epoch]) -> list[dict[str, Any]]:
    """An epoch's figures, but for the time it took."""
    return [{**dataclasses.asdict(epoch), "seconds": None} for epoch in epochs]


def equal(module: nn.Module, wanted: Mapping[str, Tensor]) -> bool:
    found = module.state_dict()
    return found.keys() == wanted.keys() and all(
        torch.equal(found[name], wanted[name]) for name in wanted
    )


class EveryStep(Checkpoints):
    """A checkpoint after each step, and a copy of each of them in a folder of its own."""

    def __init__(self, folder: Path, copies: Path | None = None) -> None:
        super().__init__(folder)
        self.copies = copies
        self.saved: list[Path] = []

    def due(self, step: int) -> bool:
        return True

    def save(self, step: int, tensors: Mapping[str, Tensor], state: State) -> None:
        before = set(self.folder.glob("*"))
        super().save(step, tensors, state)
        if self.copies:
            self.saved.append(self.copies / f"{len(self.saved):03}")
            self.saved[-1].mkdir()
            [fresh] = set(self.folder.glob("*")) - before
            shutil.copy(fresh, self.saved[-1])


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_training_goes_on_from_every_step_to_the_bit(case: Case, tmp_path: Path) -> None:
    """Within an epoch, at its end before it is validated, and between two epochs."""
    wanted = case.made(0)
    torch.manual_seed(1)
    epochs = case.fit(wanted, None)
    after = torch.rand(3)
    # Writing checkpoints changes nothing.
    module, taken = case.made(0), EveryStep(tmp_path / "checkpoint", tmp_path)
    torch.manual_seed(1)
    assert told(case.fit(module, taken)) == told(epochs)
    assert equal(module, wanted.state_dict())
    steps = -(-len(Batches(examples(case.count), case.config.batch_size)) // case.config.accumulate)
    assert len(taken.saved) == len(epochs) * (steps + 1)
    for number, copy in enumerate(taken.saved):
        fresh = case.made(number + 2)  # from other weights, and with other numbers drawn
        resumed: list[Epoch] = []
        later: list[Epoch] = []
        found = case.fit(fresh, Checkpoints(copy), resumed.extend, later.append)
        assert equal(fresh, wanted.state_dict()), number
        assert told(found) == told(epochs)
        done = (number + 1) // (steps + 1)
        assert told(resumed) == told(epochs[:done])
        assert told(later) == told(epochs[done:])  # each of them is told once
        assert torch.equal(torch.rand(3), after)


class Dies(BaseException):
    """The end of a process, as far as a test within one can tell."""


def dies_at(call: int, module: nn.Module) -> nn.Module:
    """Let one of the module's calls be its last, in training or in validation."""
    calls = iter(range(1, call))

    def hook(*args: object) -> None:
        if next(calls, None) is None:
            raise Dies

    module.register_forward_pre_hook(hook)
    return module


@pytest.mark.parametrize("calls", [4, 5, 7, 11, 13])
@pytest.mark.parametrize("name", ["all of it", "patience", "thawed, momentum"])
def test_training_that_dies_again_and_again_comes_to_the_same(
    name: str, calls: int, folder: Path
) -> None:
    """What was computed after the checkpoint is lost, and computed once more."""
    case = CASES[name]
    wanted = case.made(0)
    torch.manual_seed(1)
    epochs = case.fit(wanted, None)
    deaths, module, found = 0, case.made(0), None
    torch.manual_seed(1)
    while found is None:
        try:
            found = case.fit(dies_at(calls, module), EveryStep(folder))
        except Dies:
            deaths += 1
            module = case.made(deaths + 1)
    assert deaths
    assert told(found) == told(epochs)
    assert equal(module, wanted.state_dict())


def test_a_torn_checkpoint_costs_the_steps_since_the_one_before(
    tmp_path: Path, notes: list[str]
) -> None:
    case = CASES["all of it"]
    module, taken = case.made(0), EveryStep(tmp_path / "checkpoint")
    torch.manual_seed(1)
    with pytest.raises(Dies):
        case.fit(dies_at(15, module), taken)
    last = sorted(taken.folder.iterdir())[-1]
    last.write_bytes(last.read_bytes()[:-100])
    fresh = case.made(2)
    case.fit(fresh, Checkpoints(taken.folder))
    assert len(notes) == 1
    assert equal(fresh, trained(case).state_dict())


def trained(case: Case) -> nn.Module:
    """The module of a run that never stopped."""
    module = case.made(0)
    torch.manual_seed(1)
    case.fit(module, None)
    return module


def test_a_full_disk_ends_training_and_it_goes_on_from_what_was_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES["all of it"]
    module, real, writes = case.made(0), os.fsync, iter(range(6))

    def filling(handle: int) -> None:
        if next(writes, None) is None:
            disk_full(handle)
        real(handle)

    torch.manual_seed(1)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", filling)
        with pytest.raises(OSError, match="No space left on device"):
            case.fit(module, EveryStep(folder))
    assert len(list(folder.iterdir())) == 2
    assert not list(folder.glob("*.partial")) + list(folder.glob(".*.partial"))
    fresh = case.made(2)
    case.fit(fresh, Checkpoints(folder))
    assert equal(fresh, trained(case).state_dict())


def test_other_examples_are_refused(folder: Path) -> None:
    case = CASES["plain"]
    with pytest.raises(Dies):
        case.fit(dies_at(4, case.made(0)), EveryStep(folder))
    for other in (dataclasses.replace(case, count=28), dataclasses.replace(case, count=30)):
        module = case.made(2)
        before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
        with pytest.raises(RunError) as caught:
            other.fit(module, Checkpoints(folder))
        assert str(caught.value) == (
            "The examples are not those that this run began with, so it cannot go on."
        )
        assert equal(module, before)


class Centred(Net):
    """Keeps a running mean as many do: the buffer is assigned anew, not changed in place."""

    centre: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(4))

    def forward(self, inputs: Tensor, targets: Tensor) -> Losses:
        if self.training:
            self.centre = 0.9 * self.centre + 0.1 * inputs.mean(0)
        return super().forward(inputs - self.centre, targets)


@pytest.mark.parametrize("options", [{}, {"ema": 0.9}, {"keep": "best", "lr": 0.4}])
def test_a_buffer_that_is_assigned_anew_goes_on_too(
    options: dict[str, Any], tmp_path: Path
) -> None:
    case = Case({"optimizer": "sgd", **options}, module=Centred)
    wanted = trained(case)
    if not options:
        assert not torch.equal(wanted.centre, torch.zeros(4))  # type: ignore[arg-type]
    module, taken = case.made(0), EveryStep(tmp_path / "checkpoint", tmp_path)
    torch.manual_seed(1)
    case.fit(module, taken)
    for copy in taken.saved[::3]:
        fresh = case.made(2)
        case.fit(fresh, Checkpoints(copy))
        assert equal(fresh, wanted.state_dict())


def test_a_constant_that_is_infinite_keeps_no_checkpoint_from_being_written(folder: Path) -> None:
    """As a mask of attention is, which many keep in their state."""

    class Masked(Net):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mask", torch.full((2, 2), -torch.inf).triu(1))

    case = Case({}, module=Masked)
    with pytest.raises(Dies):
        case.fit(dies_at(6, case.made(0)), EveryStep(folder))
    assert Checkpoints(folder).last_step() == 4


# --- Ctrl-C ---------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _pythons_own_handler() -> Iterator[None]:
    """What Ctrl-C means in a program, whatever it means to those who run the tests."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def ctrl_c_at(call: int, module: nn.Module, times: int = 1) -> list[int]:
    """Type Ctrl-C in the middle of one of the module's calls; return the calls that ended."""
    ended: list[int] = []

    def before(*args: object) -> None:
        if len(ended) == call - 1:
            for _ in range(times):
                ctrl_c()

    module.register_forward_pre_hook(before)
    module.register_forward_hook(lambda *args: ended.append(len(ended)))
    return ended


# "all of it" has four batches an epoch, two to a step, then three of validation.
@pytest.mark.parametrize(
    ("call", "ended", "step"),
    [(1, 2, 1), (2, 2, 1), (3, 4, 2), (4, 4, 2), (9, 9, 3), (10, 11, 4)],
)
def test_ctrl_c_waits_for_the_step_and_writes_a_checkpoint(
    call: int, ended: int, step: int, folder: Path, notes: list[str]
) -> None:
    case = CASES["all of it"]
    module = case.made(0)
    torch.manual_seed(1)
    calls = ctrl_c_at(call, module)
    checkpoints = Checkpoints(folder)  # none would be due
    with pytest.raises(KeyboardInterrupt):
        case.fit(module, checkpoints)
    assert len(calls) == ended
    assert notes == ["stopping after this step; once more: at once"]
    assert checkpoints.last_step() == step
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    fresh = case.made(2)
    case.fit(fresh, checkpoints)
    assert equal(fresh, trained(case).state_dict())


@pytest.mark.parametrize("call", [5, 6, 7, 12])
def test_ctrl_c_in_validation_writes_a_checkpoint_of_before_it(call: int, folder: Path) -> None:
    """The weights in place there are the average's; what is written are those that are trained."""
    case = CASES["all of it"]
    module = case.made(0)
    torch.manual_seed(1)
    calls = ctrl_c_at(call, module)
    told_of: list[Epoch] = []
    with pytest.raises(KeyboardInterrupt):
        case.fit(module, Checkpoints(folder), on_epoch=told_of.append)
    assert len(calls) == call  # after the batch under way
    assert len(told_of) == (call - 5) // 7  # its epoch is not told: it has no figure yet
    found = Checkpoints(folder).newest()
    assert found is not None
    assert (found[1]["step"], found[1]["position"]) == (2 * (1 + call // 12), 4)
    fresh = case.made(2)
    resumed: list[Epoch] = []
    assert len(case.fit(fresh, Checkpoints(folder), on_epoch=resumed.append)) == 4
    assert [each.epoch for each in resumed] == [1, 2, 3, 4][len(told_of) :]
    assert equal(fresh, trained(case).state_dict())


@pytest.mark.parametrize("call", [3, 6])
def test_ctrl_c_twice_interrupts_at_once(call: int, folder: Path) -> None:
    case = CASES["all of it"]
    module = case.made(0)
    calls = ctrl_c_at(call, module, times=2)
    with pytest.raises(KeyboardInterrupt):
        case.fit(module, Checkpoints(folder))
    assert len(calls) == call - 1  # the call under way never came to its end
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_twice_within_a_step_leaves_the_checkpoints_as_they_are(folder: Path) -> None:
    case = CASES["all of it"]
    module = case.made(0)
    torch.manual_seed(1)
    ctrl_c_at(10, module, times=2)
    with pytest.raises(KeyboardInterrupt):
        case.fit(module, EveryStep(folder))
    assert Checkpoints(folder).last_step() == 3
    fresh = case.made(2)
    case.fit(fresh, Checkpoints(folder))
    assert equal(fresh, trained(case).state_dict())


@pytest.mark.parametrize("moment", ["the average comes", "the weights come back"])
def test_ctrl_c_while_the_average_is_exchanged_writes_no_mixture(
    moment: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second one, when half of the weights are the average's and half are not."""
    from zoo.training import averaging

    case = dataclasses.replace(CASES["average"], augment=None)
    module, real = case.made(0), averaging.put
    exchanges = iter(range(2 if moment == "the average comes" else 3))

    def interrupted(live: dict[str, Tensor], given: Mapping[str, Tensor]) -> None:
        if next(exchanges, None) is not None:
            return real(live, given)
        real(dict(list(live.items())[:2]), given)
        raise KeyboardInterrupt

    class AfterSix(Checkpoints):
        def due(self, step: int) -> bool:
            return step == 6

    torch.manual_seed(1)
    with monkeypatch.context() as patch:
        patch.setattr(averaging, "put", interrupted)
        with pytest.raises(KeyboardInterrupt):
            case.fit(module, AfterSix(folder))
    fresh = case.made(2)
    case.fit(fresh, Checkpoints(folder))
    assert equal(fresh, trained(case).state_dict())


def test_ctrl_c_without_checkpoints_interrupts_as_ever() -> None:
    case = CASES["all of it"]
    module = case.made(0)
    calls = ctrl_c_at(3, module)
    with pytest.raises(KeyboardInterrupt):
        case.fit(module, None)
    assert len(calls) == 2


def test_the_handler_is_put_back_whatever_happens(folder: Path) -> None:
    case = CASES["plain"]
    for ends in (case.made(0), dies_at(3, case.made(0))):
        with contextlib.suppress(Dies):
            case.fit(ends, Checkpoints(folder))
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_another_meaning_of_ctrl_c_is_left_alone(folder: Path) -> None:
    """A notebook has its own, and a shell's background jobs ignore it."""
    for meaning in (signal.SIG_IGN, lambda number, frame: None):
        signal.signal(signal.SIGINT, meaning)
        with interruptible() as stop:
            assert signal.getsignal(signal.SIGINT) is meaning
            ctrl_c()
            assert not stop.asked
        assert signal.getsignal(signal.SIGINT) is meaning


def test_in_a_thread_ctrl_c_is_not_caught(folder: Path) -> None:
    """Python allows a handler in the main thread alone."""
    case, seen, failed = CASES["plain"], set(), []
    module = case.made(0)
    module.register_forward_hook(lambda *args: seen.add(signal.getsignal(signal.SIGINT)))

    def train() -> None:
        try:
            case.fit(module, EveryStep(folder))
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert failed == []
    assert seen == {signal.default_int_handler}
    assert Checkpoints(folder).last_step() == 16
