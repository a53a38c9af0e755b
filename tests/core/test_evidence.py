"""Statistics against scipy and written-out formulas; tables; the figure."""

from __future__ import annotations

import math
import re
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from zoo.evidence.figure import draw
from zoo.evidence.rows import HEADS, Measured, cells, markdown, rows
from zoo.evidence.spread import paired, spread, wilson

SHARES = st.floats(0, 1, allow_nan=False)


def test_a_spread_is_mean_and_sample_deviation() -> None:
    assert (spread([0.5]).mean, spread([0.5]).deviation) == (0.5, None)
    found = spread([0.2, 0.4, 0.9])
    assert found.mean == pytest.approx(0.5)
    assert found.deviation == pytest.approx(math.sqrt((0.3**2 + 0.1**2 + 0.4**2) / 2))
    assert found.count == 3


@given(st.lists(st.tuples(SHARES, SHARES), min_size=2, max_size=8))
def test_the_interval_of_paired_differences_is_students(pairs: list[tuple[float, float]]) -> None:
    ours, others = ({n: pair[side] for n, pair in enumerate(pairs)} for side in (0, 1))
    found = paired(ours, others)
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    differences = [a - b for a, b in pairs]
    test = stats.ttest_rel(*zip(*pairs, strict=True)) if statistics.stdev(differences) else None
    if test is None or math.isnan(test.statistic):
        assert found.low == pytest.approx(found.high)
        return
    low, high = test.confidence_interval(0.95)
    assert (found.low, found.high) == (
        pytest.approx(low, abs=1e-9),
        pytest.approx(high, abs=1e-9),
    )


def test_the_interval_written_out() -> None:
    """Five differences whose mean is 2 and deviation √2.5: t(4) is 2.776."""
    found = paired({n: float(n) for n in range(5)}, dict.fromkeys(range(5), 0.0))
    assert found is not None
    assert found.low is not None
    reach = 2.7764451 * math.sqrt(2.5) / math.sqrt(5)
    assert found.low == pytest.approx(2 - reach, abs=1e-6)


def test_only_pairs_count_and_one_pair_has_no_interval() -> None:
    found = paired({0: 0.9, 1: 0.8, 2: 0.1}, {0: 0.5, 3: 0.0})
    assert found is not None
    assert (found.count, found.mean) == (1, pytest.approx(0.4))
    assert (found.deviation, found.low, found.high) == (None, None, None)
    assert paired({0: 0.9}, {1: 0.5}) is None


@pytest.mark.parametrize(("correct", "total"), [(0, 10), (10, 10), (316, 360), (9873, 10000)])
def test_wilsons_interval_written_out(correct: int, total: int) -> None:
    z, share = statistics.NormalDist().inv_cdf(0.975), correct / total
    middle = (share + z**2 / (2 * total)) / (1 + z**2 / total)
    reach = z / (1 + z**2 / total) * math.sqrt(share * (1 - share) / total + z**2 / (4 * total**2))
    low, high = wilson(correct, total)
    assert low == pytest.approx(middle - reach, abs=1e-9)
    assert high == pytest.approx(middle + reach, abs=1e-9)
    assert low <= share <= high


def measured(*accuracies: float) -> list[Measured]:
    return [Measured(seed, accuracy, 3.0, 1.0) for seed, accuracy in enumerate(accuracies)]


def test_rows_are_paired_with_the_baseline_and_written_for_a_person() -> None:
    methods = {"scratch": measured(0.80, 0.82), "denoise": measured(0.84, 0.88), "none": []}
    base, other = rows(100, 100, methods, "scratch")
    assert cells(base) == ("100", "scratch", "81.00 ± 1.41 %", "", "", "", "2", "3.0", "1.0")
    shown = cells(other)
    assert shown[:5] == ("100", "denoise", "86.00 ± 2.83 %", "scratch", "+5.00")
    assert shown[5] == "-7.71 to +17.71"  # 5 ± 12.706 · 1.414 / √2
    text = markdown(HEADS, [cells(base), shown])
    assert [line.count("|") for line in text.splitlines()] == [10] * 4
    (alone,) = rows(None, 1437, {"denoise": measured(0.5)}, "scratch")
    assert cells(alone)[:5] == ("all 1,437", "denoise", "50.00 %", "", "")


def test_the_figure_is_the_same_from_the_same_rows() -> None:
    methods = {"scratch": measured(0.80, 0.82), "denoise": measured(0.84, 0.88)}
    made = [row for n in (10, 100) for row in rows(n, n, methods, "scratch")]
    first = draw(made, "mlp on digits", "what was fixed", "scratch")
    assert first["figure.png"].startswith(b"\x89PNG")
    assert draw(made, "mlp on digits", "what was fixed", "scratch") == first
    svg = first["figure.svg"].decode()
    for text in ("mlp on digits", "what was fixed", "denoise", "scratch", ">100<"):
        assert text in svg


def ticks(*accuracies: tuple[float, float]) -> set[str]:
    """Return what stands at the axis that these accuracies, with ever more labels, are drawn on."""
    counts = (10, 100, 1000)
    made = [
        rows(count, count, {"scratch": measured(*own)}, "scratch")[0]
        for count, own in zip(counts, accuracies, strict=False)
    ]
    svg = draw(made, "a title", "a caption", "scratch")["figure.svg"].decode()
    axis = svg.split('id="matplotlib.axis_2"')[1].split('id="patch_')[0]
    return set(re.findall(r">([\d.]+)</text>", axis))


def test_near_a_hundred_per_cent_the_axis_is_one_of_odds() -> None:
    assert {"70", "98", "99"} <= ticks((0.50, 0.60), (0.95, 0.96), (0.991, 0.993))
    assert not {"98", "99"} & ticks((0.50, 0.60), (0.80, 0.82), (0.90, 0.91))


@pytest.mark.parametrize("least", [0.0, 0.3])
def test_an_axis_of_odds_has_neither_none_nor_all(least: float) -> None:
    """Where every example is right, or none, the axis is the usual one."""
    assert "100" in ticks((least, least), (1.0, 1.0))
