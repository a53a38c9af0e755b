"""`zoo bundle RUN|FILE -o DIR`, `zoo bundle --serve DIR`, `zoo bundle --verify DIR`."""

from __future__ import annotations

import contextlib
import shlex
from pathlib import Path

import click

from zoo.cli.options import RunName, common, progress, workspace_of
from zoo.cli.output import print_json, say, table
from zoo.errors import UsageError
from zoo.showing import shown

FOLDER = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path, dir_okay=False)

# What may stand beside each form of the verb.
GOES_WITH = {
    "source": {"output", "web_assets", "no_web", "sign", "force", "runs_root", "data_root"}
    | {"quiet"},
    "serve": {"port"},
    "verify": {"public_key"},
}


@click.command()
@click.argument("source", type=RunName(), required=False, metavar="[RUN|FILE]")
@click.option("-o", "--output", type=FOLDER, metavar="DIR", help="The folder to be written.")
@click.option(
    "--web-assets",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="onnxruntime-web's files.  [default: your cache folder, else npm]",
)
@click.option("--no-web", is_flag=True, help="Leave onnxruntime-web's files (14 MB) out.")
@click.option("--sign", type=FILE, metavar="KEY.pem", help="Sign the folder with a private key.")
@click.option("--force", is_flag=True, help="Replace an older bundle.")
@click.option("--serve", type=FOLDER, metavar="DIR", help="Serve a bundle on this machine alone.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    help="Of --serve; 0 takes a free one.",
)
@click.option("--verify", type=FOLDER, metavar="DIR", help="Check every file of a bundle.")
@click.option("--public-key", type=FILE, metavar="KEY", help="Check its signature as well.")
@common(runs=True, data=True, quiet=True)
@click.pass_context
def bundle(
    ctx: click.Context,
    source: str | None,
    output: Path | None,
    web_assets: Path | None,
    no_web: bool,
    sign: Path | None,
    force: bool,
    serve: Path | None,
    port: int,
    verify: Path | None,
    public_key: Path | None,
    runs_root: Path | None,
    data_root: Path | None,
    quiet: bool,
    as_json: bool,
) -> int:
    """Put a proved file, its runners and a web page into one folder.

    The file is proved once more by its run; where that is not at hand, the bundle says that it was
    not proved here. The folder needs zoo no more: run.py (Python), run.mjs (Node) and index.html
    (a browser) run the model, and each can test itself on golden vectors.
    """
    _check_usage(ctx)
    if verify is not None:
        return _verify(verify, public_key, as_json)
    if serve is not None:
        return _serve(serve, port, as_json)
    assert source is not None
    assert output is not None
    with progress(quiet):
        from zoo.pipeline.bundling import bundle as twin

        made = twin(
            source,
            output,
            web=not no_web,
            web_assets_from=web_assets,
            sign=sign,
            force=force,
            workspace=workspace_of(ctx, runs_root, data_root),
        )
    if made.license == "unknown":
        say(
            "Its license is 'unknown'. To state one: zoo export RUN --license MIT, then bundle"
            " again with --force",
            err=True,
        )
    if as_json:
        print_json(made)
        return 0
    extra = "" if made.web else ", without the page's runtime"
    signed = ", signed" if made.signed else ""
    say(f"{made.folder}  {made.name}: {made.files} files, {made.bytes:,} bytes{extra}{signed}")
    if made.proved_by is None:
        say(f"As its proof.json claims; not proved here: {shown(made.not_proved)}")
    else:
        say(f"Proved here, by the run read from '{shown(made.proved_by)}'")
    folder = shlex.quote(str(made.folder))
    say(f"Next: python {shlex.quote(str(made.folder / 'run.py'))} selftest")
    if made.web:
        say(f"Next: zoo bundle --serve {folder}")
    return 0


def _check_usage(ctx: click.Context) -> None:
    """Refuse what cannot be meant together, before anything is done."""
    given = {
        name
        for name in ctx.params
        if ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
        and ctx.params[name] is not None
    }
    forms = given & {"source", "serve", "verify"}
    if len(forms) != 1:
        raise UsageError(
            "Name one thing to do: zoo bundle RUN -o DIR, zoo bundle --serve DIR or"
            " zoo bundle --verify DIR"
        )
    form = forms.pop()
    allowed = GOES_WITH[form] | {form, "as_json"}
    if others := sorted(given - allowed):
        option = next(p for p in ctx.command.params if p.name == others[0]).opts[-1]
        said = {"source": "RUN or FILE"}.get(form, f"--{form}")
        raise UsageError(f"{option} does not go with {said}. See: zoo bundle --help")
    if form == "source" and "output" not in given:
        raise UsageError("Name the folder to be written: zoo bundle RUN -o DIR")
    if {"web_assets", "no_web"} <= given:
        raise UsageError("--web-assets and --no-web exclude each other.")


def _verify(folder: Path, public_key: Path | None, as_json: bool) -> int:
    from zoo.pipeline.bundling import bundle_verify

    found = bundle_verify(folder, public_key=public_key)
    if as_json:
        print_json({**vars(found), "passed": found.passed})
    elif found.passed:
        signed = ", signed by that key" if found.signed else ""
        say(f"{folder}  {found.files} files as recorded{signed}")
        if (folder / "model.sig").exists() and not found.signed:
            say("Its signature was not checked: --public-key KEY checks it.", err=True)
    else:
        table(("file", "fault"), sorted(found.faults.items()))
        say(f"{folder}  NOT AS RECORDED")
    if found.ignored:
        names = ", ".join(found.ignored)
        say(f"Not checked: {names}, which npm install brings.", err=True)
    return 0 if found.passed else 1


def _serve(folder: Path, port: int, as_json: bool) -> int:
    from zoo.export.bundle.serving import serve

    def ready(address: str) -> None:
        if not (folder / "ort").is_dir():
            model, place = (shlex.quote(str(path)) for path in (folder / "model.onnx", folder))
            say(
                "The page's runtime, ort/, was left out: the page cannot run."
                f" Type: zoo bundle {model} -o {place} --force",
                err=True,
            )
        if as_json:
            print_json({"address": address})
        else:
            say(f"{address}  (Ctrl-C ends it)")

    # Nothing else ends it, so that it is no failure.
    with contextlib.suppress(KeyboardInterrupt):
        serve(folder, port, ready)
    return 0
