"""The only training loop."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from zoo.api import Losses, TrainConfig
from zoo.data import Batches
from zoo.errors import NotFinite, OtherExamples, RunError
from zoo.progress import Task, current
from zoo.training.averaging import Average, put, state_of
from zoo.training.checkpoints import Checkpoints
from zoo.training.devices import autocast, deterministic, lay_out, read_generators, set_generators
from zoo.training.evaluation import Means, evaluate_losses
from zoo.training.optimizing import Optimizer
from zoo.training.places import Batch, Place, innermost, like, local, settle, whole
from zoo.training.probing import Probe
from zoo.training.stopping import Stop, Stopped, interruptible
from zoo.training.watching import LOSS, Finite, Goal, check_means

AGREE = 16
"""Steps after which several processes ask each other whether to stop, or to write."""


@dataclasses.dataclass(frozen=True)
class Epoch:
    """One line of `metrics.jsonl`: means over the epoch's examples; `lr` is the last step's."""

    epoch: int
    seconds: float
    lr: float
    train: dict[str, float]
    validation: dict[str, float] | None


def kept_of(epochs: Sequence[Epoch], config: TrainConfig, goal: Goal) -> Epoch:
    """Return the epoch whose weights `fit` leaves in the module, of one or more."""
    kept, figure = epochs[-1], None
    if config.keep == "best":
        for epoch in epochs:
            if epoch.validation and goal.better(epoch.validation[goal.part], figure):
                kept, figure = epoch, epoch.validation[goal.part]
    return kept


def fit(
    module: nn.Module,
    batches: Batches,
    config: TrainConfig,
    *,
    validation: Batches | None = None,
    goal: Goal = LOSS,
    title: str = "training",
    augment: Callable[[Batch, torch.Generator], Batch] | None = None,
    rates: Mapping[str, float] | None = None,
    before_epoch: Callable[[int], None] = lambda number: None,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
    on_resume: Callable[[list[Epoch]], None] = lambda epochs: None,
    checkpoints: Checkpoints | None = None,
    probe: Probe | None = None,
    place: Place | None = None,
) -> list[Epoch]:
    """Train a module whose `forward(*batch)` returns `Losses`; return its epochs.

    Parameters with `requires_grad` off at the beginning are not trained; `rates` are factors of the
    learning rate by parameter name. `goal` is the figure of validation that is watched. `augment`
    changes a training batch on its device and draws from the generator alone that it is given.
    `before_epoch` is called with each epoch's number, and may freeze parameters for it.
    What `probe` measures after validation stands beside its figures, under the probe's name.

    In several processes, which `place` joins, `batches` are those of all together: each process
    draws them alike and takes its part. With `checkpoints`, training goes on from the newest of
    them, to the bit, after telling `on_resume` the epochs that are done, none where there is no
    checkpoint, and Ctrl-C writes one more before it interrupts.
    Raises `NotFinite` where a loss is infinite or no number.
    """
    if config.epochs == 0:
        return []
    place = place or Place(batches.device)
    module = settle(module, place)
    loop = _Loop(
        module, batches, config, validation, goal, rates, augment, checkpoints, probe, place
    )
    try:
        return _run(loop, title, before_epoch, on_epoch, on_resume)
    except NotFinite as error:
        step = checkpoints.last_step() if checkpoints else None
        if step is not None:
            error.args = (f"{error} The last good checkpoint is that of step {step:,}.",)
        raise


def _run(
    loop: _Loop,
    title: str,
    before_epoch: Callable[[int], None],
    on_epoch: Callable[[Epoch], None],
    on_resume: Callable[[list[Epoch]], None],
) -> list[Epoch]:
    loop.restore()
    if loop.resumable:
        on_resume([*loop.epochs])
    with (
        interruptible(loop.resumable) as stop,
        current().task(title, loop.total, "examples", loop.done) as task,
        deterministic(loop.batches.device),
    ):
        while loop.epoch <= loop.config.epochs and not loop.exhausted:
            before_epoch(loop.epoch)
            loop.train(stop, task)
            loop.close_epoch(stop, on_epoch)
            loop.show(task)
            loop.keep(stop)
    loop.finish()
    return loop.epochs


class _Loop:
    """What training has come to, and how it goes on from there, step by step."""

    def __init__(
        self,
        module: nn.Module,
        batches: Batches,
        config: TrainConfig,
        validation: Batches | None,
        goal: Goal,
        rates: Mapping[str, float] | None,
        augment: Callable[[Batch, torch.Generator], Batch] | None,
        checkpoints: Checkpoints | None,
        probe: Probe | None,
        place: Place,
    ) -> None:
        self.batches, self.config, self._place = batches, config, place
        self._validation, self._goal, self._augment = validation, goal, augment
        self._checkpoints, self._probe = checkpoints, probe
        if innermost(config, place):
            lay_out(module)
        if config.compile:
            module.compile()
        per_epoch = -(-len(batches) // config.accumulate)
        self._called = place.wrap(module)
        self._optimizer = Optimizer(module, config, per_epoch, rates)
        self._average = Average(module, config.ema) if config.ema else None
        self._finite = Finite(config, place)
        self._draws = torch.Generator().manual_seed(config.seed)
        self._module = module
        self._best: dict[str, Tensor] = {}
        # What a checkpoint holds beside tensors:
        self.epoch, self._position, self._step = 1, 0, 0
        self.epochs: list[Epoch] = []
        self._best_figure: float | None = None
        self._stale = 0
        self._seconds, self._lr = 0.0, config.lr
        self.means = Means()

    @property
    def _weights(self) -> dict[str, Tensor]:
        return state_of(self._module)  # a module may put other tensors in place of its buffers

    @property
    def _unsaved(self) -> dict[str, Tensor]:
        """The buffers that a module leaves out of its state, as it may a queue of features."""
        buffers = self._module.named_buffers(remove_duplicate=False)
        return {n: b.detach() for n, b in buffers if n not in self._weights}

    @property
    def exhausted(self) -> bool:
        """Whether validation has not improved for as many epochs as patience lasts."""
        return self.config.patience is not None and self._stale >= self.config.patience

    @property
    def resumable(self) -> bool:
        return self._checkpoints is not None

    @property
    def total(self) -> int:
        """Count the examples of all epochs."""
        return self.batches.examples * self.config.epochs

    @property
    def done(self) -> int:
        """Count the examples seen, of all processes and epochs."""
        return (self.epoch - 1) * self.batches.examples + sum(self.batches.sizes[: self._position])

    def train(self, stop: Stop, task: Task) -> None:
        """Take the steps that are left of this epoch."""
        started, before = time.perf_counter(), self._seconds
        self._called.train()
        for batch in self.batches.epoch(self._position):
            if self._augment:
                batch = self._augment(batch, self._draws)
            self._backward(batch)
            self._position += 1
            if not self._steps_after(self._position):
                continue
            self._lr = self._optimizer.step(self._step)
            self._step += 1
            if self._average:
                self._average.update(self._step)
            if task.due():
                self.show(task)
            self._seconds = before + time.perf_counter() - started
            self.keep(stop)

    # never elsewhere: backward
    def _backward(self, whole: Batch) -> None:
        batch = self._place.share(whole)
        steps = self._steps_after(self._position + 1)
        with self._place.exchanging(self._called, wanted=steps):
            with autocast(self.config, self.batches.device):
                losses: Losses = self._called(*batch)
            self._finite.see(losses.total, self.epoch, self._step + 1)
            self.means.add(losses, len(batch[0]))
            weight = self._weight(len(batch[0]))
            self._place.backward(losses.total if weight == 1 else losses.total * weight)

    def _weight(self, own: int) -> float:
        """Return what the loss of so many examples counts, so that a step's is their mean.

        Several batches may make one step, and the gradients of several processes are averaged.
        """
        many, sizes = self.config.accumulate, self.batches.sizes
        first = self._position - self._position % many
        return own * self._place.world / sum(sizes[first : first + many])

    def _steps_after(self, position: int) -> bool:
        """Say whether the batch before this position is the last of its step."""
        return position % self.config.accumulate == 0 or position == len(self.batches)

    def close_epoch(self, stop: Stop, on_epoch: Callable[[Epoch], None]) -> None:
        """Validate, judge, and begin the next epoch."""
        started = time.perf_counter()
        self._finite.check(self.epoch)
        train = self.means.summed(self._place).means()  # waits for the device
        self._seconds += time.perf_counter() - started
        check_means(train, self.epoch, self._step, self.config)
        try:
            held = self._validate(stop if self._place.world == 1 else Stop())
        except Stopped:
            self._interrupt()
        check_means(held or {}, self.epoch, self._step, self.config)
        self.epochs.append(Epoch(self.epoch, self._seconds, self._lr, train, held))
        on_epoch(self.epochs[-1])
        self._judge(held)
        self.epoch, self._position, self._seconds = self.epoch + 1, 0, 0.0
        self.means = Means()
        self.batches.close()

    def _validate(self, stop: Stop) -> dict[str, float] | None:
        if self._validation is None:
            return None
        with self._average.in_place() if self._average else contextlib.nullcontext():
            self._place.alike(self._module)
            figures = evaluate_losses(
                self._called,
                self._validation,
                self.config.seed,
                config=self.config,
                stop=stop,
                place=self._place,
            )
            return figures | ({self._probe.name: self._probe()} if self._probe else {})

    def _judge(self, held: dict[str, float] | None) -> None:
        if held is None:
            return
        figure = held[self._goal.part]
        if not self._goal.better(figure, self._best_figure):
            self._stale += 1
            return
        self._best_figure, self._stale = figure, 0
        if self.config.keep == "best":
            source = self._average.tensors if self._average else self._weights
            self._best = {name: tensor.clone() for name, tensor in source.items()}

    def finish(self) -> None:
        """Leave in the module the weights that are to be kept."""
        if self._best:
            put(self._weights, self._best)
        elif self._average:
            self._average.keep()

    def keep(self, stop: Stop) -> None:
        """Write a checkpoint where one is due; after Ctrl-C write one and interrupt.

        Several processes ask each other now and then only, and at the end of an epoch.
        """
        asked = stop.asked
        due = self._checkpoints is not None and self._checkpoints.due(self._step)
        if self._place.world > 1:
            if self._position and self._step % AGREE and self._position < len(self.batches):
                return
            flags = torch.tensor([asked, due and self._place.main], device=self._place.device)
            asked, due = (bool(flag) for flag in self._place.total(flags.float()))
        if asked:
            self._interrupt()
        if due:
            self._save()

    def _interrupt(self) -> NoReturn:
        self._save()
        raise KeyboardInterrupt

    def show(self, task: Task) -> None:
        means, of = self.means.means(), self.config.epochs
        number = self.epoch
        if not means:  # between two epochs
            means, number = self.epochs[-1].train, self.epoch - 1
        part = self._goal.part if not self._goal.rises else "total"
        text = f"epoch {number}/{of}  loss {means.get(part, means['total']):.4f}"
        if self.epochs and (held := self.epochs[-1].validation):
            text += f"  validation {self._goal.word} {held[self._goal.part]:.4f}"
            text += f"  {self._probe.name} {held[self._probe.name]:.4f}" if self._probe else ""
        task.update(self.done, self.total, text)

    # --- checkpoints ------------------------------------------------------------------------

    def _save(self) -> None:
        if self._checkpoints is None:
            return
        self._checkpoints.begin()
        self._finite.check(self.epoch)
        if not self._sound():
            return
        moments, rest = self._optimizer.state()
        means = self.means.summed(self._place)
        groups = {
            "weights": self._weights,
            "unsaved": self._unsaved,
            "optimizer": moments,
            "average": self._average.tensors if self._average else {},
            "best": self._best,
            "means": means.sums,
            "generators": {"order": self.batches.state, "draws": self._draws.get_state()},
            **self._all_generators(),
        }
        state = {
            "data": self.batches.digest(),
            "processes": self._place.world,
            "optimizer": rest,
            "epoch": self.epoch,
            "position": self._position,
            "step": self._step,
            "lr": self._lr,
            "seconds": self._seconds,
            "count": means.count,
            "best": self._best_figure,
            "stale": self._stale,
            "epochs": [dataclasses.asdict(epoch) for epoch in self.epochs],
        }
        tensors = {
            f"{group}/{n}": t for group, named in groups.items() for n, t in whole(named).items()
        }
        if self._place.main:
            self._checkpoints.save(self._step, tensors, state)

    def _sound(self) -> bool:
        """Say whether every trained weight is finite: the last good state is not written over."""
        bad = [~torch.isfinite(p).all() for p in map(local, self._optimizer.parameters)]
        return not float(self._place.total(torch.stack(bad).sum().float()))

    def _all_generators(self) -> dict[str, dict[str, Tensor]]:
        """Read torch's global generators in every process, by rank."""
        found: dict[str, dict[str, Tensor]] = {}
        for name, state in read_generators(self._place.device).items():
            for rank, each in enumerate(self._place.each(state)):
                found.setdefault(f"process {rank}", {})[name] = each
        return found

    def restore(self) -> None:
        """Go on from the newest checkpoint, where there is one."""
        found = self._checkpoints.newest() if self._checkpoints else None
        if found is None:
            return
        groups: dict[str, dict[str, Tensor]] = {}
        for key, tensor in found[0].items():
            group, _, name = key.partition("/")
            groups.setdefault(group, {})[name] = tensor
        self._load(groups, found[1])

    def _load(self, groups: dict[str, dict[str, Tensor]], state: dict[str, Any]) -> None:
        if state["processes"] != self._place.world:
            raise RunError(
                f"The run was trained in {state['processes']} processes, and this is"
                f" {self._place.world}. Start as many, under torchrun where they were, since random"
                " numbers and batch statistics are each process's own."
            )
        if state["data"] != self.batches.digest():
            raise OtherExamples(OtherExamples.TEXT)
        device, held = self.batches.device, groups["weights"] | groups.get("unsaved", {})
        live = self._weights | self._unsaved
        shapes = {name: tensor.shape for name, tensor in held.items()}
        found = {name: tensor.shape for name, tensor in live.items()}
        if changed := sorted(n for n in shapes | found if shapes.get(n) != found.get(n)):
            raise RunError(
                f"The model is not the one that this run began with: '{changed[0]}' was"
                f" {_shape(shapes.get(changed[0]))} and is {_shape(found.get(changed[0]))}."
                " Bring its plugin back to what it was, or train anew."
            )
        put(live, held)
        self._optimizer.load(groups.get("optimizer", {}), state["optimizer"])
        if self._average:
            self._average.load(groups["average"])
        best = groups.get("best", {})
        self._best = {name: like(tensor, self._weights[name]) for name, tensor in best.items()}
        mine = self._place.main  # the sums are those of all processes
        sums = {n: t.to(device) for n, t in groups.get("means", {}).items()}
        self.means.sums = {n: t if mine else torch.zeros_like(t) for n, t in sums.items()}
        self.means.count = state["count"] if mine else 0
        self.batches.restore(groups["generators"]["order"])
        self._draws.set_state(groups["generators"]["draws"])
        set_generators(groups[f"process {self._place.rank}"], device)
        self.epoch, self._position, self._step = state["epoch"], state["position"], state["step"]
        self._lr, self._seconds = state["lr"], state["seconds"]
        self._best_figure, self._stale = state["best"], state["stale"]
        self.epochs = [Epoch(**epoch) for epoch in state["epochs"]]


def _shape(shape: torch.Size | None) -> str:
    return "absent" if shape is None else "×".join(map(str, shape)) or "a scalar"
