"""Clips in WebDataset tar shards: members `{key}.{suffix}`, optionally with a `{key}.json` that contains the id.

Members of an uncompressed tar are stored contiguously and read in place; a compressed tar must be unpacked first.
"""

import json
import logging
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ssondo.audioset.sources.clip_names import SOUND_SUFFIXES
from ssondo.audioset.sources.local import Candidate, LocalSource, find_files
from ssondo.errors import SsondoError
from ssondo.storage.clip_location import ClipLocation, file_fingerprint, fingerprint_size

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class WebDataset(LocalSource):
    """Members of tar shards, identified by the clip's id in their name or in the JSON of the sample.

    Args:
        id_key: Key of the clip's id in the JSON of each sample; None if the name of the sample contains the id.
    """

    id_key: str | None = None

    def candidates(self, is_wanted: Callable[[str], bool]) -> Iterator[Candidate]:
        """Yield every sound of every tar."""
        for file in find_files(self.path, (".tar",), "tar shards"):
            ids: dict[str, str] = {}
            sounds: list[tuple[str, ClipLocation]] = []
            for stem, suffix, location, content in _members(file):
                if suffix in SOUND_SUFFIXES:
                    sounds.append((stem, location))
                elif suffix == ".json" and self.id_key is not None:
                    ids[stem] = self._read_id(file, stem, content)
            for stem, location in sounds:
                name = stem if self.id_key is None else ids.get(stem, "")
                if name:
                    yield Candidate(PurePosixPath(name).name, f"{file}{stem}", location)

    def _read_id(self, file: Path, stem: str, content: bytes) -> str:
        try:
            return str(json.loads(content)[self.id_key])
        except (ValueError, KeyError, TypeError):
            raise SsondoError(
                f"{file}: {stem}.json has no {self.id_key!r}; set audioset.source.id_key to the key of the clip's id"
            ) from None


def _members(file: Path) -> Iterator[tuple[str, str, ClipLocation, bytes]]:
    """Name without suffix, suffix, location, and for JSON the content, of each member of a tar."""
    fingerprint = file_fingerprint(file)
    size = fingerprint_size(fingerprint)
    try:
        with tarfile.open(file, "r:") as tar:
            for member in tar:
                if not member.isreg() or member.issparse():
                    continue
                path = PurePosixPath(member.name)
                if member.offset_data + member.size > size:
                    log.warning("%s: cut short in %s; the members before it are used", file, member.name)
                    return
                suffix = path.suffix.lower()
                extracted = tar.extractfile(member) if suffix == ".json" else None
                content = extracted.read() if extracted is not None else b""
                location = ClipLocation(str(file), f"{member.offset_data}+{member.size}", fingerprint)
                # The folder is part of the name: members of two folders may have the same file name.
                yield str(path.with_suffix("")), suffix, location, content
    except tarfile.ReadError as error:
        raise SsondoError(f"{file}: not a plain tar file ({error}); unpack a compressed one first") from None
