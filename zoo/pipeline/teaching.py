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
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from zoo import runs
from zoo.api import ImageInput, Teacher
from zoo.config import to_json
from zoo.errors import ModelFileError, RunError, Unfit, first_line
from zoo.pipeline import assembly
from zoo.pipeline.assembly import Part
from zoo.pipeline.evaluation import classifier_of
from zoo.pipeline.workspace import Workspace
from zoo.runs import Run

Kind = Literal["logits", "features"]
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
    """Find teachers among a workspace's runs and on disk; `loans` are those by what was asked."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self.loans: dict[str, Loan] = {}

    def teacher(self, text: str) -> Teacher:
        """Load a finished run or an ONNX file; raises `RunError`, `ModelFileError`."""
        with torch.random.fork_rng(devices=[]):  # what is built next is not to depend on it
            return self._file(text) if text.endswith(".onnx") else self._run(text)

    def _file(self, text: str) -> Teacher:
        path = Path(text)
        teacher, data = _opened(path)
        self.loans[text] = Loan(str(path.absolute()), hashlib.sha256(data).hexdigest())
        return teacher

    def _run(self, text: str) -> Teacher:
        root = self._workspace.runs_root
        try:
            run = runs.find(root, text, lambda found: found.record.status == "finished", WANTED)
        except RunError as error:
            raise RunError(f"{str(error).rstrip('.')}. {MEANT}") from None
        teacher = RunTeacher(run, self._workspace)
        inside = run.folder.parent.absolute() == root.absolute()
        name = run.name if inside else str(run.folder.absolute())
        self.loans[text] = Loan(name, str(run.record.weights_sha256))
        return teacher

    def settled(self, part: Part) -> Part:
        """Return a part whose options name the teachers that were lent for good, not `latest`."""
        named = {
            name: self.loans[value].text
            for name, value in to_json(part.config).items()
            if isinstance(value, str) and value in self.loans
        }
        return dataclasses.replace(part, config=dataclasses.replace(part.config, **named))

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


class RunTeacher:
    """The classifier of a finetuning, or the encoder of a pretraining; never trained."""

    kind: Kind

    def __init__(self, run: Run, workspace: Workspace) -> None:
        self.input = run.data_input
        self._name = run.name
        if run.record.kind == "finetune":
            self.kind, self.width = "logits", len(run.record.classes)
            self._answer: nn.Module = classifier_of(run, workspace)
        else:
            part = assembly.recorded(workspace, "backbone", run.record.backbone)
            backbone = assembly.build_backbone(part, run.input)
            assembly.load_backbone(run, backbone, part)
            preprocess = assembly.preprocess_for(run.data_input, run.input, backbone)
            self.kind, self.width = "features", int(backbone.features)  # type: ignore[arg-type]
            self._answer = nn.Sequential(preprocess, backbone.encoder)  # type: ignore[arg-type]
        self._answer.eval().requires_grad_(False)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def __call__(self, raw: Tensor) -> Tensor:
        _check_shape(self._name, self.input, raw)
        # Not an objective's module, so that nothing moves it with the others.
        self._answer.to(raw.device)
        with torch.no_grad(), torch.autocast(raw.device.type, enabled=False):
            answer: Tensor = self._answer(raw)
        return answer.float()


class FileTeacher:
    """An ONNX file, run by onnxruntime on the CPU."""

    def __init__(self, path: Path, input: ImageInput, kind: Kind, width: int, run: Any) -> None:
        self.input, self.kind, self.width = input, kind, width
        self._path, self._run = path, run

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def __call__(self, raw: Tensor) -> Tensor:
        _check_shape(str(self._path), self.input, raw)
        answer: Tensor = torch.from_numpy(self._run(raw.contiguous().cpu().numpy()))
        return answer.float().to(raw.device)


def _check_shape(name: str, input: ImageInput, raw: Tensor) -> None:
    if tuple(raw.shape[1:]) != input.shape:
        given = "×".join(map(str, raw.shape[1:]))
        raise Unfit(
            f"the teacher '{name}' takes inputs of {input}, and those of the data set are {given}."
            " Type --dataset with inputs of that size, or -o teacher= with another one."
        )


def _opened(path: Path) -> tuple[FileTeacher, bytes]:
    """Open a file that zoo exported, or any that takes raw bytes; raises `ModelFileError`."""
    from zoo.export.runtime import open_session
    from zoo.export.seal import read_model

    data = read_model(path)
    threads = torch.get_num_threads()
    if b"zoo.schema" not in data:
        return _foreign(path, data, threads), data
    session = open_session(path, data, threads=threads)
    width = len(session.card.labels)
    run = lambda images: session.run(images)[0]  # noqa: E731
    return FileTeacher(path, session.card.input, "logits", width, run), data


def _foreign(path: Path, data: bytes, threads: int) -> FileTeacher:
    """Take a file of somebody else's: uint8 N x C x H x W in; the first output, N x K, is taught.

    An output that is called `logits` is a classifier's, any other one is features.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, threads
    try:
        session = onnxruntime.InferenceSession(
            data, options, providers=["CPUExecutionProvider"], enable_fallback=0
        )
    except Exception as error:
        raise ModelFileError(
            f"'{path}' is not a file that onnxruntime can load: {first_line(error)}."
        ) from None
    taken, given = session.get_inputs(), session.get_outputs()[0]
    batch, *shape = list(taken[0].shape) or [None]
    sized = len(shape) == 3 and all(isinstance(side, int) for side in shape)
    wide = len(given.shape) == 2 and isinstance(given.shape[1], int)
    known = taken[0].type == "tensor(uint8)" and given.type == "tensor(float)"
    if len(taken) != 1 or isinstance(batch, int) or not (sized and wide and known):
        ports = ", ".join(f"{port.name}, {port.type} {port.shape}" for port in (*taken, given))
        raise ModelFileError(
            f"'{path}' has {ports}. A teacher takes raw bytes, tensor(uint8) of any batch"
            " × channels × height × width, and gives tensor(float) of batch × numbers."
        )

    def run(images: Any) -> Any:
        try:
            return session.run([given.name], {taken[0].name: images})[0]
        except Exception as error:
            raise ModelFileError(f"onnxruntime cannot run '{path}': {first_line(error)}.") from None

    channels, height, width = shape
    input = ImageInput(channels=channels, height=height, width=width)
    kind: Kind = "logits" if given.name == "logits" else "features"
    return FileTeacher(path, input, kind, given.shape[1], run)


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
