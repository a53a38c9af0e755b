"""`zoo pretrain BACKBONE` and `zoo finetune [RUN]`."""

from __future__ import annotations

import shlex
from collections.abc import Collection
from typing import Any

import click
from click.core import ParameterSource

from zoo.api import Component, FinetuneConfig, PretrainConfig, SelfTrainConfig, TrainConfig
from zoo.cli.main import registry_of
from zoo.cli.options import (
    RunName,
    Sectioned,
    common,
    component,
    component_options,
    config_options,
    following,
    given,
    options_of,
    progress,
    resumable,
    workspace_of,
)
from zoo.cli.output import Shown, percent, print_json, say
from zoo.config import knobs, make, parse_pairs
from zoo.showing import shown


class Backbones(click.Group):
    """One command a backbone, made from its config dataclass when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        names: list[str] = registry_of(ctx).names("backbone")
        return names

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if ctx.resilient_parsing and cmd_name not in self.list_commands(ctx):
            return None  # completing: what was typed wrong is told when it is run
        command = _pretrain_command(registry_of(ctx).lookup("backbone", cmd_name))
        command.context_class = Shown
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Backbones"):
            formatter.write_dl(
                [(entry.name, entry.spec.summary) for entry in registry_of(ctx).entries("backbone")]
            )

    def shell_complete(
        self, ctx: click.Context, incomplete: str
    ) -> list[click.shell_completion.CompletionItem]:
        from click.shell_completion import CompletionItem

        entries = registry_of(ctx).entries("backbone")
        names = [
            CompletionItem(e.name, help=shown(e.spec.summary))
            for e in entries
            if e.name.startswith(incomplete)
        ]
        return names + click.Command.shell_complete(self, ctx, incomplete)


@click.group(cls=Backbones, subcommand_metavar="BACKBONE [OPTIONS]", no_args_is_help=True)
def pretrain() -> None:
    """Pretrain a backbone on a data set, without its labels.

    zoo pretrain mlp --dataset mnist --objective denoise -o noise=0.3 --widths 512,256,64
    """


def _pretrain_command(entry: Any) -> click.Command:
    """Make `zoo pretrain NAME`: the backbone's options, the objective's, those of training."""

    @click.pass_context
    def callback(ctx: click.Context, /, **params: Any) -> None:
        options = parse_pairs(entry.spec.config, params["backbone_pairs"], entry.owner)
        options |= {k: v for k, v in given(ctx, entry.spec.config).items() if k in own}
        workspace = workspace_of(ctx, params["runs_root"], params["data_root"])
        with progress(params["quiet"]), resumable(ctx, workspace):
            from zoo.pipeline import pretrain as twin

            run = twin(
                Component(entry.name, **options),
                dataset=component(ctx, "dataset", params["dataset"], params["dataset_pairs"]),
                objective=component(
                    ctx, "objective", params["objective"], params["objective_pairs"]
                ),
                training=make(TrainConfig, given(ctx, TrainConfig)),
                pretrain=make(PretrainConfig, given(ctx, PretrainConfig)),
                workspace=workspace,
            )
        _report(ctx, run, params["as_json"])

    callback = component_options("--objective", "-o", "objective", "reconstruct")(callback)
    callback = component_options("--dataset", "-d", "dataset", "digits")(callback)
    callback = click.option(
        "-b",
        "backbone_pairs",
        multiple=True,
        metavar="KEY=VALUE",
        help="Set an option of the backbone by its name; repeatable.",
    )(callback)
    callback = common(runs=True, data=True, quiet=True)(callback)
    help = f"Pretrain {entry.name}: {entry.spec.summary}."
    command: click.Command = click.command(entry.name, cls=Sectioned, help=help)(callback)
    command = config_options(PretrainConfig, "Pretraining")(command)
    command = config_options(TrainConfig, "Training")(command)
    taken = _flags(command)
    own = {knob.name for knob in knobs(entry.spec.config) if knob.flag not in taken}
    options = options_of(entry.spec.config, f"Backbone {entry.name}", without=taken)
    command.params = [*options, *command.params]
    return command


def pretrain_flags() -> set[str]:
    """Return the flags of `zoo pretrain` that a backbone's option cannot have."""
    from types import SimpleNamespace

    from zoo.api import NoConfig

    spec = SimpleNamespace(name="any", summary="", config=NoConfig)
    return _flags(_pretrain_command(SimpleNamespace(name="any", owner="", spec=spec)))


def _flags(command: click.Command) -> set[str]:
    return {flag for param in command.params for flag in param.opts} | {"--help"}


@config_options(TrainConfig, "Training")
@config_options(SelfTrainConfig, "Self-training")
@config_options(FinetuneConfig, "Finetuning")
@click.command(
    cls=Sectioned,
    epilog="RUN is a pretraining, or with --self-train a finetuning: its folder, its name, or"
    " latest.",
)
@click.argument("source", metavar="[RUN]", type=RunName(), required=False)
@component_options("--backbone", "-b", "backbone", None)
@component_options("--dataset", "-d", "dataset", None)
@component_options("--head", "-H", "head", "linear")
@click.option(
    "--self-train",
    is_flag=True,
    help="Go on from a finished finetuning: train on its own labels of the examples without.",
)
@click.option(
    "--without-seen",
    is_flag=True,
    help="Train even though RUN has seen some of today's test examples. `evaluate` and `export`"
    " then need --without-seen as well.",
)
@common(runs=True, data=True, quiet=True)
@click.pass_context
def finetune(ctx: click.Context, /, source: str | None, **params: Any) -> None:
    """Finetune a pretrained backbone with labels, or train one from scratch with --backbone.

    zoo finetune latest --dataset fashion-mnist --labels 1000
    """
    if params["self_train"]:
        _self_train(ctx, source, params)
        return
    if typed := given(ctx, SelfTrainConfig):
        flags = ", ".join(_flags_of(SelfTrainConfig, typed))
        raise click.UsageError(f"{flags}: that goes with --self-train.")
    if source is None and params["backbone"] is None:
        raise click.UsageError(
            "Name a pretraining (latest, a run's name or folder), or --backbone NAME to train from"
            " scratch."
        )
    if source is not None and params["backbone"] is not None:
        raise click.UsageError("RUN brings its own backbone: leave RUN or --backbone out.")
    if params["backbone"] is None and params["backbone_pairs"]:
        raise click.UsageError("-b goes with --backbone: a RUN's backbone is as it was pretrained.")
    workspace = workspace_of(ctx, params["runs_root"], params["data_root"])
    if params["dataset"] is None and params["dataset_pairs"]:
        whole = _whole_dataset(ctx, workspace, source, params["dataset_pairs"]) if source else ""
        raise click.UsageError(f"-d goes with --dataset NAME.{whole}")
    with progress(params["quiet"]), resumable(ctx, workspace):
        from zoo.pipeline import finetune as twin

        run = twin(
            source,
            backbone=_optional(ctx, "backbone", params),
            dataset=_optional(ctx, "dataset", params),
            head=component(ctx, "head", params["head"], params["head_pairs"]),
            training=make(TrainConfig, given(ctx, TrainConfig)),
            finetune=make(FinetuneConfig, given(ctx, FinetuneConfig)),
            without_seen=params["without_seen"],
            workspace=workspace,
        )
    _report(ctx, run, params["as_json"])


def _whole_dataset(ctx: click.Context, workspace: Any, source: str, pairs: tuple[str, ...]) -> str:
    """Say how an option of the data set that a run brings along is typed."""
    from zoo.report.configuration import dataset_typed

    words = dataset_typed(workspace.pretrained(source).record, registry_of(ctx))
    typed = {pair.partition("=")[0]: pair for pair in (*words[3::2], *pairs)}
    options = [word for pair in typed.values() for word in ("-d", pair)]
    more = shlex.join(["finetune", source, *words[:2], *options])
    return (
        f" The data set of RUN is taken as it was. To change it: {following(ctx, more, '--runs')}"
    )


def _self_train(ctx: click.Context, source: str | None, params: dict[str, Any]) -> None:
    """Go on from a finetuning; what decides which examples have labels is that run's."""
    if source is None:
        raise click.UsageError("Name the finetuning to go on from: latest, a run's name or folder.")
    fixed = given(ctx, TrainConfig).keys() & {"seed", "validation"}
    inherited = _flags_of(FinetuneConfig, given(ctx, FinetuneConfig)) + _flags_of(
        TrainConfig, fixed
    )
    for kind in ("backbone", "dataset", "head"):
        named = ctx.get_parameter_source(kind) is ParameterSource.COMMANDLINE
        inherited += [f"--{kind}"] if named or params[f"{kind}_pairs"] else []
    if inherited:
        raise click.UsageError(
            f"{', '.join(inherited)}: with --self-train that is as it was in RUN. Leave it out."
        )
    workspace = workspace_of(ctx, params["runs_root"], params["data_root"])
    with progress(params["quiet"]), resumable(ctx, workspace):
        from zoo.pipeline import self_train as twin

        run = twin(
            source,
            training=make(TrainConfig, given(ctx, TrainConfig)),
            self_train=make(SelfTrainConfig, given(ctx, SelfTrainConfig)),
            without_seen=params["without_seen"],
            workspace=workspace,
        )
    _report(ctx, run, params["as_json"])


def _flags_of(config: type, names: Collection[str]) -> list[str]:
    return [knob.flag for knob in knobs(config) if knob.name in names]


@click.command(epilog="RUN is an unfinished run: its folder, its name, or latest.")
@click.argument("source", metavar="RUN", type=RunName())
@click.option("--lr", type=float, help="Another learning rate from here on: no longer exact.")
@common(runs=True, data=True, quiet=True)
@click.pass_context
def resume(ctx: click.Context, /, source: str, lr: float | None, **params: Any) -> None:
    """Go on with a run that was killed, interrupted or failed, from its newest checkpoint.

    It ends with the very weights it would have had. What it was begun with is recorded: no option
    is repeated.
    """
    workspace = workspace_of(ctx, params["runs_root"], params["data_root"])
    with progress(params["quiet"]), resumable(ctx, workspace):
        from zoo.pipeline import resume as twin

        run = twin(source, lr=lr, workspace=workspace)
    _report(ctx, run, params["as_json"])


def _optional(ctx: click.Context, kind: str, params: dict[str, Any]) -> Component | None:
    name = params[kind]
    return None if name is None else component(ctx, kind, name, params[f"{kind}_pairs"])


def _report(ctx: click.Context, run: Any, as_json: bool) -> None:
    record = run.record
    if not run.main:  # one of several processes: the main one reports
        return
    if as_json:
        print_json({"run": run.name, "folder": str(run.folder), **_figures(record)})
        return
    validation = record.metrics.get("validation") or {}
    figures = []
    if "accuracy" in validation:
        figures.append(f"validation accuracy {percent(validation['accuracy'])}")
    elif validation:
        figures.append(f"validation loss {validation['total']:.4f}")
        count = record.metrics.get("probe_examples")
        of = f" of {count:,} examples" if count else ""  # older runs tell no count
        names = _probes(validation)
        figures += [f"{name} probe {percent(validation[name])}{of}" for name in names]
    figures.append(f"{record.seconds:.1f} s")
    say(f"{run.folder}  {', '.join(figures)}", f"Next: {_next(ctx, run)}")


def _probes(figures: dict[str, float]) -> list[str]:
    return [name for name in ("knn", "linear") if name in figures]


def _next(ctx: click.Context, run: Any) -> str:
    folder = shlex.quote(str(run.folder))
    if run.record.kind == "finetune":
        more = " --without-seen" if run.record.data and run.record.data.left_out else ""
        return following(ctx, f"evaluate {folder}{more}", "--data-root")
    options = "--labels 100 --epochs 40 --batch-size 20"
    return following(ctx, f"finetune {folder} {options}", "--runs", "--data-root")


def _figures(record: Any) -> dict[str, Any]:
    return {
        "kind": record.kind,
        "seconds": record.seconds,
        "metrics": record.metrics,
        "weights_sha256": record.weights_sha256,
        "parent": record.parent.run if record.parent else None,
    }
