import hashlib
import json
import logging
from pathlib import Path

import numpy as np
import pytest

from ssondo.audioset.inventory import inventory
from ssondo.errors import SsondoError
from ssondo.storage.shards.audio import AudioShardWriter
from ssondo.storage.shards.embedding import EmbeddingShardWriter
from ssondo.storage.shards.status import Status


def audio(path: Path, *present: str) -> Path:
    with AudioShardWriter(path, sample_rate=32_000, settings={}) as shard:
        for n, clip in enumerate(present):
            shard.add(clip, b"sound", reason=f"padded from {n + 1}.25 s" if n else "")
        shard.add(f"private-{path.stem}", status=Status.UNAVAILABLE, reason="private")
        shard.add(f"broken-{path.stem}", status=Status.FAILED, reason="not audio (begins with b'x')")
    return path


def embeddings(path: Path, *present: str) -> Path:
    with EmbeddingShardWriter(path, embedding_dim=2, settings={}, checkpoint_sha256="0") as shard:
        shard.add(list(present), np.zeros((len(present), 2), "f2"))
    return path


def test_inventory_counts_clips_by_status_and_reason(tmp_path: Path) -> None:
    shards = [audio(tmp_path / "train-0000.h5", "a", "c", "e"), audio(tmp_path / "train-0001.h5", "b")]
    inventory(shards=shards, out=tmp_path / "out.json")
    found = json.loads((tmp_path / "out.json").read_text())
    assert found == {
        "kind": "audio",
        "n_clips": 8,
        "n_ok": 4,
        "reasons": {
            "OK": {"padded from # s": 2},
            "UNAVAILABLE": {"private": 2},
            "FAILED": {"not audio (begins with b'x')": 2},
        },
        # printf 'a\nb\nc\ne\n' | sha256sum
        "clip_list_sha256": hashlib.sha256(b"a\nb\nc\ne\n").hexdigest(),
        "shards": [
            {"name": path.stem, "digest": Path(f"{path}.digest").read_text().strip(), "n_ok": n}
            for path, n in zip(shards, (3, 1), strict=True)
        ],
    }


def test_embeddings_have_the_clip_list_hash_of_their_audio(tmp_path: Path) -> None:
    inventory(shards=[embeddings(tmp_path / "0.h5", "b", "a")], out=tmp_path / "e.json")
    inventory(shards=[audio(tmp_path / "1.h5", "a", "b")], out=tmp_path / "a.json")
    found, of_audio = (json.loads((tmp_path / f"{name}.json").read_text()) for name in "ea")
    assert (found["kind"], found["n_clips"], found["n_ok"], found["reasons"]) == ("embedding", 2, 2, {})
    assert found["clip_list_sha256"] == of_audio["clip_list_sha256"]


def test_missing_clips_are_logged_as_a_warning_with_reasons(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        inventory(shards=[audio(tmp_path / "0.h5", "a")], out=tmp_path / "out.json")
        inventory(shards=[embeddings(tmp_path / "1.h5", "a")], out=tmp_path / "out.json")
    assert [(record.levelname, record.message.split(";")[0]) for record in caplog.records] == [
        ("WARNING", "2 of 3 clips are missing: 1 private, 1 not audio (begins with b'x')"),
        ("INFO", "inventory: 1 of 3 clips are present, in 1 shards"),
        ("INFO", "inventory: 1 of 1 clips are present, in 1 shards"),
    ]


def test_shards_of_different_kinds_or_with_a_repeated_clip_are_refused(tmp_path: Path) -> None:
    one, other = audio(tmp_path / "0.h5", "a"), audio(tmp_path / "1.h5", "a")
    with pytest.raises(SsondoError, match="clip a is in two of the shards"):
        inventory(shards=[one, other], out=tmp_path / "out.json")
    with pytest.raises(SsondoError, match=r"0\.h5 is a shard of kind audio, .*2\.h5 of kind embedding"):
        inventory(shards=[one, embeddings(tmp_path / "2.h5", "b")], out=tmp_path / "out.json")
    assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize("content", [None, b"not HDF5"])
def test_error_names_a_missing_or_broken_shard(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "x.h5").write_bytes(content)
    with pytest.raises(SsondoError, match=r"x\.h5: (no such shard|not a readable HDF5)"):
        inventory(shards=[tmp_path / "x.h5"], out=tmp_path / "out.json")


def test_inventory_of_no_shards_is_empty(tmp_path: Path) -> None:
    inventory(shards=[], out=tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text())["n_clips"] == 0


def test_inventory_without_any_available_clip_is_refused_with_the_reasons(tmp_path: Path) -> None:
    with AudioShardWriter(tmp_path / "train-0000.h5", sample_rate=32_000, settings={}) as shard:
        for clip_id in ("a", "b"):
            shard.add(clip_id, status=Status.UNAVAILABLE, reason="no file")
    sentence = r"none of the 2 train clips is present \(2 no file\); check audioset\.source, `ssondo ledger` and .*"
    with pytest.raises(SsondoError, match=sentence):
        inventory(shards=[tmp_path / "train-0000.h5"], out=tmp_path / "train.json")
    assert not (tmp_path / "train.json").exists()
