"""Clips of WebDataset tar shards: members `{key}.{suffix}`, perhaps with a `{key}.json` that has the id.

Members of a plain tar lie there as they are and are read in place; a compressed one must be unpacked first.
"""

import json
import logging
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from ssondo.audioset.sources.local import Candidate, LocalSource, files_of
from ssondo.errors import SsondoError
from ssondo.storage.clip_location import ClipLocation, file_fingerprint, fingerprint_size
from ssondo.storage.segments import SOUND_SUFFIXES, Segment

log = logging.getLogger(__name__)


class WebDataset(LocalSource):
    """Members of tar shards, found by the clip's id in their name or in the JSON beside them.

    Args:
        path: a tar, a folder of tars, or a pattern with * of several.
        id_key: key of the clip's id in the JSON of each sample; None: the sample's name has it.
        files_are_clips: a member is the clip itself; false: the whole video, of which the segment is cut.
        copy_clips: keep a copy of each clip in the fetched shard; false: note where it lies.
        segments: the clips that will be asked for.
        located: list of their places that `locate` made; None: they are searched now.
    """

    def __init__(
        self,
        *,
        path: str,
        id_key: str | None = None,
        files_are_clips: bool = True,
        copy_clips: bool = False,
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
        self._id_key = id_key

    def candidates(self, is_wanted: Callable[[str], bool]) -> Iterator[Candidate]:
        """Every sound of every tar."""
        for file in files_of(self.path, (".tar",), "tar shards"):
            ids: dict[str, str] = {}
            sounds: list[tuple[str, ClipLocation]] = []
            for stem, suffix, member, tar in _members(file):
                if suffix in SOUND_SUFFIXES:
                    sounds.append((stem, member))
                elif suffix == ".json" and self._id_key is not None:
                    ids[stem] = self._id_of(file, stem, tar)
            for stem, origin in sounds:
                name = stem if self._id_key is None else ids.get(stem, "")
                if name:
                    yield Candidate(PurePosixPath(name).name, f"{file}{stem}", origin)

    def _id_of(self, file: Path, stem: str, content: bytes) -> str:
        try:
            found = json.loads(content)[self._id_key]
        except (ValueError, KeyError, TypeError):
            raise SsondoError(
                f"{file}: {stem}.json has no {self._id_key!r}; set audioset.source.id_key to the key of the clip's id"
            ) from None
        return str(found)


def _members(file: Path) -> Iterator[tuple[str, str, ClipLocation, bytes]]:
    """Name without suffix, suffix, place, and the content if it is JSON, of the members of a tar."""
    stamp = file_fingerprint(file)
    size = fingerprint_size(stamp)
    try:
        with tarfile.open(file, "r:") as tar:
            for member in tar:
                if not member.isreg() or member.issparse():
                    continue
                path = PurePosixPath(member.name)
                if member.offset_data + member.size > size:
                    log.warning("%s: cut short in %s; what is before it is used", file, member.name)
                    return
                suffix = path.suffix.lower()
                part = f"{member.offset_data}+{member.size}"
                taken = tar.extractfile(member) if suffix == ".json" else None
                content = taken.read() if taken is not None else b""
                # Members of two folders may have one name.
                yield str(path.with_suffix("")), suffix, ClipLocation(str(file), part, stamp), content
    except tarfile.ReadError as error:
        raise SsondoError(f"{file}: not a plain tar file ({error}); unpack a compressed one first") from None
