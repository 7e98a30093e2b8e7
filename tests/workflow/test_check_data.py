"""Audio and weights in the data folder that do not belong to this configuration are rejected."""

from base64 import urlsafe_b64encode
from pathlib import Path

import pytest
import yaml

from ssondo.audio.codec import encode_flac
from ssondo.config.loading import load_config
from ssondo.errors import SsondoError
from ssondo.storage.atomic_files import file_digest, write_digest
from ssondo.storage.shards.audio import AudioShardWriter
from ssondo.workflow.check_data import check_data_folder
from ssondo.workflow.paths import Paths

PAPER = Path(__file__).parents[2] / "config.yaml"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with an audio shard that has the settings of the paper's configuration."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "audio").mkdir(parents=True)
    settings = {"clip_s": 10.0, "codec": "flac", "bandlimit_rate": None}
    with AudioShardWriter(Path("data/audio/train-0000.h5"), sample_rate=32_000, settings=settings) as shard:
        shard.add("a", encode_flac([0.0] * 100, 32_000))
    return tmp_path


def check(**audioset: object) -> None:
    values = yaml.safe_load(PAPER.read_text())
    values["audioset"] |= audioset
    config = load_config(values)
    check_data_folder(config, Paths(config))


def test_audio_with_the_same_settings_and_unreadable_or_missing_audio_are_accepted(folder: Path) -> None:
    check()
    Path("data/audio/train-0000.h5").write_bytes(b"not a shard, which the jobs that read it report")
    check()
    Path("data/audio/train-0000.h5").unlink()
    check(clip_s=2.0)


@pytest.mark.parametrize(
    ("setting", "value", "in_shard"),
    [("clip_s", 2.0, "10.0"), ("codec", "pcm16", "flac"), ("bandlimit_rate", 16_000, "None")],
)
def test_audio_of_another_working_directory_with_other_settings_is_rejected(
    folder: Path, setting: str, value: object, in_shard: str
) -> None:
    message = (
        rf"config: audioset.{setting} is {value}, but data/audio/train-0000.h5 has {in_shard}: it was made in another "
        r"working directory .*; give another paths.data, or remove data/audio"
    )
    with pytest.raises(SsondoError, match=message):
        check(**{setting: value})


def test_more_shards_than_configured_are_rejected(folder: Path) -> None:
    check(n_train_shards=1)
    Path("data/audio/train-0001.h5").touch()
    with pytest.raises(SsondoError, match=r"audioset\.n_train_shards is 1, but data/audio has more"):
        check(n_train_shards=1)


def test_audio_that_snakemake_has_a_record_of_is_accepted_because_it_is_made_again(folder: Path) -> None:
    record = urlsafe_b64encode(b"data/audio/train-0000.h5").decode()
    (folder / ".snakemake" / "metadata").mkdir(parents=True)
    (folder / ".snakemake" / "metadata" / record).write_text("{}")
    check(clip_s=2.0)


def check_hash(checkpoint: dict[str, str], sha256: str) -> None:
    teacher = {"kind": "m2d", "checkpoint": {**checkpoint, "sha256": sha256}}
    config = load_config({"teachers": {"mine": teacher}} | TABLES)
    check_data_folder(config, Paths(config))


TABLES = {"table1": {"teachers": ["mine"]}, "table2": None, "fig2": None}
URL = {"url": "https://x.org/weights.pt"}


def test_hash_that_is_set_later_is_compared_with_the_downloaded_weights(folder: Path) -> None:
    check_hash(URL, "1" * 64)
    weights = Path("data/checkpoints/teacher-mine/weights.pt")
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"one")
    write_digest(weights, file_digest(weights))
    check_hash(URL, file_digest(weights))
    with pytest.raises(
        SsondoError, match=r"mine\.checkpoint\.sha256 is 1{64}, but data/.*/weights\.pt has .* retrieved again$"
    ):
        check_hash(URL, "1" * 64)


def test_hash_of_a_local_file_is_compared_with_the_file_and_not_with_an_outdated_copy(folder: Path) -> None:
    mine, copy = Path("mine.pt"), Path("data/checkpoints/teacher-mine/mine.pt")
    copy.parent.mkdir(parents=True)
    for path, content in ((mine, b"new"), (copy, b"old")):
        path.write_bytes(content)
    write_digest(copy, file_digest(copy))
    check_hash({"path": "mine.pt"}, file_digest(mine))
    with pytest.raises(SsondoError, match=r"sha256 is 1{64}, but mine\.pt has .*; correct one of them"):
        check_hash({"path": "mine.pt"}, "1" * 64)
