"""Discover plugins, isolate their failures, attribute their components, look names up."""

from __future__ import annotations

import copy
import dataclasses
import functools
import importlib.util
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import pluggy

from zoo import api, hookspecs
from zoo.config import knobs, make, to_json
from zoo.errors import (
    DuplicateName,
    PluginFault,
    UnknownName,
    UsageError,
    did_you_mean,
    listing,
)
from zoo.isolation import as_guest, cause_of, check_version, place, shortened

SPECS: dict[str, type] = {
    "dataset": api.DatasetSpec,
    "backbone": api.BackboneSpec,
    "objective": api.ObjectiveSpec,
    "head": api.HeadSpec,
    "recipe": api.RecipeSpec,
}
KINDS = tuple(SPECS)
ENTRY_POINTS = "zoo"
SLOW = 2.0
"""Seconds from which a plugin's import is told to the user as slow: every command waits for it."""
NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


@dataclasses.dataclass
class Plugin:
    """One plugin, loaded or failed: `name` is `distribution:entry-point` or `file:module`.

    `seconds` is what importing it and calling its hooks took; `hooks` are those it implements,
    whether or not they work. `changed` names what it changed meanwhile of what is everybody's, and
    what was put back: the working folder, torch's default dtype.
    """

    name: str
    version: str
    module: str
    seconds: float = 0.0
    hooks: tuple[str, ...] = ()
    cause: str | None = None
    changed: tuple[str, ...] = ()

    def matches(self, wanted: str) -> bool:
        """Say whether `distribution:entry-point`, or either half of it, names the plugin."""
        return wanted == self.name or wanted in self.name.split(":")


@dataclasses.dataclass(frozen=True)
class Entry:
    """One registered component and the plugin that contributed it.

    `told` is what the user was told already that its code changed and zoo put back.
    """

    kind: str
    spec: Any
    plugin: str
    version: str
    told: set[str] = dataclasses.field(default_factory=set, compare=False, repr=False)

    @property
    def name(self) -> str:
        return str(self.spec.name)

    @property
    def owner(self) -> str:
        return f"{self.kind} '{self.name}'"

    @property
    def origin(self) -> str:
        """The plugin and its version; a file has none."""
        return self.plugin if self.version == "-" else f"{self.plugin} {self.version}"

    def configure(self, options: dict[str, Any] | Any) -> Any:
        """Build the component's config from its options; raises `BadOption`."""
        return make(self.spec.config, options, self.owner)


class Registry:
    """Hold the components of plugins; `Registry.installed()` discovers the entry points.

    `Registry(plugins=[module, ...])` holds those alone: for tests and for single files.
    """

    def __init__(self, plugins: Sequence[object] = ()) -> None:
        self.plugins: list[Plugin] = []
        self._manager = pluggy.PluginManager("zoo")
        self._manager.add_hookspecs(hookspecs)
        self._entries: dict[str, dict[str, list[Entry]]] = {kind: {} for kind in KINDS}
        self._preferred: str | None = None
        self.files: tuple[Path, ...] | None = None
        """The plugin files beside what is installed; None where plugins were given as objects."""
        for module in plugins:
            name = getattr(module, "__name__", type(module).__name__)
            self._add(Plugin(name=f"file:{name}", version="-", module=name), lambda m=module: m)

    @classmethod
    def installed(cls, files: Iterable[Path] = ()) -> Registry:
        """Discover every entry point of the group `zoo`, then the plugin files given."""
        registry = cls()
        registry.files = tuple(files)
        for plugin, load in sorted(_entry_points(), key=lambda found: found[0].name):
            registry._add(plugin, load)
        for path in registry.files:
            if not path.is_file():
                raise UsageError(f"Plugin file '{path}' does not exist.")
            plugin = Plugin(name=f"file:{path.stem}", version="-", module=str(path))
            registry._add(plugin, lambda path=path: load_file(path))
        return registry

    def lookup(self, kind: str, name: str, *, plugin: str | None = None) -> Entry:
        """Return the component; raises `UnknownName` or `DuplicateName`.

        Of several with that name, `plugin` is the one meant: a run knows what it was made with.
        """
        entries = self._entries[kind].get(name, [])
        entries = [entry for entry in entries if entry.plugin == plugin] or entries
        if not entries:
            known = self._entries[kind]
            raise UnknownName(
                f"Unknown {kind} '{name}'.{did_you_mean(name, known)}"
                f" Installed: {listing(known)}.{self._suspects()}"
            )
        if len(entries) == 1:
            return entries[0]
        return self._settle(kind, name, entries)

    def preferring(self, distribution: str) -> Registry:
        """Return the same registry, where of duplicate names those of a distribution win.

        ZOO_PLUGINS comes first. For recipes: the components that they name are their own.
        """
        other = copy.copy(self)
        other._preferred = distribution
        return other

    def entries(self, kind: str) -> list[Entry]:
        """Return every component of a kind by name; of a duplicate name, each of them."""
        return [
            entry for name in sorted(self._entries[kind]) for entry in self._entries[kind][name]
        ]

    def names(self, kind: str) -> list[str]:
        return sorted(self._entries[kind])

    def rivals(self, entry: Entry) -> list[str]:
        """Return the other plugins that contribute a component of the same kind and name."""
        return [e.plugin for e in self._entries[entry.kind][entry.name] if e is not entry]

    def components_of(self, plugin: str) -> list[Entry]:
        return [e for kind in KINDS for e in self.entries(kind) if e.plugin == plugin]

    # --- loading ----------------------------------------------------------------------------

    def _add(self, plugin: Plugin, load: Any) -> None:
        self.plugins.append(plugin)
        started = time.perf_counter()
        module = None
        changed: list[str] = []
        try:
            with as_guest(changed):
                module = load()
                check_version(getattr(module, "ZOO_API", None))
                entries = self._register(plugin, module)
        # A plugin that calls sys.exit() while it is imported must not end the command.
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                error.add_note(f"Plugin {plugin.name} was being loaded{place(error)}.")
                error.add_note(_without(plugin))
                raise
            plugin.cause = cause_of(error, module, plugin.module)
            if os.environ.get("ZOO_STRICT") == "1":
                # sys.exit() would end the command without a word.
                if isinstance(error, PluginFault | SystemExit):
                    raise PluginFault(f"Plugin {plugin.name}: {plugin.cause}") from error
                raise
            if module is not None and self._manager.is_registered(module):
                self._manager.unregister(module)
        else:
            for entry in entries:
                self._entries[entry.kind].setdefault(entry.name, []).append(entry)
        finally:
            plugin.seconds = time.perf_counter() - started
            plugin.changed = tuple(changed)

    def _register(self, plugin: Plugin, module: Any) -> list[Entry]:
        hooks = {kind: f"zoo_{kind}s" for kind in KINDS}
        plugin.hooks = tuple(
            hook
            for hook in hooks.values()
            if self._manager.parse_hookimpl_opts(module, hook) is not None
        )
        _check_hook_names(self._manager, module)
        if self._manager.register(module, plugin.name) is None:
            raise PluginFault("the plugin is blocked")
        self._manager.check_pending()
        entries: list[Entry] = []
        for kind, hook in hooks.items():
            found = self._call(hook, kind, module)
            entries += [Entry(kind, spec, plugin.name, plugin.version) for spec in found]
        if not plugin.hooks:
            raise PluginFault("no function of it is marked with @hookimpl, so it adds nothing")
        seen = [(entry.kind, entry.name) for entry in entries]
        twice = next((key for key in seen if seen.count(key) > 1), None)
        if twice:
            raise PluginFault(f"it contributes two {twice[0]}s named '{twice[1]}'")
        return entries

    def _implements(self, hook: str, module: Any) -> bool:
        impls = getattr(self._manager.hook, hook).get_hookimpls()
        return any(impl.plugin is module for impl in impls)

    def _call(self, hook: str, kind: str, module: Any) -> Iterator[Any]:
        if not self._implements(hook, module):
            if callable(getattr(module, hook, None)):
                raise PluginFault(f"{hook} is not marked with @hookimpl")
            return
        for impl in getattr(self._manager.hook, hook).get_hookimpls():
            if impl.plugin is not module:
                continue
            result = impl.function()
            if not isinstance(result, Iterable) or isinstance(result, str | bytes):
                raise PluginFault(f"{hook}() returned {shortened(result)}, not a list of specs")
            for spec in result:
                _check(spec, kind, hook)
                yield spec

    # --- names ------------------------------------------------------------------------------

    @property
    def unmatched(self) -> list[str]:
        """Return what ZOO_PLUGINS names that no plugin is called."""
        return [w for w in _order() if not any(plugin.matches(w) for plugin in self.plugins)]

    def _settle(self, kind: str, name: str, entries: list[Entry]) -> Entry:
        for wanted in _order():
            meant = [plugin.name for plugin in self.plugins if plugin.matches(wanted)]
            matching = [entry for entry in entries if entry.plugin in meant]
            if len(matching) == 1:
                return matching[0]
        files = [entry for entry in entries if entry.plugin.startswith("file:")]
        if len(files) == 1:  # the user has just named it
            return files[0]
        own = [entry for entry in entries if entry.plugin.split(":")[0] == self._preferred]
        if len(own) == 1:
            return own[0]
        plugins = sorted(entry.plugin for entry in entries)
        unmatched = listing(self.unmatched) if self.unmatched else ""
        note = f" ZOO_PLUGINS names no installed plugin: {unmatched}." if unmatched else ""
        raise DuplicateName(
            f"{kind.capitalize()} '{name}' comes from {len(plugins)} plugins:"
            f" {' and '.join(plugins)}.{note} Say which one wins: ZOO_PLUGINS={plugins[0]}"
        )

    def _suspects(self) -> str:
        failed = [plugin for plugin in self.plugins if plugin.cause]
        if not failed:
            return ""
        causes = "".join(f"\n  {plugin.name}: {plugin.cause}" for plugin in failed)
        return f"\nIt may belong to a plugin that failed to load; see: zoo plugins{causes}"


def _without(plugin: Plugin) -> str:
    """Say how to do without a plugin."""
    distribution, _, _ = plugin.name.partition(":")
    if distribution == "file":
        return f"To do without it, leave out: --plugin {plugin.module}"
    return f"To do without it, type: pip uninstall {distribution}"


def _order() -> list[str]:
    """Return the plugins that win, the first one first: ZOO_PLUGINS."""
    parts = os.environ.get("ZOO_PLUGINS", "").split(",")
    return [part.strip() for part in parts if part.strip()]


def _check_hook_names(manager: pluggy.PluginManager, module: Any) -> None:
    """Say which hook was meant; `check_pending` would only say that one is unknown."""
    known = [f"zoo_{kind}s" for kind in KINDS]
    for name in dir(module):
        if name not in known and manager.parse_hookimpl_opts(module, name) is not None:
            raise PluginFault(
                f"unknown hook '{name}'.{did_you_mean(name, known)} Hooks: {', '.join(known)}"
            )


def _check(spec: Any, kind: str, hook: str) -> None:
    wanted: Any = SPECS[kind]
    if not isinstance(spec, wanted):
        raise PluginFault(f"{hook}() gave {shortened(spec)}, not a {wanted.__name__}")
    if not isinstance(spec.name, str) or not NAME.fullmatch(spec.name):
        raise PluginFault(f"{hook}() names a {kind} {spec.name!r}; names are kebab-case: my-{kind}")
    if not isinstance(spec.summary, str):
        raise PluginFault(f"the summary of {kind} '{spec.name}' is not text")
    if kind == "recipe":
        _check_recipe(spec)
        return
    if not callable(spec.build):
        raise PluginFault(f"the build of {kind} '{spec.name}' cannot be called")
    try:
        knobs(spec.config)
    except (TypeError, NameError) as error:
        raise PluginFault(f"{kind} '{spec.name}': {error}") from error


def _check_recipe(spec: api.RecipeSpec) -> None:
    wanted: dict[str, type] = {
        **dict.fromkeys(("dataset", "backbone", "objective", "head"), api.Component),
        **dict.fromkeys(("pretraining", "finetuning"), api.TrainConfig),
        "finetune": api.FinetuneConfig,
        "pretrain": api.PretrainConfig,
        "self_train": api.SelfTrainConfig,
        "scratch": bool,
        "seeds": tuple,
    }
    if spec.pretrain_dataset is not None:
        wanted["pretrain_dataset"] = api.Component
    for name in ("self_training", "scratch_finetuning"):
        if getattr(spec, name) is not None:
            wanted[name] = api.TrainConfig
    if spec.scratch_finetune is not None:
        wanted["scratch_finetune"] = api.FinetuneConfig
    for field, kind in wanted.items():
        value = getattr(spec, field)
        if not isinstance(value, kind):
            raise PluginFault(f"recipe '{spec.name}': its {field} is not a {kind.__name__}")
        if dataclasses.is_dataclass(kind) and kind is not api.Component:
            make(kind, to_json(value), f"recipe '{spec.name}': {field}")


def _entry_points() -> Iterator[tuple[Plugin, Callable[[], Any]]]:
    """Yield the entry points of every installed distribution, each read in its own try.

    The first of two distributions of one name wins, as it does for `import`.
    """
    seen: set[str] = set()
    for distribution in metadata.distributions():
        name, version = "unknown", "-"
        try:
            points = [p for p in distribution.entry_points if p.group == ENTRY_POINTS]
            if not points:
                continue
            stated = distribution.metadata
            name = next(iter(stated.get_all("Name") or ()), "") or name
            version = next(iter(stated.get_all("Version") or ()), "") or version
            if name in seen:
                continue
            seen.add(name)
        except Exception as error:  # a damaged installation of something else, most likely
            yield Plugin(f"{name}:?", version, "?"), functools.partial(_reraise, error)
            continue
        for point in points:
            yield Plugin(f"{name}:{point.name}", version, point.value), point.load


def _reraise(error: Exception) -> Any:
    raise PluginFault(f"its installed metadata is damaged: {type(error).__name__}: {error}")


def load_file(path: Path) -> Any:
    name = f"zoo_plugin_file_{path.stem}"  # never in the way of an installed module
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise PluginFault(f"'{path}' is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    if str(path.parent.absolute()) not in sys.path:  # last: what it has beside it is found
        sys.path.append(str(path.parent.absolute()))
    spec.loader.exec_module(module)
    return module
