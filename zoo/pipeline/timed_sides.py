"""What `benchmark` measures by turns: a file in a process of its own, a run in PyTorch."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from zoo import runs
from zoo.errors import ModelFileError, RunError, UsageError, ZooError
from zoo.export import timing
from zoo.export.card import Card
from zoo.pipeline.workspace import Workspace
from zoo.progress import current
from zoo.runs import Run

Order = dict[str, Any]
Ask = Callable[[Order], dict[str, Any]]


@dataclasses.dataclass
class Side:
    """One side: how to ask it, what it said when it was opened, and its rounds by batch size."""

    ask: Ask
    batches: list[int]
    opened: dict[str, Any]
    rounds: dict[int, list[dict[str, Any]]]


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where the run that a file came from is looked for, unless it is given."""

    run: Run | None
    workspace: Workspace

    def of(self, path: Path, card: Card) -> Run:
        """Find it by its name and its weights; raises `RunError`."""
        places = [path.resolve().parent, self.workspace.runs_root / Path(card.run).name]
        if self.run is not None:
            places = [self.run.folder]
        for folder in places:
            with contextlib.suppress(RunError):
                found = runs.load(folder)
                same = found.record.weights_sha256 == card.weights_sha256
                if found.record.run == card.run and same:
                    return self.workspace.finetuned(found)
        looked = " nor ".join(f"'{place}'" for place in places)
        raise RunError(f"its run '{card.run}', with its weights, is not in {looked}.")


def open_file(
    stack: contextlib.ExitStack, path: Path, batches: list[int], threads: int, provider: str
) -> Side:
    """Start a file's own process, in which it is imported for, loaded, and run once."""
    ask = stack.enter_context(_process(path))
    opened = ask(
        {
            "file": str(path.resolve()),
            "batches": batches,
            "threads": threads,
            "provider": provider,
        }
    )
    if opened.get("unknown_provider"):
        known = ", ".join(opened["providers"])
        raise UsageError(f"onnxruntime has no provider '{provider}' here. Installed: {known}.")
    opened["first_seconds"] = {int(k): v for k, v in opened["first_seconds"].items()}
    return Side(ask, batches, opened, {batch: [] for batch in batches})


@contextlib.contextmanager
def _process(path: Path) -> Iterator[Ask]:
    command = [sys.executable, "-P", "-m", timing.__name__]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    asking, answers = process.stdin, process.stdout

    def ask(order: Order) -> dict[str, Any]:
        try:
            asking.write(json.dumps(order) + "\n")
            asking.flush()
            line = answers.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise ModelFileError(
                f"'{path}' cannot be measured: its process ended with status {process.wait()}."
            )
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ModelFileError(f"'{path}' cannot be measured: {answer['error']}.")
        return answer

    try:
        yield ask
    finally:
        process.kill()
        process.communicate()


def open_torch(
    stack: contextlib.ExitStack,
    paths: list[Path],
    cards: list[Card],
    sizes: list[list[int]],
    threads: int,
    origin: Origin,
    notes: list[str],
) -> dict[str, Side]:
    """Load each file's run in PyTorch; what is not found is noted and left out."""
    found: dict[str, Side] = {}
    for path, card, batches in zip(paths, cards, sizes, strict=True):
        if card.run in found:
            side = found[card.run]
            new = [batch for batch in batches if batch not in side.batches]
            side.batches += new
            side.rounds |= {batch: [] for batch in new}
            continue
        try:
            run = origin.of(path, card)
            current().note("loading PyTorch")
            found[card.run] = _torch_side(stack, run, card, list(batches), threads, origin)
        except ZooError as error:
            notes.append(f"PyTorch was left out for {path}: {error}")
    return found


def _torch_side(
    stack: contextlib.ExitStack,
    run: Run,
    card: Card,
    batches: list[int],
    threads: int,
    origin: Origin,
) -> Side:
    import torch

    from zoo.pipeline.evaluation import load_classifier
    from zoo.training import cpu_threads

    stack.enter_context(cpu_threads(threads))
    classifier, _ = load_classifier(run, origin.workspace)
    generator = torch.Generator().manual_seed(timing.SEED)
    calls: dict[int, Callable[[], object]] = {}

    def caller(batch: int) -> Callable[[], object]:
        shape = (batch, *card.input.shape)
        images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        return lambda: classifier(images).softmax(1)

    def ask(order: Order) -> dict[str, Any]:
        batch = order["batch"]
        with torch.inference_mode():
            if batch not in calls:
                calls[batch] = caller(batch)
                opened["first_seconds"][batch] = timing.time_runs(calls[batch], 1, 0)[0]
            return timing.answer_round(calls[batch], order)

    opened: dict[str, Any] = {"first_seconds": {}, "torch": torch.__version__}
    return Side(ask, batches, opened, {batch: [] for batch in batches})


def take_turn(side: Side, order: Order) -> None:
    for batch in side.batches:
        side.rounds[batch].append(side.ask({**order, "batch": batch}))
