"""What a fault left behind: the files of a folder, and what the user read."""

from pathlib import Path

import pytest


def names_in(folder: Path) -> list[str]:
    """Names of the files in `folder`, sorted; none if there is no such folder."""
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def one_line(error: pytest.ExceptionInfo[BaseException]) -> str:
    """The text of the error, which must be one line."""
    text = str(error.value)
    assert "\n" not in text
    return text
