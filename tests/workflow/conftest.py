"""A finished tiny workflow, made once for all tests, also of several workers."""

from pathlib import Path

import pytest
from project import Project


@pytest.fixture(scope="session")
def finished(shared: Path) -> Project:
    """The tiny workflow, run to its end once for all tests; run and change only copies of it."""

    def make(folder: Path) -> None:
        Project.make(folder).snakemake("--quiet", "host", "reason")

    return Project.once(shared / "finished", make)


@pytest.fixture
def project(finished: Project, tmp_path: Path) -> Project:
    """A finished tiny workflow that a test may change."""
    return finished.copy(tmp_path / "project")
