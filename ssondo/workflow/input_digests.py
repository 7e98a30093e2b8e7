"""The content of the user's own input files, for the rules that read them.

Snakemake compares files over a size by time stamp, and a folder of clips not at all. A digest of
their content, kept by path, size and time of change, sees every change and nothing else.
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

MOST_FILES = 20_000


def _walk(folder: str) -> Iterator[Path]:
    """Every file below `folder`, through links too; none if there is no such folder. Links to nothing are left out."""
    if not Path(folder).is_dir():
        return iter(())
    return (path for path in list_files(folder) if path.is_file())


def _stamps(path: str) -> dict[str, str]:
    if Path(path).is_dir():
        files = list(islice(_walk(path), MOST_FILES + 1))
    else:
        files = [Path(name) for name in sorted(glob(path, recursive=True)) if Path(name).is_file()]  # noqa: PTH207
    if len(files) > MOST_FILES:
        return {}
    return {str(file): f"{file.stat().st_size}-{file.stat().st_mtime_ns}" for file in sorted(files)}


class InputDigests:
    """Digests of files.

    Args:
        cache: a JSON file that remembers them between runs; it may be deleted.
    """

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._known: dict[str, list[str | int]] = {}
        with suppress(FileNotFoundError, json.JSONDecodeError):
            self._known = json.loads(cache.read_text(encoding="utf-8"))
        self._folders: dict[str, dict[str, str]] = {}
        self._stamps: dict[str, dict[str, str]] = {}
        self._new = False

    def _digest(self, path: Path) -> str:
        stat = path.stat()
        key = str(path)
        state: list[str | int] = [stat.st_size, stat.st_mtime_ns]
        known = self._known.get(key)
        if known is None or known[:2] != state:
            known = [*state, file_digest(path)]
            self._known[key] = known
            self._new = True
        return str(known[2])

    def files(self, paths: list[str]) -> dict[str, str]:
        """Digests of those of `paths` that are local files, by path."""
        return {path: self._digest(Path(path)) for path in paths if path and Path(path).is_file()}

    def by_name(self, paths: list[str]) -> dict[str, str]:
        """Return digests of local files by file name, so that their folder has no influence."""
        return {Path(path).name: digest for path, digest in self.files(paths).items()}

    def tree(self, folder: str) -> dict[str, str]:
        """Digests of all files below a folder (or of one file), by path; empty if they are too many."""
        if folder not in self._folders:
            self._folders[folder] = self._read_tree(folder)
        return self._folders[folder]

    def names(self, folder: str) -> dict[str, str]:
        """The names of all files below a folder, however many they are, each with no digest."""
        return dict.fromkeys((str(path.relative_to(folder)) for path in _walk(folder)), "")

    def stamps(self, path: str) -> dict[str, str]:
        """Size and time of change of the files of a folder, a pattern or a path: packs are too large to read.

        Empty if they are too many.
        """
        if path not in self._stamps:
            self._stamps[path] = _stamps(path)
        return self._stamps[path]

    def _read_tree(self, folder: str) -> dict[str, str]:
        if Path(folder).is_file():
            return self.files([folder])
        found = list(islice(_walk(folder), MOST_FILES + 1))
        if len(found) > MOST_FILES:
            return {}
        digests = {str(path.relative_to(folder)): self._digest(path) for path in sorted(found)}
        # Not only at the end: the jobs on other nodes would all read the whole folder again.
        self.save()
        return digests

    def shard(self, folder: str, shard: str, n_shards: int) -> dict[str, str]:
        """Digests of the files below a folder of clips that may belong to a shard, by path.

        A name does not tell the split, and may be read as more than one clip: a changed file then
        makes one shard of each split run, and one for each reading.
        """
        return {
            path: digest
            for path, digest in self.tree(folder).items()
            if int(shard) in {shard_of(clip, n_shards) for clip in clip_ids_of(Path(path))}
        }

    def save(self) -> None:
        """Remember what was read, if anything was new."""
        if self._new:
            write_text(self._cache, json.dumps(self._known))
            self._new = False
