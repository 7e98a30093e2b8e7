"""A file appears under its name when it is complete, and not before.

This module decides when a file exists, never what it holds, so it is not part of a code hash
(`ssondo.provenance.COMPUTES_NOTHING`). What decides about the content of files belongs in `atomic_files`.
"""

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ssondo.errors import SsondoError


def is_disk_full(error: BaseException) -> bool:
    """Whether an error, also one of HDF5 or torch, was caused by a full disk or quota."""
    return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or any(
        text in str(error) for text in ("No space left on device", "Disk quota exceeded", "errno = 28", "errno = 122")
    )


def _remove_abandoned(path: Path) -> None:
    """Remove temporary files of `path` that killed processes of this machine left behind."""
    host = socket.gethostname()
    for temporary in path.parent.glob(f".{path.name}.{host}.*.partial"):
        with suppress(ValueError, OSError):
            pid = int(temporary.name.split(".")[-2])
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                temporary.unlink()


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`, and rename it to `path` when the block succeeds.

    Missing folders are created. On any exception the temporary file is removed and `path` is unchanged.

    Raises:
        SsondoError: If the disk is full or the folder is not writable.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path)
        temporary = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.partial")
        try:
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            with suppress(FileNotFoundError):
                temporary.unlink()
    except (OSError, RuntimeError) as error:
        if is_disk_full(error):
            raise SsondoError(
                f"{path}: no space left on the disk (or quota) while writing it; "
                "free some and run the same command again; finished files are kept"
            ) from error
        if isinstance(error, PermissionError):
            raise SsondoError(f"{path}: cannot be written ({error.strerror}); check the folder's owner") from error
        raise
