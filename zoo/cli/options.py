"""What verbs share: options, completion, progress, the workspace."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from zoo.api import Component
from zoo.cli.main import registry_of
from zoo.config import click_option, knobs, parse_pairs
from zoo.errors import NotFinite, recurs
from zoo.showing import shown

F = TypeVar("F", bound=Callable[..., Any])


def common(*, runs: bool = False, data: bool = False, quiet: bool = False) -> Callable[[F], F]:
    """Add `--json`, and where asked for `--runs`, `--data-root` and `--quiet`, to a verb."""

    def decorate(function: F) -> F:
        for wanted, option in ((True, JSON), (quiet, QUIET), (data, DATA), (runs, RUNS)):
            if wanted:
                function = option(function)
        return function

    return decorate


JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
QUIET = click.option("--quiet", "-q", is_flag=True, help="Show no progress.")
DATA = click.option(
    "--data-root",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="ZOO_DATA",
    help="Folder of the data sets.  [default: $ZOO_DATA, else your cache folder]",
)
RUNS = click.option(
    "--runs",
    "runs_root",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="ZOO_RUNS",
    help="Folder of the runs.  [default: $ZOO_RUNS, else ./runs]",
)


WITHOUT_SEEN = click.option(
    "--without-seen",
    is_flag=True,
    help="Measure on the test examples alone that the run has not seen in training.",
)


def workspace_of(
    ctx: click.Context, runs_root: Path | None = None, data_root: Path | None = None
) -> Any:
    """Return the workspace that a verb's options name."""
    from zoo.pipeline import Workspace

    return Workspace(plugins=registry_of(ctx), runs=runs_root, data=data_root)


def light_workspace(runs_root: Path | None) -> Any:
    """Return a workspace for what needs no plugin: none is loaded."""
    from zoo.pipeline import Workspace
    from zoo.registry import Registry

    return Workspace(plugins=Registry(), runs=runs_root)


def following(ctx: click.Context, command: str, *verb_options: str) -> str:
    """Write a command to type next, with those options of this one that it needs as well.

    `verb_options` are of --runs and --data-root those that the next verb takes.
    """
    words = ["zoo"]
    for path in ctx.find_root().params.get("plugin_files") or ():
        words += ["--plugin", shlex.quote(str(path))]
    words.append(command)
    names = {"--runs": "runs_root", "--data-root": "data_root"}
    for option in verb_options:
        if ctx.get_parameter_source(names[option]) is ParameterSource.COMMANDLINE:
            words += [option, shlex.quote(str(ctx.params[names[option]]))]
    return " ".join(words)


@contextlib.contextmanager
def resumable(ctx: click.Context, workspace: Any) -> Iterator[None]:
    """Say, where a run that is being made stops before its end, how it goes on, if it can."""
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        run, slower = workspace.run, isinstance(error, NotFinite)
        stopped = run and run.record.status in ("failed", "interrupted")
        if stopped and (slower or not recurs(error)):
            command = f"resume {shlex.quote(str(run.folder))}"
            if isinstance(error, NotFinite):  # at the same rate it would come to the same
                command += f" --lr {error.lr / 10:g}"
            command = following(ctx, command, "--data-root")
            error.add_note(f"Go on with: {command}")
        raise


@contextlib.contextmanager
def progress(quiet: bool) -> Iterator[None]:
    """Show progress on stderr: one live line on a terminal, lines now and then elsewhere.

    What a plugin prints while it works, in a forward pass for example, goes to stderr too.
    """
    from zoo.isolation import stdout_to_stderr
    from zoo.progress import Live, Plain, Reporter, Silent, reporting

    reporter: Reporter = Silent()
    if not quiet:
        moving = sys.stderr.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")
        reporter = Live() if moving else Plain()
    with reporting(reporter), stdout_to_stderr():
        yield


class ComponentName(click.ParamType):
    """The name of a component; completed from the registry, checked by the pipeline."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.name = kind

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        entries = registry_of(ctx).entries(self.kind)
        return [
            CompletionItem(entry.name, help=shown(entry.spec.summary))
            for entry in entries
            if entry.name.startswith(incomplete)
        ]


class RunName(click.ParamType):
    """A run's folder, its name, or `latest`; completed from the runs folder."""

    name = "run"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        from zoo.folders import runs_root

        root = runs_root(ctx.params.get("runs_root"))
        names = (path.parent.name for path in root.glob("*/run.json"))
        found = sorted(name for name in names if shown(name) == name)
        items = [CompletionItem(n) for n in ("latest", *found) if n.startswith(incomplete)]
        # bash drops every name as soon as it is told to complete folders.
        return items or [CompletionItem(incomplete, type="dir")]


def component_options(flag: str, short: str, kind: str, default: str | None) -> Callable[[F], F]:
    """Add `--KIND NAME` and its repeatable `-x key=value` to a verb."""

    def decorate(function: F) -> F:
        pairs = click.option(
            short,
            f"{kind}_pairs",
            multiple=True,
            metavar="KEY=VALUE",
            help=f"Set an option of the {kind}; repeatable. See: zoo show {kind} NAME",
        )
        name = click.option(
            flag,
            kind,
            type=ComponentName(kind),
            default=default,
            show_default=default is not None,
            help=f"The {kind}.",
        )
        return name(pairs(function))

    return decorate


def component(ctx: click.Context, kind: str, name: str, pairs: tuple[str, ...]) -> Component:
    """Read a component's name and its `key=value` options."""
    entry = registry_of(ctx).lookup(kind, name)
    return Component(name, **parse_pairs(entry.spec.config, pairs, entry.owner))


def given(ctx: click.Context, config: type) -> dict[str, Any]:
    """Return those of a config's options that the user typed."""
    typed = (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT)
    return {
        knob.name: ctx.params[knob.parameter]
        for knob in knobs(config)
        if ctx.get_parameter_source(knob.parameter) in typed
    }


SECTIONS = {
    "Augmentation of each batch": (
        ("shift", "flip", "rotate", "zoom", "shear", "jitter", "noise", "erase")
    ),
    "Machine": (
        ("threads", "device", "devices", "strategy", "precision", "channels_last", "compile")
    ),
    "Records": ("log", "checkpoint_seconds", "checkpoint_steps"),
}
"""Training options that stand under a heading of their own in `--help`."""


def options_of(config: type, section: str, *, without: Collection[str] = ()) -> list[click.Option]:
    """Make the options of a config under a heading, but for those whose flags are taken."""
    made = []
    for knob in knobs(config):
        if knob.flag not in without:
            made.append(click_option(knob))
            found = [title for title, names in SECTIONS.items() if knob.name in names]
            made[-1].section = found[0] if found else section  # type: ignore[attr-defined]
    return made


def config_options(config: type, section: str) -> Callable[[click.Command], click.Command]:
    """Add a config's options to a command, under a heading."""

    def decorate(command: click.Command) -> click.Command:
        command.params += options_of(config, section)
        return command

    return decorate


class Sectioned(click.Command):
    """A command whose many options stand under headings."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            if (record := param.get_help_record(ctx)) is not None:
                sections.setdefault(getattr(param, "section", "Options"), []).append(record)
        for title in sorted(sections, key=lambda title: title in SECTIONS):
            with formatter.section(title):
                formatter.write_dl(sections[title])
