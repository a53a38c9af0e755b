"""Recipes with every label: the most accurate of each kind, and the smallest file."""

from __future__ import annotations

from zoo.api import Component, RecipeSpec, TrainConfig

MNIST_NANO = RecipeSpec(
    name="mnist-nano",
    summary="the smallest file: MNIST in 5,000 weights, trained on turned and moved digits",
    dataset=Component("mnist"),
    backbone=Component("conv-nano", channels=(8, 8, 12, 12, 16)),
    objective=Component("denoise", noise=0.3),
    head=Component("linear"),
    pretraining=TrainConfig(epochs=1, lr=0.01, threads=1),
    # A network this small learns no picture by heart: what it needs is passes, at a high rate.
    finetuning=TrainConfig(
        epochs=45,
        lr=0.02,
        shift=2,
        rotate=10.0,
        zoom=0.1,
        shear=10.0,
        validation=0.05,
        threads=1,
    ),
    scratch=False,
    seeds=(0, 1, 2, 3, 4),
)


EVERY_LABEL = [MNIST_NANO]
