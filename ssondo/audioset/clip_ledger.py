"""The ledger of a shard: an append-only file with the result of every request and the sound that was received.

No rule declares its name, so it survives when the shard is removed or made again: a clip that was fetched, or that is
permanently unavailable, is not requested again. The sound stays in the ledger; the fetched shard only stores its
location.

A record consists of a header, a JSON note and the sound. Each record is flushed to the disk before the next clip is
requested. After a power cut the file may end within a record; opening it truncates it after the last valid record.
Each note names its source, so damage affects only the records that contain it.
"""

import fcntl
import json
import logging
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple, Self

from ssondo.audioset.sources import Fetched
from ssondo.errors import SsondoError, TransientError
from ssondo.storage.atomic_files import is_disk_full
from ssondo.storage.clip_location import ClipLocation, content_fingerprint
from ssondo.storage.segments import Segment
from ssondo.storage.shards.status import Status

log = logging.getLogger(__name__)

_MAGIC = b"CLP2"
_HEADER = struct.Struct("<4sIIIQ")  # magic, CRC-32 of the note and of the sound, length of the note and of the sound
_MAX_NOTE_BYTES = 1 << 24
_BLOCK_BYTES = 1 << 20

ClipKey = tuple[str, float, float]
"""Id of the video, start and end in seconds."""


class LedgerEntry(NamedTuple):
    """The latest result of a clip; `start` and `length` of its sound in the file are in bytes."""

    status: Status
    reason: str
    start: int
    length: int
    fingerprint: str
    is_reset: bool = False


class _Record(NamedTuple):
    offset: int  # of the header
    note: dict[str, Any]
    start: int  # of the sound
    length: int  # of the sound

    @property
    def end(self) -> int:
        return self.start + self.length


def ledger_path(shard: Path) -> Path:
    """Path of the ledger of a fetched shard."""
    return shard.with_suffix(".ledger")


def reset_path(shard: Path) -> Path:
    """Path of the file that records the resets of a finished shard; Snakemake runs the shard's rule when it changes."""
    return shard.with_suffix(".reset")


class Ledger:
    """The ledger of one shard, open for writing.

    Args:
        path: The file; it is created if it does not exist.
        source: Identity of the source. Results of other sources are kept in the file and ignored.
        check_sound: Whether all sound is verified; a clip whose sound is damaged counts as not finished.

    Raises:
        TransientError: If another process has the ledger open.
        SsondoError: If the disk is full.
    """

    def __init__(self, path: Path, source: str, *, check_sound: bool = False) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b")
        try:
            self._lock()
            self._source = source
            self.entries, end, last_source = _read(self._file, source, check_sound=check_sound)
            self._file.truncate(end)
            if last_source != source:
                self._append({})
        except BaseException:
            self._file.close()
            raise

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TransientError(
                f"{self.path}: another process is fetching these clips; wait until it has ended"
            ) from None
        except OSError:
            log.debug("%s: the file system does not support locks", self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def _append(self, note: dict[str, Any], data: bytes = b"") -> int:
        """Append a record, flush it to the disk, and return the offset of its sound."""
        text = json.dumps({"source": self._source, **note}, separators=(",", ":")).encode()
        start = self._file.seek(0, os.SEEK_END)
        header = _HEADER.pack(_MAGIC, zlib.crc32(text), zlib.crc32(data), len(text), len(data))
        try:
            self._file.write(header + text + data)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            # A partial record would otherwise stay between valid ones.
            with suppress(OSError):
                self._file.truncate(start)
            if is_disk_full(error):
                raise SsondoError(f"{self.path}: no space left on the disk; free some and run again") from error
            raise
        return start + _HEADER.size + len(text)

    def finished(self, segment: Segment) -> bool:
        """Whether the clip does not have to be requested."""
        entry = self.entries.get(segment[:3])
        return entry is not None and entry.status is not Status.FAILED and not entry.is_reset

    def result(self, segment: Segment) -> Fetched:
        """The latest result of a clip; sound is given by its location in the ledger."""
        entry = self.entries[segment[:3]]
        if entry.status is not Status.OK:
            return Fetched(entry.status, entry.reason)
        location = ClipLocation(self.path.name, f"{entry.start}+{entry.length}", entry.fingerprint)
        return Fetched(Status.OK, entry.reason, location=location)

    def add(self, segment: Segment, fetched: Fetched) -> None:
        """Append the result of a clip and its sound."""
        fingerprint = content_fingerprint(fetched.data) if fetched.data else ""
        note = {"clip": [*segment[:3], int(fetched.status), fetched.reason, fingerprint]}
        start = self._append(note, fetched.data)
        self.entries[segment[:3]] = LedgerEntry(fetched.status, fetched.reason, start, len(fetched.data), fingerprint)

    def reset(self, reasons: Sequence[str]) -> int:
        """Mark the missing clips with one of these reasons to be requested again, and return their number."""
        keys = [key for key, entry in self.entries.items() if entry.status is not Status.OK and entry.reason in reasons]
        if keys:
            self._append({"reset": keys})
            self.entries.update((key, self.entries[key]._replace(is_reset=True)) for key in keys)
        return len(keys)


def read_ledger(path: Path) -> dict[ClipKey, LedgerEntry]:
    """The latest result of each clip of the ledger's latest source; another process may be writing the file."""
    with path.open("rb") as file:
        return _read(file, None)[0]


def latest_source(path: Path) -> str:
    """The identity of the source that last wrote to a ledger."""
    with path.open("rb") as file:
        return _read(file, None)[2] or ""


def _read(
    file: BinaryIO, source: str | None, *, check_sound: bool = False
) -> tuple[dict[ClipKey, LedgerEntry], int, str | None]:
    """The entries of one source (None: of the latest), the end of the last valid record, and the latest source."""
    by_source: dict[str | None, dict[ClipKey, LedgerEntry]] = {}
    latest: str | None = None
    end = 0
    for record in _records(file, check_sound=check_sound):
        end = record.end
        note = record.note
        if "source" in note:
            latest = note["source"]
        entries = by_source.setdefault(latest, {})
        if "clip" in note:
            ytid, start_s, end_s, status, reason, fingerprint = note["clip"]
            entries[ytid, start_s, end_s] = LedgerEntry(
                Status(status), reason, record.start, record.length, fingerprint
            )
        for ytid, start_s, end_s in note.get("reset", ()):
            key = (ytid, start_s, end_s)
            if key in entries:
                entries[key] = entries[key]._replace(is_reset=True)
    return by_source.get(latest if source is None else source, {}), end, latest


def _records(file: BinaryIO, *, check_sound: bool) -> Iterator[_Record]:
    """The valid records, in order; damaged records are skipped.

    All sound is verified only with `check_sound`. Otherwise the sound of a record is verified if no other record
    follows it directly: sound is flushed before the next record begins, so only the last record can be incomplete,
    and a wrong length in a header points to a place where no record begins.
    """
    size = file.seek(0, os.SEEK_END)
    offset = 0
    while offset < size:
        record = _record_at(file, offset, size)
        if record is not None:
            must_verify = check_sound or not _has_magic_at(file, record.end)
            if not (must_verify and _is_sound_damaged(file, record)):
                yield record
                offset = record.end
                continue
        # Search from the next byte, not from the end of the sound: its stored length may be the damage.
        next_record = _find_record(file, offset + 1, size)
        if next_record < size:
            log.warning("%s: damaged at byte %d; the clip stored there will be fetched again", file.name, offset)
        offset = next_record


def _has_magic_at(file: BinaryIO, offset: int) -> bool:
    file.seek(offset)
    return file.read(len(_MAGIC)) == _MAGIC


def _record_at(file: BinaryIO, offset: int, size: int) -> _Record | None:
    """The record that begins at an offset; None if there is none or it is incomplete."""
    file.seek(offset)
    header = file.read(_HEADER.size)
    if len(header) < _HEADER.size:
        return None
    magic, note_crc, _, n_note, n_data = _HEADER.unpack(header)
    if magic != _MAGIC or n_note > _MAX_NOTE_BYTES or offset + _HEADER.size + n_note + n_data > size:
        return None
    text = file.read(n_note)
    if zlib.crc32(text) != note_crc:
        return None
    return _Record(offset, json.loads(text), offset + _HEADER.size + n_note, n_data)


def _is_sound_damaged(file: BinaryIO, record: _Record) -> bool:
    """Whether the sound of a record does not match its checksum."""
    file.seek(record.offset)
    expected, crc, n_left = _HEADER.unpack(file.read(_HEADER.size))[2], 0, record.length
    file.seek(record.start)
    while n_left > 0:
        block = file.read(min(n_left, _BLOCK_BYTES))
        crc = zlib.crc32(block, crc)
        n_left -= len(block) or n_left
    return crc != expected


def _find_record(file: BinaryIO, offset: int, size: int) -> int:
    """Offset of the first valid record at or after `offset`; `size` if there is none."""
    while offset < size:
        file.seek(offset)
        block = file.read(_BLOCK_BYTES)
        position = block.find(_MAGIC)
        if position < 0:
            offset += max(len(block) - len(_MAGIC) + 1, 1)
        elif _record_at(file, offset + position, size) is not None:
            return offset + position
        else:
            offset += position + 1
    return size
