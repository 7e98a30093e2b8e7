from collections.abc import Iterator
from pathlib import Path

import pytest
from aftermath import names_in, one_line
from file_server import CONTENT, MD5, SHA256, FileServer, serving

from ssondo.errors import TransientError
from ssondo.tasks.download import download


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving({"file.bin": CONTENT}) as server:
        yield server


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssondo.storage.download._FIRST_WAIT_S", 0.0)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "archives" / "file.bin"


def test_download_writes_the_file_and_its_digest_and_nothing_else(server: FileServer, out: Path) -> None:
    download(url=server.url(), out=out, md5=MD5.upper(), sha256=SHA256, size=len(CONTENT), licence="CC0")
    assert out.read_bytes() == CONTENT
    assert names_in(out.parent) == ["file.bin", "file.bin.digest"]
    assert (out.parent / "file.bin.digest").read_text() == f"{SHA256}\n"


def test_licence_is_logged_once_before_the_download_starts(
    server: FileServer, out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    server.faults = ["cut", 503]
    download(url=server.url(), out=out, md5=MD5, licence="CC BY-NC 4.0")
    assert [line for line in caplog.messages if "CC BY-NC 4.0" in line] == caplog.messages[:1]


def test_missing_checksum_is_a_warning(server: FileServer, out: Path, caplog: pytest.LogCaptureFixture) -> None:
    download(url=server.url(), out=out)
    assert "not checked" in caplog.text


def test_existing_file_is_kept_only_if_its_checksum_is_right(server: FileServer, out: Path) -> None:
    out.parent.mkdir()
    out.write_bytes(CONTENT)
    download(url=server.url(), out=out, md5=MD5)
    assert server.ranges == []
    out.write_bytes(CONTENT[::-1])
    download(url=server.url(), out=out, md5=MD5)
    assert out.read_bytes() == CONTENT


@pytest.mark.usefixtures("server")
def test_message_without_network_names_the_address_and_the_configuration_key(out: Path) -> None:
    with pytest.raises(TransientError) as error:
        download(url="http://127.0.0.1:9/file.bin", out=out, config_key="tasks.esc50.path")
    text = one_line(error)
    assert "http://127.0.0.1:9/file.bin" in text
    assert "download it elsewhere into a folder" in text
    assert "tasks.esc50.path" in text
    assert names_in(out.parent) == []
