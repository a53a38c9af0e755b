"""What the kit found: rows, each with its figure and what to change, and one verdict."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from typing import Any, Literal

from zoo.errors import ZooError
from zoo.isolation import place, stdout_to_stderr

State = Literal["ok", "FAILED", "skipped"]
Verdict = Literal["conforms", "incomplete", "fails"]


class Failure(Exception):
    """A check that failed: the figure it was judged by, and what to change."""

    def __init__(self, figure: str, change: str) -> None:
        super().__init__(figure)
        self.change = change


class Skipped(Exception):
    """A check that could not be made, and why."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One check: its name, what came of it, the figure, and what to change where it failed."""

    check: str
    state: State
    figure: str
    change: str = ""


@dataclasses.dataclass(frozen=True)
class Size:
    """What a module weighs on one input: parameters, and multiply-accumulates of one example."""

    on: str
    part: str
    parameters: int
    macs: int


@dataclasses.dataclass(frozen=True)
class ComponentReport:
    """The rows of one component."""

    kind: str
    name: str
    rows: tuple[Row, ...]
    sizes: tuple[Size, ...] = ()


@dataclasses.dataclass(frozen=True)
class PluginReport:
    """One plugin: rows of its own, and its components. `import_seconds` is of a fresh process."""

    name: str
    version: str
    module: str
    import_seconds: float | None
    rows: tuple[Row, ...]
    components: tuple[ComponentReport, ...]


@dataclasses.dataclass(frozen=True)
class Report:
    """What was found of each plugin, and the verdict on all of it."""

    plugins: tuple[PluginReport, ...]

    @property
    def rows(self) -> list[tuple[str, Row]]:
        """Every row with what it is about: a plugin's name, or `backbone mlp`."""
        found: list[tuple[str, Row]] = []
        for plugin in self.plugins:
            found += [(plugin.name, row) for row in plugin.rows]
            for each in plugin.components:
                found += [(f"{each.kind} {each.name}", row) for row in each.rows]
        return found

    @property
    def verdict(self) -> Verdict:
        states = {row.state for _, row in self.rows}
        if "FAILED" in states or not states:
            return "fails"
        return "incomplete" if "skipped" in states else "conforms"

    def to_json(self) -> dict[str, Any]:
        return {"verdict": self.verdict, **dataclasses.asdict(self)}

    def explain(self) -> str:
        """Say what failed or was not checked, and what to change; empty where all is well."""
        lines = []
        skipped: dict[tuple[str, str], list[str]] = {}  # those of one reason stand together
        for about, row in self.rows:
            if row.state == "FAILED":
                figure = row.figure.replace("\n", "\n  ")
                lines.append(f"{about}: {row.check} FAILED: {figure}")
                lines += [f"  Change: {row.change}"] if row.change else []
            elif row.state == "skipped":
                skipped.setdefault((about, row.figure), []).append(row.check)
        for (about, reason), checks in skipped.items():
            lines.append(f"{about}: {', '.join(checks)} not checked: {reason}")
        return "\n".join(lines)


class Rows:
    """Collect rows: each check is a call that returns its figure, or raises."""

    def __init__(self) -> None:
        self.found: list[Row] = []

    def add(self, name: str, check: Callable[[], str], change: str = "") -> bool:
        """Make a check; `change` is said where it raises. Returns whether it passed."""
        try:
            with stdout_to_stderr():
                row = Row(name, "ok", check())
        except Failure as failure:
            row = Row(name, "FAILED", str(failure), failure.change)
        except Skipped as reason:
            row = Row(name, "skipped", str(reason))
        except ZooError as error:
            row = Row(name, "FAILED", _line(error), change)
        except Exception as error:
            if os.environ.get("ZOO_STRICT") == "1":
                raise
            row = Row(name, "FAILED", described(error), TRACEBACK)
        self.found.append(row)
        return row.state == "ok"


TRACEBACK = "see that line; ZOO_STRICT=1 shows the whole traceback."


def described(error: Exception) -> str:
    """Say what a component's own code raised, and at which line of it."""
    return f"{type(error).__name__}: {_line(error).rstrip('.')}{place(error)}"


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else text[:297] + "..."
