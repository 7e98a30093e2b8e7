"""Clips from YouTube, or from any other site that yt-dlp supports.

One video is requested at a time, and only the seconds of the segment are downloaded, as they are encoded. The rate
of requests is limited by the caller (`ssondo.audioset.rate_limiter`). `classify_error` gives the status and reason of
a clip for which yt-dlp raised an exception.
"""

import json
import logging
import os
import re
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
from ssondo.audioset.sources import Fetched, RateLimited
from ssondo.errors import ClipError, SsondoError
from ssondo.storage.segments import Segment
from ssondo.storage.shards.status import Status

log = logging.getLogger(__name__)

# Videos declare their duration in whole seconds.
_DURATION_TOLERANCE_S = 1.0
# Copy only the sound, without encoding it again. -copypriorss 0 drops packets before the start: otherwise the index of
# some containers makes the clip begin seconds early. -xerror makes a broken connection an error.
_FFMPEG_OUTPUT = ["-vn", "-copypriorss", "0", "-xerror", "-loglevel", "warning"]

_MAX_REASON_LENGTH = 100
# A rate-limit message begins with "Video unavailable", so these are tested first.
_RATE_LIMITED = ("try again later", "rate-limited", "not a bot", "captcha", "too many requests")
_Patterns = tuple[tuple[str, tuple[str, ...]], ...]
_PERMANENT: _Patterns = (
    ("private", ("private video", "video is private", "members-only", "members only", "join this channel")),
    ("age", ("confirm your age", "age-restricted", "inappropriate for some users")),
    ("region", ("in your country", "geo restricted", "geo-restricted", "geo restriction", "from your location")),
    ("copyright", ("copyright",)),
    ("removed", ("been removed", "removed by", "video has been terminated", "account has been terminated")),
    ("removed", ("account has been closed", "no longer available", "video does not exist", "has been deleted")),
    ("live", ("live event", "premieres in", "premiere will", "live stream recording")),
    ("payment", ("requires payment", "purchase", "purchased")),
    ("protected", ("drm protected", "drm-protected", "drm protection")),
    ("unavailable", ("video unavailable", "video is unavailable", "video is not available")),
)
_PERMANENT_HTTP = {404: "removed (HTTP 404)", 410: "removed (HTTP 410)", 451: "region (HTTP 451)"}
_TRANSIENT: _Patterns = (
    ("timeout", ("timed out", "timeout")),
    ("no network", ("name resolution", "name or service not known", "getaddrinfo", "network is unreachable")),
    ("connection lost", ("connection reset", "connection aborted", "connection refused", "remote end closed")),
    ("connection lost", ("bytes read", "incomplete read", "incompleteread", "ended prematurely", "ends prematurely")),
    ("damaged on the way", ("packet corrupt", "invalid data found")),
    ("not sound", ("unsupported url",)),
)
# How ffmpeg reports the HTTP status of an answer.
_FFMPEG_STATUS = re.compile(r"(?:HTTP error|Server returned) (\d{3})")
# The beginning of a message, "[youtube] ID: ", and URLs, which may contain any word.
_PREFIX = re.compile(r"\[[^\]\s]+\] \S+: ")
_URL = re.compile(r"\S*/\S*")


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
        job: Number of this job within the run.
        scratch: Folder for the clip that is being downloaded; None for the system's temporary folder.
    """

    parallel = False

    def __init__(
        self,
        *,
        cookies: str | None = None,
        proxies: Sequence[str] = (),
        url_template: str = "https://www.youtube.com/watch?v={ytid}",
        socket_timeout_s: float = 30,
        clip_timeout_s: float = 300,
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
        self.identity = json.dumps(url_template)
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
                message = _without_names(f"{type(error).__name__}: {error}", segment.ytid)
                return Fetched(Status.FAILED, f"yt-dlp: {message[:_MAX_REASON_LENGTH]}")
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


def classify_error(error: BaseException, ffmpeg_output: str = "", ytid: str = "") -> Fetched:
    """Return the result of the clip `ytid` for which yt-dlp raised an error.

    yt-dlp passes on the messages of YouTube. Permanent reasons are searched only in them, without the names and URLs
    that they contain, not in `ffmpeg_output`. An unknown error is FAILED, because a network error must never be
    recorded as permanent.

    Raises:
        RateLimited: If the server limits the rate.
    """
    message = _without_names(str(error), ytid)
    is_download = _contains(message, "download video data", "ffmpeg exited")
    ffmpeg_status = _FFMPEG_STATUS.search(ffmpeg_output)
    status = int(ffmpeg_status[1]) if ffmpeg_status else _http_status(error)
    all_text = f"{message} {_without_names(ffmpeg_output, ytid)}"
    if status == 429 or _contains(all_text, *_RATE_LIMITED):
        raise RateLimited(f"HTTP {status}" if status == 429 else "try again later", _retry_after_s(error))
    for reason, texts in _PERMANENT:
        if _contains(message, *texts):
            return Fetched(Status.UNAVAILABLE, reason)
    # The URL of the sound expires after some hours, so its 404 does not say that the video was removed.
    if not is_download and status in _PERMANENT_HTTP:
        return Fetched(Status.UNAVAILABLE, _PERMANENT_HTTP[status])
    if status is not None:
        return Fetched(Status.FAILED, f"HTTP {status}")
    for reason, texts in _TRANSIENT:
        if _contains(all_text, *texts):
            return Fetched(Status.FAILED, reason)
    return Fetched(Status.FAILED, message[:_MAX_REASON_LENGTH])


def _without_names(text: str, ytid: str) -> str:
    """Return a message without what differs between clips: the site, the id of the video and URLs."""
    text = _URL.sub("", _PREFIX.sub("", text.removeprefix("ERROR: ")))
    if ytid:
        text = re.sub(rf"(?<![\w-]){re.escape(ytid)}(?![\w-])", "", text)
    return " ".join(text.split())


def _contains(message: str, *texts: str) -> bool:
    """Whether one of the texts is in the message, as whole words and in any case."""
    return any(re.search(rf"\b{re.escape(text)}\b", message, re.IGNORECASE) for text in texts)


def _http_status(error: BaseException) -> int | None:
    """The HTTP status in the chain of exceptions behind an error of yt-dlp."""
    statuses = (getattr(cause, "status", None) for cause in _causes(error))
    return next((status for status in statuses if isinstance(status, int)), None)


def _retry_after_s(error: BaseException) -> float:
    """Seconds that the server asks to wait; 0 if it does not, or gives a date."""
    for cause in _causes(error):
        headers = getattr(getattr(cause, "response", None), "headers", None)
        text = headers.get("Retry-After") if headers is not None else None
        if text is not None:
            return float(text) if text.isdigit() else 0
    return 0


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An exception and those that led to it, each once; yt-dlp stores them in `exc_info` or `cause`."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        info = getattr(cause, "exc_info", None)
        inner = info[1] if info and info[1] is not cause else None
        cause = inner or getattr(cause, "cause", None) or cause.__cause__ or cause.__context__
