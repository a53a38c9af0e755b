"""Write a small plugin package to start from: `zoo plugin new NAME`."""

from __future__ import annotations

import dataclasses
import keyword
import sys
from importlib import metadata, resources
from pathlib import Path
from string import Template

from zoo.api import API_VERSION
from zoo.errors import UsageError, ZooError
from zoo.folders import workshop
from zoo.registry import NAME, Registry

# What a package of a kind has beside its entry module, and how its component is tried.
IMPLEMENTATIONS = {
    "dataset": "data.py",
    "backbone": "model.py",
    "objective": "loss.py",
    "head": "head.py",
}
USES = {
    "dataset": "zoo pretrain mlp --dataset {}",
    "backbone": "zoo pretrain {}",
    "objective": "zoo pretrain mlp --objective {}",
    "head": "zoo finetune --backbone mlp --head {}",
    "recipe": "zoo run {}",
}


@dataclasses.dataclass(frozen=True)
class Scaffold:
    """A package that was written: where, its files, and a command that uses its component."""

    name: str
    module: str
    kind: str
    component: str
    folder: Path
    files: tuple[str, ...]
    use: str


def write(name: str, kind: str, folder: Path, registry: Registry) -> Scaffold:
    """Write the package `folder`/`name`, whole or not at all.

    Raises `UsageError` for a name that cannot be one, `ZooError` where the folder, the module or
    the component is there already.
    """
    module, component = _names(name, kind)
    target = folder / name
    if target.exists() or target.is_symlink():
        raise ZooError(f"'{target}' is there already; nothing was written. Choose another name.")
    _check_free(name, module, kind, component, registry)
    texts = _texts(name, module, kind, component)
    # Beside the target, so that renaming makes it appear at once.
    with workshop(target) as place:
        draft = place / name
        draft.mkdir()
        for path, text in texts.items():
            file = draft / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        draft.rename(target)
    use = USES[kind].format(component)
    return Scaffold(name, module, kind, component, target, tuple(sorted(texts)), use)


def _names(name: str, kind: str) -> tuple[str, str]:
    """Return the module's and the component's name; raises `UsageError`."""
    allowed = f"A name is kebab-case and begins with a letter: zoo-my-{kind}"
    component = name.removeprefix("zoo-")
    if not NAME.fullmatch(name) or not component[0].isalpha() or not name.isascii():
        raise UsageError(f"'{name}' cannot be the name of a package. {allowed}")
    module = name.replace("-", "_")
    if keyword.iskeyword(module) or module in sys.stdlib_module_names or module == "tests":
        raise UsageError(f"'{name}' would hide Python's own '{module}'. Type: zoo-{name}")
    return module, component


def _check_free(name: str, module: str, kind: str, component: str, registry: Registry) -> None:
    owners = metadata.packages_distributions().get(module, [])
    if owners or module == "zoo":
        owner = owners[0] if owners else "plugzoo"
        raise ZooError(
            f"The module '{module}' is installed already, by {owner}; nothing was written."
            " Choose another name."
        )
    if component in registry.names(kind):
        plugins = ", ".join(e.plugin for e in registry.entries(kind) if e.name == component)
        raise ZooError(
            f"The {kind} '{component}' comes from {plugins} already; nothing was written."
            " Choose another name."
        )


def _texts(name: str, module: str, kind: str, component: str) -> dict[str, str]:
    implementation = IMPLEMENTATIONS.get(kind)
    values = {
        "name": name,
        "module": module,
        "kind": kind,
        "component": component,
        "identifier": component.replace("-", "_"),
        "class_name": "".join(part.capitalize() for part in component.split("-")),
        "api": API_VERSION,
        "plugzoo": metadata.version("plugzoo"),
        "use": USES[kind].format(component),
        "implementation": f"- `{module}/{implementation}` is what it builds.\n"
        if implementation
        else "",
    }
    files = {
        "pyproject.toml": "any/pyproject.toml.txt",
        "README.md": "any/README.md.txt",
        "tests/test_conformance.py": "any/test_conformance.py.txt",
        f"{module}/__init__.py": f"{kind}/__init__.py.txt",
    }
    if implementation:
        files[f"{module}/{implementation}"] = f"{kind}/{implementation}.txt"
    templates = resources.files("zoo") / "templates"
    return {
        path: Template((templates / template).read_text(encoding="utf-8")).substitute(values)
        for path, template in files.items()
    }
