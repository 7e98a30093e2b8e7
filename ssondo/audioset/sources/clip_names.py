"""Which clips a file may be, by its name."""

import re
from collections.abc import Iterator
from pathlib import Path

_TIME = r"_(\d+(?:\.\d+)?)"
# {ytid}_{start} and {ytid}_{start}_{end}, in seconds or milliseconds; some join the times with a dash.
_TIMED = (re.compile(f"(.+?){_TIME}$"), re.compile(rf"(.+?){_TIME}[_-](\d+(?:\.\d+)?)$"))
_SLACK_S = 0.01


def clip_ids_of(path: Path) -> list[str]:
    """The clips that a file may be, by its name; the likeliest first.

    Tools name a clip {ytid}, {ytid}_{start} or {ytid}_{start}_{end}, some with a Y before it. An
    id may itself end in digits or begin with Y, so only the segment list can tell.
    """
    return list(dict.fromkeys(clip for clip, _ in readings(path.stem)))


def readings(stem: str) -> Iterator[tuple[str, str | None]]:
    """Every clip id that a name can be read as, with the start time in the name if it has one."""
    plain: list[tuple[str, str | None]] = [(stem, None)]
    plain += [(found[1], found[2]) for pattern in _TIMED if (found := pattern.match(stem))]
    yield from plain
    yield from ((clip[1:], start) for clip, start in plain if clip.startswith("Y") and len(clip) > 1)


def is_start(text: str | None, start_s: float) -> bool:
    """Whether a time in a name, in seconds or milliseconds, is the segment's start; no time is any."""
    return text is None or any(abs(float(text) / unit - start_s) < _SLACK_S for unit in (1, 1000))
