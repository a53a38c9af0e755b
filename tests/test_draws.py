"""The published draws of labels are those that the code draws."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from zoo.pipeline import Workspace

ROOT = Path(__file__).resolve().parent.parent
PUBLISHED = sorted((ROOT / "benchmarks" / "draws").glob("*.json"))


def test_the_code_draws_what_is_published(
    real_data: Path, bench_script: Callable[[str], Any]
) -> None:
    texts = bench_script("draws").texts(Workspace(data=real_data))
    assert sorted(texts) == [path.name for path in PUBLISHED]
    for path in PUBLISHED:
        assert path.read_text() == texts[path.name], path.name


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.name)
def test_a_published_draw_is_as_large_as_it_says(path: Path) -> None:
    content = json.loads(path.read_text())
    name, _, count = path.stem.rpartition("-")
    assert content["dataset"] == {"name": name, "options": {}}
    assert content["examples"] == 60_000
    assert set(content["draws"]) == {count}
    drawn = content["draws"][count]
    assert list(drawn) == [str(seed) for seed in range(10)]
    for places in drawn.values():
        assert places == sorted(set(places))
        assert len(places) == int(count)
        assert 0 <= places[0] <= places[-1] < 60_000
    assert len({tuple(places) for places in drawn.values()}) == 10


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_the_few_of_a_seed_are_among_its_many(name: str) -> None:
    files = {path.stem: json.loads(path.read_text())["draws"] for path in PUBLISHED}
    for few, many in ((10, 100), (100, 1000)):
        for seed, places in files[f"{name}-{few}"][str(few)].items():
            assert set(places) <= set(files[f"{name}-{many}"][str(many)][seed])
