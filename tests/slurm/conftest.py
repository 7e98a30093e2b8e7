"""A simulated cluster and a completed small workflow that all tests and all workers of pytest share."""

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
    """The simulated cluster, which its last user stops; the test is skipped if no cluster can be started."""
    cluster = Cluster()
    users, lock = Path(f"{cluster.folder}.users"), Path(f"{cluster.folder}.lock")
    me = users / str(os.getpid())
    with locked(lock):
        obstacle = cluster.obstacle()
        if obstacle:
            if os.environ.get("SSONDO_REQUIRE_SLURM"):
                pytest.fail(f"no SLURM: {obstacle}")
            pytest.skip(f"no SLURM: {obstacle}")
        users.mkdir(exist_ok=True)
        cluster.up()
        me.touch()
    yield cluster
    with locked(lock):
        me.unlink()
        if not any(Path(f"/proc/{user.name}").exists() for user in users.iterdir()):
            shutil.rmtree(users)
            cluster.down()


@pytest.fixture(scope="session")
def local(cluster: Cluster, shared: Path) -> Project:
    """The small workflow, completed without SLURM; tests change only copies of it."""

    def run(folder: Path) -> None:
        threads = (f"{rule}={n}" for rule, n in THREADS.items())
        make(folder).snakemake("--quiet", "host", "reason", "--set-threads", *threads)

    return Project.once(shared / "local", run)


@pytest.fixture
def submit() -> Iterator[Callable[..., Run]]:
    """A function that starts `snakemake --profile slurm` in a project's folder; runs are stopped after the test."""
    runs: list[Run] = []

    def submit(project: Project, *targets: str) -> Run:
        runs.append(start(project, *targets))
        return runs[-1]

    yield submit
    for run in runs:
        run.stop()
