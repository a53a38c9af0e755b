"""Model files that are none, or not sound: one line from every verb, and the right exit status."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper
from PIL import Image

from zoo.errors import ModelFileError
from zoo.export import endless, trials
from zoo.export.modelfile import open_model
from zoo.export.runtime import open_session
from zoo.export.seal import BLANK, KEY, seal

Cli = Callable[..., Any]


def changed(change: Callable[[ModelProto], None]) -> Callable[[bytes], bytes]:
    """Change a model and seal it anew: what else is wrong has to be found."""

    def damage(data: bytes) -> bytes:
        model = onnx.load_model_from_string(data)
        change(model)
        for prop in model.metadata_props:
            prop.value = BLANK.decode() if prop.key == KEY else prop.value
        return seal(bytes(model.SerializeToString()))

    return damage


def no_number(model: ModelProto) -> None:
    tensor = max(model.graph.initializer, key=lambda t: len(t.raw_data))
    array = numpy_helper.to_array(tensor).copy()
    array.flat[0] = np.nan
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def opset_99(model: ModelProto) -> None:
    model.opset_import[0].version = 99


def ir_99(model: ModelProto) -> None:
    model.ir_version = 99


def unknown_operator(model: ModelProto) -> None:
    model.graph.node[0].op_type = "Castle"


def custom_operator(model: ModelProto) -> None:
    model.graph.node[0].domain = "com.example"
    model.opset_import.append(helper.make_opsetid("com.example", 1))


def other_count(model: ModelProto) -> None:
    for value in model.graph.output:
        value.type.tensor_type.shape.dim[1].dim_value = 9


def external(location: str) -> Callable[[ModelProto], None]:
    def change(model: ModelProto) -> None:
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = tensor.EXTERNAL
        tensor.external_data.add(key="location", value=location)

    return change


def input_as(change: Callable[[Any], None]) -> Callable[[ModelProto], None]:
    def damage(model: ModelProto) -> None:
        change(model.graph.input[0].type.tensor_type)

    return damage


def float_input(kind: Any) -> None:
    kind.elem_type = TensorProto.FLOAT


def rank_3(kind: Any) -> None:
    del kind.shape.dim[1]


def wider(kind: Any) -> None:
    kind.shape.dim[3].dim_value = 9


def of_a_billion(kind: Any) -> None:
    for side in (2, 3):
        kind.shape.dim[side].dim_value = 10**9


def huge(model: ModelProto) -> None:
    """Describe an input of 10^9 x 10^9 in the metadata, too."""
    of_a_billion(model.graph.input[0].type.tensor_type)
    for prop in model.metadata_props:
        if prop.key == "zoo.input":
            billion = 10**9
            shape = ["batch", 1, billion, billion]
            said = json.loads(prop.value) | {"height": billion, "width": billion, "shape": shape}
            prop.value = json.dumps(said)


def twice(model: ModelProto) -> None:
    model.metadata_props.add(key="zoo.run", value="another")


def looping(rounds: int, *, empty: bool = False) -> Callable[[ModelProto], None]:
    """Add zero to the logits by a loop of so many rounds, which no optimizer can take away.

    Its body has two nodes, or none.
    """

    def change(model: ModelProto) -> None:
        graph, number = model.graph, helper.make_tensor_value_info
        arrays = {"rounds": np.array(rounds), "more": np.array(True), "axes": np.array([0, 1]),
                  "none": np.zeros((), np.float32)}  # fmt: skip
        graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in arrays.items())
        body = helper.make_graph(
            []
            if empty
            else [
                helper.make_node("Identity", ["again"], ["on"]),
                helper.make_node("Add", ["value", "value"], ["next"]),
            ],
            "body",
            [
                number("round", TensorProto.INT64, []),
                number("again", TensorProto.BOOL, []),
                number("value", TensorProto.FLOAT, []),
            ],
            [
                number("again" if empty else "on", TensorProto.BOOL, []),
                number("value" if empty else "next", TensorProto.FLOAT, []),
            ],
        )
        place = next(i for i, node in enumerate(graph.node) if "logits" in node.output)
        nodes = list(graph.node)
        nodes[place].output[0] = "before"
        added = [
            helper.make_node("ReduceSum", ["before", "axes"], ["sum"], keepdims=0),
            helper.make_node("Mul", ["sum", "none"], ["zero"]),
            helper.make_node("Loop", ["rounds", "more", "zero"], ["end"], body=body),
            helper.make_node("Add", ["before", "end"], ["logits"]),
        ]
        del graph.node[:]
        graph.node.extend([*nodes[: place + 1], *added, *nodes[place + 1 :]])

    return change


def one_bit(data: bytes) -> bytes:
    """Flip a high bit in the middle of the largest weight: ONNX and onnxruntime say nothing."""
    weight = max(onnx.load_model_from_string(data).graph.initializer, key=lambda t: len(t.raw_data))
    place = data.find(weight.raw_data) + 4 * (len(weight.raw_data) // 8) + 3
    return data[:place] + bytes([data[place] ^ 0x40]) + data[place + 1 :]


def no_text(data: bytes) -> bytes:
    """Write a byte that begins no character into the metadata: protobuf then hands over bytes."""
    return data.replace(b"zoo.input", b"zoo.inp\xfft")


def pytorch(_: bytes) -> bytes:
    file = io.BytesIO()
    torch.save({"weight": torch.zeros(3)}, file)
    return file.getvalue()


def foreign(_: bytes) -> bytes:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    node = helper.make_node("Identity", ["x"], ["y"])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    graph = helper.make_graph([node], "g", [value], [out])
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 18)])
    return bytes(model.SerializeToString())


# What was done, what validate and inspect say, and what predict says, which has onnxruntime alone.
TABLE: dict[str, tuple[Callable[[bytes], bytes], str, str]] = {
    "empty": (lambda data: b"", "'bad.onnx' is empty, 0 bytes", ""),
    "garbage": (lambda data: b"this is no model" * 99, "is not an ONNX file", ""),
    **{
        f"cut to {share:%}": (
            lambda data, share=share: data[: int(len(data) * share)],
            "'bad.onnx' ",
            "'bad.onnx' ",
        )
        for share in (0.0001, 0.1, 0.5, 0.99, 0.999)
    },
    "cut by a byte": (lambda data: data[:-1], "'bad.onnx' ", "'bad.onnx' "),
    "a PyTorch file": (pytorch, "zip archive, as a PyTorch file is", ""),
    "one bit": (one_bit, "was changed after it was exported", ""),
    "text that is not UTF-8": (no_text, "is corrupt: a 'key' of it is not UTF-8", "can load"),
    "a weight that is no number": (changed(no_number), "is not finite", "gives NaN or infinity"),
    "opset 99": (changed(opset_99), "opset 99 and IR version 8; this onnx knows", "can load"),
    "IR 99": (changed(ir_99), "IR version 99", "can load"),
    "unknown operator": (changed(unknown_operator), "unknown operators: Castle", "can load"),
    "custom operator": (changed(custom_operator), "Cast of com.example", "can load"),
    "another class count": (changed(other_count), "", "contradicts itself"),
    "external data missing": (changed(external("gone.data")), "lie in another", "can load"),
    "external data escaping": (changed(external("../../etc/passwd")), "lie in another", "can load"),
    "float input": (changed(input_as(float_input)), "", ""),
    "input of rank 3": (changed(input_as(rank_3)), "", ""),
    "wider input": (changed(input_as(wider)), "", ""),
    "input of a billion": (changed(huge), "input not sound", "onnxruntime can load"),
    "metadata twice": (changed(twice), "'zoo.run' is in them twice", ""),
}


@pytest.mark.parametrize("verb", ["validate", "inspect", "predict", "benchmark"])
@pytest.mark.parametrize("what", TABLE)
def test_each_is_one_line_and_status_1(cli: Cli, trained: Any, verb: str, what: str) -> None:
    damage, words, in_onnxruntime = TABLE[what]
    Image.new("L", (8, 8)).save("picture.png")
    Path("bad.onnx").write_bytes(damage(trained.model.read_bytes()))
    alone = verb in ("predict", "benchmark")
    result = cli(verb, "bad.onnx", *(["picture.png"] if verb == "predict" else []))
    if verb == "benchmark" and what == "a weight that is no number":
        return  # it times a file, whatever it answers
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert (in_onnxruntime or words if alone else words) in result.stderr
    assert "bad.onnx" in result.stderr


@pytest.mark.parametrize("verb", ["validate", "inspect", "predict", "benchmark"])
def test_no_file_and_a_folder_are_status_2(cli: Cli, verb: str) -> None:
    Path("folder").mkdir()
    more = ["picture.png"] if verb == "predict" else []
    for name, words in (("nowhere.onnx", "There is no file"), ("folder", "is a folder")):
        result = cli(verb, name, *more)
        assert result.exit_code == 2
        assert result.stdout == ""
        assert len(result.stderr.splitlines()) == 1
        assert words in result.stderr
        assert name in result.stderr


@pytest.mark.parametrize("verb", ["validate", "inspect", "predict", "benchmark"])
def test_what_is_no_file_is_one_line(cli: Cli, verb: str) -> None:
    os.mkfifo("pipe.onnx")
    Path("zero.onnx").symlink_to("/dev/zero")
    Path("vast.onnx").touch()
    os.truncate("vast.onnx", 2**33)
    more = ["picture.png"] if verb == "predict" else []
    for name, words in (
        ("pipe.onnx", "it is a pipe or a device, not a file"),
        ("zero.onnx", "it is a pipe or a device, not a file"),
        ("vast.onnx", "it is larger than 2,147,483,648 bytes"),
    ):
        result = cli(verb, name, *more)
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr == f"Error: '{name}' cannot be read: {words}.\n"


# --- a loop without an end ----------------------------------------------------------------------

ENDLESS = 2**62
INTERRUPTED = """
import dataclasses, os, signal, sys, threading
from pathlib import Path
import numpy as np
from zoo.export.runtime import open_session

signal.signal(signal.SIGINT, signal.default_int_handler)
session = open_session(Path(sys.argv[1]))
session = dataclasses.replace(session, endless=session.endless and sys.argv[2] == "known")
threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    session.run(np.zeros((1, 1, 8, 8), np.uint8))
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize(
    ("empty", "known"), [(False, "known"), (True, "known"), (False, "long, but not for ever")]
)
def test_ctrl_c_ends_a_loop_without_an_end(
    trained: Any, tmp_path: Path, empty: bool, known: str
) -> None:
    """Between two nodes; where its body has none it is left behind, and ends with the process.

    What merely takes long is waited for instead, to its next node.
    """
    path = tmp_path / "endless.onnx"
    path.write_bytes(changed(looping(ENDLESS, empty=empty))(trained.model.read_bytes()))
    command = [sys.executable, "-c", INTERRUPTED, str(path), known]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr, done.returncode) == ("interrupted\n", "", 0)


@pytest.mark.parametrize(
    "verb",
    [
        "predict",
        pytest.param("validate", marks=pytest.mark.slow),
        pytest.param("benchmark", marks=pytest.mark.slow),
    ],
)
def test_a_loop_without_an_end_is_not_waited_for(
    cli: Cli, trained: Any, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endless, "LONGEST", 1.0)
    Image.new("L", (8, 8)).save("picture.png")
    Path("endless.onnx").write_bytes(changed(looping(ENDLESS))(trained.model.read_bytes()))
    result = cli(verb, "endless.onnx", *(["picture.png"] if verb == "predict" else []))
    assert result.exit_code == 1
    assert "Error: 'endless.onnx' has not answered within 1 s. It has a loop" in result.stderr


def test_a_loop_that_ends_is_proved_by_the_reference_in_a_process_of_its_own(
    trained: Any, tmp_path: Path
) -> None:
    path = tmp_path / "three.onnx"
    path.write_bytes(changed(looping(3))(trained.model.read_bytes()))
    images = np.random.default_rng(0).integers(0, 256, (3, 1, 8, 8), dtype=np.uint8)
    [answer] = trials.elsewhere(trials.ONNX_REFERENCE, open_model(path), images)
    logits, _ = open_session(path).run(images)
    assert answer.problem == ""
    np.testing.assert_allclose(answer.logits, logits, atol=1e-5)


def test_a_file_of_another_tool_is_inspected_and_nothing_else(cli: Cli) -> None:
    Image.new("L", (8, 8)).save("picture.png")
    Path("other.onnx").write_bytes(foreign(b""))
    for verb in ("validate", "predict"):
        result = cli(verb, "other.onnx", *(["picture.png"] if verb == "predict" else []))
        assert result.exit_code == 1
        assert "'other.onnx' was not exported by zoo" in result.stderr
    found = json.loads(cli("inspect", "other.onnx", "--json").stdout)
    assert found["sealed"] is False
    assert found["operators"] == {"Identity": 1}


@pytest.mark.parametrize(
    "inputs",
    [
        np.zeros((2, 1, 8, 8), np.float32),
        np.zeros((2, 1, 8, 8), np.int64),
        np.zeros((1, 8, 8), np.uint8),
        np.zeros((2, 1, 9, 8), np.uint8),
        np.zeros((2, 8, 8, 1), np.uint8),
    ],
    ids=["float32", "int64", "rank 3", "taller", "channels last"],
)
def test_inputs_of_another_form_are_one_line(trained: Any, inputs: Any) -> None:
    with pytest.raises(ModelFileError, match=r"onnxruntime cannot run '.*model\.onnx'") as error:
        open_session(trained.model).run(inputs)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("verb", ["inspect", "predict", "validate", "benchmark"])
def test_every_verb_says_the_same_of_a_file_that_is_none(
    cli: Cli, trained: Any, tmp_path: Path, verb: str
) -> None:
    Image.new("L", (8, 8)).save("picture.png")
    rest = ["picture.png"] if verb == "predict" else []
    Path("cut.onnx").write_bytes(trained.model.read_bytes()[:5000])
    torch.save({}, "weights.onnx")
    for name, words in (("cut.onnx", "5,000 bytes cannot be parsed."), ("weights.onnx", "a zip")):
        result = cli(verb, name, *rest)
        assert result.exit_code == 1
        assert f"'{name}' is not an ONNX file, or was cut" in result.stderr
        assert words in result.stderr
    for name, words in (
        ("weight.onnx", "Did you mean 'weights.onnx'? Type: zoo export RUN"),
        ("latest", "Of a run name the file: RUN/model.onnx"),
    ):
        result = cli(verb, name, *rest)
        assert result.exit_code == 2
        assert f"There is no file '{name}'. {words}" in result.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("MODEL", "nope.png"), "There is no picture 'nope.png'."),
        (("MODEL", "."), "'.' is a folder; name the pictures in it."),
        (("picture.png", "MODEL"), "which is named first. Type: zoo predict"),
    ],
)
def test_what_predict_cannot_mean(
    cli: Cli, trained: Any, words: tuple[str, ...], said: str
) -> None:
    Image.new("L", (8, 8)).save("picture.png")
    result = cli("predict", *(trained.model if word == "MODEL" else word for word in words))
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr


def test_the_command_to_type_next_can_be_typed(cli: Cli, trained: Any) -> None:
    options = ("--runs", trained.runs, "--runtimes", "none", "--quiet")
    done = cli("export", trained.finetuned.name, "-o", "my file.onnx", *options)
    assert "Next: zoo predict 'my file.onnx' PICTURE…" in done.stdout, done.stderr
