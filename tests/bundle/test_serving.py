"""`zoo bundle --serve`: the files of a bundle over HTTP, and nothing else of the disk."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from zoo.export.bundle import serving

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
def port(bundle_folder: Path, forge: Callable[..., None]) -> Iterator[int]:
    """Serve a bundle with a file in `ort/`; whatever is asked, nothing is said on stderr."""
    (bundle_folder / "ort").mkdir()
    (bundle_folder / "ort" / "a.wasm").write_bytes(b"\0asm")
    named = {"ort/a.wasm": {"sha256": hashlib.sha256(b"\0asm").hexdigest(), "bytes": 4}}
    forge(bundle_folder, lambda content: content["files"].update(named))
    process, port = start(bundle_folder)
    yield port
    process.kill()
    assert process.communicate() == ("", "")


@pytest.fixture
def get(port: int) -> Get:
    """Ask a bundle's server for a path, exactly as written, by the names given for this machine."""

    def ask(
        path: str, method: str = "GET", hosts: tuple[str, ...] = (f"127.0.0.1:{port}",)
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.putrequest(method, path, skip_host=True)
        for host in hosts:
            connection.putheader("Host", host)
        connection.endheaders()
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, body

    return ask


def test_every_file_with_its_type(get: Get, bundle_folder: Path) -> None:
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
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["x-content-type-options"] == "nosniff"


def test_nothing_outside_the_folder(get: Get, bundle_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "bundle-2").mkdir()
    (tmp_path / "bundle-2" / "secret.txt").write_text("secret")
    (bundle_folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    (bundle_folder / "linked").symlink_to(tmp_path)
    (bundle_folder / "run.py").unlink()
    (bundle_folder / "run.py").symlink_to(tmp_path / "secret.txt")
    paths = ["/../secret.txt", "/%2e%2e/secret.txt", "/..%2fsecret.txt", "/golden/../../secret.txt"]
    paths += [
        "/../bundle-2/secret.txt",
        "//secret.txt",
        f"/{tmp_path}/secret.txt",
        "/..\\secret.txt",
    ]
    paths += ["/link.txt", "/linked/secret.txt", "/linked/", "/linked", "/golden", "/golden/"]
    paths += ["/run.py", "http://127.0.0.1/model.json"]
    for path in paths:
        status, _, body = get(path)
        assert status == 404, path
        assert b"secret" not in body.replace(path.encode(), b"")


def test_what_the_manifest_does_not_name_is_not_served(get: Get, bundle_folder: Path) -> None:
    (bundle_folder / ".git").mkdir()
    for name in ("key.pem", ".git/config", "model.sig", "ort/more.mjs"):
        (bundle_folder / name).write_text("secret")
        status, _, body = get(f"/{name}")
        assert (status, b"secret" in body) == (404, False), name
    assert get("/model.json")[0] == 200


def test_another_name_of_this_machine_is_refused(get: Get, port: int) -> None:
    """A page from elsewhere whose name was made to lead here would read all that is served."""
    for host in ("127.0.0.1", "localhost", "LocalHost", "[::1]"):
        assert get("/model.json", hosts=(f"{host}:{port}",))[0] == 200, host
    mine = f"localhost:{port}"
    foreign = [f"evil.example:{port}", "evil.example", f"localhost.evil.example:{port}"]
    foreign += ["localhost", f"127.0.0.1:{port + 1}", f"{mine}.", f"a@{mine}", ""]
    for hosts in [(), (mine, f"evil.example:{port}"), *((host,) for host in foreign)]:
        for path in ("/model.json", "/", "/nothing"):
            status, _, body = get(path, hosts=hosts)
            assert status == 421, hosts
            assert b"another machine" in body
    assert get("/model.json", "HEAD", hosts=("evil.example",))[::2] == (421, b"")


def test_no_path_and_no_client_is_a_traceback(get: Get, port: int) -> None:
    for path in ("/%00", "/%ff%fe", "/" + "a" * 5000, "/%2e" * 900, "/a/" * 900, "*", "\\", "/%"):
        assert get(path)[0] == 404, path[:20]
    assert get("/" + "a" * 70_000)[0] == 414
    ask = f"GET /model.onnx HTTP/1.1\r\nHost: localhost:{port}\r\n".encode()
    for words in (b"", b"\0", b"GET", b"GET / HT", ask, b"\xff" * 99 + b"\r\n\r\n", ask + b"\r\n"):
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            client.sendall(words)
            # Closed with a reset, whatever it was about to say.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert get("/model.json")[0] == 200


def test_half_open_connections_keep_nobody_out(get: Get, port: int) -> None:
    with contextlib.ExitStack() as stack:
        waiting = []
        for _ in range(serving.MOST + 20):
            client = socket.create_connection(("127.0.0.1", port), timeout=10)
            waiting.append(stack.enter_context(client))
            client.sendall(b"GET / HTTP/1.1\r\n")
        assert get("/model.json")[0] == 200
        # Those that came first had to make room, without a word.
        assert [client.recv(1) for client in waiting[:20]] == [b""] * 20


@pytest.fixture
def impatient(bundle_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The port of a server that waits half a second, in this process."""
    monkeypatch.setattr(serving, "PATIENCE", 0.5)
    monkeypatch.setattr(serving.Handler, "timeout", 0.5)
    with serving._open(bundle_folder, frozenset({"model.json"}), 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def drip(client: socket.socket) -> None:
    """Send a byte now and then, which never becomes a request."""
    for _ in range(400):
        client.sendall(b"G")
        time.sleep(0.05)


def test_a_client_that_says_nothing_or_drips_is_let_go(impatient: int) -> None:
    quiet, dripping = (
        socket.create_connection(("127.0.0.1", impatient), timeout=20) for _ in range(2)
    )
    with quiet, dripping:
        assert quiet.recv(1) == b""
        with pytest.raises(OSError, match=r"pipe|reset"):
            drip(dripping)


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


@pytest.mark.slow
def test_nothing_is_given_out_and_nobody_is_starved(
    bundle_folder: Path, bench_script: Callable[[str], Any]
) -> None:
    """Fewer connections than those of `python benchmarks/serving.py`, which ends in this too."""
    script = bench_script("serving")
    script.check(script.look(script.surround(bundle_folder), 80, 20))


def test_the_committed_answers_are_those_that_must_be(bench_script: Callable[[str], Any]) -> None:
    script = bench_script("serving")
    found = json.loads(script.RESULT.read_text())
    script.check(found)
    assert found["path"].keys() == script.paths(Path("/bundle")).keys()
    assert found["host"].keys() == script.hosts(8000).keys()
    limits = [each["descriptors"] for each in found["half-open"]]
    assert limits == [script.DESCRIPTORS, script.SCARCE]
    assert {each["connections"] for each in found["half-open"]} == {script.CONNECTIONS}
