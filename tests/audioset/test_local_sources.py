"""A lab's own copy in every form: folder, HDF5 packs, parquet, WebDataset tars."""

import csv
import errno
import io
import json
import logging
import os
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import soundfile

from ssondo.audio.codec import decode_flac_mono
from ssondo.audio.decoders import ffmpeg_binary
from ssondo.audioset.fetch import fetch
from ssondo.audioset.index import index
from ssondo.audioset.locate import locate
from ssondo.audioset.resample import resample
from ssondo.audioset.sources.local import FoundClip, read_located, write_located
from ssondo.errors import SsondoError, TransientError
from ssondo.storage import clip_location
from ssondo.storage.clip_location import ClipLocation, LocationChanged
from ssondo.storage.shards.audio import AudioShard
from ssondo.storage.shards.status import Status
from ssondo.workflow.input_digests import InputDigests

pyarrow = pytest.importorskip("pyarrow")
from pyarrow import parquet  # noqa: E402

RATE = 8_000
# Ids as YouTube has them: some begin with - or _, one looks like a name with times in it.
IDS = ["--PJHxphWEs", "-0RWZT-miFs", "_zz-ZZ_zz_Z", "AaBbCcDdEeF", "Yes_30_40_x", "YYYYYYYYYYY"]
START, END = 30, 40


def tone(n: int) -> np.ndarray:
    """One second of its own pitch for each clip."""
    return 0.5 * np.sin(2 * np.pi * (300 + 150 * n) * np.arange(RATE) / RATE)


def encoded(n: int, container: str = "MP3") -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, tone(n), RATE, format=container)
    return buffer.getvalue()


def by_ffmpeg(n: int, suffix: str, folder: Path) -> bytes:
    """What libsndfile does not write: M4A, WEBM."""
    binary = ffmpeg_binary()
    assert binary is not None
    source, out = folder / f"{n}.wav", folder / f"{n}{suffix}"
    source.write_bytes(encoded(n, "WAV"))
    subprocess.run([binary, "-v", "error", "-y", "-i", str(source), str(out)], check=True)
    return out.read_bytes()


def lists(folder: Path, clips: list[str] = IDS, n_shards: int = 2) -> Path:
    """The index of a corpus that has the clips, the last one for evaluation."""
    folder.mkdir(exist_ok=True)
    for name, part in (("train", clips[:-1]), ("eval", clips[-1:])):
        text = "# YTID, start_seconds, end_seconds, positive_labels\n"
        (folder / f"{name}.in").write_text(text + "".join(f"{clip}, {START}, {END}, \n" for clip in part))
    index(
        train=[str(folder / "train.in")],
        eval=[str(folder / "eval.in")],
        classes="",
        n_train_shards=n_shards,
        n_eval_shards=1,
        out=folder / "index",
    )
    return folder / "index"


def imported(
    folder: Path, source: dict, n_shards: int = 2, clips: list[str] = IDS
) -> dict[str, tuple[str, str, float]]:
    """Locate, fetch and resample all shards: status, reason and pitch in Hz of each clip."""
    index_folder = lists(folder, clips, n_shards)
    locate(index=index_folder, source=source, n_train_shards=n_shards, n_eval_shards=1, out=folder / "located")
    found = {}
    for name in [*(f"train-{n:04d}" for n in range(n_shards)), "eval-0000"]:
        fetched, out = folder / "fetched" / f"{name}.h5", folder / "audio" / f"{name}.h5"
        located = folder / "located" / f"{name}.csv"
        fetch(segments=index_folder / f"{name}.csv", out=fetched, source=source, located=located, max_failed_share=1.0)
        resample(audio=fetched, out=out, sample_rate=RATE, clip_s=1.0)
        with AudioShard(out) as shard:
            for row, clip in enumerate(shard.clip_ids):
                sound = decode_flac_mono(shard.blob(row)) if shard.status[row] == Status.OK else np.zeros(RATE)
                pitch = float(np.abs(np.fft.rfft(sound)).argmax())
                found[clip] = (Status(shard.status[row]).name, shard.reasons[row], pitch)
    return found


def heard(found: dict[str, tuple[str, str, float]]) -> dict[str, float]:
    """The pitch of the clips that are there."""
    return {clip: round(pitch, -1) for clip, (status, _, pitch) in found.items() if status == "OK"}


ALL = {clip: float(300 + 150 * n) for n, clip in enumerate(IDS)}


# One copy in each form. Each holds every clip, a clip that no list has, and something that is no clip.


def as_folder(folder: Path) -> dict:
    names = ["Y{}.wav", "a/b/{}.flac", "c/{}_30.000_40.000.m4a", "{}_30000.ogg", "{}.webm", "d/Y{}_30-40.MP3"]
    for n, (clip, name) in enumerate(zip(IDS, names, strict=True)):
        file = folder / name.format(clip)
        file.parent.mkdir(parents=True, exist_ok=True)
        suffix = file.suffix.lower()
        file.write_bytes(
            by_ffmpeg(n, suffix, folder.parent) if suffix in (".m4a", ".webm") else encoded(n, suffix[1:].upper())
        )
    (folder / "other_clip_.wav").write_bytes(encoded(9, "WAV"))
    (folder / f"{IDS[0]}.json").write_text("{}")
    return {"kind": "folder", "path": str(folder)}


def as_mp3_packs(folder: Path) -> dict:
    for number, part in enumerate((range(4), range(4, 7))):
        with h5py.File(folder / f"part{number}_mp3.hdf", "w") as pack:
            names = [f"{IDS[n]}.mp3" if n < 6 else "other_clip_.mp3" for n in part]
            pack["audio_name"] = np.array([name.encode() for name in names], dtype="S20")
            column = pack.create_dataset("mp3", (len(names),), dtype=h5py.vlen_dtype(np.dtype("uint8")))
            for row, n in enumerate(part):
                column[row] = np.frombuffer(encoded(n), dtype="uint8")
            pack["target"] = np.zeros((len(names), 66), dtype="uint8")
    return {"kind": "hdf5", "path": str(folder)}


def as_waveform_pack(folder: Path) -> dict:
    with h5py.File(folder / "balanced.h5", "w") as pack:
        names = [f"Y{clip}.wav" for clip in IDS] + ["", "Yother_clip_.wav"]
        pack["audio_name"] = np.array([name.encode() for name in names], dtype="S20")
        waveforms = np.stack([tone(n) for n in range(len(names))])
        pack.create_dataset("waveform", data=np.round(waveforms * 32767).astype("i2"), compression="gzip")
        pack.attrs["sample_rate"] = np.int32(RATE)
    return {"kind": "hdf5", "path": str(folder / "*.h5")}


def as_parquet(folder: Path) -> dict:
    cells = [{"bytes": encoded(n, "FLAC"), "path": f"{n:05d}.flac"} for n in range(7)]
    ids = [*IDS, "other_clip_"]
    for number, rows in enumerate((slice(0, 3), slice(3, 7))):
        table = pyarrow.table({"video_id": ids[rows], "audio": cells[rows], "labels": [["/m/1"]] * len(ids[rows])})
        parquet.write_table(table, folder / f"train-{number:05d}.parquet", row_group_size=2)
    return {"kind": "parquet", "path": str(folder)}


def as_tars(folder: Path) -> dict:
    for number, part in enumerate((range(3), range(3, 7))):
        with tarfile.open(folder / f"{number:05d}.tar", "w") as tar:
            for n in part:
                clip = IDS[n] if n < 6 else "other_clip_"
                for name, data in ((f"{clip}.flac", encoded(n, "FLAC")), (f"{clip}.json", b'{"x": 1}')):
                    member = tarfile.TarInfo(name)
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    return {"kind": "webdataset", "path": str(folder)}


FORMS = [as_folder, as_mp3_packs, as_waveform_pack, as_parquet, as_tars]


@pytest.fixture(params=FORMS, ids=lambda form: form.__name__)
def copy(request: pytest.FixtureRequest, tmp_path: Path) -> dict:
    (tmp_path / "copy").mkdir()
    return request.param(tmp_path / "copy")


def test_every_form_gives_every_clip_its_own_sound(tmp_path: Path, copy: dict) -> None:
    assert heard(imported(tmp_path / "work", copy)) == ALL


def test_nothing_is_copied_that_can_be_read_in_place(tmp_path: Path, copy: dict) -> None:
    imported(tmp_path / "work", copy)
    sizes = {path.stem: 0 for path in (tmp_path / "work" / "fetched").glob("*.h5")}
    for name in sizes:
        with AudioShard(tmp_path / "work" / "fetched" / f"{name}.h5") as shard:
            sizes[name] = sum(len(shard.blob(row)) for row in range(len(shard)))
    assert set(sizes.values()) == {0}
    unpacked = list((tmp_path / "work").rglob("*.sound"))
    # Parquet cannot be read at any place; it is unpacked once.
    assert bool(unpacked) == (copy["kind"] == "parquet")


def test_what_is_missing_is_said_and_listed(tmp_path: Path, copy: dict, caplog: pytest.LogCaptureFixture) -> None:
    wanted = [*IDS, "not_there_1"]
    with caplog.at_level(logging.INFO):
        found = imported(tmp_path / "work", copy, clips=wanted)
    assert found["not_there_1"][:2] == ("UNAVAILABLE", "no file")
    assert heard(found) == ALL
    with (tmp_path / "work" / "located" / "missing.csv").open() as file:
        assert list(csv.reader(file)) == [["split", "ytid"], ["eval", "not_there_1"]]
    summary = json.loads((tmp_path / "work" / "located" / "summary.json").read_text())
    assert (summary["clips"], summary["found"], summary["not_in_the_lists"]) == (7, 6, 1)
    assert summary["missing"] == {"train": 0, "eval": 1}
    assert any("1 of 7 clips are not in" in record.message for record in caplog.records)


def test_a_copy_of_other_clips_is_a_fault(tmp_path: Path, copy: dict) -> None:
    with pytest.raises(SsondoError, match=r"none of its 7 names is a clip of the segment lists") as caught:
        imported(tmp_path / "work", copy, clips=["aaaaaaaaaaa", "bbbbbbbbbbb"])
    assert "\n" not in str(caught.value)


def test_the_number_of_shards_is_no_matter(tmp_path: Path, copy: dict) -> None:
    assert heard(imported(tmp_path / "work", copy, n_shards=5)) == ALL


def test_clips_are_copied_where_that_is_asked_for(tmp_path: Path, copy: dict) -> None:
    work = tmp_path / "work"
    imported(work, {**copy, "copy_clips": True})
    (tmp_path / "copy").rename(tmp_path / "elsewhere")
    for path in (work / "fetched").glob("*.h5"):
        resample(audio=path, out=work / "again" / path.name, sample_rate=RATE, clip_s=1.0)
        assert (work / "again" / f"{path.name}.digest").read_text() == (
            work / "audio" / f"{path.name}.digest"
        ).read_text()


def test_sound_that_went_away_is_a_fault_not_a_shard_of_nothing(tmp_path: Path, copy: dict) -> None:
    work = tmp_path / "work"
    imported(work, copy)
    for folder in (tmp_path / "copy", work / "located" / "unpacked"):
        if folder.exists():
            folder.rename(folder.with_name("elsewhere"))
    with pytest.raises(LocationChanged, match=r"no longer exists; .*--forcerun locate fetch"):
        resample(audio=work / "fetched" / "eval-0000.h5", out=work / "x.h5", sample_rate=RATE, clip_s=1.0)
    assert not (work / "x.h5").exists()


def test_a_newer_copy_changes_the_digest_where_sound_is_read_in_place(tmp_path: Path, copy: dict) -> None:
    work = tmp_path / "work"
    imported(work, copy)
    before = (work / "fetched" / "eval-0000.h5.digest").read_text()
    imported(work, copy)
    assert (work / "fetched" / "eval-0000.h5.digest").read_text() == before
    for path in (tmp_path / "copy").rglob("*.*"):
        os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 10**9))
    imported(work, copy)
    after = (work / "fetched" / "eval-0000.h5.digest").read_text()
    # Sound that is read in place may be other sound now; parquet's is unpacked, and seen to be the same.
    assert (after == before) == (copy["kind"] == "parquet")


# What is odd about each form


def test_a_file_that_was_cut_since_it_was_noted_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    imported(tmp_path / "work", as_folder(tmp_path / "copy"))
    file = next((tmp_path / "copy").rglob("*YYYYYYYYYYY*"))
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(LocationChanged, match="has 100 bytes, but had"):
        resample(audio=tmp_path / "work/fetched/eval-0000.h5", out=tmp_path / "x.h5", sample_rate=RATE, clip_s=1.0)


def test_a_pack_that_was_cut_since_it_was_noted_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    imported(tmp_path / "work", as_mp3_packs(tmp_path / "copy"))
    for pack in clip_location._packs.values():  # a later job opens them anew
        pack.close()
    clip_location._packs.clear()
    for path in (tmp_path / "copy").iterdir():
        path.write_bytes(path.read_bytes()[:5_000])
    with pytest.raises(LocationChanged, match="has 5000 bytes, but had"):
        resample(audio=tmp_path / "work/fetched/eval-0000.h5", out=tmp_path / "x.h5", sample_rate=RATE, clip_s=1.0)


def test_a_file_without_permission_or_sound_is_a_failed_clip(tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    source = as_folder(tmp_path / "copy")
    (tmp_path / "copy" / f"Y{IDS[0]}.wav").unlink()
    (tmp_path / "copy" / f"Y{IDS[0]}.wav").symlink_to("nowhere")
    (tmp_path / "copy" / "a" / "b" / f"{IDS[1]}.flac").write_bytes(b"")
    found = imported(tmp_path / "work", source)
    assert found[IDS[0]][:2] == ("FAILED", "cannot be read")
    assert found[IDS[1]][:2] == ("FAILED", "empty file")
    assert len(heard(found)) == 4


def test_sound_that_may_not_be_read_now_stops_the_job_and_makes_no_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "copy").mkdir()
    imported(tmp_path / "work", as_folder(tmp_path / "copy"))
    file = next((tmp_path / "copy").rglob("*YYYYYYYYYYY*"))
    read = Path.open

    def refuse(path: Path, *args: Any, **kwargs: Any) -> Any:
        if path.name == file.name:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return read(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", refuse)  # the superuser, as whom tests may run, may read all
    fetched, out = tmp_path / "work/fetched/eval-0000.h5", tmp_path / "x.h5"
    with pytest.raises(TransientError, match=rf"{file.name}: cannot be read \(Permission denied\); check the disk"):
        resample(audio=fetched, out=out, sample_rate=RATE, clip_s=1.0)
    assert not out.exists()
    monkeypatch.undo()
    resample(audio=fetched, out=out, sample_rate=RATE, clip_s=1.0)
    assert out.exists()


@pytest.mark.parametrize("pattern", ["", "/**/*.hdf"])
def test_a_folder_that_cannot_be_listed_is_a_fault_not_an_empty_one(tmp_path: Path, pattern: str) -> None:
    (tmp_path / "copy" / "a").mkdir(parents=True)
    source = as_mp3_packs(tmp_path / "copy" / "a")
    # No permission is denied to root; a path can be too long for anybody.
    for _ in range(17):
        (tmp_path / "around").mkdir()
        (tmp_path / "copy").rename(tmp_path / "around" / ("x" * 250))
        (tmp_path / "around").rename(tmp_path / "copy")
    as_mp3_packs(tmp_path / "copy")
    source["path"] = str(tmp_path / "copy") + pattern
    with pytest.raises(SsondoError, match=r"x: this folder cannot be listed \(File name too long\), so all files"):
        imported(tmp_path / "work", source)
    with pytest.raises(SsondoError, match="this folder cannot be listed"):
        imported(tmp_path / "work", {"kind": "folder", "path": str(tmp_path / "copy")})
    with pytest.raises(SsondoError, match="this folder cannot be listed"):
        InputDigests(tmp_path / "digests.json").tree(str(tmp_path / "copy"))


def test_a_pack_needs_a_sample_rate_for_its_waveforms(tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    source = as_waveform_pack(tmp_path / "copy")
    with h5py.File(tmp_path / "copy" / "balanced.h5", "a") as pack:
        del pack.attrs["sample_rate"]
    with pytest.raises(SsondoError, match=r"set audioset\.source\.sample_rate \(PANNs: 32000\)"):
        imported(tmp_path / "work", source)
    assert heard(imported(tmp_path / "work", {**source, "sample_rate": RATE})) == ALL


def test_an_empty_row_of_a_pack_is_a_failed_clip(tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    source = as_mp3_packs(tmp_path / "copy")
    with h5py.File(tmp_path / "copy" / "part0_mp3.hdf", "a") as pack:
        pack["mp3"][0] = np.zeros(0, dtype="uint8")
        pack["mp3"][1] = np.frombuffer(b"<html>no such video</html>", dtype="uint8")
    found = imported(tmp_path / "work", source)
    assert found[IDS[0]][:2] == ("FAILED", "empty file")
    assert found[IDS[1]][:2] == ("FAILED", "not audio (begins with b'<html>no suc')")
    assert len(heard(found)) == 4


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            {"name": np.zeros(2)},
            "not a pack of clips; it has the columns name, expected audio_name and mp3",
        ),
        ({"audio_name": np.zeros(2, "S9"), "waveform": np.zeros((3, 9), "i2")}, "2 names for 3 rows of waveform"),
        ({"audio_name": np.zeros(2, "S9"), "waveform": np.zeros((2, 9), "i4")}, "is int32 .*; expected .* of int16"),
        ({"audio_name": np.zeros(2, "S9"), "waveform": np.zeros((2, 2, 9))}, r"of shape \(2, 2, 9\); expected \(clips"),
        (None, "not a readable HDF5 file"),
    ],
)
def test_a_file_that_is_no_pack_is_named(tmp_path: Path, content: dict | None, words: str) -> None:
    pack = tmp_path / "pack.h5"
    if content is None:
        pack.write_bytes(b"no HDF5")
    else:
        with h5py.File(pack, "w") as file:
            file.update(content)
    with pytest.raises(SsondoError, match=words):
        imported(tmp_path / "work", {"kind": "hdf5", "path": str(pack)})


def test_a_second_search_of_parquet_reads_only_what_changed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "copy").mkdir()
    source = as_parquet(tmp_path / "copy")
    with caplog.at_level(logging.INFO, "ssondo.audioset.sources.parquet"):
        imported(tmp_path / "work", source, clips=IDS[:4])
        assert [record.message.split(": ")[1] for record in caplog.records] == [
            "unpacked 3 of 3 clips",
            "unpacked 1 of 4 clips",
        ]
        caplog.clear()
        imported(tmp_path / "work", source, clips=IDS[:4])
        assert not caplog.records
        # More clips are wanted of the second file alone.
        assert heard(imported(tmp_path / "work", source)) == ALL
        assert [record.message.split(": ")[1] for record in caplog.records] == ["unpacked 3 of 4 clips"]


@pytest.mark.parametrize(
    "columns",
    [
        {"file_name": [f"{clip}.flac" for clip in IDS]},
        {"id": [str(n) for n in range(len(IDS))]},
        {"id": [*IDS[:3], "x", "y", "z"]},
    ],
    ids=["file names", "row numbers", "ids of some"],
)
def test_a_longer_list_finds_rows_of_parquet_by_whichever_name_they_have(tmp_path: Path, columns: dict) -> None:
    cells = [{"bytes": encoded(n, "FLAC"), "path": f"{clip}.flac"} for n, clip in enumerate(IDS)]
    parquet.write_table(pyarrow.table({**columns, "audio": cells}), tmp_path / "0.parquet")
    source = {"kind": "parquet", "path": str(tmp_path)}
    first = [IDS[0], IDS[3]]
    assert heard(imported(tmp_path / "work", source, clips=first)) == {clip: ALL[clip] for clip in first}
    assert heard(imported(tmp_path / "work", source)) == ALL
    assert heard(imported(tmp_path / "work", source, clips=IDS[1:])) == {clip: ALL[clip] for clip in IDS[1:]}


def test_notes_of_an_earlier_form_beside_unpacked_parquet_are_made_again(tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    source = as_parquet(tmp_path / "copy")
    imported(tmp_path / "work", source)
    for notes in (tmp_path / "work/located/unpacked").glob("*.json"):
        known = json.loads(notes.read_text())
        del known["form"]
        # One name a row, and the first row passed over.
        known["rows"] = [[row[0][0], *row[1:]] for row in known["rows"]]
        known["rows"][0] = ["0", 0, 0, "", "", False]
        notes.write_text(json.dumps(known))
    assert heard(imported(tmp_path / "work", source)) == ALL


def test_parquet_of_other_columns_of_bytes_and_of_files_beside_it(tmp_path: Path) -> None:
    (tmp_path / "copy" / "sounds").mkdir(parents=True)
    cells = [{"bytes": None, "path": f"sounds/{clip}.flac"} for clip in IDS]
    for n, clip in enumerate(IDS[:-1]):
        (tmp_path / "copy" / "sounds" / f"{clip}.flac").write_bytes(encoded(n, "FLAC"))
    parquet.write_table(pyarrow.table({"audio": cells}), tmp_path / "copy" / "0.parquet")
    found = imported(tmp_path / "a", {"kind": "parquet", "path": str(tmp_path / "copy")})
    assert found[IDS[-1]][:2] == ("UNAVAILABLE", "no file")
    assert heard(found) == {clip: ALL[clip] for clip in IDS[:-1]}
    table = pyarrow.table({"name": [f"Y{clip}.wav" for clip in IDS], "flac": [encoded(n, "FLAC") for n in range(6)]})
    parquet.write_table(table, tmp_path / "1.parquet")
    source = {"kind": "parquet", "path": str(tmp_path / "1.parquet"), "audio_column": "flac", "id_column": "name"}
    assert heard(imported(tmp_path / "b", source)) == ALL
    with pytest.raises(SsondoError, match=r"has no column 'audio'; set audioset\.source\.audio_column to one of"):
        imported(tmp_path / "c", {"kind": "parquet", "path": str(tmp_path / "1.parquet")})


def test_without_pyarrow_the_way_out_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "0.parquet").write_bytes(b"")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(SsondoError, match=r"needs the package pyarrow; pip install '\.\[parquet\]'"):
        imported(tmp_path / "work", {"kind": "parquet", "path": str(tmp_path)})


def test_the_id_may_stand_in_the_json_of_a_sample(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for n, clip in enumerate(IDS):
            for name, data in (
                (f"{n:09d}.json", json.dumps({"ytid": clip}).encode()),
                (f"{n:09d}.flac", encoded(n, "FLAC")),
            ):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    source = {"kind": "webdataset", "path": str(tmp_path / "*.tar")}
    assert heard(imported(tmp_path / "work", {**source, "id_key": "ytid"})) == ALL
    with pytest.raises(SsondoError, match=r"has no 'id'; set audioset\.source\.id_key"):
        imported(tmp_path / "work", {**source, "id_key": "id"})


def test_a_tar_that_was_cut_gives_what_is_before_the_cut(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "copy").mkdir()
    source = as_tars(tmp_path / "copy")
    file = tmp_path / "copy" / "00001.tar"
    with tarfile.open(file) as tar:
        member = tar.getmember(f"{IDS[5]}.flac")
    file.write_bytes(file.read_bytes()[: member.offset_data + 100])
    found = imported(tmp_path / "work", source)
    assert heard(found) == {clip: ALL[clip] for clip in IDS[:5]}
    assert any("cut short" in record.message for record in caplog.records)


def test_a_compressed_tar_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "0.tar", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("a"))
    with pytest.raises(SsondoError, match=r"not a plain tar file .*; unpack a compressed one first"):
        imported(tmp_path / "work", {"kind": "webdataset", "path": str(tmp_path)})


@pytest.mark.parametrize("kind", ["hdf5", "parquet", "webdataset"])
def test_a_path_with_nothing_in_it_is_named(tmp_path: Path, kind: str) -> None:
    with pytest.raises(SsondoError, match=r"audioset\.source\.path: .* contains no"):
        imported(tmp_path / "work", {"kind": kind, "path": str(tmp_path)})


def test_places_of_any_name_are_read_as_they_were_written(tmp_path: Path) -> None:
    places = {
        "a": FoundClip(ClipLocation("/a,b\\n/c\nd|e.wav"), True),
        'quoted, "id"': FoundClip(ClipLocation(os.fsdecode(b"/\xff\xfe.wav"), "7+12", "5-6"), False),
    }
    write_located(tmp_path / "x.csv", places)
    assert read_located(tmp_path / "x.csv") == places


def test_locating_says_who_is_no_copy(tmp_path: Path) -> None:
    call: Callable[..., None] = locate
    with pytest.raises(SsondoError, match="renderer is not a local copy"):
        call(index=tmp_path, source={"kind": "renderer"}, n_train_shards=1, n_eval_shards=1, out=tmp_path)
