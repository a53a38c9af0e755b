"""The group `zoo`: its verbs are imported when they are used, its plugins when they are needed."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import MutableMapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zoo.cli.output import Shown, drop_output, nobody_reads, say, say_text
from zoo.errors import PluginFault, ZooError, first_line, ran_out

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

# verb: (module under zoo.cli, attribute, the line in `zoo --help`)
VERBS: dict[str, tuple[str, str, str]] = {
    "run": ("recipe", "run", "Run a recipe: pretrain, finetune, compare, export, prove."),
    "list": ("catalogue", "list_", "List what is registered."),
    "show": ("catalogue", "show", "Show a component and every option it has."),
    "pretrain": ("train", "pretrain", "Pretrain a backbone without labels."),
    "finetune": ("train", "finetune", "Finetune a pretrained backbone, or train one anew."),
    "resume": ("train", "resume", "Go on with a run that stopped before its end."),
    "evaluate": ("measure", "evaluate", "Measure a classifier on the test split."),
    "bench": ("bench", "bench", "Ask whether pretraining helps, and with how many labels."),
    "compare": ("compare", "compare", "Compare finished classifiers by method, paired by seed."),
    "reproduce": ("reproduce", "reproduce", "Make a run again, and hold it against its record."),
    "report": ("measure", "report", "Write one page that shows a run: report.html."),
    "export": ("deploy", "export", "Write a classifier as one proved ONNX file."),
    "validate": ("deploy", "validate", "Prove an exported file once more."),
    "inspect": ("inspect", "inspect", "Show what an ONNX file holds, without running it."),
    "benchmark": ("benchmark", "benchmark", "Time files: import, load, first run, percentiles."),
    "bundle": ("bundle", "bundle", "Write, serve or verify all that a device needs."),
    "predict": ("deploy", "predict", "Classify picture files with an exported file."),
    "runs": ("catalogue", "runs", "List the runs."),
    "plugins": ("catalogue", "plugins", "List the plugins, and why any failed."),
    "plugin": ("plugin", "plugin", "Write a plugin from a template; check one."),
}


class _BrokenPipe(Exception):
    """A `BrokenPipeError` on its way past click, which would end the command without a word."""


class Zoo(click.Group):
    """A group whose verbs are imported one at a time, and whose errors are one message each."""

    context_class = Shown

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module, attribute, _ = VERBS[cmd_name]
        command: click.Command = getattr(importlib.import_module(f"zoo.cli.{module}"), attribute)
        command.context_class = Shown
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        from zoo.errors import did_you_mean

        unknown = bool(args) and args[0] not in VERBS and not args[0].startswith("-")
        if unknown and not ctx.resilient_parsing:
            hint = did_you_mean(args[0], VERBS)
            ctx.fail(f"No such command '{args[0]}'.{hint} Commands: {', '.join(VERBS)}.")
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        verbs = [
            CompletionItem(name, help=line)
            for name, (_, _, line) in VERBS.items()
            if name.startswith(incomplete)
        ]
        return verbs + click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, _, line) in VERBS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise _BrokenPipe from error

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        try:
            result = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        except click.exceptions.Exit as error:
            status = error.exit_code
        except (KeyboardInterrupt, click.Abort) as error:
            _say("Interrupted.", error.__cause__ or error)  # click raises Abort from it
            status = 130
        except click.ClickException as error:
            if isinstance(error, click.NoSuchOption) and error.option_name == "--plugin":
                where = "--plugin goes before the verb: zoo --plugin FILE.py VERB …"
                error = click.UsageError(where, ctx=error.ctx)
            _say_of_click(error)
            status = error.exit_code
        except ZooError as error:
            _say(f"Error: {error}", error)
            status = error.exit_status
        except _BrokenPipe as error:
            if nobody_reads():
                drop_output()  # the reader has seen enough
            else:
                _say("Error: A pipe to another process is broken.", error.__cause__)
            status = 1
        except OSError as error:
            where = f" '{error.filename}'" if error.filename else ""
            _say(f"Error: {error.strerror or error}{where}.", error)
            status = 1
        except (ImportError, MemoryError) as error:
            if os.environ.get("ZOO_STRICT") == "1":
                raise
            _say(f"Error: {_unloaded(error)}", error)
            status = 1
        else:
            status = result if isinstance(result, int) else 0
        sys.exit(status)


def _say(text: str, error: BaseException | None = None) -> None:
    """Print a message on stderr, and below it what was noted on the error: what to type next."""
    for each in [text, *getattr(error, "__notes__", [])]:
        say_text(each, err=True)


def _say_of_click(error: click.ClickException) -> None:
    """Print what click has to say: the usage and the error, or the help."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()  # made by `Shown`
        return
    if isinstance(error, click.UsageError) and (ctx := error.ctx) is not None:
        hint = f"Try '{ctx.command_path} {ctx.help_option_names[0]}' for help."
        say(*ctx.get_usage().splitlines(), hint, "", err=True)
    say_text(f"Error: {error.format_message()}", err=True)


def _unloaded(error: ImportError | MemoryError) -> str:
    """Say which library does not load, PyTorch say, or that memory ended."""
    reason = first_line(error)
    room = "Not enough memory: close other programs, or raise the limit."
    if isinstance(error, MemoryError):
        return f"Out of memory. {room}"
    little = ran_out(error) or reason.endswith("failed to map segment from shared object")
    return f"A library cannot be loaded: {reason}. {room if little else 'Type: pip check'}"


def _version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from importlib.metadata import version

        from zoo.api import API_VERSION

        say(f"zoo {version('plugzoo')} (zoo.api {API_VERSION})")
        ctx.exit()


@click.group(
    cls=Zoo, context_settings={"help_option_names": ["-h", "--help"]}, no_args_is_help=True
)
@click.option(
    "--plugin",
    "plugin_files",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE.py",
    help="Load a plugin from a file as well; repeatable.",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="Show the version and exit.",
)
def zoo(plugin_files: tuple[Path, ...]) -> None:
    """Pretrain without labels, finetune with a few, export one proved ONNX file.

    Begin with: zoo run quickstart
    """


def registry_of(ctx: click.Context) -> Any:
    """Return the plugins of this invocation, discovered when first asked for."""
    from zoo.isolation import note_of_undone
    from zoo.registry import SLOW, Registry

    root = ctx.find_root()
    meta: MutableMapping[str, Any] = root.meta
    if "zoo.registry" not in meta:
        meta["zoo.registry"] = Registry.installed(root.params.get("plugin_files") or ())
        for plugin in meta["zoo.registry"].plugins:
            if ctx.resilient_parsing:
                continue
            if plugin.seconds >= SLOW:
                _say(f"Plugin {plugin.name} took {plugin.seconds:.1f} s to load. See: zoo plugins")
            if plugin.changed:
                _say(f"{note_of_undone(f'Plugin {plugin.name}', plugin.changed, 'loaded')}.")
            # A file that was named and does not load is what is wrong, whatever else follows.
            named = plugin.name.startswith("file:") and ctx.info_name not in ("plugins", "list")
            if plugin.cause and named:
                raise PluginFault(f"Plugin file '{plugin.module}' does not load: {plugin.cause}.")
    return meta["zoo.registry"]
