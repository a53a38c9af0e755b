"""Write MNIST or Fashion-MNIST out as PNG files, as a person's own pictures would lie in a folder.

python benchmarks/write_pictures.py pictures --labelled 200 --unlabelled 8000 --test 200
"""

from __future__ import annotations

from pathlib import Path

import click
import torch
from PIL import Image
from torch import Tensor

from zoo.api import NoConfig, data_root
from zoo.registry import Registry


@click.command(context_settings={"show_default": True})
@click.argument("into", type=click.Path(path_type=Path))
@click.option("--dataset", type=click.Choice(["fashion-mnist", "mnist"]), default="fashion-mnist")
@click.option(
    "--labelled", type=click.IntRange(1), help="Pictures a class in train/.  [default: all]"
)
@click.option("--unlabelled", type=click.IntRange(0), default=0, help="Others, in unlabelled/.")
@click.option("--test", type=click.IntRange(1), help="Pictures a class in test/.  [default: all]")
@click.option("--flat", is_flag=True, help="All training pictures in one folder, without labels.")
@click.option("--data-root", "root", type=click.Path(path_type=Path), help="[default: ZOO_DATA]")
def main(
    into: Path,
    dataset: str,
    labelled: int | None,
    unlabelled: int,
    test: int | None,
    flat: bool,
    root: Path | None,
) -> None:
    """Write pictures into the folder INTO, which must not exist."""
    if into.exists():
        raise click.UsageError(f"'{into}' exists. Type another folder, or: rm -r '{into}'")
    into.mkdir(parents=True)
    source = root or data_root()
    data = Registry.installed().lookup("dataset", dataset).spec.build(NoConfig(), source)
    train = data.train()
    if flat:
        _write(into, train.inputs)
        return
    held = data.test()
    rest = []
    for label, name in enumerate(data.classes):
        folder = name.replace("/", " or ")
        ours = torch.nonzero(train.labels == label).flatten()
        _write(into / "train" / folder, train.inputs[ours[:labelled]])
        _write(into / "test" / folder, held.inputs[held.labels == label][:test])
        rest.append(ours[len(ours[:labelled]) :])
    if unlabelled:
        left = torch.cat(rest).sort().values[:unlabelled]
        _write(into / "unlabelled", train.inputs[left])


def _write(folder: Path, inputs: Tensor) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, picture in enumerate(inputs[:, 0].numpy()):
        Image.fromarray(picture).save(folder / f"{number:05}.png")
    click.echo(f"{len(inputs):,} pictures in {folder}")


if __name__ == "__main__":
    main()
