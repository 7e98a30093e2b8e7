"""Clips of a local folder: a lab's copy of AudioSet, or any corpus."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path

from ssondo.audioset.sources.clip_names import clip_ids_of
from ssondo.audioset.sources.local import Candidate, LocalSource
from ssondo.errors import SsondoError
from ssondo.storage.clip_location import ClipLocation
from ssondo.storage.segments import SOUND_SUFFIXES, Segment
from ssondo.system.list_files import list_files

__all__ = ["Folder", "clip_ids_of"]


class Folder(LocalSource):
    """Files of a folder and its sub-folders, found by the clip's id in their name.

    Args:
        path: the folder.
        files_are_clips: a file is the clip itself; false: a file named by the id alone is the whole
            video, of which the segment is cut.
        copy_clips: keep a copy of each clip in the fetched shard; false: note where it lies.
        pattern: only files whose path below the folder matches, e.g. "train/*.flac".
        segments: the clips that will be asked for.
        located: list of their places that `locate` made; None: they are searched now.

    Raises:
        SsondoError: if there is no such folder.
    """

    def __init__(
        self,
        *,
        path: str,
        files_are_clips: bool = True,
        copy_clips: bool = False,
        pattern: str = "",
        segments: Sequence[Segment] = (),
        located: Path | None = None,
    ) -> None:
        super().__init__(
            path,
            copy_clips=copy_clips,
            files_are_clips=files_are_clips,
            segments=segments,
            located=located,
            scratch=None,
        )
        self._pattern = pattern
        if not Path(path).is_dir():
            raise SsondoError(f"audioset.source.path: {path} is no folder")

    @property
    def identity(self) -> str:
        """The settings that change what is fetched."""
        return json.dumps([super().identity, self._pattern])

    def candidates(self, is_wanted: Callable[[str], bool]) -> Iterator[Candidate]:
        """Every sound file below the folder.

        Raises:
            SsondoError: if there is none, or a folder cannot be listed.
        """
        root = os.path.abspath(self.path)  # noqa: PTH100 (a link stays one)
        n_files = 0
        for file in list_files(Path(root)):
            stem, suffix = os.path.splitext(file.name)  # noqa: PTH122 (two million names)
            if suffix.lower() not in SOUND_SUFFIXES:
                continue
            relative = os.fspath(file)[len(root) + 1 :]
            if self._pattern and not fnmatch(relative, self._pattern):
                continue
            n_files += 1
            yield Candidate(stem, relative, ClipLocation(os.fspath(file)))
        if not n_files:
            which = f"that match {self._pattern!r}" if self._pattern else f"({', '.join(sorted(SOUND_SUFFIXES))})"
            raise SsondoError(f"audioset.source.path: {self.path} has no sound files {which}")
