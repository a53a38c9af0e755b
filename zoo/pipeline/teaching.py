"""Trained models that teach others: a run or an ONNX file, lent to an objective while it is built.

The pipeline says where runs lie; `zoo.api.teacher` asks whoever lends at the moment.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Protocol

import torch
from torch import nn

from zoo import runs
from zoo.api import Component, ImageInput, Teacher
from zoo.config import to_json
from zoo.errors import RunError
from zoo.pipeline import assembly
from zoo.pipeline.assembly import Part
from zoo.pipeline.teachers import RunTeacher, open_teacher
from zoo.pipeline.workspace import Workspace
from zoo.runs import Run

WANTED = "finished run"
MEANT = "A teacher is a run's folder or name, latest, or an .onnx file."


class Lender(Protocol):
    """Whoever finds a teacher by the text that names it."""

    def teacher(self, text: str) -> Teacher: ...


@dataclasses.dataclass(frozen=True)
class Loan:
    """A teacher that was found: the text that names it from now on, and its SHA-256."""

    text: str
    sha256: str


class Library:
    """Find teachers among a workspace's runs and on disk; `loans` are those by what was asked.

    `runs` are the runs among them by name, and `files` the names of the others' files.
    `latest` is the newest finished run that `by` did not make: the recipe or bench that asks, whose
    own runs would otherwise teach each other.
    """

    def __init__(self, workspace: Workspace, *, by: str | None = None) -> None:
        self._workspace, self._by = workspace, by
        self.loans: dict[str, Loan] = {}
        self.runs: dict[str, Run] = {}
        self.files: list[str] = []
        self._lent: dict[str, Teacher] = {}

    def teacher(self, text: str) -> Teacher:
        """Load a finished run or an ONNX file, once; raises `RunError`, `ModelFileError`."""
        if text not in self._lent:
            with torch.random.fork_rng(devices=[]):  # what is built next is not to depend on it
                found = self._file(text) if text.endswith(".onnx") else self._run(text)
            self._lent |= {text: found, self.loans[text].text: found}
        return self._lent[text]

    def _file(self, text: str) -> Teacher:
        path = Path(text)
        teacher, data = open_teacher(path)
        self.loans[text] = Loan(str(path.absolute()), hashlib.sha256(data).hexdigest())
        self.files.append(path.name)
        return teacher

    def _run(self, text: str) -> Teacher:
        root = self._workspace.runs_root

        def fits(found: Run) -> bool:
            own = text == "latest" and self._by and (found.record.recipe or {}).get("name")
            return found.record.status == "finished" and (not own or own != self._by)

        try:
            run = runs.find(root, text, fits, WANTED)
        except RunError as error:
            raise RunError(f"{str(error).rstrip('.')}. {MEANT}") from None
        teacher = RunTeacher(run, self._workspace)
        inside = run.folder.parent.absolute() == root.absolute()
        name = run.name if inside else str(run.folder.absolute())
        self.loans[text] = Loan(name, str(run.record.weights_sha256))
        self.runs[run.name] = run
        return teacher

    def settled(self, part: Part) -> Part:
        """Return a part whose options name the teachers that were lent for good, not `latest`."""
        named = {
            name: self.loans[value].text
            for name, value in to_json(part.config).items()
            if isinstance(value, str) and value in self.loans
        }
        return dataclasses.replace(part, config=dataclasses.replace(part.config, **named))

    def engaged(self, objective: Component, model: nn.Module, input: ImageInput) -> Component:
        """Build an objective and try it on zeros; return it with its teachers named for good.

        `input` is what the model was built for. To be called before a key is made.
        """
        part = assembly.choose(self._workspace, "objective", objective)
        with lending(self):
            task = assembly.build_objective(self._workspace, part, model)
        preprocess = assembly.preprocess_for(input, input, model)
        assembly.check_objective(part, task, model, preprocess)
        return Component(objective.name, **to_json(self.settled(part).config))

    @property
    def fingerprints(self) -> dict[str, str]:
        """The SHA-256 of each teacher, by the text that names it for good."""
        return {loan.text: loan.sha256 for loan in self.loans.values()}

    def check(self, run: Run) -> None:
        """Hold that a run that goes on has the teachers it began with; raises `RunError`."""
        for text, sha256 in run.record.teachers.items():
            if self.fingerprints.get(text, sha256) != sha256:
                raise RunError(
                    f"Run '{run.name}' began with the teacher '{text}', whose weights are others"
                    " now. Bring it back, or train anew."
                )


_current: ContextVar[Lender | None] = ContextVar("zoo_lender", default=None)


def current_lender() -> Lender:
    """Return who lends now; outside of a pipeline, what `ZOO_RUNS` says."""
    return _current.get() or Library(Workspace())


@contextlib.contextmanager
def lending(lender: Lender) -> Iterator[None]:
    """Let `zoo.api.teacher` ask this lender within the block."""
    token = _current.set(lender)
    try:
        yield
    finally:
        _current.reset(token)
