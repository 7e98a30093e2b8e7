import http.server
import io
import logging
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ssondo.audio import decode
from ssondo.errors import SsondoError, TransientError
from ssondo.fetch import Spool, fetch, spool_path
from ssondo.index import Segment
from ssondo.shards import AudioShard, Status
from ssondo.sources import Fetched, open_source
from ssondo.sources.folder import clip_ids_of
from ssondo.sources.youtube import Youtube, _classified, _RateLimited

RATE = 8_000


def ramp(seconds: float) -> np.ndarray:
    """A waveform whose value is the time in seconds over 100, so that a cut shows where it was made."""
    return (np.arange(round(seconds * RATE)) / RATE / 100).astype("f4")


def wav(seconds: float) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, ramp(seconds), RATE, format="WAV", subtype="FLOAT")
    return buffer.getvalue()


def segment_list(folder: Path, *clips: tuple[str, float, float]) -> Path:
    path = folder / "train-0003.csv"
    path.write_text("ytid,start_s,end_s,labels\n" + "".join(f"{ytid},{start},{end},\n" for ytid, start, end in clips))
    return path


def results(path: Path) -> dict[str, tuple[str, str, bytes]]:
    with AudioShard(path) as shard:
        return {
            clip: (Status(shard.status[row]).name, shard.reasons[row], shard.blob(row))
            for row, clip in enumerate(shard.clip_ids)
        }


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
def test_a_file_is_found_under_every_usual_name(tmp_path: Path, name: str, ytid: str) -> None:
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


def test_a_file_of_another_part_of_the_video_is_not_the_clip(tmp_path: Path) -> None:
    (tmp_path / "abc_70_80.wav").write_bytes(b"sound")
    source = open_source({"kind": "folder", "path": str(tmp_path)}, [Segment("abc", 30, 40)], 0)
    assert source.fetch(Segment("abc", 30, 40)) == Fetched(Status.UNAVAILABLE, "no file")


def test_the_plainest_of_several_names_wins_in_any_order(tmp_path: Path) -> None:
    for name in ("abc_30.wav", "abc.wav", "Yabc.wav", "z/abc.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    source = open_source({"kind": "folder", "path": str(tmp_path)}, [Segment("abc", 30, 40)], 0)
    assert source.fetch(Segment("abc", 30, 40)).data == b"abc.wav"


def test_missing_and_empty_files_have_their_reasons(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "there.wav").write_bytes(b"sound")
    (folder / "empty.wav").touch()
    segments = segment_list(tmp_path, ("absent", 0, 1), ("empty", 0, 1), ("there", 0, 1))
    source = {"kind": "folder", "path": str(folder), "clip_s": 10.0}
    fetch(segments=segments, out=tmp_path / "out.h5", source=source, max_failed_share=0.5)
    assert results(tmp_path / "out.h5") == {
        "absent": ("UNAVAILABLE", "no file", b""),
        "empty": ("FAILED", "empty file", b""),
        "there": ("OK", "", b"sound"),
    }
    with pytest.raises(TransientError, match=r"train-0003: 1 of 3 clips failed, .* \(1 empty file\)"):
        fetch(segments=segments, out=tmp_path / "other.h5", source=source, max_failed_share=0.3)
    assert not (tmp_path / "other.h5").exists()


def test_the_segment_is_cut_from_a_whole_video(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "video.wav").write_bytes(wav(10))
    (folder / "short.wav").write_bytes(wav(3))
    ready = wav(2)  # once: its header holds the time at which it was written
    (folder / "ready_4_6.wav").write_bytes(ready)
    segments = segment_list(tmp_path, ("ready", 4, 6), ("short", 4, 6), ("video", 4, 6))
    source = {"kind": "folder", "path": str(folder), "whole_files": False}
    fetch(segments=segments, out=tmp_path / "out.h5", source=source)
    found = results(tmp_path / "out.h5")
    assert found["short"][:2] == ("UNAVAILABLE", "video ends before the segment")
    assert found["ready"][2] == ready
    waveform, rate = decode(found["video"][2])
    assert rate == RATE
    np.testing.assert_allclose(waveform[0], ramp(10)[4 * RATE : 6 * RATE], atol=2**-15)


def test_a_loop_of_links_ends(tmp_path: Path) -> None:
    (tmp_path / "abc.wav").write_bytes(b"sound")
    (tmp_path / "loop").symlink_to(tmp_path)
    source = open_source({"kind": "folder", "path": str(tmp_path)}, [Segment("abc", 0, 1)], 0)
    assert source.fetch(Segment("abc", 0, 1)).data == b"sound"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"kind": "folder", "path": "/nowhere"}, r"audioset\.source\.path: /nowhere is no folder"),
        ({"kind": "folder", "path": os.devnull}, "is no folder"),
        ({"kind": "folder"}, "kind folder needs the setting 'path'"),
        ({"kind": "folder", "path": ".", "pth": "."}, "kind folder has no setting 'pth'"),
        ({"kind": "ftp"}, "'ftp' is unknown; one of folder, renderer, youtube"),
        ({"kind": "youtube", "url_template": "http://x"}, "has no {ytid} in it"),
        ({"kind": "youtube", "cookies": "/no/cookies.txt"}, "/no/cookies.txt is no file"),
    ],
)
def test_a_wrong_source_is_one_line(tmp_path: Path, source: dict, words: str) -> None:
    with pytest.raises(SsondoError, match=words) as caught:
        fetch(segments=segment_list(tmp_path, ("a", 0, 1)), out=tmp_path / "out.h5", source=source)
    assert "\n" not in str(caught.value)


def test_a_folder_without_sound_is_a_fault_not_a_shard_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(SsondoError, match="has no sound files"):
        fetch(
            segments=segment_list(tmp_path, ("a", 0, 1)),
            out=tmp_path / "out.h5",
            source={"kind": "folder", "path": str(tmp_path)},
        )


def test_an_empty_list_gives_an_empty_shard(tmp_path: Path) -> None:
    fetch(segments=segment_list(tmp_path), out=tmp_path / "out.h5", source={"kind": "folder", "path": str(tmp_path)})
    assert results(tmp_path / "out.h5") == {}


@pytest.mark.slow
def test_the_same_clips_come_from_one_process_and_from_two(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for n in range(20):
        (folder / f"v{n:02d}.wav").write_bytes(wav(n / 4 + 0.5))
    segments = segment_list(tmp_path, *((f"v{n:02d}", 1, 3) for n in range(20)))
    for n_workers in (1, 2):
        fetch(
            segments=segments,
            out=tmp_path / f"{n_workers}.h5",
            source={"kind": "folder", "path": str(folder), "whole_files": False},
            n_workers=n_workers,
        )
    assert (tmp_path / "1.h5.digest").read_text() == (tmp_path / "2.h5.digest").read_text()


# Spool


def test_a_torn_last_record_is_dropped_and_the_rest_is_kept(tmp_path: Path) -> None:
    path, clips = tmp_path / "x.spool", [Segment("a", 0, 1), Segment("b", 0, 1), Segment("c", 0, 1)]
    with Spool(path, "source") as spool:
        spool.add(clips[0], Fetched(Status.OK, "", b"sound of a"))
        spool.add(clips[1], Fetched(Status.UNAVAILABLE, "private"))
        whole = path.stat().st_size
        spool.add(clips[2], Fetched(Status.OK, "", b"sound of c" * 100))
    for cut in (whole, whole + 1, whole + 30, path.stat().st_size - 1):
        torn = tmp_path / f"{cut}.spool"
        torn.write_bytes(path.read_bytes()[:cut])
        with Spool(torn, "source") as spool:
            assert len(spool) == 2
            assert spool.get(clips[0]) == Fetched(Status.OK, "", b"sound of a")
            assert spool.get(clips[1]) == Fetched(Status.UNAVAILABLE, "private", b"")
            assert spool.get(clips[2]) is None
            spool.add(clips[2], Fetched(Status.OK, "", b"again"))
        with Spool(torn, "source") as spool:
            assert spool.get(clips[2]) == Fetched(Status.OK, "", b"again")


def test_a_damaged_record_ends_what_is_trusted(tmp_path: Path) -> None:
    path = tmp_path / "x.spool"
    with Spool(path, "source") as spool:
        spool.add(Segment("a", 0, 1), Fetched(Status.OK, "", b"sound of a"))
        spool.add(Segment("b", 0, 1), Fetched(Status.OK, "", b"sound of b"))
    data = path.read_bytes()
    path.write_bytes(data.replace(b"sound of b", b"sOund of b"))
    with Spool(path, "source") as spool:
        assert spool.get(Segment("a", 0, 1)) is not None
        assert spool.get(Segment("b", 0, 1)) is None


def test_clips_of_other_times_or_another_source_are_not_used(tmp_path: Path) -> None:
    path = tmp_path / "x.spool"
    with Spool(path, "source") as spool:
        spool.add(Segment("a", 0, 1), Fetched(Status.OK, "", b"sound"))
        assert spool.get(Segment("a", 5, 6)) is None
    with Spool(path, "another") as spool:
        assert spool.get(Segment("a", 0, 1)) is None


# yt-dlp against a server of this machine


class _Server(http.server.ThreadingHTTPServer):
    """Serves sound by name; `answers` says what each name gets."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[str] = []
        self.status: dict[str, int] = {}
        self.cut: set[str] = set()
        self.sound = wav(20)
        self.url = f"http://127.0.0.1:{self.server_port}/{{ytid}}.wav"

    def first_requests(self) -> Counter[str]:
        """How often each clip was asked for; ffmpeg's own requests have a Range."""
        return Counter(self.asked)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        name = self.path.strip("/").removesuffix(".wav")
        wanted = self.headers.get("Range")
        if not wanted:
            self.server.asked.append(name)
        status = self.server.status.get(name, 206 if wanted else 200)
        if status >= 400:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = int(wanted.removeprefix("bytes=").split("-")[0]) if wanted else 0
        data = self.server.sound
        self.send_response(status)
        self.send_header("Content-Type", "audio/x-wav")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(data) - start))
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if name in self.server.cut:
            self.close_connection = True
            data = data[: start + 20_000]
        try:
            self.wfile.write(data[start:])
        except OSError:
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[_Server]:
    logging.getLogger("ssondo.sources.youtube").setLevel(logging.ERROR)
    with _Server() as running:
        running.handle_error = lambda *_: None  # type: ignore[method-assign]
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


def youtube(server: _Server, **settings: object) -> dict:
    return {
        "kind": "youtube",
        "url_template": server.url,
        "requests_per_hour": 10_000_000,
        "pauses_s": [0.01, 0.01],
        **settings,
    }


@pytest.mark.slow
def test_each_answer_of_a_server_ends_as_it_must(tmp_path: Path, server: _Server) -> None:
    server.status = {"gone": 404, "forbidden": 403, "broken": 500}
    server.cut = {"cut"}
    names = ("broken", "cut", "forbidden", "gone", "good")
    out = tmp_path / "out.h5"
    fetch(
        segments=segment_list(tmp_path, *((name, 5, 9) for name in names)),
        out=out,
        source=youtube(server, attempts=2),
        max_failed_share=0.6,
    )
    found = results(out)
    assert {name: ending[:2] for name, ending in found.items()} == {
        "broken": ("FAILED", "HTTP 500"),
        "cut": ("FAILED", found["cut"][1]),
        "forbidden": ("FAILED", "HTTP 403"),
        "gone": ("UNAVAILABLE", "removed (HTTP 404)"),
        "good": ("OK", ""),
    }
    # Only the wanted seconds, cut at the sample.
    waveform, rate = decode(found["good"][2])
    assert (rate, waveform.shape) == (RATE, (1, 4 * RATE))
    np.testing.assert_allclose(waveform[0], ramp(20)[5 * RATE : 9 * RATE], atol=2**-14)
    assert server.first_requests() == {"good": 1, "gone": 1, "forbidden": 2, "broken": 2, "cut": 2}
    assert not spool_path(out).exists()


@pytest.mark.slow
def test_a_rate_limit_pauses_and_goes_on(tmp_path: Path, server: _Server) -> None:
    server.status = {"clip": 429}
    threading.Timer(1.0, server.status.clear).start()
    source = open_source(youtube(server, pauses_s=[0.5] * 20), [], 0)
    fetched = source.fetch(Segment("clip", 0, 1))
    assert fetched.status is Status.OK
    assert server.first_requests()["clip"] > 1


@pytest.mark.slow
def test_a_lasting_rate_limit_fails_the_job_and_the_next_one_goes_on_where_it_was(
    tmp_path: Path, server: _Server
) -> None:
    segments = segment_list(tmp_path, *((name, 0, 1) for name in ("a", "b", "c", "d")))
    out = tmp_path / "out.h5"
    server.status = {"c": 429, "b": 410}
    with pytest.raises(TransientError, match=r"limits the rate \(HTTP 429\)"):
        fetch(segments=segments, out=out, source=youtube(server))
    assert not out.exists()
    assert spool_path(out).exists()
    assert server.first_requests() == {"a": 1, "b": 1, "c": 3}
    server.status, server.asked = {}, []
    fetch(segments=segments, out=out, source=youtube(server))
    assert server.first_requests() == {"c": 1, "d": 1}
    assert [ending[0] for ending in results(out).values()] == ["OK", "UNAVAILABLE", "OK", "OK"]
    assert not spool_path(out).exists()


@pytest.mark.slow
def test_a_killed_job_loses_one_clip_at_most(tmp_path: Path, server: _Server) -> None:
    names = [f"clip{n:02d}" for n in range(12)]
    segments = segment_list(tmp_path, *((name, 0, 1) for name in names))
    out = tmp_path / "out.h5"
    slow = youtube(server, requests_per_hour=18_000)  # five a second
    program = (
        "from pathlib import Path; from ssondo.fetch import fetch; "
        f"fetch(segments=Path({str(segments)!r}), out=Path({str(out)!r}), source={slow!r})"
    )
    with subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.DEVNULL) as job:
        deadline = time.monotonic() + 60
        while len(server.asked) < 5 and time.monotonic() < deadline:
            time.sleep(0.01)
        job.kill()
    assert len(server.asked) >= 5
    assert not out.exists()
    fetch(segments=segments, out=out, source=youtube(server))
    times = server.first_requests()
    assert set(times) == set(names)
    assert sum(times.values()) <= len(names) + 1
    assert [ending[0] for ending in results(out).values()] == ["OK"] * len(names)


@pytest.mark.slow
def test_nothing_is_left_in_the_temporary_folder(
    tmp_path: Path, server: _Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    server.cut = {"cut"}
    source = open_source(youtube(server, attempts=1), [], 0)
    source.fetch(Segment("good", 0, 1))
    source.fetch(Segment("cut", 5, 9))
    assert list(temporary.iterdir()) == []


@pytest.mark.slow
def test_a_job_keeps_its_part_of_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    now, slept = [100.0], []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    source = Youtube(requests_per_hour=300, max_jobs=4)
    monkeypatch.setattr("ssondo.sources.youtube.time.monotonic", lambda: now[0])
    monkeypatch.setattr("ssondo.sources.youtube.time.sleep", sleep)
    monkeypatch.setattr(Youtube, "_try", lambda *_: Fetched(Status.OK, "", b"x"))
    source._next_request = now[0]
    for _ in range(76):
        source.fetch(Segment("a", 0, 1))
    # 300 an hour over four jobs: 75 in an hour, so the 76th comes an hour after the first.
    assert now[0] - 100.0 == pytest.approx(3600)


class _YtDlpError(Exception):
    def __init__(self, text: str, status: int | None = None) -> None:
        super().__init__(text)
        self.status = status


# Texts as yt-dlp passes them on, from its issues.
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("ERROR: [youtube] abc: Private video. Sign in if you've been granted access to this video", "private"),
        ("ERROR: [youtube] abc: Join this channel to get access to members-only content like this video", "private"),
        ("ERROR: [youtube] abc: Sign in to confirm your age. This video may be inappropriate for some users.", "age"),
        (
            "ERROR: [youtube] abc: Video unavailable. The uploader has not made this video available in your country",
            "region",
        ),
        (
            "ERROR: [youtube] abc: Video unavailable. This video is no longer available because the YouTube account "
            "associated with this video has been terminated.",
            "removed",
        ),
        ("ERROR: [youtube] abc: This video has been removed by the uploader", "removed"),
        (
            "ERROR: [youtube] abc: Video unavailable. This video is no longer available due to a copyright claim by X",
            "copyright",
        ),
        ("ERROR: [youtube] abc: This live event will begin in 3 days.", "live"),
        ("ERROR: [youtube] abc: Video unavailable", "unavailable"),
    ],
)
def test_reasons_that_last_are_unavailable(text: str, reason: str) -> None:
    assert _classified(_YtDlpError(text)) == Fetched(Status.UNAVAILABLE, reason)


@pytest.mark.parametrize(
    ("text", "status", "reason"),
    [
        ("ERROR: unable to download video data: HTTP Error 403: Forbidden", 403, "HTTP 403"),
        ("ERROR: unable to download video data: HTTP Error 404: Not Found", 404, "HTTP 404"),
        ("ERROR: [youtube] abc: Unable to download API page: <urlopen error timed out>", None, "timeout"),
        (
            "ERROR: [youtube] abc: Unable to download webpage: [Errno -3] Temporary failure in name resolution",
            None,
            "no network",
        ),
        ("ERROR: Connection reset by peer", None, "connection lost"),
        ("ERROR: something never seen", None, "something never seen"),
    ],
)
def test_faults_of_the_network_and_unknown_ones_may_pass(text: str, status: int | None, reason: str) -> None:
    assert _classified(_YtDlpError(text, status)) == Fetched(Status.FAILED, reason)


@pytest.mark.parametrize(
    "text",
    [
        "ERROR: [youtube] abc: Video unavailable. This content isn't available, try again later. The current session "
        "has been rate-limited by YouTube for up to an hour.",
        "ERROR: [youtube] abc: Sign in to confirm you\u2019re not a bot. Use --cookies-from-browser or --cookies",
        "ERROR: [youtube] abc: Unable to download webpage: HTTP Error 429: Too Many Requests",
    ],
)
def test_a_rate_limit_is_never_unavailable(text: str) -> None:
    with pytest.raises(_RateLimited):
        _classified(_YtDlpError(text))


@pytest.mark.parametrize(
    ("info", "reason"),
    [
        ({"live_status": "is_live"}, "live"),
        ({"live_status": "is_upcoming"}, "live"),
        ({"duration": 29}, "too short"),
    ],
)
@pytest.mark.slow
def test_what_cannot_be_cut_is_known_before_it_is_downloaded(info: dict, reason: str) -> None:
    source = Youtube()
    source._segment = Segment("a", 30, 40)
    with pytest.raises(Exception, match=f"^{reason}$"):
        list(source._ranges(info, None))


# Renderer


def test_the_renderer_is_asked_for_the_segments_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    demo = pytest.importorskip("ssondo.demo")
    asked: list[tuple] = []

    def render(ytid: str, *, seconds: float, seed: int) -> bytes:
        asked.append((ytid, seconds, seed))
        return b"sound"

    monkeypatch.setattr(demo, "render_clip", render)
    fetch(
        segments=segment_list(tmp_path, ("a", 0, 2.5)),
        out=tmp_path / "out.h5",
        source={"kind": "renderer", "seed": 7, "clip_s": 2.5},
    )
    assert asked == [("a", 2.5, 7)]
    assert results(tmp_path / "out.h5") == {"a": ("OK", "", b"sound")}


def test_the_log_ends_with_one_line_of_counts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.wav").write_bytes(b"x")
    with caplog.at_level(logging.INFO):
        fetch(
            segments=segment_list(tmp_path, ("a", 0, 1), ("b", 0, 1)),
            out=tmp_path / "out.h5",
            source={"kind": "folder", "path": str(tmp_path)},
        )
    assert "fetch train-0003: 1 of 2 clips, 1 unavailable, 0 failed" in caplog.records[-1].message
