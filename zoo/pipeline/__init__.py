"""The Python twin of every verb, under the verb's name.

    from zoo import pipeline
    from zoo.api import Component, TrainConfig

    run = pipeline.pretrain("mlp", dataset="digits", objective=Component("denoise", noise=0.2))
    run = pipeline.finetune(run, head="linear", finetune=FinetuneConfig(labels=100))
    print(pipeline.evaluate(run).accuracy)
    pipeline.export(run, "model.onnx")

Each function is imported when it is first used, so that listing components never loads torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.pipeline.authoring import plugin_check, plugin_new
    from zoo.pipeline.bench.labels import bench_labels
    from zoo.pipeline.bench.table import bench_table
    from zoo.pipeline.benchmarking import benchmark
    from zoo.pipeline.bundling import bundle, bundle_verify
    from zoo.pipeline.catalogue import list, plugins, runs, show
    from zoo.pipeline.comparing import compare
    from zoo.pipeline.evaluation import evaluate
    from zoo.pipeline.exporting import ExportConfig, export, validate
    from zoo.pipeline.finetuning import finetune
    from zoo.pipeline.inspecting import inspect
    from zoo.pipeline.prediction import predict
    from zoo.pipeline.pretraining import pretrain
    from zoo.pipeline.recipes import run
    from zoo.pipeline.reporting import report
    from zoo.pipeline.reproducing import reproduce
    from zoo.pipeline.resuming import resume
    from zoo.pipeline.workspace import Workspace

__all__ = [
    "ExportConfig",
    "Workspace",
    "bench_labels",
    "bench_table",
    "benchmark",
    "bundle",
    "bundle_verify",
    "compare",
    "evaluate",
    "export",
    "finetune",
    "inspect",
    "list",
    "plugin_check",
    "plugin_new",
    "plugins",
    "predict",
    "pretrain",
    "report",
    "reproduce",
    "resume",
    "run",
    "runs",
    "self_train",
    "show",
    "validate",
]

_MODULES = {
    "Workspace": "workspace",
    "ExportConfig": "exporting",
    "bench_labels": "bench.labels",
    "bench_table": "bench.table",
    "benchmark": "benchmarking",
    "bundle": "bundling",
    "bundle_verify": "bundling",
    "compare": "comparing",
    "evaluate": "evaluation",
    "export": "exporting",
    "finetune": "finetuning",
    "inspect": "inspecting",
    "list": "catalogue",
    "plugin_check": "authoring",
    "plugin_new": "authoring",
    "plugins": "catalogue",
    "predict": "prediction",
    "pretrain": "pretraining",
    "report": "reporting",
    "reproduce": "reproducing",
    "resume": "resuming",
    "run": "recipes",
    "self_train": "self_training",
    "runs": "catalogue",
    "show": "catalogue",
    "validate": "exporting",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"zoo.pipeline.{_MODULES[name]}"), name)
