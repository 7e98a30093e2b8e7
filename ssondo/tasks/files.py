"""The files of a data set, unpacked or still in the archives that were downloaded, or partly so.

A reader of a data set names files as they would lie in its unpacked folder; whether they do is no
matter to it.
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
# Folders of a data set may lie in one that its archive makes, and that in another of the user's.
_DEPTH = 2


@cache
def names_in(folder: Path) -> frozenset[str]:
    """Names in a folder, listed once: cheaper than a question a file, above all on a network file system.

    `names_in.cache_clear()` forgets them; `load_task` begins with it.
    """
    try:
        return frozenset(entry.name for entry in folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return frozenset()


def is_there(path: Path) -> bool:
    """Whether `path` exists, from a listing of its folder that is made once."""
    return path.name in names_in(path.parent)


def with_any_suffix(path: Path) -> Iterator[Path]:
    """`path`, and the same name with every other suffix of sound."""
    yield path
    yield from (path.with_suffix(suffix) for suffix in AUDIO_SUFFIXES)


def find_audio(path: Path) -> Path | None:
    """`path`, or the file of the same name with another suffix of sound; None if there is none."""
    return next((candidate for candidate in with_any_suffix(path) if is_there(candidate)), None)


class Files:
    """The files of a data set.

    Args:
        root: the folder that they lie in, or would lie in.
        packed: those that are in archives, by name below `root`, with the content of lists.
    """

    def __init__(self, root: Path, packed: dict[str, tuple[Member, bytes | None]] | None = None) -> None:
        self.root = root
        self._packed = packed or {}

    @classmethod
    def find(cls, path: Path, task: str, *, lists: Sequence[str], folders: Sequence[str]) -> "Files":
        """The files below `path`: in it, in a folder in it, or in archives that lie in it.

        Archives are opened only if something is not there unpacked.

        Args:
            path: where the user says that the data set is.
            task: its name in the config.
            lists: files that will be read in full.
            folders: folders that the data set has.

        Raises:
            SsondoError: if `path` is no folder, lacks one of `lists` or `folders`, or an archive is damaged.
        """
        if not path.is_dir():
            raise SsondoError(
                f"{path}: no such folder; it is tasks.{task}.path, where the data set lies, unpacked or in its archives"
            )
        needed = (*lists, *folders)
        for root in _folders_below(path):
            if not _missing(root, needed):
                return cls(root)
        archives = find_archives(path)
        packed = {name: entry for parts in archives for name, entry in list_archive(parts, lists).items()}
        tree = _Tree(packed)
        prefixes = list(tree.prefixes())
        absent = {prefix: _missing(path / prefix, [n for n in needed if prefix + n not in tree]) for prefix in prefixes}
        prefix = min(absent, key=lambda prefix: len(absent[prefix]))
        if absent[prefix]:
            lacking = min([absent[prefix], *(_missing(root, needed) for root in _folders_below(path))], key=len)
            names = ", ".join(parts[-1].name for parts in archives)
            where = f"neither unpacked nor in {names}" if archives else "in it"
            raise SsondoError(
                f"{path}: no {lacking[0]} {where}, as {task}'s data set has; "
                f"set tasks.{task}.path to the folder of the data set or of all its archives"
            )
        inside = {name.removeprefix(prefix): entry for name, entry in packed.items() if name.startswith(prefix)}
        return cls(path / prefix, inside)

    def sound(self, name: str, *, any_suffix: bool = False) -> Path | Member:
        """Where a clip is to be read from; a path to nothing if it is nowhere.

        Args:
            name: of the file, below the data set's folder.
            any_suffix: also take a file of this name with another suffix of sound.
        """
        path = self.root / name
        for candidate in with_any_suffix(path) if any_suffix else (path,):
            if is_there(candidate):
                return candidate
            if self._packed and (found := self._packed.get(str(candidate.relative_to(self.root)))):
                return found[0]
        return path

    def text(self, name: str) -> str:
        """A list's text, UTF-8 (a byte-order mark is taken off).

        Raises:
            SsondoError: if it is not there or not UTF-8.
        """
        content = self._packed.get(name, (None, None))[1]
        try:
            data = content if content is not None and not (self.root / name).is_file() else self._read(name)
            return data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise SsondoError(f"{self.root / name}: not a text in UTF-8 ({error})") from None

    def _read(self, name: str) -> bytes:
        try:
            return (self.root / name).read_bytes()
        except IsADirectoryError:
            raise SsondoError(f"{self.root / name}: is a folder; name the file in it that lists the clips") from None
        except FileNotFoundError:
            raise SsondoError(f"{self.root / name}: no such file; it lists the clips of the task") from None

    def rows(self, name: str, columns: Sequence[str], delimiter: str = ",") -> list[dict[str, str]]:
        """Rows of a CSV with a header, as `read_rows`."""
        return _rows(io.StringIO(self.text(name), newline=""), self.root / name, columns, delimiter)

    def json(self, name: str) -> Any:
        """The content of a JSON file.

        Raises:
            SsondoError: if it is not there or not JSON.
        """
        try:
            return json.loads(self.text(name))
        except json.JSONDecodeError as error:
            raise SsondoError(f"{self.root / name}: not JSON ({error}); get it anew") from None


class _Tree:
    """Names of packed files and of the folders that they make."""

    def __init__(self, files: Iterable[str]) -> None:
        self._files = frozenset(files)
        self._folders: set[str] = set()
        for name in self._files:
            parent = name.rpartition("/")[0]
            while parent and parent not in self._folders:
                self._folders.add(parent)
                parent = parent.rpartition("/")[0]

    def __contains__(self, name: str) -> bool:
        return name in self._files or name in self._folders

    def prefixes(self) -> Iterator[str]:
        """What the names of a data set may begin with: nothing, or a folder or two and a slash."""
        yield ""
        yield from (f"{folder}/" for folder in sorted(self._folders) if folder.count("/") < _DEPTH)


def _folders_below(path: Path) -> Iterator[Path]:
    """A folder, those in it, then those in them, by name."""
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


def read_rows(path: Path, columns: Sequence[str], delimiter: str = ",") -> list[dict[str, str]]:
    """Rows of a CSV with a header.

    Args:
        path: the file, UTF-8 (a byte-order mark is taken off).
        columns: columns that must be there; the rows hold the others too.
        delimiter: between columns.

    Raises:
        SsondoError: if the file is missing, no CSV, lacks one of `columns`, or a row is not as long as the header.
    """
    return Files(path.parent).rows(path.name, columns, delimiter)


def _rows(lines: Iterable[str], path: Path, columns: Sequence[str], delimiter: str) -> list[dict[str, str]]:
    try:
        reader = csv.DictReader(lines, delimiter=delimiter)
        rows = list(reader)
    except csv.Error as error:
        raise SsondoError(f"{path}: not a CSV in UTF-8 ({error})") from None
    header = reader.fieldnames or []
    if absent := [column for column in columns if column not in header]:
        raise SsondoError(f"{path}: no column {', '.join(absent)}; it has {', '.join(header[:12])}")
    for number, row in enumerate(rows, start=2):
        if any(row[column] is None for column in columns):
            raise SsondoError(f"{path}, line {number}: fewer columns than the header has")
        # A second label behind a comma would be lost without a word. Who asks for no column asks for the header.
        if columns and any(text.strip() for text in row.get(None, ())):
            raise SsondoError(
                f"{path}, line {number}: more columns than the header has; put what holds a {delimiter!r} in quotes"
            )
    return rows
