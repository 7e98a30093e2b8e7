import io
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
import tasks_replicas as replicas

from ssondo.errors import SsondoError
from ssondo.tasks.archives import TarMember, ZipMember, find_archives, list_archive, read_tar
from ssondo.tasks.files import Files

CONTENT = {f"top/folder/{number:03d}.bin": bytes([number]) * (1 + 97 * number) for number in range(120)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write files to pack: numbered ones, a list, and the metadata files that macOS adds."""
    files = {**CONTENT, "top/list.csv": b"a,b\n1,2\n", "top/._list.csv": b"mac", "__MACOSX/top/x.bin": b"mac"}
    for name, data in files.items():
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(data)
    (tmp_path / "out").mkdir()
    return tmp_path / "in"


def write(folder: Path, **files: bytes) -> Path:
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Return the content of the files in all archives of a folder, by name."""
    files = {}
    for parts in find_archives(folder):
        members = {}
        for name, (member, data) in list_archive(parts, ["list.csv"]).items():
            assert (data is not None) == name.endswith("list.csv")
            if isinstance(member, ZipMember):
                files[name] = member.read_bytes()
            else:
                members[member.position] = name
        if members:
            files |= dict(zip([members[i] for i in sorted(members)], read_tar(parts[0], list(members)), strict=True))
    return files


EXPECTED = {**CONTENT, "top/list.csv": b"a,b\n1,2\n"}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_split_zip_is_read_as_one_archive(folder: Path, n: int, method: int) -> None:
    out = folder.parent / "out"
    *first, last = replicas.split_zip(replicas.zipped(folder, ["top", "__MACOSX"], method), n)
    assert len(first) == n - 1
    write(out, **{f"x.z{number:02d}": data for number, data in enumerate(first, start=1)}, **{"x.zip": last})
    assert contents(out) == EXPECTED


@pytest.mark.parametrize("n", [2, 3])
def test_zip_in_pieces_is_read_as_one_archive(folder: Path, n: int) -> None:
    pieces = replicas.in_pieces(replicas.zipped(folder, ["top", "__MACOSX"]), n)
    write(folder.parent / "out", **{f"x.zip.{number:03d}": data for number, data in enumerate(pieces, start=1)})
    assert contents(folder.parent / "out") == EXPECTED


@pytest.mark.skipif(shutil.which("zip") is None, reason="needs the zip program")
@pytest.mark.parametrize(
    "options", [["-0"], ["-6"], ["-0", "-s", "64k"], ["-6", "-s", "64k"], ["-0", "-fz"], ["-0", "-fz", "-s", "64k"]]
)
def test_archives_of_the_zip_program_are_read(folder: Path, options: list[str]) -> None:
    noise = folder / "top/folder/noise.bin"
    noise.write_bytes(replicas.np.random.default_rng(0).bytes(300_000))
    subprocess.run(["zip", "-q", "-r", *options, folder.parent / "out/x.zip", "top"], cwd=folder, check=True)
    parts = sorted(path.name for path in (folder.parent / "out").iterdir())
    assert len(parts) > 4 if "-s" in options else parts == ["x.zip"]
    assert contents(folder.parent / "out") == {**EXPECTED, "top/folder/noise.bin": noise.read_bytes()}


def test_zip_with_64_bit_offsets_is_read(folder: Path) -> None:
    with zipfile.ZipFile(folder.parent / "out/x.zip", "w") as archive:
        for name, data in CONTENT.items():
            with archive.open(name, "w", force_zip64=True) as file:
                file.write(data)
        # More entries than a 16-bit number can count.
        for number in range(66_000):
            archive.writestr(f"n/{number}", b"")
    files = list_archive((folder.parent / "out/x.zip",), [])
    assert len(files) == len(CONTENT) + 66_000
    assert {name: files[name][0].read_bytes() for name in CONTENT} == CONTENT  # type: ignore[union-attr]


@pytest.mark.parametrize(("name", "mode"), [("x.tar", "w"), ("x.tar.gz", "w:gz"), ("x.tgz", "w:gz")])
def test_tar_gives_every_file_under_its_name(folder: Path, name: str, mode: str) -> None:
    write(folder.parent / "out", **{name: replicas.tarred(folder, ["top", "__MACOSX"], mode)})
    assert contents(folder.parent / "out") == EXPECTED


def test_selected_files_of_a_tar_are_returned_in_its_order(folder: Path) -> None:
    path = write(folder.parent / "out", **{"x.tgz": replicas.tarred(folder, ["top"])}) / "x.tgz"
    members = {name: member for name, (member, _) in list_archive((path,), []).items()}
    chosen = sorted((m.position, name) for name, m in members.items() if isinstance(m, TarMember) and "7" in name)
    assert [name for _, name in chosen] != sorted(name for _, name in chosen)
    assert list(read_tar(path, [position for position, _ in chosen])) == [CONTENT[name] for _, name in chosen]


def test_message_for_a_missing_part_names_it(folder: Path) -> None:
    out = folder.parent / "out"
    parts = replicas.split_zip(replicas.zipped(folder, ["top"]), 4)
    write(out, **{f"x.z{n:02d}": data for n, data in enumerate(parts[:3], start=1)})
    with pytest.raises(SsondoError, match=r"x\.zip is missing, the last part of the archive of x\.z01"):
        contents(out)
    write(out, **{"x.zip": parts[3]})
    (out / "x.z03").unlink()
    with pytest.raises(SsondoError, match=r"x\.zip: the last of 4 parts, and 3 are here"):
        contents(out)
    (out / "x.z01").unlink()
    with pytest.raises(SsondoError, match=r"part 1 of the archive of x\.z02 is missing"):
        contents(out)


@pytest.mark.parametrize("cut", [1, 50, 2000])
def test_truncated_zip_fails(folder: Path, cut: int) -> None:
    data = replicas.zipped(folder, ["top"])
    write(folder.parent / "out", **{"x.zip": data[:-cut]})
    with pytest.raises(SsondoError, match=r"x\.zip: this zip archive is incomplete .*download it again"):
        contents(folder.parent / "out")


@pytest.mark.parametrize("cut", [1, 50, 5000])
def test_truncated_tar_fails(folder: Path, cut: int) -> None:
    (folder / "top/noise.bin").write_bytes(replicas.np.random.default_rng(0).bytes(30_000))
    data = replicas.tarred(folder, ["top"])
    write(folder.parent / "out", **{"x.tar.gz": data[:-cut]})
    with pytest.raises(SsondoError, match=r"x\.tar\.gz: this archive is damaged or truncated .*download it again"):
        contents(folder.parent / "out")


def test_changed_byte_in_a_tar_fails(folder: Path) -> None:
    data = bytearray(replicas.tarred(folder, ["top"]))
    data[-6] ^= 1  # A byte of the checksum at the end.
    write(folder.parent / "out", **{"x.tar.gz": bytes(data)})
    with pytest.raises(SsondoError, match=r"x\.tar\.gz: this archive is damaged"):
        contents(folder.parent / "out")


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_changed_byte_in_a_zip_affects_one_file_only(folder: Path, method: int) -> None:
    data = bytearray(replicas.zipped(folder, ["top"], method))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        info = archive.getinfo("top/folder/100.bin")
    data[info.header_offset + 30 + len(info.filename) + info.compress_size // 2] ^= 0x55
    write(folder.parent / "out", **{"x.zip": bytes(data)})
    files = list_archive((folder.parent / "out/x.zip",), [])
    damaged = files.pop("top/folder/100.bin")[0]
    with pytest.raises(SsondoError, match="damaged in its archive"):
        damaged.read_bytes()  # type: ignore[union-attr]
    assert all(member.read_bytes() == EXPECTED[name] for name, (member, _) in files.items())  # type: ignore[union-attr]


def test_message_for_an_encrypted_zip_says_what_to_do(folder: Path) -> None:
    data = bytearray(replicas.zipped(folder, ["top"]))
    entry = data.find(b"PK\1\2")
    data[entry + 8] |= 1
    write(folder.parent / "out", **{"x.zip": bytes(data)})
    with pytest.raises(SsondoError, match="encrypted; unpack it"):
        contents(folder.parent / "out")


def test_unpacked_files_take_precedence_over_archives(folder: Path) -> None:
    out = folder.parent / "out"
    write(out, **{"x.zip": replicas.zipped(folder, ["top"])})
    files = Files.find(out, "mine", lists=["list.csv"], folders=["folder"])
    assert files.rows("list.csv", ["a"]) == [{"a": "1", "b": "2"}]
    assert isinstance(files.audio("folder/003.bin"), ZipMember)
    assert files.audio("folder/999.bin") == out / "top/folder/999.bin"
    shutil.copytree(folder / "top", out / "top")
    (out / "x.zip").write_bytes(b"not opened")
    files = Files.find(out, "mine", lists=["list.csv"], folders=["folder"])
    assert files.audio("folder/003.bin") == out / "top/folder/003.bin"


def test_partly_unpacked_data_set_is_read_from_both(folder: Path) -> None:
    out = folder.parent / "out"
    write(out, **{"x.zip": replicas.zipped(folder, ["top"])})
    (out / "top").mkdir()
    (out / "top/list.csv").write_text("a,b\n3,4\n")
    files = Files.find(out, "mine", lists=["list.csv"], folders=["folder"])
    assert files.rows("list.csv", ["a"]) == [{"a": "3", "b": "4"}]
    source = files.audio("folder/003.bin")
    assert isinstance(source, ZipMember)
    assert source.read_bytes() == CONTENT["top/folder/003.bin"]


def test_message_for_an_incomplete_data_set_names_the_missing_file(folder: Path) -> None:
    out = folder.parent / "out"
    with pytest.raises(SsondoError, match=r"out: list\.csv .* task mine does not exist .*set tasks\.mine\.path"):
        Files.find(out, "mine", lists=["list.csv"], folders=["folder", "more"])
    write(out, **{"x.zip": replicas.zipped(folder, ["top"])})
    with pytest.raises(SsondoError, match=r"out: more of .* is neither unpacked nor in x\.zip; set tasks\.mine\.path"):
        Files.find(out, "mine", lists=["list.csv"], folders=["folder", "more"])
    with pytest.raises(SsondoError, match="this folder does not exist"):
        Files.find(out / "nowhere", "mine", lists=["list.csv"], folders=[])
