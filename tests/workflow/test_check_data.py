"""Sound that another configuration made is not taken for this one's."""

from base64 import urlsafe_b64encode
from pathlib import Path

import pytest

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
    """A working directory with a shard of sound as the paper's configuration has it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "audio").mkdir(parents=True)
    settings = {"clip_s": 10.0, "codec": "flac", "bandlimit_rate": None}
    with AudioShardWriter(Path("data/audio/train-0000.h5"), sample_rate=32_000, settings=settings) as shard:
        shard.add("a", encode_flac([0.0] * 100, 32_000))
    return tmp_path


def checked(**audioset: object) -> None:
    from yaml import safe_load

    values = safe_load(PAPER.read_text())
    values["audioset"] |= audioset
    config = load_config(values)
    check_data_folder(config, Paths(config))


def test_sound_made_with_these_settings_or_none_is_no_fault(folder: Path) -> None:
    checked()
    Path("data/audio/train-0000.h5").write_bytes(b"broken, as the jobs that read it will say")
    checked()
    Path("data/audio/train-0000.h5").unlink()
    checked(clip_s=2.0)


@pytest.mark.parametrize(
    ("setting", "value", "found"),
    [("clip_s", 2.0, "10.0"), ("codec", "pcm16", "flac"), ("bandlimit_rate", 16_000, "None")],
)
def test_sound_of_another_working_directory_with_other_settings_is_named(
    folder: Path, setting: str, value: object, found: str
) -> None:
    sentence = (
        rf"config: audioset.{setting} is {value}, and data/audio/train-0000.h5 has {found}: it was made in another "
        r"working directory .*; give another paths.data, or remove data/audio"
    )
    with pytest.raises(SsondoError, match=sentence):
        checked(**{setting: value})


def test_more_shards_than_are_asked_for_are_named(folder: Path) -> None:
    checked(n_train_shards=1)
    Path("data/audio/train-0001.h5").touch()
    with pytest.raises(SsondoError, match=r"audioset\.n_train_shards is 1, and data/audio has more"):
        checked(n_train_shards=1)


def test_what_snakemake_has_on_record_it_makes_again_by_itself(folder: Path) -> None:
    record = urlsafe_b64encode(b"data/audio/train-0000.h5").decode()
    (folder / ".snakemake" / "metadata").mkdir(parents=True)
    (folder / ".snakemake" / "metadata" / record).write_text("{}")
    checked(clip_s=2.0)


def pinned(checkpoint: dict[str, str], sha256: str) -> None:
    config = load_config({"teachers": {"mine": {"kind": "m2d", "checkpoint": {**checkpoint, "sha256": sha256}}}} | ONLY)
    check_data_folder(config, Paths(config))


ONLY = {"table1": {"teachers": ["mine"]}, "table2": None, "fig2": None}
URL = {"url": "https://x.org/weights.pt"}


def test_hash_that_is_set_later_is_compared_with_the_weights_that_came(folder: Path) -> None:
    pinned(URL, "1" * 64)
    weights = Path("data/checkpoints/teacher-mine/weights.pt")
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"one")
    write_digest(weights, file_digest(weights))
    pinned(URL, file_digest(weights))
    with pytest.raises(SsondoError, match=r"mine\.checkpoint\.sha256 is 1{64}, and data/.*/weights\.pt has .* anew$"):
        pinned(URL, "1" * 64)


def test_hash_of_a_local_file_is_its_own_and_not_that_of_a_copy_that_is_out_of_date(folder: Path) -> None:
    mine, copy = Path("mine.pt"), Path("data/checkpoints/teacher-mine/mine.pt")
    copy.parent.mkdir(parents=True)
    for path, content in ((mine, b"new"), (copy, b"old")):
        path.write_bytes(content)
    write_digest(copy, file_digest(copy))
    pinned({"path": "mine.pt"}, file_digest(mine))
    with pytest.raises(SsondoError, match=r"sha256 is 1{64}, and mine\.pt has .*; correct one of them"):
        pinned({"path": "mine.pt"}, "1" * 64)
