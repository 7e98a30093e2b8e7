"""Access to the files of a data set, whether they are unpacked, in the downloaded archives, or both.

The functions that read a data set use the names of the unpacked files in both cases.
"""

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ssondo.errors import SsondoError
from ssondo.tasks.archives import Member, find_archives, list_archive

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".au", ".m4a", ".opus", ".aif", ".aiff")
# The data set may be in a folder that its archive creates, inside another folder of the user.
_DEPTH = 2


@cache
def names_in_folder(folder: Path) -> frozenset[str]:
    """Return the names in a folder, which is empty if the folder does not exist.

    The result is cached, because one listing is faster than a query per file, especially on a network file system.
    `load_task` clears the cache.
    """
    try:
        return frozenset(entry.name for entry in folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return frozenset()


def exists(path: Path) -> bool:
    """Return whether `path` exists, from the cached listing of its folder."""
    return path.name in names_in_folder(path.parent)


def with_any_suffix(path: Path) -> Iterator[Path]:
    """Yield `path`, then the same name with the suffix of every audio format."""
    yield path
    yield from (path.with_suffix(suffix) for suffix in AUDIO_SUFFIXES)


def find_audio(path: Path) -> Path | None:
    """Return `path`, or the file of the same name with the suffix of another audio format; None if none exists."""
    return next((candidate for candidate in with_any_suffix(path) if exists(candidate)), None)


class Files:
    """The files of a data set: unpacked ones in the folder `root`, and `packed` ones by their name relative to it."""

    def __init__(self, root: Path, packed: dict[str, tuple[Member, bytes | None]] | None = None) -> None:
        self.root = root
        self._packed = packed or {}

    @classmethod
    def find(cls, path: Path, task: str, *, lists: Sequence[str], folders: Sequence[str]) -> "Files":
        """Find the files of a data set in a folder, in its subfolders, or in the archives that it contains.

        Archives are opened only if the unpacked files are incomplete.

        Args:
            path: Folder that the user configured.
            task: Name of the task in the configuration.
            lists: Names of the files whose content is needed.
            folders: Names of the folders of the data set.

        Raises:
            SsondoError: If `path` is not a folder, lacks one of `lists` or `folders`, or an archive is damaged.
        """
        if not path.is_dir():
            raise SsondoError(
                f"{path}: this folder does not exist; set tasks.{task}.path to the folder of the data set or of its "
                "archives"
            )
        needed = (*lists, *folders)
        for root in _folders_below(path):
            if not _missing(root, needed):
                return cls(root)
        archives = find_archives(path)
        packed = {name: content for parts in archives for name, content in list_archive(parts, lists).items()}
        packed_folders = _folders_of(packed)
        names = packed.keys() | packed_folders
        prefixes = ["", *(f"{folder}/" for folder in sorted(packed_folders) if folder.count("/") < _DEPTH)]
        absent = {
            prefix: _missing(path / prefix, [n for n in needed if prefix + n not in names]) for prefix in prefixes
        }
        prefix = min(absent, key=lambda prefix: len(absent[prefix]))
        if absent[prefix]:
            lacking = min([absent[prefix], *(_missing(root, needed) for root in _folders_below(path))], key=len)
            searched = ", ".join(parts[-1].name for parts in archives)
            where = f"is neither unpacked nor in {searched}" if archives else "does not exist in this folder"
            raise SsondoError(
                f"{path}: {lacking[0]} of the data set of task {task} {where}; "
                f"set tasks.{task}.path to the folder of the data set or of all its archives"
            )
        below = {name.removeprefix(prefix): content for name, content in packed.items() if name.startswith(prefix)}
        return cls(path / prefix, below)

    def audio(self, name: str, *, any_suffix: bool = False) -> Path | Member:
        """Return the source of a clip's audio; if the clip is missing, it is a path that does not exist.

        Args:
            name: Name of the audio file, relative to the folder of the data set.
            any_suffix: Whether a file of this name with the suffix of another audio format is also accepted.
        """
        path = self.root / name
        for candidate in with_any_suffix(path) if any_suffix else (path,):
            if exists(candidate):
                return candidate
            if self._packed and (packed := self._packed.get(str(candidate.relative_to(self.root)))):
                return packed[0]
        return path

    def text(self, name: str) -> str:
        """Return the text of a list, which is UTF-8 with or without a byte-order mark.

        Raises:
            SsondoError: If the list does not exist or is not UTF-8.
        """
        path = self.root / name
        try:
            content = None if path.is_file() else self._packed.get(name, (None, None))[1]
            return (path.read_bytes() if content is None else content).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise SsondoError(f"{path}: this is not a UTF-8 text ({error})") from None
        except IsADirectoryError:
            raise SsondoError(f"{path}: this is a folder; give the list of clips in it") from None
        except FileNotFoundError:
            raise SsondoError(f"{path}: this list of the task's clips does not exist") from None

    def rows(self, name: str, columns: Sequence[str], delimiter: str = ",") -> list[dict[str, str]]:
        """Return the rows of a CSV file with a header, each as the text of its columns by name.

        Args:
            name: Name of the file.
            columns: Names of the required columns; the rows contain the other columns too.
            delimiter: Character between columns.

        Raises:
            SsondoError: If the file does not exist, is not CSV, lacks one of `columns`, or a row is not as long as the
                header.
        """
        path = self.root / name
        try:
            reader = csv.DictReader(io.StringIO(self.text(name), newline=""), delimiter=delimiter)
            rows = list(reader)
        except csv.Error as error:
            raise SsondoError(f"{path}: this is not a CSV file ({error})") from None
        header = reader.fieldnames or []
        if absent := [column for column in columns if column not in header]:
            raise SsondoError(f"{path}: it has no column {', '.join(absent)}, but {', '.join(header[:12])}")
        for number, row in enumerate(rows, start=2):
            if any(row[column] is None for column in columns):
                raise SsondoError(f"{path}, line {number}: fewer columns than the header has")
            # An unquoted comma between two labels would silently drop the second one. Without required columns, the
            # caller only needs the header.
            if columns and any(text.strip() for text in row.get(None, ())):
                raise SsondoError(
                    f"{path}, line {number}: more columns than the header has; put fields that contain {delimiter!r} "
                    "in quotes"
                )
        return rows

    def json(self, name: str) -> Any:
        """Return the content of a JSON file.

        Raises:
            SsondoError: If the file does not exist or is not JSON.
        """
        try:
            return json.loads(self.text(name))
        except json.JSONDecodeError as error:
            raise SsondoError(f"{self.root / name}: this is not JSON ({error}); download the file again") from None


def _folders_of(names: Iterable[str]) -> set[str]:
    """Return the folders of packed files, and the folders of these."""
    folders: set[str] = set()
    for name in names:
        while (name := name.rpartition("/")[0]) and name not in folders:
            folders.add(name)
    return folders


def _folders_below(path: Path) -> Iterator[Path]:
    """Yield a folder, then its subfolders, then their subfolders, each level sorted by name."""
    level = [path]
    for _ in range(_DEPTH + 1):
        yield from level
        level = [Path(entry.path) for folder in level for entry in _sorted_folders(folder)]


def _sorted_folders(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if entry.is_dir()), key=lambda entry: entry.name)
    except PermissionError:
        return []


def _missing(root: Path, names: Sequence[str]) -> list[str]:
    return [name for name in names if not (root / name).exists()]
