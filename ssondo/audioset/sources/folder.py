"""Clips in a local folder: a copy of AudioSet, or any other corpus."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from ssondo.audioset.sources.clip_names import SOUND_SUFFIXES
from ssondo.audioset.sources.local import Candidate, LocalSource
from ssondo.errors import SsondoError
from ssondo.storage.clip_location import ClipLocation
from ssondo.system.list_files import list_files


@dataclass(kw_only=True)
class Folder(LocalSource):
    """Files of a folder and its subfolders, identified by the clip's id in their name.

    With `files_are_clips=False`, a file named by the id alone is the whole video.

    Args:
        pattern: Only files whose path below the folder matches are used, e.g. "train/*.flac"; "" for all.
    """

    pattern: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not Path(self.path).is_dir():
            raise SsondoError(f"audioset.source.path: {self.path} is not a folder")

    def candidates(self, is_wanted: Callable[[str], bool]) -> Iterator[Candidate]:
        """Yield every sound file below the folder."""
        root = os.path.abspath(self.path)  # noqa: PTH100 (does not resolve links)
        n_files = 0
        for file in list_files(Path(root)):
            stem, suffix = os.path.splitext(file.name)  # noqa: PTH122 (called two million times)
            if suffix.lower() not in SOUND_SUFFIXES:
                continue
            relative = os.fspath(file)[len(root) + 1 :]
            if self.pattern and not fnmatch(relative, self.pattern):
                continue
            n_files += 1
            yield Candidate(stem, relative, ClipLocation(os.fspath(file)))
        if not n_files:
            which = f"that match {self.pattern!r}" if self.pattern else f"({', '.join(sorted(SOUND_SUFFIXES))})"
            raise SsondoError(f"audioset.source.path: {self.path} has no sound files {which}")
