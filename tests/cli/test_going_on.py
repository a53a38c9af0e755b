"""What is said of going on, when training stops: nothing where it would stop again."""

from __future__ import annotations

import errno
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result

from zoo import errors
from zoo.errors import NotFinite, ZooError, recurs
from zoo.pipeline import finetuning, pretraining

Cli = Callable[..., Result]

MENDED_FIRST = (
    errors.PluginFault("it broke the contract."),
    RuntimeError("view size is not compatible"),  # a plugin's own code, in its training
)
PASSING = (
    OSError(errno.ENOSPC, "No space left on device"),
    torch.OutOfMemoryError("CUDA out of memory."),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
    MemoryError(),
    errors.OutOfMemory("Out of memory."),
    errors.DataUnavailable("The decoded pictures cannot be kept: No space left on device."),
    errors.TrainingError("Process 2 of 2 was ended by SIGKILL."),
    KeyboardInterrupt(),
)


def named(error: BaseException) -> str:
    return type(error).__name__


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Let every training stop by an error."""

    def stop(error: BaseException) -> None:
        error.__dict__.pop("__notes__", None)  # of the test before

        def fit(*args: Any, **options: Any) -> None:
            raise error

        monkeypatch.setattr(finetuning, "fit", fit)
        monkeypatch.setattr(pretraining, "fit", fit)

    return stop


@pytest.mark.parametrize("error", [*MENDED_FIRST, *PASSING], ids=named)
def test_a_resume_is_offered_where_it_may_come_further(
    error: BaseException, stopped: Callable[..., None], cli: Cli, tmp_path: Path
) -> None:
    stopped(error)
    result = cli("finetune", "--backbone", "mlp", "--quiet")
    (run,) = (tmp_path / "runs").iterdir()
    first, *following = result.stderr.strip().splitlines()
    assert first.startswith(("Error: ", "Interrupted."))
    wanted = [f"Go on with: zoo resume runs/{run.name}"] if error in PASSING else []
    assert following == wanted
    assert result.exit_code in (1, 2, 130)


@pytest.mark.parametrize("error", [*MENDED_FIRST, *PASSING], ids=named)
def test_a_recipe_is_typed_again_where_it_may_come_further(
    error: BaseException, stopped: Callable[..., None], cli: Cli
) -> None:
    stopped(error)
    _, *following = cli("run", "quickstart", "--quiet").stderr.strip().splitlines()
    wanted = ["Type the same command again to go on from here."] if error in PASSING else []
    assert following == wanted


def test_a_loss_that_is_no_number_goes_on_at_another_rate_alone(
    stopped: Callable[..., None], cli: Cli, tmp_path: Path
) -> None:
    for command, following in (("pretrain mlp", " --lr 0.05\n"), ("run quickstart", "is nan.\n")):
        stopped(NotFinite("The loss is nan.", 0.5))
        assert cli(*command.split(), "--quiet").stderr.endswith(following)


@pytest.mark.parametrize(
    "error",
    [
        errors.PluginFault("it broke the contract."),
        errors.Unfit("they do not go together."),
        errors.DataError("a class has too few pictures."),
        errors.BadOption("batch_size: too many processes."),
        errors.ModelFileError("the teacher is no ONNX file."),
    ],
    ids=named,
)
def test_what_is_to_be_mended_first_recurs(error: ZooError) -> None:
    assert recurs(error)


@pytest.mark.parametrize(
    "error",
    [
        errors.TrainingError("Process 2 of 2 was ended by SIGKILL."),
        errors.RunError("The examples are not those that this run began with. Bring them back."),
        errors.LoggerError("--log mlflow: the server is not there."),
    ],
    ids=named,
)
def test_what_may_pass_does_not_recur(error: ZooError) -> None:
    assert not recurs(error)


def test_every_error_says_whether_it_recurs() -> None:
    kinds = {
        kind
        for _, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, ZooError)
    }
    passing = {kind.__name__ for kind in kinds if not recurs(kind.__new__(kind))}
    assert passing == {
        "DataUnavailable", "LoggerError", "OutOfMemory", "RunError", "TrainingError", "ZooError",
    }  # fmt: skip
    assert recurs(ValueError())
    assert not recurs(MemoryError())
    assert not recurs(RuntimeError("DefaultCPUAllocator: can't allocate memory"))


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (errors.DataUnavailable("The network is down."), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), True),
        (errors.DataError("A label is missing."), False),
        (ValueError("no such axis"), False),
    ],
    ids=named,
)
def test_a_resume_is_offered_where_a_data_set_may_be_had_later(
    error: Exception,
    again: bool,
    cli: Cli,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Whatever a plugin raises while a split is loaded."""
    import zoo_images.digits as digits

    def load(part: slice) -> None:
        raise error

    monkeypatch.setattr(digits, "_load", load)
    result = cli("finetune", "--backbone", "mlp", "--quiet")
    left = [f"Go on with: zoo resume runs/{run.name}" for run in (tmp_path / "runs").iterdir()]
    first, *following = result.stderr.strip().splitlines()
    assert str(error) in first
    assert following == left
    assert len(left) == again  # what cannot be gone on with is not there
