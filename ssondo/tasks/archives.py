"""Access to the files in zip and tar archives without unpacking them, which could be hundreds of thousands of files.

A zip archive has a table of contents, so any process can read any clip directly. It can consist of several files:
either of consecutive pieces (`mp3.zip.001`, ...), or of the files that the zip program creates when it splits one
(`x.z01`, ..., `x.zip`), where the table of contents gives offsets relative to each file. A compressed tar archive can
only be read sequentially: once for its names and lists, and once more for the audio, in its own order.
"""

import gzip
import io
import logging
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path, PurePosixPath
from typing import IO

from ssondo.errors import ClipError, SsondoError

log = logging.getLogger(__name__)

_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR64 = struct.Struct("<4sLQL")
_LOCAL = struct.Struct("<4s5H3L2H")
_LONGEST_COMMENT = 0xFFFF
_GZIP = b"\x1f\x8b"
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Span:
    """Consecutive files that are read as one.

    Attributes:
        parts: Files, in order.
        starts: Offset of the start of each file, followed by the total size, in bytes.
    """

    parts: tuple[Path, ...]
    starts: tuple[int, ...]

    @classmethod
    def of(cls, parts: tuple[Path, ...]) -> "Span":
        """Create a span from the current sizes of the files `parts`."""
        return cls(parts, tuple(accumulate((part.stat().st_size for part in parts), initial=0)))

    def read(self, offset: int, size: int) -> bytes:
        """Read `size` bytes from `offset`, or fewer at the end."""
        data = b""
        for part, (start, end) in zip(self.parts, pairwise(self.starts), strict=True):
            if start <= offset < end and size:
                with part.open("rb") as file:
                    file.seek(offset - start)
                    block = file.read(min(size, end - offset))
                data, offset, size = data + block, offset + len(block), size - len(block)
        return data


@dataclass(frozen=True)
class ZipMember:
    """A file in a zip archive, which can be read in any process.

    Attributes:
        archive: Files of the archive.
        offset: Offset of the local header in bytes.
        packed_size: Compressed size in bytes.
        size: Uncompressed size in bytes.
        method: Compression method, see the constants of `zipfile`.
        crc: CRC-32 of the uncompressed content.
    """

    archive: Span
    offset: int
    packed_size: int
    size: int
    method: int
    crc: int

    def read_bytes(self) -> bytes:
        """Return the uncompressed content.

        Raises:
            ClipError: if it is damaged or packed in a way that is not read here.
        """
        if self.method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ClipError(f"packed with zip's method {self.method}, which is not read here; unpack the archive")
        header = self.archive.read(self.offset, _LOCAL.size)
        if header[:4] != b"PK\3\4" or len(header) < _LOCAL.size:
            raise ClipError("damaged in its archive: no header where its table of contents says")
        *_, name_size, extra_size = _LOCAL.unpack(header)
        data = self.archive.read(self.offset + _LOCAL.size + name_size + extra_size, self.packed_size)
        try:
            if self.method == zipfile.ZIP_DEFLATED:
                data = zlib.decompress(data, -zlib.MAX_WBITS, max(self.size, 1))
        except zlib.error as error:
            raise ClipError(f"damaged in its archive: {error}") from None
        if len(data) != self.size or zlib.crc32(data) != self.crc:
            raise ClipError("damaged in its archive: the checksum is wrong")
        return data


@dataclass(frozen=True)
class TarMember:
    """A file in a tar archive, which `read_tar` reads; `position` is the number of files before it in the archive."""

    archive: Path
    position: int


Member = ZipMember | TarMember


def find_archives(folder: Path) -> list[tuple[Path, ...]]:
    """Return the archives in a folder, each as the tuple of its files in order.

    Raises:
        SsondoError: If a file of an archive is missing.
    """
    names = {path.name for path in folder.iterdir() if path.is_file()}
    archives: list[tuple[str, ...]] = []
    for name in sorted(names):
        if name.endswith((".tar", ".tar.gz", ".tgz")):
            archives.append((name,))
        elif name.endswith(".zip"):
            archives.append((*_numbered(folder, names, rf"{re.escape(name[:-4])}\.z(\d\d+)"), name))
        elif (pieces := re.fullmatch(r"(.*\.zip)\.0*1", name)) and pieces[1] not in names:
            archives.append(tuple(_numbered(folder, names, rf"{re.escape(pieces[1])}\.(\d+)")))
        elif (split := re.fullmatch(r"(.*)\.z01", name)) and f"{split[1]}.zip" not in names:
            raise SsondoError(f"{folder}: {split[1]}.zip is missing, the last part of the archive of {name}")
    return [tuple(folder / name for name in parts) for parts in archives]


def _numbered(folder: Path, names: Collection[str], pattern: str) -> list[str]:
    """Return the names that match, ordered by their numbers, which start at 1."""
    numbers = {int(match[1]): match[0] for name in names if (match := re.fullmatch(pattern, name))}
    for number in range(1, max(numbers, default=0)):
        if number not in numbers:
            raise SsondoError(f"{folder}: part {number} of the archive of {numbers[max(numbers)]} is missing")
    return [numbers[number] for number in sorted(numbers)]


def list_archive(parts: tuple[Path, ...], lists: Collection[str]) -> dict[str, tuple[Member, bytes | None]]:
    """Return the files in an archive by name, with the content of those that are lists.

    Args:
        parts: Files of the archive, as returned by `find_archives`.
        lists: Final parts of the names of files whose content is returned, e.g. "meta/esc50.csv".

    Raises:
        SsondoError: If the archive is damaged, truncated, or not an archive.
    """
    if parts[0].name.endswith((".tar", ".tar.gz", ".tgz")):
        return _list_tar(parts[0], lists)
    return {
        name: (member, member.read_bytes() if _is_list(name, lists) else None)
        for name, member in _list_zip(parts).items()
    }


def _is_list(name: str, lists: Collection[str]) -> bool:
    return any(name == suffix or name.endswith(f"/{suffix}") for suffix in lists)


def _clean(name: str) -> str | None:
    """Return the name of a member without "./", or None for the metadata files that macOS adds."""
    path = PurePosixPath(name)
    if "__MACOSX" in path.parts or path.name.startswith("._"):
        return None
    return str(path)


# zip


def _list_zip(parts: tuple[Path, ...]) -> dict[str, ZipMember]:
    archive = Span.of(parts)
    n_disks, disk, size, offset = _find_table(archive)
    if n_disks > 1 and n_disks != len(parts):
        raise SsondoError(f"{parts[-1]}: the last of {n_disks} parts, and {len(parts)} are here; download the others")
    bases = _bases(archive, n_disks)
    table = archive.read(bases[disk] + offset, size) if disk < len(bases) else b""
    if len(table) < size:
        raise _broken(archive, "its table of contents is damaged")
    try:
        # zipfile refuses archives of several files, so it gets the table of contents alone.
        with zipfile.ZipFile(io.BytesIO(table + _END.pack(b"PK\5\6", 0, 0, 0, 0, size, 0, 0))) as contents:
            entries = contents.infolist()
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError):
        raise _broken(archive, "its table of contents is damaged") from None
    members = {}
    for entry in entries:
        if entry.volume >= len(bases):
            raise _broken(archive, "its table of contents is damaged")
        if entry.flag_bits & 1:
            raise SsondoError(f"{parts[-1]}: its files are encrypted; unpack it")
        name = _clean(entry.filename)
        if name is not None and not entry.is_dir():
            start = bases[entry.volume] + entry.header_offset
            members[name] = ZipMember(
                archive, start, entry.compress_size, entry.file_size, entry.compress_type, entry.CRC
            )
    return members


def _bases(archive: Span, n_disks: int) -> tuple[int, ...]:
    """Return the offsets that the table of contents refers to: of each file of a split archive, else of the first."""
    return archive.starts if n_disks > 1 else archive.starts[:1]


def _find_table(archive: Span) -> tuple[int, int, int, int]:
    """Return the number of files of a split archive, and the file, size and offset of the table of contents."""
    archive_size = archive.starts[-1]
    tail_start = max(0, archive_size - _LONGEST_COMMENT - _END.size)
    tail = archive.read(tail_start, archive_size - tail_start)
    position = tail.rfind(b"PK\5\6")
    if position < 0 or len(tail) - position < _END.size:
        raise _broken(archive, "its end is missing")
    _, last_disk, disk, _, _, size, offset, _ = _END.unpack_from(tail, position)
    locator = archive.read(max(0, tail_start + position - _LOCATOR64.size), _LOCATOR64.size)
    if locator[:4] == b"PK\6\7":
        _, end_disk, end_offset, n_disks = _LOCATOR64.unpack(locator)
        bases = _bases(archive, n_disks)
        record = archive.read(bases[end_disk] + end_offset, _END64.size) if end_disk < len(bases) else b""
        if record[:4] != b"PK\6\6" or len(record) < _END64.size:
            raise _broken(archive, "its end is damaged")
        _, _, _, _, last_disk, disk, _, _, size, offset = _END64.unpack(record)
    return last_disk + 1, disk, size, offset


def _broken(archive: Span, reason: str) -> SsondoError:
    path = archive.parts[-1]
    return SsondoError(f"{path}: this zip archive is incomplete ({reason}); delete it and download it again")


# tar


@contextmanager
def _as_damage(path: Path) -> Iterator[None]:
    try:
        yield
    except (EOFError, gzip.BadGzipFile, zlib.error, tarfile.TarError) as error:
        raise SsondoError(
            f"{path}: this archive is damaged or truncated ({error}); delete it and download it again"
        ) from None


def _walk(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Yield the name of each file of a tar archive and the open file, valid until the next one is requested."""
    with path.open("rb") as file:
        packed = file.read(2) == _GZIP
    # The reader of gzip verifies the checksum at the end, that of tarfile does not.
    with (
        gzip.open(path) if packed else path.open("rb") as stream,
        tarfile.open(fileobj=stream, mode="r|", bufsize=_BLOCK) as tar,
    ):
        while (member := tar.next()) is not None:
            if member.isfile():
                content = tar.extractfile(member)
                assert content is not None
                yield member.name, content
            # Otherwise tarfile would keep the header of each of 300,000 files in memory.
            tar.members = []  # type: ignore[attr-defined]
        while stream.read(_BLOCK):
            pass


def _list_tar(path: Path, lists: Collection[str]) -> dict[str, tuple[Member, bytes | None]]:
    members: dict[str, tuple[Member, bytes | None]] = {}
    log.info("reading the names in %s (%.1f GB)", path, path.stat().st_size / 1e9)
    with _as_damage(path):
        for position, (packed_name, file) in enumerate(_walk(path)):
            if (name := _clean(packed_name)) is not None:
                members[name] = TarMember(path, position), file.read() if _is_list(name, lists) else None
    return members


def read_tar(path: Path, positions: Collection[int]) -> Iterator[bytes]:
    """Yield the content of the files at `positions`, in the order of the archive.

    Raises:
        SsondoError: If the archive is damaged.
    """
    selected = set(positions)
    with _as_damage(path):
        for position, (_, file) in enumerate(_walk(path)):
            if position in selected:
                yield file.read()
