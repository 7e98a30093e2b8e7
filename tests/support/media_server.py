"""A local web server of audio files whose answers can be made faulty, by the name of the file."""

import http.server
import io
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import soundfile

RATE = 8_000


def ramp(seconds: float) -> np.ndarray:
    """Return a waveform whose value is the time in seconds / 100, so that an excerpt shows where it begins."""
    return (np.arange(round(seconds * RATE)) / RATE / 100).astype("f4")


def wav(seconds: float, subtype: str = "PCM_16") -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, ramp(seconds), RATE, format="WAV", subtype=subtype)
    return buffer.getvalue()


class Server(http.server.ThreadingHTTPServer):
    """Serves the same audio under any name.

    Attributes:
        behaviour: Faulty answers by name: an HTTP status, or one of cut, longer, html, short, stall, drip, slow, loop
            and head (response headers that are sent slowly).
        only_sound: Names for which only requests of ffmpeg get the faulty answer, not those of yt-dlp.
        requests: URL and cookies of every request.
        requested: Names that yt-dlp requested, in order; requests of ffmpeg are not included.
    """

    daemon_threads = True

    def __init__(self, seconds: float = 20) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behaviour: dict[str, int | str] = {}
        self.only_sound: set[str] = set()
        self.retry_after: str | None = None
        self.requested: list[str] = []
        self.requests: list[tuple[str, str | None]] = []
        self.sound = wav(seconds)
        self.stopping = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}/{{ytid}}.wav"

    def count_requests(self) -> Counter[str]:
        return Counter(self.requested)

    def handle_error(self, *_: object) -> None:
        """Ignore broken connections, which the tests cause on purpose."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        # A proxy receives the complete URL.
        name = self.path.rpartition("/")[2].removesuffix(".wav")
        self.server.requests.append((self.path, self.headers.get("Cookie")))
        by_ffmpeg = self.headers.get("User-Agent", "").startswith("Lavf") or "Range" in self.headers
        if not by_ffmpeg:
            self.server.requested.append(name)
        how: int | str = self.server.behaviour.get(name, 200)
        if name in self.server.only_sound and not by_ffmpeg:
            how = 200
        if isinstance(how, int) and how >= 400:
            self._refuse(how)
        elif how == "loop":
            self._redirect(self.path)
        elif how == "head":
            self._drip_head()
        elif how == "html":
            self._send(b"<html><body>Sign in to see this.</body></html>", "text/html")
        else:
            self._send_sound(str(how))

    def _refuse(self, status: int) -> None:
        self.send_response(status)
        if self.server.retry_after is not None:
            self.send_header("Retry-After", self.server.retry_after)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _drip_head(self) -> None:
        """Send headers for twenty seconds, one byte at a time, so that no single read times out."""
        self.close_connection = True
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        for _ in range(200):
            self.wfile.write(b"a")
            if self.server.stopping.wait(0.1):
                return

    def _redirect(self, where: str) -> None:
        self.send_response(302)
        self.send_header("Location", where)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, data: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _send_sound(self, how: str) -> None:
        data = wav(3) if how == "short" else self.server.sound
        byte_range = self.headers.get("Range")
        start = int(byte_range.removeprefix("bytes=").split("-")[0]) if byte_range else 0
        if start >= len(data):
            self.send_response(416)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        declared = len(data) * (2 if how == "longer" else 1)
        self.send_response(206 if byte_range else 200)
        self.send_header("Content-Type", "audio/x-wav")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(declared - start))
        if byte_range:
            self.send_header("Content-Range", f"bytes {start}-{declared - 1}/{declared}")
        self.end_headers()
        body = data[start:]
        if how in ("cut", "longer"):
            self.close_connection = True
        if how == "cut":
            body = body[:20_000]
        if how == "stall":
            self.wfile.write(body[:20_000])
            self.server.stopping.wait(60)
            self.close_connection = True
        elif how in ("slow", "drip"):
            # slow: the whole body within 2.5 s; drip: a few bytes at a time, without end.
            step, pause_s = (len(body) // 10 + 1, 0.25) if how == "slow" else (500, 0.2)
            for offset in range(0, len(body), step):
                self.wfile.write(body[offset : offset + step])
                if self.server.stopping.wait(pause_s):
                    self.close_connection = True
                    return
        else:
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@contextmanager
def serving(seconds: float = 20) -> Iterator[Server]:
    """Run a server while the block runs."""
    with Server(seconds) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield server
        finally:
            server.stopping.set()
            server.shutdown()


def wait_until(condition: object, seconds: float = 30) -> None:
    """Wait until a condition that another thread or process fulfils is true."""
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
