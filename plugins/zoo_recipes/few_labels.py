"""Recipes with few labels: all examples without a label first, then self-training."""

from __future__ import annotations

import dataclasses

from zoo.api import (
    Component,
    FinetuneConfig,
    PretrainConfig,
    RecipeSpec,
    SelfTrainConfig,
    TrainConfig,
)

# Nothing that carries a label is held out, so that all else is fixed here.
_FEW = TrainConfig(precision="bf16", threads=1, validation=0, weight_decay=0.05)

FASHION_FEW = RecipeSpec(
    name="fashion-few",
    summary="Fashion-MNIST with 10 labels a class: two views, a linear probe, self-training",
    dataset=Component("fashion-mnist"),
    backbone=Component("conv-patch", channels=(64, 64, 256)),
    # Clothes of one kind differ in cut and place by little, and in shade and print by much.
    objective=Component(
        "contrastive",
        crop=1.0,
        shift=0.05,
        rotate=3.0,
        flip=True,
        brightness=0.5,
        contrast=0.6,
        erase=0.6,
        noise=0.1,
    ),
    head=Component("linear", norm=True),
    pretraining=dataclasses.replace(_FEW, epochs=4, batch_size=256, lr=0.002, weight_decay=0.01),
    pretrain=PretrainConfig(probe="none"),
    finetuning=dataclasses.replace(_FEW, epochs=100, batch_size=20, lr=0.003, flip=True),
    finetune=FinetuneConfig(labels=100, freeze=True),
    scratch_finetuning=dataclasses.replace(
        _FEW,
        epochs=400,
        batch_size=50,
        lr=0.002,
        flip=True,
        shift=2,
        rotate=10.0,
        zoom=0.1,
        jitter=0.3,
        erase=0.5,
    ),
    scratch_finetune=FinetuneConfig(labels=100, label_smoothing=0.1),
    self_training=dataclasses.replace(
        _FEW,
        epochs=4,
        batch_size=256,
        lr=0.001,
        flip=True,
        shift=2,
        rotate=5.0,
        zoom=0.1,
        jitter=0.5,
        noise=0.1,
        erase=0.5,
    ),
    self_train=SelfTrainConfig(balance=True),
    seeds=(0, 1, 2, 3, 4),
)


FEW_LABELS = [FASHION_FEW]
