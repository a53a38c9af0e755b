"""Find what is meant by a name, a file or a module, and check it."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from zoo.config import knobs, parse_pairs
from zoo.errors import PluginFault, UnknownName, did_you_mean, listing
from zoo.progress import Silent, current, reporting
from zoo.registry import KINDS, Entry, Plugin, Registry
from zoo.testing.backbones import check_backbone
from zoo.testing.datasets import check_dataset
from zoo.testing.entry import Import
from zoo.testing.heads import check_head
from zoo.testing.objectives import check_objective_component
from zoo.testing.options import complete
from zoo.testing.recipes import check_recipe
from zoo.testing.report import ComponentReport, PluginReport, Report, Row, Rows, Skipped


def assert_conforms(
    kind: str, name: str, /, *, plugins: Sequence[ModuleType] = (), **options: Any
) -> None:
    """Check one component of the installed plugins, and raise AssertionError where it fails.

    `plugins` are modules to look in instead of those installed. `options` are those to build it
    with; required ones that nobody can guess must be among them. What could not be checked, as
    a data set whose files are not at hand, is a failure too.
    """
    registry = Registry(plugins=plugins) if plugins else Registry.installed()
    for plugin in registry.plugins if plugins else ():
        if plugin.cause:
            raise AssertionError(f"{plugin.name} does not load: {plugin.cause}")
    try:
        entry = registry.lookup(kind, name)
    except UnknownName as error:
        raise AssertionError(f"{error} Is the package installed? Type: pip install -e .") from None
    report = _report(registry, [entry], options, None)
    if report.verdict != "conforms":
        raise AssertionError(report.explain())


def check(
    target: str | Path,
    *,
    registry: Registry | None = None,
    settings: Sequence[str] = (),
    data_root: Path | None = None,
) -> Report:
    """Check a plugin and everything that it contributes, or every component of a name.

    `target` is a plugin's name, either half of it, a component's name, or a plugin file.
    `settings` are `key=value` texts: options for the components that have them. Raises
    `UnknownName` where nothing is meant, `PluginFault` where the plugin does not load.
    """
    text = str(target)
    if text.endswith(".py"):
        registry = _with_file(Path(text), registry)
        plugins = [plugin for plugin in registry.plugins if plugin.module == str(Path(text))]
    else:
        registry = registry or Registry.installed()
        plugins = [plugin for plugin in registry.plugins if plugin.matches(text)]
    for plugin in plugins:
        if plugin.cause:
            raise PluginFault(f"Plugin {plugin.name} does not load: {plugin.cause}.")
    entries = [e for plugin in plugins for e in registry.components_of(plugin.name)]
    entries = entries or [e for kind in KINDS for e in registry.entries(kind) if e.name == text]
    if not entries:
        names = {half for plugin in registry.plugins for half in plugin.name.split(":")}
        components = {name for kind in KINDS for name in registry.names(kind)}
        if (Path(text) / "pyproject.toml").is_file():
            raise UnknownName(
                f"'{text}' is not installed. Type: pip install -e {Path(text).absolute()}"
            )
        raise UnknownName(
            f"No plugin and no component is named '{text}'."
            f"{did_you_mean(text, names | components)} Plugins: {listing(names)}."
            " Type a plugin's name, a component's, or a file: my_backbone.py"
        )
    return _report(registry, entries, settings, data_root)


def _with_file(path: Path, registry: Registry | None) -> Registry:
    """Return a registry that holds the file too; a recipe in it may name installed components."""
    if registry and any(plugin.module == str(path) for plugin in registry.plugins):
        return registry
    return Registry.installed([path])


def _report(
    registry: Registry,
    entries: Sequence[Entry],
    options: Mapping[str, Any] | Sequence[str],
    data_root: Path | None,
) -> Report:
    values = _options(entries, options)
    found = []
    shown = current().task("checking", len(entries), "components")
    # The short trainings of the checks are not what a person waits for.
    with torch.random.fork_rng(devices=[]), shown as task, reporting(Silent()):
        done = 0
        for plugin in [p for p in registry.plugins if any(e.plugin == p.name for e in entries)]:
            rows, imported = Rows(), Import()
            rows.add("light import", functools.partial(imported.check, plugin))
            reports = []
            for entry in (e for e in entries if e.plugin == plugin.name):
                task.update(done, len(entries), entry.owner)
                reports.append(_component(registry, entry, values[entry.owner], data_root))
                done += 1
            found.append(_plugin(plugin, imported, rows, reports))
    return Report(tuple(found))


def _plugin(
    plugin: Plugin, imported: Import, rows: Rows, reports: list[ComponentReport]
) -> PluginReport:
    return PluginReport(
        name=plugin.name,
        version=plugin.version,
        module=plugin.module,
        import_seconds=imported.seconds,
        rows=tuple(rows.found),
        components=tuple(reports),
    )


def _options(
    entries: Sequence[Entry], options: Mapping[str, Any] | Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Give each component those options that it has; raises `UnknownName` where none has one."""
    if isinstance(options, Mapping):
        return {entry.owner: dict(options) for entry in entries}
    known = {
        entry.owner: {knob.name for knob in knobs(entry.spec.config)}
        for entry in entries
        if entry.kind != "recipe"
    }
    values: dict[str, dict[str, Any]] = {entry.owner: {} for entry in entries}
    for pair in options:
        key = pair.partition("=")[0].strip().replace("-", "_")
        having = [entry for entry in entries if key in known.get(entry.owner, ())]
        if not having:
            names = set().union(*known.values()) if known else set()
            raise UnknownName(
                f"No component that is checked has an option '{key}'."
                f"{did_you_mean(key, names)} Options: {listing(names)}."
            )
        for entry in having:
            values[entry.owner] |= parse_pairs(entry.spec.config, [pair], entry.owner)
    return values


def _component(
    registry: Registry, entry: Entry, given: Mapping[str, Any], data_root: Path | None
) -> ComponentReport:
    if entry.kind == "recipe":
        return check_recipe(registry, entry, data_root)
    try:
        if entry.kind == "objective":
            return check_objective_component(registry, entry, given)
        options = complete(entry, given)
    except Skipped as reason:
        return ComponentReport(entry.kind, entry.name, (Row("options", "skipped", str(reason)),))
    if entry.kind == "dataset":
        return check_dataset(registry, entry, options, data_root)
    check = check_backbone if entry.kind == "backbone" else check_head
    return check(entry, options)
