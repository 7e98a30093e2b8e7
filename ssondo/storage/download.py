"""Download a file over HTTP, continuing an interrupted download.

The file gets its final name only when it is complete and its checksum is right.
"""

import fcntl
import hashlib
import http.client
import json
import logging
import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ssondo.errors import SsondoError, TransientError
from ssondo.storage.atomic_files import is_disk_full
from ssondo.system.progress import progress_bar

log = logging.getLogger(__name__)

_BLOCK = 1 << 20
_TIMEOUT_S = 60.0  # without receiving a byte
_MAX_TRIES = 4  # in a row that receive nothing new
_FIRST_WAIT_S = 2.0
_MAX_WAIT_S = 300.0
_DISK_RESERVE = 200_000_000
# HTTP status codes of temporary failures; those from 520 on are Cloudflare's.
_RETRYABLE_STATUS = (408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524)


@dataclass(frozen=True)
class Digests:
    """MD5 and SHA-256 of a file, in hexadecimal."""

    md5: str
    sha256: str

    @classmethod
    def of_file(cls, path: Path) -> "Digests":
        """Compute both in one pass over the file."""
        hashes = (hashlib.md5(usedforsecurity=False), hashlib.sha256())
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                for digest in hashes:
                    digest.update(block)
        return cls(*(digest.hexdigest() for digest in hashes))

    def match(self, md5: str | None, sha256: str | None) -> bool:
        """Whether the digests equal the expected ones; None matches anything."""
        return (md5 or self.md5).lower() == self.md5 and (sha256 or self.sha256).lower() == self.sha256


class _PartialFile:
    """The bytes received so far, in `{out}.part`, and the validator of the file that they belong to.

    The file is locked while it is open, so that two processes never write to it.
    """

    def __init__(self, out: Path, url: str) -> None:
        self.path = out.with_name(f"{out.name}.part")
        self.out, self.url = out, url
        self._state = out.with_name(f"{out.name}.part.json")

    def __enter__(self) -> "_PartialFile":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.file: BinaryIO = os.fdopen(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666), "r+b")
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.file.close()
            raise SsondoError(f"{self.path}: another process is downloading this file; wait until it ends") from None
        except OSError:
            pass  # The file system does not support locks; continue without one.
        return self

    def __exit__(self, *_: object) -> None:
        if self.path.is_file() and not self.size:
            self.discard()
            self.path.unlink()
        self.file.close()

    @property
    def size(self) -> int:
        return os.fstat(self.file.fileno()).st_size

    @property
    def validator(self) -> str | None:
        """The stored ETag or date; "" if the server sent none, None if the bytes come from another address."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            state = json.loads(self._state.read_text(encoding="utf-8"))
            if state["url"] == self.url:
                return str(state["validator"])
        return None

    def restart(self, validator: str) -> None:
        """Discard the received bytes and store the validator of the file that is downloaded next."""
        self.file.truncate(0)
        self._state.write_text(json.dumps({"url": self.url, "validator": validator}), encoding="utf-8")

    def discard(self) -> None:
        """Discard the received bytes and the validator, because no continuation can give the right file."""
        self.file.truncate(0)
        self._state.unlink(missing_ok=True)

    def commit(self) -> None:
        """Give the file its final name."""
        self.file.flush()
        os.fsync(self.file.fileno())
        self.path.replace(self.out)
        self._state.unlink(missing_ok=True)


def retrieve(
    url: str, out: Path, *, by_hand: str, md5: str | None = None, sha256: str | None = None, size: int | None = None
) -> Digests:
    """Download a file, or continue an interrupted download of it.

    Args:
        url: Address of the file, http or https.
        out: Final name of the file. An existing file is replaced when the new one is complete.
        by_hand: How to get the file without the network: a clause that begins with "or" and ends the error messages.
        md5: Expected MD5 in hexadecimal.
        sha256: Expected SHA-256 in hexadecimal.
        size: Expected size in bytes.

    Returns:
        The digests of the file.

    Raises:
        SsondoError: If the server does not have the file, sends a different one, or the disk is too small.
        TransientError: If the network failed.
    """
    if not url.startswith(("http://", "https://")):
        raise SsondoError(f"{url}: not an address that begins with http:// or https://; {by_hand}")
    with _PartialFile(out, url) as part:
        is_continuation = part.size > 0
        while True:
            _receive_all(part, by_hand, size, has_checksum=bool(md5 or sha256))
            digests = Digests.of_file(part.path)
            if digests.match(md5, sha256) and size in (None, part.size):
                part.commit()
                return digests
            part.discard()
            if not is_continuation:
                break
            # The stored bytes may have belonged to another version of the file.
            log.warning("%s: the continued download has the wrong checksum; downloading it again from the start", url)
            is_continuation = False
    name, actual, expected = ("SHA-256", digests.sha256, sha256) if sha256 else ("MD5", digests.md5, md5 or "")
    raise SsondoError(
        f"{url}: {name} is {actual}, expected {expected.lower()}; the file is a different one or damaged; "
        f"compare the address and the checksum with what its authors publish, {by_hand}"
    )


def _receive_all(part: _PartialFile, by_hand: str, size: int | None, *, has_checksum: bool) -> None:
    """Send requests until the file is complete; give up after several in a row that receive nothing new."""
    max_size, n_failures = part.size, 0
    while True:
        try:
            with _translated_errors(part, by_hand):
                _request_rest(part, size, by_hand, has_checksum)
            return
        except _RetryableError as error:
            n_failures = 1 if part.size > max_size else n_failures + 1
            max_size = max(max_size, part.size)
            wait_s = max(error.wait_s, _FIRST_WAIT_S * 2 ** (n_failures - 1))
            if n_failures >= _MAX_TRIES or wait_s > _MAX_WAIT_S:
                raise TransientError(str(error)) from None
            log.warning("%s; trying again in %.0f s", str(error).partition(";")[0], wait_s)
            time.sleep(wait_s)


class _RetryableError(Exception):
    """A failure that may be temporary; its text is shown to the user."""

    def __init__(self, text: str, wait_s: float = 0.0) -> None:
        super().__init__(text)
        self.wait_s = wait_s


@contextmanager
def _translated_errors(part: _PartialFile, by_hand: str) -> Iterator[None]:
    """Turn errors of urllib into one line that says whether a retry may help and how to do without the network."""
    url = part.url
    try:
        yield
    except urllib.error.HTTPError as error:
        text = f"{url}: the server answered {error.code} {error.reason}"
        if error.code == 416:
            # The stored part is longer than the file on the server.
            part.discard()
            raise _RetryableError(
                f"{text} to a request for the rest of the file; run the same command again, {by_hand}"
            ) from None
        if error.code in _RETRYABLE_STATUS:
            retry_after = error.headers.get("Retry-After", "")
            wait_s = float(retry_after) if retry_after.isdigit() else 0.0
            raise _RetryableError(f"{text}; run the same command again later, {by_hand}", wait_s) from None
        raise SsondoError(f"{text}; check the address, {by_hand}") from None
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", None) or error
        raise _RetryableError(
            f"{url}: cannot be downloaded ({reason}); check the network and run the same command again, {by_hand}"
        ) from None
    except ValueError as error:
        raise SsondoError(f"{url}: not an address ({error}); {by_hand}") from None
    except OSError as error:
        if is_disk_full(error):
            raise SsondoError(
                f"{part.out}: no space left on the disk (or quota); free some and run the same command again, "
                "the download continues where it stopped"
            ) from None
        raise


def _request_rest(part: _PartialFile, size: int | None, by_hand: str, has_checksum: bool) -> None:
    """Request the bytes that are still missing and append them."""
    validator = part.validator
    # Without a validator only a checksum can tell whether the rest belongs to the same version of the file.
    offset = part.size if validator or (validator == "" and has_checksum) else 0
    if offset and offset == size:
        return
    request = urllib.request.Request(part.url, headers={"User-Agent": "ssondo"})
    if offset:
        request.add_header("Range", f"bytes={offset}-")
        if validator:
            # If the file has changed, the server sends all of it.
            request.add_header("If-Range", validator)
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code == 416 and error.headers.get("Content-Range") == f"bytes */{offset}":
            return  # The stored part is already the complete file.
        raise
    with response:
        if response.status != 206:
            offset = 0
            part.restart(_validator(response.headers))
        total = _total_size(response, offset, part)
        _check_response(part, response, offset, total, size, by_hand)
        _append(response, part, offset, total, by_hand)


def _validator(headers: Any) -> str:
    """What identifies this version of the file: a strong ETag, or else the date of its last change."""
    tag = headers.get("ETag") or ""
    return tag if tag and not tag.startswith("W/") else headers.get("Last-Modified") or ""


def _total_size(response: Any, offset: int, part: _PartialFile) -> int | None:
    """Size of the complete file according to the server; None if it does not send one."""
    if response.status == 206:
        unit, _, rest = (response.headers.get("Content-Range") or "").partition(" ")
        span, _, total = rest.partition("/")
        if unit != "bytes" or span.partition("-")[0] != str(offset):
            part.discard()
            raise ConnectionError(f"requested the bytes from {offset} on, the server sends {rest or 'no range'}")
        if total.isdigit():
            return int(total)
    length = response.headers.get("Content-Length")
    return None if length is None else offset + int(length)


def _check_response(
    part: _PartialFile, response: Any, offset: int, total: int | None, size: int | None, by_hand: str
) -> None:
    """Refuse a wrong or too large file before a byte of it is written."""
    if response.headers.get_content_type() == "text/html" and ".htm" not in part.url:
        part.discard()
        raise SsondoError(f"{part.url}: the server sends a web page, not the file; open it in a browser, {by_hand}")
    if total is not None and size is not None and total != size:
        part.discard()
        raise SsondoError(
            f"{part.url}: the file on the server has {total:,} bytes, expected {size:,}; it is a different file, "
            f"{by_hand}"
        )
    free = shutil.disk_usage(part.path.parent).free
    missing = (total or size or 0) - offset
    if missing + min(missing, _DISK_RESERVE) > free:
        raise SsondoError(
            f"{part.out}: the download needs {missing / 1e9:.1f} GB and {part.path.parent} has {free / 1e9:.1f} GB "
            "free; free some, or set paths.data to a larger disk"
        )


def _append(response: Any, part: _PartialFile, offset: int, total: int | None, by_hand: str) -> None:
    part.file.seek(offset)
    n_blocks = None if total is None else -(-total // _BLOCK)
    with progress_bar(n_blocks, f"download {part.out.name}", unit="MiB") as bar:
        # Set rather than updated, so that the speed does not count the bytes of earlier downloads.
        bar.n = bar.initial = offset // _BLOCK
        while block := response.read(_BLOCK):
            if part.file.tell() == 0 and block.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html")):
                part.discard()
                raise SsondoError(f"{part.url}: the server sends a web page, not the file, {by_hand}")
            part.file.write(block)
            bar.update(1)
        part.file.flush()
    if total is not None and part.size != total:
        raise ConnectionError(f"the connection ended after {part.size:,} of {total:,} bytes")
