import logging
from pathlib import Path

import pytest

from ssondo import cli
from ssondo.audioset.clip_ledger import Ledger, ledger_path, read_ledger, reset_path
from ssondo.audioset.fetch import fetch
from ssondo.audioset.ledger import ledger
from ssondo.audioset.retry import retry
from ssondo.audioset.sources import Fetched
from ssondo.audioset.sources.youtube import Youtube
from ssondo.errors import SsondoError, TransientError
from ssondo.storage.segments import Segment
from ssondo.storage.shards.audio import AudioShardWriter
from ssondo.storage.shards.status import Status


def write_shard(folder: Path, name: str, *, finished: bool, **results: Fetched) -> Path:
    """Write the ledger of a shard with the given results and, if the shard is finished, the shard itself."""
    shard = folder / f"{name}.h5"
    with Ledger(ledger_path(shard), "source") as opened:
        for clip, result in results.items():
            opened.add(Segment(clip, 0, 1), result)
    if finished:
        with AudioShardWriter(shard, sample_rate=0, settings={}, producer="fetch") as writer:
            for clip, result in results.items():
                writer.add(clip, result.data, status=result.status, reason=result.reason)
    return shard


PRIVATE = Fetched(Status.UNAVAILABLE, "private")
REMOVED = Fetched(Status.UNAVAILABLE, "removed")
TIMEOUT = Fetched(Status.FAILED, "timeout")
SOUND = Fetched(Status.OK, "", b"sound")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "fetched"
    write_shard(folder, "train-0000", finished=True, a=SOUND, b=PRIVATE, c=REMOVED)
    write_shard(folder, "train-0001", finished=True, d=SOUND, e=SOUND, f=TIMEOUT)
    write_shard(folder, "train-0002", finished=False, g=PRIVATE, h=SOUND)
    write_shard(folder, "eval-0000", finished=True, i=PRIVATE)
    (tmp_path / "index").mkdir()
    for name, clips in (("train-0000", "abc"), ("train-0001", "def"), ("train-0002", "ghxyz"), ("eval-0000", "i")):
        rows = "".join(f"{clip},0,1,\n" for clip in clips)
        (tmp_path / "index" / f"{name}.csv").write_text(f"ytid,start_s,end_s,labels\n{rows}")
    return folder


def test_ledger_counts_by_split_and_reason_including_unfinished_shards(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        ledger(folder=folder)
    assert [" ".join(record.message.split()) for record in caplog.records] == [
        "train: 2 shards finished of 3 started, 3 of 11 not requested yet",
        "4 ok",
        "3 unavailable",
        "2 private",
        "1 removed",
        "1 failed",
        "1 timeout",
        "eval: 1 shards finished of 1 started, 0 of 1 not requested yet",
        "0 ok",
        "1 unavailable",
        "1 private",
        "0 failed",
    ]


def test_retry_resets_one_reason_and_marks_the_finished_shards_with_it(folder: Path) -> None:
    retry(reason=["private"], folder=folder)
    opened = {
        key[0]: entry.is_reset
        for name in ("train-0000", "train-0001", "train-0002", "eval-0000")
        for key, entry in read_ledger(folder / f"{name}.ledger").items()
    }
    assert {clip for clip, is_open in opened.items() if is_open} == {"b", "g", "i"}
    assert sorted(path.stem for path in folder.glob("*.reset")) == ["eval-0000", "train-0000"]
    before = reset_path(folder / "train-0000.h5").read_text()
    retry(reason=["private"], folder=folder)
    assert reset_path(folder / "train-0000.h5").read_text() != before
    retry(reason=["timeout"], folder=folder)
    assert reset_path(folder / "train-0001.h5").is_file()


def test_only_reset_clips_are_requested_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    requested: list[str] = []
    now: dict[str, Fetched] = {}

    def answer(_: Youtube, segment: Segment) -> Fetched:
        requested.append(segment.ytid)
        return now.get(segment.ytid, SOUND)

    monkeypatch.setattr(Youtube, "fetch", answer)
    segments, out = tmp_path / "train-0000.csv", tmp_path / "fetched" / "train-0000.h5"
    segments.write_text("ytid,start_s,end_s,labels\n" + "".join(f"{clip},0,1,\n" for clip in "abcd"))
    now.update(b=PRIVATE, c=REMOVED)
    arguments = {
        "segments": segments,
        "out": out,
        "source": {"kind": "youtube"},
        "fetch_policy": {"requests_per_hour": 1e9, "sleep_s": 0},
    }
    fetch(**arguments)
    assert requested == list("abcd")
    requested.clear()
    fetch(**arguments)
    assert requested == []
    retry(reason=["private"], folder=tmp_path / "fetched")
    now.clear()
    fetch(**arguments)
    assert requested == ["b"]


def test_unknown_reason_is_refused_with_the_closest_existing_one(folder: Path) -> None:
    with pytest.raises(
        SsondoError, match=r"no clip in .* is missing for the reason 'privat' \(did you mean 'private'\?\); existing"
    ):
        retry(reason=["privat"], folder=folder)
    with pytest.raises(SsondoError, match="existing reasons: private, removed, timeout"):
        retry(reason=["xyz"], folder=folder)
    assert not list(folder.glob("*.reset"))


def test_retry_without_a_reason_lists_the_existing_reasons(folder: Path) -> None:
    with pytest.raises(SsondoError, match="--reason is empty; existing reasons: private, removed, timeout"):
        retry(reason=[], folder=folder)


def test_shard_that_is_being_fetched_is_skipped_and_named(folder: Path) -> None:
    with (
        Ledger(folder / "train-0000.ledger", "source"),
        pytest.raises(TransientError, match=r"^train-0000: being fetched"),
    ):
        retry(reason=["private"], folder=folder)
    assert [path.stem for path in folder.glob("*.reset")] == ["eval-0000"]


def test_folder_without_shards_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SsondoError, match="no fetched shards and no ledgers; give their folder with --folder"):
        ledger(folder=tmp_path)


def test_ledger_and_retry_are_commands(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["ledger", "--folder", str(folder)]) == 0
    assert "2 private" in " ".join(capsys.readouterr().err.split())
    assert cli.main(["retry", "--folder", str(folder), "--reason", "removed"]) == 0
    assert "1 clips in 1 shards will be requested again (removed)" in capsys.readouterr().err
    assert [path.stem for path in folder.glob("*.reset")] == ["train-0000"]
