"""Digests of the user's own input files, for the rules that read them.

Snakemake compares large files by modification time, and does not compare the files of a folder at all. A digest of
the content detects every change and no mere touch; digests are cached by path, size and modification time.
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from glob import glob
from itertools import islice
from pathlib import Path

from ssondo.audioset.sources.clip_names import clip_ids_of
from ssondo.storage.atomic_files import file_digest, write_text
from ssondo.storage.segments import shard_of
from ssondo.system.list_files import list_files

MAX_FILES = 20_000


def _walk(folder: str) -> Iterator[Path]:
    """Yield every file in `folder` and its subfolders, following links; none if there is no such folder."""
    if not Path(folder).is_dir():
        return iter(())
    return (path for path in list_files(folder) if path.is_file())


def _read_stamps(path: str) -> dict[str, str]:
    if Path(path).is_dir():
        files = list(islice(_walk(path), MAX_FILES + 1))
    else:
        files = [Path(name) for name in sorted(glob(path, recursive=True)) if Path(name).is_file()]  # noqa: PTH207
    if len(files) > MAX_FILES:
        return {}
    return {str(file): f"{file.stat().st_size}-{file.stat().st_mtime_ns}" for file in sorted(files)}


class InputDigests:
    """Digests of files, cached between runs.

    Args:
        cache: JSON file of the cache; it may be deleted.
    """

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._cached: dict[str, list[str | int]] = {}
        with suppress(FileNotFoundError, json.JSONDecodeError):
            self._cached = json.loads(cache.read_text(encoding="utf-8"))
        self._folders: dict[str, dict[str, str]] = {}
        self._stamps: dict[str, dict[str, str]] = {}
        self._changed = False

    def _digest(self, path: Path) -> str:
        stat = path.stat()
        key = str(path)
        state: list[str | int] = [stat.st_size, stat.st_mtime_ns]
        entry = self._cached.get(key)
        if entry is None or entry[:2] != state:
            entry = [*state, file_digest(path)]
            self._cached[key] = entry
            self._changed = True
        return str(entry[2])

    def files(self, paths: list[str]) -> dict[str, str]:
        """Return the digests, by path, of those `paths` that are local files."""
        return {path: self._digest(Path(path)) for path in paths if path and Path(path).is_file()}

    def by_name(self, paths: list[str]) -> dict[str, str]:
        """Return the digests of local files by file name, so that their folder has no influence."""
        return {Path(path).name: digest for path, digest in self.files(paths).items()}

    def tree(self, folder: str) -> dict[str, str]:
        """Return the digests, by path, of all files in a folder, or of one file; empty for more than `MAX_FILES`."""
        if folder not in self._folders:
            self._folders[folder] = self._read_tree(folder)
        return self._folders[folder]

    def names(self, folder: str) -> dict[str, str]:
        """Return the names of all files in a folder, each with an empty digest, however many there are."""
        return dict.fromkeys((str(path.relative_to(folder)) for path in _walk(folder)), "")

    def stamps(self, path: str) -> dict[str, str]:
        """Return size and modification time of the files that a folder, pattern or path selects.

        This is for packs, which are too large to be read for a digest; empty for more than `MAX_FILES` files.
        """
        if path not in self._stamps:
            self._stamps[path] = _read_stamps(path)
        return self._stamps[path]

    def _read_tree(self, folder: str) -> dict[str, str]:
        if Path(folder).is_file():
            return self.files([folder])
        files = list(islice(_walk(folder), MAX_FILES + 1))
        if len(files) > MAX_FILES:
            return {}
        digests = {str(path.relative_to(folder)): self._digest(path) for path in sorted(files)}
        # Saved before any job starts; otherwise each job on another node would read the whole folder again.
        self.save()
        return digests

    def shard(self, folder: str, shard: str, n_shards: int) -> dict[str, str]:
        """Return the digests, by path, of the files in a folder of clips that may belong to a shard.

        A file name does not determine the split and may match more than one clip ID. A changed file therefore runs one
        shard of each split for each clip ID that it matches.
        """
        return {
            path: digest
            for path, digest in self.tree(folder).items()
            if int(shard) in {shard_of(clip, n_shards) for clip in clip_ids_of(Path(path))}
        }

    def save(self) -> None:
        """Write the cache if it has changed."""
        if self._changed:
            write_text(self._cache, json.dumps(self._cached))
            self._changed = False
