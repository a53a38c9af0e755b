"""What is to be trained takes a step on zeros before data is loaded, and a run is begun."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo import pipeline
from zoo.errors import OutOfMemory, PluginFault, recurs


class Flat(torch.autograd.Function):
    """Passes through; going back it takes contiguous gradients alone."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor) -> Tensor:
        return inputs.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return gradient.view(-1).view(gradient.shape)


class Net(nn.Module):
    """A convolution and a layer, flattened by `flatten`, which is what some people get wrong."""

    def __init__(self, flatten: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3, padding=1)
        self.fc = nn.Linear(3 * 8 * 8, 8)
        self.flatten = flatten

    def forward(self, inputs: Tensor) -> Tensor:
        codes: Tensor = self.fc(self.flatten(self, self.conv(inputs).relu()))
        return codes


def plain(net: nn.Module, maps: Tensor) -> Tensor:
    return maps.flatten(1)


def view(net: nn.Module, maps: Tensor) -> Tensor:
    return maps.view(len(maps), -1)


def view_in_evaluation(net: nn.Module, maps: Tensor) -> Tensor:
    return maps.flatten(1) if net.training else view(net, maps)


def view_going_back(net: nn.Module, maps: Tensor) -> Tensor:
    return F.avg_pool2d(Flat.apply(maps), 1).flatten(1)


def broken(net: nn.Module, maps: Tensor) -> Tensor:
    if net.training:
        raise RuntimeError("no such kernel.")
    return maps.flatten(1)


def single(net: nn.Module, maps: Tensor) -> Tensor:
    if maps.dtype != torch.float32:
        raise TypeError(f"takes float32, not {maps.dtype}")
    return maps.flatten(1)


def contiguous(notes: list[str]) -> list[str]:
    return [text for text in notes if "contiguous" in text]


# --- layout ---------------------------------------------------------------------------------


@pytest.mark.parametrize("flatten", [view, view_in_evaluation])
def test_code_that_wants_contiguous_tensors_is_trained_with_them(
    flatten: Callable[..., Tensor], mine: Any
) -> None:
    """In each of the stages; the run says so, so that `resume` and `reproduce` do the same."""
    mine.encoder = lambda: Net(flatten)
    finetuned = mine.finetune()
    for run in (finetuned, mine.self_train(finetuned), mine.pretrain()):
        assert run.record.training["channels_last"] is False
    line = view.__code__.co_firstlineno + 1
    assert contiguous(mine.notes.said) == 3 * [
        f"backbone 'mine': its code wants contiguous tensors (test_trial.py:{line}): view size is"
        " not compatible with input tensor's size and stride; training with --no-channels-last"
    ]
    asked = mine.finetune(dataclasses.replace(mine.training, channels_last=False))
    assert asked.record.weights_sha256 == finetuned.record.weights_sha256


def strided(net: nn.Module, maps: Tensor) -> Tensor:
    _, channels, height, width = maps.shape
    strides = (channels * height * width, height * width, width, 1)
    return maps.as_strided(maps.shape, strides).flatten(1)


def branching(net: nn.Module, maps: Tensor) -> Tensor:
    return (maps if maps.is_contiguous() else maps * 2).flatten(1)


@pytest.mark.parametrize("flatten", [strided, branching])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_answers_by_how_tensors_lie_is_trained_as_it_will_be_loaded(
    flatten: Callable[..., Tensor], precision: Any, mine: Any
) -> None:
    mine.encoder = lambda: Net(flatten)
    mine.training = dataclasses.replace(mine.training, precision=precision, channels_last=True)
    finetuned = mine.finetune()
    for run in (finetuned, mine.self_train(finetuned), mine.pretrain()):
        assert run.record.training["channels_last"] is False
    assert contiguous(mine.notes.said) == 3 * [
        "backbone 'mine': its answers are others where tensors lie contiguous, as in a loaded run;"
        " training with --no-channels-last"
    ]
    asked = mine.finetune(dataclasses.replace(mine.training, channels_last=False))
    assert asked.record.weights_sha256 == finetuned.record.weights_sha256


def test_where_only_the_gradient_wants_it_every_component_is_named(mine: Any) -> None:
    mine.encoder = lambda: Net(view_going_back)
    run = mine.finetune()
    [said] = contiguous(mine.notes.said)
    assert said.startswith("backbone 'mine' or head 'mine': its code wants contiguous tensors")
    assert run.record.training["channels_last"] is False


def test_a_run_that_failed_for_its_layout_goes_on_without(mine: Any) -> None:
    """As runs did that an earlier version began."""
    mine.encoder = lambda: Net(view)
    run = mine.finetune()
    run.record.status, run.record.training["channels_last"] = "failed", True
    run.save()
    again = pipeline.resume(run, workspace=mine.workspace)
    assert again.record.weights_sha256 == run.record.weights_sha256
    [[found], _] = pipeline.runs(workspace=mine.workspace)
    assert found.record.training["channels_last"] is False


def test_what_takes_any_layout_is_laid_out_and_trained_as_if_it_had_not_been_tried(
    mine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dropout draws in training from the generators that the trial must leave alone."""
    from zoo.pipeline import finetuning

    mine.encoder = lambda: nn.Sequential(Net(plain), nn.Dropout(0.2))
    tried = mine.finetune()
    assert tried.record.training["channels_last"] is True
    assert not contiguous(mine.notes.said)
    monkeypatch.setattr(
        finetuning, "tried", lambda task, again, input, parts, config, place: config
    )
    assert mine.finetune().record.weights_sha256 == tried.record.weights_sha256


# --- what does not train at all -------------------------------------------------------------


def test_what_cannot_train_is_told_before_data_is_loaded(
    mine: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from zoo.pipeline import finetuning

    def load(*args: Any) -> None:
        raise AssertionError("data was loaded")

    monkeypatch.setattr(finetuning, "labelled_examples", load)
    mine.encoder = lambda: Net(broken)
    line = broken.__code__.co_firstlineno + 2
    with pytest.raises(PluginFault) as caught:
        mine.finetune()
    assert str(caught.value) == (
        "Training failed on zeros in backbone 'mine' of plugin file:mine: RuntimeError: no such"
        f" kernel (test_trial.py:{line}). For the traceback, set ZOO_STRICT=1."
    )
    assert not list(tmp_path.iterdir())


class Tired(nn.Linear):
    def forward(self, *given: Any) -> Any:
        if self.training:
            raise RuntimeError("too tired")
        return super().forward(given[0])


def test_the_component_that_failed_is_named_alone(mine: Any) -> None:
    mine.head = Tired
    with pytest.raises(PluginFault, match=r"failed on zeros in head 'mine' of .*: too tired"):
        mine.finetune()


def test_it_is_tried_in_the_precision_of_training(mine: Any) -> None:
    mine.encoder = lambda: Net(single)
    with pytest.raises(PluginFault, match=r"takes float32, not torch\.bfloat16"):
        mine.finetune(dataclasses.replace(mine.training, precision="bf16"))
    mine.finetune()


def test_what_a_hook_keeps_is_no_obstacle(mine: Any) -> None:
    """A copy's hook would write to the module that was copied."""

    class Hooked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = Net(plain)
            self.net.conv.register_forward_hook(lambda *seen: setattr(self, "maps", seen[2]))

        def forward(self, inputs: Tensor) -> Tensor:
            self.net(inputs)
            means: Tensor = self.maps.mean((2, 3))
            return means.repeat(1, 3)[:, :8]

    mine.encoder = Hooked
    assert mine.self_train(mine.finetune()).state == "finished"


# --- memory ---------------------------------------------------------------------------------


def test_where_memory_ends_nothing_is_said_of_the_layout(mine: Any) -> None:
    """torch says it on a CPU by a plain `RuntimeError`; training may find more."""
    left = [1]

    def short(net: nn.Module, maps: Tensor) -> Tensor:
        if net.training and left:
            left.pop()
            torch.empty(1 << 50)
        return maps.flatten(1)

    mine.encoder = lambda: Net(short)
    run = mine.finetune()
    assert run.record.training["channels_last"] is True
    assert not contiguous(mine.notes.said)
    assert not left


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_where_memory_ends_in_training_no_plugin_is_blamed(precision: Any, mine: Any) -> None:
    def short(net: nn.Module, maps: Tensor) -> Tensor:
        return torch.empty(1 << 50) if net.training else maps.flatten(1)

    mine.encoder = lambda: Net(short)
    mine.training = dataclasses.replace(mine.training, precision=precision)
    with pytest.raises(OutOfMemory) as caught:
        mine.finetune()
    assert str(caught.value).startswith("Out of memory in training: ")
    assert str(caught.value).endswith(
        " Close other programs, or train anew with a smaller --batch-size than 32."
    )
    assert not recurs(caught.value)
    assert not contiguous(mine.notes.said)
    [[run], _] = pipeline.runs(workspace=mine.workspace)
    assert run.state == "failed"
    assert run.record.training["channels_last"] is True


def test_where_memory_ends_between_the_guards_the_message_says_so(
    mine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zoo.pipeline import finetuning

    monkeypatch.setattr(finetuning, "make_batches", lambda *given: torch.empty(1 << 50))
    with pytest.raises(OutOfMemory, match=r"^Out of memory: .*\. Close other programs\.$"):
        mine.finetune()


def test_where_memory_ends_after_the_step_on_zeros_training_will_say_so(mine: Any) -> None:
    asked: list[int] = []

    class Short(nn.Linear):
        def __init__(self, *sizes: int) -> None:
            super().__init__(*sizes)
            self.register_load_state_dict_pre_hook(self.fail)

        def fail(self, *given: Any) -> None:
            asked.append(1)
            if len(asked) == 1:
                torch.empty(1 << 50)

    mine.head = Short
    assert mine.finetune().state == "finished"
    assert len(asked) == 2
