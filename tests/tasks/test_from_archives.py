"""Each of the seven data sets, from its archives on a server to a score."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import tasks_replicas as replicas
from file_server import serving

from ssondo.errors import SsondoError
from ssondo.probe.embed_task import embed_task
from ssondo.probe.probe import probe
from ssondo.storage.shards.audio import AudioShard
from ssondo.storage.shards.status import Status
from ssondo.tasks.download import download
from ssondo.tasks.load_task import official_size, remotes
from ssondo.tasks.magnatagatune import TAGS
from ssondo.tasks.prepare_task import prepare_task

KINDS = {
    "esc50": "accuracy",
    "fsd50k": "map",
    "gtzan": "accuracy",
    "magnatagatune": "map",
    "nsynth": "accuracy",
    "openmic": "masked_map",
    "urbansound8k": "accuracy",
}
TEACHER = {"kind": "callable", "callable": "tones_for_tests:embed", "sample_rate": 16000, "embedding_dim": 9}


@pytest.fixture
def teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A teacher whose embedding holds the level of each tone of the replicas."""
    (tmp_path / "tones_for_tests.py").write_text(
        "import torch\n"
        "def embed(x):\n"
        "    time = torch.arange(x.shape[1]) / 16000\n"
        f"    tones = torch.tensor({[replicas.hz(number) for number in range(9)]})[:, None] * time * 2 * torch.pi\n"
        "    level = torch.hypot(x @ tones.sin().T, x @ tones.cos().T)\n"
        "    return level / level.norm(dim=1, keepdim=True).clamp_min(1e-9)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("tones_for_tests", None)


def content(path: Path) -> dict[str, tuple[Status, str, list[int], str, bytes]]:
    """Status, reason, labels, split or fold, and audio of each clip of a task shard."""
    with AudioShard(path) as shard:
        labels, splits = shard.extra("labels").tolist(), shard.extra(shard.settings["split_kind"]).tolist()
        return {
            clip: (Status(shard.status[row]), shard.reasons[row], labels[row], str(splits[row]), shard.blob(row))
            for row, clip in enumerate(shard.clip_ids)
        }


def prepare(kind: str, path: Path, out: Path, n_workers: int = 1) -> None:
    prepare_task(task="mine", spec={"kind": kind, "path": str(path)}, out=out, seed=0, n_workers=n_workers)


@pytest.mark.parametrize("kind", KINDS)
def test_archives_from_a_server_become_a_score(kind: str, tmp_path: Path, teacher: None) -> None:
    files = replicas.archives(kind, tmp_path / "unpacked", TAGS)
    folder = tmp_path / "archives"
    with serving(files) as server:
        for name in remotes(kind)[0]:
            # The connection breaks once during the last file.
            server.faults = ["cut"] if name == list(files)[-1] else []
            download(url=server.url(name), out=folder / name)
        assert sorted(set(server.requested)) == sorted(files)

    prepare(kind, folder, tmp_path / "packed.h5")
    prepare(kind, tmp_path / "unpacked", tmp_path / "unpacked.h5")
    clips = content(tmp_path / "packed.h5")
    assert clips == content(tmp_path / "unpacked.h5")
    expected = {"gtzan": ["jazz.00054"], "magnatagatune": [replicas.MTT_EMPTY]}
    assert [clip for clip, (status, *_) in clips.items() if status is not Status.OK] == expected.get(kind, [])

    embed_task(audio=tmp_path / "packed.h5", out=tmp_path / "embedded.h5", teacher=TEACHER, device="cpu")
    probe(
        embeddings=tmp_path / "embedded.h5",
        model={"row_kind": "teacher", "teacher": "tones"},
        head="linear",
        hidden=1,
        learning_rates=[0.1],
        weight_decays=[0.0],
        batch_sizes=[64],
        steps=300,
        patience=30,
        validate_every=10,
        seeds=[0, 1],
        protocol="standard",
        out=tmp_path / "score.json",
        device="cpu",
    )
    score = json.loads((tmp_path / "score.json").read_text())
    assert (score["task"], score["metric"]) == ("mine", KINDS[kind])
    assert score["n_clips"] == sum(status is Status.OK for status, *_ in clips.values())
    # The embedding identifies the tones exactly, so clips with the labels of others would lower the score. GTZAN has
    # ten genres for nine tones, and three of MagnaTagATune's test tags occur in no training clip.
    floor = {"magnatagatune": 0.5, "gtzan": 0.85}.get(kind, 0.95)
    assert score["mean"] > floor


def test_every_data_set_states_its_licence_and_the_addresses_of_its_files() -> None:
    for kind in KINDS:
        files, licence = remotes(kind)
        assert licence
        for name, remote in files.items():
            assert remote.url.startswith("https://")
            assert remote.url.rpartition("/")[2] in (name, "master.zip")
            assert remote.md5 is None or len(remote.md5) == 32
    assert remotes("table") == ({}, "")


def test_damaged_clip_in_an_archive_is_recorded_by_its_id(tmp_path: Path) -> None:
    files = replicas.archives("esc50", tmp_path / "unpacked")
    data = bytearray(files["ESC-50-master.zip"])
    data[data.find(b"3-1001-A-1.wav") + 2000] ^= 0xFF
    (tmp_path / "in").mkdir()
    (tmp_path / "in/ESC-50-master.zip").write_bytes(data)
    with pytest.raises(SsondoError, match=r"1 damaged in its archive.*first 3-1001-A-1"):
        prepare("esc50", tmp_path / "in", tmp_path / "t.h5")
    spec = {"kind": "esc50", "path": str(tmp_path / "in"), "max_missing": 0.1}
    prepare_task(task="mine", spec=spec, out=tmp_path / "t.h5", seed=0)
    clips = content(tmp_path / "t.h5")
    assert [clip for clip, (status, *_) in clips.items() if status is not Status.OK] == ["3-1001-A-1"]


def test_shard_from_tar_archives_does_not_depend_on_the_number_of_processes(tmp_path: Path) -> None:
    files = replicas.archives("nsynth", tmp_path / "unpacked")
    (tmp_path / "in").mkdir()
    for name, data in files.items():
        (tmp_path / "in" / name).write_bytes(data)
    prepare("nsynth", tmp_path / "in", tmp_path / "one.h5")
    prepare("nsynth", tmp_path / "in", tmp_path / "two.h5", n_workers=2)
    assert (tmp_path / "one.h5").read_bytes() == (tmp_path / "two.h5").read_bytes()


def test_incomplete_official_data_set_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    prepare("fsd50k", replicas.fsd50k(tmp_path / "in"), tmp_path / "t.h5")
    (line,) = [line for line in caplog.messages if "not the official data set" in line]
    assert "3 of 200 classes, 16 of 36,796 clips in train, 8 of 4,170 clips in valid, 8 of 10,231 clips in test" in line


@pytest.mark.parametrize(
    ("kind", "n_clips", "n_classes", "n_scored"),
    # These sizes are stated in the papers and on the web pages of the data sets.
    [
        ("esc50", 2_000, 50, 5),
        ("fsd50k", 51_197, 200, 1),
        ("gtzan", 930, 10, 1),
        ("magnatagatune", 25_863, 50, 1),
        ("nsynth", 305_979, 11, 1),
        ("openmic", 20_000, 20, 1),
        ("urbansound8k", 8_732, 10, 10),
    ],
)
def test_official_size_is_that_of_the_publication(kind: str, n_clips: int, n_classes: int, n_scored: int) -> None:
    size = official_size(kind)
    assert size is not None
    assert (size.n_clips, size.n_classes, size.n_scored) == (n_clips, n_classes, n_scored)


def test_task_of_the_user_has_no_official_size() -> None:
    assert [official_size(kind) for kind in ("table", "pattern", "rendered")] == [None] * 3


def test_official_size_is_available_without_torch() -> None:
    code = (
        "import sys; from ssondo.tasks.load_task import official_size; official_size('openmic'); "
        "sys.exit(bool({'torch', 'soundfile', 'av', 'pandas'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_documentation_states_the_licence_source_and_checksums_of_the_code() -> None:
    page = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text()
    table = page[page.index("| task | from |") :]
    names = {"openmic": "OpenMIC-2018", "magnatagatune": "MagnaTagATune", "urbansound8k": "UrbanSound8K"}
    names |= {"nsynth": "NSynth", "gtzan": "GTZAN", "fsd50k": "FSD50K", "esc50": "ESC-50"}
    for kind in KINDS:
        files, licence = remotes(kind)
        (row,) = [line for line in table.splitlines() if line.startswith(f"| {names[kind]} |")]
        _, _, source, checksum, stated, _ = (cell.strip() for cell in row.split("|"))
        assert stated == licence
        assert (checksum == "MD5") == any(remote.md5 for remote in files.values())
        assert source.rpartition(" ")[2].removeprefix("www.") in next(iter(files.values())).url
        if all(remote.size for remote in files.values()):
            gigabytes = sum(remote.size or 0 for remote in files.values()) / 1e9
            (size,) = [line for line in page.splitlines() if line.startswith(f"| {names[kind]} |") and " GB |" in line]
            assert f"| {gigabytes:.1f} GB |" in size
