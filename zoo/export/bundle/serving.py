"""A bundle over HTTP, for the browser on this machine. Stdlib alone."""

from __future__ import annotations

import http.server
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from zoo.errors import UsageError
from zoo.export.bundle import manifest

HOST = "127.0.0.1"
PORT = 8000
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
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def serve(folder: Path, port: int = PORT, ready: Callable[[str], None] = lambda url: None) -> None:
    """Serve a bundle until Ctrl-C, which comes through; `ready` is told the address.

    Port 0 takes a free one. Raises `ModelFileError` where the folder is no bundle.
    """
    manifest.read(folder)
    with _open(folder.resolve(), port) as server:
        ready(f"http://{HOST}:{server.server_address[1]}/")
        server.serve_forever(poll_interval=0.1)


def _open(root: Path, port: int) -> http.server.ThreadingHTTPServer:
    def handle(*args: Any) -> Handler:
        return Handler(*args, directory=str(root))

    try:
        return http.server.ThreadingHTTPServer((HOST, port), handle)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"Port {port} cannot be had: {reason}. Type: --port 0") from None


class Handler(http.server.SimpleHTTPRequestHandler):
    """Answer with files of one folder, never through a link that leads out of it."""

    extensions_map = TYPES

    def send_head(self) -> Any:
        root = Path(self.directory).resolve()
        wanted = Path(self.translate_path(self.path)).resolve()
        if wanted == root:
            wanted = (root / "index.html").resolve()
        if not wanted.is_relative_to(root) or not wanted.is_file():
            self.send_error(404, "Not of this bundle")
            return None
        return super().send_head()

    def list_directory(self, path: Any) -> BinaryIO | None:  # type: ignore[override]
        self.send_error(404, "Not of this bundle")
        return None

    def end_headers(self) -> None:
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the terminal is for the address."""
