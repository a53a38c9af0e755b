"""`report`: a finished run → one page, without a reading of the test split."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zoo.digests import Digested
from zoo.errors import RunError, UsageError, ZooError
from zoo.folders import check_writable, write_atomic
from zoo.pipeline import observing
from zoo.pipeline.evaluation import describe
from zoo.pipeline.identity import UNKEPT, Identity, digest_test, read
from zoo.pipeline.workspace import Workspace
from zoo.progress import current
from zoo.report import configuration, outcomes, records
from zoo.report.facts import Absent, Facts
from zoo.report.outcomes import Outcomes
from zoo.report.page import render
from zoo.runs import Run
from zoo.training import cpu_threads


@dataclasses.dataclass(frozen=True)
class Reported:
    """A report and where it lies; `missing` says of each part that could not be shown why."""

    report: Path
    run: str
    bytes: int
    missing: list[str]


def report(
    run: Run | str | Path,
    output: str | Path | None = None,
    *,
    workspace: Workspace | None = None,
) -> Reported:
    """Write a finished run's report: one HTML file that loads nothing from anywhere.

    `output` is `report.html` in the run's folder unless it is given. Nothing reads the test split:
    what `evaluate` left in the run is shown. What is not at hand any more, such as a data set's
    files, is told in its place. Raises `RunError` and `UsageError`.
    """
    workspace = workspace or Workspace()
    run = workspace.finished(run)
    target = Path(output) if output is not None else run.folder / "report.html"
    check_writable(target)
    if target.suffix != ".html":
        named = target.with_suffix(".html")
        raise UsageError(f"'{target}' must end in .html. Type: -o {named}")
    with cpu_threads(run.record.threads):
        facts = gather(run, workspace)
        current().note("drawing")
        page = render(facts).encode("utf-8", "replace")
    write_atomic(target, page)
    parts = {
        "test": facts.tested,
        "reconstructions": facts.autoencoded,
        "map": facts.mapped,
        "saliency": facts.looked,
        "proof": facts.proofs,
    }
    missing = [f"{k}: {part.reason}" for k, part in parts.items() if isinstance(part, Absent)]
    return Reported(target, run.name, len(page), missing)


def gather(run: Run, workspace: Workspace) -> Facts:
    """Collect all that a report tells of a run."""
    lineage = records.lineage_of(run, workspace.runs_root)
    parents = [step.record for step in lineage if step.record]
    seen = observing.observe(run, workspace)
    record, tested = run.record, _tested(run)
    return Facts(
        record=record,
        metrics=run.metrics(),
        parameters=seen.parameters,
        tested=tested,
        doubts=_doubts(run, workspace, tested),
        autoencoded=seen.autoencoded,
        mapped=seen.mapped,
        looked=seen.looked,
        groups=configuration.groups_of(record, workspace.registry),
        lineage=lineage,
        proofs=records.proofs_of(run),
        commands=configuration.commands_of(record, parents, workspace.registry),
        watch=seen.watch,
    )


def _doubts(run: Run, workspace: Workspace, tested: Outcomes | Absent | None) -> list[str]:
    """Hold the reading that a report shows against the test split as it is."""
    shown = _reading(run, tested)
    if shown is None:
        return []
    said = []
    if left_out := shown.get("left_out"):
        said.append(f"{left_out:,} more test examples were left out: the run has seen them.")
    try:
        known = read(run)
        unknown = [UNKEPT.format("The run")] if run.record.data is None else run.record.data.unknown
        said += [f"{why}: whether a test example was trained on is not known." for why in unknown]
        said += _change(shown, known, _test_split(run, workspace))
    except RunError as error:
        said.append(str(error))
    for text in said:
        current().note(f"{run.name}: {text}")
    return said


def _reading(run: Run, tested: Outcomes | Absent | None) -> dict[str, Any] | None:
    """Return the reading by `evaluate` that a report shows; None where there is none."""
    readings = run.record.evaluations
    when = tested.when if isinstance(tested, Outcomes) else None
    shown = [reading for reading in readings if reading.get("when") == when] or readings
    return shown[-1] if shown else None


# never elsewhere: digest_test
def _test_split(run: Run, workspace: Workspace) -> Digested | None:
    """Digest the test split as it is, no model is asked; None where it is gone."""
    with contextlib.suppress(ZooError):  # what a report lacks without it is told elsewhere
        return digest_test(*describe(run, workspace))
    return None


def _change(
    reading: dict[str, Any], known: Identity | None, test: Digested | None
) -> Iterator[str]:
    """Say how a test split differs from the one that was measured, if that is known."""
    left_out = reading.get("left_out", 0)
    measured = reading.get("whole_sha256" if left_out else "test_sha256")
    if test is None or measured in (None, test.sha256):
        return
    leaked = 0 if known is None else int(known.leaked(test).sum())
    seen = f", {leaked:,} of which the run has seen in training" if leaked else ""
    yield (
        f"The test split changed since the run was measured: {reading['examples'] + left_out:,}"
        f" examples then, {len(test):,} now{seen}."
    )


def _tested(run: Run) -> Outcomes | Absent | None:
    if run.record.kind == "pretrain":
        return None
    command = f"zoo evaluate {run.name}"
    found = outcomes.load(run)
    if isinstance(found, Outcomes):
        return found
    if not run.record.evaluations:
        return Absent(reason="This run was not evaluated yet.", command=command)
    reason = f"What the evaluation showed example by example is not at hand: {found}."
    return Absent(reason=reason, command=command)
