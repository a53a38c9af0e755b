"""Which training examples carry a label: the draws of `zoo bench labels`, written for others.

`python benchmarks/draws.py` writes `benchmarks/draws/SET-N.json`: for each of ten seeds the places,
in the training split as published, of the N examples that carry a label.
"""

from __future__ import annotations

from pathlib import Path

import click

from zoo.pipeline import Workspace
from zoo.pipeline.bench.draws import draws_of, written

FOLDER = Path(__file__).parent / "draws"
SETS = ("mnist", "fashion-mnist")
LABELS = (10, 100, 1000)
SEEDS = tuple(range(10))


def texts(workspace: Workspace) -> dict[str, str]:
    """Return each file's content by its name."""
    return {
        f"{name}-{count}.json": written(draws_of(workspace, name, [count], SEEDS))
        for name in SETS
        for count in LABELS
    }


@click.command(help=__doc__)
@click.option("--data-root", type=click.Path(path_type=Path), envvar="ZOO_DATA")
def main(data_root: Path | None) -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, text in texts(Workspace(data=data_root)).items():
        (FOLDER / name).write_text(text)
        print(f"{FOLDER / name}  {len(text):,} bytes")


if __name__ == "__main__":
    main()
