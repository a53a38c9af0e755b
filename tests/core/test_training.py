"""`fit` against a loop written by hand, what it leaves alone, and what it refuses."""

from __future__ import annotations

import contextlib
import io
import math
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import functional as F

from zoo import pipeline
from zoo.api import Component, Losses, TrainConfig
from zoo.data import Batches
from zoo.errors import TrainingError, Unfit, UsageError
from zoo.pipeline import Workspace
from zoo.progress import Plain, reporting
from zoo.training import (
    Checkpoints,
    Epoch,
    cpu_threads,
    evaluate_losses,
    fit,
    listening,
    outputs,
    resolve_device,
    seed_everything,
)

CONFIG = TrainConfig(
    epochs=3, batch_size=16, optimizer="sgd", lr=0.05, weight_decay=0.0, schedule="constant"
)


class Regression(nn.Module):
    """A small network with a norm, which `fit` sees as any module that returns losses."""

    def __init__(self, *, dropout: float = 0.0, noise: float = 0.0) -> None:
        super().__init__()
        # A bias before the norm would have no gradient but rounding, which Adam amplifies.
        self.net = nn.Sequential(
            nn.Linear(4, 8, bias=False),
            nn.BatchNorm1d(8),
            nn.Tanh(),
            nn.Dropout(dropout),
            nn.Linear(8, 1),
        )
        self.noise = noise

    def forward(self, inputs: Tensor, targets: Tensor) -> Losses:
        noisy = inputs + self.noise * torch.randn_like(inputs)
        error = F.mse_loss(self.net(noisy).flatten(), targets)
        return Losses(error, twice=2 * error)


def examples(count: int = 50) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    inputs = torch.randn(count, 4, generator=generator)
    return inputs, inputs.sum(1).tanh()


def made(seed: int = 0, *, dropout: float = 0.0, noise: float = 0.0) -> Regression:
    torch.manual_seed(seed)
    return Regression(dropout=dropout, noise=noise)


def shuffled(seed: int = 0, size: int = 16) -> Batches:
    return Batches(examples(), size, seed=seed)


def change(config: TrainConfig, **changes: object) -> TrainConfig:
    fields = {name: getattr(config, name) for name in config.__dataclass_fields__}
    return TrainConfig(**(fields | changes))


def bytes_of(module: nn.Module) -> bytes:
    return save({name: tensor.contiguous() for name, tensor in module.state_dict().items()})


# --- against a loop written by hand ---------------------------------------------------------


class BySgd:
    """Stochastic gradient descent with momentum, by its formula."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.velocity: dict[int, Tensor] = {}

    def __call__(self, number: int, parameter: Tensor, gradient: Tensor, lr: float) -> None:
        if parameter.ndim > 1:
            gradient = gradient + self.config.weight_decay * parameter
        before = self.velocity.get(number)
        speed = gradient if before is None else self.config.momentum * before + gradient
        self.velocity[number] = speed.clone()
        if self.config.nesterov:  # where momentum alone would have it next
            speed = gradient + self.config.momentum * speed
        parameter -= lr * speed


class ByAdam:
    """Adam (arXiv 1412.6980), its decay in the gradient or, decoupled, AdamW's (1711.05101)."""

    def __init__(self, config: TrainConfig, *, decoupled: bool) -> None:
        self.config, self.decoupled = config, decoupled
        self.moments: dict[int, tuple[int, Tensor, Tensor]] = {}

    def __call__(self, number: int, parameter: Tensor, gradient: Tensor, lr: float) -> None:
        decay = self.config.weight_decay if parameter.ndim > 1 else 0.0
        if self.decoupled:
            parameter -= lr * decay * parameter
        else:
            gradient = gradient + decay * parameter
        zero = torch.zeros_like(gradient)
        step, first, second = self.moments.get(number, (0, zero, zero))
        step, first = step + 1, 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        self.moments[number] = step, first, second
        scaled = second.div(1 - 0.999**step).sqrt() + 1e-8
        parameter -= lr * first / (1 - 0.9**step) / scaled


UPDATES: dict[str, Callable[[TrainConfig], Callable[[int, Tensor, Tensor, float], None]]] = {
    "sgd": BySgd,
    "adam": lambda config: ByAdam(config, decoupled=False),
    "adamw": lambda config: ByAdam(config, decoupled=True),
}


def rate(config: TrainConfig, step: int, steps: int) -> float:
    """The learning rate of a step, from 0, of so many steps."""

    def between(start: float, stop: float, share: float) -> float:
        return stop + (start - stop) * (1 + math.cos(math.pi * share)) / 2

    if config.schedule == "constant":
        return config.lr
    if config.schedule == "cosine":
        return between(config.lr, 0.0, step / steps)
    # One cycle (arXiv 1708.07120): from a 25th up over three tenths, then down to next to nothing.
    peak = 0.3 * (steps + 1) - 1
    if step <= peak:
        return between(config.lr / 25, config.lr, step / peak)
    return between(config.lr, config.lr / 25e4, (step - peak) / (steps - peak))


def by_hand(module: Regression, batches: Batches, config: TrainConfig) -> list[float]:
    """Train a module without any optimizer of torch's; return the mean loss of each epoch."""
    update = UPDATES[config.optimizer](config)
    steps, step, means = len(batches) * config.epochs, 0, []
    module.train()
    for _ in range(config.epochs):
        total = 0.0
        for inputs, targets in batches:
            loss = module(inputs, targets).total
            gradients = torch.autograd.grad(loss, list(module.parameters()))
            with torch.no_grad():
                for number, pair in enumerate(zip(module.parameters(), gradients, strict=True)):
                    update(number, *pair, rate(config, step, steps))
            total += loss.item() * len(inputs)
            step += 1
        means.append(total / batches.examples)
    return means


@pytest.mark.parametrize(
    ("optimizer", "schedule", "lr", "decay"),
    [
        ("sgd", "constant", 0.05, 0.0),
        ("sgd", "cosine", 0.05, 0.1),
        ("adam", "cosine", 0.01, 0.1),
        ("adamw", "one-cycle", 0.02, 0.1),
        ("adamw", "cosine", 0.02, 0.0),
        ("sgd", "one-cycle", 0.05, 0.0),  # its momentum is not cycled
    ],
)
@pytest.mark.parametrize("size", [16, 49])
def test_fit_is_the_loop_written_by_hand(
    optimizer: str, schedule: str, lr: float, decay: float, size: int
) -> None:
    config = change(
        CONFIG, optimizer=optimizer, schedule=schedule, lr=lr, weight_decay=decay, epochs=4
    )
    ours, theirs = made(), made()
    epochs = fit(ours, shuffled(size=size), config)
    means = by_hand(theirs, shuffled(size=size), config)
    for (name, found), expected in zip(
        ours.state_dict().items(), theirs.state_dict().values(), strict=True
    ):
        assert torch.allclose(found, expected, rtol=1e-4, atol=2e-5), name
    assert [epoch.train["total"] for epoch in epochs] == pytest.approx(means, rel=1e-4)
    steps = len(shuffled(size=size)) * 4
    for number, epoch in enumerate(epochs, 1):
        last = rate(config, number * len(shuffled(size=size)) - 1, steps)
        assert epoch.lr == pytest.approx(last, rel=1e-6)


@pytest.mark.parametrize(
    ("momentum", "nesterov"), [(0.0, False), (0.5, False), (0.5, True), (0.9, True)]
)
def test_momentum_is_the_configs(momentum: float, nesterov: bool) -> None:
    config = change(CONFIG, momentum=momentum, nesterov=nesterov, weight_decay=0.1)
    ours, theirs = made(), made()
    fit(ours, shuffled(), config)
    by_hand(theirs, shuffled(), config)
    assert torch.allclose(ours.net[0].weight, theirs.net[0].weight, atol=1e-6)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_weight_decay_spares_vectors(optimizer: str) -> None:
    class Idle(nn.Module):
        """Its gradient is zero everywhere, so that only decay can move it."""

        def __init__(self) -> None:
            super().__init__()
            self.matrix = nn.Parameter(torch.ones(3, 2))
            self.kernel = nn.Parameter(torch.ones(2, 2, 1, 1))
            self.bias = nn.Parameter(torch.ones(3))
            self.scalar = nn.Parameter(torch.ones(()))

        def forward(self, inputs: Tensor, targets: Tensor) -> Losses:
            return Losses(sum((p.sum() for p in self.parameters()), torch.zeros(())) * 0)

    module = Idle()
    fit(module, shuffled(), change(CONFIG, optimizer=optimizer, weight_decay=0.5))
    assert torch.equal(module.bias, torch.ones(3))
    assert torch.equal(module.scalar, torch.ones(()))
    assert bool((module.matrix < 1).all())
    assert bool((module.kernel < 1).all())
    if optimizer != "adam":  # whose decay is a gradient, normalized away
        assert torch.allclose(module.matrix, torch.tensor((1 - 0.05 * 0.5) ** 12), atol=1e-6) == (
            optimizer == "adamw"
        )


def test_epochs_tell_means_over_examples_and_parts() -> None:
    module = made()
    told: list[Epoch] = []
    epochs = fit(
        module, shuffled(), CONFIG, validation=Batches(examples(21), 8), on_epoch=told.append
    )
    assert told == epochs
    assert [epoch.epoch for epoch in epochs] == [1, 2, 3]
    for epoch in epochs:
        assert set(epoch.train) == {"total", "twice"}
        assert epoch.train["twice"] == pytest.approx(2 * epoch.train["total"])
        assert epoch.seconds >= 0
    module.eval()
    whole = module(*examples(21)).total.item()
    assert epochs[-1].validation is not None
    # Batches of 8, 8 and 5 weigh as many as they hold.
    assert epochs[-1].validation["total"] == pytest.approx(whole, rel=1e-5)
    assert fit(made(), shuffled(), CONFIG)[0].validation is None


# --- reproducible ---------------------------------------------------------------------------


def run_once(seed: int) -> bytes:
    seed_everything(seed)
    module = Regression(dropout=0.3, noise=0.1)
    seed_everything(seed)
    fit(module, shuffled(seed), change(CONFIG, seed=seed))
    return bytes_of(module)


def test_one_seed_gives_equal_bytes_and_another_does_not() -> None:
    first = run_once(0)
    torch.rand(17)  # what was drawn before must not matter
    assert run_once(0) == first
    assert run_once(1) != first


def test_one_seed_gives_equal_weight_files(workspace: Workspace) -> None:
    def weights(seed: int) -> bytes:
        run = pipeline.pretrain(
            Component("mlp", widths=(8,), features=4, dropout=0.2),
            objective="denoise",
            training=TrainConfig(epochs=1, seed=seed),
            workspace=workspace,
        )
        return (run.folder / "weights.safetensors").read_bytes()

    first = weights(0)
    torch.manual_seed(123)
    assert weights(0) == first
    assert weights(1) != first


def test_validation_does_not_change_training() -> None:
    """Neither its random numbers nor its mode reach the next epoch."""
    plain, watched = made(dropout=0.3, noise=0.1), made(dropout=0.3, noise=0.1)
    seed_everything(3)
    fit(plain, shuffled(), CONFIG)
    after = torch.rand(4)
    seed_everything(3)
    fit(watched, shuffled(), CONFIG, validation=Batches(examples(20), 7))
    assert bytes_of(plain) == bytes_of(watched)
    assert torch.equal(torch.rand(4), after)


def test_a_noisy_objective_is_evaluated_alike_each_epoch() -> None:
    module = made(noise=1.0)
    held = Batches(examples(20), 7)
    # A rate of zero keeps the weights; the norm has to be kept, too.
    module.net[1].momentum = 0.0
    epochs = fit(module, shuffled(), change(CONFIG, lr=0.0), validation=held)
    assert len({epoch.train["total"] for epoch in epochs}) == 3  # the noise differs in training
    assert len({epoch.validation["total"] for epoch in epochs if epoch.validation}) == 1
    state = torch.get_rng_state()
    assert evaluate_losses(module, held, 0) == evaluate_losses(module, held, 0)
    assert evaluate_losses(module, held, 0) != evaluate_losses(module, held, 1)
    assert torch.equal(torch.get_rng_state(), state)


def test_evaluation_builds_no_gradient() -> None:
    module = made()
    seen: list[bool] = []
    module.net.register_forward_hook(lambda *args: seen.append(args[2].requires_grad))
    evaluate_losses(module, Batches(examples(20), 7), 0)
    assert seen == [False] * 3
    assert all(parameter.grad is None for parameter in module.parameters())


def test_augmentation_changes_what_is_trained_on_alone() -> None:
    """By draws of its own: the config's seed gives them, and neither order nor noise moves."""
    drawn: list[list[float]] = []

    def augment(batch: tuple[Tensor, ...], generator: torch.Generator) -> tuple[Tensor, ...]:
        drawn.append(torch.rand(len(batch[0]), generator=generator).tolist())
        return batch

    def trained(**options: object) -> tuple[bytes, list[list[float]]]:
        module = made(dropout=0.3, noise=0.1)
        seed_everything(3)
        drawn.clear()
        fit(
            module,
            shuffled(),
            change(CONFIG, seed=8),
            validation=Batches(examples(20), 7),
            **options,
        )  # type: ignore[arg-type]
        return bytes_of(module), [*drawn]

    plain, none = trained()
    augmented, draws = trained(augment=augment)
    assert augmented == plain
    assert none == []
    generator = torch.Generator().manual_seed(8)
    sizes = [16, 16, 16, 2] * 3  # and none of validation
    assert draws == [torch.rand(size, generator=generator).tolist() for size in sizes]
    changed, _ = trained(augment=lambda batch, generator: (batch[0] * 0, batch[1]))
    assert changed != plain


# --- what is refused, and what is left alone ------------------------------------------------


class Failing(Regression):
    """Its loss ceases to be a number in one epoch, in training or in evaluation."""

    def __init__(self, value: float, epoch: int, *, training: bool) -> None:
        super().__init__()
        self.value, self.epoch, self.on = value, epoch, training
        self.started = 0

    def train(self, mode: bool = True) -> Failing:
        self.started += mode
        super().train(mode)
        return self

    def forward(self, inputs: Tensor, targets: Tensor) -> Losses:
        losses = super().forward(inputs, targets)
        if self.started == self.epoch and self.training == self.on:
            return Losses(losses.total * self.value)
        return losses


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("epoch", [1, 2])
def test_a_loss_that_is_not_finite_ends_training(value: float, epoch: int) -> None:
    told: list[Epoch] = []
    with pytest.raises(TrainingError) as caught:
        fit(
            Failing(value, epoch, training=True),
            shuffled(),
            change(CONFIG, momentum=0.0, lr=0.25),
            on_epoch=told.append,
        )
    message = str(caught.value)
    assert f"in epoch {epoch}." in message
    assert "Type a smaller --lr than 0.25." in message
    assert len(told) == epoch - 1


def test_a_rate_far_too_large_ends_training() -> None:
    with pytest.raises(TrainingError, match=r"The loss is (inf|nan) at step \d+, in epoch \d"):
        fit(made(), shuffled(), change(CONFIG, lr=1e30))


def test_a_validation_loss_that_is_not_finite_ends_training() -> None:
    """The last step of an epoch may break the weights: only validation sees that."""
    module = Failing(math.nan, 2, training=False)
    with pytest.raises(TrainingError, match="in epoch 2"):
        fit(module, shuffled(), CONFIG, validation=Batches(examples(20), 7))


def test_no_epoch_changes_nothing() -> None:
    module = made()
    before = bytes_of(module)
    told: list[Epoch] = []
    held = Batches(examples(9), 4)
    assert (
        fit(module, shuffled(), change(CONFIG, epochs=0), validation=held, on_epoch=told.append)
        == told
        == []
    )
    assert bytes_of(module) == before


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_frozen_parameters_are_not_trained(optimizer: str) -> None:
    module = made()
    module.net[0].requires_grad_(False)
    before = module.net[0].weight.clone()
    last = module.net[4].weight.clone()
    fit(module, shuffled(), change(CONFIG, optimizer=optimizer, weight_decay=0.5))
    assert torch.equal(module.net[0].weight, before)  # nor decayed
    assert module.net[0].weight.grad is None
    assert not torch.equal(module.net[4].weight, last)


def test_nothing_left_to_train() -> None:
    module = made().requires_grad_(False)
    with pytest.raises(Unfit) as caught:
        fit(module, shuffled(), CONFIG)
    assert str(caught.value) == "Nothing is left to train: every parameter is frozen."


# --- a loss that is no number, step by step --------------------------------------------------


class FailsAt(Regression):
    """Its loss is no number in one call in training; its weights may be none before that."""

    def __init__(self, call: int) -> None:
        super().__init__()
        self.left = call

    def forward(self, inputs: Tensor, targets: Tensor) -> Losses:
        losses = super().forward(inputs, targets)
        self.left -= self.training
        return losses if self.left else Losses(losses.total * math.nan)


@pytest.mark.parametrize(
    ("call", "accumulate", "step", "epoch"),
    [(1, 1, 1, 1), (3, 1, 3, 1), (4, 1, 4, 1), (5, 1, 5, 2), (12, 1, 12, 3),
     (3, 2, 2, 1), (4, 2, 2, 1), (5, 2, 3, 2), (4, 3, 2, 1)],
)  # fmt: skip
def test_the_step_and_the_epoch_of_a_loss_that_is_no_number(
    call: int, accumulate: int, step: int, epoch: int
) -> None:
    """Four batches an epoch; with two or three a step they are two steps."""
    told: list[Epoch] = []
    torch.manual_seed(0)
    with pytest.raises(TrainingError) as caught:
        fit(
            FailsAt(call),
            shuffled(),
            change(CONFIG, lr=0.001, accumulate=accumulate),
            on_epoch=told.append,
        )
    assert str(caught.value) == (
        f"The loss is nan at step {step}, in epoch {epoch}. Type a smaller --lr than 0.001."
    )
    assert len(told) == epoch - 1


def test_a_part_that_is_no_number_is_named() -> None:
    class Part(Regression):
        def forward(self, inputs: Tensor, targets: Tensor) -> Losses:
            losses = super().forward(inputs, targets)
            return Losses(losses.total, ratio=losses.total / 0)

    torch.manual_seed(0)
    with pytest.raises(TrainingError) as caught:
        fit(Part(), shuffled(), CONFIG)
    assert str(caught.value) == (
        "The loss part 'ratio' is inf at step 4, in epoch 1. Type a smaller --lr than 0.05."
    )


class EveryStep(Checkpoints):
    """A checkpoint after each step, whatever it costs."""

    def due(self, step: int) -> bool:
        return True


@pytest.mark.parametrize("call", [1, 2, 7, 11])
def test_checkpoints_are_of_before_the_loss_was_no_number(call: int, tmp_path: Path) -> None:
    """What is kept is what a run has that ended one step earlier."""
    module = FailsAt(call)
    module.load_state_dict(made().state_dict())
    checkpoints = EveryStep(tmp_path / "checkpoint")
    with pytest.raises(TrainingError) as caught:
        fit(module, shuffled(), CONFIG, checkpoints=checkpoints)
    good = f" The last good checkpoint is that of step {call - 1}." if call > 1 else ""
    assert str(caught.value).endswith(f" Type a smaller --lr than 0.05.{good}")
    found = Checkpoints(tmp_path / "checkpoint").newest()
    assert (found is None) == (call == 1)
    if found:
        assert found[1]["step"] == call - 1
        assert all(torch.isfinite(t).all() for t in found[0].values() if t.is_floating_point())


def test_weights_that_are_no_numbers_are_not_written(tmp_path: Path) -> None:
    """A step may break what no loss has shown yet."""

    class Breaks(Regression):
        def forward(self, inputs: Tensor, targets: Tensor) -> Losses:
            weight = self.net[4].weight
            if self.training and checkpoints.last_step() == 5:
                weight.register_hook(lambda gradient: gradient * math.inf)
            return super().forward(inputs, targets)

    torch.manual_seed(0)
    checkpoints = EveryStep(tmp_path / "checkpoint")
    with pytest.raises(TrainingError, match=r"at step 7, in epoch 2.* checkpoint .* step 5\.$"):
        fit(Breaks(), shuffled(), CONFIG, checkpoints=checkpoints)
    assert checkpoints.last_step() == 5


# --- precision, layout, compilation ---------------------------------------------------------


class Pictures(nn.Module):
    """Convolutions that tell the type and the layout of what passes through them."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
            nn.ConvTranspose2d(8, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 8 * 8, 1),
        )  # fmt: skip
        self.seen: set[tuple[bool, torch.dtype]] = set()
        self.innermost: set[bool] = set()

    def forward(self, inputs: Tensor) -> Losses:
        hidden = self.net[0](inputs)
        self.seen.add((self.training, hidden.dtype))
        self.innermost.add(hidden.is_contiguous(memory_format=torch.channels_last))
        return Losses(((self.net[1:](hidden).flatten() - inputs.mean((1, 2, 3))) ** 2).mean())


def pictures(count: int = 40) -> Tensor:
    return torch.randn(count, 3, 6, 6, generator=torch.Generator().manual_seed(9))


def filmed(**changes: object) -> tuple[Pictures, list[Epoch]]:
    torch.manual_seed(0)
    module = Pictures()
    epochs = fit(
        module,
        Batches((pictures(),), 8, seed=0),
        change(CONFIG, lr=0.01, **changes),
        validation=Batches((pictures(12),), 8),
    )
    return module, epochs


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)]
)
def test_the_precision_is_that_of_the_forward_pass(precision: str, dtype: torch.dtype) -> None:
    module, epochs = filmed(precision=precision)
    assert module.seen == {(True, dtype), (False, dtype)}  # validation computes alike
    assert {p.dtype for p in module.parameters()} == {torch.float32}
    exact, wanted = filmed()
    for epoch, other in zip(epochs, wanted, strict=True):
        assert epoch.train["total"] == pytest.approx(other.train["total"], rel=0.1)
        assert (epoch.train == other.train) == (precision == "fp32")
    assert (bytes_of(module) == bytes_of(exact)) == (precision == "fp32")


def test_means_are_taken_in_full_precision() -> None:
    """Whatever type a loss has: a sum in bfloat16 ceases to grow after 256 equal batches."""

    class Low(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(4, 1)
            nn.init.zeros_(self.net.weight)
            nn.init.ones_(self.net.bias)

        def forward(self, inputs: Tensor) -> Losses:
            found = self.net(inputs).mean()
            assert found.dtype == torch.bfloat16
            return Losses(found, half=found / 2)

    def many() -> Batches:
        return Batches((torch.ones(1500, 4),), 4)

    config = change(CONFIG, epochs=1, lr=0.0, precision="bf16")
    [epoch] = fit(Low(), many(), config, validation=many())
    assert epoch.train == epoch.validation == {"total": 1.0, "half": 0.5}


def test_channels_lie_innermost_and_change_no_more_than_rounding() -> None:
    inner, outer = filmed(channels_last=True), filmed(channels_last=False)
    for (module, _), wanted in ((inner, True), (outer, False)):
        assert module.innermost == {wanted}
        for layer in (module.net[0], module.net[3]):
            weight = layer.weight
            assert weight.is_contiguous(memory_format=torch.channels_last) is wanted
    pairs = zip(inner[0].state_dict().values(), outer[0].state_dict().values(), strict=True)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in pairs)
    for epoch, other in zip(inner[1], outer[1], strict=True):
        assert epoch.train["total"] == pytest.approx(other.train["total"], rel=1e-4)


def test_weights_are_saved_alike_in_either_layout(workspace: Workspace) -> None:
    """In a file the order is a tensor's own, whatever memory's was."""
    saved = []
    for channels_last in (True, False):
        run = pipeline.pretrain(
            Component("conv", channels=(4, 6), features=4),
            training=TrainConfig(epochs=1, channels_last=channels_last, threads=1),
            workspace=workspace,
        )
        saved.append(load_file(Path(run.folder) / "weights.safetensors"))
    assert saved[0].keys() == saved[1].keys()
    for name, tensor in saved[0].items():
        assert tensor.is_contiguous()
        assert torch.allclose(tensor, saved[1][name], atol=1e-3), name


@pytest.mark.slow
def test_a_compiled_module_trains_as_a_plain_one() -> None:
    compiled, epochs = filmed(compile=True)
    plain, wanted = filmed()
    pairs = zip(compiled.state_dict().values(), plain.state_dict().values(), strict=True)
    assert compiled.state_dict().keys() == plain.state_dict().keys()
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in pairs)
    for epoch, other in zip(epochs, wanted, strict=True):
        assert epoch.train["total"] == pytest.approx(other.train["total"], rel=1e-3)


# --- devices, threads, outputs --------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["cuda:99", "nonsense", "", "cpu:-1", "cuda:x", "3", "fpga", "hpu", "privateuseone"],
)
def test_a_device_that_is_not_there(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve_device(name)
    message = str(caught.value)
    assert message.startswith(f"The device '{name}' cannot be used: ")
    assert message.endswith("Type --device cpu, or auto.")
    assert len(message.splitlines()) == 2  # torch's own text may run over many lines


def test_the_device_meta_holds_no_numbers() -> None:
    with pytest.raises(UsageError) as caught:
        resolve_device("meta")
    assert str(caught.value) == ("The device 'meta' holds no numbers. Type --device cpu, or auto.")


def test_devices_that_are_there() -> None:
    assert resolve_device("cpu") == torch.device("cpu")
    assert torch.ones(2, device=resolve_device("auto")).sum().item() == 2


def test_cpu_threads_restores() -> None:
    before = torch.get_num_threads()
    with cpu_threads(before + 1) as count:
        assert count == torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
    with cpu_threads(None) as count:
        assert count == torch.get_num_threads() == before
    with pytest.raises(ZeroDivisionError), cpu_threads(before + 1):
        raise ZeroDivisionError
    assert torch.get_num_threads() == before


def test_no_more_threads_than_the_machine_is_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a run has that was made on a larger one; of 100,000 the process would end."""
    monkeypatch.setattr("zoo.machine.cores", lambda: 20)
    stream = io.StringIO()
    with reporting(Plain(stream)):
        with cpu_threads(4096) as count:
            assert count == 80
        with cpu_threads(80) as count:
            assert count == 80
    assert stream.getvalue().splitlines() == [
        "80 threads in the place of 4096: this machine has fewer cores"
    ]


@pytest.mark.parametrize("count", [1, 9, 10, 21])
def test_outputs_are_those_of_evaluation(count: int) -> None:
    module = made(dropout=0.5).net.train()
    inputs = examples(count)[0]
    found = outputs(module, inputs, batch_size=10)
    assert not module.training
    assert not found.requires_grad
    assert found.device.type == "cpu"
    module.eval()
    assert torch.allclose(found, module(inputs), atol=1e-6)


def test_outputs_of_a_module_without_parameters() -> None:
    inputs = examples(5)[0]
    assert torch.equal(outputs(nn.Tanh(), inputs, batch_size=2), inputs.tanh())


def test_the_weights_of_a_run_are_those_of_the_last_epoch(workspace: Workspace) -> None:
    """A run of no epoch holds what `build` made under its seed."""
    training = TrainConfig(epochs=0, seed=4)
    component = Component("mlp", widths=(8,), features=4)
    run = pipeline.pretrain(component, training=training, workspace=workspace)
    torch.manual_seed(4)
    entry = workspace.registry.lookup("backbone", "mlp")
    fresh = entry.spec.build(
        entry.configure({"widths": (8,), "features": 4}), run.input
    ).state_dict()
    saved = load_file(Path(run.folder) / "weights.safetensors")
    assert {n: t for n, t in saved.items() if not n.startswith("objective.")}.keys() == fresh.keys()
    assert all(torch.equal(saved[name], tensor) for name, tensor in fresh.items())


def test_an_interrupt_that_was_dropped_stops_training_at_its_first_step(tmp_path: Path) -> None:
    """As Python drops one that falls into a callback of an import, before training begins."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    told: list[Epoch] = []
    checkpoints = Checkpoints(tmp_path / "checkpoint")
    try:
        with listening():
            with contextlib.suppress(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
            with pytest.raises(KeyboardInterrupt):
                fit(made(), shuffled(), CONFIG, on_epoch=told.append, checkpoints=checkpoints)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert told == []
    assert checkpoints.last_step() == 1
