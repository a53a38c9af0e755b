"""Maps against oracles, and a check of them that can fail."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from zoo.api import ImageInput, Preprocessing
from zoo.models import Preprocess
from zoo.report import saliency
from zoo.report.saliency import check, reinitialised, smoothgrad

INPUT = ImageInput(channels=3, height=5, width=4)
RAW = torch.randint(0, 256, (6, 3, 5, 4), dtype=torch.uint8,
                    generator=torch.Generator().manual_seed(1))  # fmt: skip


def small(*layers: nn.Module, std: float = 0.25) -> nn.Sequential:
    torch.manual_seed(0)
    preprocess = Preprocess(INPUT, INPUT, Preprocessing(mean=(0.5,), std=(std,)))
    return nn.Sequential(preprocess, nn.Flatten(), *layers).eval()


def maps(model: nn.Module, raw: Tensor) -> Tensor:
    return smoothgrad(model, raw, samples=8)


def test_of_a_linear_model_the_map_is_its_weights() -> None:
    """Its gradient is the same everywhere, so that noise and averaging change nothing."""
    torch.manual_seed(3)
    linear = nn.Linear(60, 4)
    model = small(linear, std=0.25)
    predicted = model(RAW).argmax(1)
    assert len(set(predicted.tolist())) > 1
    wanted = (linear.weight[predicted].detach() / (255 * 0.25)).view(-1, 3, 5, 4).abs().amax(1)
    torch.testing.assert_close(smoothgrad(model, RAW, samples=5), wanted)


def test_without_noise_the_map_is_the_gradient_by_differences() -> None:
    """An input of one value has no range, hence no noise."""
    torch.manual_seed(3)
    model = small(nn.Linear(60, 9), nn.Tanh(), nn.Linear(9, 3)).double()
    grey = torch.full((1, 3, 5, 4), 99.0, dtype=torch.float64)

    class Doubled(nn.Module):  # the one preprocessing is in float32: too coarse for differences
        def forward(self, raw: Tensor) -> Tensor:
            return model[1:]((raw.double() / 255 - 0.5) / 0.25)

    doubled = Doubled()
    chosen = int(doubled(grey).argmax())
    slopes = torch.zeros(60, dtype=torch.float64)
    for place in range(60):
        step = torch.zeros(60, dtype=torch.float64)
        step[place] = 1e-3
        up, down = (doubled(grey + sign * step.view_as(grey))[0, chosen] for sign in (1, -1))
        slopes[place] = (up - down) / 2e-3
    wanted = slopes.view(1, 3, 5, 4).abs().amax(1)
    found = smoothgrad(doubled, grey, samples=2)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-9)


def test_the_noise_is_the_same_each_time_and_nobody_elses() -> None:
    torch.manual_seed(3)
    model = small(nn.Linear(60, 9), nn.ReLU(), nn.Linear(9, 3))
    before = torch.random.get_rng_state()
    assert torch.equal(maps(model, RAW), maps(model, RAW))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(parameter.grad is None for parameter in model.parameters())


class Token(nn.Module):
    """A parameter in a module that cannot be reset, as a class token is."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.arange(9.0))

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs + self.token


def test_a_reinitialised_model_has_none_of_its_weights() -> None:
    torch.manual_seed(3)
    model = small(nn.Linear(60, 9), Token(), nn.BatchNorm1d(9), nn.ReLU(), nn.Linear(9, 3))
    norm = model[4]
    assert isinstance(norm, nn.BatchNorm1d)
    with torch.no_grad():
        norm.weight.uniform_(2, 3)
        norm.running_mean.fill_(5.0)  # type: ignore[union-attr]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    other, again = reinitialised(model), reinitialised(model)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
        assert torch.equal(other.state_dict()[name], again.state_dict()[name])
    for name, parameter in model.named_parameters():
        if name != "4.bias":  # zeros in both
            assert not torch.equal(parameter, dict(other.named_parameters())[name])
    assert sorted(other[3].token.tolist()) == list(range(9))  # type: ignore[index]
    assert not other[4].running_mean.any()  # type: ignore[index]


def test_maps_that_depend_on_the_weights_pass() -> None:
    torch.manual_seed(3)
    found = check(small(nn.Linear(60, 9), nn.ReLU(), nn.Linear(9, 3)), RAW, maps)
    assert len(found.correlations) == len(RAW)
    assert found.mean is not None
    assert abs(found.mean) < 0.5
    assert found.passed


def test_a_map_of_the_input_alone_does_not_pass() -> None:
    """What an edge detector shows looks like an explanation, and is none (arXiv 1810.03292)."""

    def edges(model: nn.Module, raw: Tensor) -> Tensor:
        return raw.float().diff(dim=3).abs().amax(1)

    torch.manual_seed(3)
    found = check(small(nn.Linear(60, 3)), RAW, edges)
    assert found.correlations == pytest.approx([1.0] * len(RAW))
    assert not found.passed


def test_the_rank_correlation_is_spearmans() -> None:
    from scipy.stats import spearmanr

    torch.manual_seed(3)
    model = small(nn.Linear(60, 9), nn.ReLU(), nn.Linear(9, 3))
    found = check(model, RAW, maps)
    wanted = [float(spearmanr(one.flatten(), other.flatten()).statistic)
              for one, other in zip(found.maps, found.control, strict=True)]  # fmt: skip
    assert found.correlations == pytest.approx(wanted)


def test_maps_that_are_constant_cannot_be_compared() -> None:
    def flat(model: nn.Module, raw: Tensor) -> Tensor:
        return torch.zeros(len(raw), 5, 4)

    found = check(small(nn.Linear(60, 3)), RAW, flat)
    assert found.defined == []
    assert found.mean is None
    assert not found.passed
    assert saliency.PASSED_BELOW == 0.5  # as the page says
