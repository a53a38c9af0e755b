"""`zoo list`, `zoo show`, `zoo plugins` and `zoo runs`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from zoo.api import API_VERSION
from zoo.cli.main import registry_of
from zoo.cli.options import common, following, workspace_of
from zoo.cli.output import percent, print_json, say, say_text, table
from zoo.errors import UnknownName

KIND_WORDS = ("dataset", "backbone", "objective", "head", "recipe")


class KindName(click.ParamType):
    name = "kind"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        return [CompletionItem(kind) for kind in KIND_WORDS if kind.startswith(incomplete)]


class NameOfKind(click.ParamType):
    name = "name"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        from zoo.pipeline.catalogue import kind_of

        try:
            kind = kind_of(str(ctx.params.get("kind")))
        except UnknownName:
            return []
        names = registry_of(ctx).names(kind)
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]


@click.command("list", epilog="KIND: " + ", ".join(KIND_WORDS) + "; a plural is fine.")
@click.argument("kind", required=False, type=KindName())
@common()
@click.pass_context
def list_(ctx: click.Context, kind: str | None, as_json: bool) -> None:
    """List what is registered: all kinds, or one."""
    from zoo.pipeline import list as twin

    found = twin(kind, workspace=workspace_of(ctx))
    if as_json:
        rows = {f"{each}s": [_entry(entry) for entry in entries] for each, entries in found.items()}
        print_json(rows)
    else:
        for each, entries in found.items():
            lines = [(e.name, e.spec.summary, e.plugin, e.version) for e in entries]
            table((f"{each}s", "summary", "plugin", "version"), lines)
    for line in _clashes(registry_of(ctx), found):
        say(line, err=True)
    failed = [plugin.name for plugin in registry_of(ctx).plugins if plugin.cause]
    if failed:
        say(f"Failed to load: {', '.join(failed)}. See: zoo plugins", err=True)


@click.command(epilog="KIND: " + ", ".join(KIND_WORDS) + ".")
@click.argument("kind", type=KindName())
@click.argument("name", type=NameOfKind())
@common()
@click.pass_context
def show(ctx: click.Context, kind: str, name: str, as_json: bool) -> None:
    """Show a component and every option it has."""
    from zoo.pipeline import show as twin

    shown = twin(kind, name, workspace=workspace_of(ctx))
    if as_json:
        print_json(shown)
        return
    say(f"{shown.kind} {shown.name} — {shown.summary}")
    say(f"plugin {shown.plugin} {shown.version}", "")
    if shown.kind == "recipe":
        table(("part", "is"), _content_rows(shown.content))
    elif not shown.options:
        say("It has no options.")
    else:
        rows = [
            (option.name, option.default, option.allowed, option.help + _reach(shown.kind, option))
            for option in shown.options
        ]
        table(("option", "default", "allowed", "what it does"), rows)
        say(_usage(ctx, shown))


@click.command()
@common()
@click.pass_context
def plugins(ctx: click.Context, as_json: bool) -> None:
    """List the plugins that were found, and why any of them failed."""
    from zoo.pipeline import plugins as twin

    found = twin(workspace=workspace_of(ctx))
    registry = registry_of(ctx)
    if as_json:
        rows = [
            {
                **vars(plugin),
                "components": [
                    {"kind": e.kind, "name": e.name, "also_from": registry.rivals(e)}
                    for e in registry.components_of(plugin.name)
                ],
            }
            for plugin in found
        ]
        print_json({"api_version": API_VERSION, "plugins": rows})
        return
    table(
        ("plugin", "version", "entry point", "import", "hooks", "contributes"),
        [
            (
                plugin.name,
                plugin.version,
                plugin.module,
                f"{plugin.seconds * 1000:.0f} ms",
                ", ".join(plugin.hooks),
                f"FAILED: {plugin.cause}"
                if plugin.cause
                else ", ".join(map(_contributed, registry.components_of(plugin.name))),
            )
            for plugin in found
        ],
    )
    say(f"zoo.api {API_VERSION}")
    for wanted in registry.unmatched:
        say(f"ZOO_PLUGINS names '{wanted}', which no installed plugin is called.", err=True)
    everything = {kind: registry.entries(kind) for kind in KIND_WORDS}
    for line in _clashes(registry, everything):
        say(line, err=True)


@click.command()
@common(runs=True)
@click.pass_context
def runs(ctx: click.Context, runs_root: Path | None, as_json: bool) -> None:
    """List the runs, oldest first."""
    from zoo.cli.options import light_workspace
    from zoo.pipeline import runs as twin

    workspace = light_workspace(runs_root)
    found, faults = twin(workspace=workspace)
    for fault in faults:
        say_text(f"Warning: {fault}", err=True)
    if as_json:
        print_json({"runs": [_run(run) for run in found]})
        return
    if not found:
        say(f"There is no run under '{workspace.runs_root}'. Begin with: zoo run quickstart")
        return
    from shutil import get_terminal_size

    columns: tuple[str, ...] = ("run", "state", "validation", "test", "seconds", "parent")
    rows: list[tuple[str, ...]] = [_row(run) for run in found]
    if sys.stdout.isatty() and get_terminal_size().columns < 110:
        # A name that is broken over lines cannot be copied; the rest is in --json.
        columns, rows = columns[:2] + columns[3:4], [row[:2] + row[3:4] for row in rows]
    table(columns, rows)
    for run in found:
        if run.record.error:
            say(f"{run.name} failed: {run.record.error.splitlines()[0]}", err=True)


def _contributed(entry: Any) -> str:
    return f"{entry.kind} {entry.name}"


def _clashes(registry: Any, found: dict[str, list[Any]]) -> list[str]:
    """Say which names several plugins contribute, and what settles each.

    A file that the user has named wins without a word.
    """
    clashing = {
        (kind, entry.name): sorted([entry.plugin, *registry.rivals(entry)])
        for kind, entries in found.items()
        for entry in entries
        if registry.rivals(entry)
    }
    return [
        f"{kind.capitalize()} '{name}' comes from {' and '.join(plugins)}."
        f" Say which one wins: ZOO_PLUGINS={plugins[0]}"
        for (kind, name), plugins in clashing.items()
        if sum(plugin.startswith("file:") for plugin in plugins) != 1
    ]


def _row(run: Any) -> tuple[str, ...]:
    record = run.record
    tested = [test["accuracy"] for test in record.tests if "accuracy" in test]
    return (
        run.name,
        run.state,
        _validation(record),
        percent(tested[-1]) if tested else "",
        "" if record.seconds is None else f"{record.seconds:.1f}",
        "…" + record.parent.run[-4:] if record.parent else "",
    )


def _entry(entry: Any) -> dict[str, str]:
    return {
        "name": entry.name,
        "summary": entry.spec.summary,
        "plugin": entry.plugin,
        "version": entry.version,
    }


def _run(run: Any) -> dict[str, Any]:
    record = run.record
    return {
        "run": run.name,
        "folder": str(run.folder),
        "kind": record.kind,
        "state": run.state,
        "created": record.created,
        "seconds": record.seconds,
        "metrics": record.metrics,
        "tests": record.tests,
        "parent": record.parent.run if record.parent else None,
        "error": record.error,
    }


def _validation(record: Any) -> str:
    figures = record.metrics.get("validation")
    if not figures:
        return ""
    return percent(figures["accuracy"]) if "accuracy" in figures else f"{figures['total']:.4f}"


def _reach(kind: str, option: Any) -> str:
    """Say how an option is typed where its own flag is taken by one of zoo's."""
    if kind != "backbone":
        return ""
    from zoo.cli.train import pretrain_flags

    flag = "--" + option.name.replace("_", "-")
    taken = flag in pretrain_flags()
    return f" ({flag} is zoo's own: type -b {option.name}=…)" if taken else ""


def _usage(ctx: click.Context, shown: Any) -> str:
    example = f"{shown.options[0].name}=…"
    if shown.kind == "backbone":
        return f"Type: {following(ctx, f'pretrain {shown.name} --help')}"
    flag, short = {"dataset": ("--dataset", "-d"), "objective": ("--objective", "-o")}.get(
        shown.kind, ("--head", "-H")
    )
    return f"Type: {flag} {shown.name} {short} {example}"


def _content_rows(content: dict[str, Any]) -> list[tuple[str, str]]:
    rows = []
    for part, value in content.items():
        if isinstance(value, dict) and set(value) == {"name", "options"}:
            options = ", ".join(f"{k}={_text(v)}" for k, v in value["options"].items())
            rows.append((part, f"{value['name']}  {options}".rstrip()))
        elif isinstance(value, dict):
            rows.append((part, ", ".join(f"{k}={_text(v)}" for k, v in value.items())))
        else:
            rows.append((part, _text(value)))
    return rows


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ",".join(str(part) for part in value)
    if isinstance(value, bool):
        return str(value).lower()
    return "none" if value is None else str(value)
