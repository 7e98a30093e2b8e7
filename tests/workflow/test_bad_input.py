"""Invalid input gives one clear line and a non-zero exit code, and leaves no incomplete file under a final name."""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import pytest
from project import Project

pytestmark = [pytest.mark.slow, pytest.mark.workflow]
SHARD = "results/tiny/data/audio/train-0000.h5"


def test_unknown_key_is_rejected_before_any_job_is_planned(finished: Project, tmp_path: Path) -> None:
    fresh = Project.make(tmp_path / "fresh")
    fresh.configure(lambda config: config["probe"].update(step=3))
    done = fresh.snakemake(check=False)
    assert done.returncode == 1
    assert "error: config: unknown key 'probe.step' (did you mean 'steps'?)" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (fresh.folder / "results").exists()


def test_null_table_is_rejected_in_one_line(tmp_path: Path) -> None:
    project = Project.make(tmp_path / "fresh")
    project.configure(lambda config: config.update(table2=None))
    done = project.snakemake("table2", "--dry-run", check=False)
    assert done.returncode == 1
    errors = [line for line in (done.stdout + done.stderr).splitlines() if "rror" in line]
    assert errors == ["error: table2 is null in this configuration; set it to have the table"]
    assert "Traceback" not in done.stderr


def failing(project: Project, *arguments: str) -> str:
    """Run snakemake, which must fail, and return the first error message of ssondo."""
    done = project.snakemake(*arguments, check=False)
    assert done.returncode != 0
    errors = re.findall(r"^error: .*$", done.stderr, flags=re.MULTILINE)
    assert errors, done.stderr[-3000:]
    return errors[0]


def test_more_clusters_than_clips_are_rejected(project: Project) -> None:
    project.configure(lambda config: config["table1"].update(n_clusters=1000))
    message = failing(project, "table1")
    assert re.search(r"1000 clusters.* 60 ", message), message
    assert not list(project.results.glob("clusters/yamnet/k1000/*"))


@pytest.mark.parametrize("damage", ["truncated", "other version"])
def test_damaged_shard_is_named_with_a_remedy(project: Project, damage: str) -> None:
    path = project.folder / SHARD
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:5000])
    else:
        with h5py.File(path, "r+") as file:
            file.attrs["format_version"] = 99
    out = project.folder / "e.h5"
    weights = next((project.results / "data" / "checkpoints").glob("*/*.zip"))
    done = project.ssondo(
        *("embed", "--audio", SHARD, "--teacher", '{"kind": "yamnet"}', "--checkpoint", str(weights)), "--out", str(out)
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert SHARD in done.stderr
    assert "snakemake" in done.stderr
    assert not out.exists()
    # The remedy works: remove the file and run again.
    path.unlink()
    project.snakemake("--quiet=all", SHARD)
    assert project.ssondo("inventory", "--shards", SHARD, "--out", "i.json").returncode == 0


def test_checkpoint_with_another_hash_is_rejected(project: Project) -> None:
    def change(config: dict) -> None:
        config["teachers"]["yamnet"]["checkpoint"]["sha256"] = "0" * 64

    weights = "results/tiny/data/checkpoints/teacher-yamnet/YamNet_w8a8.onnx.zip"
    project.configure(change)
    assert "0" * 64 in failing(project, "--dry-run", weights)
    (project.folder / weights).unlink()
    assert "0" * 64 in failing(project, weights)
    assert not list((project.results / "data" / "checkpoints" / "teacher-yamnet").glob("*.zip"))


def start(project: Project, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        project.command(*arguments),
        cwd=project.folder,
        env=project.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # If pytest was started in the background by a shell, its child processes ignore SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def wait_until(condition: Callable[[], bool], seconds: float = 600) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError(f"the condition was not met within {seconds:g} s")


def partial_files(project: Project) -> list[Path]:
    return [p for p in project.results.rglob("*.partial") if p.is_file()]


def assert_shards_are_complete(project: Project) -> None:
    """Check that every shard under a final name can be read."""
    for path in project.results.rglob("*.h5"):
        if ".partial" not in path.name:
            with h5py.File(path) as file:
                assert file.attrs["complete"], path


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "SIGKILL"])
def test_interrupted_run_resumes_without_repeating_finished_jobs(
    finished: Project, tmp_path: Path, signum: signal.Signals
) -> None:
    fresh = Project.make(tmp_path / "fresh")
    clusters = "clusters/yamnet/k3/clusters.h5"
    running = start(fresh, f"results/tiny/{clusters}")
    # Once there is a resampled shard, Snakemake has recorded that the shard was fetched.
    wait_until(lambda: len(list(fresh.results.glob("data/audio/*.h5"))) >= 1)
    os.killpg(running.pid, signum)
    running.wait(600)
    assert running.returncode != 0
    assert_shards_are_complete(fresh)
    if signum == signal.SIGKILL:
        fresh.snakemake("--unlock")
    resampled = list(fresh.results.glob("data/audio/*.digest"))
    assert fresh.planned(f"results/tiny/{clusters}").get("fetch", 0) <= 3 - len(resampled)
    fresh.snakemake("--quiet=all", f"results/tiny/{clusters}")
    assert (fresh.results / f"{clusters}.digest").read_text() == (finished.results / f"{clusters}.digest").read_text()
    assert partial_files(fresh) == []


def test_second_run_in_a_folder_is_rejected_without_harm_to_the_first(finished: Project, tmp_path: Path) -> None:
    fresh = Project.make(tmp_path / "fresh")
    first = start(fresh, "results/tiny/data/audio/train.json")
    wait_until((fresh.results / "data" / "corpus" / "train.csv").exists)
    os.killpg(first.pid, signal.SIGSTOP)  # The first run must not end before the second one starts.
    try:
        second = fresh.snakemake("results/tiny/data/audio/train.json", check=False)
    finally:
        os.killpg(first.pid, signal.SIGCONT)
    assert second.returncode != 0
    assert "LockException" in second.stderr or "locked" in second.stderr
    first.wait(600)
    assert first.returncode == 0
    assert_shards_are_complete(fresh)
    digest = "data/audio/train-0000.h5.digest"
    assert (fresh.results / digest).read_text() == (finished.results / digest).read_text()


def test_full_disk_gives_one_line_and_the_run_resumes_with_more_space(finished: Project, tmp_path: Path) -> None:
    if shutil.which("mount") is None:
        pytest.skip("needs the mount program")
    fresh = Project.make(tmp_path / "fresh")
    folder = fresh.results / "data" / "fetched"
    folder.mkdir(parents=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)], check=False).returncode:
        pytest.skip("needs the right to mount a small file system")
    shard = "results/tiny/data/fetched/train-0000.h5"
    try:
        message = failing(fresh, shard)
        assert message.startswith(f"error: {shard}: no space left")
        assert list(folder.iterdir()) == []
        subprocess.run(["mount", "-o", "remount,size=64m", str(folder)], check=True)
        fresh.snakemake("--quiet=all", shard)
    finally:
        subprocess.run(["umount", str(folder)], check=True)
