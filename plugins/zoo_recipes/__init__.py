"""Complete pipelines."""

from __future__ import annotations

import dataclasses

from zoo.api import (
    Component,
    FinetuneConfig,
    PretrainConfig,
    RecipeSpec,
    SelfTrainConfig,
    TrainConfig,
    hookimpl,
)

_TEXTBOOK = TrainConfig(
    epochs=10,
    batch_size=100,
    optimizer="sgd",
    lr=0.001,
    momentum=0.9,
    weight_decay=0.0,
    schedule="constant",
    validation=0,
)

QUICKSTART = RecipeSpec(
    name="quickstart",
    summary="digits: pretrain on all images, finetune on 10 labels a class, compare with scratch",
    dataset=Component("digits"),
    backbone=Component("mlp", widths=(512,), features=128),
    objective=Component("denoise", noise=0.3),
    head=Component("linear"),
    # Two threads on kernels this small wait for each other wherever a core is shared.
    pretraining=TrainConfig(epochs=60, batch_size=64, lr=0.002, threads=1),
    finetuning=TrainConfig(epochs=40, batch_size=20, lr=0.001, threads=1),
    finetune=FinetuneConfig(labels=100),
)

TEXTBOOK = RecipeSpec(
    name="textbook",
    summary="the tutorial to the letter, its softmax under the loss included: MNIST to Fashion",
    pretrain_dataset=Component("mnist"),
    dataset=Component("fashion-mnist"),
    backbone=Component("mlp", widths=(128, 64, 12), features=3),
    objective=Component("reconstruct"),
    head=Component("linear"),
    pretraining=_TEXTBOOK,
    finetuning=_TEXTBOOK,
    finetune=FinetuneConfig(loss_on="probabilities"),
    scratch=False,
)

MNIST_TO_FASHION = RecipeSpec(
    name="mnist-to-fashion",
    summary="the same transfer done right: convolutions, denoising, AdamW, cross entropy on logits",
    pretrain_dataset=Component("mnist"),
    dataset=Component("fashion-mnist"),
    backbone=Component("conv", channels=(16, 32, 64)),
    objective=Component("denoise", noise=0.3),
    head=Component("linear"),
    pretraining=TrainConfig(epochs=2, lr=0.005),
    finetuning=TrainConfig(epochs=5, lr=0.005, weight_decay=0.05),
)

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


@hookimpl
def zoo_recipes() -> list[RecipeSpec]:
    return [QUICKSTART, TEXTBOOK, MNIST_TO_FASHION, MNIST_NANO, FASHION_FEW]
