"""A finished tiny workflow, made once."""

from pathlib import Path

import pytest
from project import Project


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The tiny workflow, run to its end once for all tests; change only copies of it."""
    project = Project.make(tmp_path_factory.mktemp("workflow") / "finished")
    project.snakemake("--quiet", "host", "reason")
    return project


@pytest.fixture
def project(finished: Project, tmp_path: Path) -> Project:
    """A finished tiny workflow that a test may change."""
    return finished.copy(tmp_path / "project")
