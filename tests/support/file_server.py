"""A local HTTP server of files whose answers can be made faulty."""

import hashlib
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

CONTENT = np.random.default_rng(0).bytes(3_000_000)
MD5 = hashlib.md5(CONTENT).hexdigest()
SHA256 = hashlib.sha256(CONTENT).hexdigest()
PROXIES = ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")


class FileServer(http.server.ThreadingHTTPServer):
    """Serves `files` by path, with ranges and an ETag; each entry of `faults` applies to one of the next answers.

    A fault is a status code, or "cut" (half of the requested bytes), "page" (a web page with status 200), "bare page"
    (the same without a Content-Type), "wrong range" (a 206 that begins at another byte) or "silent" (no answer within
    a second).
    """

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = files
        self.etag: str | None = '"first"'
        self.modified: str | None = None
        self.faults: list[int | str] = []
        self.retry_after: str | None = None
        self.ranges: list[str | None] = []
        self.requested: list[str] = []
        self.knows_ranges = True
        self.says_length = True
        self.pause_s = 0.0

    def url(self, path: str = "file.bin") -> str:
        return f"http://127.0.0.1:{self.server_port}/{path}"

    def handle_error(self, *_: object) -> None:
        """Ignore clients that close the connection."""


class _Handler(http.server.BaseHTTPRequestHandler):
    server: FileServer

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        server = self.server
        server.ranges.append(self.headers.get("Range"))
        server.requested.append(self.path.lstrip("/"))
        fault = server.faults.pop(0) if server.faults else None
        content = server.files.get(self.path.lstrip("/"))
        if fault == "silent":
            threading.Event().wait(1.0)
            return
        if isinstance(fault, int) or content is None:
            self.send_response(fault if isinstance(fault, int) else 404)
            if server.retry_after:
                self.send_header("Retry-After", server.retry_after)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if fault in ("page", "bare page"):
            self._answer(200, b"\n<!DOCTYPE html><html>Sign in</html>", "text/html" if fault == "page" else None)
            return
        start = self._start(content)
        if start and start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self._answer(206 if start else 200, content[start:], None, start, len(content), fault)

    def _start(self, content: bytes) -> int:
        is_unchanged = self.headers.get("If-Range") in (self.server.etag, self.server.modified, None)
        if "Range" not in self.headers or not self.server.knows_ranges or not is_unchanged:
            return 0
        return int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))

    def _answer(
        self, status: int, body: bytes, kind: str | None, start: int = 0, total: int = 0, fault: int | str | None = None
    ) -> None:
        server = self.server
        self.send_response(status)
        if server.etag:
            self.send_header("ETag", server.etag)
        if server.modified:
            self.send_header("Last-Modified", server.modified)
        if kind:
            self.send_header("Content-Type", kind)
        if status == 206:
            first = start + 7 if fault == "wrong range" else start
            self.send_header("Content-Range", f"bytes {first}-{total - 1}/{total}")
        if server.says_length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if fault == "cut":
            body = body[: len(body) // 2]
        for offset in range(0, len(body), 100_000):
            self.wfile.write(body[offset : offset + 100_000])
            # Not time.sleep, which some tests replace.
            threading.Event().wait(server.pause_s)


@contextmanager
def serving(files: dict[str, bytes]) -> Iterator[FileServer]:
    """Run a server of `files`; meanwhile requests do not go through a proxy."""
    with FileServer(files) as server, pytest.MonkeyPatch.context() as patch:
        for name in PROXIES:
            patch.delenv(name, raising=False)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()
