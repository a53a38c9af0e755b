"""Which cache is believed, which pictures look alike, and what a run knows of its folder."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from zoo import pipeline
from zoo.api import Component, DataError, Examples, TrainConfig
from zoo.errors import DataError as Refused
from zoo.pipeline import Workspace
from zoo.progress import Silent, reporting
from zoo_folder import FolderConfig, belief, contents, near, owner
from zoo_folder.dataset import build

SIZE = 8
AGAIN = "pets: decoded pictures are made again, for "


def picture(path: Path, seed: int) -> None:
    """Write a picture of noise, another one for each seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    for number, name in enumerate(("cats", "dogs")):
        for at in range(10):
            picture(tmp_path / "pets" / name / f"{at}.png", 100 * number + at)
    return tmp_path / "pets"


class Notes(Silent):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)

    def about(self, words: str) -> list[str]:
        return [text for text in self.texts if words in text]


def load(pets: Path, **options: Any) -> tuple[dict[str, Examples], Notes]:
    """Load the splits of a folder as a new process would, and return what was told."""
    belief._believed.clear()
    notes = Notes()
    data = build(FolderConfig(path=str(pets), **{"size": SIZE, **options}), pets.parent / "data")
    with reporting(notes):
        assert data.test is not None
        return {"train": data.train(), "test": data.test()}, notes


def slot(pets: Path) -> Path:
    (found,) = (pets.parent / "data" / "folder").iterdir()
    return found


def cache_of(pets: Path) -> Path:
    (found,) = [path for path in slot(pets).iterdir() if path.is_dir()]
    return found


def same(one: dict[str, Examples], other: dict[str, Examples]) -> bool:
    return all(
        torch.equal(one[split].inputs, other[split].inputs)
        and torch.equal(one[split].labels, other[split].labels)  # type: ignore[arg-type]
        for split in one
    )


def copied(splits: dict[str, Examples]) -> dict[str, Examples]:
    return {n: dataclasses.replace(s, inputs=s.inputs.clone()) for n, s in splits.items()}


# --- the cache is not believed unread -------------------------------------------------------


def invert(cache: Path, index: dict[str, Any]) -> None:
    path = cache / "pixels.u8"
    path.write_bytes(bytes(255 - byte for byte in path.read_bytes()))


def swap_contents(cache: Path, index: dict[str, Any]) -> None:
    """Let two rows be each other's contents, and write the SHA-256 of that down."""
    path = cache / "digests.sha256"
    data = path.read_bytes()
    path.write_bytes(data[32:64] + data[:32] + data[64:])
    index["digests"] = hashlib.sha256(path.read_bytes()).hexdigest()


def swap_labels(cache: Path, index: dict[str, Any]) -> None:
    index["rows"]["train"] = [[1 - label, count] for label, count in index["rows"]["train"]]


def negative(cache: Path, index: dict[str, Any]) -> None:
    index["rows"]["train"] = [[0, 30], [1, -14]]


def no_split(cache: Path, index: dict[str, Any]) -> None:
    del index["rows"]["unlabelled"]


def lists(cache: Path, index: dict[str, Any]) -> None:
    index["rows"] = [[0, 16]]


def texts(cache: Path, index: dict[str, Any]) -> None:
    index["rows"]["train"] = ["16", "0"]


def floats(cache: Path, index: dict[str, Any]) -> None:
    index["rows"]["train"] = [[0.0, 8], [1, 8]]


def no_dict(cache: Path, index: dict[str, Any]) -> None:
    index["unread"] = "none"


def strange_split(cache: Path, index: dict[str, Any]) -> None:
    index["alike"] = {"0" * 64: "elsewhere"}


def cut_digests(cache: Path, index: dict[str, Any]) -> None:
    path = cache / "digests.sha256"
    path.write_bytes(path.read_bytes()[:-32])


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (invert, "their SHA-256 does not match"),
        (swap_contents, "their index is not that of these pictures"),
        (swap_labels, "their index is not that of these pictures"),
        (negative, "their index is damaged"),
        (no_split, "their index is damaged"),
        (lists, "their index is damaged"),
        (texts, "their index is damaged"),
        (floats, "their index is damaged"),
        (no_dict, "their index is damaged"),
        (strange_split, "their index is damaged"),
        (cut_digests, "they are damaged: rows are missing"),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_a_cache_that_was_changed_is_made_again_with_a_note(
    damage: Callable[[Path, dict[str, Any]], None], reason: str, pets: Path
) -> None:
    before = copied(load(pets)[0])
    cache = cache_of(pets)
    index = json.loads((cache / "index.json").read_text())
    damage(cache, index)
    (cache / "index.json").write_text(json.dumps(index))
    found, notes = load(pets)
    assert same(found, before)
    assert notes.about("made again") == [AGAIN + reason]
    assert load(pets)[1].about("made again") == []


def test_rows_are_not_taken_over_from_a_cache_that_was_changed(pets: Path) -> None:
    """A new picture comes, and the old rows would be copied into the new cache."""
    load(pets)
    invert(cache_of(pets), {})
    picture(pets / "cats" / "new.png", 999)
    found, _ = load(pets)
    shutil.rmtree(pets.parent / "data")
    assert same(found, load(pets)[0])


@pytest.mark.parametrize("what", ["pixels.u8", "index.json", ""])
def test_a_cache_of_another_user_is_not_believed(
    what: str, pets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = copied(load(pets)[0])
    strangers(monkeypatch, cache_of(pets) / what)
    found, notes = load(pets)
    assert same(found, before)
    assert notes.about("made again") == [AGAIN + "they belong to another user"]


def test_where_a_shared_folder_is_another_users_one_has_ones_own_beside_it(
    pets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = copied(load(pets)[0])
    theirs = slot(pets)
    invert(cache_of(pets), {})
    strangers(monkeypatch, theirs)
    found, notes = load(pets)
    assert same(found, before)
    assert len(notes.about("belongs to another user, and is not used")) == 1
    assert sorted(path.name for path in theirs.parent.iterdir()) == [
        theirs.name, f"{theirs.name}-{owner.user()}"
    ]  # fmt: skip
    strangers(monkeypatch, *theirs.parent.iterdir())
    with pytest.raises(DataError, match=r"belong to another user.* --data-root or ZOO_DATA"):
        load(pets)


def strangers(monkeypatch: pytest.MonkeyPatch, *paths: Path) -> None:
    """Let these be another user's; what replaces them is one's own."""
    theirs = {path.stat().st_ino for path in paths}

    def owner_of(path: Path) -> int:
        return 4711 if path.stat().st_ino in theirs else owner.user()

    monkeypatch.setattr(owner, "owner_of", owner_of)


def test_a_memory_of_digests_that_was_changed_is_not_believed(
    pets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents, "SLACK", -(10**18))  # every file has stood still for long
    before = copied(load(pets)[0])
    memory = slot(pets) / "seen.sha256"
    data = bytearray(memory.read_bytes())
    data[16:48], data[64:96] = data[64:96], data[16:48]  # two files have each other's digest
    memory.write_bytes(bytes(data))
    looked: list[str] = []
    whole = contents.digest_of

    def watched(root: Path, file: contents.File) -> bytes | str:
        looked.append(file.name)
        return whole(root, file)

    monkeypatch.setattr(contents, "digest_of", watched)
    found, _ = load(pets)
    assert len(looked) == 20
    assert same(found, before)
    looked.clear()
    load(pets)
    assert looked == []


# --- pictures that look alike ---------------------------------------------------------------


def photograph(seed: int, size: int = 48) -> Image.Image:
    """Return something smooth, of which a JPEG file is nearly the same picture."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)


def again(picture: Image.Image, quality: int = 60) -> Image.Image:
    """Save a picture once more, as one who sends it on does."""
    held = io.BytesIO()
    picture.save(held, "JPEG", quality=quality)
    return Image.open(held)


def pixels(*pictures: Image.Image) -> torch.Tensor:
    rows = [np.asarray(each.convert("RGB")).transpose(2, 0, 1) for each in pictures]
    return torch.from_numpy(np.stack(rows).copy())


def test_the_hash_is_that_of_its_definition() -> None:
    given = pixels(*(photograph(seed) for seed in range(6)))
    found, usable = near.difference_hashes(given)
    for at, picture in enumerate(given.double()):
        grey = sum(w * c for w, c in zip((0.299, 0.587, 0.114), picture, strict=True))
        bits = []
        for top in range(8):
            cells = [
                float(grey[top * 6 : top * 6 + 6, left * 48 // 9 : -(-(left + 1) * 48 // 9)].mean())  # type: ignore[index]
                for left in range(9)
            ]
            bits += [right - left > 2 for left, right in itertools.pairwise(cells)]
        assert found[at] == np.packbits(bits).view(np.uint64)[0]
        assert usable[at] == (sum(bits) >= 8)


def test_copies_that_were_saved_again_are_found_and_others_are_not() -> None:
    tested = [photograph(seed) for seed in range(20)]
    others = [again(tested[3]), again(tested[7], 85), *(photograph(s) for s in range(100, 160))]
    assert near.near_pairs(pixels(*tested), pixels(*others)) == [(3, 0), (7, 1)]


def test_flat_pictures_have_too_little_to_be_told_by() -> None:
    flat = [Image.new("RGB", (48, 48), (shade,) * 3) for shade in (0, 128, 255)]
    assert near.near_pairs(pixels(*flat), pixels(*flat)) == []


def test_where_there_is_nothing_there_are_no_pairs() -> None:
    none = torch.empty((0, 3, 48, 48), dtype=torch.uint8)
    some = pixels(photograph(0))
    assert near.near_pairs(none, some) == near.near_pairs(some, none) == []


def test_pictures_that_look_alike_are_told_once(tmp_path: Path) -> None:
    root = tmp_path / "pets"
    for split, first in (("train", 0), ("test", 50)):
        for number, name in enumerate(("cats", "dogs")):
            (root / split / name).mkdir(parents=True)
            for at in range(4):
                photograph(first + 10 * number + at).save(root / split / name / f"{at}.png")
    again(photograph(11)).save(root / "test" / "dogs" / "sent on.jpg")
    quiet = build(FolderConfig(path=str(root), size=48), tmp_path / "data")
    quiet.train()  # decoded by somebody who is told nothing
    first, notes = load(root, size=48)
    assert notes.about("look nearly the same") == [
        "pets: 1 of 9 test pictures look nearly the same as one that is trained on, so accuracy"
        f" may flatter: '{Path('test/dogs/sent on.jpg')}' and '{Path('train/dogs/1.png')}'"
    ]
    second, notes = load(root, size=48)
    assert notes.about("look nearly the same") == []
    assert same(first, second)  # told, and nothing is left out


# --- what a run knows of a folder -----------------------------------------------------------


def test_examples_have_the_names_of_their_files(pets: Path) -> None:
    splits, _ = load(pets)
    names = {split: list(examples.names or ()) for split, examples in splits.items()}
    assert sorted(names["train"] + names["test"]) == sorted(
        str(path.relative_to(pets)) for path in pets.rglob("*.png")
    )
    for split, examples in splits.items():
        for at, name in enumerate(names[split]):
            shown = np.asarray(Image.open(pets / name)).transpose(2, 0, 1)
            assert np.array_equal(examples.inputs[at].numpy(), shown)
    assert splits["test"].names is not None
    assert splits["test"].names[-1] == names["test"][-1]
    assert splits["test"].names[1:3] == names["test"][1:3]
    with pytest.raises(IndexError):
        splits["test"].names[4]


def test_pictures_that_were_pretrained_on_at_another_size_are_known(
    pets: Path, tmp_path: Path
) -> None:
    workspace = Workspace(runs=tmp_path / "runs", data=tmp_path / "data")
    training = TrainConfig(epochs=1, validation=0, threads=1)
    run = pipeline.pretrain(
        Component("mlp", widths=(8,), features=4),
        dataset=Component("folder", path=str(pets), size=SIZE),
        training=training,
        workspace=workspace,
    )
    trained_on = [Path(name) for name in load(pets)[0]["train"].names or ()]
    tested = [Path(name) for name in load(pets)[0]["test"].names or ()]
    for name in [*trained_on[:3], *trained_on[-3:], *tested]:
        (pets / "test" / name.parent).mkdir(parents=True, exist_ok=True)
        (pets / name).rename(pets / "test" / name)
    (pets / "train").mkdir()
    for name in ("cats", "dogs"):
        (pets / name).rename(pets / "train" / name)
    larger = Component("folder", path=str(pets), size=2 * SIZE)
    with pytest.raises(Refused, match="has seen 6 of the 10 test examples of 'folder', which were"):
        pipeline.finetune(run, dataset=larger, training=training, workspace=workspace)


def test_pictures_that_were_trained_on_are_no_test_pictures(pets: Path, tmp_path: Path) -> None:
    """As one does who is told to make a test/: pictures move there from what was trained on."""
    workspace = Workspace(runs=tmp_path / "runs", data=tmp_path / "data")
    run = pipeline.finetune(
        backbone=Component("mlp", widths=(8,), features=4),
        dataset=Component("folder", path=str(pets), size=SIZE),
        training=TrainConfig(epochs=1, validation=0, threads=1),
        workspace=workspace,
    )
    contents = load(pets)[0]["test"].contents
    assert contents is not None
    assert [row.numpy().tobytes() for row in contents] == [
        hashlib.sha256((pets / name).read_bytes()).digest()
        for name in load(pets)[0]["test"].names or ()
    ]
    honest = pipeline.evaluate(run, workspace=workspace)
    assert honest.examples == 4
    was_tested = {str(Path(name)) for name in load(pets)[0]["test"].names or ()}
    (pets / "train").mkdir()
    moved = []
    for name in ("cats", "dogs"):
        (pets / name).rename(pets / "train" / name)
        (pets / "test" / name).mkdir(parents=True)
        for at in range(4):
            (pets / "train" / name / f"{at}.png").rename(pets / "test" / name / f"{at}.png")
            moved.append(f"{name}/{at}.png")
    seen = len([name for name in moved if name not in was_tested])
    assert seen > 3
    with pytest.raises(Refused) as caught:
        pipeline.evaluate(run, workspace=workspace)
    message = str(caught.value)
    assert f"The run was trained on {seen} of its 8 examples: 'test/" in message
    assert f".png' and {seen - 3} more" in message
    with pytest.raises(Refused, match="changed since run"):
        pipeline.export(run, tmp_path / "pets.onnx", workspace=workspace)
    assert not (tmp_path / "pets.onnx").exists()
