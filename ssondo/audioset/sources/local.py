"""What the local sources have in common: a folder, HDF5 packs, parquet files and tar shards.

Each lists its content in one pass, by name and location. The segment list determines which clip a name stands for.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path
from typing import BinaryIO, ClassVar, NamedTuple

from ssondo.audio.codec import encode_flac
from ssondo.audio.excerpt import decode_excerpt
from ssondo.audio.waveform import to_mono
from ssondo.audioset.sources import Fetched
from ssondo.audioset.sources.clip_names import candidate_ids, is_start
from ssondo.errors import ClipError, SsondoError
from ssondo.storage.atomic_files import atomic_write, csv_text
from ssondo.storage.clip_location import ClipLocation, file_fingerprint, fingerprint_size, open_clip, read_clip
from ssondo.storage.segments import Segment
from ssondo.storage.shards.status import Status
from ssondo.system.list_files import cannot_list, list_files

_HEADER = "ytid,cut,origin"


class Candidate(NamedTuple):
    """An item of a local copy.

    Attributes:
        name: Id of a clip, or file name without suffix that contains the id.
        order: Sort key by which one of several candidates for a clip is chosen, whatever order the disk lists them in.
        location: Location of its sound.
    """

    name: str
    order: str
    location: ClipLocation


class FoundClip(NamedTuple):
    """The location of a clip, and whether it is certainly the clip itself: its name contains the clip's times."""

    location: ClipLocation
    is_cut: bool


@dataclass(kw_only=True)
class LocalSource:
    """Base class of the local sources.

    Args:
        path: A folder, a file, or a pattern with * for several files.
        files_are_clips: Whether an item is the clip itself; otherwise it is the whole video, from which the segment
            is cut.
        copy_clips: Whether each clip is copied into the fetched shard; otherwise its location is stored.
        segments: The clips that will be fetched.
        located: List of their locations that `locate` wrote; None to search the copy.
        scratch: Folder for clips that cannot be read in place; only for parquet.
    """

    identity: ClassVar[None] = None

    path: str
    files_are_clips: bool = True
    copy_clips: bool = False
    segments: Sequence[Segment] = ()
    located: Path | None = None
    scratch: Path | None = None

    def __post_init__(self) -> None:
        # Storing locations is limited by the disk, cutting by the decoder.
        self.parallel = not self.files_are_clips
        self._clips = read_located(self.located) if self.located is not None else None

    def candidates(self, is_wanted: Callable[[str], bool]) -> Iterator[Candidate]:
        """Yield everything that the copy contains; items whose name is not `is_wanted` may be left out.

        Raises:
            SsondoError: If the copy does not exist, is empty, or has another form.
        """
        raise NotImplementedError

    def search(self, starts: Mapping[str, float]) -> tuple[dict[str, FoundClip], int]:
        """Search the copy for clips in one pass.

        Args:
            starts: Start of each clip in its video in seconds, by id.

        Returns:
            The clips that were found, by id, and the number of items that were examined.
        """
        best: dict[str, tuple[int, str, FoundClip]] = {}
        n_seen = 0
        for candidate in self.candidates(lambda name: _match_clip(name, starts) is not None):
            n_seen += 1
            match = _match_clip(candidate.name, starts)
            if match is not None:
                rank, clip, is_cut = match
                # The plainest name wins.
                entry = (rank, candidate.order, FoundClip(candidate.location, is_cut))
                if clip not in best or entry[:2] < best[clip][:2]:
                    best[clip] = entry
        return {clip: found for clip, (_, _, found) in best.items()}, n_seen

    def fetch(self, segment: Segment) -> Fetched:
        """Return the location of the clip, or a copy of it, or a cut from its video."""
        if self._clips is None:
            self._clips, _ = self.search({listed.ytid: listed.start_s for listed in self.segments})
        found = self._clips.get(segment.ytid)
        if found is None:
            return Fetched(Status.UNAVAILABLE, "no file")
        location = found.location
        if not location.fingerprint:
            location = location._replace(fingerprint=file_fingerprint(location.path))
        if not location.fingerprint:
            return Fetched(Status.FAILED, "cannot be read")
        if not location.selector and not fingerprint_size(location.fingerprint):
            return Fetched(Status.FAILED, "empty file")
        must_cut = not (self.files_are_clips or found.is_cut)
        if not must_cut and not self.copy_clips:
            return Fetched(Status.OK, location=location)
        try:
            if must_cut:
                with open_clip(location, Path()) as video:
                    return _cut(video, segment)
            data = read_clip(location, Path())
        except OSError as error:
            return Fetched(Status.FAILED, f"cannot be read: {error.strerror}")
        return Fetched(Status.OK, "", data) if data else Fetched(Status.FAILED, "empty file")


def _match_clip(name: str, starts: Mapping[str, float]) -> tuple[int, str, bool] | None:
    """The listed clip that a name stands for: rank (0 is the plainest name), id, and whether the name has times."""
    for rank, (clip, start) in enumerate(candidate_ids(name)):
        if clip in starts and is_start(start, starts[clip]):
            return rank, clip, start is not None
    return None


def find_files(path: str, suffixes: tuple[str, ...], what: str) -> list[Path]:
    """Return the file, the files of a pattern, or the files below a folder that have one of the suffixes, sorted.

    Raises:
        SsondoError: If there are none (`what` describes them), or a folder cannot be listed.
    """
    if Path(path).is_file():
        files = [Path(path)]
    elif Path(path).is_dir():
        files = [file for file in list_files(Path(path)) if file.name.lower().endswith(suffixes)]
    else:
        _check_listable(path)
        files = [Path(name) for name in glob(path, recursive=True) if Path(name).is_file()]  # noqa: PTH207
    if not files:
        raise SsondoError(f"audioset.source.path: {path} contains no {what} ({', '.join(suffixes)})")
    return sorted(Path(os.path.abspath(file)) for file in files)  # noqa: PTH100 (does not resolve links)


def _check_listable(pattern: str) -> None:
    """Raise an error if a pattern passes a folder that cannot be listed, which glob treats as empty."""
    parts = Path(pattern).parts
    for n, part in enumerate(parts):
        if has_magic(part):
            above = os.path.join("", *parts[: n + (part == "**")])  # noqa: PTH118 ("" for a pattern without folders)
            for folder in glob(above, recursive=True):  # noqa: PTH207
                try:
                    os.scandir(folder).close()
                except (NotADirectoryError, FileNotFoundError):
                    continue
                except OSError as error:
                    cannot_list(error)


def _cut(video: BinaryIO, segment: Segment) -> Fetched:
    """Cut the segment from a whole video, as mono FLAC at the video's sample rate."""
    try:
        decoded = decode_excerpt(video, segment.start_s, segment.end_s)
    except ClipError as error:
        return Fetched(Status.FAILED, str(error))
    waveform = to_mono(decoded.waveform)
    if not waveform.size:
        reason = "truncated before the segment" if decoded.truncated else "video ends before the segment"
        return Fetched(Status.FAILED if decoded.truncated else Status.UNAVAILABLE, reason)
    return Fetched(Status.OK, "truncated" if decoded.truncated else "", encode_flac(waveform, decoded.sample_rate))


def write_located(path: Path, clips: Mapping[str, FoundClip]) -> None:
    """Write the locations of a shard's clips, sorted by id."""
    lines = [_HEADER.encode()]
    for clip in sorted(clips):
        location, is_cut = clips[clip]
        text = f"{location.fingerprint}|".encode() + location.to_bytes()
        escaped = text.replace(b"\\", b"\\\\").replace(b"\n", b"\\n")
        lines.append(csv_text([[clip]]).rstrip("\n").encode("ascii") + b",%d," % is_cut + escaped)
    with atomic_write(path) as temporary:
        temporary.write_bytes(b"\n".join([*lines, b""]))


def read_located(path: Path) -> dict[str, FoundClip]:
    """Read the locations that `write_located` wrote."""
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        raise SsondoError(f"{path}: no such list of locations; make it with: snakemake {path}") from None
    if lines[0] != _HEADER.encode():
        raise SsondoError(f"{path}: not a list of locations; remove it and run snakemake again")
    clips: dict[str, FoundClip] = {}
    for line in filter(None, lines[1:]):
        # Only the id may be quoted; a path may contain any bytes, which no CSV reader accepts.
        if line.startswith(b'"'):
            end = line.replace(b'""', b"\0\0").index(b'"', 1)
            clip, rest = line[1:end].replace(b'""', b'"'), line[end + 2 :]
        else:
            clip, _, rest = line.partition(b",")
        cut, _, text = rest.partition(b",")
        fingerprint, _, location = text.partition(b"|")
        location = location.replace(b"\\\\", b"\0").replace(b"\\n", b"\n").replace(b"\0", b"\\")
        found = ClipLocation.from_bytes(location, fingerprint.decode("ascii"))
        clips[clip.decode("ascii")] = FoundClip(found, is_cut=cut == b"1")
    return clips
