"""Digests of examples, against a second, slower implementation."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from zoo import digests
from zoo.digests import digest_contents, digest_split, distinct, found_in, none, usable


def noise(count: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=generator)


def slow(inputs: Tensor) -> list[bytes]:
    return [hashlib.blake2b(bytes(x.flatten().tolist()), digest_size=16).digest() for x in inputs]


@pytest.mark.parametrize("piece", [1, 50, 1 << 20])
def test_each_example_and_the_whole_split(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "PIECE", piece)  # a split larger than memory is read in pieces
    inputs, labels = noise(7, 2, 3, 4), torch.arange(7)
    found = digest_split(inputs, labels)
    assert [row.tobytes() for row in found.examples] == slow(inputs)
    whole = bytes(inputs.flatten().tolist()) + np.arange(7, dtype="<i8").tobytes()
    assert found.sha256 == hashlib.sha256(whole).hexdigest()
    assert len(found) == 7
    unlabelled = digest_split(inputs, None)
    assert unlabelled.sha256 == hashlib.sha256(whole[: -7 * 8]).hexdigest()


def test_what_examples_are_made_of_is_never_taken_for_their_bytes() -> None:
    rows = noise(5, 16)
    found = digest_contents(rows)
    known = [hashlib.blake2b(bytes(r.tolist()), digest_size=16, person=b"content") for r in rows]
    assert [row.tobytes() for row in found] == [each.digest() for each in known]
    assert not found_in(found, digest_split(rows, None).examples).any()
    assert np.array_equal(digest_contents(rows.T.contiguous().T), found)


def test_rows_that_do_not_lie_one_after_the_other() -> None:
    inputs = noise(5, 4, 4, 3).permute(0, 3, 1, 2)
    assert not inputs.is_contiguous()
    again = digest_split(inputs.contiguous(), None)
    found = digest_split(inputs, None)
    assert np.array_equal(found.examples, again.examples)
    assert found.sha256 == again.sha256


def test_a_split_mapped_into_memory(tmp_path: Path) -> None:
    inputs = noise(6, 1, 4, 4)
    inputs.numpy().tofile(tmp_path / "rows")
    mapped = torch.from_file(str(tmp_path / "rows"), size=inputs.numel(), dtype=torch.uint8)
    found = digest_split(mapped.view(6, 1, 4, 4), None)
    assert found.sha256 == digest_split(inputs, None).sha256


def test_the_same_picture_with_another_label_is_the_same_example() -> None:
    inputs = noise(3, 1, 2, 2)
    one, other = (
        digest_split(inputs, torch.zeros(3).long()),
        digest_split(inputs, torch.ones(3).long()),
    )
    assert np.array_equal(one.examples, other.examples)
    assert one.sha256 != other.sha256


def test_sets_of_digests_are_those_of_python() -> None:
    rows = np.random.default_rng(0).integers(0, 2, (200, 16), dtype=np.uint8)
    rows[:, 2:-2] = 0  # few kinds, and zeros at both ends are bytes like others
    left, right = rows[:120], rows[100:]
    others = {row.tobytes() for row in right}
    assert found_in(left, right).tolist() == [row.tobytes() in others for row in left]
    every = sorted({row.tobytes() for row in rows})
    assert [row.tobytes() for row in distinct(left, right)] == every
    assert found_in(none(), left).tolist() == []
    assert not found_in(left, none()).any()
    assert len(distinct()) == 0


@pytest.mark.parametrize(
    ("labels", "sound"),
    [(torch.arange(3), True), (None, False), (torch.arange(4), False), ([0, 1, 2], False),
     (torch.zeros(3), False)],
)  # fmt: skip
def test_labels_that_nobody_checked_are_digested_where_they_can_be(
    labels: object, sound: bool
) -> None:
    assert (usable(labels, 3) is not None) == sound
