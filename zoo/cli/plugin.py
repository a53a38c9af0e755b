"""`zoo plugin new NAME` and `zoo plugin check NAME|FILE`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from zoo.cli.catalogue import KindName
from zoo.cli.main import registry_of
from zoo.cli.options import DATA, common, progress, workspace_of
from zoo.cli.output import print_json, say, table


class PluginName(click.ParamType):
    """A plugin's name, a component's, or a file."""

    name = "plugin"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        names = [plugin.name for plugin in registry_of(ctx).plugins]
        found = [CompletionItem(name) for name in names if name.startswith(incomplete)]
        return found or [CompletionItem(incomplete, type="file")]


@click.group()
def plugin() -> None:
    """Write a plugin: a package to start from, and the check of what it contributes.

    zoo plugin new zoo-mine --kind backbone
    """


@plugin.command(short_help="Write a small package to start from.")
@click.argument("name")
@click.option(
    "--kind",
    type=KindName(),
    default="backbone",
    show_default=True,
    help="What it contributes: dataset, backbone, objective, head or recipe.",
)
@common()
def new(name: str, kind: str, as_json: bool) -> None:
    """Write a small package in ./NAME: an entry point, a component, a test, a README.

    The module is NAME with underscores, the component NAME without `zoo-`.
    """
    from zoo.pipeline import plugin_new as twin

    made = twin(name, kind)
    if as_json:
        print_json(made)
        return
    for file in made.files:
        say(f"{made.folder}/{file}")
    say(f"Next: cd {made.folder} && pip install -e '.[test]' && python -m pytest")
    say(f"Then: {made.use}")


@plugin.command(
    short_help="Check what a plugin contributes.",
    epilog="NAME: a plugin's, either half of it, or a component's.",
)
@click.argument("target", metavar="NAME|FILE", type=PluginName())
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Set an option of the components that have it; repeatable.",
)
@click.option("--partial", is_flag=True, help="Exit 0 even where something could not be checked.")
@DATA
@common(quiet=True)
@click.pass_context
def check(
    ctx: click.Context,
    target: str,
    settings: tuple[str, ...],
    partial: bool,
    data_root: Path | None,
    quiet: bool,
    as_json: bool,
) -> int:
    """Check that a plugin is light and that its components keep their contract.

    Data sets load their splits, and download what is missing.
    """
    with progress(quiet):
        from zoo.pipeline import plugin_check as twin

        report = twin(target, settings=settings, workspace=workspace_of(ctx, None, data_root))
    if as_json:
        print_json(report.to_json())
    else:
        _print(target, report)
    passed = report.verdict == "conforms" or (partial and report.verdict == "incomplete")
    return 0 if passed else 1


def _short(figure: str) -> str:
    """Cut a figure for the table; what failed is written out below it."""
    line = figure.splitlines()[0] if figure else ""
    return line if len(line) <= 70 and line == figure else line[:67] + "..."


def _print(target: str, report: Any) -> None:
    table(
        ("about", "check", "", "figure"),
        [(about, row.check, row.state, _short(row.figure)) for about, row in report.rows],
    )
    sizes = [
        (f"{each.kind} {each.name}", size.part, size.on, f"{size.parameters:,}", f"{size.macs:,}")
        for plugin in report.plugins
        for each in plugin.components
        for size in each.sizes
    ]
    if sizes:
        table(("size of", "part", "on", "parameters", "multiply-accumulates"), sizes)
    explained = report.explain()
    if explained:
        say(*explained.split("\n"))
    say(f"{target} {report.verdict}")
