"""A pretend cluster and a finished small workflow, each made once for all tests, also of several workers."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cluster import Cluster
from project import Project, locked
from site_profile import THREADS, Run, make, start


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The pretend cluster, or a skipped test that says why there is none. The last of its users stops it."""
    found = Cluster()
    users, lock = Path(f"{found.folder}.users"), Path(f"{found.folder}.lock")
    me = users / str(os.getpid())
    with locked(lock):
        obstacle = found.obstacle()
        if obstacle:
            if os.environ.get("SSONDO_REQUIRE_SLURM"):
                pytest.fail(f"no SLURM: {obstacle}")
            pytest.skip(f"no SLURM: {obstacle}")
        users.mkdir(exist_ok=True)
        found.up()
        me.touch()
    yield found
    with locked(lock):
        me.unlink()
        if not any(Path(f"/proc/{user.name}").exists() for user in users.iterdir()):
            shutil.rmtree(users)
            found.down()


@pytest.fixture(scope="session")
def local(cluster: Cluster, shared: Path) -> Project:
    """The small workflow, run on this machine without SLURM; change only copies of it."""

    def run(folder: Path) -> None:
        threads = (f"{rule}={n}" for rule, n in THREADS.items())
        make(folder).snakemake("--quiet", "host", "reason", "--set-threads", *threads)

    return Project.once(shared / "local", run)


@pytest.fixture
def submit() -> Iterator[Callable[..., Run]]:
    """Starts `snakemake --profile slurm` for targets in a project's folder; what still runs after the test is ended."""
    runs: list[Run] = []

    def started(project: Project, *targets: str) -> Run:
        runs.append(start(project, *targets))
        return runs[-1]

    yield started
    for run in runs:
        run.stop()
