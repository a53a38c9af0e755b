"""Ask `zoo bundle --serve` for what it must not give, and starve it: what was answered.

python benchmarks/serving.py            # one minute
python benchmarks/serving.py --write    # and keep it in results/serving.json
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from report import machine, print_machine, refuse_part

from zoo import pipeline
from zoo.api import TrainConfig
from zoo.pipeline import Workspace

RESULT = Path(__file__).parent / "results" / "serving.json"
CONNECTIONS, DESCRIPTORS, SCARCE = 300, 256, 40
"""Half-open ones at once, and how many files the server may open; scarcely any the second time."""
ASKS = 50
SECRET = b"what nobody may read"
CLOSED = "closed without a word"


def prepare(folder: Path) -> Path:
    """Write a small bundle."""
    workspace = Workspace(runs=folder / "runs")
    training = TrainConfig(epochs=1)
    run = pipeline.finetune(
        pipeline.pretrain("mlp", training=training, workspace=workspace),
        training=training,
        workspace=workspace,
    )
    made = folder / "bundle"
    pipeline.bundle(run, made, web=False, workspace=workspace)
    return made


def surround(made: Path) -> Path:
    """Put around a bundle and within it what is not to be served."""
    folder = made.parent
    (folder / "secret.txt").write_bytes(SECRET)
    for name in ("key.pem", ".git/config", "node_modules/a.js", "golden/more.png"):
        (made / name).parent.mkdir(exist_ok=True)
        (made / name).write_bytes(SECRET)
    (made / "link.txt").symlink_to(folder / "secret.txt")
    (made / "linked").symlink_to(folder)
    (made / "page.css").unlink()  # the manifest names it, and it leads out
    (made / "page.css").symlink_to(folder / "secret.txt")
    return made


def paths(made: Path) -> dict[str, str]:
    """Return what is asked for, by what it is."""
    outside = made.parent / "secret.txt"
    return {
        "a file beside the bundle's": "/key.pem",
        "version control": "/.git/config",
        "what npm installed": "/node_modules/a.js",
        "a picture beside the golden ones": "/golden/more.png",
        "the folder above": "/../secret.txt",
        "the folder above, encoded": "/%2e%2e/secret.txt",
        "the folder above, its slash encoded": "/..%2fsecret.txt",
        "the folder above, twice encoded": "/%252e%252e/secret.txt",
        "the folder above, by backslash": "/..\\secret.txt",
        "through a folder and back": "/golden/../../secret.txt",
        "an absolute path": f"/{outside}",
        "two slashes": "//secret.txt",
        "two slashes, an absolute path": f"/{outside}".replace("/", "//", 1),
        "another machine's address": "http://evil.example/model.json",
        "a link": "/link.txt",
        "through a linked folder": "/linked/secret.txt",
        "a link that the manifest names": "/page.css",
        "a folder": "/golden/",
        "NUL": "/%00",
        "a name and NUL": "/model.json%00",
        "no UTF-8": "/%ff%fe",
        "5,000 characters": "/" + "a" * 5000,
        "70,000 characters": "/" + "a" * 70_000,
        "no path": "*",
    }


def hosts(port: int) -> dict[str, tuple[bytes, ...]]:
    """Return the Host lines that are sent, by what they are."""
    named = {
        "this machine's": f"127.0.0.1:{port}",
        "its name": f"localhost:{port}",
        "its name, IPv6": f"[::1]:{port}",
        "another's": f"evil.example:{port}",
        "another's that begins so": f"localhost.evil.example:{port}",
        "another port": f"127.0.0.1:{port + 1}",
        "without a port": "localhost",
        "empty": "",
    }
    sent = {what: (host.encode(),) for what, host in named.items()}
    return {**sent, "none": (), "two": (sent["its name"][0], sent["another's"][0])}


@contextlib.contextmanager
def served(folder: Path, descriptors: int) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Serve a folder as a user would, with so many descriptors; nothing may be said on stderr."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))

    command = [sys.executable, "-m", "zoo", "bundle", "--serve", str(folder), "--port", "0"]
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        command, stdout=pipe, stderr=pipe, preexec_fn=limit, env={**os.environ, "PYTHONUTF8": "1"}
    )
    assert process.stdout is not None
    found = re.search(rb":(\d+)/", process.stdout.readline())
    assert found, process.communicate()
    try:
        yield process, int(found[1])
        assert process.poll() is None, "the server ended"
    finally:
        process.kill()
        _, said = process.communicate()
    # That the page's runtime was left out is told before anything is asked.
    assert said.count(b"\n") <= 1, said.decode()


def ask(port: int, path: str, host: tuple[bytes, ...] | None = None, method: str = "GET") -> str:
    """Ask for a path just as it is written; return status and reason, or that nothing came."""
    sent = (f"localhost:{port}".encode(),) if host is None else host
    lines = [f"{method} {path} HTTP/1.1".encode(), *(b"Host: " + each for each in sent)]
    answer = b""
    client = socket.create_connection(("127.0.0.1", port), timeout=60)
    with client, contextlib.suppress(ConnectionError):
        client.sendall(b"\r\n".join(lines) + b"\r\n\r\n")
        while part := client.recv(65536):
            answer += part
    assert SECRET not in answer, path
    return answer.split(b"\r\n")[0].decode().partition(" ")[2] if answer else CLOSED


def break_off(port: int, count: int) -> None:
    """Connect so often, say a part of a request or all of it, and go with a reset."""
    whole = f"GET /model.onnx HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n".encode()
    for number in range(count):
        with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
            client.sendall(whole[: len(whole) * number // max(1, count - 1)])
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def seconds_of(process: subprocess.Popen[bytes]) -> float:
    """Return the processor time that a process has taken."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def starve(
    process: subprocess.Popen[bytes], port: int, connections: int, asks: int = ASKS
) -> dict[str, Any]:
    """Keep so many connections open that say half of what they want; ask meanwhile."""
    started, before = time.monotonic(), seconds_of(process)
    answers: Counter[str] = Counter()
    opened, slowest, most = [], 0.0, 0
    try:
        for number in range(connections):
            client = socket.create_connection(("127.0.0.1", port), timeout=60)
            client.sendall(b"GET / HTTP/1.1\r\nHost: "[: number % 24])
            opened.append(client)
        for _ in range(asks):
            asked = time.monotonic()
            answers[ask(port, "/model.json")] += 1
            slowest = max(slowest, time.monotonic() - asked)
            most = max(most, len(list(Path(f"/proc/{process.pid}/fd").iterdir())))
        closed = 0
        for client in opened:
            client.settimeout(30)
            with contextlib.suppress(ConnectionError):
                assert client.recv(1) == b""
            closed += 1
    finally:
        for client in opened:
            client.close()
    spent = time.monotonic() - started
    return {
        "connections": connections,
        "answers meanwhile": dict(answers),
        "slowest answer, seconds": round(slowest, 3),
        "most descriptors open": most,
        "ended by the server": closed,
        "seconds in all": round(spent, 1),
        "processor, share of one core": round((seconds_of(process) - before) / spent, 3),
    }


def look(made: Path, connections: int = CONNECTIONS, broken: int = 200) -> dict[str, Any]:
    """Ask all of it; AssertionError where something is given out, or anything is said on stderr."""
    with served(made, DESCRIPTORS) as (process, port):
        named = {what: ask(port, "/model.json", host) for what, host in hosts(port).items()}
        given = {what: ask(port, path) for what, path in paths(made).items()}
        methods = {name: ask(port, "/model.json", method=name) for name in ("HEAD", "POST", "PUT")}
        break_off(port, broken)
        after = ask(port, "/model.json")
        half = [{"descriptors": DESCRIPTORS, **starve(process, port, connections)}]
    with served(made, SCARCE) as (process, port):
        half.append({"descriptors": SCARCE, **starve(process, port, connections)})
    return {
        "host": named,
        "path": given,
        "method": methods,
        "broken off": {"clients": broken, "then": after},
        "half-open": half,
    }


def check(found: dict[str, Any]) -> None:
    """AssertionError where an answer is not the one it must be."""
    own = ("this machine's", "its name", "its name, IPv6")
    for what, answer in found["host"].items():
        assert answer.startswith("200" if what in own else "421"), (what, answer)
    for what, answer in found["path"].items():
        assert answer.startswith(("404", "414")), (what, answer)
    assert [answer[:3] for answer in found["method"].values()] == ["200", "501", "501"]
    assert found["broken off"]["then"].startswith("200")
    for each in found["half-open"]:
        assert set(each["answers meanwhile"]) == {"200 OK"}, each
        assert each["ended by the server"] == each["connections"]


@click.command()
@click.option("--connections", default=CONNECTIONS, show_default=True, type=click.IntRange(1))
@click.option("--write", is_flag=True, help=f"Keep what was found in {RESULT.name}.")
def main(connections: int, write: bool) -> None:
    refuse_part(write, connections < CONNECTIONS, "fewer --connections")
    told = machine()
    with tempfile.TemporaryDirectory() as folder:
        found = look(surround(prepare(Path(folder))), connections)
    for part in ("host", "path", "method"):
        for what, answer in found[part].items():
            print(f"{part:8} {what:38} {answer}")
    print(f"{found['broken off']['clients']} broken off, then: {found['broken off']['then']}")
    for each in found["half-open"]:
        print(json.dumps(each))
    print_machine(told)
    check(found)
    if write:
        RESULT.write_text(json.dumps({"machine": told, **found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
