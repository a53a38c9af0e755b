"""A run's epochs in TensorBoard or MLflow, beside its own metrics.jsonl."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

from zoo.errors import LoggerError, UsageError
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
        raise LoggerError(f"--log {name}: {_reason(error)}") from error

    def tell(epoch: Epoch) -> None:
        figures = {f"train/{part}": value for part, value in epoch.train.items()}
        figures |= {f"validation/{part}": v for part, v in (epoch.validation or {}).items()}
        figures |= {"lr": epoch.lr, "seconds": epoch.seconds}
        _spare(lambda: logger.log_metrics(figures, epoch.epoch), name)

    with _threads_told(name):
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
        current().note(f"{name} did not take it: {_reason(error)}")


def _reason(error: BaseException | None) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


@contextlib.contextmanager
def _threads_told(name: str) -> Iterator[None]:
    """Tell in a note what a logger's own threads raise, as what it raises itself."""
    before = threading.excepthook

    def tell(failed: threading.ExceptHookArgs) -> None:
        if failed.thread and type(failed.thread).__module__.startswith(name):
            current().note(f"{name} did not take it: {_reason(failed.exc_value)}")
        else:
            before(failed)

    threading.excepthook = tell
    try:
        yield
    finally:
        threading.excepthook = before


def _logger(name: str, run: Run) -> Any:
    from lightning_utilities.core.rank_zero import rank_zero_only

    # It guesses from a job's variables; only the main process comes here.
    rank_zero_only.rank = 0  # type: ignore[attr-defined]
    if name == "tensorboard":
        from lightning_fabric.loggers.tensorboard import TensorBoardLogger

        return TensorBoardLogger(run.folder, name="", version="tensorboard")
    from mlflow import MlflowClient
    from pytorch_lightning.loggers import MLFlowLogger

    for chatty in ("alembic", "mlflow", "pytorch_lightning"):
        logging.getLogger(chatty).setLevel(logging.CRITICAL)  # what fails is told by us
    place = f"sqlite:///{(run.folder.parent / 'mlflow.db').resolve()}"
    place = os.environ.get("MLFLOW_TRACKING_URI") or place
    client = MlflowClient(tracking_uri=place)
    experiment = client.get_experiment_by_name("zoo")
    begun = None  # one that was stopped goes on as the same
    if experiment:
        named = f"attributes.run_name = '{run.name}'"
        begun = next(iter(client.search_runs([experiment.experiment_id], named)), None)
    return MLFlowLogger(
        experiment_name="zoo",
        run_name=run.name,
        tracking_uri=place,
        run_id=begun.info.run_id if begun else None,
    )


def _settings(record: Record) -> dict[str, Any]:
    """Return what a run was made with, flat: component.option and option."""
    found: dict[str, Any] = {}
    for kind in ("dataset", "backbone", "objective", "head"):
        if part := getattr(record, kind):
            found[kind] = part.name
            found |= {f"{kind}.{option}": value for option, value in part.options.items()}
    return found | record.training | (record.finetune or {})
