"""Bad input ends in one clear line, a non-zero exit and nothing half-written."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import h5py
import pytest
from project import Project

pytestmark = [pytest.mark.slow, pytest.mark.workflow]
SHARD = "results/tiny/data/audio/train-0000.h5"


def test_unknown_key_stops_before_anything_is_planned(finished: Project, tmp_path: Path) -> None:
    fresh = Project.make(tmp_path / "fresh")
    fresh.configure(lambda config: config["probe"].update(step=3))
    done = fresh.snakemake(check=False)
    assert done.returncode == 1
    assert "error: config: unknown key 'probe.step' (did you mean 'steps'?)" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (fresh.folder / "results").exists()


def test_table_that_is_null_is_refused_in_one_line(tmp_path: Path) -> None:
    project = Project.make(tmp_path / "fresh")
    project.configure(lambda config: config.update(table2=None))
    done = project.snakemake("table2", "--dry-run", check=False)
    assert done.returncode == 1
    said = [line for line in (done.stdout + done.stderr).splitlines() if "rror" in line]
    assert said == ["error: table2 is null in this configuration; set it to have the table"]
    assert "Traceback" not in done.stderr


def failing(project: Project, *arguments: str) -> str:
    """Run to a failure and return the lines that ssondo itself said."""
    done = project.snakemake(*arguments, check=False)
    assert done.returncode != 0
    errors = re.findall(r"^error: .*$", done.stderr, flags=re.MULTILINE)
    assert errors, done.stderr[-3000:]
    return errors[0]


def test_more_clusters_than_clips(project: Project) -> None:
    project.configure(lambda config: config["table1"].update(n_clusters=1000))
    message = failing(project, "table1")
    assert re.search(r"1000 clusters.* 60 ", message), message
    assert not list(project.results.glob("clusters/yamnet/k1000/*"))


@pytest.mark.parametrize("fault", ["cut short", "other version"])
def test_damaged_shard_is_named_with_the_way_out(project: Project, fault: str) -> None:
    path = project.folder / SHARD
    if fault == "cut short":
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
    # And the way out works: remove it, run again.
    path.unlink()
    project.snakemake("--quiet=all", SHARD)
    assert project.ssondo("inventory", "--shards", SHARD, "--out", "i.json").returncode == 0


def test_checkpoint_with_another_hash_is_refused(project: Project) -> None:
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
        # A shell starts what it runs in the background deaf to Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def wait_until(condition: object, seconds: float = 600) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():  # type: ignore[operator]
            return
        time.sleep(0.05)
    raise AssertionError("it did not happen in time")


def partial_files(project: Project) -> list[Path]:
    return [p for p in project.results.rglob("*.partial") if p.is_file()]


def complete(project: Project) -> None:
    """Every shard under a final name can be read."""
    for path in project.results.rglob("*.h5"):
        if ".partial" not in path.name:
            with h5py.File(path) as file:
                assert file.attrs["complete"], path


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "SIGKILL"])
def test_interrupted_run_goes_on_from_where_it_was(finished: Project, tmp_path: Path, signum: signal.Signals) -> None:
    fresh = Project.make(tmp_path / "fresh")
    clusters = "clusters/yamnet/k3/clusters.h5"
    running = start(fresh, f"results/tiny/{clusters}")
    # Where there is a resampled shard, Snakemake has noted that its fetching is done.
    wait_until(lambda: len(list(fresh.results.glob("data/audio/*.h5"))) >= 1)
    os.killpg(running.pid, signum)
    running.wait(600)
    assert running.returncode != 0
    complete(fresh)
    if signum == signal.SIGKILL:
        fresh.snakemake("--unlock")
    resampled = list(fresh.results.glob("data/audio/*.digest"))
    assert fresh.planned(f"results/tiny/{clusters}").get("fetch", 0) <= 3 - len(resampled)
    fresh.snakemake("--quiet=all", f"results/tiny/{clusters}")
    assert (fresh.results / f"{clusters}.digest").read_text() == (finished.results / f"{clusters}.digest").read_text()
    assert partial_files(fresh) == []


def test_second_run_in_one_folder_says_so_and_harms_nothing(finished: Project, tmp_path: Path) -> None:
    fresh = Project.make(tmp_path / "fresh")
    first = start(fresh, "results/tiny/data/audio/train.json")
    wait_until((fresh.results / "data" / "corpus" / "train.csv").exists)
    os.killpg(first.pid, signal.SIGSTOP)  # so that it is not over before the second one looks
    try:
        second = fresh.snakemake("results/tiny/data/audio/train.json", check=False)
    finally:
        os.killpg(first.pid, signal.SIGCONT)
    assert second.returncode != 0
    assert "LockException" in second.stderr or "locked" in second.stderr
    first.wait(600)
    assert first.returncode == 0
    complete(fresh)
    digest = "data/audio/train-0000.h5.digest"
    assert (fresh.results / digest).read_text() == (finished.results / digest).read_text()


def test_full_disk_is_one_line_and_the_run_goes_on_after_it(finished: Project, tmp_path: Path) -> None:
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
