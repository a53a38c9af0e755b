"""`zoo bundle --serve`: the folder over HTTP, and nothing outside it."""

from __future__ import annotations

import http.client
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Get = Callable[..., tuple[int, dict[str, str], bytes]]


def start(folder: Path, *options: str) -> tuple[subprocess.Popen[str], int]:
    """Serve a folder as a user would, and return the process and its port."""
    command = [sys.executable, "-m", "zoo", "bundle", "--serve", str(folder), "--port", "0"]
    pipe = subprocess.PIPE
    process = subprocess.Popen([*command, *options], stdout=pipe, stderr=pipe, text=True)
    assert process.stdout is not None
    found = re.search(r"http://127\.0\.0\.1:(\d+)/", process.stdout.readline())
    assert found, process.communicate()
    return process, int(found[1])


@pytest.fixture
def get(bundle_folder: Path) -> Iterator[Get]:
    """Ask a bundle's server for a path, exactly as written."""
    process, port = start(bundle_folder)

    def ask(path: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.putrequest(method, path)
        connection.endheaders()
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, body

    yield ask
    process.kill()
    process.communicate()


def test_every_file_with_its_type(get: Get, bundle_folder: Path) -> None:
    (bundle_folder / "ort").mkdir()
    (bundle_folder / "ort" / "a.wasm").write_bytes(b"\0asm")
    types = {
        "index.html": "text/html; charset=utf-8",
        "page.mjs": "text/javascript; charset=utf-8",
        "page.css": "text/css; charset=utf-8",
        "model.json": "application/json",
        "model.onnx": "application/octet-stream",
        "golden/grey.png": "image/png",
        "golden/rotated.jpg": "image/jpeg",
        "ort/a.wasm": "application/wasm",
        "README.md": "text/markdown; charset=utf-8",
    }
    for name, kind in types.items():
        status, headers, body = get(f"/{name}")
        assert (status, headers["content-type"]) == (200, kind), name
        assert body == (bundle_folder / name).read_bytes()
    status, _, body = get("/")
    assert (status, body) == (200, (bundle_folder / "index.html").read_bytes())
    assert get("/index.html?selftest")[2] == body
    status, headers, body = get("/model.onnx", "HEAD")
    assert (status, body) == (200, b"")
    assert int(headers["content-length"]) == (bundle_folder / "model.onnx").stat().st_size


def test_the_page_gets_nothing_from_elsewhere(get: Get) -> None:
    for path in ("/", "/model.onnx", "/nothing"):
        _, headers, _ = get(path)
        policy = dict(
            part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";")
        )
        assert policy["default-src"] == "'self'"
        assert policy["script-src"] == "'self' 'wasm-unsafe-eval'"
        assert policy["connect-src"] == "'self'"
        sources = {word for value in policy.values() for word in value.split()}
        assert sources == {"'self'", "'wasm-unsafe-eval'", "'none'", "blob:", "data:"}
        assert headers["cross-origin-opener-policy"] == "same-origin"
        assert headers["cross-origin-embedder-policy"] == "require-corp"
        assert headers["x-content-type-options"] == "nosniff"


def test_nothing_outside_the_folder(get: Get, bundle_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "bundle-2").mkdir()
    (tmp_path / "bundle-2" / "secret.txt").write_text("secret")
    (bundle_folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    (bundle_folder / "linked").symlink_to(tmp_path)
    inside = bundle_folder / "golden" / "again.png"
    inside.symlink_to(bundle_folder / "golden" / "grey.png")
    paths = ["/../secret.txt", "/%2e%2e/secret.txt", "/..%2fsecret.txt", "/golden/../../secret.txt"]
    paths += [
        "/../bundle-2/secret.txt",
        "//secret.txt",
        f"/{tmp_path}/secret.txt",
        "/..\\secret.txt",
    ]
    paths += ["/link.txt", "/linked/secret.txt", "/linked/", "/linked", "/golden", "/golden/"]
    for path in paths:
        status, _, body = get(path)
        assert status == 404, path
        assert b"secret" not in body.replace(path.encode(), b"")
    assert get("/golden/again.png")[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_it_only_reads(get: Get, method: str) -> None:
    assert get("/model.json", method)[0] == 501


def test_ctrl_c_ends_it_clean(bundle_folder: Path) -> None:
    process, port = start(bundle_folder)
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=30)
    assert process.returncode == 0
    assert out == ""
    assert [line for line in error.splitlines() if line] == [
        "The page's runtime, ort/, was left out: the page cannot run."
        f" Type: zoo bundle {bundle_folder / 'model.onnx'} -o {bundle_folder} --force",
    ]
    with socket.socket() as free:  # the port is free again
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(("127.0.0.1", port))


def test_it_listens_on_this_machine_alone(bundle_folder: Path) -> None:
    table = Path("/proc/net/tcp")
    if not table.is_file():
        pytest.skip("needs Linux's table of sockets")
    process, port = start(bundle_folder)
    try:
        rows = [line.split()[1] for line in table.read_text().splitlines()[1:]]
    finally:
        process.kill()
        process.communicate()
    mine = [row for row in rows if int(row.split(":")[1], 16) == port]
    assert "0100007F" in {row.split(":")[0] for row in mine}
    assert "00000000" not in {row.split(":")[0] for row in mine}


def test_a_port_that_is_taken(cli: Callable[..., Any], bundle_folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = cli("bundle", "--serve", bundle_folder, "--port", port)
    assert result.exit_code == 2
    assert f"Port {port} cannot be had" in result.stderr
    assert "Type: --port 0" in result.stderr
