"""Where the method comes from: the tutorial to the letter, its transfer done right, a first try."""

from __future__ import annotations

from zoo.api import Component, FinetuneConfig, RecipeSpec, TrainConfig

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

TUTORIAL = [QUICKSTART, TEXTBOOK, MNIST_TO_FASHION]
