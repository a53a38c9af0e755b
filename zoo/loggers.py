"""A run's epochs in TensorBoard or MLflow, beside its own metrics.jsonl."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
from collections.abc import Callable, Iterator
from typing import Any

from zoo.errors import UsageError
from zoo.progress import current
from zoo.record import Record
from zoo.runs import Run
from zoo.training import Epoch

_NEEDS = {
    "tensorboard": ("lightning_fabric", "tensorboard"),
    "mlflow": ("pytorch_lightning", "mlflow"),
}


def check_logger(name: str) -> None:
    """Refuse a logger whose packages are not installed, before any work is done; `UsageError`."""
    if any(importlib.util.find_spec(module) is None for module in _NEEDS.get(name, ())):
        raise UsageError(f"--log {name} needs more packages. Type: pip install 'plugzoo[{name}]'")


@contextlib.contextmanager
def logging_to(name: str, run: Run) -> Iterator[Callable[[Epoch], None]]:
    """Yield what tells an epoch to the logger of this name; `none` tells nobody.

    TensorBoard's files lie in the run's folder `tensorboard`; MLflow's server is the one that
    MLFLOW_TRACKING_URI names, else a database `mlflow.db` beside the runs.
    """
    if name not in _NEEDS or not run.main:
        yield lambda epoch: None
        return
    try:
        logger = _logger(name, run)
        logger.log_hyperparams(_settings(run.record))
    except Exception as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"--log {name}: {type(error).__name__}: {reason}") from error

    def tell(epoch: Epoch) -> None:
        figures = {f"train/{part}": value for part, value in epoch.train.items()}
        figures |= {f"validation/{part}": v for part, v in (epoch.validation or {}).items()}
        figures |= {"lr": epoch.lr, "seconds": epoch.seconds}
        _spare(lambda: logger.log_metrics(figures, epoch.epoch), name)

    try:
        yield tell
    except BaseException:
        _spare(lambda: logger.finalize("failed"), name)
        raise
    _spare(lambda: logger.finalize("success"), name)


def _spare(deed: Callable[[], None], name: str) -> None:
    """Do what a run can do without: a server that is gone costs its lines, not the run."""
    try:
        deed()
    except Exception as error:
        current().note(f"{name} did not take it: {type(error).__name__}: {error}")


def _logger(name: str, run: Run) -> Any:
    from lightning_utilities.core.rank_zero import rank_zero_only

    # It guesses from a job's variables; only the main process comes here.
    rank_zero_only.rank = 0  # type: ignore[attr-defined]
    if name == "tensorboard":
        from lightning_fabric.loggers.tensorboard import TensorBoardLogger

        return TensorBoardLogger(run.folder, name="", version="tensorboard")
    from pytorch_lightning.loggers import MLFlowLogger

    for chatty in ("alembic", "mlflow"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    place = f"sqlite:///{(run.folder.parent / 'mlflow.db').resolve()}"
    return MLFlowLogger(
        experiment_name="zoo",
        run_name=run.name,
        tracking_uri=os.environ.get("MLFLOW_TRACKING_URI") or place,
    )


def _settings(record: Record) -> dict[str, Any]:
    """Return what a run was made with, flat: component.option and option."""
    found: dict[str, Any] = {}
    for kind in ("dataset", "backbone", "objective", "head"):
        if part := getattr(record, kind):
            found[kind] = part.name
            found |= {f"{kind}.{option}": value for option, value in part.options.items()}
    return found | record.training | (record.finetune or {})
