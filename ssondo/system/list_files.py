"""List all files below a folder; a folder that cannot be listed is an error, not an empty folder."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from ssondo.errors import SsondoError


def list_files(root: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield every file below a folder, following links; no folder is listed twice, and broken links are included.

    Raises:
        SsondoError: If the folder or one below it cannot be listed, because its files would count as missing.
    """
    seen: set[tuple[int, int]] = set()
    for folder, subfolders, names in os.walk(root, onerror=cannot_list, followlinks=True):
        stat = os.stat(folder)  # noqa: PTH116 (faster for two million files)
        if (stat.st_dev, stat.st_ino) in seen:
            subfolders.clear()
            continue
        seen.add((stat.st_dev, stat.st_ino))
        for name in names:
            yield Path(folder, name)


def cannot_list(error: OSError) -> NoReturn:
    """Report the folder that cannot be listed, and why.

    Raises:
        SsondoError: Always.
    """
    raise SsondoError(
        f"{error.filename}: this folder cannot be listed ({error.strerror}), so all files in it would count as "
        "missing; grant permission to read it, mount it again, or move it away"
    ) from None
