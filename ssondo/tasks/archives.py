"""Access to the files in zip and tar archives without unpacking them, which could be hundreds of thousands of files.

A zip archive has a table of contents, so any process can read any clip directly. It can consist of several files:
either of consecutive pieces (`mp3.zip.001`, ...), or of the files that the zip program creates when it splits one
(`x.z01`, ..., `x.zip`), where the table of contents gives offsets relative to each file. A compressed tar archive can
only be read sequentially: once for its names and lists, and once more for the audio, in its own order.
"""

import gzip
import logging
import re
import struct
import tarfile
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, pairwise
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ssondo.errors import ClipError, SsondoError

log = logging.getLogger(__name__)

_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR64 = struct.Struct("<4sLQL")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_LONGEST_COMMENT = 0xFFFF
_METHODS = {0: "stored", 8: "deflated"}
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

    @property
    def size(self) -> int:
        """Total size in bytes."""
        return self.starts[-1]

    def read(self, offset: int, size: int) -> bytes:
        """Read `size` bytes from `offset`, or fewer at the end."""
        found = b""
        for part, (start, end) in zip(self.parts, pairwise(self.starts), strict=True):
            if start <= offset < end and size:
                with part.open("rb") as file:
                    file.seek(offset - start)
                    block = file.read(min(size, end - offset))
                found, offset, size = found + block, offset + len(block), size - len(block)
        return found


@dataclass(frozen=True)
class ZipMember:
    """A file in a zip archive, which can be read in any process.

    Attributes:
        archive: Files of the archive.
        offset: Offset of the local header in bytes.
        packed_size: Compressed size in bytes.
        size: Uncompressed size in bytes.
        method: Compression method: 0 stored, 8 deflated.
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
        if self.method not in _METHODS:
            reason = f"packed with zip's method {self.method}, which is not read here; unpack the archive"
            raise ClipError(reason)
        header = self.archive.read(self.offset, _LOCAL.size)
        if header[:4] != b"PK\3\4" or len(header) < _LOCAL.size:
            reason = "damaged in its archive: no header where its table of contents says"
            raise ClipError(reason)
        *_, name_size, extra_size = _LOCAL.unpack(header)
        packed = self.archive.read(self.offset + _LOCAL.size + name_size + extra_size, self.packed_size)
        try:
            data = packed if self.method == 0 else zlib.decompress(packed, -zlib.MAX_WBITS, max(self.size, 1))
        except zlib.error as error:
            reason = f"damaged in its archive: {error}"
            raise ClipError(reason) from None
        if len(data) != self.size or zlib.crc32(data) != self.crc:
            reason = "damaged in its archive: the checksum is wrong"
            raise ClipError(reason)
        return data


@dataclass(frozen=True)
class TarMember:
    """A file in a tar archive, which `read_tar` reads.

    Attributes:
        archive: Path of the archive.
        position: Number of files before it in the archive.
    """

    archive: Path
    position: int


Member = ZipMember | TarMember


def find_archives(folder: Path) -> list[tuple[Path, ...]]:
    """Return the archives in a folder, each as the tuple of its files in order.

    Raises:
        SsondoError: If a file of an archive is missing.
    """
    if not folder.is_dir():
        return []
    names = {path.name for path in folder.iterdir() if path.is_file()}
    found: list[tuple[str, ...]] = []
    for name in sorted(names):
        if name.endswith((".tar", ".tar.gz", ".tgz")):
            found.append((name,))
        elif name.endswith(".zip"):
            found.append((*_numbered(folder, names, rf"{re.escape(name[:-4])}\.z(\d\d+)"), name))
        elif (pieces := re.fullmatch(r"(.*\.zip)\.0*1", name)) and pieces[1] not in names:
            found.append(tuple(_numbered(folder, names, rf"{re.escape(pieces[1])}\.(\d+)")))
        elif (split := re.fullmatch(r"(.*)\.z01", name)) and f"{split[1]}.zip" not in names:
            raise SsondoError(f"{folder}: {split[1]}.zip is missing, the last part of the archive of {name}")
    return [tuple(folder / name for name in parts) for parts in found]


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


def _broken(path: Path, why: str) -> SsondoError:
    return SsondoError(f"{path}: this zip archive is incomplete ({why}); delete it and download it again")


def _list_zip(parts: tuple[Path, ...]) -> dict[str, ZipMember]:
    archive = Span.of(parts)
    broken = partial(_broken, parts[-1])
    n_disks, n_entries, disk, size, offset = _end(archive, broken)
    if n_disks > 1 and n_disks != len(parts):
        raise SsondoError(f"{parts[-1]}: the last of {n_disks} parts, and {len(parts)} are here; download the others")
    bases = _bases(archive, n_disks)
    table = archive.read(bases[disk] + offset, size) if disk < len(bases) else b""
    members = {}
    for entry in _entries(table, n_entries, broken):
        if entry.disk >= len(bases):
            raise broken("its table of contents is damaged")
        if entry.flags & 1:
            raise SsondoError(f"{parts[-1]}: its files are encrypted; unpack it")
        name = _clean(entry.name)
        if name is not None and not entry.name.endswith("/"):
            place = bases[entry.disk] + entry.offset
            members[name] = ZipMember(archive, place, entry.packed_size, entry.size, entry.method, entry.crc)
    return members


def _bases(archive: Span, n_disks: int) -> tuple[int, ...]:
    """Return the offsets that the table of contents refers to: of each file of a split archive, else of the first."""
    return archive.starts if n_disks > 1 else archive.starts[:1]


class _Entry(NamedTuple):
    """An entry of the table of contents."""

    name: str
    flags: int
    method: int
    crc: int
    packed_size: int
    size: int
    disk: int
    offset: int


def _entries(table: bytes, n_entries: int, broken: Callable[[str], SsondoError]) -> Iterator[_Entry]:
    place = 0
    for _ in range(n_entries):
        fixed = table[place : place + _ENTRY.size]
        if len(fixed) < _ENTRY.size or fixed[:4] != b"PK\1\2":
            raise broken("its table of contents is damaged")
        _, _, _, flags, method, _, _, crc, packed, size, n_name, n_extra, n_comment, disk, _, _, offset = _ENTRY.unpack(
            fixed
        )
        place += _ENTRY.size
        name = table[place : place + n_name].decode("utf-8" if flags & 0x800 else "cp437", "replace")
        extra = table[place + n_name : place + n_name + n_extra]
        place += n_name + n_extra + n_comment
        yield _large(_Entry(name, flags, method, crc, packed, size, disk, offset), extra)


def _end(archive: Span, broken: Callable[[str], SsondoError]) -> tuple[int, int, int, int, int]:
    """Read the end record: number of disks and entries, and disk, size and offset of the table of contents."""
    first = max(0, archive.size - _LONGEST_COMMENT - _END.size)
    tail = archive.read(first, archive.size - first)
    place = tail.rfind(b"PK\5\6")
    if place < 0 or len(tail) - place < _END.size:
        raise broken("its end is missing")
    _, last_disk, disk, _, n_entries, size, offset, _ = _END.unpack_from(tail, place)
    locator = archive.read(max(0, first + place - _LOCATOR64.size), _LOCATOR64.size)
    if locator[:4] == b"PK\6\7":
        _, end_disk, end_offset, n_disks = _LOCATOR64.unpack(locator)
        bases = _bases(archive, n_disks)
        record = archive.read(bases[end_disk] + end_offset, _END64.size) if end_disk < len(bases) else b""
        if record[:4] != b"PK\6\6" or len(record) < _END64.size:
            raise broken("its end is damaged")
        _, _, _, _, last_disk, disk, _, n_entries, size, offset = _END64.unpack(record)
    return last_disk + 1, n_entries, disk, size, offset


def _large(entry: _Entry, extra: bytes) -> _Entry:
    """Return the entry with the numbers that need 64 bits taken from its zip64 field."""
    place = 0
    while place + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, place)
        field = extra[place + 4 : place + 4 + length]
        place += 4 + length
        if kind != 1:
            continue
        for name in ("size", "packed_size", "offset"):
            if getattr(entry, name) == 0xFFFFFFFF and len(field) >= 8:
                entry = _Entry(**{**entry._asdict(), name: int.from_bytes(field[:8], "little")})
                field = field[8:]
        if entry.disk == 0xFFFF and len(field) >= 4:
            entry = entry._replace(disk=int.from_bytes(field[:4], "little"))
    return entry


# tar


@contextmanager
def _as_damage(path: Path) -> Iterator[None]:
    try:
        yield
    except (EOFError, gzip.BadGzipFile, zlib.error, tarfile.TarError) as error:
        raise SsondoError(
            f"{path}: this archive is damaged or truncated ({error}); delete it and download it again"
        ) from None


def _walk(path: Path) -> Iterator[tuple[tarfile.TarInfo, Callable[[], bytes]]]:
    """Yield each file of a tar archive and a function that reads it, valid until the next file is requested."""
    with path.open("rb") as file:
        packed = file.read(2) == _GZIP
    # The reader of gzip verifies the checksum at the end, that of tarfile does not.
    with (
        gzip.open(path) if packed else path.open("rb") as stream,
        tarfile.open(fileobj=stream, mode="r|", bufsize=_BLOCK) as tar,
    ):
        while (member := tar.next()) is not None:
            if member.isfile():
                yield member, partial(_content, tar, member)
            # Otherwise tarfile would keep the header of each of 300,000 files in memory.
            tar.members = []  # type: ignore[attr-defined]
        while stream.read(_BLOCK):
            pass


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    assert file is not None
    return file.read()


def _list_tar(path: Path, lists: Collection[str]) -> dict[str, tuple[Member, bytes | None]]:
    found: dict[str, tuple[Member, bytes | None]] = {}
    log.info("reading the names in %s (%.1f GB)", path, path.stat().st_size / 1e9)
    with _as_damage(path):
        for position, (member, read) in enumerate(_walk(path)):
            if (name := _clean(member.name)) is not None:
                found[name] = TarMember(path, position), read() if _is_list(name, lists) else None
    return found


def read_tar(path: Path, positions: Collection[int]) -> Iterator[bytes]:
    """Yield the content of the files at `positions`, in the order of the archive.

    Raises:
        SsondoError: If the archive is damaged.
    """
    selected = set(positions)
    with _as_damage(path):
        for position, (_, read) in enumerate(_walk(path)):
            if position in selected:
                yield read()
