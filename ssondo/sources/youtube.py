"""Clips from YouTube, or any site that yt-dlp knows, at a polite rate.

One video is asked for at a time and only the wanted seconds are taken, kept as mono FLAC at the
video's own rate. A rate-limit answer pauses the job: it never counts as "unavailable". The rate
belongs to the whole run; each of `max_jobs` jobs takes its fixed part, so jobs need not speak to
each other.
"""

import json
import logging
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ssondo.audio import decode_file, ffmpeg_binary
from ssondo.errors import SsondoError, TransientError
from ssondo.index import Segment
from ssondo.shards import Status
from ssondo.sources import Fetched

log = logging.getLogger(__name__)

_TIMEOUT_S = 30
# Videos declare whole seconds.
_SHORTER_S = 1.0
# Lossless, as all that follows is mono; and no success when the connection was cut on the way.
_OUTPUT = ["-vn", "-ac", "1", "-c:a", "flac", "-sample_fmt", "s16", "-f", "flac", "-xerror"]
# yt-dlp passes on YouTube's words. A rate limit begins with "Video unavailable", so it is looked for first.
_RATE_LIMITED = ("try again later", "rate-limited", "not a bot", "captcha", "too many requests")
_PERMANENT = (
    ("private", ("private video", "video is private", "members-only", "members only", "join this channel")),
    ("age", ("confirm your age", "age-restricted", "inappropriate for some users")),
    ("region", ("in your country", "geo restrict", "geo-restrict", "from your location")),
    ("copyright", ("copyright",)),
    ("removed", ("been removed", "removed by", "terminated", "account has been closed", "no longer available")),
    ("removed", ("does not exist", "has been deleted")),
    ("live", ("live event", "premieres in", "premiere will", "live stream recording")),
    ("payment", ("requires payment", "purchase")),
    ("protected", ("drm",)),
    ("unavailable", ("video unavailable", "video is unavailable", "video is not available")),
)
_PERMANENT_HTTP = {404: "removed (HTTP 404)", 410: "removed (HTTP 410)", 451: "region (HTTP 451)"}
_TRANSIENT = (
    ("timeout", ("timed out", "timeout")),
    ("no network", ("name resolution", "name or service not known", "getaddrinfo", "network is unreachable")),
    ("connection lost", ("connection reset", "connection aborted", "connection refused", "remote end closed")),
    ("connection lost", ("bytes read", "incomplete read", "incompleteread", "ended prematurely")),
)


class _RateLimited(Exception):
    """The server asks for a pause."""


class _Unavailable(Exception):
    """A reason that will not change, found before anything was downloaded."""


class Youtube:
    """Fetches the wanted seconds of each video with yt-dlp.

    Args:
        requests_per_hour: videos that the whole run may ask for in an hour.
        max_jobs: jobs that share that rate.
        cookies: file of cookies in Netscape form, or None.
        proxies: proxy URLs, of which this job takes one by its number.
        url_template: address of a video, with {ytid}.
        clip_s: length of a clip in seconds; not used, the segment has it.
        attempts: times that a clip is asked for when the network fails.
        pauses_s: seconds to wait at each rate-limit answer in a row; after the last the job gives up.
        segments: not used.
        job: number of this job.

    Raises:
        SsondoError: if yt-dlp or ffmpeg is missing, or the cookies file.
    """

    parallel = False
    resumes = True

    def __init__(
        self,
        *,
        requests_per_hour: int = 300,
        max_jobs: int = 1,
        cookies: str | None = None,
        proxies: Sequence[str] = (),
        url_template: str = "https://www.youtube.com/watch?v={ytid}",
        clip_s: float | None = None,
        attempts: int = 3,
        pauses_s: Sequence[float] = (60, 300, 900, 3600),
        segments: Sequence[Segment] = (),
        job: int = 0,
    ) -> None:
        if "{ytid}" not in url_template:
            raise SsondoError(f"audioset.source.url_template: {url_template!r} has no {{ytid}} in it")
        if cookies and not Path(cookies).is_file():
            raise SsondoError(f"audioset.source.cookies: {cookies} is no file")
        self._url_template = url_template
        self._interval_s = 3600 * max_jobs / requests_per_hour
        self._next_request = time.monotonic()
        self._attempts = attempts
        self._pauses_s = list(pauses_s)
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
            raise SsondoError("yt-dlp is not installed; pip install 'ssondo[pipeline]'") from None
        # As yt-dlp's own command line does: it looks for ffmpeg once without the options below.
        FFmpegPostProcessor._ffmpeg_location.set(ffmpeg)
        if not FFmpegFD.available():
            raise SsondoError(f"yt-dlp cannot use {ffmpeg}; put an ffmpeg on PATH")
        options: dict[str, Any] = {
            "format": "bestaudio/best",
            "outtmpl": "clip.%(ext)s",
            "download_ranges": self._ranges,
            # Copied packets would begin at the container's index entry before the start, up to ten
            # seconds early in YouTube's webm; decoded sound is cut at the sample.
            "force_keyframes_at_cuts": True,
            "external_downloader_args": {"ffmpeg_o": _OUTPUT},
            "logger": _Silent(),
            "quiet": True,
            "noprogress": True,
            "noplaylist": True,
            "playlist_items": "1",
            "cachedir": False,
            "overwrites": True,
            "nopart": True,
            "fixup": "never",
            "socket_timeout": _TIMEOUT_S,
            "ffmpeg_location": ffmpeg,
            # This class retries, at the polite rate; yt-dlp must not do it faster.
            "retries": 0,
            "extractor_retries": 0,
            "fragment_retries": 2,
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
        """Fetch the clip, as often as the network asks for it and with pauses where the server does.

        Raises:
            TransientError: if the server still limits the rate after the longest pause.
        """
        n_limited = n_failed = 0
        while True:
            self._wait()
            try:
                fetched = self._try(segment)
            except _RateLimited as error:
                if n_limited == len(self._pauses_s):
                    raise TransientError(
                        f"the server limits the rate ({error}); finished clips are kept, run again later, "
                        "with a lower audioset.source.requests_per_hour"
                    ) from None
                log.warning("%s: rate limited (%s); pausing %g s", segment.ytid, error, self._pauses_s[n_limited])
                time.sleep(self._pauses_s[n_limited])
                n_limited += 1
                continue
            n_failed += fetched.status is Status.FAILED
            if fetched.status is not Status.FAILED or n_failed >= self._attempts:
                return fetched

    def _wait(self) -> None:
        """Sleep until this job's part of the rate allows a request."""
        time.sleep(max(0.0, self._next_request - time.monotonic()))
        self._next_request = time.monotonic() + self._interval_s

    def _try(self, segment: Segment) -> Fetched:
        """Ask for the clip once.

        Raises:
            _RateLimited: if the server says so.
        """
        from yt_dlp.utils import YoutubeDLError

        self._segment, self._duration_s = segment, None
        with tempfile.TemporaryDirectory(prefix="ssondo-fetch-") as folder:
            self._downloader.params["paths"] = {"home": folder}
            try:
                self._downloader.extract_info(self._url_template.format(ytid=segment.ytid), download=True)
            except _Unavailable as error:
                return Fetched(Status.UNAVAILABLE, str(error))
            except YoutubeDLError as error:
                return _classified(error)
            files = list(Path(folder).iterdir())
            if len(files) != 1:
                return Fetched(Status.FAILED, "nothing was downloaded")
            return self._checked(files[0].read_bytes(), segment)

    def _checked(self, data: bytes, segment: Segment) -> Fetched:
        """The clip if it is as long as it must be: ffmpeg ends well when a connection is cut."""
        try:
            decoded = decode_file(data)
        except SsondoError as error:
            return Fetched(Status.FAILED, f"download: {error}")
        end_s = segment.end_s if self._duration_s is None else min(segment.end_s, self._duration_s)
        if self._duration_s is not None and decoded.duration_s < end_s - segment.start_s - _SHORTER_S:
            return Fetched(Status.FAILED, "download cut short")
        return Fetched(Status.OK, "", data)


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


def _classified(error: BaseException) -> Fetched:
    """How a clip ended for which yt-dlp raised `error`.

    What is not known is FAILED: a network fault must never become "unavailable".

    Raises:
        _RateLimited: if the server says so.
    """
    text = str(error)
    lowered = text.lower()
    status = _http_status(error)
    if status == 429 or any(words in lowered for words in _RATE_LIMITED):
        raise _RateLimited(f"HTTP {status}" if status == 429 else "try again later")
    for reason, texts in _PERMANENT:
        if any(words in lowered for words in texts):
            return Fetched(Status.UNAVAILABLE, reason)
    if "download video data" not in lowered and status in _PERMANENT_HTTP:
        return Fetched(Status.UNAVAILABLE, _PERMANENT_HTTP[status])
    if status is not None:
        return Fetched(Status.FAILED, f"HTTP {status}")
    for reason, texts in _TRANSIENT:
        if any(words in lowered for words in texts):
            return Fetched(Status.FAILED, reason)
    return Fetched(Status.FAILED, text.removeprefix("ERROR: ")[:100])
