"""One's own pictures: what of a folder is read, what is told of the rest, and the cache."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
import tracemalloc
import unicodedata
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from zoo import pictures as reading
from zoo.api import DataError, Dataset, DataUnavailable, ImageInput, Unfit
from zoo.data import checked
from zoo.errors import ZooError
from zoo.pictures import NO_FORMAT, RULE, read_picture
from zoo.progress import Plain, Silent, reporting
from zoo.testing import assert_conforms
from zoo_folder import FolderConfig, cache, contents, decode, making, parallel
from zoo_folder.dataset import build
from zoo_folder.listing import pictures, shown, suffixes
from zoo_folder.listing import typed as typed_path

ROOT = Path(__file__).resolve().parent.parent.parent
SIZE = 6
INPUT = ImageInput(channels=3, height=SIZE, width=SIZE)


def save(path: Path, seed: int, **how: Any) -> Path:
    """Write a picture of noise, 9×7, another one for each seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **how)
    return path


def fill(folder: Path, count: int, first: int = 0, suffix: str = ".png") -> list[Path]:
    return [save(folder / f"{i}{suffix}", first + i) for i in range(count)]


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Ten cats and seven dogs."""
    fill(tmp_path / "pets" / "cats", 10)
    fill(tmp_path / "pets" / "dogs", 7, 100)
    return tmp_path / "pets"


class Notes(Silent):
    """Keep what a user is told."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)

    def about(self, words: str) -> str:
        (found,) = [text for text in self.texts if words in text]
        return found


class Loaded:
    """The splits of a folder at 6×6, and what was told meanwhile; the cache lies beside it."""

    def __init__(self, path: Path, **options: Any) -> None:
        notes = Notes()
        self.data: Dataset = build(
            FolderConfig(path=str(path), **{"size": SIZE, **options}), path.parent / "data"
        )
        shape, classes = self.data.input.shape, len(self.data.classes)
        with reporting(notes):
            self.train: Any = checked(self.data.train(), shape, classes or None, "folder")
            self.test: Any = self.data.test and checked(self.data.test(), shape, classes, "folder")
            self.unlabelled: Any = self.data.unlabelled and self.data.unlabelled()
        self.notes = notes

    def of(self, split: str, name: str) -> list[bytes]:
        """Return the pictures of one class, sorted."""
        examples = getattr(self, split)
        label = self.data.classes.index(name)
        return rows(examples.inputs[examples.labels == label])


def rows(inputs: torch.Tensor) -> list[bytes]:
    return sorted(row.numpy().tobytes() for row in inputs)


def read(paths: list[Path]) -> list[bytes]:
    """What the one rule makes of some files."""
    return sorted(read_picture(path, INPUT).tobytes() for path in paths)


def lowest(folder: Path, share: int = 5) -> tuple[list[Path], list[Path]]:
    """A fifth of a class's pictures by the digest of each file, and the rest."""
    files = sorted(folder.rglob("*.png"), key=lambda f: hashlib.sha256(f.read_bytes()).digest())
    count = max(1, int(len(files) / share + 0.5))
    return files[:count], files[count:]


def refused(path: Path, **options: Any) -> str:
    with pytest.raises((DataError, Unfit)) as caught:
        Loaded(path, **options)
    passing = any(said in str(caught.value) for said in ("same command again", "be kept in"))
    assert isinstance(caught.value, DataUnavailable) == passing
    return str(caught.value)


# --- layouts --------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "tested"), [(2, 1), (7, 1), (8, 2), (10, 2), (13, 3)])
def test_a_fifth_of_each_class_by_the_hash_of_its_content(
    count: int, tested: int, pets: Path
) -> None:
    fill(pets / "ants", count, 300)
    loaded = Loaded(pets)
    assert loaded.data.classes == ("ants", "cats", "dogs")
    assert loaded.data.unlabelled is None
    assert len(loaded.of("test", "ants")) == tested
    for name in loaded.data.classes:
        test, train = lowest(pets / name)
        assert loaded.of("test", name) == read(test)
        assert loaded.of("train", name) == read(train)
    assert "3 classes" in loaded.notes.about("a fifth of each class")


def test_the_split_and_the_order_are_those_of_the_content_alone(pets: Path) -> None:
    first = Loaded(pets)
    for number, file in enumerate(sorted(pets.rglob("*.png"), reverse=True)):
        file.rename(file.with_name(f"renamed {number}.png"))
    other = pets.parent / "elsewhere"
    shutil.move(pets, other)
    second = Loaded(other)
    for split in ("train", "test"):
        assert torch.equal(getattr(first, split).inputs, getattr(second, split).inputs)
        assert torch.equal(getattr(first, split).labels, getattr(second, split).labels)


def test_train_and_test_folders_are_taken_as_they_are(tmp_path: Path) -> None:
    root = tmp_path / "pets"
    trained = fill(root / "train" / "cats", 3), fill(root / "train" / "dogs", 4, 10)
    tested = fill(root / "test" / "cats", 2, 20), fill(root / "test" / "dogs", 5, 30)
    loaded = Loaded(root)
    assert loaded.data.classes == ("cats", "dogs")
    for name, train, test in zip(loaded.data.classes, trained, tested, strict=True):
        assert loaded.of("train", name) == read(train)
        assert loaded.of("test", name) == read(test)
    assert "7 pictures to train on, 7 to test on" in loaded.notes.texts[-1]


def test_train_without_test_is_split(tmp_path: Path) -> None:
    fill(tmp_path / "pets" / "train" / "cats", 10)
    fill(tmp_path / "pets" / "train" / "dogs", 10, 10)
    loaded = Loaded(tmp_path / "pets")
    assert (len(loaded.train), len(loaded.test)) == (16, 4)


@pytest.mark.parametrize("beside", ["class folders", "train and test"])
@pytest.mark.parametrize("name", ["unlabelled", "unlabeled", "Unlabelled"])
def test_unlabelled_pictures_beside_either(name: str, beside: str, pets: Path) -> None:
    if beside == "train and test":
        fill(pets / "train" / "x", 2, 50)
        fill(pets / "train" / "y", 2, 60)
        for each in ("cats", "dogs"):
            shutil.move(pets / each, pets / "train" / each)
    files = fill(pets / name / "2019", 3, 200) + fill(pets / name / "2020" / "May", 2, 210)
    loaded = Loaded(pets)
    assert name not in loaded.data.classes
    assert loaded.unlabelled.labels is None
    assert rows(loaded.unlabelled.inputs) == read(files)
    assert loaded.notes.texts[-1].endswith("; 5 unlabelled")


def test_pictures_without_class_folders_are_for_pretraining(tmp_path: Path) -> None:
    files = fill(tmp_path / "pile", 5)
    loaded = Loaded(tmp_path / "pile")
    assert loaded.data.classes == ()
    assert loaded.data.test is None
    assert loaded.data.unlabelled is None
    assert loaded.train.labels is None
    assert rows(loaded.train.inputs) == read(files)
    more = fill(tmp_path / "pile" / "unlabelled" / "deeper", 3, 10)
    assert rows(Loaded(tmp_path / "pile").train.inputs) == read(files + more)
    for file in files:
        file.unlink()
    assert rows(Loaded(tmp_path / "pile").train.inputs) == read(more)


def test_classes_named_train_and_test_are_classes_where_they_have_no_folders(
    tmp_path: Path,
) -> None:
    for first, name in enumerate(("train", "test", "bus")):
        fill(tmp_path / "traffic" / name, 5, 10 * first)
    loaded = Loaded(tmp_path / "traffic")
    assert loaded.data.classes == ("bus", "test", "train")
    assert (len(loaded.train), len(loaded.test)) == (12, 3)


def test_pictures_are_found_in_folders_within_a_class(pets: Path) -> None:
    deeper = fill(pets / "cats" / "black" / "old", 5, 400)
    loaded = Loaded(pets)
    everything = read(deeper + sorted((pets / "cats").glob("*.png")))
    assert sorted(loaded.of("train", "cats") + loaded.of("test", "cats")) == everything


def test_describing_reads_no_picture_and_writes_nothing(tmp_path: Path) -> None:
    for name in ("cats", "dogs"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        (tmp_path / "pets" / name / "x.png").write_bytes(b"no picture")
    config = FolderConfig(path=str(tmp_path / "pets"), size=9, channels=1)
    data = build(config, tmp_path / "data")
    assert data.classes == ("cats", "dogs")
    assert data.input == ImageInput(channels=1, height=9, width=9)
    assert not (tmp_path / "data").exists()


def test_links_are_followed_but_not_in_circles(pets: Path) -> None:
    outside = fill(pets.parent / "outside", 5, 500)
    (pets / "owls").symlink_to(pets.parent / "outside")
    (pets / "unlabelled").symlink_to(pets.parent / "pile")
    files = fill(pets.parent / "pile", 3, 600)
    (pets.parent / "pile" / "again").symlink_to(pets.parent / "pile")
    (pets / "dogs" / "linked.png").symlink_to(save(pets.parent / "one.png", 700))
    loaded = Loaded(pets)
    assert sorted(loaded.of("train", "owls") + loaded.of("test", "owls")) == read(outside)
    assert rows(loaded.unlabelled.inputs) == read(files)
    dogs = loaded.of("train", "dogs") + loaded.of("test", "dogs")
    assert read([pets.parent / "one.png"])[0] in dogs
    assert len(loaded.notes.texts) == 1  # nothing was found twice


def test_a_file_that_is_too_large_for_a_picture_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "vast.png").touch()
    os.truncate(tmp_path / "vast.png", 2**35)
    file = contents.File("train", 0, "vast.png", b"", False)
    said = contents.digest_of(tmp_path, file)
    assert said == "is larger than 1,073,741,824 bytes, which no picture is"


def test_a_maze_of_folders_is_walked_once(tmp_path: Path) -> None:
    root, names = tmp_path / "maze", [f"room{number:02}" for number in range(12)]
    for name in names:
        (root / name).mkdir(parents=True)
        (root / name / f"{name}.png").touch()
    for name in names:
        for other in names:
            (root / name / other).symlink_to(root / other)
    found = [entry.name for entry in pictures(root)]
    assert sorted(found) == [f"{name}.png" for name in names]


def test_folders_that_lie_deep_in_each_other_are_walked(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    try:
        for _ in range(1500):
            os.mkdir("a", dir_fd=here)
            there = os.open("a", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = there
        os.close(os.open("x.png", os.O_CREAT, dir_fd=here))
    finally:
        os.close(here)
    try:
        assert [entry.name for entry in pictures(tmp_path)] == ["x.png"]
    finally:  # Python's own way to remove folders calls itself for each
        subprocess.run(["rm", "-rf", tmp_path / "a"], check=True)


# --- what is refused ------------------------------------------------------------------------


REFUSED: list[tuple[dict[str, int], str]] = [
    ({"notes.txt": 0}, "'{root}' holds no picture that can be read (.jpg, .png, .webp, .tif, …)."
     " What is there: .txt. Put pictures there, or class folders: CLASS/picture.png."),
    ({"cats": 3}, "'{root}' has one class folder, 'cats'; a classifier needs two or more."
     " For pretraining alone, type: -d path={root}/cats"),
    ({"cats": 3, ".": 2}, "two or more, and pictures without labels belong in unlabelled/."),
    ({"cats": 3, "unlabelled": 2}, "has one class folder, 'cats'"),
    ({"cats": 3, "dogs": 0}, "Class 'dogs' is empty: '{root}/dogs' holds no picture"),
    ({"cats": 3, "dogs/x.heic": 0}, "What is there: .heic. Put pictures there, or remove the"),
    ({"cats": 3, "dogs": 1}, "Class 'dogs' has too few pictures that can be used, 1: without"
     " test/ it needs two, one to train on and one to test on. Add pictures to it."),
    ({"train": 3}, "'{root}/train' holds no class folders. Put CLASS/picture.png there; for"
     " pretraining alone, without labels, type: -d path={root}/train"),
    ({"train": 3, "test/cats": 2}, "'{root}' has test/ and no class folders in train/."),
    ({"train/cats": 3}, "'{root}/train' has one class folder, 'cats'"),
    ({"train/cats": 3, "train/dogs": 0, "test/cats": 2}, "Class 'dogs' is empty"),
    ({"train/cats": 3, "train/dogs": 3, "test/cats": 1, "test/cows": 1},
     "'{root}/test' has a class 'cows' that train/ has not. Classes of train/: cats, dogs."
     " Name both folders alike, or remove it."),
    ({"train/cats": 3, "train/dogs": 3, "test": 1}, "'{root}/test' holds no class folders. Put"
     " CLASS/picture.png there. Remove it, and a fifth of each class becomes the test split."),
    ({"train/cats": 3, "train/dogs": 3, "test/cats": 0}, "'{root}/test' holds no picture that can"
     " be read (.jpg, .png, .webp, .tif, …). Remove it, and a fifth of each class becomes the"),
]  # fmt: skip


@pytest.mark.parametrize(("tree", "message"), REFUSED, ids=[str(tree) for tree, _ in REFUSED])
def test_what_is_no_data_set(tree: dict[str, int], message: str, tmp_path: Path) -> None:
    root = tmp_path / "pets"
    for number, (name, count) in enumerate(tree.items()):
        if "." in name and name != ".":
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(b"x")
        else:
            (root / name).mkdir(parents=True, exist_ok=True)
            fill(root / name, count, 10 * number)
    assert message.format(root=root) in refused(root)


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    absent = tmp_path / "nowhere"
    assert refused(absent) == (
        f"There is no folder '{absent}'. Type the folder of your pictures: -d path=DIR"
    )
    with pytest.raises(DataError, match="There is no folder ''"):
        build(FolderConfig(path=""), tmp_path)
    file = save(tmp_path / "x.png", 0)
    assert refused(file) == (
        f"'{file}' is a file. Type the folder that holds the pictures: -d path={tmp_path}"
    )


def test_what_is_to_be_typed_can_be(tmp_path: Path) -> None:
    fill(tmp_path / "my pets" / "Ann's cats", 2)
    command = refused(tmp_path / "my pets").rpartition("type: ")[2]
    assert shlex.split(command) == ["-d", f"path={tmp_path}/my pets/Ann's cats"]


def test_class_names_that_cannot_be_written_down(tmp_path: Path) -> None:
    fill(tmp_path / "pets" / "cats", 2)
    fill(Path(os.fsdecode(os.fsencode(tmp_path) + b"/pets/caf\xe9")), 2, 10)
    assert refused(tmp_path / "pets") == (
        f"The name of the class folder '{tmp_path / 'pets'}/caf\\udce9' is no UTF-8, and cannot be"
        " written down. Rename the folder."
    )


def test_folders_that_may_not_be_read(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def forbidding(folder: Any) -> Any:
        if str(folder).endswith("secret"):
            raise PermissionError(errno.EACCES, "Permission denied", str(folder))
        return scandir(folder)

    (pets / "dogs" / "secret").mkdir()
    monkeypatch.setattr(os, "scandir", forbidding)
    folder = pets / "dogs" / "secret"
    assert refused(pets) == (
        f"The folder '{folder}' cannot be read: Permission denied. Type: ls -l {folder}"
    )


@pytest.mark.parametrize("channels", [0, 2, 4])
def test_other_numbers_of_channels(channels: int, pets: Path) -> None:
    assert refused(pets, channels=channels) == (
        f"channels={channels} is not allowed: pictures have 3 (colour) or 1 (grey)."
        " Type: -d channels=3"
    )


# --- what is left out -----------------------------------------------------------------------


def test_pictures_beside_class_folders_are_not_read(pets: Path) -> None:
    fill(pets, 5, 900)
    loaded = Loaded(pets)
    assert len(loaded.train) + len(loaded.test) == 17
    assert (
        "they lie beside the class folders: '0.png', '1.png', '2.png' and 2 more; pictures without"
        " labels belong in unlabelled/"
    ) in loaded.notes.texts[0]


def test_other_folders_beside_train_are_told(tmp_path: Path) -> None:
    for number, name in enumerate(("train/a", "train/b", "test/a", "val/a", "val/c")):
        fill(tmp_path / "pets" / name, 3, 10 * number)
    loaded = Loaded(tmp_path / "pets")
    assert (len(loaded.train), len(loaded.test)) == (6, 3)
    assert loaded.data.classes == ("a", "b")
    assert loaded.notes.about("not read").endswith("only train/, test/ and unlabelled/ are: 'val'")
    assert loaded.notes.about("to test on of the class").endswith("'b'")


def test_files_that_are_no_pictures_are_ignored(pets: Path) -> None:
    before = Loaded(pets).train.inputs
    for name in ("notes.txt", "list.TXT", "raw.heic", "film.mpg", "Thumbs.db", "cat", ".x.png"):
        (pets / "cats" / name).write_bytes(b"no picture at all")
    for name in ("__MACOSX", ".cache"):
        fill(pets / name, 2, 900)
        fill(pets / "dogs" / name, 2, 910)
    os.mkfifo(pets / "dogs" / "pipe.png")
    loaded = Loaded(pets)
    assert loaded.data.classes == ("cats", "dogs")
    assert torch.equal(loaded.train.inputs, before)
    assert loaded.notes.about("ignored").endswith(
        "ignored, for they are no pictures: .txt (2), .db, .heic, .mpg, .png, cat"
    )


def test_what_counts_as_a_picture() -> None:
    common = {".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".mpo"}
    assert common <= suffixes()
    assert not {".fits", ".iim"} & suffixes()  # may decompress without end, or hold anything
    assert not {".pdf", ".eps", ".ps", ".mpg", ".h5", ".txt", ".npy", ""} & suffixes()


def test_copies_count_once(pets: Path) -> None:
    before = Loaded(pets)
    shutil.copy(pets / "cats" / "0.png", pets / "cats" / "copy of 0.png")
    shutil.copy(pets / "cats" / "0.png", pets / "cats" / "another.png")
    loaded = Loaded(pets)
    for split in ("train", "test"):
        assert torch.equal(getattr(loaded, split).inputs, getattr(before, split).inputs)
    told = loaded.notes.about("count once")
    assert told == (
        "pets: copies in the class folders count once: 'cats/another.png', 'cats/copy of 0.png'"
    )


def test_a_picture_in_two_classes_is_in_none(pets: Path) -> None:
    shutil.copy(pets / "cats" / "3.png", pets / "dogs" / "cat.png")
    disputed = read([pets / "cats" / "3.png"])[0]
    loaded = Loaded(pets)
    assert len(loaded.train) + len(loaded.test) == 16
    assert disputed not in rows(loaded.train.inputs) + rows(loaded.test.inputs)
    assert loaded.notes.about("two classes") == (
        "pets: left out, for the same picture stands in two classes: 'cats/3.png', 'dogs/cat.png'"
    )


def test_no_picture_of_test_is_anywhere_else(tmp_path: Path) -> None:
    root = tmp_path / "pets"
    for name, first in (("cats", 0), ("dogs", 10)):
        fill(root / "train" / name, 4, first)
        fill(root / "test" / name, 2, first + 100)
    fill(root / "unlabelled", 3, 200)
    shutil.copy(root / "test" / "cats" / "0.png", root / "train" / "cats" / "leak.png")
    shutil.copy(root / "test" / "dogs" / "1.png", root / "unlabelled" / "leak.png")
    shutil.copy(root / "train" / "dogs" / "1.png", root / "unlabelled" / "known.png")
    loaded = Loaded(root)
    assert (len(loaded.train), len(loaded.test), len(loaded.unlabelled)) == (8, 4, 3)
    told = loaded.notes
    assert told.about("left out of train/").endswith("in test/ too: 'train/cats/leak.png'")
    texts = [text for text in told.texts if "left out of unlabelled/" in text]
    assert sorted(texts) == [
        "pets: left out of unlabelled/, for they are in test/ too: 'unlabelled/leak.png'",
        "pets: left out of unlabelled/, for they are in train/ too: 'unlabelled/known.png'",
    ]


def test_unlabelled_copies_of_labelled_pictures_are_left_out(pets: Path) -> None:
    """So it is where a pile is being labelled, and what is tested on is not pretrained on."""
    fill(pets / "unlabelled", 2, 700)
    for name in ("cats", "dogs"):
        for file in (pets / name).iterdir():
            shutil.copy(file, pets / "unlabelled" / f"{name} {file.name}")
    loaded = Loaded(pets)
    assert rows(loaded.unlabelled.inputs) == read(
        [pets / "unlabelled" / f"{i}.png" for i in (0, 1)]
    )
    assert loaded.notes.about("left out of unlabelled/").endswith(" and 14 more")
    for number in (0, 1):
        (pets / "unlabelled" / f"{number}.png").unlink()
    assert "No picture is left in unlabelled/" in refused(pets)


def test_pictures_that_look_the_same_in_two_splits(pets: Path) -> None:
    """Other files with the same pixels: a test picture must not train, however it was saved."""
    before = Loaded(pets)
    tested, _ = lowest(pets / "cats")
    (pets / "unlabelled").mkdir()
    with Image.open(tested[0]) as picture:
        picture.save(pets / "unlabelled" / "saved anew.bmp")
    save(pets / "unlabelled" / "other.png", 800)
    loaded = Loaded(pets)
    assert torch.equal(loaded.test.inputs, before.test.inputs)
    assert len(loaded.unlabelled) == 1
    told = (
        "pets: left out, for at 6×6 they look the same as one of the test split:"
        " 'unlabelled/saved anew.bmp'"
    )
    assert told in loaded.notes.texts
    assert told in Loaded(pets).notes.texts  # from the cache, too


def test_a_class_of_which_nothing_is_left(pets: Path) -> None:
    for seed in range(3):
        pixels = np.full((8, 8, 3), 70, np.uint8)
        (pets / "ants").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(pets / "ants" / f"{seed}.png", dpi=(seed + 1, 1))
    assert f"Class 'ants' of '{pets}' has no picture left to train on" in refused(pets)


# --- any picture ----------------------------------------------------------------------------


def flat(mode: str, value: Any, size: tuple[int, int] = (8, 8)) -> Image.Image:
    return Image.new(mode, size, value)


def palette() -> Image.Image:
    picture = flat("P", 1)
    picture.putpalette([0, 0, 0, 200, 100, 50] + [0] * 762)
    return picture


def deep() -> Image.Image:
    return Image.fromarray(np.full((8, 8), 40_000, np.uint16))


MODES = [
    ("grey.png", flat("L", 90), (90, 90, 90)),
    ("bit.png", flat("1", 1), (255, 255, 255)),
    ("colour.png", flat("RGB", (10, 20, 30)), (10, 20, 30)),
    ("palette.png", palette(), (200, 100, 50)),
    ("palette.gif", palette(), (200, 100, 50)),
    ("clear.png", flat("RGBA", (10, 20, 30, 0)), (255, 255, 255)),
    ("half.png", flat("RGBA", (0, 0, 0, 51)), (204, 204, 204)),
    ("grey-alpha.png", flat("LA", (0, 102)), (153, 153, 153)),
    ("deep.png", deep(), (156, 156, 156)),
    ("ink.tif", flat("CMYK", (0, 255, 255, 0)), (255, 0, 0)),
    ("UPPER.BMP", flat("RGB", (1, 2, 3)), (1, 2, 3)),
]


@pytest.mark.parametrize(("name", "picture", "pixel"), MODES, ids=[name for name, _, _ in MODES])
def test_any_mode(
    name: str, picture: Image.Image, pixel: tuple[int, int, int], tmp_path: Path
) -> None:
    (tmp_path / "pile").mkdir()
    picture.save(tmp_path / "pile" / name)
    inputs = Loaded(tmp_path / "pile").train.inputs
    wanted = torch.tensor(pixel, dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, SIZE, SIZE)
    assert torch.equal(inputs, wanted)
    grey = Loaded(tmp_path / "pile", channels=1).train.inputs
    luma = 0.299 * pixel[0] + 0.587 * pixel[1] + 0.114 * pixel[2]
    assert grey.shape == (1, 1, SIZE, SIZE)
    assert (grey.float() - luma).abs().max() <= 1


def test_exif_rotation(tmp_path: Path) -> None:
    pixels = np.zeros((8, 8), np.uint8)
    pixels[:, :4] = 255  # white on the left, shown on top when turned clockwise
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "pile").mkdir()
    Image.fromarray(pixels).save(tmp_path / "pile" / "turned.png", exif=exif)
    (seen,) = Loaded(tmp_path / "pile", size=8).train.inputs.float().mean(1)
    assert seen[:3].min() > 250
    assert seen[5:].max() < 5


def test_names_with_spaces_and_of_any_script(tmp_path: Path) -> None:
    root = tmp_path / "мои снимки 写真"
    names = {'a cat\'s "nap"', "кошки", "猫 と 犬", "ñandú", "🐈", "-d", "%s {x}"}
    seeds = iter(range(0, 1000, 10))
    for name in names:
        fill(root / name, 2, next(seeds))
        save(root / name / f"снимок {name} 1.JPG", next(seeds))
    save(root / "кошки" / "two\nlines.png", next(seeds))
    save(Path(os.fsdecode(os.fsencode(root / "кошки") + b"/no utf-8 \xe9.png")), next(seeds))
    broken = Path(os.fsdecode(os.fsencode(root / "кошки") + b"/\xff\n.png"))
    broken.write_bytes(b"no picture")
    loaded = Loaded(root)
    assert set(loaded.data.classes) == {unicodedata.normalize("NFC", name) for name in names}
    assert list(loaded.data.classes) == sorted(loaded.data.classes)
    assert len(loaded.train) + len(loaded.test) == 3 * len(names) + 2
    told = loaded.notes.about("unreadable")
    assert told.encode().decode() == told
    assert "  'кошки/\\udcff\\n.png' is no readable picture" in told.splitlines()[1]


def test_one_name_in_two_spellings_is_one_class(tmp_path: Path) -> None:
    """Macs write é as e and an accent (NFD), others as one letter (NFC)."""
    composed, apart = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    assert composed != apart
    root = tmp_path / "places"
    fill(root / "train" / composed, 2)
    fill(root / "train" / apart, 3, 10)
    fill(root / "train" / "bar", 2, 20)
    fill(root / "test" / apart, 2, 30)
    loaded = Loaded(root)
    assert loaded.data.classes == ("bar", composed)
    assert torch.bincount(loaded.train.labels).tolist() == [2, 5]
    assert torch.bincount(loaded.test.labels).tolist() == [0, 2]


# --- unreadable pictures --------------------------------------------------------------------


@pytest.fixture
def damaged(pets: Path) -> Path:
    """Pets with four pictures that nobody can read, one of them cut off."""
    (pets / "cats" / "no picture.jpg").write_bytes(b"this is text")
    (pets / "cats" / "empty.png").touch()
    (pets / "dogs" / "gone.png").symlink_to(pets / "nowhere.png")
    whole = save(pets / "dogs" / "cut.png", 999).read_bytes()
    (pets / "dogs" / "cut.png").write_bytes(whole[: len(whole) // 2])
    return pets


def test_unreadable_pictures_are_listed_by_name_and_skipped(
    damaged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = Loaded(damaged)
    assert len(loaded.train) + len(loaded.test) == 17
    told = loaded.notes.about("unreadable").splitlines()
    assert told[0] == "pets: skipped: 4 unreadable:"
    assert told[1] == f"  'cats/empty.png' is no readable picture: {NO_FORMAT}"
    assert told[2] == f"  'cats/no picture.jpg' is no readable picture: {NO_FORMAT}"
    assert told[3].startswith("  'dogs/cut.png' is no readable picture: ")
    assert told[4] == "  'dogs/gone.png' cannot be read: No such file or directory"

    monkeypatch.setattr(decode, "read_picture", lambda *args: pytest.fail("decoded again"))
    again = Loaded(damaged)
    assert again.notes.texts == loaded.notes.texts
    assert torch.equal(again.train.inputs, loaded.train.inputs)


def test_strict_refuses_unreadable_pictures(damaged: Path) -> None:
    message = refused(damaged, strict=True)
    assert message.startswith("4 unreadable:\n  'cats/empty.png' is no readable picture")
    assert message.endswith("\nRepair or remove them, or skip them: -d strict=false")
    for name in ("cats/no picture.jpg", "cats/empty.png", "dogs/gone.png", "dogs/cut.png"):
        assert f"  '{name}' " in message
        (damaged / name).unlink()
    assert len(Loaded(damaged, strict=True).train) == 14


def test_of_many_unreadable_pictures_the_first_are_told(pets: Path) -> None:
    for number in range(30):
        (pets / "cats" / f"bad{number:02}.png").write_bytes(bytes([number]))
    told = Loaded(pets).notes.about("unreadable").splitlines()
    assert told[0] == "pets: skipped: 30 unreadable:"
    assert told[-1] == "  … and 10 more"
    assert len(told) == 22


def test_the_next_picture_is_tested_on_where_one_cannot_be_read(tmp_path: Path) -> None:
    for name, first in (("cats", 0), ("dogs", 100)):
        fill(tmp_path / "pets" / name, 9, first)
    (tested,), _ = lowest(tmp_path / "pets" / "cats", 9)
    number = 0  # damaged in such a way that it is the lowest still
    while (
        hashlib.sha256(b"bad %d" % number).digest() > hashlib.sha256(tested.read_bytes()).digest()
    ):
        number += 1
    (tmp_path / "pets" / "cats" / "bad.png").write_bytes(b"bad %d" % number)
    loaded = Loaded(tmp_path / "pets")
    assert len(loaded.of("test", "cats")) == 2
    assert read([tested])[0] in loaded.of("test", "cats")
    assert len(loaded.of("train", "cats")) == 7


def test_a_picture_of_another_colour_space_is_read_in_grey_too(pets: Path) -> None:
    """Lab, as Photoshop saves it, stopped a whole folder: Pillow converts it to RGB alone."""
    Image.new("LAB", (9, 9), (140, 200, 90)).save(pets / "cats" / "lab.tif")
    loaded = Loaded(pets, channels=1)
    assert len(loaded.train) + len(loaded.test) == 18
    assert loaded.notes.texts == Loaded(pets, channels=3).notes.texts


def test_what_a_conversion_raises_is_told_of_its_picture_alone(
    pets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Image.Image.convert

    def failing(picture: Any, mode: str) -> Any:
        if picture.size == (5, 5):
            raise ValueError("conversion from A to B not supported")
        return whole(picture, mode)

    monkeypatch.setattr(Image.Image, "convert", failing)
    Image.new("L", (5, 5)).save(pets / "cats" / "odd.png")
    loaded = Loaded(pets)
    assert len(loaded.train) + len(loaded.test) == 17
    said = "'cats/odd.png' is no readable picture: conversion from A to B not supported"
    assert loaded.notes.about("unreadable").endswith(said)


def test_a_picture_too_large_is_read_with_another_limit(
    pets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("L", (20, 20)).save(pets / "cats" / "large.png")
    monkeypatch.setenv("ZOO_MAX_PIXELS", "399")
    first = Loaded(pets)
    assert "it has 400 pixels, and 399 are read at most" in first.notes.about("unreadable")
    monkeypatch.setenv("ZOO_MAX_PIXELS", "400")
    again = Loaded(pets)
    assert len(again.train) + len(again.test) == 1 + len(first.train) + len(first.test)
    monkeypatch.setenv("ZOO_MAX_PIXELS", "much")
    with pytest.raises(ZooError, match="ZOO_MAX_PIXELS is 'much'; it takes a whole number from 1"):
        Loaded(pets)


def test_a_file_too_large_is_listed_and_skipped(pets: Path) -> None:
    path = save(pets / "cats" / "huge.png", 55)
    os.truncate(path, 2**30 + 1)  # takes no room: it has a hole
    loaded = Loaded(pets)
    assert len(loaded.train) + len(loaded.test) == 17
    told = loaded.notes.about("unreadable")
    assert "'cats/huge.png' is larger than 1,073,741,824 bytes, which no picture is" in told


def test_a_disk_that_fails_is_not_taken_for_a_damaged_picture(
    pets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = reading.read_file

    def failing(path: Path, *args: Any) -> bytes:
        if path.name == "3.png":
            raise OSError(errno.EIO, "Input/output error")
        return whole(path, *args)

    monkeypatch.setattr(reading, "read_file", failing)
    assert "/3.png' cannot be read: Input/output error. Type the same command again" in refused(
        pets
    )
    monkeypatch.undo()
    assert len(Loaded(pets).train) == 14


def test_a_folder_without_a_readable_picture(tmp_path: Path) -> None:
    (tmp_path / "pile").mkdir()
    (tmp_path / "pile" / "x.png").write_bytes(b"x")
    assert refused(tmp_path / "pile") == (
        f"No picture in '{tmp_path / 'pile'}' can be used. Put others there."
    )


# --- the cache ------------------------------------------------------------------------------


def slot(root: Path) -> Path:
    (found,) = (root.parent / "data" / "folder").iterdir()
    return found


def caches(root: Path) -> list[Path]:
    return [path for path in slot(root).iterdir() if path.is_dir()]


def nothing_half_made(root: Path) -> None:
    """Assert that whatever bears a final name is whole, and that no temporary one is left."""
    left = (
        {path.name for path in slot(root).iterdir()} if (root.parent / "data").exists() else set()
    )
    assert left <= {".lock", "seen.sha256"}, left


@pytest.fixture
def decodings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the pictures that are decoded, in any order."""
    names: list[str] = []

    def watched(path: Path, input: ImageInput) -> Any:
        names.append(path.name)
        return read_picture(path, input)

    monkeypatch.setattr(decode, "read_picture", watched)
    return names


@pytest.fixture
def digestings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files whose content is looked at."""
    names: list[str] = []
    whole = contents.digest_of

    def watched(root: Path, file: contents.File) -> bytes | str:
        names.append(Path(file.name).name)
        return whole(root, file)

    monkeypatch.setattr(contents, "digest_of", watched)
    return names


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take every file for one that has stood still for long."""
    monkeypatch.setattr(contents, "SLACK", -(10**18))


def test_pictures_are_decoded_once(pets: Path, decodings: list[str]) -> None:
    first = Loaded(pets)
    assert sorted(decodings) == sorted(path.name for path in pets.rglob("*.png"))
    decodings.clear()
    second = Loaded(pets)
    assert decodings == []
    assert torch.equal(first.train.inputs, second.train.inputs)
    assert torch.equal(first.train.labels, second.train.labels)
    assert first.train.labels.dtype == torch.int64


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/maps")
def test_examples_are_the_mapped_file_itself(pets: Path) -> None:
    fill(pets / "unlabelled", 4, 700)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = Loaded(pets)
    lines = Path("/proc/self/maps").read_text().splitlines()
    for split, order in (("test", 0), ("train", 3), ("unlabelled", 17)):
        inputs = getattr(loaded, split).inputs
        address = inputs.data_ptr()
        ranges = [(line, [int(x, 16) for x in line.split()[0].split("-")]) for line in lines]
        (line,) = [line for line, (start, stop) in ranges if start <= address < stop]
        assert line.endswith(f"/{caches(pets)[0].name}/pixels.u8")
        assert inputs.is_contiguous()
        assert inputs.storage_offset() == order * 3 * SIZE * SIZE
    size = (caches(pets)[0] / "pixels.u8").stat().st_size
    assert size == 21 * 3 * SIZE * SIZE == loaded.train.inputs.untyped_storage().nbytes()


def test_what_is_written_to_examples_does_not_reach_the_cache(pets: Path) -> None:
    Loaded(pets).train.inputs.zero_()
    assert int(Loaded(pets).train.inputs.max()) > 100


def test_a_map_may_be_larger_than_memory(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(2**42)
    mapped = cache.mapped(path)
    assert len(mapped) == 2**42
    assert int(mapped[2**41]) == 0


def test_what_lies_in_the_cache_follows_from_the_pictures(pets: Path) -> None:
    save(pets / "cats" / "bad.png", 0).write_bytes(b"x")
    Loaded(pets)
    (folder,) = caches(pets)
    assert {path.name for path in folder.iterdir()} == {
        "pixels.u8", "digests.sha256", "index.json"
    }  # fmt: skip
    index = json.loads((folder / "index.json").read_text())
    assert index["path"] == str(pets)
    assert index["rows"] == {"test": [[0, 2], [1, 1]], "train": [[0, 8], [1, 6]], "unlabelled": []}
    assert list(index["unread"]) == [hashlib.sha256(b"x").hexdigest()]
    assert slot(pets).name.startswith("pets-6x6x3-")


def overwrite_unseen(file: Path, data: bytes) -> None:
    """Change a file within its size, and set its time back: only the system knows."""
    before = file.stat()
    assert len(data) == before.st_size
    time.sleep(0.02)  # clocks of file systems tick
    with file.open("r+b") as opened:
        opened.write(data)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.parametrize("known", [True, False], ids=["digests known", "just written"])
def test_a_changed_file_is_seen_though_size_and_time_are_the_same(
    known: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    if known:
        request.getfixturevalue("settled")
    root = tmp_path / "pile"
    root.mkdir()
    for value in (10, 20):
        flat("L", value).save(root / f"{value}.bmp")
    assert Loaded(root).train.inputs.unique().tolist() == [10, 20]
    changed = (root / "20.bmp").read_bytes()
    overwrite_unseen(root / "20.bmp", changed[:-64] + bytes([30]) * 64)
    assert Loaded(root).train.inputs.unique().tolist() == [10, 30]


def test_digests_are_known_again_where_nothing_changed(
    pets: Path, settled: None, digestings: list[str]
) -> None:
    Loaded(pets)
    assert len(digestings) == 17
    digestings.clear()
    Loaded(pets)
    assert digestings == []
    (pets / "dogs" / "3.png").touch()
    (pets / "dogs" / "4.png").rename(pets / "dogs" / "four.png")
    Loaded(pets)
    assert sorted(digestings) == ["3.png", "four.png"]


@pytest.mark.parametrize("case", ["now", "in an hour"])
def test_a_file_that_was_just_written_is_looked_at_again(
    case: str, pets: Path, digestings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have changed within the tick of the clock in which its digest was made."""
    if case == "in an hour":
        monkeypatch.setattr(contents, "SLACK", -600 * 10**9)  # it is the future alone that counts
        for file in pets.rglob("*.png"):
            os.utime(file, (time.time() + 3600, time.time() + 3600))
    Loaded(pets)
    digestings.clear()
    build(FolderConfig(path=str(pets), size=SIZE), pets.parent / "data").train()
    assert len(digestings) == 17


def test_a_damaged_memory_of_digests_is_harmless(pets: Path, settled: None) -> None:
    before = Loaded(pets).train.inputs
    memory = slot(pets) / "seen.sha256"
    for data in (memory.read_bytes()[:-7], b"", b"x" * 100):
        memory.write_bytes(data)
        assert torch.equal(Loaded(pets).train.inputs, before)
    memory.unlink()
    memory.mkdir()
    assert torch.equal(Loaded(pets).train.inputs, before)


def test_only_new_pictures_are_decoded_and_the_old_cache_goes(
    pets: Path, decodings: list[str]
) -> None:
    fill(pets / "unlabelled", 6, 700)
    first = Loaded(pets)
    kept = first.train.inputs.clone()
    (old,) = caches(pets)
    decodings.clear()
    # A person labels three of them, throws one away and takes two new ones.
    for number in range(3):
        target = pets / ("cats" if number else "dogs") / f"labelled {number}.png"
        (pets / "unlabelled" / f"{number}.png").rename(target)
    (pets / "cats" / "0.png").unlink()
    new = fill(pets / "unlabelled" / "new", 2, 800)
    second = Loaded(pets)
    assert sorted(decodings) == sorted(path.name for path in new)
    labelled = [*(pets / "cats").iterdir(), *(pets / "dogs").iterdir()]
    assert rows(torch.cat([second.train.inputs, second.test.inputs])) == read(labelled)
    assert rows(second.unlabelled.inputs) == read([*(pets / "unlabelled").rglob("*.png")])
    (current,) = caches(pets)
    assert current != old
    assert torch.equal(first.train.inputs, kept)  # whoever has the old one keeps it


def test_what_cannot_be_read_is_not_tried_again_when_others_come(
    damaged: Path, decodings: list[str]
) -> None:
    Loaded(damaged)
    decodings.clear()
    save(damaged / "cats" / "new.png", 777)
    assert "4 unreadable" in "".join(Loaded(damaged).notes.texts)
    assert decodings == ["new.png"]


def test_other_sizes_and_channels_are_other_caches(pets: Path, decodings: list[str]) -> None:
    Loaded(pets)
    Loaded(pets, size=5)
    Loaded(pets, channels=1)
    assert len(decodings) == 51
    decodings.clear()
    assert Loaded(pets).train.inputs.shape[1:] == (3, 6, 6)
    assert Loaded(pets, size=5).train.inputs.shape[1:] == (3, 5, 5)
    assert Loaded(pets, channels=1).train.inputs.shape[1:] == (1, 6, 6)
    assert decodings == []


@pytest.mark.parametrize("changed", ["pillow", "format"])
def test_another_way_of_decoding_is_another_cache(
    changed: str, pets: Path, decodings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Loaded(pets)
    decodings.clear()
    if changed == "format":
        monkeypatch.setattr(cache, "FORMAT", -1)
    else:
        monkeypatch.setattr(cache.metadata, "version", lambda name: "99.0")
    Loaded(pets)
    assert len(decodings) == 17
    assert len(caches(pets)) == 1


def test_the_rule_of_reading_a_picture_is_the_one_that_caches_were_made_by() -> None:
    """Where this fails, the rule has changed: raise `FORMAT`, and write both down here."""
    known = hashlib.sha256(RULE.encode()).hexdigest()[:12]
    assert (cache.FORMAT, known) == (3, "ff0d401f9ca6")


@pytest.mark.parametrize("damage", ["cut", "longer", "no index", "no pixels", "index", "fields"])
def test_a_damaged_cache_is_made_anew(damage: str, pets: Path, decodings: list[str]) -> None:
    before = Loaded(pets).train.inputs.clone()
    (folder,) = caches(pets)
    pixels, index = folder / "pixels.u8", folder / "index.json"
    if damage in ("cut", "longer"):
        data = pixels.read_bytes()
        pixels.write_bytes(data[:-1] if damage == "cut" else data + b"x")
    elif damage in ("no index", "no pixels"):
        (index if damage == "no index" else pixels).unlink()
    else:
        index.write_text("{" if damage == "index" else '{"path": ""}')
    decodings.clear()
    assert torch.equal(Loaded(pets).train.inputs, before)
    assert len(decodings) == 17
    assert caches(pets) == [folder]


@pytest.mark.parametrize("trace", [True, False], ids=["seen by its times", "without a trace"])
def test_a_file_that_changes_while_it_is_read(
    trace: bool, pets: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    def changing(path: Path, input: ImageInput) -> Any:
        row = read_picture(path, input)
        if path.name == "4.png":
            overwrite_unseen(path, path.read_bytes()[:-1] + b"x")
        return row

    monkeypatch.setattr(decode, "read_picture", changing)
    if trace:
        request.getfixturevalue("settled")
    else:  # as where it changes twice within a tick of the clock
        monkeypatch.setattr(contents, "mark_of", lambda name, status: name.encode())
        monkeypatch.setattr(decode, "mark_of", lambda name, status: name.encode())
    assert "/4.png' changed while it was read. Type the same command again." in refused(pets)
    nothing_half_made(pets)


@pytest.mark.parametrize("threads", [1, 4])
def test_ctrl_c_leaves_no_half_cache(
    threads: int, pets: Path, decodings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(pets / "unlabelled", 60, 700)
    watched = decode.read_picture

    def interrupted(path: Path, input: ImageInput) -> Any:
        if threads > 1:
            time.sleep(0.002)  # long enough for several threads to be worth it
        if len(decodings) == 40:
            signal.raise_signal(signal.SIGINT)
        return watched(path, input)

    monkeypatch.setattr(parallel, "_cores", lambda: threads)
    monkeypatch.setattr(decode, "read_picture", interrupted)
    filters = list(warnings.filters)
    with pytest.raises(KeyboardInterrupt):
        Loaded(pets)
    assert len(decodings) < 77
    done = len(decodings)
    nothing_half_made(pets)
    assert list(warnings.filters) == filters
    time.sleep(0.05)
    assert len(decodings) == done  # no thread goes on
    monkeypatch.setattr(decode, "read_picture", watched)
    assert len(Loaded(pets).train) == 14


def test_a_full_disk(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of another kind than one that is told before: somebody else fills it meanwhile."""
    whole = Path.open

    class Full(io.BufferedWriter):
        def write(self, data: Any) -> int:
            if self.tell() > 500:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(data)

    def opening(path: Path, mode: str = "r", *args: Any, **keywords: Any) -> Any:
        if path.name == "pixels.u8" and mode == "wb":
            return Full(io.FileIO(path, "wb"))
        return whole(path, mode, *args, **keywords)

    monkeypatch.setattr(Path, "open", opening)
    message = refused(pets)
    assert message == (
        f"The decoded pictures of '{pets}' cannot be kept in '{slot(pets)}': No space left on"
        " device. They take 0.0 MB. Make room there, name another folder with --data-root or"
        " ZOO_DATA, or choose a smaller -d size=N."
    )
    nothing_half_made(pets)
    monkeypatch.undo()
    assert len(Loaded(pets).train) == 14


def test_a_disk_that_is_too_small_is_told_before_decoding(
    pets: Path, decodings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(pets)._replace(free=1000)
    monkeypatch.setattr(making.shutil, "disk_usage", lambda path: usage)
    assert "No space left on device. They take 0.0 MB." in refused(pets)
    assert decodings == []
    nothing_half_made(pets)


def test_a_data_folder_that_is_a_file(pets: Path) -> None:
    (pets.parent / "data").write_text("no folder")
    assert "cannot be kept in" in refused(pets)
    assert (pets.parent / "data").read_text() == "no folder"


def test_what_a_killed_process_left_makes_room_first(
    pets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Loaded(pets)
    remains = slot(pets) / ".partial-abc" / "x"
    remains.mkdir(parents=True)
    (remains / "pixels.u8").write_bytes(b"half")
    usage = shutil.disk_usage(pets)
    monkeypatch.setattr(
        making.shutil,
        "disk_usage",
        lambda path: usage._replace(free=0 if remains.exists() else usage.free),
    )
    save(pets / "cats" / "new.png", 777)
    Loaded(pets)
    assert not remains.exists()
    assert len(caches(pets)) == 1


def test_what_was_left_by_a_process_killed_once_the_cache_was_there(pets: Path) -> None:
    kept = Loaded(pets).train.inputs
    (current,) = caches(pets)
    place = slot(pets)
    (place / ".partial-abc").mkdir()
    shutil.copytree(current, place / ("0" * 32))
    dead = subprocess.Popen(["true"])
    dead.wait()
    half = [place / f".seen.sha256.{pid}.1" for pid in (dead.pid, os.getppid())]
    for each in half:
        each.write_bytes(b"half")
    assert torch.equal(Loaded(pets).train.inputs, kept)
    assert [path for path in place.iterdir() if path.is_dir()] == [current]
    assert not half[0].exists()
    assert half[1].exists()


def test_memory_does_not_grow_with_the_pictures(tmp_path: Path) -> None:
    """Rows go to the file as they come; nothing holds all of them."""
    (tmp_path / "pile").mkdir()
    for number in range(300):
        flat("RGB", (number % 256, number // 256, 7), (4, 4)).save(tmp_path / f"pile/{number}.bmp")
    Loaded(tmp_path / "pile", size=1)  # what Pillow sets up once
    tracemalloc.start()
    try:
        loaded = Loaded(tmp_path / "pile", size=96)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert loaded.train.inputs.numel() == 300 * 3 * 96 * 96  # 8.3 MB
    assert peak < 3_000_000


WORKER = """
    import sys, time
    from pathlib import Path
    from zoo_folder import FolderConfig, decode
    from zoo_folder.dataset import build

    path, log, ready, go = map(Path, sys.argv[1:5])
    read = decode.read_picture

    def watched(picture, input):
        with log.open("a") as file:
            file.write(picture.name + "\\n")
        time.sleep(0.01)
        return read(picture, input)

    decode.read_picture = watched
    data = build(FolderConfig(path=str(path), size=6), path.parent / "data")
    ready.touch()
    while not go.exists():
        time.sleep(0.001)
    train = data.train()
    print(len(train), int(train.inputs.sum()), len(data.test()))
"""


def test_two_processes_at_once_decode_each_picture_once(pets: Path, decodings: list[str]) -> None:
    log, ready, go = (pets.parent / name for name in ("log", "ready", "go"))
    log.touch()
    command = [sys.executable, "-c", textwrap.dedent(WORKER), pets, log, ready, go]
    worker = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    while not ready.exists():
        assert worker.poll() is None
        time.sleep(0.005)
    go.touch()
    loaded = Loaded(pets)
    output, _ = worker.communicate(timeout=60)
    assert output == f"{len(loaded.train)} {int(loaded.train.inputs.sum())} {len(loaded.test)}\n"
    assert len(log.read_text().splitlines()) + len(decodings) == 17
    assert len(caches(pets)) == 1


def test_who_waits_for_another_process_is_told(pets: Path) -> None:
    Loaded(pets)
    save(pets / "cats" / "new.png", 777)
    held = threading.Event()

    def hold() -> None:
        with making.FileLock(slot(pets) / ".lock"):
            held.set()
            time.sleep(0.3)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    assert "another process is decoding" in "".join(Loaded(pets).notes.texts)
    thread.join()


# --- in parallel ----------------------------------------------------------------------------


def test_results_come_in_order_from_several_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "_cores", lambda: 4)
    threads = set()

    def work(number: int) -> int:
        threads.add(threading.get_ident())
        time.sleep(0.002 if number % 3 else 0.004)
        return number * number

    assert list(parallel.in_order(work, range(200))) == [n * n for n in range(200)]
    assert len(threads) > 2


def test_quick_work_stays_on_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "_cores", lambda: 16)
    threads = set()

    def work(number: int) -> int:
        threads.add(threading.get_ident())
        return -number

    assert list(parallel.in_order(work, range(1000))) == [-n for n in range(1000)]
    assert threads == {threading.get_ident()}
    assert list(parallel.in_order(work, [])) == []
    assert list(parallel.in_order(work, [7])) == [-7]


def test_what_a_thread_raises_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "_cores", lambda: 4)
    begun = []

    def work(number: int) -> int:
        begun.append(number)
        time.sleep(0.002)
        if number == 53:
            raise DataError("this one")
        return number

    with pytest.raises(DataError, match="this one"):
        list(parallel.in_order(work, range(1000)))
    assert len(begun) < 300  # what had not begun was dropped


def test_a_picture_too_large_to_be_one_is_refused_on_every_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Warnings' filters are the process's; threads that set them must not undo each other's."""
    monkeypatch.setattr(parallel, "_cores", lambda: 4)
    monkeypatch.setattr(parallel, "HELD", 1e-9)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    (tmp_path / "pile").mkdir()
    for number in range(120):
        side = 12 if number % 2 else 8  # 144 pixels: a warning, no error of Pillow's own
        flat("L", number, (side, side)).save(tmp_path / f"pile/{number}.png")
    whole = reading.read_file

    def slowly(path: Path, *args: Any) -> bytes:
        time.sleep(0.001 * (1 + int(path.stem) % 3))
        return whole(path, *args)

    monkeypatch.setattr(reading, "read_file", slowly)
    filters = list(warnings.filters)
    assert len(Loaded(tmp_path / "pile").train) == 60
    assert list(warnings.filters) == filters


# --- in every verb --------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["class folders", "train and test", "pile"])
def test_it_conforms(layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_DATA", str(tmp_path / "data"))
    root = tmp_path / "pets"
    if layout == "pile":
        fill(root, 5)
    elif layout == "train and test":
        for number, name in enumerate(("train/a", "train/b", "test/a", "test/b", "unlabelled")):
            fill(root / name, 4, 10 * number)
    else:
        for number, name in enumerate(("a", "b", "unlabelled")):
            fill(root / name, 7, 10 * number)
    assert_conforms("dataset", "folder", path=str(root), size=8)


def test_the_path_is_the_same_from_anywhere(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(pets.parent)
    monkeypatch.setenv("HOME", str(pets.parent))
    for path in ("pets", "./cats/../pets", "~/pets", str(pets), f"{pets}/"):
        assert FolderConfig(path=path).path == str(pets)
    assert FolderConfig(path="~nobody-of-that-name/x").path.endswith("~nobody-of-that-name/x")


def test_the_entry_module_is_light() -> None:
    code = "import zoo_folder, sys; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "PIL", "filelock", "hashlib"} & set(found.stdout.split())


def test_progress_is_shown(pets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = build(FolderConfig(path=str(pets), size=SIZE), pets.parent / "data")
    with reporting(Plain()):
        data.train()
    told = capsys.readouterr()
    assert told.out == ""
    assert "looking at pictures 100%" in told.err
    assert "decoding pictures 100%" in told.err
    with reporting(Plain()):
        data.train()
    assert "decoding" not in capsys.readouterr().err


def typed(page: str) -> list[list[str]]:
    """The `zoo` commands of a page's shell blocks, comments cut off."""
    blocks = re.findall(r"```sh\n(.*?)```", page, flags=re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("zoo ")]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (b"a cat's", "a cat's"),
        (b"caf\xe9 \\ it's", "caf\\udce9 \\ it's"),
        (b"two\nlines\t\x1b[2J", "two\\nlines\\t\\x1b[2J"),
        ("turned \u202e round\n".encode(), "turned \\u202e round\\n"),
    ],
)
def test_a_name_is_told_on_one_line_and_typed_as_it_is(name: bytes, told: str) -> None:
    text = os.fsdecode(name)
    assert shown(text) == told
    done = subprocess.run(["bash", "-c", f"printf %s {typed_path(text)}"], capture_output=True)
    assert done.stdout == name
    assert typed_path(text).isprintable()


def test_the_commands_of_the_page(
    pets: Path, cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a pile and a few labels to a proved file and a prediction, as written."""
    monkeypatch.setenv("ZOO_DATA", str(pets.parent / "data"))
    fill(pets / "unlabelled", 20, 500)
    fill(pets.parent / "pile", 12, 600)
    save(pets.parent / "new.jpg", 1000)
    commands = typed((ROOT / "docs" / "folder.md").read_text())
    verbs = [command[0] for command in commands]
    assert verbs == [
        "pretrain", "finetune", "evaluate", "export", "predict", "finetune", "pretrain", "finetune"
    ]  # fmt: skip
    for command in commands:
        training = {"pretrain", "finetune"} & set(command)
        result = cli(*command, *(["--epochs", "1", "--quiet"] if training else []))
        assert result.exit_code == 0, result.stderr
    records = [json.loads(p.read_text()) for p in sorted(pets.parent.glob("runs/*/run.json"))]
    kinds = [(r["kind"], r["dataset"]["options"]["path"], bool(r["parent"])) for r in records]
    assert sorted(kinds) == sorted(
        [
            ("pretrain", str(pets), False),
            ("finetune", str(pets), True),
            ("finetune", str(pets), False),
            ("pretrain", str(pets.parent / "pile"), False),
            ("finetune", str(pets), True),
        ]
    )
    examples = {r["metrics"]["train_examples"] for r in records if r["kind"] == "pretrain"}
    assert examples == {33, 11}  # 20 without labels and 13 of 14, a tenth being held out
    predicted = cli("predict", "pets.onnx", "new.jpg", "--json")
    (prediction,) = json.loads(predicted.stdout)["predictions"]
    assert set(prediction["classes"]) == {"cats", "dogs"}


def test_what_is_typed_wrong_is_told(pets: Path, cli: Callable[..., Any]) -> None:
    missing = cli("pretrain", "mlp", "--dataset", "folder")
    assert "dataset 'folder': option 'path' is required" in missing.stderr
    for options, told in (
        (("-d", "path=nowhere"), "There is no folder"),
        (("-d", "path=pets", "-d", "channels=2"), "dataset 'folder': channels=2 is not allowed"),
        (("-d", "path=pets", "-d", "size=0"), "size: '0' is not allowed"),
    ):
        result = cli("pretrain", "mlp", "--dataset", "folder", *options)
        assert result.exit_code in (1, 2)
        assert told in result.stderr
    assert not (pets.parent / "runs").exists()
