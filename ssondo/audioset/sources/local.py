"""A lab's own copy of the clips, in whatever form: what all the forms have in common.

A form (folder, HDF5 packs, parquet, tar shards) lists what it holds in one pass, by name and place.
Which clip a name means, only the segment list can tell; that is done here.
"""

import csv
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from glob import glob, has_magic
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ssondo.audio.codec import encode_flac
from ssondo.audio.excerpt import decode_excerpt
from ssondo.audio.waveform import to_mono
from ssondo.audioset.sources import Fetched
from ssondo.audioset.sources.clip_names import is_start, readings
from ssondo.errors import SsondoError
from ssondo.storage.atomic_files import atomic_write
from ssondo.storage.clip_location import ClipLocation, file_fingerprint, fingerprint_size, open_clip, read_clip
from ssondo.storage.segments import Segment
from ssondo.storage.shards.status import Status
from ssondo.system.list_files import cannot_list, list_files

_HEADER = "ytid,cut,origin"


class Candidate(NamedTuple):
    """Something that a copy holds.

    Attributes:
        name: the id of a clip, or a file's name without its suffix that has it in it.
        order: of several candidates for a clip the first by this wins, whatever order the disk lists them in.
        origin: where it lies.
    """

    name: str
    order: str
    origin: ClipLocation


class Place(NamedTuple):
    """Where a clip lies, and whether that is the clip itself for certain, by the times in its name."""

    origin: ClipLocation
    is_cut: bool


class Search(NamedTuple):
    """What a search found: places by clip, and how many things it looked at."""

    places: dict[str, Place]
    n_seen: int


class LocalSource:
    """What the local sources share.

    Args:
        path: a folder, a file, or a pattern with * of several.
        copy_clips: keep a copy of each clip in the fetched shard; false: note where it lies.
        files_are_clips: what is found is the clip itself; false: the whole video, of which the segment is cut.
        segments: the clips that will be asked for.
        located: list of their places that `locate` made; None: they are searched now.
        scratch: folder for what cannot be read in place.
    """

    resumes = False

    def __init__(
        self,
        path: str,
        *,
        copy_clips: bool,
        files_are_clips: bool,
        segments: Sequence[Segment],
        located: Path | None,
        scratch: Path | None,
    ) -> None:
        self.path = path
        self.scratch = scratch
        self._copies = copy_clips
        self._whole_files = files_are_clips
        # Noting a place is bound by the disk, cutting by the decoder.
        self.parallel = not files_are_clips
        self._segments = segments
        self._places = read_places(located) if located is not None else None

    @property
    def identity(self) -> str:
        """The settings that change what is fetched."""
        return json.dumps([self.path, self._copies, self._whole_files])

    def candidates(self, is_wanted: Callable[[str], bool]) -> Iterator[Candidate]:
        """Everything that the copy holds, in one pass.

        Args:
            is_wanted: whether a name may be a clip; what is not may be left out.
        """
        raise NotImplementedError

    def search(self, starts: Mapping[str, float]) -> Search:
        """One pass over the copy.

        Args:
            starts: where in its video each wanted clip begins, in seconds, by id.

        Raises:
            SsondoError: if there is no such copy, or nothing in it.
        """
        best: dict[str, tuple[int, str, Place]] = {}
        n_seen = 0
        for candidate in self.candidates(lambda name: _clip_of(name, starts) is not None):
            n_seen += 1
            found = _clip_of(candidate.name, starts)
            if found is not None:
                rank, clip, is_cut = found
                # The plainest name wins.
                here = (rank, candidate.order, Place(candidate.origin, is_cut))
                if clip not in best or here[:2] < best[clip][:2]:
                    best[clip] = here
        return Search({clip: place for clip, (_, _, place) in best.items()}, n_seen)

    def fetch(self, segment: Segment) -> Fetched:
        """Note where the clip lies, copy it, or cut it from its video."""
        if self._places is None:
            self._places = self.search({listed.ytid: listed.start_s for listed in self._segments}).places
        place = self._places.get(segment.ytid)
        if place is None:
            return Fetched(Status.UNAVAILABLE, "no file")
        origin = place.origin
        if not origin.fingerprint:
            origin = origin._replace(fingerprint=file_fingerprint(origin.path))
        if not origin.fingerprint:
            return Fetched(Status.FAILED, "cannot be read")
        if not origin.selector and not fingerprint_size(origin.fingerprint):
            return Fetched(Status.FAILED, "empty file")
        cuts = not (self._whole_files or place.is_cut)
        if not cuts and not self._copies:
            return Fetched(Status.OK, origin=origin)
        try:
            if cuts:
                with open_clip(origin, Path()) as video:
                    return _cut(video, segment)
            data = read_clip(origin, Path())
        except OSError as error:
            return Fetched(Status.FAILED, f"cannot be read: {error.strerror}")
        return Fetched(Status.OK, "", data) if data else Fetched(Status.FAILED, "empty file")


def _clip_of(name: str, starts: Mapping[str, float]) -> tuple[int, str, bool] | None:
    """The clip that a name means: how plain the name is, its id, and whether its times are there; None if none."""
    for rank, (clip, start) in enumerate(readings(name)):
        if clip in starts and is_start(start, starts[clip]):
            return rank, clip, start is not None
    return None


def files_of(path: str, suffixes: Iterable[str], what: str) -> list[Path]:
    """The files of a source's path, sorted: the file itself, those of a pattern, or all below a folder.

    Raises:
        SsondoError: if there are none, or a folder cannot be listed.
    """
    wanted = tuple(suffixes)
    if Path(path).is_file():
        found = [Path(path)]
    elif Path(path).is_dir():
        found = [file for file in list_files(Path(path)) if file.name.lower().endswith(wanted)]
    else:
        _check_listable(path)
        found = [Path(name) for name in glob(path, recursive=True) if Path(name).is_file()]  # noqa: PTH207
    if not found:
        raise SsondoError(f"audioset.source.path: {path} holds no {what} ({', '.join(wanted)})")
    return sorted(Path(os.path.abspath(file)) for file in found)  # noqa: PTH100 (a link stays one)


def _check_listable(pattern: str) -> None:
    """Raise where a pattern passes a folder that cannot be listed; glob takes such a one for empty."""
    parts = Path(pattern).parts
    for n, part in enumerate(parts):
        if has_magic(part):
            above = os.path.join("", *parts[: n + (part == "**")])  # noqa: PTH118 (nothing before a pattern of names)
            for folder in glob(above, recursive=True):  # noqa: PTH207
                try:
                    os.scandir(folder).close()
                except (NotADirectoryError, FileNotFoundError):
                    continue
                except OSError as error:
                    cannot_list(error)


def _cut(video: BinaryIO, segment: Segment) -> Fetched:
    """The segment's part of a whole video, as mono FLAC at the video's own rate."""
    try:
        decoded = decode_excerpt(video, segment.start_s, segment.end_s)
    except SsondoError as error:
        return Fetched(Status.FAILED, str(error))
    part = to_mono(decoded.waveform)
    if not part.size:
        reason = "truncated before the segment" if decoded.truncated else "video ends before the segment"
        return Fetched(Status.FAILED if decoded.truncated else Status.UNAVAILABLE, reason)
    return Fetched(Status.OK, "truncated" if decoded.truncated else "", encode_flac(part, decoded.sample_rate))


def write_places(path: Path, places: Mapping[str, Place]) -> None:
    """Write a shard's list of places, sorted by clip."""
    lines = [f"{_HEADER}\n".encode()]
    for clip in sorted(places):
        origin, is_cut = places[clip]
        text = f"{origin.fingerprint}|".encode() + origin.to_bytes()
        lines.append(_csv_field(clip) + b",%d," % is_cut + text.replace(b"\\", b"\\\\").replace(b"\n", b"\\n") + b"\n")
    with atomic_write(path) as temporary:
        temporary.write_bytes(b"".join(lines))


def _csv_field(text: str) -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="").writerow([text])
    return buffer.getvalue().encode("ascii")


def read_places(path: Path) -> dict[str, Place]:
    """Read what `write_places` wrote.

    Raises:
        SsondoError: if it is missing or not such a list.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        raise SsondoError(f"{path}: no such list of places; make it with: snakemake {path}") from None
    if lines[0] != _HEADER.encode():
        raise SsondoError(f"{path}: not a list of places; remove it and run snakemake again")
    places: dict[str, Place] = {}
    for line in filter(None, lines[1:]):
        # Only the id may be quoted; a path may hold anything.
        if line.startswith(b'"'):
            end = line.replace(b'""', b"\0\0").index(b'"', 1)
            clip, rest = line[1:end].replace(b'""', b'"'), line[end + 2 :]
        else:
            clip, _, rest = line.partition(b",")
        cut, _, text = rest.partition(b",")
        stamp, _, place = text.partition(b"|")
        place = place.replace(b"\\\\", b"\0").replace(b"\\n", b"\n").replace(b"\0", b"\\")
        places[clip.decode("ascii")] = Place(ClipLocation.from_bytes(place, stamp.decode("ascii")), cut == b"1")
    return places
