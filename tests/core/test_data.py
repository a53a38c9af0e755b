"""Splits, label draws, batches and the check of what a data set hands over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from zoo.api import Examples
from zoo.data import Batches, Column, checked, draw_labels, holdout
from zoo.errors import BadOption, DataError, Unfit

SEEDS = st.integers(0, 2**63 - 1)


# --- holdout --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "validation", "held"),
    [
        (100, 0.1, 10),
        (1437, 0.1, 144),  # rounded to the nearest example
        (10, 0, 0),
        (10, 0.0, 0),
        (10, 1, 1),  # from 1 on a count, never the whole
        (10, 1.0, 1),
        (10, 9, 9),
        (1, 0, 0),
    ],
)  # fmt: skip
def test_holdout_takes_a_share_or_a_count(count: int, validation: float, held: int) -> None:
    train, kept = holdout(count, validation, 0)
    assert len(kept) == held
    assert len(train) == count - held


@given(count=st.integers(2, 300), share=st.floats(0, 0.5), seed=SEEDS)
def test_holdout_is_disjoint_complete_and_seeded(count: int, share: float, seed: int) -> None:
    train, held = holdout(count, share, seed)
    assert sorted([*train.tolist(), *held.tolist()]) == list(range(count))
    again = holdout(count, share, seed)
    assert torch.equal(train, again[0])
    assert torch.equal(held, again[1])


def test_holdout_differs_by_seed_and_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, second = holdout(100, 0.2, 1)[1], holdout(100, 0.2, 2)[1]
    assert set(first.tolist()) != set(second.tolist())
    assert torch.equal(torch.rand(3), expected)


def test_holdout_is_not_the_first_or_last_examples() -> None:
    """Data sets are often sorted; what is held out has to come from all over."""
    held = holdout(1000, 100, 0)[1]
    assert held.min() < 200
    assert held.max() >= 800


@pytest.mark.parametrize(
    ("validation", "message"),
    [
        (1.5, "validation: 1.5 is neither a share below 1 nor a whole count."),
        # 9.9 rounds to all ten.
        (0.99, "validation: 0.99 leaves no example to train on; there are 10."),
        (10, "validation: 10 leaves no example to train on; there are 10."),
        (11.0, "validation: 11 leaves no example to train on; there are 10."),
        (5000, "validation: 5000 leaves no example to train on; there are 10."),
    ],
)
def test_holdout_refuses(validation: float, message: str) -> None:
    with pytest.raises(BadOption) as caught:
        holdout(10, validation, 0)
    assert str(caught.value) == message


# --- draw_labels ----------------------------------------------------------------------------


@st.composite
def draws(draw: st.DrawFn) -> tuple[Tensor, int, int]:
    """Shuffled labels of some classes, some of them rare, and how many of them are wanted."""
    have = draw(st.lists(st.integers(0, 30), min_size=2, max_size=8).filter(lambda h: sum(h) >= 8))
    labels = torch.repeat_interleave(torch.arange(len(have)), torch.tensor(have))
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(draw(SEEDS)))
    return labels[order], draw(st.integers(len(have), len(labels))), len(have)


@given(case=draws(), seed=SEEDS)
def test_labels_are_n_in_all_and_even(case: tuple[Tensor, int, int], seed: int) -> None:
    labels, wanted, classes = case
    chosen = draw_labels(labels, wanted, classes, seed)
    assert len(chosen) == len(set(chosen.tolist())) == wanted
    assert int(chosen.min()) >= 0
    assert int(chosen.max()) < len(labels)
    have = torch.bincount(labels, minlength=classes).tolist()
    took = torch.bincount(labels[chosen], minlength=classes).tolist()
    # Classes that have some left differ by one at most; one that ran out gave all it had,
    # and no more than the others.
    open_ = [t for t, h in zip(took, have, strict=True) if t < h]
    if open_:
        assert max(open_) - min(open_) <= 1
        assert all(t <= min(open_) + 1 for t, h in zip(took, have, strict=True) if t == h)


@given(case=draws(), seed=SEEDS)
@settings(max_examples=30)
def test_labels_are_drawn_by_the_seed(case: tuple[Tensor, int, int], seed: int) -> None:
    labels, wanted, classes = case
    state = torch.get_rng_state()
    first = draw_labels(labels, wanted, classes, seed)
    assert torch.equal(first, draw_labels(labels, wanted, classes, seed))
    assert torch.equal(torch.get_rng_state(), state)


def test_another_seed_draws_other_labels_and_gives_the_rest_to_other_classes() -> None:
    labels = torch.arange(1000) % 10
    assert not torch.equal(draw_labels(labels, 50, 10, 0), draw_labels(labels, 50, 10, 1))
    rests = set()
    for seed in range(20):
        took = torch.bincount(labels[draw_labels(labels, 13, 10, seed)], minlength=10)
        assert sorted(took.tolist()) == [1] * 7 + [2] * 3
        rests.add(tuple((took == 2).nonzero().flatten().tolist()))
    assert len(rests) > 5  # always the first three classes would be a bias


def test_within_a_class_any_example_may_be_drawn() -> None:
    labels = torch.zeros(40, dtype=torch.int64)
    labels[20:] = 1
    drawn = {i for seed in range(60) for i in draw_labels(labels, 4, 2, seed).tolist()}
    assert drawn == set(range(40))


@pytest.mark.parametrize(
    ("have", "wanted", "took"),
    [
        ((2, 50, 50), 52, (2, 25, 25)),  # the rest of the rare class goes to the others
        ((1, 3, 50), 30, (1, 3, 26)),  # and on, where another class runs out
        ((0, 10, 10), 8, (0, 4, 4)),  # a class without an example
        ((5, 5, 5), 15, (5, 5, 5)),  # all of them
        ((1, 1, 100), 3, (1, 1, 1)),
    ],
)
def test_a_class_that_runs_out_gives_its_rest_away(
    have: tuple[int, ...], wanted: int, took: tuple[int, ...]
) -> None:
    labels = torch.repeat_interleave(torch.arange(len(have)), torch.tensor(have))
    chosen = draw_labels(labels, wanted, len(have), 0)
    assert tuple(torch.bincount(labels[chosen], minlength=len(have)).tolist()) == took


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (9, "labels: 9 cannot cover 10 classes. Type: --labels 10 or more"),
        (1, "labels: 1 cannot cover 10 classes. Type: --labels 10 or more"),
        (
            1201,
            "labels: 1,201 are asked for, and 1,200 are there to train on."
            " Type: --labels 1200 or fewer",
        ),
    ],
)
def test_too_few_and_too_many_labels_are_refused(wanted: int, message: str) -> None:
    with pytest.raises(Unfit) as caught:
        draw_labels(torch.arange(1200) % 10, wanted, 10, 0)
    assert str(caught.value) == message


# --- Batches --------------------------------------------------------------------------------


def inputs_of(batches: Batches) -> list[list[int]]:
    return [batch[0].tolist() for batch in batches]


@given(
    count=st.integers(1, 60), size=st.integers(1, 20), seed=st.one_of(st.none(), st.integers(0, 9))
)
def test_an_epoch_holds_every_example_once(count: int, size: int, seed: int | None) -> None:
    batches = Batches((torch.arange(count), torch.arange(count) * 2), size, seed=seed)
    epoch = list(batches)
    assert sorted(i for batch in epoch for i in batch[0].tolist()) == list(range(count))
    assert all(torch.equal(inputs * 2, labels) for inputs, labels in epoch)  # they stay together
    assert len(batches) == len(epoch)
    assert batches.examples == count
    sizes = [len(batch[0]) for batch in epoch]
    if size > 1 and count > 1:
        assert min(sizes) > 1
    assert all(found == size for found in sizes[:-1])
    assert sizes[-1] <= size + 1


@pytest.mark.parametrize(
    ("count", "size", "sizes"),
    [
        (9, 4, [4, 5]),  # the ninth joins the batch before it
        (10, 4, [4, 4, 2]),
        (8, 4, [4, 4]),
        (5, 4, [5]),
        (4, 4, [4]),
        (3, 4, [3]),
        (1, 4, [1]),  # there is no batch before it
        (3, 1, [1, 1, 1]),  # batches of one were asked for
    ],
)
def test_a_last_batch_of_one_joins_the_one_before(count: int, size: int, sizes: list[int]) -> None:
    assert [len(batch) for batch in inputs_of(Batches((torch.arange(count),), size))] == sizes


def test_the_order_is_the_seeds_and_new_each_epoch() -> None:
    def epochs(seed: int) -> list[list[list[int]]]:
        batches = Batches((torch.arange(64),), 16, seed=seed)
        return [inputs_of(batches) for _ in range(3)]

    first = epochs(3)
    state = torch.get_rng_state()
    torch.manual_seed(99)  # shuffling has its own generator
    assert epochs(3) == first
    torch.set_rng_state(state)
    assert epochs(4) != first
    assert first[0] != first[1] != first[2] != first[0]
    assert all([i for batch in epoch for i in batch] != list(range(64)) for epoch in first)


def test_shuffling_draws_nothing_from_the_global_generator() -> None:
    state = torch.get_rng_state()
    list(Batches((torch.arange(64),), 16, seed=3))
    assert torch.equal(torch.get_rng_state(), state)


def test_without_a_seed_the_order_is_kept() -> None:
    batches = Batches((torch.arange(10),), 4)
    assert inputs_of(batches) == inputs_of(batches) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


@pytest.mark.parametrize("seed", [None, 0])
def test_indices_choose_the_examples(seed: int | None) -> None:
    indices = torch.tensor([7, 2, 9, 4, 5])
    batches = Batches((torch.arange(10) * 10,), 2, indices=indices, seed=seed)
    found = [i for batch in inputs_of(batches) for i in batch]
    assert sorted(found) == [20, 40, 50, 70, 90]
    assert batches.examples == 5
    if seed is None:
        assert found == [70, 20, 90, 40, 50]


@given(
    count=st.integers(1, 40),
    size=st.integers(1, 12),
    least=st.integers(1, 5),
)
def test_a_last_batch_of_too_few_joins_the_one_before(count: int, size: int, least: int) -> None:
    """Cut one by one, and mended at the end: another way to the same batches."""
    wanted = [list(range(count))[start : start + size] for start in range(0, count, size)]
    if len(wanted) > 1 and len(wanted[-1]) < min(least, size):
        wanted[-2:] = [wanted[-2] + wanted[-1]]
    batches = Batches((torch.arange(count),), size, least=least)
    assert inputs_of(batches) == wanted
    assert batches.sizes == [len(batch) for batch in wanted]
    assert len(batches) == len(wanted)


@pytest.mark.parametrize("count", [1, 2, 10, 47])
def test_the_order_is_that_of_the_indices_shuffled_by_the_seed(count: int) -> None:
    indices = torch.arange(100, 100 + count).flip(0)
    batches = Batches((torch.arange(200) * 3,), 4, indices=indices, seed=11)
    generator = torch.Generator().manual_seed(11)
    for _ in range(3):
        order = indices[torch.randperm(count, generator=generator)]
        assert [i for batch in inputs_of(batches) for i in batch] == (order * 3).tolist()


@st.composite
def parts_of(draw: st.DrawFn) -> tuple[list[Tensor], Tensor]:
    """Tensors of one shape but for their lengths, some of them empty; rows of all, in any order."""
    lengths = draw(st.lists(st.integers(0, 9), min_size=1, max_size=5).filter(sum))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 9)))
    parts = [
        torch.randint(0, 256, (length, 2, 3), dtype=torch.uint8, generator=generator)
        for length in lengths
    ]
    rows = draw(st.lists(st.integers(0, sum(lengths) - 1), min_size=1, max_size=30))
    return parts, torch.tensor(rows)


@given(case=parts_of())
def test_rows_of_several_tensors_are_those_of_one(case: tuple[list[Tensor], Tensor]) -> None:
    parts, rows = case
    column, whole = Column(parts, torch.device("cpu")), torch.cat(parts)
    assert len(column) == len(whole)
    found = column.take(rows)
    assert torch.equal(found, whole[rows])
    assert found.dtype == torch.uint8


@given(case=parts_of(), size=st.integers(1, 6), seed=st.one_of(st.none(), st.integers(0, 9)))
@settings(max_examples=40)
def test_batches_of_several_tensors_are_those_of_one(
    case: tuple[list[Tensor], Tensor], size: int, seed: int | None
) -> None:
    parts, indices = case
    ours = Batches((parts,), size, indices=indices, seed=seed)
    theirs = Batches((torch.cat(parts),), size, indices=indices, seed=seed)
    for _ in range(2):
        pairs = zip(ours, theirs, strict=True)
        assert all(torch.equal(mine, other) for (mine,), (other,) in pairs)
    assert ours.digest() == theirs.digest()


def test_a_memory_mapped_tensor_gives_the_batches_of_a_resident_one(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randint(0, 256, (50, 1, 4, 4), dtype=torch.uint8, generator=generator)
    path = tmp_path / "inputs"
    path.write_bytes(inputs.numpy().tobytes())
    mapped = torch.from_file(str(path), size=inputs.numel(), dtype=torch.uint8)
    mapped = mapped.view(inputs.shape)
    near, far = Batches((inputs,), 8, seed=1), Batches((mapped,), 8, seed=1)
    for (found,), (wanted,) in zip(far, near, strict=True):
        assert torch.equal(found, wanted)
    assert near.digest() == far.digest()
    half = Batches(((mapped[:20], inputs[20:]),), 8, seed=1)
    assert half.digest() == near.digest()


def test_examples_are_not_copied() -> None:
    """Neither whole, nor joined, nor where training and validation share them."""
    first, second = torch.zeros(6, 2), torch.ones(4, 2)
    for parts in (first, (first, second)):
        column = Column(parts, torch.device("cpu"))
        batches, held = Batches((column,), 4, seed=0), Batches((column,), 4)
        given = [parts] if isinstance(parts, Tensor) else list(parts)
        for each in (batches, held):
            places = [part.data_ptr() for part in each._columns[0]._parts]
            assert places == [part.data_ptr() for part in given]
    # What is seen through the batches is what is in memory now.
    batches = Batches(((first, second),), 10)
    first[0] = 7
    assert next(iter(batches))[0][0].tolist() == [7, 7]


# --- an epoch that is taken up again --------------------------------------------------------


@pytest.mark.parametrize("seed", [None, 4])
@pytest.mark.parametrize("count", [8, 21])
def test_an_epoch_goes_on_from_any_batch(count: int, seed: int | None) -> None:
    def fresh() -> Batches:
        return Batches((torch.arange(count),), 4, seed=seed)

    batches = fresh()
    wanted = [inputs_of(batches) for _ in range(3)]
    for first in range(len(batches) + 1):
        later = fresh()
        found = [[b[0].tolist() for b in later.epoch(first)] for _ in range(3)]
        assert found == [
            epoch[first:] for epoch in wanted
        ]  # and the next epochs stay what they are


@pytest.mark.parametrize("seed", [None, 4])
def test_a_state_is_that_of_the_epoch_under_way(seed: int | None) -> None:
    """At its start, within it, at its end, and after it was closed: then it is the next one's."""
    batches = Batches((torch.arange(21),), 4, seed=seed)
    first = inputs_of(batches)
    batches.close()
    states: list[tuple[Tensor, int]] = [(batches.state.clone(), 0)]
    second = []
    for number, batch in enumerate(batches, 1):
        second.append(batch[0].tolist())
        states.append((batches.state.clone(), number))
    states.append((batches.state.clone(), len(batches)))
    batches.close()
    after = batches.state.clone()
    third = inputs_of(batches)
    assert (first != second != third) == (seed is not None)
    for state, position in states:
        again = Batches((torch.arange(21),), 4, seed=seed)
        list(again)  # wherever its generator is
        again.restore(state)
        assert [b[0].tolist() for b in again.epoch(position)] == second[position:]
        again.close()
        assert torch.equal(again.state, after)
        assert inputs_of(again) == third


def test_a_state_is_read_and_not_shared() -> None:
    batches = Batches((torch.arange(21),), 4, seed=0)
    before = batches.state.clone()
    kept = batches.state
    inputs_of(batches)
    batches.close()
    assert torch.equal(kept, before)
    assert not torch.equal(batches.state, before)


# --- a digest of the examples ---------------------------------------------------------------


def test_a_digest_is_of_content_order_and_number() -> None:
    def digest(inputs: Tensor, labels: Tensor, indices: Tensor | None = None) -> str:
        return Batches((inputs, labels), 4, indices=indices, seed=0).digest()

    generator = torch.Generator().manual_seed(0)
    inputs = torch.randint(0, 256, (300, 5), dtype=torch.uint8, generator=generator)
    labels = torch.arange(300) % 7
    base = digest(inputs, labels)
    assert digest(inputs.clone(), labels.clone()) == base
    assert digest(inputs, labels, torch.arange(300)) == base
    others = {
        digest(inputs + 1, labels),
        digest(inputs, labels + 1),
        digest(inputs.flip(0), labels),
        digest(inputs, labels, torch.arange(300).flip(0)),
        digest(inputs[:299], labels[:299]),
        digest(inputs, labels, torch.arange(299)),
    }
    assert len(others | {base}) == 6  # the last two are the same examples, shortened two ways
    # As many zeros from every second of twice as many: their number alone differs.
    zeros = torch.zeros(512, dtype=torch.uint8)
    assert Batches((zeros,), 4).digest() != Batches((zeros[:256],), 4).digest()
    # Neither the epoch nor the order it draws is part of it.
    batches = Batches((inputs, labels), 4, seed=0)
    list(batches)
    assert batches.digest() == base
    assert Batches((inputs, labels), 9, seed=3).digest() == base


@pytest.mark.parametrize("count", [1, 5, 255, 256])
def test_up_to_256_examples_each_one_counts(count: int) -> None:
    inputs = torch.zeros(count, 2, dtype=torch.uint8)
    seen = {Batches((inputs,), 4).digest()}
    for row in range(count):
        changed = inputs.clone()
        changed[row, 1] = 1
        seen.add(Batches((changed,), 4).digest())
    assert len(seen) == count + 1


@pytest.mark.parametrize("count", [257, 511, 512, 1000, 70_000])
def test_beyond_256_examples_are_digested_all_over(count: int) -> None:
    """A change to a 128th of them in a row is seen, wherever it is."""
    inputs = torch.zeros(count, dtype=torch.uint8)
    base, length = Batches((inputs,), 4).digest(), -(-count // 128)
    for start in (0, count // 3, count - length):
        changed = inputs.clone()
        changed[start : start + length] = 1
        assert Batches((changed,), 4).digest() != base


# --- checked --------------------------------------------------------------------------------

GREY = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
LABELS = torch.tensor([0, 1, 2, 2])


@pytest.mark.parametrize("labels", [None, LABELS])
def test_checked_hands_good_examples_through(labels: Tensor | None) -> None:
    examples = Examples(inputs=GREY, labels=labels)
    assert checked(examples, (1, 8, 8), None if labels is None else 3, "dataset 'x'") is examples


def test_pretraining_does_not_look_at_labels() -> None:
    nonsense = Examples(inputs=GREY, labels=torch.tensor([-5.0]))
    assert checked(nonsense, (1, 8, 8), None, "dataset 'x'") is nonsense


@pytest.mark.parametrize(
    ("inputs", "labels", "message"),
    [
        (GREY.float(), LABELS,
         "dataset 'x' holds torch.float32 (1, 8, 8) examples; it declares torch.uint8 (1, 8, 8)."),
        (GREY[:, :, :7], LABELS,
         "dataset 'x' holds torch.uint8 (1, 7, 8) examples; it declares torch.uint8 (1, 8, 8)."),
        (GREY[:, 0], LABELS,
         "dataset 'x' holds torch.uint8 (8, 8) examples; it declares torch.uint8 (1, 8, 8)."),
        (GREY[:0], LABELS[:0], "dataset 'x' holds no example."),
        (GREY, None, "dataset 'x' has no labels; it serves pretraining alone."),
        (GREY, LABELS[:3], "dataset 'x' needs one int64 label an example."),
        (GREY, LABELS[:, None], "dataset 'x' needs one int64 label an example."),
        (GREY, LABELS.int(), "dataset 'x' needs one int64 label an example."),
        (GREY, LABELS.float(), "dataset 'x' needs one int64 label an example."),
        (GREY, LABELS + 1, "dataset 'x' has labels outside 0..2."),
        (GREY, LABELS - 1, "dataset 'x' has labels outside 0..2."),
    ],
)  # fmt: skip
def test_checked_says_what_is_wrong(inputs: Tensor, labels: Tensor | None, message: str) -> None:
    with pytest.raises(DataError) as caught:
        checked(Examples(inputs=inputs, labels=labels), (1, 8, 8), 3, "dataset 'x'")
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "contents",
    [torch.zeros(3, 32).byte(), torch.zeros(4, 32), torch.zeros(4).byte(), [b"a"] * 4],
    ids=["too few", "no bytes", "one dimension", "no tensor"],
)
def test_contents_are_one_row_of_bytes_an_example(contents: Any) -> None:
    inputs = torch.zeros(4, 1, 8, 8).byte()
    examples = Examples(inputs=inputs, contents=torch.zeros(4, 32).byte())
    assert checked(examples, (1, 8, 8), None, "dataset 'x'") is examples
    with pytest.raises(DataError, match=r"dataset 'x' needs contents of torch\.uint8"):
        checked(Examples(inputs=inputs, contents=contents), (1, 8, 8), None, "dataset 'x'")
