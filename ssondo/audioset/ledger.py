"""What was asked for and how it ended, in a file that only grows: the ledger of a shard's clips.

It stands beside the fetched shard, under a name that no rule declares, and outlives it: a clip that
was fetched, or is known not to exist, is not asked for again, whatever makes the shard anew. The
sound lies in it, and the fetched shard only says where.

A record is a head, a note (JSON) and sound. Each is on the disk before the next clip is asked for.
After a power cut the file may end in the middle of a record; it is cut behind the last good one.
Each names its source, so that damage costs the record that it is in and no other.
"""

import fcntl
import json
import logging
import os
import struct
import zlib
from collections import Counter
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
_HEAD = struct.Struct("<4sIIIQ")  # magic, CRC-32 of note and of sound, their lengths
_LONGEST_NOTE = 1 << 24
_BLOCK = 1 << 20

_Key = tuple[str, float, float]


class Entry(NamedTuple):
    """How a clip ended when it was last asked for.

    Attributes:
        status: as in the shard.
        reason: why it is not there.
        start: where its sound begins in the file.
        length: of it in bytes.
        stamp: of it.
        is_open: whether it shall be asked for again.
    """

    status: Status
    reason: str
    start: int = 0
    length: int = 0
    stamp: str = ""
    is_open: bool = False


class _Record(NamedTuple):
    at: int  # where its head begins
    note: dict[str, Any]
    start: int  # of its sound
    length: int

    @property
    def end(self) -> int:
        return self.start + self.length


def ledger_path(shard: Path) -> Path:
    """Where the ledger of a fetched shard stands."""
    return shard.with_suffix(".ledger")


def reopened_path(shard: Path) -> Path:
    """What was opened again in a finished shard; that it changed makes the shard's rule run."""
    return shard.with_suffix(".reopened")


class Ledger:
    """The ledger of one shard, open for writing.

    Args:
        path: the file; made if it is missing.
        source: the identity of the source. Clips of another are kept and not used.
        check_sound: read all the sound too; a clip whose sound is damaged is not finished.

    Raises:
        TransientError: if another process has it open.
        SsondoError: if the disk is full.
    """

    def __init__(self, path: Path, source: str, *, check_sound: bool = False) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b")
        try:
            self._lock()
            self._source = source
            self.entries, end, source_now = _read(self._file, source, check_sound=check_sound)
            self._file.truncate(end)
            if source_now != source:
                self._write({})
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
            log.debug("%s: this file system has no locks", self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def _write(self, note: dict[str, Any], data: bytes = b"") -> int:
        """Append a record, see it on the disk, and return where its sound begins."""
        text = json.dumps({"source": self._source, **note}, separators=(",", ":")).encode()
        start = self._file.seek(0, os.SEEK_END)
        head = _HEAD.pack(_MAGIC, zlib.crc32(text), zlib.crc32(data), len(text), len(data))
        try:
            self._file.write(head + text + data)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            # What came to the disk of a record would stand between the good ones.
            with suppress(OSError):
                self._file.truncate(start)
            if is_disk_full(error):
                raise SsondoError(f"{self.path}: no space left on the disk; free some and run again") from error
            raise
        return start + _HEAD.size + len(text)

    def finished(self, segment: Segment) -> bool:
        """Whether the clip need not be asked for."""
        entry = self.entries.get(segment[:3])
        return entry is not None and entry.status is not Status.FAILED and not entry.is_open

    def ending(self, segment: Segment) -> Fetched:
        """How the clip ended; its sound by its place."""
        entry = self.entries[segment[:3]]
        if entry.status is not Status.OK:
            return Fetched(entry.status, entry.reason)
        return Fetched(Status.OK, entry.reason, origin=self._origin(entry))

    def _origin(self, entry: Entry) -> ClipLocation:
        return ClipLocation(self.path.name, f"{entry.start}+{entry.length}", entry.stamp)

    def add(self, segment: Segment, fetched: Fetched) -> None:
        """Keep how a clip ended, and its sound."""
        stamp = content_fingerprint(fetched.data) if fetched.data else ""
        note = {"clip": [*segment[:3], int(fetched.status), fetched.reason, stamp]}
        start = self._write(note, fetched.data)
        self.entries[segment[:3]] = Entry(fetched.status, fetched.reason, start, len(fetched.data), stamp)

    def reopen(self, reasons: Sequence[str]) -> int:
        """Have clips that ended for one of these reasons asked for again; returns how many they are."""
        keys = [key for key, entry in self.entries.items() if entry.status is not Status.OK and entry.reason in reasons]
        if keys:
            self._write({"reopen": keys})
            self.entries.update((key, self.entries[key]._replace(is_open=True)) for key in keys)
        return len(keys)


def read_ledger(path: Path) -> dict[_Key, Entry]:
    """How the clips of a ledger ended, of its latest source; a process that writes it is not disturbed."""
    with path.open("rb") as file:
        return _read(file, None)[0]


def latest_source(path: Path) -> str:
    """The identity of the source that a ledger was last written for."""
    with path.open("rb") as file:
        return _read(file, None)[2] or ""


def _read(
    file: BinaryIO, source: str | None, *, check_sound: bool = False
) -> tuple[dict[_Key, Entry], int, str | None]:
    """The entries of one source (None: the latest), where the last good record ends, and the latest source."""
    by_source: dict[str | None, dict[_Key, Entry]] = {}
    now: str | None = None
    end = 0
    for record in _records(file, check_sound=check_sound):
        end = record.end
        note = record.note
        if "source" in note:
            now = note["source"]
        entries = by_source.setdefault(now, {})
        if "clip" in note:
            ytid, start_s, end_s, status, reason, stamp = note["clip"]
            entries[ytid, start_s, end_s] = Entry(Status(status), reason, record.start, record.length, stamp)
        for ytid, start_s, end_s in note.get("reopen", ()):
            key = (ytid, start_s, end_s)
            if key in entries:
                entries[key] = entries[key]._replace(is_open=True)
    return by_source.get(now if source is None else source, {}), end, now


def _records(file: BinaryIO, *, check_sound: bool) -> Iterator[_Record]:
    """The good records, in order. Damage in the middle costs the records that it is in, and no other.

    All sound is read only for `check_sound`. Else that of a record is if no other follows it: sound was on the disk
    before the next record was begun, so only the last may lack some, and a wrong length leads astray.
    """
    size = file.seek(0, os.SEEK_END)
    at = 0
    while at < size:
        record = _record_at(file, at, size)
        if record is not None and not ((check_sound or not _begins_at(file, record.end)) and _is_damaged(file, record)):
            yield record
            at = record.end
            continue
        # Not behind the sound: its length may be what is wrong.
        found = _next_magic(file, at + 1, size)
        if found < size:
            log.warning("%s: damaged at byte %d; a clip that was there is fetched again", file.name, at)
        at = found


def _begins_at(file: BinaryIO, at: int) -> bool:
    file.seek(at)
    return file.read(len(_MAGIC)) == _MAGIC


def _record_at(file: BinaryIO, at: int, size: int) -> _Record | None:
    """The record that begins at a byte; None if none does, or it is not whole."""
    file.seek(at)
    head = file.read(_HEAD.size)
    if len(head) < _HEAD.size:
        return None
    magic, note_sum, _, n_note, n_data = _HEAD.unpack(head)
    if magic != _MAGIC or n_note > _LONGEST_NOTE or at + _HEAD.size + n_note + n_data > size:
        return None
    text = file.read(n_note)
    if zlib.crc32(text) != note_sum:
        return None
    return _Record(at, json.loads(text), at + _HEAD.size + n_note, n_data)


def _is_damaged(file: BinaryIO, record: _Record) -> bool:
    """Whether a record's sound is not what was written."""
    file.seek(record.at)
    expected, found, left = _HEAD.unpack(file.read(_HEAD.size))[2], 0, record.length
    file.seek(record.start)
    while left > 0:
        block = file.read(min(left, _BLOCK))
        found = zlib.crc32(block, found)
        left -= len(block) or left
    return found != expected


def _next_magic(file: BinaryIO, at: int, size: int) -> int:
    """The next byte from `at` on where a good record begins; `size` if none does."""
    while at < size:
        file.seek(at)
        block = file.read(_BLOCK)
        found = block.find(_MAGIC)
        if found < 0:
            at += max(len(block) - len(_MAGIC) + 1, 1)
        elif _record_at(file, at + found, size) is not None:
            return at + found
        else:
            at += found + 1
    return size


def counted(entries: dict[_Key, Entry]) -> Counter[tuple[Status, str]]:
    """How many clips ended how, and why."""
    return Counter((entry.status, entry.reason) for entry in entries.values())
