import hashlib
import http.server
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from aftermath import names_in, one_line
from file_server import FileServer, serving

from ssondo.errors import SsondoError, TransientError
from ssondo.storage import download as module
from ssondo.storage.download import download, retrieve

CONTENT = np.random.default_rng(0).bytes(3_000_000)
MD5 = hashlib.md5(CONTENT).hexdigest()
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving({"file.bin": CONTENT}) as server:
        yield server


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the downloader would have waited; nothing is waited for."""
    waits: list[float] = []
    monkeypatch.setattr(module.time, "sleep", waits.append)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return waits


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "archives" / "file.bin"


def test_file_is_whole_under_its_name_with_its_digest_and_nothing_else(server: FileServer, out: Path) -> None:
    download(url=server.url(), out=out, md5=MD5.upper(), sha256=SHA256, size=len(CONTENT), licence="CC0")
    assert out.read_bytes() == CONTENT
    assert names_in(out.parent) == ["file.bin", "file.bin.digest"]
    assert (out.parent / "file.bin.digest").read_text() == f"{SHA256}\n"


def test_licence_is_named_once_and_before_anything_is_fetched(
    server: FileServer, out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    server.faults = ["cut", 503]
    download(url=server.url(), out=out, md5=MD5, licence="CC BY-NC 4.0")
    assert [line for line in caplog.messages if "CC BY-NC 4.0" in line] == caplog.messages[:1]


def test_missing_checksum_is_a_warning(server: FileServer, out: Path, caplog: pytest.LogCaptureFixture) -> None:
    download(url=server.url(), out=out)
    assert "not checked" in caplog.text


def test_download_that_was_cut_goes_on_where_it_stopped(server: FileServer, out: Path) -> None:
    server.faults = ["cut"]
    download(url=server.url(), out=out, md5=MD5)
    assert out.read_bytes() == CONTENT
    assert server.ranges == [None, f"bytes={len(CONTENT) // 2}-"]


def test_many_cuts_do_not_end_a_download_that_gets_further(server: FileServer, out: Path) -> None:
    server.faults = ["cut"] * 10
    download(url=server.url(), out=out, md5=MD5)
    assert out.read_bytes() == CONTENT
    assert len(server.ranges) == 11


def test_server_without_ranges_sends_the_file_anew(server: FileServer, out: Path) -> None:
    server.knows_ranges = False
    server.faults = ["cut", "cut"]
    download(url=server.url(), out=out, md5=MD5)
    assert out.read_bytes() == CONTENT


def test_server_without_ranges_that_always_cuts_is_given_up(server: FileServer, out: Path) -> None:
    server.knows_ranges = False
    server.faults = ["cut"] * 20
    with pytest.raises(TransientError, match="1,500,000 of 3,000,000 bytes"):
        download(url=server.url(), out=out, md5=MD5)
    assert len(server.ranges) == 4
    assert not out.exists()


def test_date_of_change_does_where_there_is_no_etag(server: FileServer, out: Path) -> None:
    server.etag, server.modified = None, "Wed, 21 Oct 2015 07:28:00 GMT"
    server.faults = ["cut"]
    download(url=server.url(), out=out)
    assert out.read_bytes() == CONTENT
    assert server.ranges[1] == f"bytes={len(CONTENT) // 2}-"


@pytest.mark.parametrize("md5", [MD5, None])
def test_without_etag_and_date_only_a_checksum_lets_it_go_on(server: FileServer, out: Path, md5: str | None) -> None:
    server.etag = 'W/"weak"'
    server.faults = ["cut"]
    download(url=server.url(), out=out, md5=md5)
    assert out.read_bytes() == CONTENT
    assert server.ranges[1] == (f"bytes={len(CONTENT) // 2}-" if md5 else None)


def test_file_that_changed_since_the_break_comes_whole(server: FileServer, out: Path) -> None:
    server.faults = ["cut", 503, 503, 503]
    with pytest.raises(TransientError):
        download(url=server.url(), out=out)
    server.files["file.bin"], server.etag = CONTENT[::-1], '"second"'
    download(url=server.url(), out=out)
    assert out.read_bytes() == CONTENT[::-1]


def test_part_of_another_file_is_noticed_by_the_checksum_and_fetched_anew(server: FileServer, out: Path) -> None:
    server.etag = None
    server.faults = ["cut", 503, 503, 503]
    server.files["file.bin"] = CONTENT[::-1]
    with pytest.raises(TransientError):
        download(url=server.url(), out=out, md5=MD5)
    server.files["file.bin"] = CONTENT
    download(url=server.url(), out=out, md5=MD5)
    assert out.read_bytes() == CONTENT
    assert server.ranges[-2:] == [f"bytes={len(CONTENT) // 2}-", None]


def test_part_from_another_address_is_not_gone_on_with(server: FileServer, out: Path) -> None:
    server.files["other.bin"] = CONTENT[::-1]
    server.faults = ["cut", 503, 503, 503]
    with pytest.raises(TransientError):
        download(url=server.url("other.bin"), out=out)
    download(url=server.url(), out=out)
    assert out.read_bytes() == CONTENT


def test_whole_part_that_was_never_renamed_is_not_fetched_again(server: FileServer, out: Path) -> None:
    server.faults = ["cut", 503, 503, 503]
    with pytest.raises(TransientError):
        download(url=server.url(), out=out, md5=MD5)
    (out.parent / "file.bin.part").write_bytes(CONTENT)  # as if killed before the renaming
    download(url=server.url(), out=out, md5=MD5)
    assert out.read_bytes() == CONTENT
    assert server.ranges[-1] == f"bytes={len(CONTENT)}-"  # answered by 416


def test_part_longer_than_the_file_is_fetched_anew(server: FileServer, out: Path) -> None:
    server.faults = ["cut", 503, 503, 503]
    with pytest.raises(TransientError):
        download(url=server.url(), out=out)
    (out.parent / "file.bin.part").write_bytes(CONTENT + b"more")
    download(url=server.url(), out=out)
    assert out.read_bytes() == CONTENT


def test_rest_that_begins_elsewhere_is_refused(server: FileServer, out: Path) -> None:
    server.faults = ["cut", "wrong range"]
    download(url=server.url(), out=out)
    assert out.read_bytes() == CONTENT
    assert server.ranges[-1] is None


def test_file_of_unknown_length_is_checked_by_its_checksum(server: FileServer, out: Path) -> None:
    server.says_length = False
    download(url=server.url(), out=out, md5=MD5)
    assert out.read_bytes() == CONTENT
    server.faults = ["cut"]
    with pytest.raises(SsondoError, match="expected"):
        retrieve(server.url(), out.with_name("b"), by_hand="or not", md5=MD5)


@pytest.mark.parametrize("kind", ["md5", "sha256"])
def test_another_file_is_refused_with_both_hashes_and_nothing_is_left(server: FileServer, out: Path, kind: str) -> None:
    wrong = "0" * (32 if kind == "md5" else 64)
    with pytest.raises(SsondoError) as error:
        download(url=server.url(), out=out, **{kind: wrong})
    assert {"md5": MD5, "sha256": SHA256}[kind] in one_line(error)
    assert wrong in one_line(error)
    assert names_in(out.parent) == []
    assert len(server.ranges) == 1


def test_another_size_is_refused_before_the_file_comes(server: FileServer, out: Path) -> None:
    with pytest.raises(SsondoError, match=r"3,000,000 bytes, expected are 5,000,000"):
        download(url=server.url(), out=out, size=5_000_000)
    assert names_in(out.parent) == []


@pytest.mark.parametrize("fault", ["page", "bare page"])
def test_web_page_in_place_of_the_file_is_refused(server: FileServer, out: Path, fault: str) -> None:
    server.faults = [fault]
    with pytest.raises(SsondoError, match="a web page, not the file"):
        download(url=server.url(), out=out)
    assert names_in(out.parent) == []


def test_too_small_a_disk_is_said_before_the_file_comes(
    server: FileServer, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**12, 10**12, 1_000_000))
    with pytest.raises(SsondoError, match=r"0\.0 GB are to come and 0\.0 GB are free in .*archives; .*paths\.data"):
        download(url=server.url(), out=out)
    assert not out.exists()


def test_full_disk_is_said_and_what_came_is_kept(
    server: FileServer, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import resource

    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    # The kernel's own refusal of a longer file; worded as a full disk.
    monkeypatch.setattr(module, "is_disk_full", lambda error: error.errno == 27)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, old[1]))
        with pytest.raises(SsondoError, match="no space left on the disk") as error:
            download(url=server.url(), out=out, md5=MD5)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)
    assert not isinstance(error.value, TransientError)
    download(url=server.url(), out=out, md5=MD5)
    assert out.read_bytes() == CONTENT
    assert server.ranges[1] is not None


def test_server_that_recovers_is_asked_again_with_growing_waits(
    server: FileServer, out: Path, waits: list[float]
) -> None:
    server.faults = [503, 429, 500]
    download(url=server.url(), out=out, md5=MD5)
    assert out.read_bytes() == CONTENT
    assert waits[:3] == [2.0, 4.0, 8.0]


def test_server_is_left_alone_as_long_as_it_asks(server: FileServer, out: Path, waits: list[float]) -> None:
    server.faults, server.retry_after = [429], "77"
    download(url=server.url(), out=out)
    assert waits[0] == 77.0


def test_server_that_asks_for_an_hour_ends_the_attempt_at_once(server: FileServer, out: Path) -> None:
    server.faults, server.retry_after = [429], "3600"
    with pytest.raises(TransientError, match="429"):
        download(url=server.url(), out=out)
    assert len(server.ranges) == 1


def test_server_that_does_not_recover_is_a_passing_fault(server: FileServer, out: Path) -> None:
    server.faults = [503] * 10
    with pytest.raises(TransientError, match="503"):
        download(url=server.url(), out=out)
    assert len(server.ranges) == 4


def test_server_that_stops_answering_is_a_passing_fault(
    server: FileServer, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_TIMEOUT_S", 0.1)
    server.faults = ["silent"] * 4
    with pytest.raises(TransientError, match="timed out"):
        download(url=server.url(), out=out)


@pytest.mark.parametrize("code", [401, 403, 404, 410])
def test_file_that_the_server_lacks_is_not_asked_for_twice(server: FileServer, out: Path, code: int) -> None:
    server.faults = [code] * 10
    with pytest.raises(SsondoError, match=str(code)) as error:
        download(url=server.url(), out=out)
    assert not isinstance(error.value, TransientError)
    assert len(server.ranges) == 1


def test_without_network_it_says_what_to_download_and_what_to_set(out: Path) -> None:
    with pytest.raises(TransientError) as error:
        download(url="http://127.0.0.1:9/file.bin", out=out, config_key="tasks.esc50.path")
    text = one_line(error)
    assert "http://127.0.0.1:9/file.bin" in text
    assert "download it elsewhere into a folder" in text
    assert "tasks.esc50.path" in text
    assert names_in(out.parent) == []


@pytest.mark.parametrize("url", ["no-address", "ftp://example.org/x", "file:///etc/hostname", "http://[::1"])
def test_what_is_no_address_is_said_to_be_none(url: str, out: Path) -> None:
    with pytest.raises(SsondoError, match="not an address") as error:
        download(url=url, out=out)
    assert not isinstance(error.value, TransientError)


def test_file_that_is_there_is_kept_if_its_checksum_is_right(server: FileServer, out: Path) -> None:
    out.parent.mkdir()
    out.write_bytes(CONTENT)
    download(url=server.url(), out=out, md5=MD5)
    assert server.ranges == []
    out.write_bytes(CONTENT[::-1])
    download(url=server.url(), out=out, md5=MD5)
    assert out.read_bytes() == CONTENT


def test_redirect_is_followed_with_the_range(server: FileServer, out: Path) -> None:
    target = server.url()

    class Redirects(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            self.send_response(302)
            self.send_header("Location", target)
            self.end_headers()

    server.faults = ["cut"]
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Redirects) as other:
        threading.Thread(target=other.serve_forever, args=(0.01,), daemon=True).start()
        download(url=f"http://127.0.0.1:{other.server_port}/x", out=out, md5=MD5)
        other.shutdown()
    assert out.read_bytes() == CONTENT
    assert server.ranges[1] == f"bytes={len(CONTENT) // 2}-"


def start_and_wait_for_a_part(server: FileServer, out: Path) -> subprocess.Popen[bytes]:
    server.pause_s = 0.1
    program = textwrap.dedent(f"""
        from pathlib import Path
        from ssondo.storage.download import download
        download(url={server.url()!r}, out=Path({str(out)!r}))
    """)
    process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.DEVNULL)
    part = out.with_name("file.bin.part")
    pause, deadline = threading.Event(), time.monotonic() + 60
    while not (part.is_file() and part.stat().st_size > 0):
        assert time.monotonic() < deadline
        pause.wait(0.01)
    return process


def test_killed_download_leaves_nothing_under_the_name_and_goes_on(server: FileServer, out: Path) -> None:
    process = start_and_wait_for_a_part(server, out)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    have = out.with_name("file.bin.part").stat().st_size
    assert 0 < have < len(CONTENT)
    assert not out.exists()
    server.pause_s = 0.0
    download(url=server.url(), out=out, md5=MD5)
    assert out.read_bytes() == CONTENT
    assert server.ranges[-1] == f"bytes={have}-"


def test_two_processes_never_write_into_one_file(server: FileServer, out: Path) -> None:
    process = start_and_wait_for_a_part(server, out)
    try:
        with pytest.raises(SsondoError, match="another process is downloading"):
            download(url=server.url(), out=out)
    finally:
        server.pause_s = 0.0
        assert process.wait(60) == 0
    assert out.read_bytes() == CONTENT
