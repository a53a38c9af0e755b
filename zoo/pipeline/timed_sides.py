"""What `benchmark` measures by turns: a file in a process of its own, a run in PyTorch."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from zoo import runs
from zoo.errors import ModelFileError, RunError, UsageError, ZooError
from zoo.export import endless as loops
from zoo.export import timing
from zoo.export.card import Card
from zoo.export.endless import may_be_endless, unanswered
from zoo.export.seal import read_model
from zoo.pipeline.affordable import Allowance, Pace, paced
from zoo.pipeline.provenance import places
from zoo.pipeline.workspace import Workspace
from zoo.progress import current
from zoo.runs import Run

Order = dict[str, Any]
Ask = Callable[[Order], dict[str, Any]]


@dataclasses.dataclass
class Side:
    """One side: how to ask it, what it said when it was opened; by batch size its pace and rounds.

    It is measured at the batch sizes that have a pace; of all that it was `asked` for, the others
    were refused. `each` is the seconds of one example, by the first call.
    """

    ask: Ask
    opened: dict[str, Any]
    paces: dict[int, Pace] = dataclasses.field(default_factory=dict)
    rounds: dict[int, list[dict[str, Any]]] = dataclasses.field(default_factory=dict)
    asked: set[int] = dataclasses.field(default_factory=set)
    each: float | None = None

    @property
    def batches(self) -> list[int]:
        return list(self.paces)

    def add(self, name: str, batches: list[int], allowance: Allowance, notes: list[str]) -> None:
        """Call it first at each batch size that it can afford and was not asked for before."""
        if new := [batch for batch in batches if batch not in self.asked]:
            self.paces |= paced(name, new, self._first, allowance, notes, self.each)
            self.asked |= set(new)

    def _first(self, batch: int) -> float:
        answer = self.ask({"first": batch})
        self.opened["first_seconds"][batch] = answer["first_seconds"]
        self.rounds[batch] = []
        seconds = float(answer["seconds"])
        if self.each is None:
            self.each = seconds / batch
        return seconds


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where the run that a file came from is looked for, unless it is given."""

    run: Run | None
    workspace: Workspace

    def of(self, path: Path, card: Card) -> Run:
        """Find it by its name and its weights; raises `RunError`."""
        given = [] if self.run is None else [self.run.folder]
        for folder in given or places(path, card, self.workspace):
            with contextlib.suppress(RunError):
                found = runs.load(folder)
                same = found.record.weights_sha256 == card.weights_sha256
                if found.record.run == card.run and same:
                    return self.workspace.finetuned(found)
        looked = [self.run.folder] if self.run else [self.workspace.runs_root, path.parent]
        named = " nor ".join(f"'{place}'" for place in looked)
        raise RunError(f"its run '{card.run}', with its weights, is not in {named}.")


def open_file(
    stack: contextlib.ExitStack,
    path: Path,
    batches: list[int],
    threads: int,
    provider: str,
    allowance: Allowance | None = None,
    notes: list[str] | None = None,
) -> Side:
    """Start a file's own process, in which it is imported for, loaded, and run first."""
    ask = stack.enter_context(_process(path))
    opened = ask({"file": str(path.resolve()), "threads": threads, "provider": provider})
    if opened.get("unknown_provider"):
        known = ", ".join(opened["providers"])
        raise UsageError(f"onnxruntime has no provider '{provider}' here. Installed: {known}.")
    side = Side(ask, {**opened, "first_seconds": {}})
    side.add(str(path), batches, allowance or Allowance(), [] if notes is None else notes)
    return side


@contextlib.contextmanager
def _process(path: Path) -> Iterator[Ask]:
    endless = False
    with contextlib.suppress(ModelFileError):  # what is wrong with the file, the process says
        endless = may_be_endless(read_model(path))
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
        limit = threading.Timer(loops.LONGEST, process.kill)
        try:
            asking.write(json.dumps(order) + "\n")
            asking.flush()
            if endless and "first" in order:
                limit.start()
            line = answers.readline()
        except BrokenPipeError:
            line = ""
        finally:
            limit.cancel()
        if not line and limit.ident is not None and process.wait() == -signal.SIGKILL:
            raise unanswered(path)
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
    allowances: list[Allowance],
    notes: list[str],
) -> dict[str, Side]:
    """Load each file's run in PyTorch; what is not found is noted and left out."""
    found: dict[str, Side] = {}
    for path, card, batches, allowance in zip(paths, cards, sizes, allowances, strict=True):
        try:
            if card.run not in found:
                run = origin.of(path, card)
                current().note("loading PyTorch")
                found[card.run] = _torch_side(stack, run, card, threads, origin)
            found[card.run].add("PyTorch", batches, allowance, notes)
        except ZooError as error:
            notes.append(f"PyTorch was left out for {path}: {error}")
    return found


def _torch_side(
    stack: contextlib.ExitStack, run: Run, card: Card, threads: int, origin: Origin
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
        with torch.inference_mode():
            if "first" in order:
                calls[order["first"]] = caller(order["first"])
                return timing.answer_first(calls[order["first"]])
            return timing.answer_round(calls[order["batch"]], order)

    return Side(ask, {"first_seconds": {}, "torch": torch.__version__})


def take_turn(side: Side, order: Order, turn: int) -> None:
    """Run a round at each batch size that has as many."""
    for batch, pace in side.paces.items():
        if turn < pace.rounds:
            answer = side.ask({**order, "batch": batch, "least": pace.least})
            side.rounds[batch].append(answer)
