"""Lightning's Trainer on a workload, with its loader chosen; import fails where it is missing."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from contestants import Lap, Order, optimizer_of, to_floats, tutorial_loader
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from workloads import Workload

Batch = tuple[Tensor, Tensor]


def with_tutorial_loader(workload: Workload) -> list[Lap]:
    """Lightning's Trainer with the tutorials' loader."""
    return _train(workload, tutorial_loader(workload), fused=None)


def with_tensor_dataset(workload: Workload) -> list[Lap]:
    """Lightning's Trainer with a DataLoader over a TensorDataset of floats, made beforehand."""
    tensors = TensorDataset(to_floats(workload.examples.inputs), workload.labels)
    loader: DataLoader[Any] = DataLoader(
        tensors, batch_sampler=Order(workload), generator=torch.Generator()
    )
    return _train(workload, loader, fused=True)


def with_slices(workload: Workload) -> list[Lap]:
    """Lightning's Trainer with batches cut from float tensors: no DataLoader at all."""
    return _train(workload, _Slices(workload), fused=True)


class _Slices:
    """Batches as slices of float tensors that were made before the clock starts."""

    def __init__(self, workload: Workload) -> None:
        self._inputs, self._labels = to_floats(workload.examples.inputs), workload.labels
        self._epochs = iter(workload.orders)
        self._steps = len(workload.orders[0])

    def __len__(self) -> int:
        return self._steps

    def __iter__(self) -> Iterator[Batch]:
        for chosen in next(self._epochs):
            yield self._inputs.index_select(0, chosen), self._labels.index_select(0, chosen)


class _Module(LightningModule):
    def __init__(self, workload: Workload, module: nn.Module, fused: bool | None) -> None:
        super().__init__()
        self.module = module
        self.workload = workload
        self.fused = fused
        self.running = torch.zeros(())

    def training_step(self, batch: Batch, index: int) -> Tensor:
        inputs, labels = batch
        loss = self.workload.loss(self.module, inputs, labels)
        self.running += loss.detach() * len(inputs)
        return loss

    def configure_optimizers(self) -> Any:
        optimizer, schedule = optimizer_of(self.workload, self.module, fused=self.fused)
        if schedule is None:
            return optimizer
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


class _Clock(Callback):
    def __init__(self, trained: _Module) -> None:
        self.trained = trained
        self.laps: list[Lap] = []
        self.started = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.started = time.perf_counter()
        self.trained.running = torch.zeros(())

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        workload = self.trained.workload
        loss = self.trained.running.item() / len(workload.train)
        seconds = time.perf_counter() - self.started
        self.laps.append(Lap(seconds, loss, workload.accuracy(self.trained.module)))


def _train(workload: Workload, batches: Iterable[Batch], fused: bool | None) -> list[Lap]:
    """Train by Lightning, nothing but the laps recorded; its advice is not shown."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    module = _Module(workload, workload.fresh(), fused)
    clock = _Clock(module)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = Trainer(
            max_epochs=workload.config.epochs,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[clock],
        )
        trainer.fit(module, batches)
    return clock.laps
