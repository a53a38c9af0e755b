"""What tests do once and share must not hide what they look at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn

from . import warm


class Scaled(nn.Module):
    def __init__(self, scale: Any, table: Tensor | None = None) -> None:
        super().__init__()
        self._scale, self._table = scale, table

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs * self._scale


def test_the_same_modules_have_one_address() -> None:
    assert warm.address(Scaled(2.0)) == warm.address(Scaled(2.0)) is not None
    pair = (nn.Sequential(nn.Linear(2, 2), Scaled(2.0)) for _ in range(2))
    first, second = pair
    second.load_state_dict(first.state_dict())
    assert warm.address(first, 18) == warm.address(second, 18) != warm.address(second, 20)


@pytest.mark.parametrize(
    "change",
    [
        lambda made: setattr(made[1], "_scale", 3.0),
        lambda made: setattr(made[1], "scale", 2.0),
        lambda made: made[1]._table[500].fill_(1),  # which repr leaves out
        lambda made: made[0].bias.data.add_(1),
        lambda made: made.eval(),
        lambda made: setattr(made, "1", nn.Identity()),
    ],
    ids=["private setting", "another attribute", "large tensor", "weight", "mode", "class"],
)
def test_what_changes_a_graph_changes_the_address(change: Callable[[Any], object]) -> None:
    made: Any = nn.Sequential(nn.Linear(2, 2), Scaled(2.0, torch.zeros(2000)))
    before = warm.address(made)
    change(made)
    assert warm.address(made) != before


def test_what_is_known_by_its_place_in_memory_has_none() -> None:
    assert warm.address(Scaled(lambda: 2.0)) is None
    hooked = Scaled(2.0)
    hooked.register_forward_hook(lambda *_: None)
    assert warm.address(hooked) is None


def test_a_graph_is_kept_where_there_is_an_address() -> None:
    traced: list[Any] = []

    def trace(deployed: Any, example: Tensor, opset: int, *, fixed: bool) -> Any:
        traced.append(deployed)
        return onnx.ModelProto(ir_version=len(traced))

    once = warm.tracing_once(trace)
    for scale in (2.0, 2.0, 3.0, len, len):
        once(Scaled(scale), torch.zeros(1), 18, fixed=False)
    assert [each._scale for each in traced] == [2.0, 3.0, len]
    once(Scaled(traced.append), torch.zeros(1), 18, fixed=False)
    for _ in range(2):
        once(Scaled(lambda: 1), torch.zeros(1), 18, fixed=False)
    assert len(traced) == 6
