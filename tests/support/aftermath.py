"""Helpers that inspect the state after an error: the files of a folder and the message."""

from pathlib import Path

import pytest


def names_in(folder: Path) -> list[str]:
    """Return the names of the files in `folder`, sorted; empty if the folder does not exist."""
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def one_line(error: pytest.ExceptionInfo[BaseException]) -> str:
    """Return the message of an error and assert that it is one line."""
    text = str(error.value)
    assert "\n" not in text
    return text
