"""The model that is saved is the one that was validated, or the run fails and says what is lost."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from zoo import pipeline
from zoo.errors import OutOfMemory, PluginFault, recurs
from zoo.pipeline import saved_model
from zoo.pipeline.unsaved import alike, unsaved

MISSED = (
    "backbone 'mine' of plugin file:mine: with its saved weights a fresh build does not answer as"
    " the trained module does. Not saved: {}. Register whatever outputs depend on as a parameter or"
    " as a persistent buffer."
)


class Scaled(nn.Module):
    """Codes divided by running statistics, which `keep` registers or does not."""

    def __init__(self, keep: Callable[[nn.Module, str, Tensor], None]) -> None:
        super().__init__()
        self.fc = nn.Linear(64, 8)
        keep(self, "mean", torch.zeros(8))
        keep(self, "std", torch.ones(8))

    def forward(self, inputs: Tensor) -> Tensor:
        codes: Tensor = self.fc(inputs.flatten(1))
        if self.training:
            with torch.no_grad():
                self.mean = self.mean.lerp(codes.mean(0), 0.1)
                self.std = self.std.lerp(codes.std(0) + 0.1, 0.1)
        return (codes - self.mean) / self.std


def persistent(module: nn.Module, name: str, value: Tensor) -> None:
    module.register_buffer(name, value)


def temporary(module: nn.Module, name: str, value: Tensor) -> None:
    module.register_buffer(name, value, persistent=False)


class Counting(nn.Module):
    """Codes that grow once a few steps were taken, as a plain number counts them."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(64, 8)
        self.seen: dict[str, Any] = {"steps": 0}

    def forward(self, inputs: Tensor) -> Tensor:
        self.seen["steps"] += self.training
        codes: Tensor = self.fc(inputs.flatten(1))
        return codes * 2 if self.seen["steps"] > 1 else codes


# --- told before there is anything to lose --------------------------------------------------


@pytest.mark.parametrize(
    ("keep", "lost"),
    [
        (temporary, "encoder.mean (persistent=False), encoder.std (persistent=False)"),
        (setattr, "encoder.mean (an attribute), encoder.std (an attribute)"),
    ],
)
@pytest.mark.parametrize("stage", ["finetune", "pretrain"])
def test_state_that_is_not_saved_is_named_before_training(
    stage: str, keep: Any, lost: str, mine: Any, tmp_path: Path
) -> None:
    mine.encoder = lambda: Scaled(keep)
    with pytest.raises(PluginFault) as caught:
        getattr(mine, stage)()
    assert str(caught.value) == MISSED.format(lost)
    assert not list(tmp_path.iterdir())


def test_what_is_drawn_and_not_saved_is_not_equal_by_luck(
    mine: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It was never trained; a build after the same seed would have the same. Before, and after."""
    from zoo.pipeline import finetuning

    class Projected(nn.Linear):
        def __init__(self) -> None:
            super().__init__(64, 8)
            self.fixed = torch.randn(8, 8)

        def forward(self, inputs: Tensor) -> Tensor:
            return super().forward(inputs.flatten(1)) @ self.fixed

    mine.encoder = Projected
    with pytest.raises(PluginFault) as caught:
        mine.finetune()
    assert str(caught.value) == MISSED.format("encoder.fixed (an attribute)")
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(
        finetuning, "tried", lambda task, again, input, parts, config, place: config
    )
    with pytest.raises(PluginFault) as caught:
        mine.finetune()
    assert str(caught.value) == MISSED.format("encoder.fixed (an attribute)")


@pytest.mark.parametrize(
    ("part", "stage", "path"),
    [
        ("head", "finetune", "head 'mine' of plugin file:mine: .* Not saved: head.shift (an"),
        ("decoder", "pretrain", "backbone 'mine' of plugin file:mine: .* decoder.shift (an"),
        ("objective", "pretrain", "objective 'mine' of plugin file:mine: .* objective.shift (an"),
    ],
)
def test_the_component_that_loses_it_is_named(part: str, stage: str, path: str, mine: Any) -> None:
    class Shifted(nn.Module):
        """A head, a decoder or an objective with codes of its own."""

        def __init__(self, features: int = 8, width: int = 64) -> None:
            super().__init__()
            self.fc = nn.Linear(features, width)
            self.shift = torch.zeros(())

        def codes(self, backbone: Any, inputs: Tensor) -> Tensor:
            if self.training:
                self.shift = self.shift + 1
            codes: Tensor = backbone.encoder(inputs) + self.shift
            return codes

        def forward(self, codes: Any, inputs: Any = None, raw: Any = None) -> Any:
            if inputs is not None:
                return mine_losses(codes, inputs, self.codes(codes, inputs))
            if self.training:
                self.shift = self.shift + 1
            found = self.fc(codes) + self.shift
            return found.view(-1, 1, 8, 8) if found.shape[1] == 64 else found

    mine.decoder = lambda: nn.Sequential(nn.Linear(8, 64), nn.Unflatten(1, (1, 8, 8)))
    setattr(mine, part, Shifted)
    with pytest.raises(PluginFault, match=path.replace("(", r"\(")):
        getattr(mine, stage)()


def mine_losses(backbone: Any, inputs: Tensor, codes: Tensor) -> Any:
    from zoo.api import Losses

    return Losses((backbone.decoder(codes) - inputs).square().mean())


def test_a_buffer_that_is_saved_is_no_obstacle(mine: Any) -> None:
    mine.encoder = lambda: Scaled(persistent)
    run = mine.finetune(dataclasses.replace(mine.training, epochs=20), labels=400)
    assert run.record.metrics["validation"]["accuracy"] > 0.8
    assert pipeline.evaluate(run, workspace=mine.workspace).accuracy > 0.75


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({"grown": True}, r"a fresh build does not take its weights: .*encoder\.more.*Let build"),
        ({"extra": True}, r"'encoder\._extra_state' in its state is no tensor\. Keep tensors"),
        ({"numpy": True}, "in evaluation mode it returns different outputs for the same input."),
    ],
)
def test_what_could_not_be_loaded_or_asked_is_told_before_training(
    state: dict[str, bool], said: str, mine: Any, tmp_path: Path
) -> None:
    class Odd(nn.Linear):
        def __init__(self) -> None:
            super().__init__(64, 8)

        def forward(self, inputs: Tensor) -> Tensor:
            codes = super().forward(inputs.flatten(1))
            if "grown" in state and self.training:
                self.register_buffer("more", codes.mean(0).detach())
            if "numpy" in state:
                codes = codes + float(np.random.default_rng().random())
            return codes

        def get_extra_state(self) -> Any:
            if "extra" in state:
                return {"a": 1}
            raise AssertionError("not asked for")

        def set_extra_state(self, state: Any) -> None:
            pass

    if "extra" not in state:
        del Odd.get_extra_state, Odd.set_extra_state
    mine.encoder = Odd
    with pytest.raises(PluginFault, match=said):
        mine.finetune()
    assert not list(tmp_path.iterdir())


# --- told when training ends ----------------------------------------------------------------


def test_what_only_training_changes_fails_the_run(mine: Any, tmp_path: Path) -> None:
    mine.encoder = Counting
    with pytest.raises(PluginFault) as caught:
        mine.finetune()
    assert str(caught.value) == MISSED.format("encoder.seen.steps (an attribute)")
    [[run], _] = pipeline.runs(workspace=mine.workspace)
    assert run.state == "failed"
    assert run.record.error == f"PluginFault: {caught.value}"
    assert run.record.weights_sha256 is None
    assert not (run.folder / "weights.safetensors").exists()


class Leaning(nn.Module):
    """Codes that come to depend on how maps lie in memory, once a few steps were taken."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 8, 3, padding=1), nn.Linear(512, 8)
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, inputs: Tensor) -> Tensor:
        maps = self.conv(inputs)
        if self.training:
            self.steps += 1
        if self.steps > 1 and not maps.is_contiguous():
            maps = maps * 2
        codes: Tensor = self.fc(maps.flatten(1))
        return codes


def test_answers_that_come_to_depend_on_the_layout_fail_the_run(mine: Any, tmp_path: Path) -> None:
    mine.encoder = Leaning
    with pytest.raises(PluginFault) as caught:
        mine.finetune()
    assert str(caught.value).startswith(
        "backbone 'mine' of plugin file:mine: once its tensors lie contiguous in memory, as in a"
        " loaded run and in a file, it answers otherwise"
    )
    assert "type --no-channels-last" in str(caught.value)
    assert not list(tmp_path.glob("*/weights.safetensors"))
    mine.finetune(dataclasses.replace(mine.training, channels_last=False))


def test_a_layout_is_judged_one_example_at_a_time() -> None:
    """Rounding turns a decision of one among many; what depends on strides turns most."""
    answers = torch.ones(64, 8)
    turned, shifted = answers.clone(), answers * 1.001
    turned[5] = -1
    assert saved_model._close(turned, answers, 0.01)
    assert saved_model._close(shifted, answers, 0.01)
    assert not saved_model._close(answers * 1.05, answers, 0.01)
    assert not saved_model._close(torch.cat([answers[:40], -answers[40:]]), answers, 0.01)
    assert not saved_model._close(answers[:, :4], answers, 0.01)


def test_no_resume_is_offered_then(cli: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "lab.py").write_text(PLUGIN)
    result = cli("--plugin", "lab.py", "finetune", "--backbone", "lab", "--quiet", "--epochs", "1")
    assert result.exit_code == 1
    assert result.stdout == ""
    [line] = result.stderr.splitlines()
    assert line.startswith("Error: backbone 'lab' of plugin file:lab: with its saved weights")
    assert "Not saved: encoder.steps (an attribute)." in line


PLUGIN = """
from zoo.api import BackboneSpec, hookimpl

def build(config, input):
    from torch import nn

    class Encoder(nn.Linear):
        steps = 0

        def forward(self, inputs):
            self.steps += self.training
            return super().forward(inputs.flatten(1)) * (2 if self.steps > 1 else 1)

    backbone = nn.Module()
    backbone.features, backbone.encoder, backbone.decoder = 8, Encoder(64, 8), None
    return backbone

@hookimpl
def zoo_backbones():
    return [BackboneSpec(name="lab", summary="counts its steps", build=build)]
"""


@pytest.mark.parametrize("options", [{}, {"validation": 0}, {"epochs": 0}, {"precision": "bf16"}])
def test_a_sound_model_passes_in_every_stage(
    options: dict[str, Any], mine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked for a batch of what was held out, else of training, and generators are left alone."""
    from zoo.pipeline import finetuning, pretraining, self_training

    asked: list[int] = []

    def check(task: Any, again: Any, raw: Tensor, *rest: Any) -> None:
        asked.append(len(raw))
        before = torch.get_rng_state()
        saved_model.check_saved(task, again, raw, *rest)
        assert torch.equal(torch.get_rng_state(), before)

    for stage in (finetuning, pretraining, self_training):
        monkeypatch.setattr(stage, "check_saved", check)
    mine.encoder = lambda: nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.3), nn.Flatten(), nn.Linear(144, 8)
    )
    training = dataclasses.replace(mine.training, **options)
    run = mine.finetune(training)
    mine.pretrain(training)
    mine.self_train(run)
    assert asked == [32, 32, 32]


@pytest.fixture
def asked_of(mine: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int], None]], None]:
    """Let a head do something in training's last check: it is given the number of examples."""
    from zoo.pipeline import finetuning

    def set_up(deed: Callable[[int], None]) -> None:
        last: list[bool] = []

        class Head(nn.Linear):
            def forward(self, codes: Tensor) -> Tensor:
                if last and len(codes) > 2:  # a build is tried on two
                    deed(len(codes))
                return super().forward(codes)

        def check(*given: Any) -> None:
            last.append(True)
            saved_model.check_saved(*given)

        mine.head = Head
        monkeypatch.setattr(finetuning, "check_saved", check)

    return set_up


def test_where_memory_ends_fewer_examples_are_asked(mine: Any, asked_of: Any) -> None:
    asked: list[int] = []

    def deed(count: int) -> None:
        asked.append(count)
        if count > 10:
            torch.empty(1 << 50)

    asked_of(deed)
    assert mine.finetune().state == "finished"
    assert asked[:2] == [32, 16]
    assert {*asked[2:]} == {8}


def test_where_memory_ends_for_a_few_the_message_says_memory(mine: Any, asked_of: Any) -> None:
    asked_of(lambda count: torch.empty(1 << 50))
    with pytest.raises(OutOfMemory) as caught:
        mine.finetune()
    assert str(caught.value).startswith(
        "Out of memory while the saved weights were checked, on a batch of 4: "
    )
    assert str(caught.value).endswith(". Close other programs.")
    assert str(caught.value).count("Out of memory") == 1
    assert not recurs(caught.value)
    [[run], _] = pipeline.runs(workspace=mine.workspace)
    assert run.state == "failed"


def test_weights_that_memory_does_not_hold_are_not_called_unfit(mine: Any) -> None:
    class Heavy(nn.Linear):
        def _load_from_state_dict(self, *given: Any) -> None:
            torch.empty(1 << 50)

    mine.head = Heavy
    with pytest.raises(OutOfMemory, match="Out of memory while the saved weights were checked"):
        mine.finetune()


def test_who_fails_in_the_check_is_named(mine: Any, asked_of: Any) -> None:
    def deed(count: int) -> None:
        raise RuntimeError("too tired.")

    asked_of(deed)
    line = deed.__code__.co_firstlineno + 1
    with pytest.raises(PluginFault) as caught:
        mine.finetune()
    assert str(caught.value) == (
        "head 'mine' of plugin file:mine: RuntimeError while its saved weights were checked: too"
        f" tired (test_saved_model.py:{line})."
    )


# --- what differs ---------------------------------------------------------------------------


class Statistics:
    """A plain object that keeps a number."""

    def __init__(self, mean: float) -> None:
        self.mean = mean


def test_whatever_a_module_holds_is_held_against_a_fresh_build() -> None:
    def built(other: int) -> nn.Module:
        module: Any = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
        torch.manual_seed(0)
        for each in module.parameters():
            nn.init.ones_(each)
        module.register_buffer("queue", torch.full((2,), float(other)), persistent=False)
        module.register_buffer("none", None)
        module.number, module.text, module.same = other, f"{other}", "same"
        module.array = np.array([np.nan, other])
        module.nested = {"list": [0, (1, other)], "last": deque([other])}
        module.object = Statistics(other)
        module.hidden = [nn.Linear(2, 2).requires_grad_(False)]
        nn.init.constant_(module.hidden[0].weight, other)
        nn.init.ones_(module.hidden[0].bias)
        module.generator = torch.Generator().manual_seed(other)
        module.nested["circle"] = module.nested
        module.call = lambda: other
        if other:
            module.late = None
        return module

    assert unsaved(built(1), built(1), "encoder") == []
    found = unsaved(built(1), built(0), "encoder")
    assert found[0] == "encoder.queue (persistent=False)"
    assert found[1:] == [
        f"encoder.{path} (an attribute)"
        for path in (
            "number", "text", "array", "nested.list.1.1", "nested.last.0", "object.mean",
            "hidden.0.weight", "generator", "late",
        )
    ]  # fmt: skip


def test_what_is_not_loaded_as_it_was_saved_is_named() -> None:
    trained, fresh = nn.Linear(2, 2), nn.Linear(2, 2)
    fresh.load_state_dict(trained.state_dict())
    nn.init.zeros_(fresh.bias)
    assert unsaved(trained, fresh) == ["bias (changed when it is loaded)"]


def test_answers_are_alike_to_the_bit_and_nan_is_nan() -> None:
    one = torch.tensor([1.0, float("nan"), float("inf")])
    assert alike(one, one.clone())
    assert not alike(one, one.nan_to_num(2.0))
    assert not alike(one, torch.tensor([1.0 + 2e-7, float("nan"), float("inf")]))
    assert not alike(one, one.double())
    assert not alike(one, one[:2])
