"""Clips from YouTube, or from any other site that yt-dlp supports.

One video is requested at a time, and only the seconds of the segment are downloaded, as they are encoded. The rate
of requests is limited by the caller (`ssondo.audioset.rate_limiter`).
"""

import json
import logging
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import IO, Any

from ssondo.audio.decoders import ffmpeg_binary
from ssondo.audio.decoding import decode_file
from ssondo.audioset.sources import Fetched
from ssondo.audioset.sources.ytdlp_errors import classify_bug, classify_error
from ssondo.errors import ClipError, SsondoError
from ssondo.storage.segments import Segment
from ssondo.storage.shards.status import Status

log = logging.getLogger(__name__)

# Videos declare their duration in whole seconds.
_DURATION_TOLERANCE_S = 1.0
# Copy only the sound, without encoding it again. -copypriorss 0 drops packets before the start: otherwise the index of
# some containers makes the clip begin seconds early. -xerror makes a broken connection an error.
_FFMPEG_OUTPUT = ["-vn", "-copypriorss", "0", "-xerror", "-loglevel", "warning"]


class _Unavailable(Exception):
    """A permanent reason that is determined before anything is downloaded."""


class _TooLong(BaseException):
    """The time limit of a clip has passed.

    It is not an Exception, because yt-dlp treats any Exception during a request as a network error and retries.
    """


class Youtube:
    """Fetches the seconds of each segment with yt-dlp.

    Args:
        cookies: Path of a cookies file in Netscape format; None for no cookies.
        proxies: URLs of proxies; this job uses the one given by its number.
        url_template: URL of a video, with the placeholder {ytid}.
        socket_timeout_s: Seconds without data after which a connection is closed.
        clip_timeout_s: Seconds after which the download of a clip is aborted.
        segments: Not used.
        job: Number of this job within the run.
        scratch: Folder for the clip that is being downloaded; None for the system's temporary folder.

    Raises:
        SsondoError: If yt-dlp, ffmpeg or the cookies file is missing, or a setting is invalid.
    """

    parallel = False
    is_remote = True

    def __init__(
        self,
        *,
        cookies: str | None = None,
        proxies: Sequence[str] = (),
        url_template: str = "https://www.youtube.com/watch?v={ytid}",
        socket_timeout_s: float = 30,
        clip_timeout_s: float = 300,
        segments: Sequence[Segment] = (),
        job: int = 0,
        scratch: Path | None = None,
    ) -> None:
        if "{ytid}" not in url_template:
            raise SsondoError(f"audioset.source.url_template: {url_template!r} has no {{ytid}} in it")
        if cookies and not Path(cookies).is_file():
            raise SsondoError(f"audioset.source.cookies: {cookies} is not a file")
        if other := [proxy for proxy in proxies if not proxy.startswith("http://")]:
            # ffmpeg supports no other kind and would download the sound without the proxy.
            raise SsondoError(
                f"audioset.source.proxies: {other[0]!r} is not an http:// proxy; ffmpeg supports no other kind"
            )
        self._url_template = url_template
        self._socket_timeout_s = socket_timeout_s
        self._scratch = scratch
        self._clip_timeout_s = clip_timeout_s
        self._segment = Segment("", 0, 0)
        self._duration_s: float | None = None
        self._downloader = self._open(cookies, proxies[job % len(proxies)] if proxies else None)

    def _open(self, cookies: str | None, proxy: str | None) -> Any:
        """Open one downloader for all clips, so that yt-dlp requests the code of the player only once."""
        ffmpeg = ffmpeg_binary()
        if ffmpeg is None:
            raise SsondoError("ffmpeg, which cuts clips from videos, is not on PATH; pip install imageio-ffmpeg")
        try:
            from yt_dlp import YoutubeDL
            from yt_dlp.downloader.external import FFmpegFD
            from yt_dlp.postprocessor.ffmpeg import FFmpegPostProcessor
        except ImportError:
            raise SsondoError("yt-dlp is not installed; pip install '.[pipeline]'") from None
        # The command line of yt-dlp does the same: yt-dlp looks for ffmpeg before it reads the options below.
        FFmpegPostProcessor._ffmpeg_location.set(ffmpeg)
        if not FFmpegFD.available():
            raise SsondoError(f"yt-dlp cannot use {ffmpeg}; put an ffmpeg on PATH")
        options: dict[str, Any] = {
            "format": "bestaudio/best",
            "outtmpl": "clip.%(ext)s",
            "download_ranges": self._ranges,
            "external_downloader_args": {
                "ffmpeg_i": ["-rw_timeout", str(round(self._socket_timeout_s * 1e6))],
                "ffmpeg_o": _FFMPEG_OUTPUT,
            },
            "logger": _Silent(),
            "quiet": True,
            "noprogress": True,
            "noplaylist": True,
            "playlist_items": "1",
            "cachedir": False,
            "overwrites": True,
            "nopart": True,
            "fixup": "never",
            "socket_timeout": self._socket_timeout_s,
            "ffmpeg_location": ffmpeg,
            # `fetch` retries at the limited rate; yt-dlp itself must not retry.
            "retries": 0,
            "extractor_retries": 0,
            "fragment_retries": 0,
            "file_access_retries": 0,
        }
        if cookies:
            options["cookiefile"] = cookies
        if proxy:
            options["proxy"] = proxy
        return YoutubeDL(options)

    @property
    def identity(self) -> str:
        """The settings that change what is fetched."""
        return json.dumps(self._url_template)

    def _ranges(self, info: dict[str, Any], _: Any) -> Iterator[dict[str, float]]:
        """Yield the seconds to download; yt-dlp calls this after it has read the metadata of the video."""
        start_s, end_s = self._segment.start_s, self._segment.end_s
        if info.get("live_status") in ("is_live", "is_upcoming", "post_live") or info.get("is_live"):
            raise _Unavailable("live")
        self._duration_s = info.get("duration")
        if self._duration_s is not None and start_s >= self._duration_s:
            raise _Unavailable("too short")
        yield {"start_time": start_s, "end_time": end_s}

    def fetch(self, segment: Segment) -> Fetched:
        """Request the clip once.

        Raises:
            RateLimited: If the server limits the rate.
        """
        from yt_dlp.utils import YoutubeDLError

        self._segment, self._duration_s = segment, None
        with (
            tempfile.TemporaryDirectory(prefix="ssondo-fetch-", dir=self._scratch) as folder,
            tempfile.TemporaryFile() as ffmpeg_output,
        ):
            self._downloader.params["paths"] = {"home": folder}
            try:
                with _time_limit(self._clip_timeout_s), _redirect_stderr(ffmpeg_output.fileno()):
                    self._downloader.extract_info(self._url_template.format(ytid=segment.ytid), download=True)
            except _Unavailable as error:
                return Fetched(Status.UNAVAILABLE, str(error))
            except (_TooLong, TimeoutError):
                return Fetched(Status.FAILED, "timeout")
            except YoutubeDLError as error:
                return classify_error(error, _read_text(ffmpeg_output), segment.ytid)
            except OSError as error:
                return Fetched(Status.FAILED, f"connection lost: {error.strerror or type(error).__name__}")
            except Exception as error:
                # A bug of yt-dlp, e.g. when a page has a new layout; one clip must not stop its shard.
                log.warning("%s: unexpected exception of yt-dlp; the clip failed", segment.ytid, exc_info=True)
                return classify_bug(error, segment.ytid)
            files = list(Path(folder).iterdir())
            if len(files) != 1:
                return Fetched(Status.FAILED, "nothing was downloaded")
            return self._verify(files[0].read_bytes(), segment, _read_text(ffmpeg_output).lower())

    def _verify(self, data: bytes, segment: Segment, ffmpeg_output: str) -> Fetched:
        """Return the clip if it has the expected length: ffmpeg may succeed although the connection was closed."""
        try:
            decoded = decode_file(data)
        except ClipError as error:
            if self._duration_s is None and "nothing was encoded" in ffmpeg_output:
                # ffmpeg read the whole video without an error, so it ends before the segment.
                return Fetched(Status.UNAVAILABLE, "too short")
            return Fetched(Status.FAILED, f"download: {error}")
        end_s = segment.end_s if self._duration_s is None else min(segment.end_s, self._duration_s)
        if self._duration_s is not None and decoded.duration_s < end_s - segment.start_s - _DURATION_TOLERANCE_S:
            return Fetched(Status.FAILED, "download cut short")
        return Fetched(Status.OK, "", data)


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raise _TooLong in the block after so many seconds; in other threads than the main one there is no limit."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_: int, __: FrameType | None) -> None:
        raise _TooLong

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def _redirect_stderr(descriptor: int) -> Iterator[None]:
    """Redirect the standard error of child processes: of ffmpeg, yt-dlp keeps only the exit code."""
    sys.stderr.flush()
    original = os.dup(2)
    try:
        os.dup2(descriptor, 2)
        yield
    finally:
        os.dup2(original, 2)
        os.close(original)


class _Silent:
    """Discards the messages of yt-dlp, which its exceptions repeat."""

    def debug(self, _: str) -> None:
        """Discard a message."""

    info = warning = error = debug


def _read_text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode("utf-8", "replace")
