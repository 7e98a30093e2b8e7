"""Tests of fetching with yt-dlp: its generic extractor and ffmpeg, against a local server."""

import logging
import random
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from media_server import RATE, Server, ramp, serving, wait_until
from processes import children_called
from shard_results import results

from ssondo.audio.decoders import ffmpeg_binary
from ssondo.audio.decoding import decode_file
from ssondo.audioset.clip_ledger import Ledger, ledger_path, read_ledger
from ssondo.audioset.fetch import fetch
from ssondo.audioset.resample import resample
from ssondo.audioset.sources import Fetched, RateLimited
from ssondo.audioset.sources.youtube import Youtube, classify_error
from ssondo.errors import TransientError
from ssondo.storage.clip_location import ClipLocation, LocationChanged, read_clip
from ssondo.storage.segments import Segment, read_segments
from ssondo.storage.shards.audio import AudioShard
from ssondo.storage.shards.status import Status

# The local server needs no pauses between requests.
NO_WAIT = {
    "requests_per_hour": 1e9,
    "sleep_s": 0,
    "pauses_s": [0.01, 0.01, 0.01],
    "backoff_s": 0.0,
    "max_tries_per_clip": 2,
}


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


def source(server: Server) -> dict:
    return {"kind": "youtube", "url_template": server.url}


def segment_list(folder: Path, names: list[str], start: float = 0, end: float = 1) -> Path:
    path = folder / "train-0003.csv"
    path.write_text("ytid,start_s,end_s,labels\n" + "".join(f"{name},{start},{end},\n" for name in names))
    return path


def sound(path: Path, clip: str) -> bytes:
    with AudioShard(path) as shard:
        location = shard.location(shard.clip_ids.index(clip))
    assert location is not None
    return read_clip(ClipLocation.from_bytes(*location), path.parent)


# Each answer of a server and the result of the clip. A rate limit gives no result. A 404 for the page of a video is
# permanent; a 404 for the URL of its audio is not, because such URLs expire after some hours.
ANSWERS = [
    (200, ("OK", "")),
    ("slow", ("OK", "")),
    (404, ("UNAVAILABLE", "removed (HTTP 404)")),
    (410, ("UNAVAILABLE", "removed (HTTP 410)")),
    (451, ("UNAVAILABLE", "region (HTTP 451)")),
    ("short", ("UNAVAILABLE", "too short")),
    (403, ("FAILED", "HTTP 403")),
    (500, ("FAILED", "HTTP 500")),
    (503, ("FAILED", "HTTP 503")),
    ("cut", ("FAILED", "connection lost")),
    ("longer", ("FAILED", "HTTP 416")),
    ("html", ("FAILED", "not sound")),
    ("stall", ("FAILED", "damaged on the way")),
    ("drip", ("FAILED", "timeout")),
    ("head", ("FAILED", "timeout")),
    ("loop", ("FAILED", "HTTP 302")),
    (429, ("rate limited", "7")),
]
ANSWERS_FOR_SOUND = {
    404: ("FAILED", "HTTP 404"),
    410: ("FAILED", "HTTP 410"),
    451: ("FAILED", "HTTP 451"),
    "html": ("FAILED", "damaged on the way"),
    "loop": ("FAILED", "ffmpeg exited with code 251"),
    429: ("rate limited", "0"),
}
# Time limits of one read and of a whole clip, in seconds. The answer "slow" takes longer than one read may, but each of
# its reads is far below the limit. All other limits are so long that a busy machine does not reach them.
LIMITS = {"stall": (2, 120), "slow": (2, 120), "drip": (60, 3), "head": (60, 3)}


@pytest.mark.slow
def test_each_answer_of_the_server_gives_its_status_and_reason(server: Server) -> None:
    server.retry_after = "7"
    actual, expected = {}, {}
    for how, result in ANSWERS:
        socket_timeout_s, clip_timeout_s = LIMITS.get(str(how), (30, 120))
        youtube = Youtube(url_template=server.url, socket_timeout_s=socket_timeout_s, clip_timeout_s=clip_timeout_s)
        for only_sound in (False, True):
            name = f"{how}-{only_sound}"
            server.behaviour[name] = how
            server.only_sound |= {name} if only_sound else set()
            expected[name] = ANSWERS_FOR_SOUND.get(how, result) if only_sound else result
            try:
                fetched = youtube.fetch(Segment(name, 5, 9))
                actual[name] = (fetched.status.name, fetched.reason)
            except RateLimited as limit:
                actual[name] = ("rate limited", f"{limit.retry_after_s:g}")
    assert actual == expected
    # One request per clip, apart from the redirect loop.
    assert {name: n for name, n in server.count_requests().items() if n > 1 and "loop" not in name} == {}


@pytest.mark.slow
def test_only_the_segment_is_downloaded_and_it_is_not_encoded_again(server: Server, tmp_path: Path) -> None:
    fetched = Youtube(url_template=server.url).fetch(Segment("good", 5, 9))
    waveform, rate, _ = decode_file(fetched.data)
    assert rate == RATE
    # ffmpeg keeps whole packets, so the clip may end a little later. The samples are identical to the server's.
    assert 4 * RATE <= waveform.shape[1] < 4.3 * RATE
    np.testing.assert_allclose(waveform[0, : 4 * RATE], ramp(20)[5 * RATE : 9 * RATE], atol=2**-15)
    wav, opus = tmp_path / "20s.wav", tmp_path / "20s.webm"
    wav.write_bytes(server.sound)
    binary = ffmpeg_binary()
    assert binary is not None
    subprocess.run([binary, "-v", "error", "-i", str(wav), "-c:a", "libopus", "-b:a", "48k", str(opus)], check=True)
    server.sound = opus.read_bytes()
    fetched = Youtube(url_template=server.url.replace(".wav", ".webm")).fetch(Segment("good.webm", 5, 9))
    assert b"OpusHead" in fetched.data
    assert len(fetched.data) < 4 / 20 * len(server.sound) + 5_000
    waveform, rate, _ = decode_file(fetched.data)
    # Within one packet of 20 ms; the clip never begins before the segment.
    assert 3.9 * rate < waveform.shape[1] < 4.05 * rate


@pytest.mark.slow
def test_fetch_waits_for_a_rate_limit_and_then_continues(tmp_path: Path, server: Server) -> None:
    server.behaviour = {"clip": 429}

    def end_rate_limit() -> None:
        wait_until(lambda: server.count_requests()["clip"] > 1, seconds=600)
        server.behaviour.clear()

    threading.Thread(target=end_rate_limit, daemon=True).start()
    out = tmp_path / "out.h5"
    fetch(
        segments=segment_list(tmp_path, ["clip", "other"]),
        out=out,
        source=source(server),
        fetch_policy={**NO_WAIT, "pauses_s": [0.3] * 20},
    )
    assert results(out) == {"clip": ("OK", ""), "other": ("OK", "")}
    assert server.count_requests()["clip"] > 1
    assert [entry.status for entry in read_ledger(ledger_path(out)).values()] == [Status.OK] * 2


@pytest.mark.slow
def test_permanent_rate_limit_fails_the_job_and_the_next_job_resumes(tmp_path: Path, server: Server) -> None:
    segments, out = segment_list(tmp_path, ["a", "b", "c", "d"]), tmp_path / "out.h5"
    server.behaviour = {"c": 429, "b": 410}
    with pytest.raises(TransientError, match=r"limits the rate \(HTTP 429\)"):
        fetch(segments=segments, out=out, source=source(server), fetch_policy=NO_WAIT)
    assert not out.exists()
    assert server.count_requests() == {"a": 1, "b": 1, "c": 4}
    server.behaviour, server.requested = {}, []
    fetch(segments=segments, out=out, source=source(server), fetch_policy=NO_WAIT)
    assert server.count_requests() == {"c": 1, "d": 1}
    assert [status for status, _ in results(out).values()] == ["OK", "UNAVAILABLE", "OK", "OK"]


@pytest.mark.slow
def test_streak_of_refusals_counts_as_throttling_and_marks_no_clip_as_failed(
    tmp_path: Path, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    names = [f"clip{n}" for n in range(9)]
    segments, out = segment_list(tmp_path, names), tmp_path / "out.h5"
    server.behaviour = dict.fromkeys(names[2:], 403)
    server.only_sound = set(names)
    with caplog.at_level(logging.WARNING):
        with pytest.raises(TransientError, match="6 clips in a row failed: HTTP 403; the server may limit the rate"):
            fetch(segments=segments, out=out, source=source(server), fetch_policy={**NO_WAIT, "failure_streak": 3})
        assert sum("pausing" in record.message for record in caplog.records) == 3
    # The server works again: all clips are fetched, none was marked as failed.
    server.behaviour = {}
    fetch(segments=segments, out=out, source=source(server), fetch_policy={**NO_WAIT, "failure_streak": 3})
    assert set(results(out).values()) == {("OK", "")}


@pytest.mark.slow
def test_missing_network_ends_the_job_early_and_marks_no_clip(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = [f"clip{n}" for n in range(9)]
    segments, out = segment_list(tmp_path, names), tmp_path / "out.h5"
    with socket.socket() as closed_port, caplog.at_level(logging.WARNING):
        closed_port.bind(("127.0.0.1", 0))  # bound but not listening, so connections are refused
        url = f"http://127.0.0.1:{closed_port.getsockname()[1]}/{{ytid}}.wav"
        with pytest.raises(TransientError, match=r"^4 clips in a row failed: connection lost; check the network"):
            fetch(
                segments=segments,
                out=out,
                source={"kind": "youtube", "url_template": url},
                fetch_policy={**NO_WAIT, "failure_streak": 3},
            )
    assert [record.message.partition(";")[0] for record in caplog.records] == [
        "3 clips in a row failed: connection lost"
    ]
    with Ledger(ledger_path(out), f'youtube "{url}"') as ledger:
        assert ledger.entries
        assert not any(map(ledger.finished, read_segments(segments)))
    assert not out.exists()


@pytest.mark.slow
def test_streak_of_clips_that_fail_permanently_is_recorded_as_failed(tmp_path: Path, server: Server) -> None:
    bad, good = [f"bad{n}" for n in range(4)], [f"good{n}" for n in range(4)]
    out = tmp_path / "out.h5"
    server.behaviour = dict.fromkeys(bad, 500)
    fetch(
        segments=segment_list(tmp_path, bad + good),
        out=out,
        source=source(server),
        fetch_policy={**NO_WAIT, "failure_streak": 3},
        max_failed_share=0.5,
    )
    by_clip = results(out)
    assert {by_clip[name] for name in bad} == {("FAILED", "HTTP 500")}
    assert {by_clip[name] for name in good} == {("OK", "")}
    # `max_tries_per_clip` is 2, and a failure streak adds one request.
    assert max(server.count_requests().values()) <= 3


@pytest.mark.slow
def test_failed_clips_are_retried_last_and_within_the_budget_of_retries(tmp_path: Path, server: Server) -> None:
    names = ["x", "good", "y", "z"]
    server.behaviour = {"x": 500, "y": 503, "z": "cut"}
    fetch(
        segments=segment_list(tmp_path, names),
        out=tmp_path / "out.h5",
        source=source(server),
        fetch_policy={**NO_WAIT, "max_tries_per_clip": 5, "max_retries_per_job": 2},
        max_failed_share=1.0,
    )
    assert server.requested[:4] == names
    assert len(server.requested) == 4 + 2


@pytest.mark.slow
def test_shard_that_is_made_again_requests_only_failed_clips(tmp_path: Path, server: Server) -> None:
    segments, out = segment_list(tmp_path, ["a", "b", "c"]), tmp_path / "out.h5"
    server.behaviour = {"b": 404, "c": 500}
    fetch(segments=segments, out=out, source=source(server), fetch_policy=NO_WAIT, max_failed_share=0.5)
    server.behaviour, server.requested = {}, []
    out.unlink()
    fetch(segments=segments, out=out, source=source(server), fetch_policy=NO_WAIT)
    assert server.requested == ["c"]
    assert results(out) == {"a": ("OK", ""), "b": ("UNAVAILABLE", "removed (HTTP 404)"), "c": ("OK", "")}


@pytest.mark.slow
def test_only_the_clip_whose_stored_audio_was_damaged_is_fetched_again(tmp_path: Path, server: Server) -> None:
    segments, out = segment_list(tmp_path, ["a", "b", "c"]), tmp_path / "out.h5"
    fetch(segments=segments, out=out, source=source(server), fetch_policy=NO_WAIT)
    whole = sound(out, "b")
    ledger = ledger_path(out)
    damaged = bytearray(ledger.read_bytes())
    damaged[read_ledger(ledger)["b", 0, 1].start + 1_000] ^= 0xFF
    ledger.write_bytes(damaged)
    with pytest.raises(LocationChanged, match="--forcerun locate fetch"):
        resample(audio=out, out=tmp_path / "resampled.h5", sample_rate=RATE, clip_s=1)
    server.requested = []
    out.unlink()
    fetch(segments=segments, out=out, source=source(server), fetch_policy=NO_WAIT)
    assert server.requested == ["b"]
    assert sound(out, "b") == whole
    resample(audio=out, out=tmp_path / "resampled.h5", sample_rate=RATE, clip_s=1)
    assert set(results(tmp_path / "resampled.h5").values()) == {("OK", "")}


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="needs /proc to find child processes")
def test_fetch_leaves_no_temporary_files_and_no_child_processes(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    server.behaviour = {"cut": "cut", "drip": "drip"}
    reasons = {"good": "", "cut": "connection lost", "drip": "timeout"}
    for name, reason in reasons.items():
        youtube = Youtube(url_template=server.url, clip_timeout_s=0.5 if name == "drip" else 120)
        assert youtube.fetch(Segment(name, 5, 9)).reason == reason
    assert list((tmp_path / "tmp").iterdir()) == []
    assert children_called(Path(ffmpeg_binary() or "").name[:15]) == []  # Linux shortens names to 15 characters


@pytest.mark.slow
def test_each_job_uses_its_own_proxy_for_all_requests(server: Server) -> None:
    with serving() as other:
        proxies = [f"http://127.0.0.1:{number}" for number in (server.server_port, other.server_port)]
        youtube = Youtube(url_template="http://nowhere.invalid/{ytid}.wav", proxies=proxies, job=3)
        fetched = youtube.fetch(Segment("good", 5, 9))
        assert fetched.status is Status.OK
        # One request of yt-dlp and at least one of ffmpeg.
        assert len(other.requests) >= 2
        urls = {address.replace(":80/", "/") for address, _ in other.requests}
        assert urls == {"http://nowhere.invalid/good.wav"}
    assert server.requests == []


@pytest.mark.slow
def test_cookies_are_sent_with_the_request_for_a_video(server: Server, tmp_path: Path) -> None:
    cookies = tmp_path / "cookies.txt"
    cookies.write_text("# Netscape HTTP Cookie File\n127.0.0.1\tFALSE\t/\tFALSE\t0\tsession\tmine\n")
    fetched = Youtube(url_template=server.url, cookies=str(cookies)).fetch(Segment("good", 5, 9))
    assert fetched.status is Status.OK
    # ffmpeg sends no cookies; YouTube's audio URLs contain their own authorisation.
    assert server.requests[0] == ("/good.wav", "session=mine")


# Imports the slow modules once, then fetches in child processes, which are killed.
_DRIVER = """
import logging, os, random, signal, sys, time
from pathlib import Path
import yt_dlp.extractor.extractors
from ssondo.audioset.fetch import fetch
from ssondo.audioset.clip_ledger import Ledger, ledger_path, read_ledger
from ssondo.audioset.sources.youtube import Youtube
segments, out, url, n_kills = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
logging.disable(logging.CRITICAL)
Youtube(url_template=url)
chance = random.Random(1)
finished = lambda: len(read_ledger(ledger_path(out))) if ledger_path(out).exists() else 0
while True:
    child = os.fork()
    if child == 0:
        os.setsid()
        fetch(segments=segments, out=out, source={"kind": "youtube", "url_template": url},
              fetch_policy={"requests_per_hour": 1e9, "sleep_s": 0})
        os._exit(0 if n_kills == 0 else 1)
    if n_kills == 0:
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    # An equal share of the remaining clips on average, at any speed of the machine.
    target = finished() + chance.randrange(1, max(2, 2 * (200 - finished()) // (n_kills + 2)))
    while finished() < target:
        if os.waitpid(child, os.WNOHANG)[0]:
            sys.exit("the shard was finished before it could be killed")
        time.sleep(0.005)
    time.sleep(chance.uniform(0.0, 0.03))
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    n_kills -= 1
    print(n_kills, flush=True)
    sys.stdin.readline()
"""


@pytest.mark.slow
def test_shard_killed_twenty_times_is_identical_and_fetches_no_clip_twice(tmp_path: Path) -> None:
    names = [f"clip{n:03d}" for n in range(200)]
    segments = segment_list(tmp_path, names, 0, 0.5)
    with serving(seconds=2) as server:
        removed = set(random.Random(0).sample(names, 120))
        server.behaviour = dict.fromkeys(removed, 404)
        shards = {"killed": tmp_path / "killed" / "train-0003.h5", "whole": tmp_path / "whole" / "train-0003.h5"}
        n_stored = []
        for kind, n_kills in (("killed", 20), ("whole", 0)):
            server.requested = []
            with subprocess.Popen(
                [sys.executable, "-c", _DRIVER, str(segments), str(shards[kind]), server.url, str(n_kills)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            ) as driver:
                assert driver.stdin is not None
                assert driver.stdout is not None
                stored: set[str] = set()
                for _ in driver.stdout:
                    assert not stored & set(server.requested), "a clip that was stored was requested again"
                    ledger = ledger_path(shards[kind])
                    stored = {ytid for ytid, *_ in read_ledger(ledger)} if ledger.exists() else set()
                    n_stored.append(len(stored))
                    server.requested = []
                    driver.stdin.write("\n")
                    driver.stdin.flush()
            assert driver.returncode == 0
            assert not stored & set(server.requested)
    # The kills were spread over the whole job.
    assert len(n_stored) == 20
    assert 100 < n_stored[-1] < 200
    assert len(set(n_stored)) == 20
    digests = {path.with_name(f"{path.name}.digest").read_text() for path in shards.values()}
    assert len(digests) == 1
    assert {clip for clip, (status, _) in results(shards["killed"]).items() if status == "UNAVAILABLE"} == removed
    left = {path.name for path in shards["killed"].parent.iterdir()}
    assert left == {"train-0003.h5", "train-0003.h5.digest", "train-0003.ledger"}
    assert sound(shards["killed"], min(set(names) - removed)) == sound(shards["whole"], min(set(names) - removed))


@pytest.mark.slow
def test_exception_inside_yt_dlp_fails_only_its_own_clip(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from yt_dlp.extractor.generic import GenericIE

    extract = GenericIE._real_extract

    def raise_for_bad_page(self: GenericIE, url: str) -> dict:
        if "bad" in url:
            raise TypeError("'NoneType' object is not subscriptable")
        return extract(self, url)

    monkeypatch.setattr(GenericIE, "_real_extract", raise_for_bad_page)
    segments, out = segment_list(tmp_path, ["a", "bad", "b"]), tmp_path / "out.h5"
    with caplog.at_level(logging.WARNING):
        fetch(segments=segments, out=out, source=source(server), fetch_policy=NO_WAIT, max_failed_share=0.5)
    bug = "yt-dlp: TypeError: 'NoneType' object is not subscriptable"
    assert results(out) == {"a": ("OK", ""), "bad": ("FAILED", bug), "b": ("OK", "")}
    assert "raise_for_bad_page" in caplog.text
    entries = read_ledger(ledger_path(out))
    assert entries["bad", 0, 1].reason == bug


class _YtDlpError(Exception):
    def __init__(self, text: str, status: int | None = None) -> None:
        super().__init__(text)
        self.status = status


# Messages of YouTube as yt-dlp reports them.
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
        ("ERROR: [youtube] abc: This video is DRM protected", "protected"),
        ("ERROR: [youtube] abc: Video unavailable", "unavailable"),
    ],
)
def test_permanent_error_makes_the_clip_unavailable(text: str, reason: str) -> None:
    assert classify_error(_YtDlpError(text)) == Fetched(Status.UNAVAILABLE, reason)


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
def test_network_and_unknown_errors_make_the_clip_failed(text: str, status: int | None, reason: str) -> None:
    assert classify_error(_YtDlpError(text, status)) == Fetched(Status.FAILED, reason)


IDS_WITH_KEYWORDS = [
    "drm",
    "xXdRmXx-_Ab",
    "abc-DRM-def",
    "copyright-x",
    "terminated",
    "purchase-_1",
    "captcha-abc",
    "timeout",
]


@pytest.mark.parametrize("ytid", IDS_WITH_KEYWORDS)
@pytest.mark.parametrize(
    ("text", "ffmpeg_output", "reason"),
    [
        ("ERROR: [youtube] {}: Unable to download API page: HTTP Error 403: Forbidden", "", "HTTP 403"),
        ("ERROR: [youtube] {}: unexpected answer for {}", "", "unexpected answer for"),
        ("ERROR: [youtube] {}: Failed to ask https://x.org/watch?v={}&sig=a{}z", "", "Failed to ask"),
        (
            "ERROR: ffmpeg exited with code 8",
            "https://x.org/{}?sig=AdRm-{}: Input/output error",
            "ffmpeg exited with code 8",
        ),
        ("ERROR: ffmpeg exited with code 8", "[in#0] removed by terminated drm copyright", "ffmpeg exited with code 8"),
    ],
)
def test_reason_is_never_taken_from_ids_urls_or_ffmpeg_output(
    ytid: str, text: str, ffmpeg_output: str, reason: str
) -> None:
    error = _YtDlpError(text.replace("{}", ytid), 403 if "403" in text else None)
    assert classify_error(error, ffmpeg_output.replace("{}", ytid), ytid) == Fetched(Status.FAILED, reason)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["abc-DRM-xyz", "copyright-x"])
def test_words_in_the_url_do_not_change_the_reason_of_a_refusal(server: Server, name: str) -> None:
    server.behaviour, server.only_sound = {name: 403}, {name}
    url = server.url.replace("{ytid}", "sig-drm-copyright/{ytid}")
    assert Youtube(url_template=url).fetch(Segment(name, 0, 1)) == Fetched(Status.FAILED, "HTTP 403")


@pytest.mark.parametrize(
    "text",
    [
        "ERROR: [youtube] abc: Video unavailable. This content isn't available, try again later. The current session "
        "has been rate-limited by YouTube for up to an hour.",
        "ERROR: [youtube] abc: Sign in to confirm you\u2019re not a bot. Use --cookies-from-browser or --cookies",
        "ERROR: [youtube] abc: Unable to download webpage: HTTP Error 429: Too Many Requests",
    ],
)
def test_rate_limit_message_raises_rate_limited(text: str) -> None:
    with pytest.raises(RateLimited):
        classify_error(_YtDlpError(text))


@pytest.mark.parametrize(
    ("info", "reason"),
    [
        ({"live_status": "is_live"}, "live"),
        ({"live_status": "is_upcoming"}, "live"),
        ({"duration": 29}, "too short"),
    ],
)
@pytest.mark.slow
def test_live_and_too_short_videos_are_refused_before_the_download(info: dict, reason: str) -> None:
    youtube = Youtube()
    youtube._segment = Segment("a", 30, 40)
    with pytest.raises(Exception, match=f"^{reason}$"):
        list(youtube._ranges(info, None))
