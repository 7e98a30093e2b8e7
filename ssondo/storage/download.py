"""The one downloader: data-set archives, weights, segment lists.

    ssondo download --url https://zenodo.org/... --md5 c480... --out data/archives/fsd50k/FSD50K.dev_audio.zip

What has come so far stands in `{out}.part`, so that a download that was cut or killed goes on where
it stopped; the final name appears when the file is whole and its checksums are the expected ones.
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
from ssondo.storage.atomic_files import is_disk_full, write_digest
from ssondo.system.progress import progress_bar

log = logging.getLogger(__name__)

_BLOCK = 1 << 20
_TIMEOUT_S = 60.0  # without a byte
_ATTEMPTS = 4  # in a row that get no further
_FIRST_WAIT_S = 2.0
_LONGEST_WAIT_S = 300.0
_DISK_RESERVE = 200_000_000
# Answers of a server that may be another one soon.
_MAY_PASS = (408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524)


def download(
    *,
    url: str,
    out: Path,
    md5: str | None = None,
    sha256: str | None = None,
    size: int | None = None,
    licence: str = "",
    config_key: str = "tasks.<name>.path",
) -> None:
    """Download a file of a data set, checked against its published size and checksum.

    An interrupted download goes on where it stopped. A file that is there already and has the
    expected checksum is kept.

    Args:
        url: where its makers, or a mirror, keep it.
        out: the file to write; its SHA-256 is written beside it.
        md5: expected hash, hexadecimal; none where none is published.
        sha256: the same.
        size: expected size in bytes.
        licence: of the data set, logged before anything is fetched.
        config_key: the key that a copy of one's own is named at, for error messages.

    Raises:
        SsondoError: if the server has no such file or another one, or the disk is too small.
        TransientError: if the network failed; the message says how to do without it.
    """
    log.info("%s: licence: %s", url, licence or "none stated, ask its authors")
    started = time.monotonic()
    by_hand = f"or download it elsewhere into a folder with the rest of its data set and set {config_key} to the folder"
    if (md5 or sha256) and out.is_file() and (found := _Digests.of(out)).match(md5, sha256):
        log.info("%s: is there already", out)
    else:
        found = retrieve(url, out, by_hand=by_hand, md5=md5, sha256=sha256, size=size)
    if not (md5 or sha256):
        log.warning("%s: not checked, no checksum of it is published", url)
    write_digest(out, found.sha256)
    size_mb, seconds = out.stat().st_size / 1e6, time.monotonic() - started
    log.info("download %s: %.1f MB in %.1f s, SHA-256 %s", out, size_mb, seconds, found.sha256)


@dataclass(frozen=True)
class _Digests:
    """Hashes of a file, hexadecimal."""

    md5: str
    sha256: str

    @classmethod
    def of(cls, path: Path) -> "_Digests":
        hashes = (hashlib.md5(usedforsecurity=False), hashlib.sha256())
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                for digest in hashes:
                    digest.update(block)
        return cls(*(digest.hexdigest() for digest in hashes))

    def match(self, md5: str | None, sha256: str | None) -> bool:
        return (md5 or self.md5).lower() == self.md5 and (sha256 or self.sha256).lower() == self.sha256


class _Part:
    """What was received so far, in `{out}.part`, and what tells whether the server still has that file.

    The file is locked, so that two processes never write into one.
    """

    def __init__(self, out: Path, url: str) -> None:
        self.path = out.with_name(f"{out.name}.part")
        self.out, self.url = out, url
        self._state = out.with_name(f"{out.name}.part.json")

    def __enter__(self) -> "_Part":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.file: BinaryIO = os.fdopen(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666), "r+b")
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.file.close()
            raise SsondoError(f"{self.path}: another process is downloading into it; wait for that one") from None
        except OSError:
            # A file system without locks: as before there were any.
            pass
        return self

    def __exit__(self, *_: object) -> None:
        if self.path.is_file() and not self.path.stat().st_size:
            self.forget()
            self.path.unlink(missing_ok=True)
        self.file.close()

    @property
    def size(self) -> int:
        return os.fstat(self.file.fileno()).st_size

    @property
    def validator(self) -> str | None:
        """The ETag or date that the part had; "" if the server gave none, None if it is another file's part."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            state = json.loads(self._state.read_text(encoding="utf-8"))
            if state["url"] == self.url:
                return str(state["validator"])
        return None

    def begin(self, validator: str) -> None:
        """Start anew."""
        self.file.truncate(0)
        self._state.write_text(json.dumps({"url": self.url, "validator": validator}), encoding="utf-8")

    def forget(self) -> None:
        """Keep nothing: going on with a wrong file would never end well."""
        self.file.truncate(0)
        self._state.unlink(missing_ok=True)

    def finish(self) -> None:
        """Give the file its final name."""
        self.file.flush()
        os.fsync(self.file.fileno())
        self.path.replace(self.out)
        self._state.unlink(missing_ok=True)


def retrieve(
    url: str,
    out: Path,
    *,
    by_hand: str,
    md5: str | None = None,
    sha256: str | None = None,
    size: int | None = None,
) -> _Digests:
    """Download a file to `out`, or go on with what is there of it.

    Args:
        url: http or https.
        out: the final name; what is there is replaced when the new file is whole.
        by_hand: how to do without the network, a half-sentence that begins with "or".
        md5: expected hash, hexadecimal.
        sha256: the same.
        size: expected size in bytes.

    Returns:
        Its hashes, `md5` and `sha256`.

    Raises:
        SsondoError: if the server has no such file or another one, or the disk is too small.
        TransientError: if the network failed.
    """
    if not url.startswith(("http://", "https://")):
        raise SsondoError(f"{url}: not an address that begins with http:// or https://; {by_hand}")
    with _Part(out, url) as part:
        resumed = part.size > 0
        while True:
            _fetch(part, by_hand, size, checked=bool(md5 or sha256))
            found = _Digests.of(part.path)
            if found.match(md5, sha256) and size in (None, part.size):
                part.finish()
                return found
            part.forget()
            if not resumed:
                break
            # The part that was there may have been another file's: once more, whole.
            log.warning("%s: the checksum of the part and its rest is wrong; once more from the start", url)
            resumed = False
    raise SsondoError(
        f"{url}: {_compared(found, md5, sha256)}; it is another file or a damaged one; "
        f"check the address and what its makers publish, {by_hand}"
    )


def _compared(found: _Digests, md5: str | None, sha256: str | None) -> str:
    if sha256:
        return f"SHA-256 is {found.sha256}, expected {sha256.lower()}"
    return f"MD5 is {found.md5}, expected {(md5 or '').lower()}"


def _fetch(part: _Part, by_hand: str, size: int | None, *, checked: bool) -> None:
    """Try until the file is whole, or attempts in a row get no further."""
    furthest, failures = part.size, 0
    while True:
        try:
            with _as_our_errors(part, by_hand):
                _fetch_once(part, size, by_hand, checked)
            return
        except _Passing as error:
            failures = 1 if part.size > furthest else failures + 1
            furthest = max(furthest, part.size)
            wait_s = max(error.wait_s, _FIRST_WAIT_S * 2 ** (failures - 1))
            if failures >= _ATTEMPTS or wait_s > _LONGEST_WAIT_S:
                raise TransientError(str(error)) from None
            log.warning("%s; again in %.0f s", str(error).partition(";")[0], wait_s)
            time.sleep(wait_s)


class _Passing(Exception):
    """A fault that may pass; the text is for the user."""

    def __init__(self, text: str, wait_s: float = 0.0) -> None:
        super().__init__(text)
        self.wait_s = wait_s


def _wish_to_wait_s(headers: Any) -> float:
    """Seconds that the server asks to be left alone."""
    text = (headers.get("Retry-After") or "") if headers else ""
    return float(text) if text.isdigit() else 0.0


@contextmanager
def _as_our_errors(part: _Part, by_hand: str) -> Iterator[None]:
    """Say what failed, whether it may pass, and how to do without the network."""
    url = part.url
    try:
        yield
    except urllib.error.HTTPError as error:
        text = f"{url}: the server says {error.code} {error.reason}"
        if error.code == 416:
            # The part is longer than what the server has now.
            part.forget()
            raise _Passing(f"{text} to going on with a part; run the same command again, {by_hand}") from None
        if error.code in _MAY_PASS:
            wait_s = _wish_to_wait_s(error.headers)
            raise _Passing(f"{text}; run the same command again later, {by_hand}", wait_s) from None
        raise SsondoError(f"{text}; check the address, {by_hand}") from None
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", None) or error
        raise _Passing(
            f"{url}: cannot be downloaded ({reason}); check the network and run the same command again, {by_hand}"
        ) from None
    except ValueError as error:
        raise SsondoError(f"{url}: not an address ({error}); {by_hand}") from None
    except OSError as error:
        if is_disk_full(error):
            raise SsondoError(
                f"{part.out}: no space left on the disk (or quota); free some and run the same command again, "
                "the download goes on where it stopped"
            ) from None
        raise


def _fetch_once(part: _Part, size: int | None, by_hand: str, checked: bool) -> None:
    """Download what the part does not have yet."""
    validator = part.validator
    # Without a validator only a checksum tells a file from a mixture of two.
    have = part.size if validator or (validator == "" and checked) else 0
    if have and have == size:
        return
    request = urllib.request.Request(part.url, headers={"User-Agent": "ssondo"})
    if have:
        request.add_header("Range", f"bytes={have}-")
        if validator:
            # A file that changed since then comes whole.
            request.add_header("If-Range", validator)
    with _opened(request, have) as answer:
        if answer is None:
            return
        if answer.status != 206:
            have = 0
            part.begin(_validator(answer.headers))
        total = _total(answer, have, part)
        _check_offer(part, answer, have, total, size, by_hand)
        _receive(answer, part, have, total, by_hand)


@contextmanager
def _opened(request: urllib.request.Request, have: int) -> Iterator[Any]:
    """The server's answer; None if the part is already the whole file."""
    try:
        answer = urllib.request.urlopen(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code != 416 or error.headers.get("Content-Range") != f"bytes */{have}":
            raise
        yield None
        return
    with answer:
        yield answer


def _validator(headers: Any) -> str:
    """What tells this version of a file from another: a strong ETag, or else its date."""
    tag = headers.get("ETag") or ""
    return tag if tag and not tag.startswith("W/") else headers.get("Last-Modified") or ""


def _total(answer: Any, have: int, part: _Part) -> int | None:
    """Size of the whole file as the server states it; None if it does not."""
    if answer.status == 206:
        unit, _, rest = (answer.headers.get("Content-Range") or "").partition(" ")
        span, _, total = rest.partition("/")
        if unit != "bytes" or span.partition("-")[0] != str(have):
            part.forget()
            raise ConnectionError(f"the server was asked for the rest from byte {have} and sends {rest or 'no range'}")
        if total.isdigit():
            return int(total)
    length = answer.headers.get("Content-Length")
    return None if length is None else have + int(length)


def _check_offer(part: _Part, answer: Any, have: int, total: int | None, size: int | None, by_hand: str) -> None:
    """Refuse before a byte is written what cannot end well."""
    if answer.headers.get_content_type() == "text/html" and ".htm" not in part.url:
        part.forget()
        raise SsondoError(f"{part.url}: the server sends a web page, not the file; open it in a browser, {by_hand}")
    if total is not None and size is not None and total != size:
        part.forget()
        raise SsondoError(
            f"{part.url}: the server has {total:,} bytes, expected are {size:,}; it is another file, {by_hand}"
        )
    free = shutil.disk_usage(part.path.parent).free
    missing = (total or size or 0) - have
    if missing + min(missing, _DISK_RESERVE) > free:
        raise SsondoError(
            f"{part.out}: {missing / 1e9:.1f} GB are to come and {free / 1e9:.1f} GB are free in {part.path.parent}; "
            "free some, or set paths.data to a larger disk"
        )


def _receive(answer: Any, part: _Part, have: int, total: int | None, by_hand: str) -> None:
    part.file.seek(have)
    n_blocks = None if total is None else -(-total // _BLOCK)
    with progress_bar(n_blocks, f"download {part.out.name}", unit="MiB") as bar:
        # Set, not updated: what was there before must not count as speed.
        bar.n = bar.initial = have // _BLOCK
        while block := answer.read(_BLOCK):
            if part.file.tell() == 0 and block.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html")):
                part.forget()
                raise SsondoError(f"{part.url}: the server sends a web page, not the file, {by_hand}")
            part.file.write(block)
            bar.update(1)
        part.file.flush()
    if total is not None and part.size != total:
        raise ConnectionError(f"the connection ended after {part.size:,} of {total:,} bytes")
