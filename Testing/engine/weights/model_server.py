"""A web server that behaves as Hugging Face does, and as badly as a network can."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class ModelServer:
    """Serves `content` at any path; the fields are its faults.

    Attributes:
        breaks: bytes after which the connection is cut, one entry per request; then none.
        statuses: answers to give instead of the content, one entry per request; then none.
        redirect: first send the client elsewhere, as Hugging Face does, with this address (or True).
        announced: SHA-256 in X-Linked-ETag; None says nothing.
        requests: (path, Range header or "") of each request.
    """

    content: bytes
    etag: str = '"one"'
    content_type: str = "application/octet-stream"
    ranges: bool = True
    length: bool = True
    breaks: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    redirect: bool | str = False
    announced: str | None = None
    requests: list[tuple[str, str]] = field(default_factory=list)
    url: str = ""

    def announce(self) -> None:
        self.announced = hashlib.sha256(self.content).hexdigest()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """One request."""
        self.requests.append((handler.path, handler.headers.get("Range", "")))
        if self.statuses:
            handler.send_error(self.statuses.pop(0))
            return
        if self.redirect and "/store/" not in handler.path:
            handler.send_response(302)
            handler.send_header(
                "Location",
                self.redirect if isinstance(self.redirect, str) else "/store/file?signature=1",
            )
            if self.announced:
                handler.send_header("X-Linked-ETag", f'"{self.announced}"')
            handler.end_headers()
            return
        start = self._start(handler)
        if start is None:
            return
        body = self.content[start:]
        if self.length:
            handler.send_header("Content-Length", str(len(body)))
        handler.send_header("Content-Type", self.content_type)
        if self.etag:
            handler.send_header("ETag", self.etag)
        handler.end_headers()
        if self.breaks:
            handler.wfile.write(body[: self.breaks.pop(0)])
            handler.wfile.flush()
            handler.close_connection = True
            return
        handler.wfile.write(body)

    def _start(self, handler: BaseHTTPRequestHandler) -> int | None:
        """First byte to send, after the status line; None if there is nothing to send."""
        wanted = handler.headers.get("Range", "")
        same = handler.headers.get("If-Range", self.etag) == self.etag
        if not (wanted and self.ranges and same):
            handler.send_response(200)
            return 0
        start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        size = len(self.content)
        if start >= size:
            handler.send_error(416)
            return None
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        return start


@contextmanager
def serving(server: ModelServer) -> Iterator[ModelServer]:
    """Run a server on a free port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.answer(self)

        def log_message(self, *_args: object) -> None:
            pass

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listener.daemon_threads = True
    thread = threading.Thread(target=listener.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    server.url = f"http://127.0.0.1:{listener.server_port}"
    try:
        yield server
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join()
