"""Clips of a local folder: a lab's copy of AudioSet, or any corpus."""

import json
import os
import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path

from ssondo.audio import decode_file, encode_flac, to_mono
from ssondo.errors import SsondoError
from ssondo.index import SOUND_SUFFIXES, Segment
from ssondo.shards import Status
from ssondo.sources import Fetched

_TIME = r"_(\d+(?:\.\d+)?)"
# {ytid}_{start} and {ytid}_{start}_{end}, in seconds or milliseconds.
_TIMED = (re.compile(f"(.+?){_TIME}$"), re.compile(f"(.+?){_TIME}{_TIME}$"))
_SLACK_S = 0.01


def clip_ids_of(path: Path) -> list[str]:
    """The clips that a file may be, by its name; the likeliest first.

    Tools name a clip {ytid}, {ytid}_{start} or {ytid}_{start}_{end}, some with a Y before it. An
    id may itself end in digits or begin with Y, so only the segment list can tell.
    """
    return list(dict.fromkeys(clip for clip, _ in _readings(path.stem)))


def _readings(stem: str) -> Iterator[tuple[str, str | None]]:
    """Every clip id that a name can be read as, with the start time in the name if it has one."""
    plain: list[tuple[str, str | None]] = [(stem, None)]
    plain += [(found[1], found[2]) for pattern in _TIMED if (found := pattern.match(stem))]
    yield from plain
    yield from ((clip[1:], start) for clip, start in plain if clip[0] == "Y" and len(clip) > 1)


def _is_start(text: str | None, start_s: float) -> bool:
    """Whether a time in a file's name is the segment's start."""
    return text is None or any(abs(float(text) / unit - start_s) < _SLACK_S for unit in (1, 1000))


class Folder:
    """Files of a folder and its sub-folders, found by the clip's id in their name.

    Args:
        path: the folder.
        whole_files: a file is the clip itself; false: a file named by the id alone is the whole
            video, of which the segment is cut.
        pattern: only files whose path below the folder matches, e.g. "train/*.flac".
        clip_s: length of a clip in seconds; not used.
        segments: the clips that will be asked for.
        job: not used.

    Raises:
        SsondoError: if there is no such folder, or no sound file in it.
    """

    resumes = False

    def __init__(
        self,
        *,
        path: str,
        whole_files: bool = True,
        pattern: str = "",
        clip_s: float | None = None,
        segments: Sequence[Segment] = (),
        job: int = 0,
    ) -> None:
        self._root = Path(path)
        self._whole_files = whole_files
        self._pattern = pattern
        # Reading is bound by the disk, cutting by the decoder.
        self.parallel = not whole_files
        self._files = self._find({segment.ytid: segment.start_s for segment in segments})

    @property
    def identity(self) -> str:
        """The settings that change what is fetched."""
        return json.dumps([str(self._root), self._whole_files, self._pattern])

    def _find(self, starts: dict[str, float]) -> dict[str, tuple[Path, bool]]:
        """One pass over the folder: the file of each clip, and whether it is cut already."""
        if not self._root.is_dir():
            raise SsondoError(f"audioset.source.path: {self._root} is no folder")
        best: dict[str, tuple[int, str, Path, bool]] = {}
        n_files = 0
        for file in _sound_files(self._root):
            relative = file.relative_to(self._root).as_posix()
            if self._pattern and not fnmatch(relative, self._pattern):
                continue
            n_files += 1
            for rank, (clip, start) in enumerate(_readings(file.stem)):
                if clip in starts and _is_start(start, starts[clip]):
                    # Of several files the plainest name wins, whatever order the disk lists them in.
                    best[clip] = min(best.get(clip, (99, "", file, False)), (rank, relative, file, start is not None))
                    break
        if not n_files and starts:
            raise SsondoError(f"audioset.source.path: {self._root} has no sound files{self._of_pattern()}")
        return {clip: (file, is_cut) for clip, (_, _, file, is_cut) in best.items()}

    def _of_pattern(self) -> str:
        return f" that match {self._pattern!r}" if self._pattern else f" ({', '.join(sorted(SOUND_SUFFIXES))})"

    def fetch(self, segment: Segment) -> Fetched:
        """Read the clip's file, or cut the clip from it."""
        if segment.ytid not in self._files:
            return Fetched(Status.UNAVAILABLE, "no file")
        file, is_cut = self._files[segment.ytid]
        try:
            data = file.read_bytes()
        except OSError as error:
            return Fetched(Status.FAILED, f"cannot be read: {error.strerror}")
        if not data:
            return Fetched(Status.FAILED, "empty file")
        return Fetched(Status.OK, "", data) if self._whole_files or is_cut else _cut(data, segment)


def _cut(data: bytes, segment: Segment) -> Fetched:
    """The segment's part of a whole video, as mono FLAC at the video's own rate."""
    try:
        decoded = decode_file(data)
    except SsondoError as error:
        return Fetched(Status.FAILED, str(error))
    start, end = (round(time_s * decoded.sample_rate) for time_s in (segment.start_s, segment.end_s))
    part = to_mono(decoded.waveform[:, start:end])
    if not part.size:
        reason = "truncated before the segment" if decoded.truncated else "video ends before the segment"
        return Fetched(Status.FAILED if decoded.truncated else Status.UNAVAILABLE, reason)
    return Fetched(
        Status.OK,
        "truncated" if decoded.truncated and len(part) < end - start else "",
        encode_flac(part, decoded.sample_rate),
    )


def _sound_files(root: Path) -> Iterator[Path]:
    """Sound files below a folder, links followed, no folder twice."""
    seen: set[tuple[int, int]] = set()
    for folder, subfolders, names in os.walk(root, followlinks=True):
        stat = Path(folder).stat()
        if (stat.st_dev, stat.st_ino) in seen:
            subfolders.clear()
            continue
        seen.add((stat.st_dev, stat.st_ino))
        for name in names:
            if os.path.splitext(name)[1].lower() in SOUND_SUFFIXES:  # noqa: PTH122 (two million names)
                yield Path(folder, name)
