"""onnxruntime-web's files: pinned, from a folder, the cache or npm; no network is asked."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import re
import shutil
import stat
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from zoo.errors import UsageError, ZooError
from zoo.export.bundle import web_assets
from zoo.pipeline.bundling import bundle, bundle_verify

CONTENT = {name: f"the bytes of {name}".encode() for name in web_assets.FILES}


def pack(path: Path, members: dict[str, bytes]) -> Path:
    """Write a tarball as npm does, its members under package/dist/."""
    with tarfile.open(path, "w:gz") as archive:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


def integrity(path: Path) -> str:
    return "sha512-" + base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()


@pytest.fixture
def tarball(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small package whose sums stand where the real one's do, with members that lead out."""
    members = {f"package/dist/{name}": data for name, data in CONTENT.items()}
    members |= {"../evil.mjs": b"evil", "/evil.mjs": b"evil", "package/dist/other.js": b"x"}
    path = pack(tmp_path / "onnxruntime-web.tgz", members)
    sums = {name: hashlib.sha256(data).hexdigest() for name, data in CONTENT.items()}
    monkeypatch.setattr(web_assets, "FILES", sums)
    monkeypatch.setattr(web_assets, "INTEGRITY", integrity(path))
    monkeypatch.setattr(web_assets, "cache", lambda: tmp_path / "cache" / "web")
    return path


@pytest.fixture
def npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Put a program named npm first on the path; it writes what it was asked for to a file."""

    def write(body: str) -> Path:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        asked = tmp_path / "asked"
        program = folder / "npm"
        program.write_text(
            f"#!{sys.executable}\n"
            "import shutil, sys\n"
            f"open({str(asked)!r}, 'a').write(' '.join(sys.argv[1:]) + '\\n')\n"
            "to = sys.argv[sys.argv.index('--pack-destination') + 1]\n"
            f"{body}\n"
        )
        program.chmod(program.stat().st_mode | stat.S_IEXEC)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
        return asked

    return write


def files(found: dict[str, bytes]) -> dict[str, bytes]:
    return {name: data for name, data in found.items() if name != web_assets.LICENSE}


def test_by_npm_then_from_the_cache(tarball: Path, npm: Callable[[str], Path]) -> None:
    asked = npm(f"shutil.copy({str(tarball)!r}, to)")
    assert files(web_assets.find()) == CONTENT
    assert files(web_assets.find()) == CONTENT
    (line,) = asked.read_text().splitlines()
    assert line.startswith(f"pack onnxruntime-web@{web_assets.VERSION} --ignore-scripts ")
    assert "--fetch-retries=1 " in line
    assert {p.name for p in web_assets.cache().iterdir()} == set(CONTENT)


def test_a_damaged_cache_is_fetched_anew(tarball: Path, npm: Callable[[str], Path]) -> None:
    npm(f"shutil.copy({str(tarball)!r}, to)")
    web_assets.find()
    (web_assets.cache() / "ort.wasm.min.mjs").write_text("evil")
    assert files(web_assets.find()) == CONTENT
    assert (web_assets.cache() / "ort.wasm.min.mjs").read_bytes() == CONTENT["ort.wasm.min.mjs"]


def test_nothing_leaves_the_tarball_but_what_is_wanted(tarball: Path, tmp_path: Path) -> None:
    before = set(tmp_path.rglob("*"))
    found = web_assets.find(tarball)
    assert files(found) == CONTENT
    assert b"MIT License" in found[web_assets.LICENSE]
    assert set(tmp_path.rglob("*")) == before


def test_another_tarball_is_refused(tarball: Path, npm: Callable[[str], Path]) -> None:
    data = bytearray(tarball.read_bytes())
    data[-1] ^= 1
    tarball.write_bytes(data)
    npm(f"shutil.copy({str(tarball)!r}, to)")
    for given in (tarball, None):
        with pytest.raises(ZooError, match=r"its SHA-512 is another.*--web-assets DIR.*--no-web"):
            web_assets.find(given)
    assert not web_assets.cache().exists()


def test_another_file_in_the_tarball_is_refused(
    tarball: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    name = "ort-wasm-simd-threaded.wasm"
    members = {f"package/dist/{n}": d for n, d in (CONTENT | {name: b"evil"}).items()}
    path = pack(tmp_path / "evil.tgz", members)
    monkeypatch.setattr(web_assets, "INTEGRITY", integrity(path))
    with pytest.raises(ZooError, match=rf"{name} has another SHA-256"):
        web_assets.find(path)


@pytest.mark.parametrize(
    "place", [".", "dist", "package/dist", "node_modules/onnxruntime-web/dist"]
)
def test_from_a_folder(tarball: Path, tmp_path: Path, place: str) -> None:
    folder = tmp_path / "given" / place
    folder.mkdir(parents=True)
    for name, data in CONTENT.items():
        (folder / name).write_bytes(data)
    assert files(web_assets.find(tmp_path / "given")) == CONTENT
    (folder / "ort.wasm.min.mjs").write_text("of another version")
    with pytest.raises(ZooError, match=r"is not onnxruntime-web 1\.30\.0: ort\.wasm\.min\.mjs has"):
        web_assets.find(tmp_path / "given")
    (folder / "ort.wasm.min.mjs").unlink()
    with pytest.raises(ZooError, match=r"holds no onnxruntime-web.*Type: npm pack"):
        web_assets.find(tmp_path / "given")


def test_without_npm(tarball: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ZooError, match=r"npm, .* is not installed.*--web-assets DIR.*--no-web"):
        web_assets.find()


@pytest.mark.parametrize("body", ["sys.exit('npm error code ENOTFOUND')", "pass"])
def test_without_a_network(tarball: Path, npm: Callable[[str], Path], body: str) -> None:
    npm(body)
    said = "ENOTFOUND" if "ENOTFOUND" in body else "left no file"
    with pytest.raises(ZooError, match=rf"could not be fetched .*{said}.*--web-assets.*--no-web"):
        web_assets.find()


def test_of_what_npm_says_the_cause_is_told(tarball: Path, npm: Callable[[str], Path]) -> None:
    cause = "request to https://example.org/x failed, reason: getaddrinfo ENOTFOUND example.org"
    noise = "npm error code ENOTFOUND\\nnpm error errno ENOTFOUND\\nnpm error network "
    npm(f"sys.exit('{noise}{cause}\\nnpm error A complete log of this run')")
    with pytest.raises(ZooError, match=rf"could not be fetched \({re.escape(cause)}\)\. Name"):
        web_assets.find()


def test_a_place_that_does_not_exist(received: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"There is no file or folder '.*gone'"):
        bundle(received, tmp_path / "b", web_assets_from=tmp_path / "gone")


def test_a_cache_that_cannot_be_written(
    tarball: Path, npm: Callable[[str], Path], tmp_path: Path
) -> None:
    (tmp_path / "cache").write_text("a file where the folder would be")
    npm(f"shutil.copy({str(tarball)!r}, to)")
    assert files(web_assets.find()) == CONTENT


def test_a_bundle_has_them_in_ort(tarball: Path, received: Path, tmp_path: Path) -> None:
    made = bundle(received, tmp_path / "b", web_assets_from=tarball)
    assert made.web
    for name, data in CONTENT.items():
        assert (tmp_path / "b" / "ort" / name).read_bytes() == data
    assert bundle_verify(tmp_path / "b").passed
    (tmp_path / "b" / "ort" / "ort.wasm.min.mjs").write_text("evil")
    assert bundle_verify(tmp_path / "b").faults == {"ort/ort.wasm.min.mjs": "was changed"}


def test_no_bundle_without_them(received: Path, tmp_path: Path, tarball: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ZooError, match="holds no onnxruntime-web"):
        bundle(received, tmp_path / "b", web_assets_from=tmp_path / "empty")
    assert not (tmp_path / "b").exists()
    assert not list(tmp_path.glob(".b.*"))


@pytest.mark.slow
def test_the_real_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What npm fetches today has the pinned sums."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    monkeypatch.setattr(web_assets, "cache", lambda: tmp_path / "web")
    try:
        found = web_assets.find()
    except ZooError as error:
        if "could not be fetched" not in str(error):
            raise
        pytest.skip("npm reaches no registry")
    assert set(found) == {*web_assets.FILES, web_assets.LICENSE}
    assert len(found["ort-wasm-simd-threaded.wasm"]) > 10_000_000
