"""What breaks the plugin contract is found before data is loaded, and told as the plugin's."""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from zoo import pipeline
from zoo.api import (
    BackboneSpec,
    Component,
    Dataset,
    DatasetSpec,
    Examples,
    HeadSpec,
    ImageInput,
    Losses,
    NoConfig,
    ObjectiveSpec,
    Preprocessing,
    TrainConfig,
    hookimpl,
)
from zoo.errors import DataError, PluginFault, Unfit, UsageError, ZooError
from zoo.models import Preprocess
from zoo.pipeline import Workspace, assembly
from zoo.progress import Silent, reporting
from zoo.record import PartRecord
from zoo.registry import Registry

GREY_8 = ImageInput(channels=1, height=8, width=8)
PLUGIN = "file:mine"
ONCE = TrainConfig(epochs=1, batch_size=16, validation=0)


class Autoencoder(nn.Module):
    """A backbone that keeps its contract, until a test breaks it."""

    def __init__(self, **changes: Any) -> None:
        super().__init__()
        self.features = 4
        self.encoder: Any = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.Dropout(0.1))
        self.decoder: Any = nn.Sequential(nn.Linear(4, 64), nn.Unflatten(1, (1, 8, 8)))
        for name, value in changes.items():
            delattr(self, name) if value is ... else setattr(self, name, value)


class Contrast(nn.Module):
    """An objective that keeps its contract, and does without a decoder."""

    def forward(self, backbone: Any, inputs: Tensor, raw: Tensor) -> Any:
        spread = backbone.encoder(inputs).var()
        return Losses((spread - 1) ** 2, spread=spread)


class Returning(nn.Module):
    """A module that returns what a function makes of its inputs."""

    def __init__(self, call: Callable[..., Any]) -> None:
        super().__init__()
        self.call = call
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, *args: Any) -> Any:
        return self.call(*args)


def unloadable() -> Examples:
    raise AssertionError("data was loaded before the fault was found")


def loaded(count: int = 32) -> Examples:
    inputs = torch.randint(
        0, 256, (count, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    return Examples(inputs=inputs, labels=torch.arange(count) % 3)


def dataset(**changes: Any) -> Dataset:
    described = Dataset(input=GREY_8, classes=("a", "b", "c"), train=unloadable, test=unloadable)
    return dataclasses.replace(described, **changes)


def plugin(**builds: Any) -> ModuleType:
    """A plugin with one component of each kind, `mine`; keywords replace what builds them."""
    parts = {
        "dataset": lambda config, root: dataset(),
        "backbone": lambda config, input: Autoencoder(),
        "objective": lambda config, backbone: Contrast(),
        "head": lambda config, features, classes: nn.Linear(features, classes),
    }
    parts |= {kind: build for kind, build in builds.items() if kind in parts}
    more = {name: builds[name] for name in ("needs_decoder", "watch") if name in builds}
    others = builds.get("others", [])

    @hookimpl
    def zoo_datasets() -> list[DatasetSpec]:
        return [DatasetSpec(name="mine", summary="", build=parts["dataset"])]

    @hookimpl
    def zoo_backbones() -> list[BackboneSpec]:
        return [BackboneSpec(name="mine", summary="", build=parts["backbone"])]

    @hookimpl
    def zoo_objectives() -> list[ObjectiveSpec]:
        return [ObjectiveSpec(name="mine", summary="", build=parts["objective"], **more), *others]

    @hookimpl
    def zoo_heads() -> list[HeadSpec]:
        return [HeadSpec(name="mine", summary="", build=parts["head"])]

    module = ModuleType("mine")
    for hook in (zoo_datasets, zoo_backbones, zoo_objectives, zoo_heads):
        setattr(module, hook.__name__, hook)
    return module


@pytest.fixture
def work(tmp_path: Path) -> Callable[..., Workspace]:
    def make(**builds: Any) -> Workspace:
        return Workspace(plugins=Registry([plugin(**builds)]), runs=tmp_path / "runs")

    return make


def pretrain(workspace: Workspace, **options: Any) -> Any:
    return pipeline.pretrain(
        "mine", dataset="mine", objective="mine", training=ONCE, workspace=workspace, **options
    )


def finetune(workspace: Workspace) -> Any:
    return pipeline.finetune(
        backbone="mine", dataset="mine", head="mine", training=ONCE, workspace=workspace
    )


def failing(error: BaseException) -> Callable[..., Any]:
    def build(*args: Any) -> Any:
        raise error

    return build


def model(**changes: Any) -> Callable[..., Any]:
    return lambda config, input: Autoencoder(**changes)


def objective(call: Callable[..., Any]) -> Callable[..., Any]:
    return lambda config, backbone: Returning(call)


def head(call: Callable[..., Any]) -> Callable[..., Any]:
    return lambda config, features, classes: Returning(call)


def encoded(backbone: Any, inputs: Tensor) -> Tensor:
    codes: Tensor = backbone.encoder(inputs)
    return codes


def test_parts_that_keep_the_contract_train(work: Callable[..., Workspace]) -> None:
    """The fixtures themselves are sound: each fault below is the one that it introduces."""
    workspace = work(dataset=lambda config, root: dataset(train=loaded, test=loaded))
    run = pretrain(workspace)
    assert set(run.metrics()[0]["train"]) == {"total", "spread"}
    assert finetune(workspace).record.status == "finished"


BACKBONES: list[tuple[Callable[..., Any], str]] = [
    (failing(ValueError("no\n  luck")), "ValueError while it was built: no luck"),
    (failing(KeyError("width")), "KeyError while it was built: 'width'"),
    (lambda config, input: None, "build returned NoneType, not an nn.Module"),
    (lambda config, input: "mlp", "build returned str, not an nn.Module"),
    (lambda config, input: Autoencoder, "build returned type, not an nn.Module"),
    (model(encoder=...), "it has no .encoder that is an nn.Module"),
    (model(encoder=None), "it has no .encoder that is an nn.Module"),
    (model(decoder=...), "its .decoder must be an nn.Module, or None where there is none"),
    (model(features=...), "it has no .features, the width of its encoder's output"),
    (model(features=4.0), "it has no .features, the width of its encoder's output"),
    (model(features=5), "the encoder returned (2, 4) for two inputs, not (2, 5)"),
    (model(encoder=nn.Flatten(0)), "the encoder returned (128,) for two inputs, not (2, 4)"),
    (model(encoder=Returning(lambda x: [x])), "AttributeError while it was tried on zeros: "),
    (model(encoder=nn.Linear(9, 4)), "RuntimeError while it was tried on zeros: … mat1 and mat2"),
    (model(decoder=nn.Linear(4, 64)),
     "the decoder returned (2, 64) for two inputs, not (2, 1, 8, 8)"),
    (model(decoder=nn.Linear(5, 64)), "RuntimeError while it was tried on zeros: … mat1 and mat2"),
    (model(preprocessing="minus one to one"), "preprocessing is 'minus one to one'"),
    (model(preprocessing=Preprocessing(size=(8, 0))), ""),
]  # fmt: skip


@pytest.mark.parametrize(("build", "problem"), BACKBONES)
@pytest.mark.parametrize("verb", [pretrain, finetune])
def test_faults_of_a_backbone(
    build: Callable[..., Any], problem: str, verb: Callable[..., Any], work: Callable[..., Any]
) -> None:
    with pytest.raises(PluginFault) as caught:
        verb(work(backbone=build))
    message = str(caught.value)
    assert message.startswith(f"backbone 'mine' of plugin {PLUGIN}: ")
    # torch 2.15 says more in between than 2.14
    assert all(part in message for part in problem.split("… "))
    assert "\n" not in message


def test_an_attribute_that_is_a_plain_tensor_or_function(work: Callable[..., Workspace]) -> None:
    class Loose(nn.Module):
        features = 4
        decoder = None

        def encoder(self, inputs: Tensor) -> Tensor:
            return inputs.flatten(1)[:, :4]

    with pytest.raises(PluginFault, match=r"it has no \.encoder that is an nn\.Module"):
        pretrain(work(backbone=lambda config, input: Loose()))


OBJECTIVES: list[tuple[Callable[..., Any], str]] = [
    (failing(TypeError("bad")), "TypeError while it was built: bad"),
    (lambda config, backbone: lambda *args: None, "build returned function, not an nn.Module"),
    (objective(lambda b, x, raw: encoded(b, x).mean()), "it returned Tensor, not Losses"),
    (objective(lambda b, x, raw: {"total": 1}), "it returned dict, not Losses"),
    (objective(lambda b, x, raw: None), "it returned NoneType, not Losses"),
    (objective(lambda b, x, raw: x @ raw), "RuntimeError while it was tried on zeros: "),
    (objective(lambda b, x: None), "TypeError while it was tried on zeros: "),
    (objective(lambda b, x, raw: Losses(encoded(b, x))), "total"),
    (objective(lambda b, x, raw: Losses(encoded(b, x).mean(0))), "total"),
    (objective(lambda b, x, raw: Losses(0.5)), "total"),  # type: ignore[arg-type]
    (objective(lambda b, x, raw: Losses(encoded(b, x).mean(), code=encoded(b, x))), "code"),
]


@pytest.mark.parametrize(("build", "problem"), OBJECTIVES)
def test_faults_of_an_objective(
    build: Callable[..., Any], problem: str, work: Callable[..., Workspace]
) -> None:
    with pytest.raises(PluginFault) as caught:
        pretrain(work(objective=build))
    message = str(caught.value)
    assert message.startswith(f"objective 'mine' of plugin {PLUGIN}: ")
    assert problem in message
    assert "\n" not in message


def test_watching_no_part(work: Callable[..., Workspace]) -> None:
    with pytest.raises(PluginFault) as caught:
        pretrain(work(watch="spraed"))
    assert str(caught.value) == (
        f"objective 'mine' of plugin {PLUGIN}: it watches 'spraed',"
        " which is not among its parts: total, spread."
    )


@pytest.mark.parametrize("watch", ["total", "spread"])
def test_watching_a_part(watch: str, work: Callable[..., Workspace]) -> None:
    workspace = work(watch=watch, dataset=lambda config, root: dataset(train=loaded))
    assert pretrain(workspace).record.status == "finished"


HEADS: list[tuple[Callable[..., Any], str]] = [
    (failing(RuntimeError("no")), "RuntimeError while it was built: no"),
    (lambda config, features, classes: [], "build returned list, not an nn.Module"),
    (lambda config, features, classes: nn.Linear(features, classes + 1),
     "it returned (2, 4) for two inputs, not (2, 3)"),
    (lambda config, features, classes: nn.Sequential(nn.Linear(features, 3), nn.Flatten(0)),
     "it returned (6,) for two inputs, not (2, 3)"),
    (lambda config, features, classes: nn.Linear(features + 1, classes),
     "RuntimeError while it was tried on zeros: "),
    (head(lambda codes: None), "AttributeError while it was tried on zeros: "),
]  # fmt: skip


@pytest.mark.parametrize(("build", "problem"), HEADS)
def test_faults_of_a_head(
    build: Callable[..., Any], problem: str, work: Callable[..., Workspace]
) -> None:
    with pytest.raises(PluginFault) as caught:
        finetune(work(head=build))
    message = str(caught.value)
    assert message.startswith(f"head 'mine' of plugin {PLUGIN}: ")
    assert problem in message


@pytest.mark.parametrize("verb", [pretrain, finetune])
@pytest.mark.parametrize(
    ("build", "problem"),
    [
        (failing(OSError("disk")), "OSError while it was built: disk"),
        (lambda config, root: loaded(), "build returned Examples, not a Dataset"),
        (lambda config, root: dataset(train=failing(ValueError("bad"))),
         "ValueError while it was loaded: bad"),
    ],
)  # fmt: skip
def test_faults_of_a_dataset(
    verb: Callable[..., Any],
    build: Callable[..., Any],
    problem: str,
    work: Callable[..., Workspace],
) -> None:
    with pytest.raises(PluginFault) as caught:
        verb(work(dataset=build))
    told = re.sub(r" \(test_assembly\.py:\d+\)", "", str(caught.value))
    assert told == f"dataset 'mine' of plugin {PLUGIN}: {problem}."
    raised = "while it was" in problem
    assert (told != str(caught.value)) == raised  # the line of the plugin's own


def test_a_dataset_that_is_not_what_it_declared(work: Callable[..., Workspace]) -> None:
    described = dataset(train=loaded, input=ImageInput(channels=1, height=9, width=8))
    backbone = model(encoder=nn.Sequential(nn.Flatten(), nn.Linear(72, 4)), decoder=None)
    with pytest.raises(DataError, match=r"dataset 'mine' holds torch.uint8 \(1, 8, 8\) examples"):
        pretrain(work(dataset=lambda config, root: described, backbone=backbone))


def test_an_input_that_is_no_image(work: Callable[..., Workspace]) -> None:
    described = dataset(input="tokens")
    with pytest.raises(Unfit, match="backbone 'mine' takes images; the data set holds 'tokens'"):
        pretrain(work(dataset=lambda config, root: described))


# --- what passes, with its owner in front ---------------------------------------------------


@pytest.mark.parametrize("kind", ["dataset", "backbone", "objective", "head"])
def test_unfit_passes_with_its_owner_in_front(kind: str, work: Callable[..., Workspace]) -> None:
    workspace = work(**{kind: failing(Unfit("too small. Type: --size 9"))})
    with pytest.raises(Unfit) as caught:
        finetune(workspace) if kind == "head" else pretrain(workspace)
    assert str(caught.value) == f"{kind} 'mine': too small. Type: --size 9"


def test_unfit_passes_from_a_first_call_as_well(work: Callable[..., Workspace]) -> None:
    def refuse(*args: Any) -> Any:
        raise Unfit("the batch is too small")

    with pytest.raises(Unfit) as caught:
        pretrain(work(objective=objective(refuse)))
    assert str(caught.value) == "objective 'mine': the batch is too small"


@pytest.mark.parametrize(
    ("wanted", "problem"),
    [
        (Preprocessing(std=(0.0,)), "std (0.0,); it must be positive"),
        (Preprocessing(mean=(0.5, 0.5)), "has 2 values for 1 channels"),
        (Preprocessing(channels=4), "Images of 1 channels cannot become 4"),
    ],
)
def test_preprocessing_that_does_not_fit_names_its_backbone(
    wanted: Preprocessing, problem: str, work: Callable[..., Workspace]
) -> None:
    with pytest.raises(Unfit) as caught:
        pretrain(work(backbone=model(preprocessing=wanted)))
    message = str(caught.value)
    assert message.startswith("backbone 'mine': ")
    assert problem in message


def test_errors_of_ours_pass_unchanged(work: Callable[..., Workspace]) -> None:
    error = DataError("the folder is empty")
    with pytest.raises(DataError) as caught:
        pretrain(work(dataset=failing(error)))
    assert caught.value is error


def test_an_interrupt_is_no_fault(work: Callable[..., Workspace]) -> None:
    with pytest.raises(KeyboardInterrupt):
        pretrain(work(backbone=failing(KeyboardInterrupt())))


@pytest.mark.parametrize("leave", ["sys.exit", "os._exit"])
def test_a_build_cannot_end_the_command(leave: str, work: Callable[..., Workspace]) -> None:
    def build(*args: object) -> None:
        module, name = leave.split(".")
        getattr(sys.modules[module], name)(0)  # looked up when it is called, as a plugin's is

    with pytest.raises(PluginFault, match="it ended the interpreter while it was built"):
        pretrain(work(backbone=build))


def test_faults_leave_no_run_behind(work: Callable[..., Workspace]) -> None:
    workspace = work(backbone=model(features=5))
    with pytest.raises(PluginFault):
        pretrain(workspace)
    assert not list(workspace.runs_root.glob("*"))


# --- decoders -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("others", "listed"),
    [
        ([], "none installed"),
        ([ObjectiveSpec(name="twins", summary="", build=lambda c, b: Contrast()),
          ObjectiveSpec(name="also", summary="", build=lambda c, b: Contrast()),
          ObjectiveSpec(name="deep", summary="", build=lambda c, b: Contrast(),
                        needs_decoder=True)], "also, twins"),
    ],
)  # fmt: skip
def test_an_objective_that_needs_the_decoder_there_is_not(
    others: list[ObjectiveSpec], listed: str, work: Callable[..., Workspace]
) -> None:
    workspace = work(backbone=model(decoder=None), needs_decoder=True, others=others)
    with pytest.raises(Unfit) as caught:
        pretrain(workspace)
    assert str(caught.value) == (
        "objective 'mine' needs a decoder, and this backbone has none."
        f" Objectives without that need: {listed}."
        " Without pretraining, type: zoo finetune --backbone NAME"
    )


def test_an_encoder_alone_is_a_backbone(work: Callable[..., Workspace]) -> None:
    workspace = work(
        backbone=model(decoder=None), dataset=lambda config, root: dataset(train=loaded)
    )
    run = pretrain(workspace)
    assert not [name for name in run.load_weights() if name.startswith("decoder")]


def parts_of(workspace: Workspace) -> tuple[Any, nn.Module, nn.Module]:
    chosen = assembly.choose(workspace, "objective", "mine")
    backbone = assembly.build_backbone(assembly.choose(workspace, "backbone", "mine"), GREY_8)
    return chosen, backbone, assembly.build_objective(workspace, chosen, backbone)


@pytest.mark.parametrize("needs_decoder", [False, True])
def test_a_decoder_that_is_not_used_is_frozen(
    needs_decoder: bool, work: Callable[..., Workspace]
) -> None:
    backbone = parts_of(work(needs_decoder=needs_decoder))[1]
    assert all(p.requires_grad == needs_decoder for p in backbone.decoder.parameters())  # type: ignore[union-attr]
    assert all(p.requires_grad for p in backbone.encoder.parameters())  # type: ignore[union-attr]


def test_a_decoder_that_is_not_used_is_saved_as_it_was_built(
    work: Callable[..., Workspace],
) -> None:
    built: list[dict[str, Tensor]] = []

    def build(config: NoConfig, input: ImageInput) -> Autoencoder:
        backbone = Autoencoder()
        built.append({name: tensor.clone() for name, tensor in backbone.state_dict().items()})
        return backbone

    workspace = work(backbone=build, dataset=lambda config, root: dataset(train=loaded))
    saved = pretrain(workspace).load_weights()
    assert torch.equal(saved["decoder.0.weight"], built[0]["decoder.0.weight"])
    assert not torch.equal(saved["encoder.1.weight"], built[0]["encoder.1.weight"])


# --- the trial leaves no trace --------------------------------------------------------------


def test_the_trial_changes_neither_modes_nor_statistics_nor_random_numbers(
    work: Callable[..., Workspace],
) -> None:
    def build(config: NoConfig, input: ImageInput) -> Autoencoder:
        encoder = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 4), nn.Dropout(0.5))
        return Autoencoder(encoder=encoder)

    class Drawing(nn.Module):
        def forward(self, backbone: Any, inputs: Tensor, raw: Tensor) -> Losses:
            return Losses(backbone.encoder(inputs + torch.randn_like(inputs)).mean())

    workspace = work(backbone=build, objective=lambda config, backbone: Drawing())
    torch.manual_seed(0)
    build(NoConfig(), GREY_8)
    expected = torch.rand(3)
    torch.manual_seed(0)
    chosen, backbone, task = parts_of(workspace)
    preprocess = Preprocess(GREY_8, GREY_8, Preprocessing())
    assembly.check_objective(chosen, task, backbone, preprocess)
    assert torch.equal(torch.rand(3), expected)
    assert backbone.training
    assert task.training
    norm = backbone.encoder[1]  # type: ignore[index]
    assert norm.num_batches_tracked.item() == 0
    assert all(p.grad is None for p in backbone.parameters())


def test_a_trial_that_fails_restores_the_modes(work: Callable[..., Workspace]) -> None:
    built: list[Autoencoder] = []

    def build(config: NoConfig, input: ImageInput) -> Autoencoder:
        built.append(Autoencoder(features=9))
        return built[-1]

    with pytest.raises(PluginFault):
        pretrain(work(backbone=build))
    assert built[0].training


# --- options, names, weights ----------------------------------------------------------------


def test_unknown_names_and_options(work: Callable[..., Workspace]) -> None:
    workspace = work()
    with pytest.raises(UsageError, match=r"Unknown backbone 'mien'\. Did you mean 'mine'\?"):
        pipeline.pretrain("mien", dataset="mine", objective="mine", workspace=workspace)
    with pytest.raises(UsageError, match=r"backbone 'mine': unknown option 'width'"):
        pipeline.pretrain(Component("mine", width=3), dataset="mine", workspace=workspace)


def test_weights_that_do_not_fit_say_so() -> None:
    with pytest.raises(Unfit) as caught:
        assembly.load_state(nn.Linear(2, 3), nn.Linear(2, 2).state_dict(), "backbone 'mine'")
    message = str(caught.value)
    assert message.startswith("The weights do not fit backbone 'mine': size mismatch for ")
    assert message.endswith("Was another version of its plugin installed?")
    assert "\n" not in message


def test_a_run_says_that_its_component_comes_from_another_plugin_now(
    work: Callable[..., Workspace],
) -> None:
    class Notes(Silent):
        told: ClassVar[list[str]] = []

        def note(self, text: str) -> None:
            self.told.append(text)

    part = PartRecord("mine", "elsewhere:mine", "1.0", {})
    with reporting(Notes()):
        found = assembly.recorded(work(), "backbone", part)
        assert found.entry.plugin == PLUGIN
        assembly.recorded(work(), "backbone", PartRecord("mine", PLUGIN, "-", {}))
    assert Notes.told == [
        "the run was made with backbone 'mine' of elsewhere:mine; it comes from file:mine now"
    ]


def test_a_run_of_a_component_that_is_gone_names_its_plugin(
    work: Callable[..., Workspace], tmp_path: Path
) -> None:
    workspace = work(dataset=lambda config, root: dataset(train=loaded))
    run = pretrain(workspace)

    @hookimpl
    def zoo_heads() -> list[HeadSpec]:
        return []

    bare = ModuleType("bare")
    bare.zoo_heads = zoo_heads  # type: ignore[attr-defined]
    left = Workspace(plugins=Registry([bare]), runs=workspace.runs_root)
    with pytest.raises(ZooError) as caught:
        pipeline.finetune(run, workspace=left)
    assert "Unknown dataset 'mine'" in str(caught.value)
    assert f"The run used dataset 'mine' of plugin {PLUGIN}. Type: zoo --plugin mine.py" in str(
        caught.value
    )
