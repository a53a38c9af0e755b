"""`report`: a finished run → one page, without a reading of the test split."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path

from zoo.errors import UsageError, ZooError
from zoo.folders import check_writable, write_atomic
from zoo.pipeline import observing
from zoo.pipeline.evaluation import describe
from zoo.pipeline.identity import digest_test, read
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
    record = run.record
    return Facts(
        record=record,
        metrics=run.metrics(),
        parameters=seen.parameters,
        tested=_tested(run),
        doubts=_doubts(run, workspace),
        autoencoded=seen.autoencoded,
        mapped=seen.mapped,
        looked=seen.looked,
        groups=configuration.groups_of(record, workspace.registry),
        lineage=lineage,
        proofs=records.proofs_of(run),
        commands=configuration.commands_of(record, parents, workspace.registry),
        watch=seen.watch,
    )


# never elsewhere: digest_test
def _doubts(run: Run, workspace: Workspace) -> list[str]:
    """Hold the last reading of the test split against the split as it is; no model is asked."""
    readings = [test for test in run.record.tests if "accuracy" in test]
    if not readings:
        return []
    last, said = readings[-1], []
    if left_out := last.get("left_out"):
        said.append(f"{left_out:,} more test examples were left out: the run has seen them.")
    with contextlib.suppress(ZooError):  # a data set that is gone: what it lacks is told elsewhere
        test = digest_test(*describe(run, workspace))
        known = read(run)
        if test is not None and known is not None:
            leaked = int(known.leaked(test.examples).sum())
            before = run.record.data and run.record.data.splits.get("test")
            if before and before.sha256 != test.sha256:
                seen = f", {leaked:,} of which the run has seen in training" if leaked else ""
                said.append(
                    f"The test split changed since the run was made: {before.examples:,} examples"
                    f" then, {len(test):,} now{seen}."
                )
    for text in said:
        current().note(f"{run.name}: {text}")
    return said


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
