import csv
import json
from pathlib import Path

import pytest

from ssondo.audioset.availability import availability
from ssondo.errors import SsondoError
from ssondo.storage.shards.audio import AudioShardWriter
from ssondo.storage.shards.status import Status


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / "classes.csv").write_text("index,mid,display_name\n0,/m/a,Speech\n1,/m/b,Music\n")
    lists = {
        "train-0000": {"a": ("/m/a", Status.OK, "padded from 3.10 s"), "b": ("/m/b", Status.UNAVAILABLE, "private")},
        "train-0001": {
            "c": ("/m/a;/m/b", Status.FAILED, "truncated wav: only 0.05 s can be read"),
            "d": ("/m/b", Status.FAILED, "truncated wav: only 0.07 s can be read"),
            "e": ("", Status.OK, ""),
        },
        "eval-0000": {"f": ("/m/b", Status.OK, "")},
    }
    for name, clips in lists.items():
        rows = "".join(f"{clip},0,10,{labels}\n" for clip, (labels, _, _) in clips.items())
        (tmp_path / "index" / f"{name}.csv").write_text(f"ytid,start_s,end_s,labels\n{rows}")
        with AudioShardWriter(tmp_path / "audio" / f"{name}.h5", sample_rate=32_000, settings={}) as shard:
            for clip, (_, status, reason) in clips.items():
                shard.add(clip, b"x" if status is Status.OK else b"", status=status, reason=reason)
    return tmp_path


def run(folder: Path, n_train_shards: int = 2) -> Path:
    availability(
        index=folder / "index",
        audio=folder / "audio",
        n_train_shards=n_train_shards,
        n_eval_shards=1,
        out=folder / "out",
    )
    return folder / "out"


def test_clips_are_counted_by_split_reason_and_class_and_listed(corpus: Path) -> None:
    out = run(corpus)
    found = json.loads((out / "availability.json").read_text())
    assert (found["train"]["n_listed"], found["train"]["n_ok"], found["eval"]["n_ok"]) == (5, 2, 1)
    assert found["train"]["reasons"] == {
        "UNAVAILABLE": {"private": 1},
        "FAILED": {"truncated wav: only # s can be read": 2},
    }
    assert (found["train"]["n_unavailable"], found["train"]["n_failed"], found["eval"]["n_failed"]) == (1, 2, 0)
    columns = ("listed", "available", "unavailable", "failed")
    with (out / "availability.csv").open() as file:
        assert list(csv.reader(file)) == [
            ["mid", "display_name", *(f"train_{name}" for name in columns), *(f"eval_{name}" for name in columns)],
            ["/m/a", "Speech", "2", "1", "0", "1", "0", "0", "0", "0"],
            ["/m/b", "Music", "3", "0", "1", "2", "1", "1", "0", "0"],
        ]
    assert (out / "available-train.txt").read_text() == "a\ne\n"
    assert (out / "available-eval.txt").read_text() == "f\n"
    text = (out / "availability.md").read_text()
    assert "| train | 5 | 2 | 40.0% | 1 | 2 |" in text
    assert "| train | private | no | 1 |" in text
    assert "| Music | 3 | 0 | 0.0% |" in text
    assert (out / "availability.png").read_bytes().startswith(b"\x89PNG")


def test_identical_shards_give_identical_files(corpus: Path) -> None:
    before = {path.name: path.read_bytes() for path in run(corpus).iterdir()}
    assert {path.name: path.read_bytes() for path in run(corpus).iterdir()} == before


def test_shard_with_other_clips_than_its_list_is_refused(corpus: Path) -> None:
    with (corpus / "index" / "train-0001.csv").open("a") as file:
        file.write("z,0,10,\n")
    with pytest.raises(SsondoError, match=r"train-0001\.h5: does not contain the clips of"):
        run(corpus)


def test_corpus_without_classes_or_available_clips_has_a_report(corpus: Path) -> None:
    (corpus / "index" / "classes.csv").write_text("index,mid,display_name\n")
    with AudioShardWriter(corpus / "audio" / "eval-0000.h5", sample_rate=32_000, settings={}) as shard:
        shard.add("f", status=Status.UNAVAILABLE, reason="private")
    assert "| eval | 1 | 0 | 0.0% |" in (run(corpus) / "availability.md").read_text()
