"""`zoo run RECIPE`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click

from zoo.api import TrainConfig
from zoo.cli.options import ComponentName, common, following, given, progress, workspace_of
from zoo.cli.output import percent, print_json, say, table
from zoo.config import LARGEST, click_option, knobs


class Seeds(click.ParamType):
    """A comma-separated list of seeds, or how many: `5` is 0,1,2,3,4."""

    name = "seeds"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        if not isinstance(value, str):
            return tuple(value)
        try:
            numbers = tuple(int(part) for part in value.split(","))
        except ValueError:
            numbers = (-1,)
        counted = "," not in value
        if not 0 <= min(numbers) <= max(numbers) <= LARGEST or (
            counted and not 0 < numbers[0] <= 1000
        ):
            self.fail(f"{value!r} is not allowed. Allowed: a count, or seeds: 0,1,2", param, ctx)
        return tuple(range(numbers[0])) if counted else numbers


@click.command()
@click.argument("recipe", type=ComponentName("recipe"))
@click.option("--seeds", type=Seeds(), help="How many seeds, or which: 5, or 0,1,7.")
@click.option("--fresh", is_flag=True, help="Train anew, even what is finished already.")
@common(runs=True, data=True, quiet=True)
@click.pass_context
def run(
    ctx: click.Context,
    /,
    recipe: str,
    seeds: tuple[int, ...] | None,
    fresh: bool,
    runs_root: Path | None,
    data_root: Path | None,
    quiet: bool,
    as_json: bool,
    **training: object,
) -> None:
    """Run a recipe: pretrain, finetune, compare with scratch, export and prove the better one.

    Begun again, it goes on from the parts that are finished.
    """
    with progress(quiet):
        from zoo.pipeline import run as twin

        result = twin(
            recipe,
            seeds=seeds,
            fresh=fresh,
            **given(ctx, TrainConfig),
            workspace=workspace_of(ctx, runs_root, data_root),
        )
    if as_json:
        print_json(_json(result))
    else:
        _print(result)
        again = following(ctx, f"evaluate {result.model.parent}", "--data-root")
        say("", "Next:", f"  {again}", f"  zoo predict {result.model} PICTURE.png")
        say("  zoo pretrain mlp --help")


run.params += [click_option(k) for k in knobs(TrainConfig) if k.name in ("threads", "device")]


def _print(result: Any) -> None:
    seeds = ",".join(str(seed) for seed in result.seeds)
    rows = [
        (
            method.name + ("  (exported)" if method.name == result.chosen else ""),
            _spread(method.mean, method.deviation),
            percent(method.validated),
            f"{sum(method.seconds) / len(method.seconds):.1f}",
        )
        for method in result.methods
    ]
    say("", f"{result.recipe} on {result.dataset}, seeds {seeds}")
    table(("", "test accuracy", "validation", "s / seed"), rows)
    if len(result.methods) > 1 and result.validation_examples:
        say(f"Chosen on {result.validation_examples:,} validation examples, not on the test split.")
    elif len(result.methods) > 1:
        say("Nothing was chosen on results: the recipe holds no labelled example out.")
    for gain, after in ((result.gain, ""), (result.self_trained_gain, ", after self-training,")):
        if gain:
            mean, deviation = (100 * figure for figure in gain)
            say(
                f"Pretraining changed the test accuracy{after} by {mean:+.2f} ± {deviation:.2f}"
                f" points (paired, {len(result.seeds)} seeds)."
            )
    reused = f" ({result.reused} finished runs used again)" if result.reused else ""
    say(f"Time   {result.seconds:.1f} s{reused}")
    say(f"Model  {result.model}  {result.model_bytes:,} bytes, proved by onnxruntime")
    say(f"Runs   {result.runs_folder}")


def _spread(mean: float, deviation: float | None) -> str:
    return percent(mean) if deviation is None else f"{mean * 100:.2f} ± {deviation * 100:.2f} %"


def _json(result: Any) -> dict[str, Any]:
    methods = [
        dataclasses.asdict(method) | {"mean": method.mean, "deviation": method.deviation}
        for method in result.methods
    ]
    whole = {"methods": methods, "proof": result.proof.to_json(), "gain": result.gain}
    whole["self_trained_gain"] = result.self_trained_gain
    return dataclasses.asdict(result) | whole
