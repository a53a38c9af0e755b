"""What becomes of odd networks: proved, refused by name, or failed by a row, and none wrongly.

Every network of `odd/` is registered as a backbone, trained on digits and exported. A file that is
handed over is asked 1,000 pictures one at a time beside PyTorch, the run's classifier loaded anew:
random bytes, digits, flat greys, single points, checkerboards, noise at both ends.

`python benchmarks/odd_networks.py run` scans them all, in 12 minutes on one core, and writes a JSON
line for each to `benchmarks/results/odd_networks/networks.jsonl`; `table` renders them, and
`--write PAGE` puts the table into a page. `run --sample 8` takes some, and writes nothing.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import pages
from odd import NETWORKS
from odd.network import Network
from odd.questions import COUNT
from odd.worker import Worker
from report import machine, plainly

from zoo.folders import write_atomic

RESULTS = Path(__file__).parent / "results" / "odd_networks"
COMMAND = "python benchmarks/odd_networks.py table"
SHORT = f"{COMMAND} --short"
OUTCOMES = ("proved", "intact", "failed", "refused")
HEADS = ("kind", "networks", *OUTCOMES, "otherwise than expected")
Line = dict[str, Any]


def sample(count: int, seed: int) -> list[Network]:
    """Draw networks by the seed, of as many kinds as there may be."""
    rng = random.Random(seed)
    drawn = rng.sample(NETWORKS, len(NETWORKS))
    rank = {kind: at for at, kind in enumerate(dict.fromkeys(each.kind for each in drawn))}
    seen: dict[str, int] = dict.fromkeys(rank, 0)
    order = []
    for each in drawn:
        order.append((seen[each.kind], rank[each.kind], each))
        seen[each.kind] += 1
    return [each for _, _, each in sorted(order, key=lambda found: found[:2])][:count]


def scan(networks: Sequence[Network], seconds: float, *, quiet: bool = False) -> list[Line]:
    """Scan networks, one after the other; returns their lines by name."""
    lines = []
    with Worker(seconds) as worker:
        for number, network in enumerate(networks, 1):
            result = worker.scan(network)
            lines.append(result.to_json())
            said = "" if result.sound else f", expected {' or '.join(result.expected)}"
            if not quiet:
                click.echo(f"{number}/{len(networks)} {_said(lines[-1])}{said}", err=True)
    return sorted(lines, key=lambda line: str(line["name"]))


def render(lines: Sequence[Line], found: dict[str, Any], *, short: bool = False) -> str:
    """Write a row for each kind, one for all of them, and what is not as expected by name.

    `short` leaves the kinds' rows out.
    """
    rows = [_row(kind, [line for line in lines if line["kind"] == kind])
            for kind in sorted({line["kind"] for line in lines})]  # fmt: skip
    text = _table(HEADS, [*([] if short else rows), _row("all", lines)])
    odd = [line for line in lines if not line["sound"]]
    text += "\n" + "".join(f"- {_said(line)}\n" for line in odd) + ("\n" if odd else "")
    asked = [line["answers"] for line in lines if line["answers"]]
    figures = [answers["largest"] for answers in asked if answers["largest"] is not None]
    files = "The one file" if len(asked) == 1 else f"Each of the {len(asked)} files"
    text += f"{files} was asked {COUNT:,} pictures one at a time;"
    wrong = sum(line["outcome"] == "wrong" for line in lines)
    text += f" {wrong or 'none'} answered otherwise than PyTorch"
    text += f" (probabilities {max(figures):.1e} apart at most)." if figures else "."
    versions = ", ".join(f"{name} {found['versions'][name]}" for name in ("torch", "onnxruntime"))
    return f"{text} On {found['processor']}; {versions}.\n"


def _row(kind: str, lines: Sequence[Line]) -> tuple[str, ...]:
    counts = [sum(line["outcome"] == outcome for line in lines) for outcome in OUTCOMES]
    odd = sum(not line["sound"] for line in lines)
    return (kind.replace("_", " "), str(len(lines)), *map(str, counts), str(odd or ""))


def _said(line: Line) -> str:
    stage = f" ({line['stage']})" if line["stage"] else ""
    outcome = "PROVED WRONGLY" if line["outcome"] == "wrong" else line["outcome"]
    return f"`{line['name']}`: {outcome}{stage}" + f": {line['message']}" * bool(line["message"])


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    shown = [heads, ["---"] * len(heads), *rows]
    return "".join("| " + " | ".join(row) + " |\n" for row in shown)


def write(lines: Sequence[Line], found: dict[str, Any], results: Path) -> None:
    results.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(line, sort_keys=True, ensure_ascii=False) + "\n" for line in lines)
    write_atomic(results / "networks.jsonl", text.encode())
    write_atomic(results / "machine.json", (json.dumps(found, indent=2) + "\n").encode())


def read(results: Path) -> tuple[list[Line], dict[str, Any]]:
    texts = (results / "networks.jsonl").read_text().splitlines()
    return [json.loads(text) for text in texts], json.loads((results / "machine.json").read_text())


def place() -> dict[str, Any]:
    """Say what is scanned, and on what: commit, processor, versions."""
    found = machine("onnx", "onnxscript", "onnxruntime")
    processor = found["processor"].partition(" × ")[2]
    return {"commit": found["commit"], "processor": processor, "versions": found["versions"]}


@click.group()
def main() -> None:
    """Scan odd networks, and render what came of them."""


@main.command(context_settings={"show_default": True})
@click.option("--sample", "count", type=click.IntRange(1), help="So many, drawn by the seed.")
@click.option("--seed", default=0, help="Seed of the sample.")
@click.option("--only", multiple=True, metavar="NAME", help="A network, or all of a kind.")
@click.option("--seconds", default=120.0, help="Time limit of one network.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--results",
    type=click.Path(path_type=Path, file_okay=False),
    default=RESULTS,
    show_default=False,
    help="Folder that a whole scan is written to.",
)
def run(
    count: int | None,
    seed: int,
    only: tuple[str, ...],
    seconds: float,
    as_json: bool,
    results: Path,
) -> None:
    """Train, export and ask networks; of all of them the results are written.

    Exits with 1 where one was proved wrongly, raised something, hung, died, or came to another end
    than is expected of it.
    """
    known = {each.name for each in NETWORKS} | {each.kind for each in NETWORKS}
    if missing := sorted(set(only) - known):
        kinds = ", ".join(sorted({each.kind for each in NETWORKS}))
        raise click.BadParameter(f"no network or kind is called {missing[0]}. Kinds: {kinds}.")
    chosen = [each for each in NETWORKS if {each.name, each.kind} & set(only)] or NETWORKS
    chosen = sample(count, seed) if count and not only else chosen
    found = place()
    with plainly():
        lines = scan(chosen, seconds)
    if len(chosen) == len(NETWORKS):
        write(lines, found, results)
    if as_json:
        print(json.dumps({"machine": found, "networks": lines}, indent=2, ensure_ascii=False))
    else:
        print(render(lines, found))
    sys.exit(0 if all(line["sound"] for line in lines) else 1)


@main.command()
@click.option("--write", "page", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--short", is_flag=True, help="Leave the kinds' rows out.")
@click.option("--results", type=click.Path(path_type=Path), default=RESULTS)
def table(page: Path | None, short: bool, results: Path) -> None:
    """Print the table, or put it into a page between its marks."""
    pages.show(render(*read(results), short=short), page, SHORT if short else COMMAND)


@main.command("list")
def names() -> None:
    """Print every network: its kind, its name, what is odd about it, what is expected of it."""
    rows = [(each.kind, f"`{each.name}`", each.summary, ", ".join(each.expected))
            for each in NETWORKS]  # fmt: skip
    print(_table(("kind", "network", "what is odd", "expected"), rows))


if __name__ == "__main__":
    main()
