"""Where memory ends: batches are halved, and what cannot be done is never called wrong."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from zoo import pipeline
from zoo.errors import OutOfMemory, ran_out
from zoo.export import budget, trials
from zoo.export.modelfile import open_model
from zoo.export.original import Original
from zoo.export.runtime import Session, open_session
from zoo.export.targets import ExportConfig
from zoo.export.work import cost_of
from zoo.memory import smaller
from zoo.pipeline import model_files
from zoo.pipeline.exporting import _advising
from zoo.training import outputs

# As each of them says it.
ONNXRUNTIME = (
    "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code returned while running Conv"
    " node. Name:'' Status Message: bfc_arena.cc:359 Failed to allocate memory for requested buffer"
    " of size 3301179392"
)
TORCH = (
    "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you"
    " tried to allocate 3301179392 bytes. Error code 12 (Cannot allocate memory)"
)


class Starved:
    """An onnxruntime session on a machine that has memory for so many examples."""

    def __init__(self, session: Any, most: int, seen: list[int]) -> None:
        self.session, self.most, self.seen = session, most, seen

    def run(self, names: Any, feed: Any, options: Any) -> Any:
        count = len(feed["image"])
        if count > self.most:
            raise RuntimeError(ONNXRUNTIME)
        self.seen.append(count)
        return self.session.run(names, feed, options)


@pytest.fixture
def starve(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[int]]:
    """Let the proof have memory for so many examples; returns the batches that are run."""

    def limit(most: int) -> list[int]:
        seen: list[int] = []

        def opened(*given: Any, **options: Any) -> Session:
            session = open_session(*given, **options)
            return dataclasses.replace(session, session=Starved(session.session, most, seen))

        monkeypatch.setattr(trials, "open_session", opened)
        monkeypatch.setattr(model_files, "other_versions", lambda card: "other versions")
        return seen

    return limit


@pytest.mark.parametrize(
    "error",
    [
        *(RuntimeError(text) for text in (ONNXRUNTIME, TORCH, "std::bad_alloc")),
        MemoryError(),
        np._core._exceptions._ArrayMemoryError((10**12,), np.dtype(np.float32)),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        OSError(12, "Cannot allocate memory"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_is_said_where_memory_ends_is_known(error: Exception) -> None:
    assert ran_out(error)
    other = ValueError("it failed")
    other.__cause__ = error
    assert ran_out(other)
    assert not ran_out(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_batches_are_halved_where_memory_ends(trained_once: Any) -> None:
    session = open_session(trained_once.model)
    images = np.random.default_rng(0).integers(0, 256, (50, 1, 8, 8), dtype=np.uint8)
    seen: list[int] = []
    starved = dataclasses.replace(session, session=Starved(session.session, 9, seen))
    found = trials.run_all(starved, images, 64)
    np.testing.assert_allclose(found[1], session.run(images)[1], atol=1e-6)
    assert max(seen) <= 9
    assert sum(seen) < 60
    starved = dataclasses.replace(session, session=Starved(session.session, 0, []))
    with pytest.raises(OutOfMemory, match="onnxruntime ran out of memory on a single example"):
        trials.run_all(starved, images, 64)


def test_less_is_asked_until_it_fits_or_is_as_little_as_may_be() -> None:
    asked: list[int] = []

    def fitting(most: int) -> Callable[[int], int]:
        def call(size: int) -> int:
            asked.append(size)
            if size > most:
                raise RuntimeError(TORCH)
            return size

        return call

    assert smaller(fitting(10), 50, 4) == 6
    assert asked == [50, 25, 12, 6]
    with pytest.raises(RuntimeError, match="allocate"):
        smaller(fitting(3), 20, 4)
    assert asked[4:] == [20, 10, 5, 4]
    with pytest.raises(ValueError, match="another matter"):
        smaller(lambda size: (_ for _ in ()).throw(ValueError("another matter")), 8)


def test_a_proof_goes_on_with_smaller_batches_and_says_so(
    trained: Any, starve: Callable[[int], list[int]]
) -> None:
    seen = starve(20)
    proof = pipeline.validate(trained.model, workspace=trained.workspace)
    assert [row.name for row in proof.rows if row.name.startswith("batches")] == ["batches 1, 2, 7"]
    assert [row.name for row in proof.skipped] == ["exported again"]
    assert not proof.failures
    assert proof.batch_sizes == (1, 2, 7)
    assert max(seen) <= 20


def test_where_one_example_is_too_much_the_message_says_memory(
    trained: Any, starve: Callable[[int], list[int]], tmp_path: Path
) -> None:
    starve(0)
    said = r"onnxruntime ran out of memory on a single example\. Close other programs\.$"
    with pytest.raises(OutOfMemory, match=f"The proof was not finished: {said}"):
        pipeline.validate(trained.model, workspace=trained.workspace)
    with pytest.raises(OutOfMemory, match=f"No file was written: {said}"):
        pipeline.export(trained.finetuned, tmp_path / "new.onnx", workspace=trained.workspace)
    assert not list(tmp_path.glob("*new*"))


def test_of_a_file_of_a_fixed_batch_a_smaller_batch_is_what_helps(
    trained: Any, starve: Callable[[int], list[int]], tmp_path: Path
) -> None:
    path, config = tmp_path / "fixed.onnx", ExportConfig(batch=4)
    run, workspace = trained.finetuned, trained.workspace
    pipeline.export(run, path, config=config, runtimes=["none"], workspace=workspace)
    starve(3)
    said = r"onnxruntime ran out of memory on a batch of 4\."
    advice = "zoo export RUN --batch 2, or close other programs"
    with pytest.raises(OutOfMemory, match=f"The proof was not finished: {said} Type: {advice}"):
        pipeline.validate(path, run=run, workspace=workspace)
    advice = "Type --batch 2, or close other programs"
    with pytest.raises(OutOfMemory, match=f"No file was written: {said} {advice}"):
        pipeline.export(run, config=config, workspace=workspace)


@pytest.mark.parametrize(
    ("error", "memory", "advice"),
    [
        (OutOfMemory("On 64.", 64), 10**9, "On 64. Type --memory 250MB, or close other programs."),
        (OutOfMemory("On 64.", 64), 10**7, "On 64. Close other programs."),
        (OutOfMemory("On 1.", 1), 10**9, "On 1. Close other programs."),
        (OutOfMemory("Tracing."), 10**9, "Tracing. Close other programs."),
        (MemoryError(), 10**9, "Out of memory: MemoryError. Close other programs."),
    ],
)
def test_less_memory_is_advised_where_a_smaller_batch_helps(
    error: Exception, memory: int, advice: str
) -> None:
    with pytest.raises(OutOfMemory) as raised, _advising(memory, "", ""):
        raise error
    assert str(raised.value) == advice


def test_whoever_meets_the_end_of_memory_is_not_blamed(
    trained: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loading says that weights do not fit, tracing that a classifier cannot be exported."""

    def load(self: Any, state: Any) -> None:
        raise RuntimeError(TORCH)

    monkeypatch.setattr(nn.Module, "load_state_dict", load)
    said = r"No file was written: Out of memory while backbone 'mlp' took its weights: .*\. Close"
    with pytest.raises(OutOfMemory, match=f"{said} other programs"):
        pipeline.export(trained.finetuned, workspace=trained.workspace)


@pytest.mark.parametrize("error", [RuntimeError(TORCH), MemoryError()])
def test_whoever_loads_a_data_set_is_not_blamed(error: Exception, trained: Any) -> None:
    from zoo.pipeline import assembly

    entry = trained.workspace.registry.lookup("dataset", "digits")
    with pytest.raises(OutOfMemory) as caught, assembly.guarded(entry, "loaded"):
        raise error
    assert str(caught.value).startswith("Out of memory while dataset 'digits' was loaded: ")


def test_less_memory_is_fewer_examples_at_a_time(
    trained: Any, starve: Callable[[int], list[int]]
) -> None:
    """The same rows, and the same file: what is bounded is the batch."""
    seen = starve(10**6)
    pipeline.validate(trained.model, memory=10**4, workspace=trained.workspace)
    wide = [*seen]
    seen.clear()
    pipeline.validate(trained.model, workspace=trained.workspace)
    assert max(wide) < max(seen) == 257


def test_of_a_large_network_each_row_says_how_much_was_asked(
    trained: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = open_model(trained.model)
    monkeypatch.setattr(budget, "WORK", 100 * cost_of(file.model).macs)
    monkeypatch.setattr(model_files, "other_versions", lambda card: "other versions")
    proof = pipeline.validate(trained.model, workspace=trained.workspace)
    assert not proof.failures
    said = {row.name: row.figure for row in proof.rows}
    assert "labels differ in 100 examples" in said["onnxruntime at no and full optimization"]
    assert said["batches 1, 2, 7"].endswith(" apart in 25 examples")
    assert said["finite outputs"] == "360 test examples"  # each of them, once


class Large(nn.Module):
    """Takes a batch of four at most."""

    def forward(self, inputs: Tensor) -> Tensor:
        if len(inputs) > 4:
            raise RuntimeError(TORCH)
        return inputs * 2


def test_pytorch_is_given_half_as_many_where_memory_ends() -> None:
    inputs = torch.arange(30.0)[:, None]
    assert torch.equal(outputs(Large(), inputs), inputs * 2)
    with pytest.raises(OutOfMemory, match=r"PyTorch ran out of memory on a batch of 8\."):
        Original(Large()).logits(inputs.numpy(), 8)


REAL = """
import resource, sys
import numpy as np
from pathlib import Path
from zoo.errors import OutOfMemory
from zoo.export.runtime import open_session
session = open_session(Path(sys.argv[1]), lean=True, threads=1)
images = np.zeros((2_000_000, 1, 8, 8), np.uint8)
held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + 300_000_000,) * 2)
try:
    session.run(images)
except OutOfMemory as error:
    print(error)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's limit of the address space")
def test_onnxruntimes_own_message_is_known(trained_once: Any) -> None:
    command = [sys.executable, "-c", REAL, str(trained_once.model)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout == "onnxruntime ran out of memory on a batch of 2000000.\n", done.stderr


REAL_TORCH = """
import resource
from pathlib import Path
import torch
from zoo.errors import OutOfMemory
from zoo.training import outputs
class Wide(torch.nn.Module):
    def forward(self, inputs):
        return inputs.expand(-1, 10**8).relu()[:, :1]
torch.set_num_threads(1)
held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + 1_500_000_000,) * 2)
print(outputs(Wide(), torch.ones(8, 1), batch_size=8).sum().item())
resource.setrlimit(resource.RLIMIT_AS, (held + 100_000_000,) * 2)
try:
    outputs(Wide(), torch.ones(8, 1))
except OutOfMemory as error:
    print(error)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's limit of the address space")
def test_torchs_own_message_is_known() -> None:
    done = subprocess.run([sys.executable, "-c", REAL_TORCH], capture_output=True, text=True)
    said = ["8.0", "PyTorch ran out of memory on a single example."]
    assert done.stdout.splitlines() == said, done.stderr
