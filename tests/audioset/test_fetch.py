import logging
import os
from pathlib import Path

import numpy as np
import pytest
from media_server import RATE, ramp, wav

from ssondo.audio.decoding import decode_file
from ssondo.audioset.fetch import fetch
from ssondo.audioset.sources import Fetched, open_source
from ssondo.audioset.sources.clip_names import clip_ids_of
from ssondo.errors import SsondoError, TransientError
from ssondo.storage.clip_location import ClipLocation, read_clip
from ssondo.storage.segments import Segment
from ssondo.storage.shards.audio import AudioShard
from ssondo.storage.shards.status import Status


def segment_list(folder: Path, *clips: tuple[str, float, float]) -> Path:
    path = folder / "train-0003.csv"
    path.write_text("ytid,start_s,end_s,labels\n" + "".join(f"{ytid},{start},{end},\n" for ytid, start, end in clips))
    return path


def sound_of(shard: AudioShard, row: int) -> bytes:
    """Return the encoded audio of a clip, from the shard or from the file that it refers to."""
    location = shard.location(row)
    return shard.blob(row) if location is None else read_clip(ClipLocation.from_bytes(*location), shard.path.parent)


def results(path: Path) -> dict[str, tuple[str, str, bytes]]:
    with AudioShard(path) as shard:
        return {
            clip: (Status(shard.status[row]).name, shard.reasons[row], sound_of(shard, row))
            for row, clip in enumerate(shard.clip_ids)
        }


def found_file(fetched: Fetched) -> Path:
    assert fetched.status is Status.OK
    assert fetched.location is not None
    return Path(fetched.location.path)


# Folder


@pytest.mark.parametrize(
    ("name", "ytid"),
    [
        ("--PJHxphWEs.wav", "--PJHxphWEs"),
        ("deep/er/--PJHxphWEs.m4a", "--PJHxphWEs"),
        ("--PJHxphWEs_30.flac", "--PJHxphWEs"),
        ("--PJHxphWEs_30.000.flac", "--PJHxphWEs"),
        ("--PJHxphWEs_30000.flac", "--PJHxphWEs"),
        ("--PJHxphWEs_30_40.OGG", "--PJHxphWEs"),
        ("--PJHxphWEs_30.000_40.000.webm", "--PJHxphWEs"),
        ("Y--PJHxphWEs.wav", "--PJHxphWEs"),
        ("Y--PJHxphWEs_30.000_40.000.wav", "--PJHxphWEs"),
        ("Yes_it_is_1_2.wav", "Yes_it_is_1_2"),
        ("_a_30_b_.wav", "_a_30_b_"),
    ],
)
def test_file_is_found_under_every_common_name(tmp_path: Path, name: str, ytid: str) -> None:
    file = tmp_path / "in" / name
    file.parent.mkdir(parents=True)
    file.write_bytes(b"sound")
    assert ytid in clip_ids_of(file)
    fetch(
        segments=segment_list(tmp_path, (ytid, 30, 40)),
        out=tmp_path / "out.h5",
        source={"kind": "folder", "path": str(tmp_path / "in")},
    )
    assert results(tmp_path / "out.h5") == {ytid: ("OK", "", b"sound")}


def test_file_with_other_times_is_not_the_clip(tmp_path: Path) -> None:
    (tmp_path / "abc_70_80.wav").write_bytes(b"sound")
    source = open_source({"kind": "folder", "path": str(tmp_path)}, [Segment("abc", 30, 40)], 0)
    assert source.fetch(Segment("abc", 30, 40)) == Fetched(Status.UNAVAILABLE, "no file")


def test_simplest_of_several_names_is_used(tmp_path: Path) -> None:
    for name in ("abc_30.wav", "abc.wav", "Yabc.wav", "z/abc.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    source = open_source({"kind": "folder", "path": str(tmp_path)}, [Segment("abc", 30, 40)], 0)
    assert found_file(source.fetch(Segment("abc", 30, 40))) == tmp_path / "abc.wav"


def test_missing_file_is_unavailable_and_empty_file_is_failed(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "there.wav").write_bytes(b"sound")
    (folder / "empty.wav").touch()
    segments = segment_list(tmp_path, ("absent", 0, 1), ("empty", 0, 1), ("there", 0, 1))
    source = {"kind": "folder", "path": str(folder)}
    fetch(segments=segments, out=tmp_path / "out.h5", source=source, max_failed_share=0.5)
    assert results(tmp_path / "out.h5") == {
        "absent": ("UNAVAILABLE", "no file", b""),
        "empty": ("FAILED", "empty file", b""),
        "there": ("OK", "", b"sound"),
    }
    with pytest.raises(TransientError, match=r"train-0003: 1 of 3 clips failed, .* \(1 empty file\)"):
        fetch(segments=segments, out=tmp_path / "other.h5", source=source, max_failed_share=0.3)
    assert not (tmp_path / "other.h5").exists()


def test_segment_is_cut_out_of_a_whole_video(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "video.wav").write_bytes(wav(10, "FLOAT"))
    (folder / "short.wav").write_bytes(wav(3, "FLOAT"))
    ready = wav(2, "FLOAT")  # encoded once, because the header contains the time of writing
    (folder / "ready_4_6.wav").write_bytes(ready)
    segments = segment_list(tmp_path, ("ready", 4, 6), ("short", 4, 6), ("video", 4, 6))
    source = {"kind": "folder", "path": str(folder), "files_are_clips": False}
    fetch(segments=segments, out=tmp_path / "out.h5", source=source)
    by_clip = results(tmp_path / "out.h5")
    assert by_clip["short"][:2] == ("UNAVAILABLE", "video ends before the segment")
    assert by_clip["ready"][2] == ready
    waveform, rate, _ = decode_file(by_clip["video"][2])
    assert rate == RATE
    np.testing.assert_allclose(waveform[0], ramp(10)[4 * RATE : 6 * RATE], atol=2**-15)


def test_symbolic_link_loop_does_not_hang_the_search(tmp_path: Path) -> None:
    (tmp_path / "abc.wav").write_bytes(b"sound")
    (tmp_path / "loop").symlink_to(tmp_path)
    source = open_source({"kind": "folder", "path": str(tmp_path)}, [Segment("abc", 0, 1)], 0)
    assert found_file(source.fetch(Segment("abc", 0, 1))) == tmp_path / "abc.wav"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"kind": "folder", "path": "/nowhere"}, r"audioset\.source\.path: /nowhere is not a folder"),
        ({"kind": "folder", "path": os.devnull}, "is not a folder"),
        ({"kind": "folder"}, "source 'folder' requires the option 'path'"),
        ({"kind": "folder", "path": ".", "pth": "."}, "source 'folder' has no option 'pth'"),
        ({"kind": "ftp"}, "source 'ftp' does not exist; choose one of folder, hdf5, parquet, webdataset, renderer"),
        ({"kind": "youtube", "url_template": "http://x"}, "has no {ytid} in it"),
        ({"kind": "youtube", "cookies": "/no/cookies.txt"}, "/no/cookies.txt is not a file"),
        ({"kind": "youtube", "proxies": ["socks5://localhost:1"]}, "'socks5://localhost:1' is not an http:// proxy"),
    ],
)
def test_invalid_source_is_refused_in_one_line(tmp_path: Path, source: dict, words: str) -> None:
    with pytest.raises(SsondoError, match=words) as caught:
        fetch(segments=segment_list(tmp_path, ("a", 0, 1)), out=tmp_path / "out.h5", source=source)
    assert "\n" not in str(caught.value)


def test_folder_without_audio_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SsondoError, match="has no sound files"):
        fetch(
            segments=segment_list(tmp_path, ("a", 0, 1)),
            out=tmp_path / "out.h5",
            source={"kind": "folder", "path": str(tmp_path)},
        )


def test_empty_segment_list_gives_an_empty_shard(tmp_path: Path) -> None:
    fetch(segments=segment_list(tmp_path), out=tmp_path / "out.h5", source={"kind": "folder", "path": str(tmp_path)})
    assert results(tmp_path / "out.h5") == {}


@pytest.mark.slow
def test_one_and_two_processes_give_identical_shards(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for n in range(20):
        (folder / f"v{n:02d}.wav").write_bytes(wav(n / 4 + 0.5, "FLOAT"))
    segments = segment_list(tmp_path, *((f"v{n:02d}", 1, 3) for n in range(20)))
    for n_workers in (1, 2):
        fetch(
            segments=segments,
            out=tmp_path / f"{n_workers}.h5",
            source={"kind": "folder", "path": str(folder), "files_are_clips": False},
            n_workers=n_workers,
        )
    assert (tmp_path / "1.h5.digest").read_text() == (tmp_path / "2.h5.digest").read_text()


# Renderer


def test_renderer_gets_duration_of_the_segment_and_the_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    renderer = pytest.importorskip("ssondo.audioset.renderer")
    calls: list[tuple] = []

    def render(ytid: str, *, seconds: float, seed: int) -> bytes:
        calls.append((ytid, seconds, seed))
        return b"sound"

    monkeypatch.setattr(renderer, "render_clip", render)
    fetch(
        segments=segment_list(tmp_path, ("a", 0, 2.5)),
        out=tmp_path / "out.h5",
        source={"kind": "renderer", "seed": 7},
    )
    assert calls == [("a", 2.5, 7)]
    assert results(tmp_path / "out.h5") == {"a": ("OK", "", b"sound")}


def test_log_ends_with_one_line_of_counts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.wav").write_bytes(b"x")
    with caplog.at_level(logging.INFO):
        fetch(
            segments=segment_list(tmp_path, ("a", 0, 1), ("b", 0, 1)),
            out=tmp_path / "out.h5",
            source={"kind": "folder", "path": str(tmp_path)},
        )
    assert "fetch train-0003: 1 of 2 clips, 1 unavailable, 0 failed" in caplog.records[-1].message
