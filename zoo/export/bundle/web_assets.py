"""onnxruntime-web's files, of one pinned version: from a folder, the cache, or npm."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shutil
import subprocess
import tarfile
import textwrap
from importlib import resources
from pathlib import Path

from zoo import drafts
from zoo.errors import UsageError, ZooError
from zoo.folders import write_atomic
from zoo.progress import current

VERSION = "1.30.0"
PACKAGE = f"onnxruntime-web@{VERSION}"
INTEGRITY = (
    "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02V"
    "b7QmRMDs1SigqR4CXAfKYQ=="
)
"""Of the package's tarball, as npm writes it."""
FILES = {
    "ort.wasm.min.mjs": "219e6a1fc8a9938268d18efca3c91d310bd2f4a59bbd13744df5b2b7fc6cee3b",
    "ort-wasm-simd-threaded.mjs": (
        "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b"
    ),
    "ort-wasm-simd-threaded.wasm": (
        "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2"
    ),
}
"""All that a page needs to run on the CPU, with the SHA-256 of each."""
LICENSE = "LICENSE.txt"
TIMEOUT = 600
PATIENCE = (
    "--fetch-retries=1",
    "--fetch-retry-mintimeout=1000",
    "--fetch-retry-maxtimeout=2000",
)
"""Without a network npm says so within seconds, not after a minute of trying again."""
OTHERWISE = (
    "Name its files with --web-assets DIR (a folder, or the file that 'npm pack' leaves), or leave"
    " the page's runtime out with --no-web."
)


def find(given: Path | None = None) -> dict[str, bytes]:
    """Return the files by name, each with the pinned SHA-256, and their license.

    They are read from the place given, else from the user's cache, else fetched by npm into it.
    Raises `ZooError`.
    """
    if given is not None:
        check(given)
        found = _from_tarball(given) if given.is_file() else _from_folder(given)
    else:
        found = _cached() or _fetch()
    text = resources.files("zoo.export.bundle") / "ort-license.txt"
    return {**found, LICENSE: text.read_bytes()}


def check(given: Path) -> None:
    """Refuse a place that does not exist; raises `UsageError`."""
    if not given.exists():
        raise UsageError(f"There is no file or folder '{given}'. {OTHERWISE}")


def cache() -> Path:
    """Return the folder that keeps the files between two bundles."""
    from platformdirs import user_cache_path

    return user_cache_path("plugzoo", appauthor=False) / "web" / f"onnxruntime-web-{VERSION}"


def _from_folder(given: Path) -> dict[str, bytes]:
    """Read a folder with the files, or one of an unpacked or an installed package."""
    package = given / "node_modules" / "onnxruntime-web"
    places = (given, given / "dist", given / "package" / "dist", package / "dist")
    place = next((p for p in places if all((p / name).is_file() for name in FILES)), None)
    if place is None:
        raise ZooError(
            f"'{given}' holds no onnxruntime-web: {', '.join(FILES)} are looked for in it and in"
            f" its dist/. Type: npm pack {PACKAGE}"
        )
    found = {name: (place / name).read_bytes() for name in FILES}
    if wrong := _changed(found):
        raise ZooError(
            f"'{place}' is not onnxruntime-web {VERSION}: {', '.join(wrong)} has another SHA-256."
            f" Type: npm pack {PACKAGE}"
        )
    return found


def _from_tarball(path: Path) -> dict[str, bytes]:
    """Read the files out of npm's tarball, once all of it is the pinned one."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha512").digest()
    if f"sha512-{base64.b64encode(digest).decode()}" != INTEGRITY:
        raise ZooError(f"'{path}' is not {PACKAGE}: its SHA-512 is another. {OTHERWISE}")
    found = {}
    with tarfile.open(path) as archive:
        # Nothing is extracted: the members wanted are read, whatever else the archive names.
        for name in FILES:
            member = archive.extractfile(f"package/dist/{name}")
            found[name] = member.read() if member else b""
    if wrong := _changed(found):
        raise ZooError(f"In '{path}' {', '.join(wrong)} has another SHA-256 than the pinned one.")
    return found


def _cached() -> dict[str, bytes] | None:
    """Return what the cache holds; nothing where a file is absent or was changed."""
    try:
        found = {name: (cache() / name).read_bytes() for name in FILES}
    except OSError:
        return None
    return None if _changed(found) else found


def _fetch() -> dict[str, bytes]:
    npm = shutil.which("npm")
    if npm is None:
        raise ZooError(
            f"The page needs {PACKAGE}, and npm, which fetches it, is not installed. {OTHERWISE}"
        )
    current().note(f"fetching {PACKAGE} by npm; --no-web leaves it out")
    with drafts.folder() as folder:
        found = _from_tarball(_pack(npm, folder))
    try:
        cache().mkdir(parents=True, exist_ok=True)
        for name, data in found.items():
            write_atomic(cache() / name, data)
    except OSError as error:  # a cache that cannot be written costs the next bundle a fetch
        current().note(f"not kept in the cache: {error}")
    return found


def _pack(npm: str, folder: Path) -> Path:
    """Have npm fetch the tarball into a folder."""
    command = [npm, "pack", PACKAGE, "--ignore-scripts", *PATIENCE]
    command += ["--pack-destination", str(folder)]
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, "npm_config_update_notifier": "false"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT,
        )
        said = done.stderr
    except subprocess.TimeoutExpired:
        said = f"npm did not end within {TIMEOUT} s"
    except OSError as error:
        said = str(error)
    tarballs = sorted(folder.glob("*.tgz"))
    if not tarballs:
        reason = textwrap.shorten(_cause(said), 200, placeholder=" …") or "npm left no file"
        raise ZooError(f"{PACKAGE} could not be fetched ({reason}). {OTHERWISE}")
    return tarballs[0]


def _cause(said: str) -> str:
    """Return the one line of npm's that says what went wrong, or all that it said."""
    lines = [re.sub(r"^npm (error|ERR!|warn|WARN)\s*", "", line) for line in said.splitlines()]
    found = next((line for line in lines if "failed, reason:" in line), " ".join(lines))
    return found[max(found.find("request to "), 0) :]


def _changed(found: dict[str, bytes]) -> list[str]:
    return [n for n, data in found.items() if hashlib.sha256(data).hexdigest() != FILES[n]]
