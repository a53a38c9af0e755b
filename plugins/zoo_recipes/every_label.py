"""Recipes with every label: the most accurate of each kind, and the smallest file."""

from __future__ import annotations

import dataclasses

from zoo.api import Component, FinetuneConfig, PretrainConfig, RecipeSpec, TrainConfig

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


# Settings were chosen on 5,000 validation examples; here every example is trained on.
_EVERY = TrainConfig(precision="bf16", threads=1, validation=0)
_SEEDS = (0, 1, 2, 3, 4)

# Batch normalization in place of dropout, which takes more time than the products it drops.
_MLP = Component("mlp", widths=(1024, 512), features=256, norm=True)

MNIST_MLP = RecipeSpec(
    name="mnist-mlp",
    summary="MNIST with a fully connected network: digits turned, moved and sheared",
    dataset=Component("mnist"),
    backbone=_MLP,
    objective=Component("denoise", noise=0.3),
    head=Component("linear"),
    pretraining=dataclasses.replace(_EVERY, epochs=3, batch_size=512, lr=0.002),
    pretrain=PretrainConfig(probe="none"),
    finetuning=dataclasses.replace(
        _EVERY,
        epochs=50,
        batch_size=512,
        lr=0.004,
        weight_decay=0.05,
        shift=2,
        rotate=10.0,
        zoom=0.1,
        shear=10.0,
    ),
    finetune=FinetuneConfig(label_smoothing=0.1),
    scratch=False,
    seeds=_SEEDS,
)

FASHION_MLP = dataclasses.replace(
    MNIST_MLP,
    name="fashion-mlp",
    summary="Fashion-MNIST with a fully connected network: mirrored, moved by a pixel, mixed up",
    dataset=Component("fashion-mnist"),
    finetuning=dataclasses.replace(
        _EVERY, epochs=80, batch_size=512, lr=0.004, weight_decay=0.1, flip=True, shift=1
    ),
    finetune=FinetuneConfig(label_smoothing=0.1, mixup=0.2),
)

# 87,666 weights that are trained.
_CONV = Component("conv-nano", channels=(24, 32, 48, 64, 64))

MNIST_CONV = RecipeSpec(
    name="mnist-conv",
    summary="MNIST in fewer than 100,000 weights: digits turned, moved and sheared",
    dataset=Component("mnist"),
    backbone=_CONV,
    objective=Component("denoise", noise=0.3),
    head=Component("linear"),
    pretraining=dataclasses.replace(_EVERY, epochs=1, lr=0.005),
    pretrain=PretrainConfig(probe="none"),
    finetuning=dataclasses.replace(
        _EVERY,
        epochs=25,
        lr=0.01,
        weight_decay=0.05,
        shift=2,
        rotate=10.0,
        zoom=0.1,
        shear=10.0,
    ),
    scratch=False,
    seeds=_SEEDS,
)

FASHION_CONV = dataclasses.replace(
    MNIST_CONV,
    name="fashion-conv",
    summary="Fashion-MNIST in fewer than 100,000 weights: mirrored, moved, erased in part",
    dataset=Component("fashion-mnist"),
    finetuning=dataclasses.replace(
        _EVERY, epochs=45, lr=0.01, weight_decay=0.05, flip=True, shift=2, erase=0.2
    ),
    finetune=FinetuneConfig(label_smoothing=0.05),
)

EVERY_LABEL = [MNIST_NANO, MNIST_MLP, FASHION_MLP, MNIST_CONV, FASHION_CONV]
