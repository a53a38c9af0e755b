"""What the proof asks beside the test split: one example at a time, and extreme inputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto, helper
from torch import Tensor, nn
from torch.nn import functional as F

from zoo import pipeline
from zoo.api import ImageInput, Preprocessing
from zoo.errors import ModelFileError, OutOfMemory, PluginFault
from zoo.export import asking, trials
from zoo.export.budget import Budget
from zoo.export.card import Card
from zoo.export.comparison import softmax32
from zoo.export.evidence import infinite
from zoo.export.extremes import NAMES, extremes
from zoo.export.golden import Golden
from zoo.export.graph import finished, to_graph
from zoo.export.modelfile import open_model
from zoo.export.original import Original
from zoo.export.proof import Evidence, Proof, Reference, Row, prove
from zoo.export.runtime import open_session
from zoo.export.runtimes import Answer
from zoo.export.seal import BLANK, KEY, seal
from zoo.export.trials import Tried
from zoo.export.work import Cost
from zoo.models import Classifier, Preprocess
from zoo.pipeline import Workspace
from zoo.pipeline.exporting import failure

INPUT = ImageInput(channels=1, height=6, width=6)
CARD = Card(
    run="run",
    labels=["a", "b", "c"],
    input=INPUT,
    components={},
    metrics={"accuracy": 1.0},
    weights_sha256="",
    versions={},
)


class Layer(nn.Module):
    """A function of the pixels, N x 1 x 6 x 6."""

    def __init__(self, function: Callable[[Tensor], Tensor], **buffers: Tensor) -> None:
        super().__init__()
        self.function = function
        for name, buffer in buffers.items():
            self.register_buffer(name, buffer)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.function(inputs, **dict(self.named_buffers()))


def classifier_of(encoder: nn.Module, features: int) -> Classifier:
    torch.manual_seed(0)
    preprocess = Preprocess(INPUT, INPUT, Preprocessing(mean=(0.4,), std=(0.2,)))
    return Classifier(preprocess, encoder, nn.Linear(features, 3)).eval()


def reference_of(classifier: Classifier) -> Reference:
    images = np.random.default_rng(0).integers(1, 256, (20, *INPUT.shape), dtype=np.uint8)
    original = Original(classifier)
    logits = original.logits(images, 20)
    return Reference(images, logits.argmax(1), logits, logits, CARD, original)


def prove_it(
    classifier: Classifier,
    *,
    graph: ModelProto | None = None,
    others: bool = True,
    damage: Callable[[ModelProto], None] | None = None,
    card: Card = CARD,
    runtimes: tuple[str, ...] = (),
) -> Proof:
    """Export a classifier and prove the file; golden vectors it has none."""

    def make(opset: int) -> bytes:
        return finished(to_graph(classifier, INPUT, opset=opset), card)

    data = make(18) if graph is None else finished(graph, card)
    if damage is not None:
        data = resealed(data, damage)
    evidence = Evidence(
        dataclasses.replace(reference_of(classifier), card=card),
        "not needed",
        lambda: data,
        others=runtimes,
        at_opset=make if others else None,
    )
    return prove(open_model(Path("model.onnx"), data), evidence)


def asked_alone(classifier: Classifier, *, batch: int | None = None) -> list[Row]:
    """Ask PyTorch few at a time; in the place of the file, PyTorch in one batch."""
    card, reference = dataclasses.replace(CARD, batch=batch), reference_of(classifier)
    asked = asking.questions(card, reference, Budget(Cost(macs=1, activations=1)))
    assert asked.logits is not None
    answers = Tried((asked.logits, softmax32(asked.logits)))
    return list(asking.few_at_a_time(card, asked, answers))


def resealed(data: bytes, damage: Callable[[ModelProto], None]) -> bytes:
    model = onnx.load_model_from_string(data)
    damage(model)
    for prop in model.metadata_props:
        prop.value = BLANK.decode() if prop.key == KEY else prop.value
    return seal(bytes(model.SerializeToString()))


def row(proof: Proof, name: str) -> Row:
    return next(row for row in proof.rows if row.name.startswith(name))


def sound(proof: Proof) -> bool:
    """Whether nothing but the golden vectors is missing."""
    return proof.verdict == "intact" and [each.name for each in proof.skipped] == ["golden vectors"]


# --- extreme inputs --------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 6, 6), (3, 9, 7), (2, 1, 64)])
def test_extreme_inputs_lie_at_the_ends_of_the_type(shape: tuple[int, int, int]) -> None:
    input = ImageInput(**dict(zip(("channels", "height", "width"), shape, strict=True)))
    made = dict(zip(NAMES, extremes(input), strict=True))
    assert all(each.shape == shape and each.dtype == np.uint8 for each in made.values())
    assert made["all zero"].max() == 0
    assert made["all largest"].min() == 255
    assert (made["one bright point"] == 255).sum() == shape[0]
    assert (made["one dark point"] == 0).sum() == shape[0]
    for name in ("a checkerboard", "noise of both ends"):
        assert set(np.unique(made[name])) == {0, 255}, name
    assert made["noise near zero"].max() < 8
    assert made["noise near the largest"].min() > 247
    assert np.array_equal(extremes(input), np.stack(list(made.values())))


SMALL: dict[str, Callable[[Tensor], Tensor]] = {
    "x + 1e-8": lambda x: (x + 1e-8).log(),
    "1e-12 + x": lambda x: (1e-12 + x).log(),
    "x - 1e-9": lambda x: (x - 1e-9).abs().log(),
    "x / (n + 1e-8)": lambda x: x / (x.norm(dim=1, keepdim=True) + 1e-8),
    "x * (1 + 1e-6)": lambda x: (x * (1 + 1e-6) - x) * 1e6,
    "x / (1 - 1e-6)": lambda x: (x / (1 - 1e-6) - x) * 1e6,
    "relu of clip": lambda x: F.relu(x.clamp(-2, -1)),
    "clip of clip": lambda x: x.clamp(0, 1).clamp(2, 3),
    "clip of relu": lambda x: F.relu(x).clamp(-2, -1),
    "min of max": lambda x: x.clamp(min=2).clamp(max=1),
    "max of min": lambda x: x.clamp(max=1).clamp(min=2),
}


def of_small_constants(inputs: Tensor) -> Tensor:
    raw = (inputs + 2).flatten(1)[:, :4]  # 0 where a byte is 0
    raw = raw * (raw > 1e-5)  # exactly
    return torch.cat([function(raw) for function in SMALL.values()], dim=1)


def test_constants_of_any_size_survive_export() -> None:
    classifier = classifier_of(Layer(of_small_constants), 4 * len(SMALL))
    classifier.head.weight.data.abs_()  # nothing cancels
    graph = to_graph(classifier, INPUT)
    kinds = [node.op_type for node in graph.graph.node]
    assert (kinds.count("Log"), kinds.count("Div")) == (3, 2)
    proof = prove_it(classifier, graph=graph)
    assert sound(proof), failure(proof)
    zeros = np.zeros((1, *INPUT.shape), np.uint8)
    assert np.isfinite(Original(classifier).logits(zeros, 1)).all()


def test_what_does_nothing_is_left_out() -> None:
    function = lambda x: ((0 + (x * 1 + 0 - 0) * 1) / 1).flatten(1)  # noqa: E731
    kinds = [n.op_type for n in to_graph(classifier_of(Layer(function), 36), INPUT).graph.node]
    assert kinds == ["Cast", "Mul", "Add", "Flatten", "Gemm", "Softmax"]


def test_a_lost_constant_is_found_by_an_extreme_input() -> None:
    """As the exporter lost it: no test picture is black, and every other row passes."""

    def lose(model: ModelProto) -> None:
        log = next(node for node in model.graph.node if node.op_type == "Log")
        add = next(node for node in model.graph.node if log.input[0] in node.output)
        log.input[0] = add.input[0]

    function = lambda x: ((x + 2).clamp(min=0) ** 2 + 1e-12).log().flatten(1)  # noqa: E731
    proof = prove_it(classifier_of(Layer(function), 36), damage=lose)
    failed = [each.name for each in proof.failures]
    assert "extreme inputs" in failed
    assert row(proof, "extreme inputs").figure.startswith("it is not finite on all zero")
    assert not {"finite outputs", "logits", "probabilities"} & set(failed)


def test_a_classifier_that_is_not_finite_on_an_extreme_input_is_told_so() -> None:
    proof = prove_it(classifier_of(Layer(lambda x: (x + 2).clamp(min=0).log().flatten(1)), 36))
    assert row(proof, "extreme inputs").figure.startswith(
        "PyTorch itself is not finite on all zero"
    )
    assert failure(proof).startswith("the classifier itself is at fault (")


def test_extreme_inputs_are_asked_without_the_run_too(trained: Any, tmp_path: Path) -> None:
    moved = tmp_path / "moved.onnx"
    moved.write_bytes(trained.model.read_bytes())
    nowhere = Workspace(runs=tmp_path / "none")
    said = row(pipeline.validate(moved, workspace=nowhere), "extreme inputs")
    assert said.status == "passed"
    assert "off the unoptimized" in said.figure
    moved.write_bytes(resealed(trained.model.read_bytes(), infinite_logit))
    proof = pipeline.validate(moved, workspace=nowhere)
    assert proof.verdict == "failed"
    assert row(proof, "finite outputs").figure == "not finite on 64 of 64 inputs"
    assert row(proof, "extreme inputs").figure == "it is not finite on all 8"


def infinite_logit(model: ModelProto) -> None:
    """Add an infinity to one logit after the softmax has read it: probabilities stay sound."""
    last = next(node for node in model.graph.node if "logits" in node.output)
    softmax = next(node for node in model.graph.node if node.op_type == "Softmax")
    last.output[0] = softmax.input[0] = "sound"
    infinity = [0.0] * 9 + [float("-inf")]
    constant = helper.make_node("Constant", [], ["infinity"], value_floats=infinity)
    model.graph.node.extend([constant, helper.make_node("Add", ["sound", "infinity"], ["logits"])])


def test_rounding_alone_is_no_fault() -> None:
    """A picture of one colour, less averages of it and divided by what is left, is rounding."""

    averages = torch.rand(36, 36, generator=torch.Generator().manual_seed(0)).softmax(1)

    def standardized(inputs: Tensor, averages: Tensor) -> Tensor:
        flat = inputs.flatten(1)
        apart = flat - flat @ averages.T
        return apart / (apart.norm(dim=1, keepdim=True) + 1e-8)

    classifier = classifier_of(Layer(standardized, averages=averages), 36)
    ends = extremes(INPUT)
    original = Original(classifier)
    exact = original.exact(ends, len(ends))
    assert exact is not None
    off = np.abs(original.logits(ends, len(ends)) - exact).max(axis=1)
    assert off[NAMES.index("all largest")] > 1e-3  # else this proves nothing
    assert off[NAMES.index("a checkerboard")] < 1e-5
    proof = prove_it(classifier)
    assert row(proof, "extreme inputs").status == "passed"
    assert row(proof, "PyTorch, one and two").status == "passed"


class Doubtful(nn.Module):
    """Says what it is asked in double precision, for which there is memory for so many examples."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most, self.seen = most, list[int]()

    def forward(self, inputs: Tensor) -> Tensor:
        if inputs.dtype == torch.float64:
            self.seen.append(len(inputs))  # a copy of the module has the same list
            if len(inputs) > self.most:
                raise MemoryError
        return inputs.flatten(1)

    def __deepcopy__(self, memo: Any) -> Doubtful:
        return self


def in_doubt(most: int) -> tuple[asking.Questions, Doubtful]:
    encoder = Doubtful(most)
    reference = reference_of(classifier_of(encoder, 36))
    return asking.questions(CARD, reference, Budget(Cost(macs=1, activations=1))), encoder


def test_double_precision_is_asked_extreme_inputs_alone_within_memory() -> None:
    asked, encoder = in_doubt(2)
    assert asked.logits is not None
    assert not asked.differ(asked.logits, asked.logits).any()
    test_example = asked.logits + np.eye(len(asked.logits), 1)
    assert asked.differ(test_example, asked.logits).tolist() == [True] + 23 * [False]
    assert encoder.seen == []
    extreme_one = asked.logits + np.eye(len(asked.logits), 1, -16)
    assert asked.differ(extreme_one, asked.logits).sum() == 1
    assert encoder.seen == [8, 4, 2, 2, 2, 2]


def test_where_double_precision_ends_memory_is_named() -> None:
    asked, _ = in_doubt(0)
    with pytest.raises(OutOfMemory, match=r"PyTorch ran out of memory on a single example\."):
        _ = asked.bounds


@pytest.mark.parametrize("side", [6, 224])
def test_large_pictures_are_asked_few_at_a_time_as_small_ones_are(side: int) -> None:
    """Golden vectors are fewer there, for they are written into a file."""
    input = ImageInput(channels=3, height=side, width=side)
    preprocess = Preprocess(input, input, Preprocessing())
    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    classifier = Classifier(preprocess, pooled, nn.Linear(3, 3)).eval()
    images = np.random.default_rng(0).integers(0, 256, (20, *input.shape), dtype=np.uint8)
    card, original = dataclasses.replace(CARD, input=input), Original(classifier)
    logits = original.logits(images, 20)
    reference = Reference(images, logits.argmax(1), logits, logits, card, original)
    asked = asking.questions(card, reference, Budget(Cost(macs=1, activations=1)))
    answers = Tried((asked.logits, None))
    found = list(asking.few_at_a_time(card, asked, answers))  # type: ignore[arg-type]
    assert all(each.figure.endswith("; 16 test examples and 8 extreme inputs") for each in found)
    assert len(found) == 2


# --- one at a time ---------------------------------------------------------------------------


class SkipNorm(nn.Module):
    """Normalizes, but not a batch of one: as much public code does to train on it."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(36)
        nn.init.constant_(self.norm.running_mean, 0.5)

    def forward(self, inputs: Tensor) -> Tensor:
        flat = inputs.flatten(1)
        return self.norm(flat) if flat.shape[0] > 1 else flat


def test_a_batch_of_one_that_is_treated_differently_is_found() -> None:
    classifier = classifier_of(SkipNorm(), 36)
    proof = prove_it(classifier)
    assert [each.name for each in proof.failures] == [
        "PyTorch, one and two at a time",
        "the file, one at a time",
    ]
    assert failure(proof).startswith(
        "the classifier itself is at fault (PyTorch, one and two at a time: a component treats a"
        " batch of one differently: probabilities "
    )
    assert "of 24 labels differ" in failure(proof)
    fixed = asked_alone(classifier, batch=3)  # a file that is never asked one
    assert [(each.name, each.status) for each in fixed] == [
        ("PyTorch, 3 at a time", "passed"),
        ("the file, 3 at a time", "passed"),
    ]


@pytest.mark.parametrize("batch", [None, 3])
def test_less_memory_makes_none_of_the_smallest_batches_smaller(batch: int | None) -> None:
    class Narrow(nn.Module):
        most = 100

        def forward(self, inputs: Tensor) -> Tensor:
            if len(inputs) > self.most:
                raise MemoryError
            return inputs.flatten(1)

    encoder = Narrow()
    reference = reference_of(classifier_of(encoder, 36))
    card = dataclasses.replace(CARD, batch=batch)
    encoder.most = 1
    asked = asking.questions(card, reference, Budget(Cost(macs=1, activations=1)))
    with pytest.raises(OutOfMemory, match=f"on a batch of {batch or 2}") as raised:
        list(asking.few_at_a_time(card, asked, Tried()))
    assert raised.value.batch == batch


def test_answers_that_depend_on_the_batch_are_told_from_that() -> None:
    classifier = classifier_of(Layer(lambda x: (x + 3 * x.mean(0, keepdim=True)).flatten(1)), 36)
    [said, _] = asked_alone(classifier)
    assert said.status == "failed"
    assert said.figure.startswith("what a component answers depends on the other examples")


def test_a_component_that_cannot_answer_one_example_is_named() -> None:
    class Demanding(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            if len(inputs) == 1:
                raise ValueError("I want two")
            return inputs.flatten(1)

    [said] = asked_alone(classifier_of(Demanding(), 36))
    assert said.status == "failed"
    assert said.figure == "a component cannot answer a batch of 1: ValueError: I want two"


def test_a_component_that_drops_the_axis_of_one_example_is_named() -> None:
    class Squeezing(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            return inputs.flatten(1).squeeze()

    [said] = asked_alone(classifier_of(Squeezing(), 36))
    assert said.status == "failed"
    assert said.figure == (
        "a component cannot answer a batch of 1: ValueError: the answers to 1 have the shape 3"
    )


# --- masks, and weights that are not finite --------------------------------------------------


class Masked(nn.Module):
    """Causal attention over the rows, by a mask of booleans or of minus infinity."""

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.register_buffer("mask", mask)

    def forward(self, inputs: Tensor) -> Tensor:
        rows = inputs[:, 0]
        return self.attention(rows, rows, rows, attn_mask=self.mask)[0].flatten(1)


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (torch.ones(6, 6, dtype=torch.bool).triu(1), "all; 1 constant contains infinity"),
        (
            nn.Transformer.generate_square_subsequent_mask(6),
            "all; encoder.mask contains infinity",
        ),
    ],
    ids=["boolean", "minus infinity"],
)
def test_a_mask_of_minus_infinity_is_no_weight(mask: Tensor, said: str) -> None:
    proof = prove_it(classifier_of(Masked(mask), 36))
    assert sound(proof), failure(proof)
    assert row(proof, "finite weights").figure == said


def test_a_mask_that_makes_answers_infinite_is_named() -> None:
    classifier = classifier_of(nn.Flatten(), 36)
    classifier.head = nn.Sequential(
        nn.Linear(36, 3), Layer(lambda x, mask: x + mask, mask=torch.tensor([0.0, 0.0, -torch.inf]))
    )
    said = row(prove_it(classifier), "finite outputs").figure
    assert said == (
        "PyTorch itself: not finite on 20 of 20 test examples; head.1.mask contains infinity"
    )


@pytest.mark.parametrize(
    ("names", "count", "said"),
    [
        (["a.mask"], 1, "a.mask contains infinity"),
        (["a.mask", "b.mask"], 2, "a.mask, b.mask contain infinity"),
        ([], 1, "1 constant contains infinity"),
        ([], 3, "3 constants contain infinity"),
    ],
)
def test_what_contains_infinity_is_named_or_counted(
    names: list[str], count: int, said: str
) -> None:
    assert infinite(names, count) == said


def test_trained_weights_that_are_not_finite_are_named() -> None:
    classifier = classifier_of(nn.Sequential(nn.Flatten(), nn.Linear(36, 4), nn.Sigmoid()), 4)
    with torch.no_grad():
        classifier.encoder[1].bias[2] = torch.inf  # the sigmoid makes a 1 of it
    proof = prove_it(classifier)
    assert [each.name for each in proof.failures] == ["finite weights"]
    assert row(proof, "finite weights").figure == "PyTorch's are not: encoder.1.bias"
    with torch.no_grad():
        classifier.encoder[1].bias[2] = torch.nan
    with pytest.raises(PluginFault, match=r"Weight 'classifier.encoder.1.bias' of .* holds NaN"):
        finished(to_graph(classifier, INPUT), CARD)


def test_floats_that_a_node_holds_are_looked_at(trained: Any) -> None:
    def no_number(model: ModelProto) -> None:
        node = helper.make_node("Constant", [], ["unused"], value_float=float("nan"))
        model.graph.node.insert(0, node)

    trained.model.write_bytes(resealed(trained.model.read_bytes(), no_number))
    with pytest.raises(ModelFileError, match=r"Weight 'unused' of .* is not finite: it holds NaN"):
        open_model(trained.model)


# --- ONNX's own implementation alone ---------------------------------------------------------


def stretched(inputs: Tensor) -> Tensor:
    return F.interpolate(inputs, scale_factor=1.7, mode="bilinear", align_corners=True).flatten(1)


def test_onnx_reference_alone_is_told_to_be_alone() -> None:
    proof = prove_it(classifier_of(Layer(stretched), 100), others=False)
    said = row(proof, "onnx.reference")
    assert said.status == "skipped"
    assert said.figure.startswith("it alone answers otherwise, onnxruntime reproduces PyTorch: ")
    assert proof.verdict == "intact"
    assert "does not reproduce" not in failure(proof)
    assert failure(proof).endswith("Type --partial to do without.")


def test_where_another_opset_proves_it_that_is_named() -> None:
    grid = F.affine_grid(torch.eye(2, 3)[None] * 0.9, (1, 1, 6, 6), align_corners=False)

    def sampled(inputs: Tensor, grid: Tensor) -> Tensor:
        places = grid.expand(inputs.shape[0], -1, -1, -1)
        return F.grid_sample(inputs, places, align_corners=False).flatten(1)

    sample = Layer(sampled, grid=grid)
    proof = prove_it(classifier_of(sample, 36))
    assert proof.verdict == "intact"
    assert row(proof, "onnx.reference").figure.endswith("; at opset 20 both agree: --opset 20")
    assert failure(proof).endswith("Type --opset 20, or --partial to do without.")


def test_onnx_reference_is_not_alone_where_onnxruntime_is_wrong_too() -> None:
    def other(model: ModelProto) -> None:
        bias = next(each for each in model.graph.initializer if list(each.dims) == [3])
        bias.raw_data = np.float32([1, 2, 3]).tobytes()

    proof = prove_it(classifier_of(Layer(stretched), 100), damage=other)
    assert row(proof, "onnx.reference").status == "failed"
    assert failure(proof).startswith("the exported graph does not reproduce PyTorch (")


def test_without_the_run_golden_vectors_are_what_is_reproduced() -> None:
    classifier = classifier_of(Layer(stretched), 100)
    said = reference_of(classifier)
    golden = Golden(said.images, said.labels, said.logits, softmax32(said.logits))
    file = open_model(Path("model.onnx"), finished(to_graph(classifier, INPUT), CARD))
    found = row(prove(file, Evidence("gone", golden, "gone")), "onnx.reference")
    assert found.status == "skipped"
    assert found.figure.startswith(
        "it alone answers otherwise, onnxruntime reproduces the golden vectors: "
    )
    assert row(prove(file, Evidence("gone", "none", "gone")), "onnx.reference").status == "failed"


def test_onnx_reference_alone_is_no_excuse_for_a_smaller_file() -> None:
    """It is held against its twin, within wider bounds: that reproduces nothing of PyTorch."""
    card = dataclasses.replace(CARD, precision="fp16", quantization={"max_drop": 0.005})
    proof = prove_it(classifier_of(Layer(stretched), 100), card=card)
    assert [each.name for each in proof.failures] == ["onnx.reference"]
    assert "alone" not in row(proof, "onnx.reference").figure


def answering(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[np.ndarray[Any, Any]], Any]
) -> None:
    """Let another runtime answer what onnxruntime does, changed."""

    def run(name: str, data: bytes, inputs: np.ndarray[Any, Any], **options: Any) -> Answer:
        logits, likely = open_session(Path("model.onnx"), data).run(inputs)
        return Answer(name, "1", change(likely), change(logits))

    monkeypatch.setattr(trials, "run", run)


def test_onnx_reference_is_not_alone_where_another_runtime_says_otherwise_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    classifier = classifier_of(Layer(stretched), 100)
    answering(monkeypatch, lambda array: array)
    proof = prove_it(classifier, others=False, runtimes=("odd",))
    assert row(proof, "onnx.reference").figure.startswith("it alone answers otherwise")
    answering(monkeypatch, lambda array: array[:, ::-1])
    proof = prove_it(classifier, others=False, runtimes=("odd",))
    assert row(proof, "odd").figure.startswith("DIFFERS: ")
    assert row(proof, "onnx.reference").status == "failed"


@pytest.mark.parametrize(
    "change",
    [lambda array: array[:, :1], lambda array: np.hstack([array, array]), lambda array: array[:3]],
    ids=["one class", "more classes", "fewer examples"],
)
def test_answers_of_another_shape_are_another_runtimes_fault(
    change: Callable[[np.ndarray[Any, Any]], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, change)
    proof = prove_it(classifier_of(nn.Flatten(), 36), runtimes=("odd",))
    assert row(proof, "odd").status == "reported"
    assert row(proof, "odd").figure == (
        "DIFFERS: inf off, 20 labels differ in 20 examples; 8 of 8 extreme inputs differ; version 1"
    )
    assert sound(proof), failure(proof)


def test_a_session_answers_what_predict_may_hand_on(trained: Any) -> None:
    """Logits are asked as well as probabilities, which a softmax of an infinity keeps sound."""
    from PIL import Image

    trained.model.write_bytes(resealed(trained.model.read_bytes(), infinite_logit))
    picture = trained.model.with_name("picture.png")
    Image.new("L", (8, 8)).save(picture)
    logits, probabilities = open_session(trained.model).run(np.zeros((1, 1, 8, 8), np.uint8))
    assert np.isinf(logits).any()
    assert np.isfinite(probabilities).all()
    with pytest.raises(ModelFileError, match="gives NaN or infinity"):
        pipeline.predict(trained.model, [picture])
