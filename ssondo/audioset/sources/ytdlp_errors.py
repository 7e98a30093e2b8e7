"""The errors of yt-dlp and ffmpeg, and the status and reason of a clip that each of them leads to.

All patterns of messages are in this module. yt-dlp passes on the messages of YouTube. An unknown error is FAILED: a
network error must never be recorded as permanent.
"""

import re
from collections.abc import Iterator

from ssondo.audioset.sources import Fetched, RateLimited
from ssondo.storage.shards.status import Status

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
# The beginning of a message, "[youtube] ID: ", and URLs: names are arbitrary and may contain any word.
_PREFIX = re.compile(r"\[[^\]\s]+\] \S+: ")
_URL = re.compile(r"\S*/\S*")


def classify_error(error: BaseException, ffmpeg_output: str = "", ytid: str = "") -> Fetched:
    """Return the result of a clip for which yt-dlp raised an error.

    Permanent reasons are searched in the message of yt-dlp only, without the names and URLs in it.

    Args:
        error: The exception of yt-dlp.
        ffmpeg_output: What ffmpeg printed, if it was started.
        ytid: Id of the clip.

    Raises:
        RateLimited: If the server limits the rate.
    """
    message = without_names(str(error), ytid)
    is_download = _contains(message, "download video data", "ffmpeg exited")
    ffmpeg_status = _FFMPEG_STATUS.search(ffmpeg_output)
    status = int(ffmpeg_status[1]) if ffmpeg_status else _http_status(error)
    all_text = f"{message} {without_names(ffmpeg_output, ytid)}"
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


def classify_bug(error: Exception, ytid: str) -> Fetched:
    """Return the result of a clip for which yt-dlp raised an exception that is not one of its own errors."""
    message = without_names(f"{type(error).__name__}: {error}", ytid)
    return Fetched(Status.FAILED, f"yt-dlp: {message[:_MAX_REASON_LENGTH]}")


def without_names(text: str, ytid: str) -> str:
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
    statuses = (getattr(each, "status", None) for each in _causes(error))
    return next((status for status in statuses if isinstance(status, int)), None)


def _retry_after_s(error: BaseException) -> float:
    """Seconds that the server asks to wait; 0 if it does not, or gives a date."""
    for each in _causes(error):
        headers = getattr(getattr(each, "response", None), "headers", None)
        text = headers.get("Retry-After") if headers is not None else None
        if text is not None:
            return float(text) if text.isdigit() else 0
    return 0


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An exception and those that led to it, each once; yt-dlp stores them in `exc_info` or `cause`."""
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        yield each
        info = getattr(each, "exc_info", None)
        inner = info[1] if info and info[1] is not each else None
        each = inner or getattr(each, "cause", None) or each.__cause__ or each.__context__
