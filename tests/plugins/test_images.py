"""Image data sets: what is read, what is refused, and how a set is fetched."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import hashlib
import os
import pickle
import socket
import struct
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision.datasets
from torch import Tensor

import zoo_images.published as published_module
from zoo.api import DataError, Dataset, DataUnavailable, Examples, ImageInput, NoConfig
from zoo.data import checked
from zoo.progress import Plain, reporting
from zoo.registry import Registry
from zoo_images.catalogue import (
    CIFAR10,
    EMNIST_LETTERS,
    FASHION_MNIST,
    KMNIST,
    MNIST,
    PUBLISHED,
    Published,
)
from zoo_images.fetch import fetch
from zoo_images.integrity import missing
from zoo_images.published import build, to_examples

REGISTRY = Registry.installed()
Array = np.ndarray[Any, Any]
Download = Callable[..., None]


def described(name: str, root: Path) -> Dataset:
    found: Dataset = REGISTRY.lookup("dataset", name).spec.build(NoConfig(), root)
    return found


# --- digits ---------------------------------------------------------------------------------


def test_digits_are_scikit_learns_to_the_full_scale(tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    theirs = load_digits()
    data = described("digits", tmp_path)
    assert data.test is not None
    train, test = data.train(), data.test()
    assert (len(train), len(test)) == (1437, 360)
    assert data.input == ImageInput(channels=1, height=8, width=8)
    assert data.classes == tuple("0123456789")
    assert train.labels is not None
    assert test.labels is not None
    for examples in (train, test):
        checked(examples, (1, 8, 8), 10, "digits")
        assert examples.inputs.is_contiguous()

    # 0..16 of ink; 16 becomes 255, and what lies between is rounded half up or to even alike,
    # since no value lands on a half.
    table = [int(np.floor(ink * 255 / 16 + 0.5)) for ink in range(17)]
    assert (table[0], table[16]) == (0, 255)
    expected = np.array(table, dtype=np.uint8)[theirs.images.astype(int)]
    found = torch.cat([train.inputs, test.inputs])[:, 0].numpy()
    # Each image once, in order: the splits share none, and nothing is transposed.
    assert np.array_equal(found, expected)
    assert np.array_equal(torch.cat([train.labels, test.labels]).numpy(), theirs.target)
    assert set(test.labels.tolist()) == set(range(10))


def test_digits_are_upright(tmp_path: Path) -> None:
    """A one is taller than wide, and a zero is hollow in the middle."""
    train = described("digits", tmp_path).train()
    assert train.labels is not None
    one = train.inputs[train.labels == 1][:, 0].double().mean(0)
    ink = one / one.sum()
    at = torch.arange(8.0, dtype=torch.float64)
    spread = [
        ((at - (at * side).sum()) ** 2 * side).sum().item() for side in (ink.sum(1), ink.sum(0))
    ]
    assert spread[0] > 2 * spread[1]
    # A seven has its bar at the top: turned over or on its side it would not.
    seven = train.inputs[train.labels == 7][:, 0].double().mean(0)
    assert seven[:3].sum() > seven[5:].sum()


def test_digits_need_no_folder_and_are_read_anew_each_time(tmp_path: Path) -> None:
    data = described("digits", tmp_path / "nowhere")
    first = data.train()
    first.inputs.zero_()
    assert int(data.train().inputs.max()) == 255
    assert not (tmp_path / "nowhere").exists()


# --- stand-in files -------------------------------------------------------------------------


def idx(values: Array, kind: int = 8) -> bytes:
    """The IDX format: two zero bytes, a type, the number of sizes, the sizes, the values."""
    head = struct.pack(f">HBB{values.ndim}I", 0, kind, values.ndim, *values.shape)
    return head + values.tobytes()


def sha256(contents: bytes) -> str:
    return hashlib.sha256(contents).hexdigest()


def pictures(count: int, seed: int) -> Array:
    return np.random.default_rng(seed).integers(0, 256, (count, 28, 28), dtype=np.uint8)


def labels_of(count: int, classes: int, first: int = 0) -> Array:
    return (np.arange(count) % classes + first).astype(np.uint8)


@dataclasses.dataclass
class StandIn:
    """A published set shrunk to a few images, and the contents of its files."""

    published: Published
    contents: dict[str, bytes]

    def write(self, root: Path, *, without: str = "") -> Path:
        for name, data in self.contents.items():
            if not without or without not in name:
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).write_bytes(data)
        return root


def shrink(published: Published, counts: tuple[int, int] = (23, 9), **how: Any) -> StandIn:
    """Make an IDX set of so many images for training and for testing."""
    first, sums = how.get("first", 0), how.get("sums", True)
    contents: dict[str, bytes] = {}
    splits: list[dict[str, tuple[int, str]]] = []
    for seed, (files, count) in enumerate(
        zip((published.train, published.test), counts, strict=True)
    ):
        images, labels = files
        contents[images] = idx(pictures(count, seed))
        contents[labels] = idx(labels_of(count, len(published.classes), first))
        splits.append(
            {name: (len(contents[name]), sha256(contents[name]) if sums else "") for name in files}
        )
    return StandIn(dataclasses.replace(published, train=splits[0], test=splits[1]), contents)


GREY = [
    pytest.param(shrink(published), id=published.name)
    for published in (MNIST, FASHION_MNIST, KMNIST)
]


@pytest.mark.parametrize("small", GREY)
def test_idx_sets_are_read_whole(
    small: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def one_by_one(*args: object) -> None:
        raise AssertionError("the images were asked for one by one")

    monkeypatch.setattr(torchvision.datasets.MNIST, "__getitem__", one_by_one)
    data = build(small.published, small.write(tmp_path))
    assert data.test is not None
    for seed, (split, count) in enumerate(((data.train, 23), (data.test, 9))):
        examples = checked(split(), (1, 28, 28), 10, small.published.name)
        assert examples.labels is not None
        assert np.array_equal(examples.inputs[:, 0].numpy(), pictures(count, seed))
        assert np.array_equal(examples.labels.numpy(), labels_of(count, 10))
        assert examples.inputs.is_contiguous()


def test_describing_a_set_touches_nothing(tmp_path: Path) -> None:
    for published in PUBLISHED:
        data = described(published.name, tmp_path / "nowhere")
        assert data.input == published.input
        assert data.classes == published.classes
        assert data.unlabelled is None
    assert not (tmp_path / "nowhere").exists()


def test_an_old_cache_is_not_read_in_place_of_the_files(tmp_path: Path) -> None:
    """torchvision before 2021 kept `processed/training.pt`, which nobody verified."""
    small = shrink(MNIST)
    small.write(tmp_path)
    folder = tmp_path / "MNIST" / "processed"
    folder.mkdir()
    for name in ("training.pt", "test.pt"):
        torch.save(
            (torch.zeros(3, 28, 28, dtype=torch.uint8), torch.zeros(3).long()), folder / name
        )
    assert len(build(small.published, tmp_path).train()) == 23


# --- emnist ---------------------------------------------------------------------------------


def letter() -> Array:
    """An L, which is neither its transpose nor its mirror image."""
    image = np.zeros((28, 28), dtype=np.uint8)
    image[4:24, 6:9] = 200
    image[21:24, 6:18] = 255
    return image


@pytest.mark.parametrize("split", ["train", "test"])
def test_letters_are_turned_upright_and_counted_from_zero(split: str, tmp_path: Path) -> None:
    small = shrink(EMNIST_LETTERS, (52, 26), first=1)
    contents = small.contents
    for name in contents:
        if "images" in name:  # as NIST stored them
            count = 52 if "train" in name else 26
            contents[name] = idx(np.repeat(letter().T[None], count, 0))
    sizes = {name: (len(data), sha256(data)) for name, data in contents.items()}
    published = dataclasses.replace(
        small.published,
        train={name: sizes[name] for name in small.published.train},
        test={name: sizes[name] for name in small.published.test},
    )
    data = build(published, small.write(tmp_path))
    assert data.test is not None
    examples = checked(data.train() if split == "train" else data.test(), (1, 28, 28), 26, "x")
    assert examples.labels is not None
    assert np.array_equal(examples.inputs[0, 0].numpy(), letter())
    assert sorted(set(examples.labels.tolist())) == list(range(26))
    assert data.classes == tuple("abcdefghijklmnopqrstuvwxyz")
    assert examples.labels[0] == 0  # 1 in the file, an a


def test_arrays_of_letters_become_examples() -> None:
    images = torch.from_numpy(np.stack([letter().T, letter()]))
    examples = to_examples(EMNIST_LETTERS, images, torch.tensor([1, 26]))
    assert examples.labels is not None
    assert examples.labels.tolist() == [0, 25]
    assert np.array_equal(examples.inputs[0, 0].numpy(), letter())
    assert np.array_equal(examples.inputs[1, 0].numpy(), letter().T)
    assert examples.inputs.is_contiguous()


@pytest.mark.parametrize(
    ("published", "label", "shown"),
    [(EMNIST_LETTERS, 0, -1), (EMNIST_LETTERS, 27, 26), (MNIST, 10, 10)],
)
def test_a_label_of_no_class(published: Published, label: int, shown: int) -> None:
    images = torch.zeros(2, 28, 28, dtype=torch.uint8)
    with pytest.raises(DataError) as caught:
        to_examples(published, images, torch.tensor([1, label]))
    assert f"{published.name} has a label {shown};" in str(caught.value)


# --- cifar ----------------------------------------------------------------------------------


def photographs(seed: int, count: int = 4) -> Array:
    return np.random.default_rng(seed).integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)


@pytest.fixture
def cifar(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """Batches of four photographs in CIFAR's layout, whose sums torchvision is told."""
    contents: dict[str, bytes] = {}
    for seed, name in enumerate(sorted(name for name in CIFAR10.files if "_batch" in name)):
        batch = {
            # A row is the red plane, the green one, the blue one, each by rows.
            "data": photographs(seed).reshape(4, 3072),
            "labels": [(seed + i) % 10 for i in range(4)],
        }
        contents[name] = pickle.dumps(batch, protocol=2)
    (meta,) = (name for name in CIFAR10.files if name.endswith("batches.meta"))
    contents[meta] = pickle.dumps({"label_names": list(CIFAR10.classes)}, protocol=2)
    sums = {name: hashlib.md5(data).hexdigest() for name, data in contents.items()}

    def listed(files: dict[str, tuple[int, str]]) -> list[list[str]]:
        return [[Path(name).name, sums[name]] for name in files if "_batch" in name]

    theirs = torchvision.datasets.CIFAR10
    monkeypatch.setattr(theirs, "train_list", listed(CIFAR10.train))
    monkeypatch.setattr(theirs, "test_list", listed(CIFAR10.test))
    monkeypatch.setattr(theirs, "meta", theirs.meta | {"md5": sums[meta]})
    published = dataclasses.replace(
        CIFAR10,
        train={name: (0, sums[name]) for name in CIFAR10.train},
        test={name: (0, sums[name]) for name in CIFAR10.test},
    )
    return StandIn(published, contents)


def test_photographs_come_channels_first(
    cifar: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def one_by_one(*args: object) -> None:
        raise AssertionError("the images were asked for one by one")

    monkeypatch.setattr(torchvision.datasets.CIFAR10, "__getitem__", one_by_one)
    data = build(cifar.published, cifar.write(tmp_path))
    assert data.test is not None
    train = checked(data.train(), (3, 32, 32), 10, "cifar10")
    test = checked(data.test(), (3, 32, 32), 10, "cifar10")
    assert train.labels is not None
    assert test.labels is not None
    expected = np.concatenate([photographs(seed) for seed in range(5)])
    assert np.array_equal(train.inputs.numpy(), expected)
    assert train.labels.tolist() == [(seed + i) % 10 for seed in range(5) for i in range(4)]
    assert np.array_equal(test.inputs.numpy(), photographs(5))
    assert train.inputs.is_contiguous()


def test_a_batch_that_was_tampered_with_is_not_unpickled(cifar: StandIn, tmp_path: Path) -> None:
    class Malicious:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "executed",))

    cifar.write(tmp_path)
    path = tmp_path / "cifar-10-batches-py" / "data_batch_3"
    path.write_bytes(pickle.dumps(Malicious()))
    with pytest.raises(DataError, match="data_batch_3' is corrupt"):
        build(cifar.published, tmp_path).train()
    assert not (tmp_path / "executed").exists()


def test_the_sums_of_cifar_are_those_that_torchvision_checks() -> None:
    theirs = torchvision.datasets.CIFAR10
    listed = dict([*theirs.train_list, *theirs.test_list])
    listed[theirs.meta["filename"]] = theirs.meta["md5"]
    assert {Path(name).name: digest for name, (_, digest) in CIFAR10.files.items()} == listed


# --- damage ---------------------------------------------------------------------------------


def refused(published: Published, root: Path, *, train: bool = True) -> str:
    data = build(published, root)
    assert data.test is not None
    with pytest.raises(DataError) as caught:
        data.train() if train else data.test()
    message = str(caught.value)
    assert isinstance(caught.value, DataUnavailable) == ("could not be fetched" in message)
    return message


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("what", ["images", "labels"])
@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda data: data[:-1], "is truncated: {found} bytes, expected {size}"),
        (lambda data: data[:4], "is truncated: {found} bytes, expected {size}"),
        (lambda data: b"", "is truncated: {found} bytes, expected {size}"),
        (lambda data: data + b"\0", "is too long: {found} bytes, expected {size}"),
        (lambda data: data[:-1] + bytes([data[-1] ^ 1]),
         "is corrupt: its bytes are not those that were published"),
    ],
)  # fmt: skip
def test_damaged_files_are_named(
    damage: Callable[[bytes], bytes], problem: str, what: str, train: bool, tmp_path: Path
) -> None:
    small = shrink(FASHION_MNIST)
    small.write(tmp_path)
    files = small.published.train if train else small.published.test
    (name,) = (name for name in files if what in name)
    whole = small.contents[name]
    broken = damage(whole)
    (tmp_path / name).write_bytes(broken)
    message = refused(small.published, tmp_path, train=train)
    told = problem.format(found=f"{len(broken):,}", size=f"{len(whole):,}")
    assert f"fashion-mnist: '{tmp_path / name}' {told}" in message
    assert f"Type: rm '{tmp_path / name}'" in message
    # The other split does not read that file.
    other = build(small.published, tmp_path)
    assert other.test is not None
    assert len(other.test() if train else other.train()) in (9, 23)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda data: b"\xff" * 4 + data[4:], id="magic"),
        pytest.param(lambda data: data[:4] + b"\0\0\1\0" + data[8:], id="count"),
        pytest.param(lambda data: data[:2] + b"\x09" + data[3:], id="signed"),
        pytest.param(lambda data: data[:2] + b"\x0d" + data[3:], id="floats"),
    ],
)
def test_a_header_that_lies_in_a_set_without_sums(
    damage: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    """Of kmnist only the sizes are known, so that its reader meets such a file."""
    small = shrink(KMNIST, sums=False)
    small.write(tmp_path)
    name = next(iter(small.published.train))
    (tmp_path / name).write_bytes(damage(small.contents[name]))
    message = refused(small.published, tmp_path)
    assert message.startswith("kmnist ")
    assert str(tmp_path) in message


# --- missing files and the network ----------------------------------------------------------


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let every download of torchvision's fail as without a network; return what was tried."""
    tried: list[str] = []

    def unreachable(url: str, *args: object, **keywords: object) -> None:
        tried.append(url)
        print("Downloading", url)
        raise URLError("[Errno -3] Temporary failure in name resolution")

    replace_download(monkeypatch, unreachable)
    return tried


def replace_download(monkeypatch: pytest.MonkeyPatch, download: Download) -> None:
    for module in (torchvision.datasets.mnist, torchvision.datasets.cifar):
        monkeypatch.setattr(module, "download_and_extract_archive", download)


def nothing_left(root: Path) -> None:
    """Assert that no file of a set and no temporary folder lies below a data folder."""
    left = [path for path in root.rglob("*") if path.suffix != ".lock"]
    assert not left, left


@pytest.mark.parametrize("published", PUBLISHED, ids=[p.name for p in PUBLISHED])
def test_a_set_that_is_not_there_and_cannot_be_fetched(
    published: Published, offline: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "data"
    message = refused(published, root)
    assert offline
    assert f"{published.name} is not under '{root}' and could not be fetched (" in message
    assert "Temporary failure in name resolution" in message
    for name in published.files:
        assert name in message
    split = ", split='letters'" if published is EMNIST_LETTERS else ""
    assert (
        f'python -c "from torchvision.datasets import {published.torchvision};'
        f" {published.torchvision}('{root}', download=True{split})\"" in message
    )
    assert "--data-root or ZOO_DATA" in message
    nothing_left(root)
    output = capfd.readouterr()
    assert (output.out, output.err) == ("", "")


@pytest.mark.parametrize("published", PUBLISHED, ids=[p.name for p in PUBLISHED])
def test_the_command_that_the_message_names_is_python(
    published: Published, offline: list[str], tmp_path: Path
) -> None:
    message = refused(published, tmp_path / "data")
    command = next(line for line in message.splitlines() if "python -c" in line)
    code = command.split('python -c "')[1].rstrip('"')
    with pytest.raises((URLError, RuntimeError)):
        exec(compile(code, "message", "exec"), {})
    assert offline


def test_only_the_missing_files_are_listed(offline: list[str], tmp_path: Path) -> None:
    small = shrink(MNIST)
    small.write(tmp_path, without="t10k-labels")
    message = refused(small.published, tmp_path)
    line = next(line for line in message.splitlines() if line.startswith("Missing: "))
    assert line == "Missing: MNIST/raw/t10k-labels-idx1-ubyte."
    # What was there stays there.
    assert missing(small.published, tmp_path) == ["MNIST/raw/t10k-labels-idx1-ubyte"]


def test_without_a_network_a_real_attempt_ends_in_the_same_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through torchvision and urllib down to the socket, where the network begins."""

    def unreachable(*args: object, **keywords: object) -> None:
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    for published in PUBLISHED:
        message = refused(published, tmp_path / published.name)
        assert "could not be fetched" in message
        nothing_left(tmp_path / published.name)


def test_a_data_folder_that_is_a_file(offline: list[str], tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.write_text("no folder")
    message = refused(MNIST, root)
    assert f"mnist is not under '{root}'" in message
    assert root.read_text() == "no folder"


# --- fetching -------------------------------------------------------------------------------


def downloading(small: StandIn, damage: Callable[[bytes], bytes] = lambda data: data) -> Download:
    """What torchvision's download does, chatter included, from stand-in files.

    Damage is done to the test split, which torchvision does not read when it has downloaded.
    """

    def download(url: str, download_root: Any, *args: object, **keywords: object) -> None:
        print("Downloading", url)
        print("100%|##########|", file=sys.stderr)
        folder = Path(download_root)
        name = Path(url).name
        for path, data in small.contents.items():
            whole = damage(data) if "t10k" in path else data
            if small.published.torchvision == "CIFAR10":
                (folder / path).parent.mkdir(exist_ok=True)
                (folder / path).write_bytes(whole)
            elif small.published.torchvision == "EMNIST":
                (folder / "gzip").mkdir(exist_ok=True)
                (folder / "gzip" / f"{Path(path).name}.gz").write_bytes(gzip.compress(whole))
            elif name == f"{Path(path).name}.gz":
                (folder / Path(path).name).write_bytes(whole)

    return download


def small_sets(cifar: StandIn) -> dict[str, StandIn]:
    return {
        "mnist": shrink(MNIST),
        "fashion-mnist": shrink(FASHION_MNIST),
        "kmnist": shrink(KMNIST, sums=False),
        "emnist-letters": shrink(EMNIST_LETTERS, (52, 26), first=1, sums=False),
        "cifar10": cifar,
    }


@pytest.mark.parametrize("name", [published.name for published in PUBLISHED])
def test_fetching_brings_the_whole_set_and_prints_nothing_on_stdout(
    name: str,
    cifar: StandIn,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    small = small_sets(cifar)[name]
    replace_download(monkeypatch, downloading(small))
    root = tmp_path / "deep" / "data"
    with reporting(Plain()):
        train = build(small.published, root).train()
    assert len(train) > 0
    assert {file: (root / file).read_bytes() for file in small.contents} == small.contents
    folders = {path.name for path in root.iterdir() if path.is_dir()}
    assert folders == {next(iter(small.contents)).split("/")[0]}  # no temporary one
    output = capfd.readouterr()
    assert output.out == ""
    assert f"downloading {name} into {root}" in output.err
    assert "Downloading http" not in output.err

    # The second time nothing is fetched, the other split included.
    replace_download(monkeypatch, lambda *args, **keywords: pytest.fail("fetched again"))
    data = build(small.published, root)
    assert data.test is not None
    assert len(data.test()) > 0


def test_the_python_twin_is_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    small = shrink(MNIST)
    replace_download(monkeypatch, downloading(small))
    build(small.published, tmp_path).train()
    output = capfd.readouterr()
    assert (output.out, output.err) == ("", "")


def test_what_was_fetched_is_checked_ever_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no sums are published, those of the day it was fetched serve."""
    small = shrink(KMNIST, sums=False)
    replace_download(monkeypatch, downloading(small))
    build(small.published, tmp_path).train()
    path = tmp_path / next(iter(small.published.train))
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    message = refused(small.published, tmp_path)
    assert f"kmnist: '{path}' is corrupt" in message


@pytest.mark.parametrize(
    ("sums", "damage", "problem"),
    [
        (False, lambda data: data[:-1], "is truncated"),
        (False, lambda data: data + b"x", "is too long"),
        (True, lambda data: data[:-1] + bytes([data[-1] ^ 1]), "is corrupt"),
    ],
)
def test_a_bad_download_is_refused_and_leaves_nothing(
    sums: bool,
    damage: Callable[[bytes], bytes],
    problem: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small = shrink(FASHION_MNIST, sums=sums)
    replace_download(monkeypatch, downloading(small, damage))
    message = refused(small.published, tmp_path)
    assert message.startswith("fashion-mnist")
    assert problem in message
    assert str(tmp_path) in message
    nothing_left(tmp_path)
    # What the message tells to delete has to be there.
    for word in message.split("'"):
        if word.startswith(str(tmp_path)):
            assert Path(word).exists(), message


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("Error downloading"),
                                   ConnectionResetError("reset"), TimeoutError("timed out"),
                                   EOFError("ended"), MemoryError()])  # fmt: skip
def test_a_fetch_that_breaks_off_leaves_nothing(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = shrink(MNIST)
    whole = downloading(small)
    calls: list[str] = []

    def breaking(url: str, *args: Any, **keywords: Any) -> None:
        calls.append(url)
        if len(calls) >= 3:  # every mirror of the third file
            raise error
        whole(url, *args, **keywords)

    replace_download(monkeypatch, breaking)
    data = build(small.published, tmp_path)
    before = socket.getdefaulttimeout()
    wanted: Any = DataError if isinstance(error, OSError | RuntimeError | EOFError) else type(error)
    with pytest.raises(wanted):
        data.train()
    nothing_left(tmp_path)
    assert socket.getdefaulttimeout() == before

    # The next attempt finds neither remains nor a lock in its way.
    replace_download(monkeypatch, whole)
    assert len(data.train()) == 23


def test_a_fetch_has_a_timeout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = shrink(MNIST)
    whole = downloading(small)
    seen: list[float | None] = []

    def download(*args: Any, **keywords: Any) -> None:
        seen.append(socket.getdefaulttimeout())
        whole(*args, **keywords)

    replace_download(monkeypatch, download)
    build(small.published, tmp_path).train()
    assert all(timeout and timeout <= 60 for timeout in seen)


def test_files_of_other_sets_are_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fashion = shrink(FASHION_MNIST)
    fashion.write(tmp_path)
    small = shrink(MNIST)
    replace_download(monkeypatch, downloading(small))
    build(small.published, tmp_path).train()
    assert {f: (tmp_path / f).read_bytes() for f in fashion.contents} == fashion.contents


def test_a_reader_that_is_given_is_called_with_its_arguments(tmp_path: Path) -> None:
    small = shrink(EMNIST_LETTERS, (52, 26), first=1)
    calls: list[dict[str, Any]] = []

    def reader(root: str, **keywords: Any) -> None:
        calls.append(keywords)
        assert Path(root) != tmp_path  # apart from where it will lie
        small.write(Path(root))

    fetch(small.published, tmp_path, reader, {"split": "letters"})
    assert [call["split"] for call in calls] == ["letters"]
    assert not missing(small.published, tmp_path)


WORKER = """
    import dataclasses, sys, time
    from pathlib import Path
    from zoo_images.catalogue import KMNIST
    from zoo_images.fetch import fetch
    from zoo_images.integrity import missing

    root, log, started = map(Path, sys.argv[1:4])
    small = dataclasses.replace(
        KMNIST,
        train={name: (9, "") for name in KMNIST.train},
        test={name: (9, "") for name in KMNIST.test},
    )

    def reader(folder, **keywords):
        with log.open("a") as file:
            file.write("fetched\\n")
        # Until the other process is certain to wait for the lock.
        while len(list(started.iterdir())) < 2:
            time.sleep(0.01)
        time.sleep(0.3)
        for name in small.files:
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"contents.")

    (started / sys.argv[4]).touch()
    fetch(small, root, reader, {})
    assert not missing(small, root)
    print("there")
"""


def test_two_processes_fetch_once(tmp_path: Path) -> None:
    root, log, started = tmp_path / "data", tmp_path / "log", tmp_path / "started"
    started.mkdir()
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(WORKER), root, log, started, name],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for name in ("first", "second")
    ]
    try:
        results = [process.communicate(timeout=60) for process in processes]
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
    for process, (out, err) in zip(processes, results, strict=True):
        assert process.returncode == 0, err
        assert out == "there\n"
    assert log.read_text() == "fetched\n"
    assert {path.name for path in root.iterdir() if path.is_dir()} == {"KMNIST"}


# --- the catalogue, and the real sets -------------------------------------------------------


@pytest.mark.parametrize("published", PUBLISHED, ids=[p.name for p in PUBLISHED])
def test_the_catalogue_names_the_files_that_torchvision_reads(
    published: Published, tmp_path: Path
) -> None:
    theirs = published_module.reader(published)
    assert theirs.__name__ == published.torchvision
    assert len(set(published.classes)) == len(published.classes)
    for _, (size, digest) in published.files.items():
        assert size or digest
        assert len(digest) in (0, 32, 64)
    if published.torchvision in ("MNIST", "FashionMNIST", "KMNIST"):
        names = {f"{published.torchvision}/raw/{url[:-3]}" for url, _ in theirs.resources}
        assert set(published.files) == names
    if published.torchvision == "EMNIST":
        assert tuple(theirs.classes_split_dict["letters"][1:]) == published.classes
    if published.torchvision in ("FashionMNIST", "KMNIST"):
        assert tuple(theirs.classes) == published.classes


REAL = [("mnist", "MNIST", (60_000, 10_000)), ("fashion-mnist", "FashionMNIST", (60_000, 10_000))]
FIRST = {
    "mnist": [5, 0, 4, 1, 9, 2, 1, 3, 1, 4],
    "fashion-mnist": [9, 0, 0, 3, 0, 2, 7, 2, 5, 5],
}


@pytest.mark.parametrize(("name", "theirs", "counts"), REAL)
def test_the_real_sets(name: str, theirs: str, counts: tuple[int, int], real_data: Path) -> None:
    data = described(name, real_data)
    assert data.test is not None
    for train, count in zip((True, False), counts, strict=True):
        examples: Examples = checked(data.train() if train else data.test(), (1, 28, 28), 10, name)
        assert len(examples) == count
        assert examples.labels is not None
        sizes = torch.bincount(examples.labels)
        if name == "fashion-mnist":
            assert sizes.tolist() == [count // 10] * 10
        else:
            assert int(sizes.min()) > 0.08 * count
            assert int(sizes.max()) < 0.12 * count
        if train:
            assert examples.labels[:10].tolist() == FIRST[name]
        reference = getattr(torchvision.datasets, theirs)(str(real_data), train=train)
        assert torch.equal(examples.labels, reference.targets)
        sums = [np.asarray(reference[i][0], dtype=np.int64).sum() for i in range(50)]
        assert examples.inputs[:50].sum((1, 2, 3)).tolist() == sums
        first: Tensor = examples.inputs[0, 0]
        assert np.array_equal(first.numpy(), np.asarray(reference[0][0]))


@pytest.mark.parametrize(("name", "split", "mean", "std"), [
    ("mnist", "train", 0.1307, 0.3081), ("fashion-mnist", "train", 0.2860, 0.3530),
])  # fmt: skip
def test_the_published_mean_and_deviation(
    name: str, split: str, mean: float, std: float, real_data: Path
) -> None:
    pixels = described(name, real_data).train().inputs.float() / 255
    assert pixels.mean().item() == pytest.approx(mean, abs=1e-4)
    assert pixels.std().item() == pytest.approx(std, abs=1e-4)
