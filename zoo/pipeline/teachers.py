"""The two sorts of teachers: a finished run, and an ONNX file that onnxruntime runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from zoo.api import ImageInput
from zoo.errors import ModelFileError, Unfit, first_line
from zoo.pipeline import assembly
from zoo.pipeline.evaluation import classifier_of
from zoo.pipeline.workspace import Workspace
from zoo.runs import Run

Kind = Literal["logits", "features"]


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


def open_teacher(path: Path) -> tuple[FileTeacher, bytes]:
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

    from zoo.export.endless import may_be_endless, unanswered
    from zoo.export.runtime import answers

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

    endless = may_be_endless(data)

    def run(images: Any) -> Any:
        try:
            return answers(session, [given.name], {taken[0].name: images}, endless=endless)[0]
        except TimeoutError:
            raise unanswered(path) from None
        except Exception as error:
            raise ModelFileError(f"onnxruntime cannot run '{path}': {first_line(error)}.") from None

    channels, height, width = shape
    input = ImageInput(channels=channels, height=height, width=width)
    kind: Kind = "logits" if given.name == "logits" else "features"
    return FileTeacher(path, input, kind, given.shape[1], run)
