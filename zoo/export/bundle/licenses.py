"""`LICENSES.txt`: under which license each file of a bundle is handed over."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

from zoo.export.bundle import golden_files, manifest

NAME = "LICENSES.txt"
OURS = "Apache-2.0"
WEB = "MIT"
"""Of onnxruntime-web, whose text lies beside its files."""

HEAD = """\
Under which license each file of this folder is. A license "unknown" of the model was not stated
when it was exported: ask whoever made it.

"""
FOOT = f"""
{OURS}: plugzoo's runners, their page and what goes with them. Its text is below.
{WEB}: onnxruntime-web, by Microsoft. Its text is ort/LICENSE.txt; what it was built from is listed
in ThirdPartyNotices.txt of https://github.com/microsoft/onnxruntime.

"""


def write(folder: Path, facts: dict[str, Any], web: str) -> None:
    """Write the list for every file that a draft holds, the manifest and the list included.

    `facts` are the manifest's; `web` is the folder of onnxruntime-web's files.
    """
    names = {*manifest.inventory(folder), manifest.NAME, NAME}
    wide = max(map(len, names))
    rows = [f"{name:<{wide}}  {of(name, facts, web)}\n" for name in sorted(names)]
    text = resources.files("zoo.export.bundle") / "apache-license.txt"
    whole = HEAD + "".join(rows) + FOOT + text.read_text(encoding="utf-8")
    (folder / NAME).write_text(whole, encoding="utf-8")


def of(name: str, facts: dict[str, Any], web: str) -> str:
    """Return the license of one file, by its name in the folder."""
    first = name.partition("/")[0]
    if first == web:
        return WEB
    if first == golden_files.NAME or name.startswith("golden/"):
        return f"examples of the data set '{facts['dataset']}': as that is"
    if name in (facts["model"]["file"], "proof.json", "README.md", manifest.NAME):
        return f"the model's: {facts['license']}"
    return OURS
