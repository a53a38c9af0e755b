"""What cannot be exported or saved is refused when it is built, by the name that it has there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from zoo.errors import PluginFault


def doubled(inputs: Tensor) -> Tensor:
    return inputs + inputs


class Scripted(nn.Module):
    """A layer that was scripted or traced, or a function, within."""

    def __init__(self, made: str) -> None:
        super().__init__()
        if made == "function":
            self.function = torch.jit.script(doubled)
        layer = nn.Linear(8, 8)
        self.inner = nn.Sequential(
            nn.Identity(),
            torch.jit.script(layer)
            if made == "script"
            else torch.jit.trace(layer, torch.zeros(1, 8)),
        )


ADVICE = (
    " was made by torch.jit, and what is scripted or traced cannot be exported. Write the plain"
    " module or function in its place, without torch.jit.script and torch.jit.trace; training is"
    " made faster by --compile."
)


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")
@pytest.mark.parametrize(
    ("made", "where"), [("script", "inner.1"), ("trace", "inner.1"), ("function", "function")]
)
@pytest.mark.parametrize(
    ("part", "owner"),
    [
        ("encoder", "backbone 'mine' of plugin file:mine: its .encoder."),
        ("decoder", "backbone 'mine' of plugin file:mine: its .decoder."),
        ("head", "head 'mine' of plugin file:mine: its ."),
        ("objective", "objective 'mine' of plugin file:mine: its ."),
    ],
)
def test_what_torch_jit_made_is_refused_by_name(
    part: str, owner: str, made: str, where: str, mine: Any, tmp_path: Path
) -> None:
    setattr(mine, part, lambda *sizes: Scripted(made))
    train = mine.finetune if part == "head" else mine.pretrain
    with pytest.raises(PluginFault) as caught:
        train()
    assert str(caught.value) == f"{owner}{where}{ADVICE}"
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")
def test_an_encoder_that_is_scripted_itself_is_refused(mine: Any) -> None:
    mine.encoder = lambda: torch.jit.script(nn.Sequential(nn.Flatten(), nn.Linear(64, 8)))
    with pytest.raises(PluginFault, match=r"its \.encoder was made by torch\.jit"):
        mine.finetune()


class Sparse(nn.Module):
    """A fixed product whose matrix is kept sparse."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("matrix", torch.eye(64)[:8].to_sparse())

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.sparse.mm(self.matrix, inputs.flatten(1).T).T


def test_a_sparse_tensor_is_refused_by_name(mine: Any, tmp_path: Path) -> None:
    mine.encoder = Sparse
    with pytest.raises(PluginFault) as caught:
        mine.finetune()
    assert str(caught.value) == (
        "backbone 'mine' of plugin file:mine: its .encoder.matrix is a sparse tensor, which can be"
        " neither saved nor exported. Register the dense one, or its indices and values."
    )
    assert not list(tmp_path.iterdir())
