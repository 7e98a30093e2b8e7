"""Clips of parquet files as the Hugging Face hub keeps them: a column `audio` of {bytes, path}.

A parquet file cannot be read at any place: to have one clip of a row group is to read it all, and a
shard's clips lie in every file. So each file is read once, and the wanted clips are unpacked end to
end into a file beside the list of places; a file that is unpacked already is not read again.
"""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from ssondo.audioset.sources.local import Candidate, LocalSource, files_of
from ssondo.errors import SsondoError
from ssondo.storage.atomic_files import atomic_write, write_text
from ssondo.storage.clip_location import ClipLocation, content_fingerprint, file_fingerprint
from ssondo.storage.segments import Segment

log = logging.getLogger(__name__)

_ID_COLUMNS = ("video_id", "ytid", "youtube_id", "YTID", "audio_name", "file_name", "filename", "key", "id")
_ROWS_AT_ONCE = 64
# Of the notes beside what was unpacked; notes of another form are made again.
_NOTES_FORM = 2


class Parquet(LocalSource):
    """Rows of parquet files, found by the clip's id in a column or in the name of the sound.

    Args:
        path: a parquet file, a folder of them, or a pattern with * of several.
        audio_column: a struct with `bytes` and `path`, or the bytes themselves.
        id_column: has the clip's id; None: the first of the usual names, or the sound's `path`.
        files_are_clips: a row is the clip itself; false: the whole video, of which the segment is cut.
        copy_clips: keep a copy of each clip in the fetched shard; false: note where it was unpacked.
        segments: the clips that will be asked for.
        located: list of their places that `locate` made; None: they are searched now.
        scratch: folder for what is unpacked.
    """

    def __init__(
        self,
        *,
        path: str,
        audio_column: str = "audio",
        id_column: str | None = None,
        files_are_clips: bool = True,
        copy_clips: bool = False,
        segments: Sequence[Segment] = (),
        located: Path | None = None,
        scratch: Path | None = None,
    ) -> None:
        super().__init__(
            path,
            copy_clips=copy_clips,
            files_are_clips=files_are_clips,
            segments=segments,
            located=located,
            scratch=scratch,
        )
        self._audio_column = audio_column
        self._id_column = id_column

    def candidates(self, is_wanted: Callable[[str], bool]) -> Iterator[Candidate]:
        """Every row of every file.

        Raises:
            SsondoError: if pyarrow is missing, or a file has no such columns.
        """
        for file in files_of(self.path, (".parquet",), "parquet files"):
            unpacked = self._unpacked_name(file)
            for row, (names, start, length, stamp, path) in enumerate(self._rows(file, unpacked, is_wanted)):
                wanted = _first_wanted(names, is_wanted)
                name = wanted or next(iter(names), "")
                origin = ClipLocation(path) if path else ClipLocation(str(unpacked), f"{start}+{length}", stamp)
                if stamp or path:
                    yield Candidate(name, f"{file}{row:012d}", origin)
                elif not wanted:
                    yield Candidate(name, "", ClipLocation(""))

    def _unpacked_name(self, file: Path) -> Path:
        where = hashlib.sha256(f"{file}|{self._audio_column}|{self._id_column}".encode()).hexdigest()[:12]
        folder = self.scratch if self.scratch is not None else Path()
        return Path(os.path.abspath(folder / f"{file.stem}-{where}.sound"))  # noqa: PTH100

    def _rows(self, file: Path, unpacked: Path, is_wanted: Callable[[str], bool]) -> list[list[Any]]:
        """Names, start, length, stamp and path of each row; the sound of the wanted ones is in `unpacked`."""
        notes = unpacked.with_suffix(".json")
        stamp = file_fingerprint(file)
        if notes.is_file() and unpacked.is_file():
            known = json.loads(notes.read_text(encoding="utf-8"))
            complete = known.get("form") == _NOTES_FORM and known["stamp"] == stamp
            complete = complete and known["size"] == unpacked.stat().st_size
            rows: list[list[Any]] = known["rows"]
            if complete and all(row[3] or row[4] or row[5] or not _first_wanted(row[0], is_wanted) for row in rows):
                return [row[:5] for row in rows]
        rows = []
        with atomic_write(unpacked) as temporary, temporary.open("wb") as sound:
            for names, data, path in self._read(file):
                start = sound.tell()
                # All names are noted: another list may want the row by another of them.
                if data and _first_wanted(names, is_wanted):
                    sound.write(data)
                    rows.append([names, start, len(data), content_fingerprint(data), "", False])
                else:
                    rows.append([names, 0, 0, "", path, not data])
            size = sound.tell()
        write_text(notes, json.dumps({"form": _NOTES_FORM, "stamp": stamp, "size": size, "rows": rows}))
        log.info("%s: unpacked %d of %d clips", file, sum(bool(row[3]) for row in rows), len(rows))
        return [row[:5] for row in rows]

    def _read(self, file: Path) -> Iterator[tuple[list[str], bytes, str]]:
        """Names, bytes and path of each row's sound; the path is empty unless the sound lies there."""
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
                if self._audio_column not in columns:
                    raise SsondoError(
                        f"{file}: has no column {self._audio_column!r}; set audioset.source.audio_column to one of "
                        f"{', '.join(columns)}"
                    )
                id_column = self._choose_id(file, columns)
                wanted = [self._audio_column, *([id_column] if id_column else [])]
                for batch in opened.iter_batches(batch_size=_ROWS_AT_ONCE, columns=wanted):
                    ids = batch.column(id_column).to_pylist() if id_column else [None] * len(batch)
                    for cell, clip in zip(batch.column(self._audio_column).to_pylist(), ids, strict=True):
                        yield _row(file, cell, clip)
        except arrow.ArrowException as error:
            raise SsondoError(f"{file}: not a readable parquet file ({str(error).splitlines()[0]})") from None

    def _choose_id(self, file: Path, columns: Sequence[str]) -> str | None:
        if self._id_column is None:
            return next((name for name in _ID_COLUMNS if name in columns), None)
        if self._id_column not in columns:
            raise SsondoError(
                f"{file}: has no column {self._id_column!r}; set audioset.source.id_column to one of "
                f"{', '.join(columns)}"
            )
        return self._id_column


def _first_wanted(names: Sequence[str], is_wanted: Callable[[str], bool]) -> str:
    """The first of a row's names that may be a clip; "" if none."""
    return next((name for name in names if is_wanted(name)), "")


def _row(file: Path, cell: Any, clip: Any) -> tuple[list[str], bytes, str]:
    """A row's names, its bytes, and the path of its sound if that lies beside the parquet file."""
    data, path = (cell.get("bytes"), cell.get("path")) if isinstance(cell, dict) else (cell, None)
    name = PurePosixPath(str(clip)).name if clip is not None else ""
    # An id column may hold whole file names.
    names = [name, PurePosixPath(name).stem, PurePosixPath(path or "").stem]
    outside = file.parent / path if path and not data else None
    there = str(outside) if outside is not None and outside.is_file() else ""
    return list(dict.fromkeys(filter(None, names))), data or b"", there
