"""The public surface, held against the stored `api_surface.txt`.

`python tests/core/test_api_surface.py` stores it anew: after the API_VERSION was raised.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import inspect
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pluggy
import pytest

from zoo import api, hookspecs

STORED = Path(__file__).with_name("api_surface.txt")
WIDTH = 100

REQUIRED = {
    "Dataset": {"input", "classes", "train"},
    "DatasetSpec": {"name", "summary", "build"},
    "BackboneSpec": {"name", "summary", "build"},
    "Component": {"name", "options"},  # written out in its own __init__
    "Examples": {"inputs"},
    "HeadSpec": {"name", "summary", "build"},
    "ImageInput": {"channels", "height", "width"},
    "ObjectiveSpec": {"name", "summary", "build"},
    "RecipeSpec": {
        "name", "summary", "dataset", "backbone", "objective", "head", "pretraining", "finetuning"
    },
}  # fmt: skip
"""The fields that plugins had to give in 1.0, by dataclass; the others have none. Never more."""

UNLISTED = {
    "UnknownField": "raised by the specs themselves; a plugin has nothing to catch it for",
}
"""The names of zoo's own in `zoo.api` that `__all__` leaves out, and why."""

RULE = """\
A field or a name more is a new minor API_VERSION; something taken away or changed is a new major
one, for plugins that use it stop working. Change API_VERSION in zoo/api.py, docs/hooks.md and the
changelog; then store the surface anew: python tests/core/test_api_surface.py"""


# --- signatures, written from what stands in the code, not from what an interpreter shows ------


def signature(name: str, value: Any, width: int = WIDTH) -> str:
    """Write a public name as Python code, one parameter a line where it is wider than `width`."""
    if isinstance(value, str):
        return f"{name} = {_literal(value)}"
    if isinstance(value, pluggy.HookimplMarker):
        return f"{name} = pluggy.HookimplMarker({_literal(value.project_name)})"
    if get_origin(value) is Literal:
        return f"{name} = Literal[{', '.join(map(_literal, get_args(value)))}]"
    if not inspect.isclass(value):
        return _callable(name, inspect.signature(value), width)
    if issubclass(value, Exception):
        return f"class {name}({', '.join(base.__name__ for base in value.__bases__)})"
    if getattr(value, "_is_protocol", False):
        return "\n".join([f"class {name}(Protocol):", *(f"    {m}" for m in members(value))])
    if _is_written_by_its_fields(value):
        fields = [_field(field) for field in dataclasses.fields(value)]
        star = ["*"] if fields and _is_keyword_only(value) else []
        return _written(name, [*star, *fields], "", width)
    return _callable(name, inspect.signature(value.__init__), width)


def members(cls: type) -> Iterator[str]:
    """Write the attributes, properties and methods of a class that its signature leaves out."""
    if not _is_written_by_its_fields(cls):
        annotated = inspect.get_annotations(cls)
        yield from (f"{name}: {_annotation(text)}" for name, text in annotated.items())
        yield from sorted(vars(cls).get("__slots__", ()))
    if issubclass(cls, Exception):
        own = sorted(name for name in vars(cls) if not name.startswith("_"))
        yield from (f"{name} = {vars(cls)[name]!r}" for name in own)
    for name, value in vars(cls).items():
        if name.startswith("_") and name not in ("__call__", "__len__"):
            continue
        if isinstance(value, property):
            returns = inspect.get_annotations(value.fget)["return"]
            yield f"{name}: {_annotation(returns)}  # a property"
        elif inspect.isfunction(value):
            yield f"def {_callable(name, inspect.signature(value), 10**6)}"


def _is_written_by_its_fields(cls: Any) -> bool:
    """Tell a dataclass from other classes and from one that has an `__init__` of its own."""
    return dataclasses.is_dataclass(cls) and bool(cls.__dataclass_params__.init)


def _is_keyword_only(cls: Any) -> bool:
    return dataclasses.is_dataclass(cls) and all(f.kw_only for f in dataclasses.fields(cls))


def _callable(name: str, found: inspect.Signature, width: int) -> str:
    constructs = name[:1].isupper()  # a class, by its __init__
    parts: list[str] = []
    last: Any = None
    for parameter in found.parameters.values():
        if parameter.name == "self" and constructs:
            continue
        if last is parameter.POSITIONAL_ONLY and parameter.kind is not last:
            parts.append("/")
        if parameter.kind is parameter.KEYWORD_ONLY and last not in (
            parameter.KEYWORD_ONLY,
            parameter.VAR_POSITIONAL,
        ):
            parts.append("*")
        stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}
        text = stars.get(parameter.kind, "") + parameter.name
        if parameter.annotation is not parameter.empty:
            text += f": {_annotation(parameter.annotation)}"
        if parameter.default is not parameter.empty:
            text += f" = {_default(parameter.default)}"
        parts.append(text)
        last = parameter.kind
    returns = "" if constructs else f" -> {_annotation(found.return_annotation)}"
    return _written(name, parts, returns, width)


def _written(name: str, parts: list[str], returns: str, width: int) -> str:
    line = f"{name}({', '.join(parts)}){returns}"
    if (len(line) <= width and not any("\n" in part for part in parts)) or not parts:
        return line
    rows = "".join(f"    {part},\n" for part in parts)
    return f"{name}(\n{rows}){returns}"


def _field(field: dataclasses.Field[Any]) -> str:
    text = f"{field.name}: {_annotation(field.type)}"
    if field.default_factory is not dataclasses.MISSING:
        return f"{text} = {_default(field.default_factory())}"
    return text if field.default is dataclasses.MISSING else f"{text} = {_default(field.default)}"


def _annotation(text: Any) -> str:
    assert isinstance(text, str), f"{text!r}: its module lacks `from __future__ import annotations`"
    return text.replace("'", '"')


def _default(value: Any) -> str:
    """Write a default as it is typed: a dataclass with what differs from its own defaults."""
    if value is dataclasses.MISSING:
        return "MISSING"
    if inspect.isclass(value):
        return value.__name__
    if dataclasses.is_dataclass(value):
        given = (
            f"{f.name}={_default(getattr(value, f.name))}"
            for f in dataclasses.fields(value)
            if getattr(value, f.name) != f.default
        )
        return f"{type(value).__name__}({', '.join(given)})"
    if isinstance(value, tuple) and any(dataclasses.is_dataclass(part) for part in value):
        return "(\n" + "".join(f"        {_default(part)},\n" for part in value) + "    )"
    return _literal(value)


def _literal(value: Any) -> str:
    return repr(value).replace("'", '"')


# --- the surface --------------------------------------------------------------------------------


def api_surface() -> str:
    """Render `zoo.api`, the hooks and what a plugin's metadata and options may say; no torch."""
    from zoo.config import SUPPORTED
    from zoo.progress import Task
    from zoo.registry import ENTRY_POINTS

    names = {name: getattr(api, name) for name in api.__all__ if name != "API_VERSION"}
    blocks = [
        f"zoo.api {api.API_VERSION}",
        *_blocks(names),
        "what `with progress(...)` gives\n\n" + _block("Task", Task),
        "hooks, of the entry-point group " + _literal(ENTRY_POINTS),
        *_blocks(hooks()),
        f"types of options\n\n{SUPPORTED}",
    ]
    return "\n\n".join(blocks) + "\n"


def surface() -> str:
    from zoo import testing

    names = {name: getattr(testing, name) for name in testing.__all__}
    return "\n\n".join([api_surface() + "\nzoo.testing", *_blocks(names)]) + "\n"


def hooks() -> dict[str, Any]:
    return {
        name: value
        for name, value in vars(hookspecs).items()
        if name.startswith("zoo_") and callable(value)
    }


def _blocks(names: dict[str, Any]) -> Iterator[str]:
    for name, value in sorted(names.items()):
        yield _block(name, value)


def _block(name: str, value: Any) -> str:
    lines = [signature(name, value, width=0)]  # one parameter a line: an addition is lines more
    if inspect.isclass(value):
        if not getattr(value, "_is_protocol", False):
            lines += [f"  {member}" for member in members(value)]
        if dataclasses.is_dataclass(value):
            lines += [f"  {bounds}" for bounds in _bounds(value)]
    return "\n".join(lines)


def _bounds(cls: type) -> Iterator[str]:
    for field in dataclasses.fields(cls):
        bounds = {end: field.metadata.get(end) for end in ("low", "high")}
        given = [f"{end}={value!r}" for end, value in bounds.items() if value is not None]
        if given:
            yield f"{field.name}: {', '.join(given)}"


def difference(stored: str, now: str) -> str:
    lines = difflib.unified_diff(
        stored.splitlines(), now.splitlines(), STORED.name, "the code", lineterm="", n=2
    )
    return "\n".join(lines)


# --- tests --------------------------------------------------------------------------------------


def test_the_surface_is_the_stored_one() -> None:
    stored, now = STORED.read_text(encoding="utf-8"), surface()
    if stored != now:
        message = f"The public surface changed:\n{difference(stored, now)}\n\n{RULE}"
        pytest.fail(message, pytrace=False)
    assert now.splitlines()[0] == f"zoo.api {api.API_VERSION}"


def test_the_surface_does_not_depend_on_the_interpreter() -> None:
    """Neither on what a Python version makes of annotations, nor on torch."""
    text = surface()
    for shown in (" at 0x", "<class", "typing.", "ForwardRef", "dataclasses.", "torch."):
        assert shown not in text
    program = (
        "import importlib.util, sys\n"
        "sys.modules['torch'] = None\n"
        f"spec = importlib.util.spec_from_file_location('surface', {str(Path(__file__))!r})\n"
        "module = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(module)\n"
        "sys.stdout.buffer.write(module.api_surface().encode())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert text.startswith(done.stdout.decode())


def _dataclasses() -> Iterable[tuple[str, Any]]:
    names = ((name, getattr(api, name)) for name in api.__all__)
    return [(name, cls) for name, cls in names if dataclasses.is_dataclass(cls)]


def test_every_newer_field_has_a_default() -> None:
    """Plugins that were written before it go on working."""
    for name, cls in _dataclasses():
        needed = {
            field.name
            for field in dataclasses.fields(cls)
            if field.init
            and field.default is dataclasses.MISSING
            and field.default_factory is dataclasses.MISSING
        }
        newer = needed - REQUIRED.get(name, set())
        assert not newer, f"{name}: {', '.join(sorted(newer))} needs a default, as none in 1.0 gave"
        assert name == "Component" or _is_keyword_only(cls), f"{name}: its fields go by keyword"


def test_every_name_of_zoo_s_own_is_listed() -> None:
    """What stands in `zoo.api`, and is not imported from elsewhere, is public or says why not."""
    names: set[str] = set()
    for node in ast.parse(Path(api.__file__).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("zoo"):
            names |= {alias.asname or alias.name for alias in node.names}
    own = {name for name in names if not name.startswith("_") and name != "T"}
    assert own == set(api.__all__) | set(UNLISTED)
    assert list(api.__all__) == sorted(set(api.__all__), key=lambda n: (not n.isupper(), n))


if __name__ == "__main__":
    before = STORED.read_text(encoding="utf-8") if STORED.exists() else ""
    STORED.write_text(surface(), encoding="utf-8")
    print(difference(before, surface()) or "nothing changed")
