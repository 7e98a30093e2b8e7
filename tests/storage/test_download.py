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
from typing import Any

import pytest
from aftermath import names_in, one_line
from file_server import CONTENT, MD5, SHA256, FileServer, serving

from ssondo.errors import SsondoError, TransientError
from ssondo.storage import download as module
from ssondo.storage.download import Digests, retrieve


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving({"file.bin": CONTENT}) as server:
        yield server


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that the downloader would have waited; it does not wait in tests."""
    waits: list[float] = []
    monkeypatch.setattr(module.time, "sleep", waits.append)
    return waits


def get(url: str, out: Path, **expected: Any) -> Digests:
    return retrieve(url, out, by_hand="or copy it by hand", **expected)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "archives" / "file.bin"


def test_interrupted_download_continues_where_it_stopped(server: FileServer, out: Path) -> None:
    server.faults = ["cut"]
    get(server.url(), out, md5=MD5)
    assert out.read_bytes() == CONTENT
    assert server.ranges == [None, f"bytes={len(CONTENT) // 2}-"]


def test_many_interruptions_do_not_end_a_download_that_makes_progress(server: FileServer, out: Path) -> None:
    server.faults = ["cut"] * 10
    get(server.url(), out, md5=MD5)
    assert out.read_bytes() == CONTENT
    assert len(server.ranges) == 11


def test_server_without_range_requests_sends_the_file_again_from_the_start(server: FileServer, out: Path) -> None:
    server.knows_ranges = False
    server.faults = ["cut", "cut"]
    get(server.url(), out, md5=MD5)
    assert out.read_bytes() == CONTENT


def test_download_without_progress_fails_after_four_tries(server: FileServer, out: Path) -> None:
    server.knows_ranges = False
    server.faults = ["cut"] * 20
    with pytest.raises(TransientError, match="1,500,000 of 3,000,000 bytes"):
        get(server.url(), out, md5=MD5)
    assert len(server.ranges) == 4
    assert not out.exists()


def test_last_modified_date_validates_a_continuation_without_an_etag(server: FileServer, out: Path) -> None:
    server.etag, server.modified = None, "Wed, 21 Oct 2015 07:28:00 GMT"
    server.faults = ["cut"]
    get(server.url(), out)
    assert out.read_bytes() == CONTENT
    assert server.ranges[1] == f"bytes={len(CONTENT) // 2}-"


@pytest.mark.parametrize("md5", [MD5, None])
def test_download_without_a_validator_continues_only_if_a_checksum_is_expected(
    server: FileServer, out: Path, md5: str | None
) -> None:
    server.etag = 'W/"weak"'
    server.faults = ["cut"]
    get(server.url(), out, md5=md5)
    assert out.read_bytes() == CONTENT
    assert server.ranges[1] == (f"bytes={len(CONTENT) // 2}-" if md5 else None)


def test_file_that_changed_after_the_interruption_is_downloaded_completely(server: FileServer, out: Path) -> None:
    server.faults = ["cut", 503, 503, 503]
    with pytest.raises(TransientError):
        get(server.url(), out)
    server.files["file.bin"], server.etag = CONTENT[::-1], '"second"'
    get(server.url(), out)
    assert out.read_bytes() == CONTENT[::-1]


def test_part_of_another_version_fails_the_checksum_and_is_downloaded_again(server: FileServer, out: Path) -> None:
    server.etag = None
    server.faults = ["cut", 503, 503, 503]
    server.files["file.bin"] = CONTENT[::-1]
    with pytest.raises(TransientError):
        get(server.url(), out, md5=MD5)
    server.files["file.bin"] = CONTENT
    get(server.url(), out, md5=MD5)
    assert out.read_bytes() == CONTENT
    assert server.ranges[-2:] == [f"bytes={len(CONTENT) // 2}-", None]


def test_part_from_another_address_is_not_continued(server: FileServer, out: Path) -> None:
    server.files["other.bin"] = CONTENT[::-1]
    server.faults = ["cut", 503, 503, 503]
    with pytest.raises(TransientError):
        get(server.url("other.bin"), out)
    get(server.url(), out)
    assert out.read_bytes() == CONTENT


def test_complete_part_that_was_not_renamed_is_not_downloaded_again(server: FileServer, out: Path) -> None:
    server.faults = ["cut", 503, 503, 503]
    with pytest.raises(TransientError):
        get(server.url(), out, md5=MD5)
    (out.parent / "file.bin.part").write_bytes(CONTENT)  # as if the process was killed before the rename
    get(server.url(), out, md5=MD5)
    assert out.read_bytes() == CONTENT
    assert server.ranges[-1] == f"bytes={len(CONTENT)}-"  # answered by 416


def test_part_longer_than_the_file_is_downloaded_again(server: FileServer, out: Path) -> None:
    server.faults = ["cut", 503, 503, 503]
    with pytest.raises(TransientError):
        get(server.url(), out)
    (out.parent / "file.bin.part").write_bytes(CONTENT + b"more")
    get(server.url(), out)
    assert out.read_bytes() == CONTENT


def test_response_with_a_wrong_range_is_refused(server: FileServer, out: Path) -> None:
    server.faults = ["cut", "wrong range"]
    get(server.url(), out)
    assert out.read_bytes() == CONTENT
    assert server.ranges[-1] is None


def test_file_of_unknown_length_is_verified_by_its_checksum(server: FileServer, out: Path) -> None:
    server.says_length = False
    get(server.url(), out, md5=MD5)
    assert out.read_bytes() == CONTENT
    server.faults = ["cut"]
    with pytest.raises(SsondoError, match="expected"):
        get(server.url(), out.with_name("b"), md5=MD5)


@pytest.mark.parametrize("kind", ["md5", "sha256"])
def test_wrong_checksum_is_refused_with_both_hashes_and_leaves_no_file(
    server: FileServer, out: Path, kind: str
) -> None:
    wrong = "0" * (32 if kind == "md5" else 64)
    with pytest.raises(SsondoError) as error:
        get(server.url(), out, **{kind: wrong})
    assert {"md5": MD5, "sha256": SHA256}[kind] in one_line(error)
    assert wrong in one_line(error)
    assert names_in(out.parent) == []
    assert len(server.ranges) == 1


def test_wrong_size_is_refused_before_the_download_starts(server: FileServer, out: Path) -> None:
    with pytest.raises(SsondoError, match=r"3,000,000 bytes, expected 5,000,000"):
        get(server.url(), out, size=5_000_000)
    assert names_in(out.parent) == []


@pytest.mark.parametrize("fault", ["page", "bare page"])
def test_web_page_instead_of_the_file_is_refused(server: FileServer, out: Path, fault: str) -> None:
    server.faults = [fault]
    with pytest.raises(SsondoError, match="a web page, not the file"):
        get(server.url(), out)
    assert names_in(out.parent) == []


def test_too_small_disk_is_reported_before_the_download_starts(
    server: FileServer, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**12, 10**12, 1_000_000))
    with pytest.raises(SsondoError, match=r"needs 0\.0 GB and .*archives has 0\.0 GB free; .*paths\.data"):
        get(server.url(), out)
    assert not out.exists()


def test_full_disk_is_reported_and_the_received_bytes_are_kept(
    server: FileServer, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import resource

    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    # EFBIG of the file size limit stands for a full disk.
    monkeypatch.setattr(module, "is_disk_full", lambda error: error.errno == 27)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, old[1]))
        with pytest.raises(SsondoError, match="no space left on the disk") as error:
            get(server.url(), out, md5=MD5)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)
    assert not isinstance(error.value, TransientError)
    get(server.url(), out, md5=MD5)
    assert out.read_bytes() == CONTENT
    assert server.ranges[1] is not None


def test_temporary_server_errors_are_retried_with_growing_waits(
    server: FileServer, out: Path, waits: list[float]
) -> None:
    server.faults = [503, 429, 500]
    get(server.url(), out, md5=MD5)
    assert out.read_bytes() == CONTENT
    assert waits[:3] == [2.0, 4.0, 8.0]


def test_retry_after_header_sets_the_wait(server: FileServer, out: Path, waits: list[float]) -> None:
    server.faults, server.retry_after = [429], "77"
    get(server.url(), out)
    assert waits[0] == 77.0


def test_retry_after_of_an_hour_fails_at_once(server: FileServer, out: Path) -> None:
    server.faults, server.retry_after = [429], "3600"
    with pytest.raises(TransientError, match="429"):
        get(server.url(), out)
    assert len(server.ranges) == 1


def test_permanent_503_is_a_transient_error(server: FileServer, out: Path) -> None:
    server.faults = [503] * 10
    with pytest.raises(TransientError, match="503"):
        get(server.url(), out)
    assert len(server.ranges) == 4


def test_timeout_is_a_transient_error(server: FileServer, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TIMEOUT_S", 0.1)
    server.faults = ["silent"] * 4
    with pytest.raises(TransientError, match="timed out"):
        get(server.url(), out)


@pytest.mark.parametrize("code", [401, 403, 404, 410])
def test_missing_or_forbidden_file_is_requested_once(server: FileServer, out: Path, code: int) -> None:
    server.faults = [code] * 10
    with pytest.raises(SsondoError, match=str(code)) as error:
        get(server.url(), out)
    assert not isinstance(error.value, TransientError)
    assert len(server.ranges) == 1


@pytest.mark.parametrize("url", ["no-address", "ftp://example.org/x", "file:///etc/hostname", "http://[::1"])
def test_invalid_address_is_refused(url: str, out: Path) -> None:
    with pytest.raises(SsondoError, match="not an address") as error:
        get(url, out)
    assert not isinstance(error.value, TransientError)


def test_redirect_keeps_the_range(server: FileServer, out: Path) -> None:
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
        get(f"http://127.0.0.1:{other.server_port}/x", out, md5=MD5)
        other.shutdown()
    assert out.read_bytes() == CONTENT
    assert server.ranges[1] == f"bytes={len(CONTENT) // 2}-"


def start_and_wait_for_a_part(server: FileServer, out: Path) -> subprocess.Popen[bytes]:
    server.pause_s = 0.1
    program = textwrap.dedent(f"""
        from pathlib import Path
        from ssondo.storage.download import retrieve
        retrieve({server.url()!r}, Path({str(out)!r}), by_hand="or not")
    """)
    process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.DEVNULL)
    part = out.with_name("file.bin.part")
    pause, deadline = threading.Event(), time.monotonic() + 60
    while not (part.is_file() and part.stat().st_size > 0):
        assert time.monotonic() < deadline
        pause.wait(0.01)
    return process


def test_killed_download_leaves_no_final_file_and_continues(server: FileServer, out: Path) -> None:
    process = start_and_wait_for_a_part(server, out)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    have = out.with_name("file.bin.part").stat().st_size
    assert 0 < have < len(CONTENT)
    assert not out.exists()
    server.pause_s = 0.0
    get(server.url(), out, md5=MD5)
    assert out.read_bytes() == CONTENT
    assert server.ranges[-1] == f"bytes={have}-"


def test_second_process_that_downloads_the_same_file_is_refused(server: FileServer, out: Path) -> None:
    process = start_and_wait_for_a_part(server, out)
    try:
        with pytest.raises(SsondoError, match="another process is downloading this file"):
            get(server.url(), out)
    finally:
        server.pause_s = 0.0
        assert process.wait(60) == 0
    assert out.read_bytes() == CONTENT
