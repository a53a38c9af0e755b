"""`benchmarks/time_to_accuracy.py`: what is counted, and what the peer is given."""

from __future__ import annotations

import dataclasses
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
    accuracies, seconds = [0.5, 0.9, 0.7, 0.95], [2.0, 2.0, 3.0, 2.0]
    assert script.until(accuracies, seconds, 0.9) == (2, 4.0)
    assert script.until(accuracies, seconds, 0.94) == (4, 9.0)
    assert script.until(accuracies, seconds, 0.96) is None


def lines(script: Any, times: dict[str, list[float]]) -> dict[str, dict[str, Any]]:
    """Lines of the first goal: each loop's seconds an epoch by seed, the goal reached in two."""
    goal = next(iter(script.GOALS.values()))
    return {
        script.key_of(goal, loop, seed): {
            "recipe": goal.recipe, "goal": goal.accuracy, "epochs": goal.epochs, "method": loop,
            "seed": seed, "accuracies": [0.1, goal.accuracy, 1.0], "seconds": [each] * 3,
            "threads": 2, "cores": 2, "processor": "one", "versions": {"torch": "2.14.1"},
        }
        for loop, own in times.items()
        for seed, each in enumerate(own)
    }  # fmt: skip


def test_a_loop_is_held_against_the_peer_of_its_seed(script: Any) -> None:
    times = {script.PEER: [10.0, 30.0, 20.0], "ours, fp32": [5.0, 6.0, 5.0]}
    cells = lines(script, {**times, "ours, bf16": [2.0, 3.0, 2.0]})
    goal = next(iter(script.GOALS.values()))
    text = script.render(cells)
    # Ratios of 2, 5 and 4; times of 10, 12 and 10 seconds.
    what = f"`{goal.recipe}` | {goal.accuracy:.0%} | {goal.epochs}"
    assert f"| {what} | ours, fp32 | 5.00 |" in text
    assert "| 5.00 | 2, 2, 2 | 10.7 ± 1.2 | 4.0 | 3 |" in text
    assert "2 threads on 2 cores of one, torch 2.14.1" in text


def test_a_seed_that_misses_the_goal_has_no_time(script: Any) -> None:
    times = {loop: [1.0, 1.0] for loop in script.LOOPS}
    cells = lines(script, times)
    goal = next(iter(script.GOALS.values()))
    cells[script.key_of(goal, "ours, bf16", 1)]["accuracies"] = [0.1, 0.2, 0.3]
    assert "| ours, bf16 | 1.00 | 2, missed |  | 1.0 | 2 |" in script.render(cells)


def test_what_another_schedule_came_to_stays_in_the_table(script: Any) -> None:
    times = {loop: [1.0] for loop in script.LOOPS}
    cells = lines(script, times)
    goal = next(iter(script.GOALS.values()))
    other = dataclasses.replace(goal, epochs=goal.epochs + 1)
    for loop in script.LOOPS:
        line = {**cells[script.key_of(goal, loop, 0)], "epochs": other.epochs}
        cells[script.key_of(other, loop, 0)] = line
    text = script.render(cells)
    for each in (goal, other):
        said = f"{each.accuracy:.0%} | {each.epochs} | ours, bf16 | 1.00 | 2 | 2.0 |"
        assert said in text


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
