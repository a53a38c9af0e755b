"""A bundle over HTTP, for the browser on this machine. Stdlib alone."""

from __future__ import annotations

import contextlib
import http.server
import socket
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import unquote

from zoo.errors import UsageError
from zoo.export.bundle import manifest

HOST = "127.0.0.1"
NAMES = (HOST, "localhost", "[::1]")
"""What a browser on this machine may call it. Another name that leads here is somebody's trick:
with it a page from elsewhere would read what is served."""
PORT = 8000
PATIENCE = 10.0
"""Seconds that a client has for its request, and for taking in each part of the answer."""
MOST, LEAST = 64, 6
"""Connections at once, and as many where the system lets hardly any files be opened: a browser
opens six."""
RESERVE = 24
"""Descriptors that are left to the interpreter."""
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".jpg": "image/jpeg",
    ".json": "application/json",
    ".js": "text/javascript; charset=utf-8",
    ".md": "text/markdown; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".onnx": "application/octet-stream",
    ".png": "image/png",
    ".py": "text/plain; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
    "": "application/octet-stream",
}
HEADERS = {
    # The page gets what this folder has and nothing else; its pictures may be the user's own.
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; img-src 'self' blob: data:;"
        " connect-src 'self'; worker-src 'self' blob:; object-src 'none'; base-uri 'none';"
        " form-action 'none'; frame-ancestors 'self'"
    ),
    # Both let the runtime use threads.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    # Nobody else's page takes anything from here, not even as a script or a picture.
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def serve(folder: Path, port: int = PORT, ready: Callable[[str], None] = lambda url: None) -> None:
    """Serve the files that a bundle's manifest names, until Ctrl-C, which comes through.

    `ready` is told the address. Port 0 takes a free one. Raises `ModelFileError` where the folder
    is no bundle.
    """
    names = frozenset({*manifest.read(folder)["files"], manifest.NAME})
    with _open(folder.resolve(), names, port) as server:
        ready(f"http://{HOST}:{server.server_address[1]}/")
        server.serve_forever(poll_interval=0.1)


def _open(root: Path, names: frozenset[str], port: int) -> Server:
    try:
        return Server(root, names, port)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"Port {port} cannot be had: {reason}. Type: --port 0") from None


def room() -> int:
    """Return how many connections there may be: each needs a descriptor, and one for its file."""
    try:
        import resource
    except ImportError:  # Windows, which sets no such limit
        return MOST
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit == resource.RLIM_INFINITY:
        return MOST
    return max(LEAST, min(MOST, (limit - RESERVE) // 2))


class Server(http.server.ThreadingHTTPServer):
    """A thread for each connection, and room for `most`: whoever has asked goes before the idle.

    A new client always gets in where another has said nothing yet, or is slow to listen.
    """

    request_queue_size = 128
    daemon_threads = True

    def __init__(self, root: Path, names: frozenset[str], port: int) -> None:
        self.root, self.names, self.most = root, names, room()
        self.idle: dict[socket.socket, float] = {}
        """Connections whose request has not come yet, and when each began, the oldest first."""
        self.busy: dict[socket.socket, float] = {}
        """Those that are being answered, and since when."""
        self.lock = threading.Lock()
        super().__init__((HOST, port), Handler)
        named = [f"{name}:{self.server_address[1]}" for name in NAMES]
        self.hosts = {*named, *(NAMES if self.server_address[1] == 80 else ())}

    def get_request(self) -> tuple[socket.socket, Any]:
        try:
            return super().get_request()
        except OSError:  # no descriptor is left; without a pause this would be tried without end
            self._make_room()
            time.sleep(0.05)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        with self.lock:
            full = len(self.idle) + len(self.busy) >= self.most
        if full and not self._make_room():
            self.shutdown_request(request)
            return
        with self.lock:
            self.idle[request] = time.monotonic()
        super().process_request(request, client_address)

    def service_actions(self) -> None:
        """End those that have not said what they want in time; called ten times a second."""
        with self.lock:
            old = time.monotonic() - PATIENCE
            late = [each for each, since in self.idle.items() if since < old]
            for each in late:
                self._drop(each)

    def asked(self, connection: socket.socket) -> None:
        """Note that a connection's request has come."""
        with self.lock:
            if self.idle.pop(connection, None) is not None:
                self.busy[connection] = time.monotonic()

    def shutdown_request(self, request: Any) -> None:
        with self.lock:
            self.idle.pop(request, None)
            self.busy.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients break off, and the terminal is for the address."""

    def _make_room(self) -> bool:
        """End the connection that has been idle longest, else one that is slow to listen."""
        with self.lock:
            slow = time.monotonic() - PATIENCE
            found = [*self.idle, *(each for each, since in self.busy.items() if since < slow)]
            if found:
                self._drop(found[0])
        return bool(found)

    def _drop(self, connection: socket.socket) -> None:
        """Let the thread of a connection find that its client has gone; it closes it."""
        self.idle.pop(connection, None)
        self.busy.pop(connection, None)
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)


class Handler(http.server.SimpleHTTPRequestHandler):
    """Answer with the files that the manifest names, to whoever calls this machine by its name."""

    extensions_map = TYPES
    timeout = PATIENCE

    @property
    def mine(self) -> Server:
        return cast(Server, self.server)

    def parse_request(self) -> bool:
        if not super().parse_request():
            return False
        self.mine.asked(self.connection)
        hosts = self.headers.get_all("Host") or []
        if len(hosts) != 1 or hosts[0].strip().lower() not in self.mine.hosts:
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST, "This is another machine's name")
            return False
        return True

    def send_head(self) -> Any:
        path = unquote(self.path.partition("?")[0].partition("#")[0])
        name = "index.html" if path == "/" else path[1:]
        # What the manifest does not name is not even looked for on the disk.
        named = path.startswith("/") and name in self.mine.names
        file = self.mine.root / name if named else None
        if file is None or file.resolve() != file or not file.is_file():
            self.send_error(HTTPStatus.NOT_FOUND, "Not of this bundle")
            return None
        self.path = f"/{name}"
        return super().send_head()

    def translate_path(self, path: str) -> str:
        return str(self.mine.root / path[1:])

    def list_directory(self, path: Any) -> BinaryIO | None:  # type: ignore[override]
        self.send_error(HTTPStatus.NOT_FOUND, "Not of this bundle")
        return None

    def end_headers(self) -> None:
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the terminal is for the address."""
