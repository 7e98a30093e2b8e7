"""Tests of importing a local copy: a folder, HDF5 packs, Parquet files and WebDataset tar files."""

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

from ssondo.audio.codec import decode_mono
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
# Ids of YouTube's form: some begin with - or _, and one looks like a file name that contains times.
IDS = ["--PJHxphWEs", "-0RWZT-miFs", "_zz-ZZ_zz_Z", "AaBbCcDdEeF", "Yes_30_40_x", "YYYYYYYYYYY"]
START, END = 30, 40


def tone(n: int) -> np.ndarray:
    """Return one second of a sine tone whose pitch identifies the clip."""
    return 0.5 * np.sin(2 * np.pi * (300 + 150 * n) * np.arange(RATE) / RATE)


def encoded(n: int, container: str = "MP3") -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, tone(n), RATE, format=container)
    return buffer.getvalue()


def by_ffmpeg(n: int, suffix: str, folder: Path) -> bytes:
    """Encode a clip in a format that libsndfile cannot write: M4A or WEBM."""
    binary = ffmpeg_binary()
    assert binary is not None
    source, out = folder / f"{n}.wav", folder / f"{n}{suffix}"
    source.write_bytes(encoded(n, "WAV"))
    subprocess.run([binary, "-v", "error", "-y", "-i", str(source), str(out)], check=True)
    return out.read_bytes()


def lists(folder: Path, clips: list[str] = IDS, n_shards: int = 2) -> Path:
    """Index a corpus of the given clips, of which the last one is for evaluation."""
    folder.mkdir(exist_ok=True)
    for name, ids in (("train", clips[:-1]), ("eval", clips[-1:])):
        text = "# YTID, start_seconds, end_seconds, positive_labels\n"
        (folder / f"{name}.in").write_text(text + "".join(f"{clip}, {START}, {END}, \n" for clip in ids))
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
    """Locate, fetch and resample all shards; return status, reason and pitch in Hz of each clip."""
    index_folder = lists(folder, clips, n_shards)
    locate(index=index_folder, source=source, n_train_shards=n_shards, n_eval_shards=1, out=folder / "located")
    clip_results = {}
    for name in [*(f"train-{n:04d}" for n in range(n_shards)), "eval-0000"]:
        fetched, out = folder / "fetched" / f"{name}.h5", folder / "audio" / f"{name}.h5"
        located = folder / "located" / f"{name}.csv"
        fetch(segments=index_folder / f"{name}.csv", out=fetched, source=source, located=located, max_failed_share=1.0)
        resample(audio=fetched, out=out, sample_rate=RATE, clip_s=1.0)
        with AudioShard(out) as shard:
            for row, clip in enumerate(shard.clip_ids):
                sound = decode_mono(shard.blob(row), RATE) if shard.status[row] == Status.OK else np.zeros(RATE)
                pitch = float(np.abs(np.fft.rfft(sound)).argmax())
                clip_results[clip] = (Status(shard.status[row]).name, shard.reasons[row], pitch)
    return clip_results


def pitches(clip_results: dict[str, tuple[str, str, float]]) -> dict[str, float]:
    """Return the pitch of each available clip, in Hz, rounded to tens."""
    return {clip: round(pitch, -1) for clip, (status, _, pitch) in clip_results.items() if status == "OK"}


ALL = {clip: float(300 + 150 * n) for n, clip in enumerate(IDS)}


# One copy of each kind. Each contains every clip, a clip that is not listed, and a file or row that is not a clip.


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
    for number, rows in enumerate((range(4), range(4, 7))):
        with h5py.File(folder / f"part{number}_mp3.hdf", "w") as pack:
            names = [f"{IDS[n]}.mp3" if n < 6 else "other_clip_.mp3" for n in rows]
            pack["audio_name"] = np.array([name.encode() for name in names], dtype="S20")
            column = pack.create_dataset("mp3", (len(names),), dtype=h5py.vlen_dtype(np.dtype("uint8")))
            for row, n in enumerate(rows):
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
    for number, rows in enumerate((range(3), range(3, 7))):
        with tarfile.open(folder / f"{number:05d}.tar", "w") as tar:
            for n in rows:
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


def test_every_kind_of_copy_gives_each_clip_its_own_audio(tmp_path: Path, copy: dict) -> None:
    assert pitches(imported(tmp_path / "work", copy)) == ALL


def test_audio_that_can_be_read_in_place_is_not_copied(tmp_path: Path, copy: dict) -> None:
    imported(tmp_path / "work", copy)
    sizes = {path.stem: 0 for path in (tmp_path / "work" / "fetched").glob("*.h5")}
    for name in sizes:
        with AudioShard(tmp_path / "work" / "fetched" / f"{name}.h5") as shard:
            sizes[name] = sum(len(shard.blob(row)) for row in range(len(shard)))
    assert set(sizes.values()) == {0}
    unpacked = list((tmp_path / "work").rglob("*.sound"))
    # Parquet does not allow random access; it is unpacked once.
    assert bool(unpacked) == (copy["kind"] == "parquet")


def test_missing_clips_are_logged_and_listed(tmp_path: Path, copy: dict, caplog: pytest.LogCaptureFixture) -> None:
    listed = [*IDS, "not_there_1"]
    with caplog.at_level(logging.INFO):
        clip_results = imported(tmp_path / "work", copy, clips=listed)
    assert clip_results["not_there_1"][:2] == ("UNAVAILABLE", "no file")
    assert pitches(clip_results) == ALL
    with (tmp_path / "work" / "located" / "missing.csv").open() as file:
        assert list(csv.reader(file)) == [["split", "ytid"], ["eval", "not_there_1"]]
    summary = json.loads((tmp_path / "work" / "located" / "summary.json").read_text())
    assert (summary["clips"], summary["found"], summary["not_in_the_lists"]) == (7, 6, 1)
    assert summary["missing"] == {"train": 0, "eval": 1}
    assert any("1 of 7 clips are not in" in record.message for record in caplog.records)


def test_copy_without_any_listed_clip_is_refused(tmp_path: Path, copy: dict) -> None:
    with pytest.raises(SsondoError, match=r"none of its 7 names is a clip of the segment lists") as caught:
        imported(tmp_path / "work", copy, clips=["aaaaaaaaaaa", "bbbbbbbbbbb"])
    assert "\n" not in str(caught.value)


def test_result_does_not_depend_on_the_number_of_shards(tmp_path: Path, copy: dict) -> None:
    assert pitches(imported(tmp_path / "work", copy, n_shards=5)) == ALL


def test_copy_clips_stores_the_encoded_clips_in_the_shards(tmp_path: Path, copy: dict) -> None:
    work = tmp_path / "work"
    imported(work, {**copy, "copy_clips": True})
    (tmp_path / "copy").rename(tmp_path / "elsewhere")
    for path in (work / "fetched").glob("*.h5"):
        resample(audio=path, out=work / "again" / path.name, sample_rate=RATE, clip_s=1.0)
        assert (work / "again" / f"{path.name}.digest").read_text() == (
            work / "audio" / f"{path.name}.digest"
        ).read_text()


def test_resample_fails_if_the_copy_was_moved_away(tmp_path: Path, copy: dict) -> None:
    work = tmp_path / "work"
    imported(work, copy)
    for folder in (tmp_path / "copy", work / "located" / "unpacked"):
        if folder.exists():
            folder.rename(folder.with_name("elsewhere"))
    with pytest.raises(LocationChanged, match=r"no longer exists; .*--forcerun locate fetch"):
        resample(audio=work / "fetched" / "eval-0000.h5", out=work / "x.h5", sample_rate=RATE, clip_s=1.0)
    assert not (work / "x.h5").exists()


def test_newer_modification_time_changes_the_digest_of_audio_read_in_place(tmp_path: Path, copy: dict) -> None:
    work = tmp_path / "work"
    imported(work, copy)
    before = (work / "fetched" / "eval-0000.h5.digest").read_text()
    imported(work, copy)
    assert (work / "fetched" / "eval-0000.h5.digest").read_text() == before
    for path in (tmp_path / "copy").rglob("*.*"):
        os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 10**9))
    imported(work, copy)
    after = (work / "fetched" / "eval-0000.h5.digest").read_text()
    # Files that are read in place may have changed; unpacked Parquet clips are compared by content.
    assert (after == before) == (copy["kind"] == "parquet")


# Special cases of each kind of copy


def test_file_truncated_after_locate_is_refused(tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    imported(tmp_path / "work", as_folder(tmp_path / "copy"))
    file = next((tmp_path / "copy").rglob("*YYYYYYYYYYY*"))
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(LocationChanged, match="has 100 bytes, but had"):
        resample(audio=tmp_path / "work/fetched/eval-0000.h5", out=tmp_path / "x.h5", sample_rate=RATE, clip_s=1.0)


def test_pack_truncated_after_locate_is_refused(tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    imported(tmp_path / "work", as_mp3_packs(tmp_path / "copy"))
    clip_location._open_pack.cache_clear()  # as in a later job, which opens the packs itself
    for path in (tmp_path / "copy").iterdir():
        path.write_bytes(path.read_bytes()[:5_000])
    with pytest.raises(LocationChanged, match="has 5000 bytes, but had"):
        resample(audio=tmp_path / "work/fetched/eval-0000.h5", out=tmp_path / "x.h5", sample_rate=RATE, clip_s=1.0)


def test_unreadable_and_empty_files_are_failed_clips(tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    source = as_folder(tmp_path / "copy")
    (tmp_path / "copy" / f"Y{IDS[0]}.wav").unlink()
    (tmp_path / "copy" / f"Y{IDS[0]}.wav").symlink_to("nowhere")
    (tmp_path / "copy" / "a" / "b" / f"{IDS[1]}.flac").write_bytes(b"")
    clip_results = imported(tmp_path / "work", source)
    assert clip_results[IDS[0]][:2] == ("FAILED", "cannot be read")
    assert clip_results[IDS[1]][:2] == ("FAILED", "empty file")
    assert len(pitches(clip_results)) == 4


def test_permission_error_in_resample_fails_the_job_and_writes_no_shard(
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

    monkeypatch.setattr(Path, "open", refuse)  # not by chmod: root may read every file
    fetched, out = tmp_path / "work/fetched/eval-0000.h5", tmp_path / "x.h5"
    with pytest.raises(TransientError, match=rf"{file.name}: cannot be read \(Permission denied\); check the disk"):
        resample(audio=fetched, out=out, sample_rate=RATE, clip_s=1.0)
    assert not out.exists()
    monkeypatch.undo()
    resample(audio=fetched, out=out, sample_rate=RATE, clip_s=1.0)
    assert out.exists()


@pytest.mark.parametrize("pattern", ["", "/**/*.hdf"])
def test_folder_that_cannot_be_listed_is_refused(tmp_path: Path, pattern: str) -> None:
    (tmp_path / "copy" / "a").mkdir(parents=True)
    source = as_mp3_packs(tmp_path / "copy" / "a")
    # Root is not subject to permissions, so the folder is made unreadable by a path that is too long.
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


def test_pack_of_waveforms_requires_a_sample_rate(tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    source = as_waveform_pack(tmp_path / "copy")
    with h5py.File(tmp_path / "copy" / "balanced.h5", "a") as pack:
        del pack.attrs["sample_rate"]
    with pytest.raises(SsondoError, match=r"set audioset\.source\.sample_rate \(PANNs: 32000\)"):
        imported(tmp_path / "work", source)
    assert pitches(imported(tmp_path / "work", {**source, "sample_rate": RATE})) == ALL


def test_rows_of_a_pack_without_audio_are_failed_clips(tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    source = as_mp3_packs(tmp_path / "copy")
    with h5py.File(tmp_path / "copy" / "part0_mp3.hdf", "a") as pack:
        pack["mp3"][0] = np.zeros(0, dtype="uint8")
        pack["mp3"][1] = np.frombuffer(b"<html>no such video</html>", dtype="uint8")
    clip_results = imported(tmp_path / "work", source)
    assert clip_results[IDS[0]][:2] == ("FAILED", "empty file")
    assert clip_results[IDS[1]][:2] == ("FAILED", "not audio (begins with b'<html>no suc')")
    assert len(pitches(clip_results)) == 4


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
def test_error_names_the_file_that_is_not_a_pack(tmp_path: Path, content: dict | None, words: str) -> None:
    pack = tmp_path / "pack.h5"
    if content is None:
        pack.write_bytes(b"no HDF5")
    else:
        with h5py.File(pack, "w") as file:
            file.update(content)
    with pytest.raises(SsondoError, match=words):
        imported(tmp_path / "work", {"kind": "hdf5", "path": str(pack)})


def test_second_search_of_parquet_unpacks_only_what_changed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
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
        # Only the second file contains further listed clips.
        assert pitches(imported(tmp_path / "work", source)) == ALL
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
def test_longer_list_finds_rows_of_parquet_by_id_or_file_name(tmp_path: Path, columns: dict) -> None:
    cells = [{"bytes": encoded(n, "FLAC"), "path": f"{clip}.flac"} for n, clip in enumerate(IDS)]
    parquet.write_table(pyarrow.table({**columns, "audio": cells}), tmp_path / "0.parquet")
    source = {"kind": "parquet", "path": str(tmp_path)}
    first = [IDS[0], IDS[3]]
    assert pitches(imported(tmp_path / "work", source, clips=first)) == {clip: ALL[clip] for clip in first}
    assert pitches(imported(tmp_path / "work", source)) == ALL
    assert pitches(imported(tmp_path / "work", source, clips=IDS[1:])) == {clip: ALL[clip] for clip in IDS[1:]}


def test_parquet_index_of_an_earlier_version_is_rebuilt(tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    source = as_parquet(tmp_path / "copy")
    imported(tmp_path / "work", source)
    for index_file in (tmp_path / "work/located/unpacked").glob("*.json"):
        content = json.loads(index_file.read_text())
        del content["form"]
        # One name per row, and a first row that was skipped.
        content["rows"] = [[row[0][0], *row[1:]] for row in content["rows"]]
        content["rows"][0] = ["0", 0, 0, "", "", False]
        index_file.write_text(json.dumps(content))
    assert pitches(imported(tmp_path / "work", source)) == ALL


def test_parquet_with_other_column_names_or_external_files_is_read(tmp_path: Path) -> None:
    (tmp_path / "copy" / "sounds").mkdir(parents=True)
    cells = [{"bytes": None, "path": f"sounds/{clip}.flac"} for clip in IDS]
    for n, clip in enumerate(IDS[:-1]):
        (tmp_path / "copy" / "sounds" / f"{clip}.flac").write_bytes(encoded(n, "FLAC"))
    parquet.write_table(pyarrow.table({"audio": cells}), tmp_path / "copy" / "0.parquet")
    clip_results = imported(tmp_path / "a", {"kind": "parquet", "path": str(tmp_path / "copy")})
    assert clip_results[IDS[-1]][:2] == ("UNAVAILABLE", "no file")
    assert pitches(clip_results) == {clip: ALL[clip] for clip in IDS[:-1]}
    table = pyarrow.table({"name": [f"Y{clip}.wav" for clip in IDS], "flac": [encoded(n, "FLAC") for n in range(6)]})
    parquet.write_table(table, tmp_path / "1.parquet")
    source = {"kind": "parquet", "path": str(tmp_path / "1.parquet"), "audio_column": "flac", "id_column": "name"}
    assert pitches(imported(tmp_path / "b", source)) == ALL
    with pytest.raises(SsondoError, match=r"has no column 'audio'; set audioset\.source\.audio_column to one of"):
        imported(tmp_path / "c", {"kind": "parquet", "path": str(tmp_path / "1.parquet")})


def test_error_without_pyarrow_gives_the_install_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "0.parquet").write_bytes(b"")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(SsondoError, match=r"needs the package pyarrow; pip install '\.\[parquet\]'"):
        imported(tmp_path / "work", {"kind": "parquet", "path": str(tmp_path)})


def test_clip_id_is_read_from_the_json_of_a_webdataset_sample(tmp_path: Path) -> None:
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
    assert pitches(imported(tmp_path / "work", {**source, "id_key": "ytid"})) == ALL
    with pytest.raises(SsondoError, match=r"has no 'id'; set audioset\.source\.id_key"):
        imported(tmp_path / "work", {**source, "id_key": "id"})


def test_truncated_tar_gives_the_clips_before_its_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "copy").mkdir()
    source = as_tars(tmp_path / "copy")
    file = tmp_path / "copy" / "00001.tar"
    with tarfile.open(file) as tar:
        member = tar.getmember(f"{IDS[5]}.flac")
    file.write_bytes(file.read_bytes()[: member.offset_data + 100])
    clip_results = imported(tmp_path / "work", source)
    assert pitches(clip_results) == {clip: ALL[clip] for clip in IDS[:5]}
    assert any("cut short" in record.message for record in caplog.records)


def test_compressed_tar_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "0.tar", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("a"))
    with pytest.raises(SsondoError, match=r"not a plain tar file .*; unpack a compressed one first"):
        imported(tmp_path / "work", {"kind": "webdataset", "path": str(tmp_path)})


@pytest.mark.parametrize("kind", ["hdf5", "parquet", "webdataset"])
def test_error_names_a_path_without_files_of_the_kind(tmp_path: Path, kind: str) -> None:
    with pytest.raises(SsondoError, match=r"audioset\.source\.path: .* contains no"):
        imported(tmp_path / "work", {"kind": kind, "path": str(tmp_path)})


def test_located_clips_with_special_characters_are_read_as_written(tmp_path: Path) -> None:
    clips = {
        "a": FoundClip(ClipLocation("/a,b\\n/c\nd|e.wav"), True),
        'quoted, "id"': FoundClip(ClipLocation(os.fsdecode(b"/\xff\xfe.wav"), "7+12", "5-6"), False),
    }
    write_located(tmp_path / "x.csv", clips)
    assert read_located(tmp_path / "x.csv") == clips


def test_locate_refuses_a_source_that_is_not_a_local_copy(tmp_path: Path) -> None:
    call: Callable[..., None] = locate
    with pytest.raises(SsondoError, match="renderer is not a local copy"):
        call(index=tmp_path, source={"kind": "renderer"}, n_train_shards=1, n_eval_shards=1, out=tmp_path)
