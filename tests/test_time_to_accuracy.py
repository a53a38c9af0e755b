"""`benchmarks/time_to_accuracy.py`: what is counted, and what the peer is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from PIL import Image

from zoo.api import TrainConfig


@pytest.fixture(scope="module")
def script(bench_script: Callable[[str], Any]) -> Any:
    return bench_script("time_to_accuracy")


def test_the_time_ends_with_the_first_epoch_that_reaches_the_goal(script: Any) -> None:
    accuracies = (0.5, 0.9, 0.7, 0.95)
    laps = [script.Lap(seconds=2.0, accuracy=accuracy) for accuracy in accuracies]
    assert script.until(laps, 0.9) == (2, 4.0)
    assert script.until(laps, 0.94) == (4, 8.0)
    assert script.until(laps, 0.96) is None


def test_the_peer_changes_pictures_as_the_recipe_does(script: Any) -> None:
    config = TrainConfig(flip=True, shift=2, rotate=10.0, zoom=0.1, shear=5.0, erase=0.5)
    names = [type(step).__name__ for step in script.transform(config).transforms]
    assert names == [
        *("RandomHorizontalFlip", "RandomAffine", "ToTensor", "Normalize", "RandomErasing"),
    ]
    affine = script.transform(config).transforms[1]
    assert affine.translate == (2 / 28, 2 / 28)
    assert affine.scale == (0.9, 1.1)
    assert affine.degrees == [-10.0, 10.0]
    assert affine.shear == [-5.0, 5.0]


def test_without_augmentation_the_peer_sees_what_ours_sees(script: Any) -> None:
    picture = Image.effect_noise((28, 28), 90)
    raw = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).reshape(1, 28, 28)
    seen = script.transform(TrainConfig())(picture)
    assert torch.allclose(seen, raw.float() / 127.5 - 1, atol=1e-6)


def test_every_goal_is_of_a_recipe(script: Any) -> None:
    registry = script.Workspace().registry
    for goal in script.GOALS.values():
        assert registry.lookup("recipe", goal.recipe).spec.finetuning.precision == "bf16"
        assert 0.9 <= goal.accuracy < 1
