"""Clips in parquet files as on the Hugging Face hub: a column `audio` of {bytes, path}.

Parquet has no random access: reading one clip requires reading its whole row group, and the clips of a shard are spread
over all files. So each file is read once, and the wanted clips are unpacked one after the other into a file beside the
lists of locations. A file that is already unpacked is not read again.
"""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from ssondo.audioset.sources.local import Candidate, LocalSource, find_files
from ssondo.errors import SsondoError
from ssondo.storage.atomic_files import atomic_write, write_text
from ssondo.storage.clip_location import ClipLocation, content_fingerprint, file_fingerprint

log = logging.getLogger(__name__)

_ID_COLUMNS = ("video_id", "ytid", "youtube_id", "YTID", "audio_name", "file_name", "filename", "key", "id")
_BATCH_ROWS = 64
# Format version of the JSON beside an unpacked file; files of another version are written again.
_FORMAT = 2


class _Row(NamedTuple):
    names: list[str]  # all of them, because another list may identify the row by another one
    start: int  # of the unpacked sound in bytes
    length: int
    fingerprint: str  # of the unpacked sound; empty if the sound was not unpacked
    path: str  # of the sound, if it is a file of its own
    has_no_sound: bool


@dataclass(kw_only=True)
class Parquet(LocalSource):
    """Rows of parquet files, identified by the clip's id in a column or in the file name of the sound.

    Args:
        audio_column: Name of the column with the sound: a struct with `bytes` and `path`, or the bytes themselves.
        id_column: Name of the column with the clip's id; None for the first of the usual names, else the sound's
            `path`.
    """

    audio_column: str = "audio"
    id_column: str | None = None

    def candidates(self, is_wanted: Callable[[str], bool]) -> Iterator[Candidate]:
        """Yield every row of every file."""
        for file in find_files(self.path, (".parquet",), "parquet files"):
            unpacked = self._unpacked_name(file)
            for number, row in enumerate(self._rows(file, unpacked, is_wanted)):
                wanted = _first_wanted(row.names, is_wanted)
                name = wanted or next(iter(row.names), "")
                if row.path:
                    yield Candidate(name, f"{file}{number:012d}", ClipLocation(row.path))
                elif row.fingerprint:
                    location = ClipLocation(str(unpacked), f"{row.start}+{row.length}", row.fingerprint)
                    yield Candidate(name, f"{file}{number:012d}", location)
                elif not wanted:
                    yield Candidate(name, "", ClipLocation(""))

    def _unpacked_name(self, file: Path) -> Path:
        digest = hashlib.sha256(f"{file}|{self.audio_column}|{self.id_column}".encode()).hexdigest()[:12]
        folder = self.scratch if self.scratch is not None else Path()
        return Path(os.path.abspath(folder / f"{file.stem}-{digest}.sound"))  # noqa: PTH100

    def _rows(self, file: Path, unpacked: Path, is_wanted: Callable[[str], bool]) -> list[_Row]:
        """The rows of a file; the sound of wanted rows is in `unpacked`."""
        notes = unpacked.with_suffix(".json")
        header = {"form": _FORMAT, "stamp": file_fingerprint(file)}
        if notes.is_file() and unpacked.is_file():
            state = json.loads(notes.read_text(encoding="utf-8"))
            if header.items() <= state.items() and state["size"] == unpacked.stat().st_size:
                rows = [_Row(*row) for row in state["rows"]]
                missing = [row for row in rows if not (row.fingerprint or row.path or row.has_no_sound)]
                if not any(_first_wanted(row.names, is_wanted) for row in missing):
                    return rows
        rows = []
        with atomic_write(unpacked) as temporary, temporary.open("wb") as sound:
            for names, data, path in self._read(file):
                if data and _first_wanted(names, is_wanted):
                    rows.append(_Row(names, sound.tell(), len(data), content_fingerprint(data), "", has_no_sound=False))
                    sound.write(data)
                else:
                    rows.append(_Row(names, 0, 0, "", path, has_no_sound=not data))
            size = sound.tell()
        write_text(notes, json.dumps({**header, "size": size, "rows": rows}))
        log.info("%s: unpacked %d of %d clips", file, sum(bool(row.fingerprint) for row in rows), len(rows))
        return rows

    def _read(self, file: Path) -> Iterator[tuple[list[str], bytes, str]]:
        """Names, bytes and path of each row's sound; the path is empty unless it is an existing file."""
        try:
            import pyarrow as arrow
            from pyarrow import parquet
        except ImportError:
            raise SsondoError(
                "audioset.source.kind: parquet needs the package pyarrow; pip install '.[parquet]'"
            ) from None
        try:
            with parquet.ParquetFile(file) as opened:
                columns = opened.schema_arrow.names
                for setting in ("audio_column", "id_column"):
                    name = getattr(self, setting)
                    if name is not None and name not in columns:
                        raise SsondoError(
                            f"{file}: has no column {name!r}; set audioset.source.{setting} to one of "
                            f"{', '.join(columns)}"
                        )
                id_column = self.id_column or next((name for name in _ID_COLUMNS if name in columns), None)
                wanted = [self.audio_column, *([id_column] if id_column else [])]
                for batch in opened.iter_batches(batch_size=_BATCH_ROWS, columns=wanted):
                    ids = batch.column(id_column).to_pylist() if id_column else [None] * len(batch)
                    for cell, clip in zip(batch.column(self.audio_column).to_pylist(), ids, strict=True):
                        yield _row(file, cell, clip)
        except arrow.ArrowException as error:
            raise SsondoError(f"{file}: not a readable parquet file ({str(error).splitlines()[0]})") from None


def _first_wanted(names: Sequence[str], is_wanted: Callable[[str], bool]) -> str:
    """The first of a row's names that may be a listed clip; "" if there is none."""
    return next((name for name in names if is_wanted(name)), "")


def _row(file: Path, cell: Any, clip: Any) -> tuple[list[str], bytes, str]:
    """Names and bytes of a row, and the path of its sound if that is a file beside the parquet file."""
    data, path = (cell.get("bytes"), cell.get("path")) if isinstance(cell, dict) else (cell, None)
    name = PurePosixPath(str(clip)).name if clip is not None else ""
    # An id column may contain whole file names.
    names = [name, PurePosixPath(name).stem, PurePosixPath(path or "").stem]
    outside = file.parent / path if path and not data else None
    existing = str(outside) if outside is not None and outside.is_file() else ""
    return list(dict.fromkeys(filter(None, names))), data or b"", existing
