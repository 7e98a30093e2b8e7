import json
import logging
import re
from pathlib import Path

import pytest

from ssondo.audioset.freeze import freeze
from ssondo.audioset.index import index
from ssondo.audioset.inventory import inventory
from ssondo.audioset.manifest import read_manifest
from ssondo.errors import SsondoError
from ssondo.storage.segments import read_segments
from ssondo.storage.shards.audio import AudioShardWriter
from ssondo.storage.shards.status import Status


def corpus(
    folder: Path,
    *,
    train: str,
    evaluation: str,
    absent: str = "",
    times: dict[str, str] | None = None,
    n_shards: int = 2,
    manifest: Path | None = None,
) -> Path:
    """Write lists and resampled shards of clips with one-letter ids; the clips in `absent` are unavailable."""
    folder.mkdir(exist_ok=True)
    for name, clips in (("train", train), ("eval", evaluation)):
        rows = [f"{clip},{(times or {}).get(clip, '3,13')},\n" for clip in clips]
        (folder / f"{name}.in").write_text("# YTID\n" + "".join(rows))
    index(
        train=[str(folder / "train.in")],
        eval=[str(folder / "eval.in")],
        classes="",
        n_train_shards=n_shards,
        n_eval_shards=1,
        out=folder / "index",
        manifest=manifest,
    )
    for path in [*(folder / "index" / f"train-{n:04d}.csv" for n in range(n_shards)), folder / "index/eval-0000.csv"]:
        with AudioShardWriter(folder / "audio" / f"{path.stem}.h5", sample_rate=32_000, settings={}) as shard:
            for segment in read_segments(path):
                if segment.ytid in absent:
                    shard.add(segment.ytid, status=Status.UNAVAILABLE, reason="private")
                else:
                    shard.add(segment.ytid, b"sound")
    return folder


def frozen(folder: Path) -> Path:
    freeze(audio=folder / "audio", index=folder / "index", out=folder / "clips.csv")
    return folder / "clips.csv"


def take_inventory(folder: Path, split: str, manifest: Path) -> dict:
    shards = sorted((folder / "audio").glob(f"{split}-*.h5"))
    inventory(shards=shards, out=folder / f"{split}.json", manifest=manifest, split=split)
    return json.loads((folder / f"{split}.json").read_text())


def test_freeze_writes_the_available_clips_with_times_and_hashes(tmp_path: Path) -> None:
    path = frozen(corpus(tmp_path / "a", train="abcd", evaluation="xy", absent="cy"))
    lines = path.read_text().splitlines()
    assert lines[0] == "# ssondo manifest 2"
    # printf 'a\nb\nd\n' | sha256sum; printf 'a,3,13\nb,3,13\nd,3,13\n' | sha256sum
    ids = "a7cec798b109a7fe236d030b752ac46ec53d51836ae02a317479954fc94a40ed"
    with_times = "508df1f75993b523973603768824856cd6ee4f70835d125826a3901553d63bff"
    assert lines[1] == f"# train: 3 clips, sha256 {ids}, with times {with_times}"
    assert lines[3:] == ["split,ytid,start_s,end_s", "train,a,3,13", "train,b,3,13", "train,d,3,13", "eval,x,3,13"]
    assert read_manifest(path).times["train"]["b"] == (3, 13)


def test_run_with_a_manifest_uses_only_its_clips_and_the_inventory_confirms_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = corpus(tmp_path / "a", train="abcd", evaluation="xy", absent="cy")
    manifest = frozen(first)
    second = corpus(tmp_path / "b", train="abcdefg", evaluation="xyz", manifest=manifest)
    summary = json.loads((second / "index" / "summary.json").read_text())
    assert (summary["train"]["clips"], summary["train"]["not_in_manifest"]) == (3, 4)
    with caplog.at_level(logging.INFO):
        counts = take_inventory(second, "train", manifest)
    assert counts["clip_list_sha256"] == counts["manifest"]["sha256"]
    assert counts["manifest"]["n_missing"] == counts["manifest"]["n_extra"] == 0
    assert any("all 3 train clips of the manifest" in record.message for record in caplog.records)


def test_inventory_warns_if_clips_of_the_manifest_are_missing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    manifest = frozen(corpus(tmp_path / "a", train="abcd", evaluation="xy"))
    later = corpus(tmp_path / "b", train="abcd", evaluation="xy", absent="bd", manifest=manifest)
    with caplog.at_level(logging.WARNING):
        counts = take_inventory(later, "train", manifest)
    assert counts["manifest"]["missing"] == ["b", "d"]
    assert counts["clip_list_sha256"] != counts["manifest"]["sha256"]
    warnings = [record.message for record in caplog.records if record.message.startswith("OTHER CLIPS")]
    assert len(warnings) == 1
    assert "2 of its 4 train clips are missing (b, d, ...)" in warnings[0]


def test_index_warns_if_clips_of_the_manifest_are_not_listed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    manifest = frozen(corpus(tmp_path / "a", train="abcd", evaluation="xy"))
    with caplog.at_level(logging.WARNING):
        corpus(tmp_path / "b", train="ab", evaluation="xy", manifest=manifest)
    assert any("2 of its 4 train clips are not in the lists" in record.message for record in caplog.records)
    with pytest.raises(SsondoError, match="none of its 4 train clips is in the lists"):
        corpus(tmp_path / "c", train="uv", evaluation="xy", manifest=manifest)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text.replace("train,b,3,13\n", ""), "its train clips do not match its hash"),
        (
            lambda text: text.replace("train,b,3,13", "train,b,4,14"),
            "its train clips do not match its hash",
        ),
        (lambda text: text.replace("train,b,3,13", "train,b,three,13"), "a damaged manifest"),
        # Version 1 had no hash of the times.
        (lambda text: re.sub(", with times .*", "", text).replace("manifest 2", "manifest 1"), "not a manifest of"),
        (lambda text: "ytid\n" + text, "not a manifest of this project"),
    ],
)
def test_edited_manifest_is_refused(tmp_path: Path, change: object, words: str) -> None:
    manifest = frozen(corpus(tmp_path / "a", train="abcd", evaluation="xy"))
    manifest.write_text(change(manifest.read_text()))  # type: ignore[operator]
    with pytest.raises(SsondoError, match=words):
        read_manifest(manifest)


def test_frozen_clips_match_their_lists_for_any_times(tmp_path: Path) -> None:
    times = {"a": "1234.567,1244.567", "b": "12345.5,12355.5", "c": "3.14159,13.14159", "d": "0.0005,123456.7895"}
    first, second = tmp_path / "a", tmp_path / "b"
    corpus(first, train="abcd", evaluation="x", times=times)
    manifest = frozen(first)
    assert read_manifest(manifest).times["train"]["a"] == (1234.567, 1244.567)
    corpus(second, train="abcd", evaluation="x", times=times, manifest=manifest)
    summary = json.loads((second / "index" / "summary.json").read_text())
    assert (summary["train"]["clips"], summary["train"]["only_in_manifest"]) == (4, 0)


def test_clip_with_other_times_than_in_the_manifest_is_left_out(tmp_path: Path) -> None:
    times = {"a": "1234.567,1244.567", "b": "3,13"}
    manifest = frozen(corpus(tmp_path / "a", train="ab", evaluation="x", times=times))
    times["a"] = "1234.568,1244.567"
    later = corpus(tmp_path / "b", train="ab", evaluation="x", times=times, manifest=manifest)
    assert json.loads((later / "index" / "summary.json").read_text())["train"]["clips"] == 1


@pytest.mark.parametrize("absent", ["", "abcdefgh"])
def test_freeze_refuses_shards_left_over_from_another_number_of_shards(tmp_path: Path, absent: str) -> None:
    corpus(tmp_path / "a", train="abcdefgh", evaluation="x", n_shards=4)
    # The leftover shards repeat these clips even if they are unavailable in the current ones.
    corpus(tmp_path / "a", train="abcdefgh", evaluation="x", n_shards=2, absent=absent)
    with pytest.raises(SsondoError, match=r"train-000[23]\.h5: clip . is in train-000[01]\.h5 too; .* remove from"):
        frozen(tmp_path / "a")
    for stale in ("train-0002.h5", "train-0003.h5"):
        (tmp_path / "a" / "audio" / stale).unlink()
    assert len(read_manifest(frozen(tmp_path / "a")).times["train"]) == 8 - len(absent)


def test_manifest_without_training_clips_is_refused(tmp_path: Path) -> None:
    manifest = frozen(corpus(tmp_path / "a", train="ab", evaluation="x", absent="ab"))
    with pytest.raises(SsondoError, match=r"no training clips are left: the manifest .*clips.csv has none; freeze one"):
        corpus(tmp_path / "b", train="ab", evaluation="x", manifest=manifest)
