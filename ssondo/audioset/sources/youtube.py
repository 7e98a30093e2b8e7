"""Clips from YouTube, or any site that yt-dlp knows, at a polite rate.

One video is asked for at a time and only the wanted seconds are taken, as they were encoded. A
rate-limit answer is no ending of a clip: it never counts as "unavailable". How fast clips are asked
for is not decided here (`ssondo.audioset.rate_limiter`).
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
from typing import Any

from ssondo.audio.decoders import ffmpeg_binary
from ssondo.audio.decoding import decode_file
from ssondo.audioset.sources import Fetched, RateLimited
from ssondo.errors import SsondoError
from ssondo.storage.segments import Segment
from ssondo.storage.shards.status import Status

log = logging.getLogger(__name__)

# Videos declare whole seconds.
_SHORTER_S = 1.0
# Nothing but the sound, as it is encoded. Packets before the start are left out (else a container's index may
# begin the clip seconds early), and a connection that was cut on the way is no success.
_OUTPUT = ["-vn", "-copypriorss", "0", "-xerror", "-loglevel", "warning"]
# How ffmpeg words a server's answer.
_FFMPEG_STATUS = re.compile(r"(?:HTTP error|Server returned) (\d{3})")
# A message's head ("[youtube] ID: "), and addresses: names are chance, and may hold any word.
_HEAD = re.compile(r"\[[^\]\s]+\] \S+: ")
_ADDRESS = re.compile(r"\S*/\S*")
# yt-dlp passes on YouTube's words. A rate limit begins with "Video unavailable", so it is looked for first.
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


class _Unavailable(Exception):
    """A reason that will not change, found before anything was downloaded."""


class _TooLong(BaseException):
    """The clip is not there after the time that one may take.

    No Exception: yt-dlp takes any that comes while it waits for an answer for a fault of its own, and asks again.
    """


class Youtube:
    """Fetches the wanted seconds of each video with yt-dlp.

    Args:
        cookies: file of cookies in Netscape form, or None.
        proxies: proxy URLs, of which this job takes one by its number.
        url_template: address of a video, with {ytid}.
        socket_timeout_s: seconds without a byte after which a connection is given up.
        clip_timeout_s: seconds after which a clip is given up.
        segments: not used.
        job: number of this job.
        scratch: folder for the clip that is being fetched; None: the system's.

    Raises:
        SsondoError: if yt-dlp or ffmpeg is missing, or the cookies file.
    """

    parallel = False
    resumes = True

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
            raise SsondoError(f"audioset.source.cookies: {cookies} is no file")
        if other := [proxy for proxy in proxies if not proxy.startswith("http://")]:
            # ffmpeg knows no other kind: it would fetch the sound past the proxy.
            raise SsondoError(f"audioset.source.proxies: {other[0]!r} is no http:// proxy, and ffmpeg takes no other")
        self._url_template = url_template
        self._stall_s = socket_timeout_s
        self._scratch = scratch
        self._deadline_s = clip_timeout_s
        self._segment = Segment("", 0, 0)
        self._duration_s: float | None = None
        self._downloader = self._open(cookies, proxies[job % len(proxies)] if proxies else None)

    def _open(self, cookies: str | None, proxy: str | None) -> Any:
        """One downloader for all clips, so that what yt-dlp learns of the player is asked for once."""
        ffmpeg = ffmpeg_binary()
        if ffmpeg is None:
            raise SsondoError("no ffmpeg on PATH, which cuts clips of videos; pip install imageio-ffmpeg")
        try:
            from yt_dlp import YoutubeDL
            from yt_dlp.downloader.external import FFmpegFD
            from yt_dlp.postprocessor.ffmpeg import FFmpegPostProcessor
        except ImportError:
            raise SsondoError("yt-dlp is not installed; pip install '.[pipeline]'") from None
        # As yt-dlp's own command line does: it looks for ffmpeg once without the options below.
        FFmpegPostProcessor._ffmpeg_location.set(ffmpeg)
        if not FFmpegFD.available():
            raise SsondoError(f"yt-dlp cannot use {ffmpeg}; put an ffmpeg on PATH")
        options: dict[str, Any] = {
            "format": "bestaudio/best",
            "outtmpl": "clip.%(ext)s",
            "download_ranges": self._ranges,
            "external_downloader_args": {
                "ffmpeg_i": ["-rw_timeout", str(round(self._stall_s * 1e6))],
                "ffmpeg_o": _OUTPUT,
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
            "socket_timeout": self._stall_s,
            "ffmpeg_location": ffmpeg,
            # `fetch` retries, at the polite rate; yt-dlp must not do it faster.
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
        """The wanted seconds; yt-dlp asks once it knows the video, before it downloads."""
        start_s, end_s = self._segment.start_s, self._segment.end_s
        if info.get("live_status") in ("is_live", "is_upcoming", "post_live") or info.get("is_live"):
            raise _Unavailable("live")
        self._duration_s = info.get("duration")
        if self._duration_s is not None and start_s >= self._duration_s:
            raise _Unavailable("too short")
        yield {"start_time": start_s, "end_time": end_s}

    def fetch(self, segment: Segment) -> Fetched:
        """Ask for the clip once.

        Raises:
            RateLimited: if the server says so.
        """
        from yt_dlp.utils import YoutubeDLError

        self._segment, self._duration_s = segment, None
        with (
            tempfile.TemporaryDirectory(prefix="ssondo-fetch-", dir=self._scratch) as folder,
            tempfile.TemporaryFile() as words,
        ):
            self._downloader.params["paths"] = {"home": folder}
            try:
                with _at_most(self._deadline_s), _standard_error_to(words.fileno()):
                    self._downloader.extract_info(self._url_template.format(ytid=segment.ytid), download=True)
            except _Unavailable as error:
                return Fetched(Status.UNAVAILABLE, str(error))
            except (_TooLong, TimeoutError):
                return Fetched(Status.FAILED, "timeout")
            except YoutubeDLError as error:
                words.seek(0)
                return _classified(error, words.read().decode("utf-8", "replace"), segment.ytid)
            except OSError as error:
                return Fetched(Status.FAILED, f"connection lost: {error.strerror or type(error).__name__}")
            except Exception as error:
                # As where an extractor meets an answer of a new shape: one clip must not hold up its shard.
                log.warning("%s: yt-dlp has a bug here; the clip has failed", segment.ytid, exc_info=True)
                words_of_bug = _without_names(f"{type(error).__name__}: {error}", segment.ytid)
                return Fetched(Status.FAILED, f"yt-dlp: {words_of_bug[:100]}")
            files = list(Path(folder).iterdir())
            if len(files) != 1:
                return Fetched(Status.FAILED, "nothing was downloaded")
            words.seek(0)
            return self._checked(files[0].read_bytes(), segment, words.read().decode("utf-8", "replace").lower())

    def _checked(self, data: bytes, segment: Segment, words_of_ffmpeg: str) -> Fetched:
        """The clip if it is as long as it must be: ffmpeg ends well when a connection is cut."""
        try:
            decoded = decode_file(data)
        except SsondoError as error:
            if self._duration_s is None and "nothing was encoded" in words_of_ffmpeg:
                # ffmpeg read to the end without a fault, and the end comes before the segment.
                return Fetched(Status.UNAVAILABLE, "too short")
            return Fetched(Status.FAILED, f"download: {error}")
        end_s = segment.end_s if self._duration_s is None else min(segment.end_s, self._duration_s)
        if self._duration_s is not None and decoded.duration_s < end_s - segment.start_s - _SHORTER_S:
            return Fetched(Status.FAILED, "download cut short")
        return Fetched(Status.OK, "", data)


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Raise _TooLong in the block after so many seconds; only the main thread has such a clock."""
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
def _standard_error_to(descriptor: int) -> Iterator[None]:
    """What programs say that are started in the block: yt-dlp keeps no more of ffmpeg's words than its exit code."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        os.dup2(descriptor, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


class _Silent:
    """yt-dlp's words come back in its exceptions; nothing is printed beside them."""

    def debug(self, _: str) -> None:
        """Drop a message."""

    info = warning = error = debug


def _http_status(error: BaseException | None) -> int | None:
    """The HTTP status at the bottom of an exception of yt-dlp."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        status = getattr(error, "status", None)
        if isinstance(status, int):
            return status
        info = getattr(error, "exc_info", None)
        inner = info[1] if info and info[1] is not error else None
        error = inner or getattr(error, "cause", None) or error.__cause__ or error.__context__
    return None


def _retry_after_s(error: BaseException) -> float:
    """How long the server says to wait, in seconds; 0 if it does not, or names a date."""
    seen: set[int] = set()
    inner: BaseException | None = error
    while inner is not None and id(inner) not in seen:
        seen.add(id(inner))
        headers = getattr(getattr(inner, "response", None), "headers", None)
        text = headers.get("Retry-After") if headers is not None else None
        if text is not None:
            return float(text) if text.isdigit() else 0
        info = getattr(inner, "exc_info", None)
        inner = (info[1] if info else None) or getattr(inner, "cause", None) or inner.__cause__ or inner.__context__
    return 0


def _classified(error: BaseException, words_of_ffmpeg: str = "", ytid: str = "") -> Fetched:
    """How a clip ended for which yt-dlp raised `error`.

    What is not known is FAILED: a network fault must never become "unavailable". So a reason that lasts is
    looked for in yt-dlp's own message alone, without the names and addresses in it.

    Raises:
        RateLimited: if the server says so.
    """
    message = _without_names(str(error), ytid)
    is_sound = _says(message, "download video data", "ffmpeg exited")
    found = _FFMPEG_STATUS.search(words_of_ffmpeg)
    status = int(found[1]) if found else _http_status(error)
    both = f"{message} {_without_names(words_of_ffmpeg, ytid)}"
    if status == 429 or _says(both, *_RATE_LIMITED):
        raise RateLimited(f"HTTP {status}" if status == 429 else "try again later", _retry_after_s(error))
    for reason, texts in _PERMANENT:
        if _says(message, *texts):
            return Fetched(Status.UNAVAILABLE, reason)
    # The address of the sound is good for some hours only, so its 404 says nothing of the video.
    if not is_sound and status in _PERMANENT_HTTP:
        return Fetched(Status.UNAVAILABLE, _PERMANENT_HTTP[status])
    if status is not None:
        return Fetched(Status.FAILED, f"HTTP {status}")
    for reason, texts in _TRANSIENT:
        if _says(both, *texts):
            return Fetched(Status.FAILED, reason)
    return Fetched(Status.FAILED, message[:100])


def _without_names(text: str, ytid: str) -> str:
    """A message without what differs from clip to clip: the site, the video's id, addresses."""
    text = _ADDRESS.sub("", _HEAD.sub("", text.removeprefix("ERROR: ")))
    if ytid:
        text = re.sub(rf"(?<![\w-]){re.escape(ytid)}(?![\w-])", "", text)
    return " ".join(text.split())


def _says(message: str, *texts: str) -> bool:
    """Whether one of these texts is in the message, as whole words."""
    return any(re.search(rf"\b{re.escape(text)}\b", message, re.IGNORECASE) for text in texts)
