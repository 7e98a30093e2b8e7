"""Fetch the clips of one shard from a source, and note how each ended.

A clip is ok, unavailable for a reason that will not change, or failed for one that may; a shard
with too many failed clips is no result but a fault that passes. From a dear source a killed job
goes on where it was: finished clips are kept beside the output.
"""

import json
import logging
import re
import struct
import time
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ssondo.artefacts import is_disk_full
from ssondo.errors import SsondoError, TransientError
from ssondo.index import Segment, read_segments
from ssondo.pool import ordered_map
from ssondo.progress import progress
from ssondo.shards import AudioShardWriter, Status
from ssondo.sources import Fetched, Source, open_source

log = logging.getLogger(__name__)

_MAGIC = b"CLIP"
_HEAD = struct.Struct("<4sIIQ")  # magic, CRC-32 of what follows, lengths of the note and of the sound
_SHOWN_REASONS = 5


class Spool:
    """Clips that are finished, in a file that only grows, so that a killed job loses at most one.

    Each record has its length and checksum; the file is cut behind the last good one.

    Args:
        path: the file; made if it is missing.
        identity: of the source. Clips of another are dropped.

    Raises:
        SsondoError: if the disk is full.
    """

    def __init__(self, path: Path, identity: str) -> None:
        self.path = path
        self._where: dict[tuple[str, float, float], tuple[Status, str, int, int]] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b")
        end = self._read(identity)
        self._file.truncate(end)
        self._file.seek(0, 2)
        if not end:
            self._write({"source": identity}, b"")

    def _read(self, identity: str) -> int:
        """Note where the good records are and return where the last ends; 0 if they are of another source."""
        self._file.seek(0)
        end = 0
        while len(head := self._file.read(_HEAD.size)) == _HEAD.size:
            magic, checksum, n_note, n_data = _HEAD.unpack(head)
            if magic != _MAGIC:
                break
            body = self._file.read(n_note + n_data)
            if len(body) != n_note + n_data or zlib.crc32(body) != checksum:
                break
            note = json.loads(body[:n_note])
            if not end and note != {"source": identity}:
                log.warning("%s: finished clips of other source settings, dropped", self.path)
                return 0
            if end:
                ytid, start_s, end_s, status, reason = note["clip"]
                self._where[ytid, start_s, end_s] = (Status(status), reason, end + _HEAD.size + n_note, n_data)
            end += _HEAD.size + len(body)
        return end

    def _write(self, note: dict[str, Any], data: bytes) -> int:
        """Append a record and return where its sound begins."""
        text = json.dumps(note).encode()
        start = self._file.seek(0, 2)
        try:
            self._file.write(_HEAD.pack(_MAGIC, zlib.crc32(text + data), len(text), len(data)) + text + data)
            self._file.flush()
        except OSError as error:
            if is_disk_full(error):
                raise SsondoError(f"{self.path}: no space left on the disk; free some and run again") from error
            raise
        return start + _HEAD.size + len(text)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def __len__(self) -> int:
        """Number of clips that need not be fetched again."""
        return sum(status is not Status.FAILED for status, *_ in self._where.values())

    def get(self, segment: Segment) -> Fetched | None:
        """The clip if it is finished; None if it is not, or failed for a reason that may have passed."""
        status, reason, start, length = self._where.get(segment[:3], (Status.FAILED, "", 0, 0))
        if status is Status.FAILED:
            return None
        self._file.seek(start)
        return Fetched(status, reason, self._file.read(length))

    def add(self, segment: Segment, fetched: Fetched) -> None:
        """Keep a clip."""
        start = self._write({"clip": [*segment[:3], int(fetched.status), fetched.reason]}, fetched.data)
        self._where[segment[:3]] = (fetched.status, fetched.reason, start, len(fetched.data))


def spool_path(out: Path) -> Path:
    """Where the finished clips of a shard are kept until it is written."""
    return out.with_name(f"{out.name}.spool")


def fetch(
    *,
    segments: Path,
    out: Path,
    source: dict[str, Any],
    manner: dict[str, Any] | None = None,
    max_failed_share: float = 0.02,
    n_workers: int = 1,
) -> None:
    """Fetch the clips of one shard's list.

    Args:
        segments: the shard's list, made by index.
        out: audio shard for the clips as they come, each with its status and reason.
        source: where clips come from: "kind" (folder, youtube, renderer) and its settings.
        manner: more of its settings, those that change no clip: rate, cookies, proxies.
        max_failed_share: share of clips that may fail for now, in [0, 1].
        n_workers: processes, for sources that compute (renderer).

    Raises:
        SsondoError: if the list or the source's settings are wrong.
        TransientError: if more clips failed than may; what was fetched is kept for the next try.
    """
    began = time.monotonic()
    listed = read_segments(segments)
    opened = open_source({**source, **(manner or {})}, listed, _job_of(segments))
    counts: Counter[Status] = Counter()
    failures: Counter[str] = Counter()
    with AudioShardWriter(out, sample_rate=0, settings={"source": source["kind"]}, producer="fetch") as shard:
        clips = _fetched(opened, source, listed, out, n_workers if opened.parallel else 1)
        for segment, clip in zip(listed, progress(clips, f"fetch {segments.stem}", total=len(listed)), strict=True):
            counts[clip.status] += 1
            failures.update([clip.reason] if clip.status is Status.FAILED else [])
            shard.add(segment.ytid, clip.data, status=clip.status, reason=clip.reason)
        if counts[Status.FAILED] > max_failed_share * len(listed):
            raise TransientError(
                f"{segments.stem}: {counts[Status.FAILED]} of {len(listed)} clips failed, more than "
                f"max_failed_share {max_failed_share:g} allows ({_most_common(failures)}); "
                "run the same command again, or raise audioset.max_failed_share"
            )
    spool_path(out).unlink(missing_ok=True)
    seconds = time.monotonic() - began
    log.info(
        "fetch %s: %d of %d clips, %d unavailable, %d failed, %.1f s (%.1f clips/s), in %s",
        segments.stem,
        counts[Status.OK],
        len(listed),
        counts[Status.UNAVAILABLE],
        counts[Status.FAILED],
        seconds,
        len(listed) / max(seconds, 1e-9),
        out,
    )


def _most_common(reasons: Counter[str]) -> str:
    """The commonest reasons with their numbers, and how many clips had others."""
    shown = reasons.most_common(_SHOWN_REASONS)
    others = reasons.total() - sum(number for _, number in shown)
    return ", ".join([*(f"{number} {reason}" for reason, number in shown), *([f"{others} others"] if others else [])])


def _job_of(segments: Path) -> int:
    """Number of a job among those of the run, from its list's name: train-0003 -> 3."""
    found = re.search(r"(\d+)$", segments.stem)
    return int(found[1]) if found else 0


def _fetched(
    source: Source, settings: dict[str, Any], segments: Sequence[Segment], out: Path, n_workers: int
) -> Iterator[Fetched]:
    """Each segment's clip, in order."""
    if not source.resumes:
        if n_workers == 1:
            yield from map(source.fetch, segments)
        else:
            yield from ordered_map(_fetch_here, segments, n_workers, _open_here, (settings, segments))
        return
    with Spool(spool_path(out), f"{settings['kind']} {source.identity}") as spool:
        if len(spool):
            log.info("going on with %d clips that were fetched before", len(spool))
        for segment in segments:
            clip = spool.get(segment)
            if clip is None:
                clip = source.fetch(segment)
                spool.add(segment, clip)
            yield clip


# A worker process keeps its own source: one that holds a synthesiser or open files cannot be sent.
_source: Source


def _open_here(settings: dict[str, Any], segments: Sequence[Segment]) -> None:
    global _source
    _source = open_source(settings, segments, job=0)


def _fetch_here(segment: Segment) -> Fetched:
    return _source.fetch(segment)
