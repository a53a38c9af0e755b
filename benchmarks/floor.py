"""What an epoch must cost at least, and what comes on top, one piece after the other.

The floor is the matrix products alone (convolutions for a convolutional model): for each layer
the forward product, the gradient of the weight and, but for the first layer, that of the input,
at the shapes and as often as in an epoch, without a bias, an activation or autograd.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import torch
from contestants import Lap, bare, optimizer_of, to_floats
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx
from workloads import Workload

Call = Callable[[], object]
Step = Callable[[int], Call]
"""Make what one step of a batch of this many examples calls."""


def matrix_products(workload: Workload) -> list[Lap]:
    """The matrix products alone: the floor."""
    module = workload.as_trained()

    def step(size: int) -> Call:
        pairs = [_products(*seen) for seen in _layers_seen(module, workload, size)]
        calls = [call for forward, _ in pairs for call in forward]
        calls += [call for _, backward in reversed(pairs) for call in backward]

        def run() -> None:
            for call in calls:
                call()

        return run

    with torch.no_grad():
        return _laps(workload, step)


def kernels(workload: Workload) -> list[Lap]:
    """All kernels of forward and backward, called one after the other without autograd."""
    module = _OnFloats(workload, workload.as_trained())
    weights = {n: p.detach().requires_grad_() for n, p in module.named_parameters()}
    buffers = dict(module.named_buffers())

    def gradients(weights: Any, buffers: Any, inputs: Tensor, labels: Tensor) -> Any:
        loss = torch.func.functional_call(module, (weights, buffers), (inputs, labels))
        return torch.autograd.grad(loss, list(weights.values()))

    def step(size: int) -> Call:
        inputs, labels = _batch(workload, size)
        floats = to_floats(inputs)
        captured = make_fx(gradients)(weights, buffers, floats, labels)
        for name in ("detach", "alias"):  # autograd's, not the model's
            target = getattr(torch.ops.aten, name).default
            for node in captured.graph.find_nodes(op="call_function", target=target):
                node.replace_all_uses_with(node.args[0])
                captured.graph.erase_node(node)
        captured.recompile()
        return torch.no_grad()(functools.partial(captured, weights, buffers, floats, labels))

    return _laps(workload, step)


def autograd(workload: Workload) -> list[Lap]:
    """Forward and backward by the module and autograd, on floats at hand."""
    module = workload.as_trained()

    def step(size: int) -> Call:
        inputs, labels = _batch(workload, size)
        floats = to_floats(inputs)

        def run() -> None:
            module.zero_grad()
            workload.loss(module, floats, labels).backward()  # type: ignore[no-untyped-call]

        return run

    return _laps(workload, step)


def with_optimizer(workload: Workload) -> list[Lap]:
    """The same with the optimizer's step, and its schedule's."""
    return _trained(workload, lambda inputs: functools.partial(_same, to_floats(inputs)))


def with_floats(workload: Workload) -> list[Lap]:
    """The same from bytes at hand, made floats each time."""
    return _trained(workload, lambda inputs: functools.partial(to_floats, inputs))


PIECES: dict[str, Callable[[Workload], list[Lap]]] = {
    "matrix products": matrix_products,
    "+ other kernels, forward and backward": kernels,
    "+ modules and autograd": autograd,
    "+ optimizer": with_optimizer,
    "+ bytes to floats": with_floats,
    "+ rows gathered, loss added up": functools.partial(bare, as_trained=True),
}


def _same(value: Tensor) -> Tensor:
    return value


def _trained(workload: Workload, source: Callable[[Tensor], Callable[[], Tensor]]) -> list[Lap]:
    module = workload.as_trained()
    optimizer, schedule = optimizer_of(workload, module, fused=True)

    def step(size: int) -> Call:
        inputs, labels = _batch(workload, size)
        floats = source(inputs)

        def run() -> None:
            loss = workload.loss(module, floats(), labels)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if schedule:
                schedule.step()

        return run

    return _laps(workload, step)


def _laps(workload: Workload, step: Step) -> list[Lap]:
    """Time the steps of each epoch; what they are called with was made before."""
    sizes = [len(chosen) for chosen in workload.orders[0]]
    steps = {size: step(size) for size in sorted(set(sizes))}
    laps = []
    for _ in workload.orders:
        started = time.perf_counter()
        for size in sizes:
            steps[size]()
        laps.append(Lap(time.perf_counter() - started))
    return laps


def _batch(workload: Workload, size: int) -> tuple[Tensor, Tensor]:
    chosen = next(c for c in workload.orders[0] if len(c) == size)
    return workload.examples.inputs[chosen], workload.labels[chosen]


class _OnFloats(nn.Module):
    def __init__(self, workload: Workload, module: nn.Module) -> None:
        super().__init__()
        self.workload, self.module = workload, module

    def forward(self, inputs: Tensor, labels: Tensor) -> Tensor:
        return self.workload.loss(self.module, inputs, labels)


def _layers_seen(module: nn.Module, workload: Workload, size: int) -> list[Any]:
    """Return each layer with weights that a batch passes, its input and its output."""
    seen: list[Any] = []

    def note(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen.append((layer, inputs[0], output))

    kinds = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)
    handles = [m.register_forward_hook(note) for m in module.modules() if isinstance(m, kinds)]
    inputs, labels = _batch(workload, size)
    with torch.enable_grad():
        workload.loss(module, to_floats(inputs), labels)
    for handle in handles:
        handle.remove()
    return seen


def _products(layer: Any, seen: Tensor, output: Tensor) -> tuple[list[Call], list[Call]]:
    """Return the calls of a layer's forward and of its backward product, on tensors of noise."""
    x, gradient = torch.randn_like(seen), torch.randn_like(output)  # laid out as these are
    weight = layer.weight.detach()
    if isinstance(layer, nn.Linear):
        out, of_x, of_weight = map(torch.empty_like, (gradient, x, weight))
        back: list[Call] = [functools.partial(torch.mm, gradient.t(), x, out=of_weight)]
        if seen.requires_grad:
            back.append(functools.partial(torch.mm, gradient, weight, out=of_x))
        return [functools.partial(torch.mm, x, weight.t(), out=out)], back
    transposed = isinstance(layer, nn.ConvTranspose2d)
    extra = layer.output_padding if transposed else (0, 0)
    how = (layer.stride, layer.padding, layer.dilation, transposed, extra, layer.groups)
    mask = [seen.requires_grad, True, False]
    convolve, reverse = torch.ops.aten.convolution, torch.ops.aten.convolution_backward
    return (
        [functools.partial(convolve, x, weight, None, *how)],
        [functools.partial(reverse, gradient, x, weight, None, *how, mask)],
    )
