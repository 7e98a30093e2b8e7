"""The clips that a file may contain, judging by its name, and the suffixes of the files that count as sound."""

import re
from collections.abc import Iterator
from pathlib import Path

SOUND_SUFFIXES = frozenset(
    ".aac .aif .aiff .au .flac .m4a .mka .mkv .mp3 .mp4 .oga .ogg .opus .wav .webm .wma".split()  # noqa: SIM905
)
_TIME = r"_(\d+(?:\.\d+)?)"
# {ytid}_{start} and {ytid}_{start}_{end}, in seconds or milliseconds; some tools join the times with a hyphen.
_TIMED = (re.compile(f"(.+?){_TIME}$"), re.compile(rf"(.+?){_TIME}[_-](\d+(?:\.\d+)?)$"))
_TOLERANCE_S = 0.01


def clip_ids_of(path: Path) -> list[str]:
    """Return the ids that the name of a file may stand for, the most likely first.

    Tools name a clip {ytid}, {ytid}_{start} or {ytid}_{start}_{end}, some with a leading Y. An id may itself end in
    digits or begin with Y, so only the segment list determines which id is meant.
    """
    return list(dict.fromkeys(clip for clip, _ in candidate_ids(path.stem)))


def candidate_ids(stem: str) -> Iterator[tuple[str, str | None]]:
    """Yield every id that a name may stand for, with the start time in the name, or None if it has none."""
    ids: list[tuple[str, str | None]] = [(stem, None)]
    ids += [(match[1], match[2]) for pattern in _TIMED if (match := pattern.match(stem))]
    yield from ids
    yield from ((clip[1:], start) for clip, start in ids if clip.startswith("Y") and len(clip) > 1)


def is_start(text: str | None, start_s: float) -> bool:
    """Return whether a time in a name, in seconds or milliseconds, is the segment's start; a missing time matches."""
    return text is None or any(abs(float(text) / unit - start_s) < _TOLERANCE_S for unit in (1, 1000))
