"""All files below a folder; a folder that cannot be listed is a fault, not an empty one."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from ssondo.errors import SsondoError


def walk(root: str | os.PathLike[str]) -> Iterator[Path]:
    """Every file below a folder, links followed, no folder twice; links to nothing are among them.

    Raises:
        SsondoError: if the folder or one below it cannot be listed: what is in it would count as missing.
    """
    seen: set[tuple[int, int]] = set()
    for folder, subfolders, names in os.walk(root, onerror=cannot_list, followlinks=True):
        stat = os.stat(folder)  # noqa: PTH116 (two million names)
        if (stat.st_dev, stat.st_ino) in seen:
            subfolders.clear()
            continue
        seen.add((stat.st_dev, stat.st_ino))
        for name in names:
            yield Path(folder, name)


def cannot_list(error: OSError) -> NoReturn:
    """Say which folder cannot be listed, and why.

    Raises:
        SsondoError: always.
    """
    raise SsondoError(
        f"{error.filename}: this folder cannot be listed ({error.strerror}), and all in it would count as missing; "
        "give permission to read it, mount it again, or move it away"
    ) from None
