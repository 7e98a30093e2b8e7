"""Download one file of a data set.

    ssondo download --url https://zenodo.org/... --md5 c480... --out data/archives/fsd50k/FSD50K.dev_audio.zip

An interrupted download continues where it stopped.
"""

import logging
import time
from pathlib import Path

from ssondo.storage.atomic_files import write_digest
from ssondo.storage.download import Digests, retrieve

log = logging.getLogger(__name__)


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
    """Download one file of a data set and check its size and checksum.

    An interrupted download continues where it stopped. A file that already exists and has the
    expected checksum is not downloaded again.

    Args:
        url: Address of the file.
        out: Path of the downloaded file; its SHA-256 is written next to it.
        md5: Expected MD5 of the file in hexadecimal; omit it if none is published.
        sha256: Expected SHA-256 of the file in hexadecimal; omit it if none is published.
        size: Expected size of the file in bytes.
        licence: Licence of the data set, which is logged before the download starts.
        config_key: Configuration key that takes the path of a local copy; error messages name it.

    Raises:
        SsondoError: If the server does not have the file, sends a different one, or the disk is too small.
        TransientError: If the network failed; the message says how to continue without it.
    """
    log.info("%s: licence: %s", url, licence or "none stated, ask its authors")
    started = time.monotonic()
    if (md5 or sha256) and out.is_file() and (digests := Digests.of_file(out)).match(md5, sha256):
        log.info("%s: already downloaded", out)
    else:
        by_hand = (
            f"or download it elsewhere into a folder with the rest of its data set and set {config_key} to the folder"
        )
        digests = retrieve(url, out, by_hand=by_hand, md5=md5, sha256=sha256, size=size)
    if not (md5 or sha256):
        log.warning("%s: the content was not checked because no checksum is published", url)
    write_digest(out, digests.sha256)
    size_mb, seconds = out.stat().st_size / 1e6, time.monotonic() - started
    log.info("download %s: %.1f MB in %.1f s, SHA-256 %s", out, size_mb, seconds, digests.sha256)
