"""A completed tiny workflow that all tests and all workers of pytest share."""

from pathlib import Path

import pytest
from project import Project


@pytest.fixture(scope="session")
def finished(shared: Path) -> Project:
    """The completed tiny workflow; tests run and change only copies of it."""

    def make(folder: Path) -> None:
        Project.make(folder).snakemake("--quiet", "host", "reason")

    return Project.once(shared / "finished", make)


@pytest.fixture
def project(finished: Project, tmp_path: Path) -> Project:
    """A copy of the completed tiny workflow that a test may change."""
    return finished.copy(tmp_path / "project")
