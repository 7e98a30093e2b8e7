"""The workflow on a real SLURM: `snakemake --profile slurm`, and what can happen to its jobs."""

import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from cluster import Cluster
from project import ROOT, Project
from site_profile import SMALL, Run, fill_in

Submit = Callable[..., Run]
pytestmark = [pytest.mark.slow, pytest.mark.slurm]

STUDENT = "results/tiny/students/distilled/yamnet/mobilenetv3/cosine/k3/seed0/student.ckpt"
DONE = "results/tiny/probes/teacher/yamnet/notes.json"
OWN_LOG = "results/tiny/logs/distill/yamnet/mobilenetv3/cosine-k3-seed0.log"
LOCAL = {"all", "checkpoint", "compose", "inventory", "scores", "table1", "table2", "fig2", "report"}
ON_GPU = {"embed", "embed_task", "distill", "supervise"}


def until(condition: Callable[[], object], run: Run, seconds: float = 600) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert run.process.poll() is None, f"it ended before:\n{run.text[-3000:]}"
        assert time.monotonic() < end, f"it did not happen in time:\n{run.text[-3000:]}"
        time.sleep(0.1)


class Jobs:
    """The jobs that a run of snakemake has submitted, as SLURM knows them."""

    def __init__(self, cluster: Cluster, run: Run) -> None:
        self._cluster, self._run = cluster, run

    def __call__(self) -> list[dict[str, str]]:
        """Of each, oldest first: id, state, rule, partition, gpus, node."""
        named = re.search(r"^SLURM run ID: (\S+)", self._run.text, re.MULTILINE)
        if named is None:
            return []
        query = ("squeue", "-h", "--states=all", "--sort=i", "--name", named[1], "-o", "%A|%T|%k|%P|%b|%N")
        rows = [line.split("|") for line in self._cluster.query(*query).splitlines()]
        keys = ("id", "state", "rule", "partition", "gpus", "node")
        jobs = [dict(zip(keys, row, strict=True)) for row in rows]
        for job in jobs:
            job["rule"] = re.sub(r"^rule_|_wildcards_.*", "", job["rule"])
        return jobs

    def of(self, rule: str, state: str) -> list[dict[str, str]]:
        return [job for job in self() if job["rule"] == rule and job["state"] == state]


def one_line(run: Run) -> str:
    """The last lines say what failed, one line for each job: this is the only one."""
    lines = re.findall(r"^error: .*$", run.text, re.MULTILINE)
    assert len(lines) == 1, run.text[-3000:]
    found: str = lines[0]
    return found


def to_be_distilled(local: Project, folder: Path, *, slow: bool = False) -> Project:
    """A copy of the finished workflow that lacks a student and the score of a teacher."""
    project = local.copy(folder)
    shutil.rmtree((project.folder / STUDENT).parent)
    (project.folder / DONE).unlink()
    (project.folder / OWN_LOG).unlink()
    if slow:
        shutil.copy(ROOT / "tests" / "slurm" / "slow_student.py", project.folder)
        (project.folder / "slow").touch()
        student = {"architecture": "slow_student:Slow", "window_s": 1.28, "init": None}
        project.configure(
            lambda config: (
                config["students"].update(mobilenetv3=student),
                config["distill"].update(epochs=20, validate_every=100),
            )
        )
    return project


def test_every_rule_is_a_job_and_the_tables_are_those_of_a_local_run(
    cluster: Cluster, submit: Submit, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    project = Project.make(tmp_path / "project", SMALL)
    fill_in(project)
    rules = set(project.planned())
    run = submit(project, "all")
    local: Project = request.getfixturevalue("local")  # made meanwhile
    assert run.end() == 0, run.text[-5000:]
    jobs = Jobs(cluster, run)()
    assert {job["rule"] for job in jobs} == rules - LOCAL
    assert {job["state"] for job in jobs} == {"COMPLETED"}
    for job in jobs:
        where = (job["partition"], job["gpus"])
        assert where == (("gpu", "gres:gpu:1") if job["rule"] in ON_GPU else ("cpu", "N/A")), job
    for name in ("table1.md", "table1.csv", "table1.tex", "scores.csv"):
        assert (project.results / name).read_bytes() == (local.results / name).read_bytes(), name
    assert project.planned() == {}


def test_two_nodes_train_the_student_that_one_process_trains(
    cluster: Cluster, local: Project, submit: Submit, tmp_path: Path
) -> None:
    project = to_be_distilled(local, tmp_path / "project", slow=True)
    (project.folder / "slow").unlink()
    alone = project.copy(tmp_path / "alone")
    project.configure(lambda config: config["runtime"].update(nodes=2))
    fill_in(project)
    run = submit(project, STUDENT)
    alone.snakemake("--quiet=all", STUDENT)
    assert run.end() == 0, run.text[-5000:]
    assert [job["node"] for job in Jobs(cluster, run)()] == ["n[1-2]"]
    one, two = (
        torch.load(place.folder / STUDENT, map_location="cpu", weights_only=True)["state_dict"]
        for place in (alone, project)
    )
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-3, atol=1e-4, msg=lambda text, key=key: f"{key}: {text}")


def test_cancelled_job_is_named_and_the_next_call_does_only_the_rest(
    cluster: Cluster, local: Project, submit: Submit, tmp_path: Path
) -> None:
    project = to_be_distilled(local, tmp_path / "project", slow=True)
    fill_in(project, retries=0)
    run = submit(project, STUDENT, DONE)
    jobs = Jobs(cluster, run)
    until(lambda: jobs.of("distill", "RUNNING"), run)
    cluster.query("scancel", jobs.of("distill", "RUNNING")[0]["id"])
    assert run.end() == 1
    assert re.fullmatch(
        rf"error: rule distill \(Distilling yamnet into mobilenetv3 .*\): cancelled, by scancel or an administrator; "
        rf"log: {OWN_LOG}; SLURM's log: (\.snakemake/slurm_logs/rule_distill/\S+\.log)",
        one_line(run),
    )
    # What does not depend on it has been done meanwhile.
    done = (project.folder / DONE).stat().st_mtime_ns
    (project.folder / "slow").unlink()
    again = submit(project, STUDENT, DONE)
    assert again.end() == 0, again.text[-5000:]
    assert [job["rule"] for job in Jobs(cluster, again)()] == ["distill"]
    assert (project.folder / DONE).stat().st_mtime_ns == done


def test_job_out_of_memory_is_named_and_gets_more_at_the_next_attempt(
    cluster: Cluster, local: Project, submit: Submit, tmp_path: Path
) -> None:
    project = to_be_distilled(local, tmp_path / "project")
    fill_in(project, {"distill": {"mem_mb": "250 * attempt ** 4"}})
    run = submit(project, STUDENT)
    assert run.end() == 0, run.text[-5000:]
    said = re.findall(r"message: (.*)$", run.text, re.MULTILINE)
    assert len(said) == 1
    assert "): out of memory, it had 250 MB (its resource mem_mb); log: " in said[0]
    assert [(job["rule"], job["state"]) for job in Jobs(cluster, run)()] == [
        ("distill", "FAILED"),
        ("distill", "COMPLETED"),
    ]
    assert not re.search(r"^error:", run.text, re.MULTILINE), "what succeeded in the end is no error at the end"
    assert "distill" not in project.planned()


def test_training_out_of_time_keeps_its_state_and_the_next_attempt_goes_on(
    cluster: Cluster, local: Project, submit: Submit, tmp_path: Path
) -> None:
    project = to_be_distilled(local, tmp_path / "project", slow=True)
    # The profile warns five minutes before the limit: here half a minute to a minute after the start.
    fill_in(project, {"distill": {"runtime": "6 if attempt == 1 else 60"}})
    run = submit(project, STUDENT)
    log = project.folder / OWN_LOG
    until(lambda: log.exists() and "stopped by SIGTERM" in log.read_text(), run)
    (project.folder / "slow").unlink()
    assert run.end() == 0, run.text[-5000:]
    stopped = re.findall(r"message: rule distill .*: stopped by SIGTERM at step (\d+) of 80; the same", run.text)
    assert len(stopped) == 1, run.text[-3000:]
    assert f"going on at step {stopped[0]} of 80" in log.read_text()
    assert [job["state"] for job in Jobs(cluster, run)()][-2:] == ["FAILED", "COMPLETED"]


def test_drained_node_goes_on_and_a_lost_nodes_job_starts_again_on_another(
    cluster: Cluster, local: Project, submit: Submit, tmp_path: Path
) -> None:
    project = to_be_distilled(local, tmp_path / "project", slow=True)
    fill_in(project, {"distill": {"constraint": "spare"}}, retries=0)
    run = submit(project, STUDENT)
    jobs, log = Jobs(cluster, run), project.folder / OWN_LOG
    until(lambda: log.exists() and "12 eval clips" in log.read_text(), run)
    node = jobs.of("distill", "RUNNING")[0]["node"]
    try:
        cluster.query("scontrol", "update", f"nodename={node}", "state=drain", "reason=test")
        time.sleep(2)
        assert cluster.state(node) == "draining"
        assert jobs.of("distill", "RUNNING")
        cluster.query("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
        (project.folder / "slow").unlink()
        assert run.end() == 0, run.text[-5000:]
    finally:
        cluster.query("scontrol", "update", f"nodename={node}", "state=resume")
    other = next(name for name in cluster.spare_nodes if name != node)
    assert [(job["state"], job["node"]) for job in jobs()] == [("COMPLETED", other)]
    assert "Error in rule" not in run.text
    assert "distill" not in project.planned()
