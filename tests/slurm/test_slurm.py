"""The workflow on SLURM with `snakemake --profile slurm`, including failures of jobs and nodes."""

import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cluster import Cluster
from media_server import serving
from project import ROOT, Project
from site_profile import Run, describe_partitions, fill_in, make
from test_import import CONFIG

Submit = Callable[..., Run]
pytestmark = [pytest.mark.slow, pytest.mark.slurm]

STUDENT = "results/tiny/students/distilled/yamnet/mobilenetv3/cosine/k3/seed0/student.ckpt"
BASELINE = "results/tiny/students/supervised/mobilenetv3/seed0/student.ckpt"
DONE = "results/tiny/probes/teacher/yamnet/notes.json"
OWN_LOG = "results/tiny/logs/distill/yamnet/mobilenetv3/cosine-k3-seed0.log"
LOCAL = {"all", "checkpoint", "compose", "inventory", "availability", "scores", "table1", "table2", "fig2", "report"}
ON_GPU = {"embed", "embed_task", "distill", "supervise"}


def until(condition: Callable[[], object], run: Run, seconds: float = 1800) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert run.process.poll() is None, f"snakemake ended first:\n{run.text[-3000:]}"
        assert time.monotonic() < end, f"the condition was not met in time:\n{run.text[-3000:]}"
        time.sleep(0.1)


class Jobs:
    """The jobs that a run of snakemake has submitted, as SLURM reports them."""

    def __init__(self, cluster: Cluster, run: Run) -> None:
        self._cluster, self._run = cluster, run

    def __call__(self) -> list[dict[str, str]]:
        """Return the ID, state, rule, partition, GPUs, node and whole minutes of run time of each job, oldest first."""
        run_id = re.search(r"^SLURM run ID: (\S+)", self._run.text, re.MULTILINE)
        if run_id is None:
            return []
        fields = {
            "id": "JobID",
            "state": "State",
            "rule": "Comment",
            "partition": "Partition",
            "gpus": "tres-per-job",
            "node": "NodeList",
            "minutes": "TimeUsed",
        }
        columns = ",".join(f"{column}:|" for column in fields.values())
        rows = self._cluster.query("squeue", "-h", "--states=all", "--sort=i", "--name", run_id[1], "-O", columns)
        jobs = [dict(zip(fields, row.split("|"), strict=False)) for row in rows.splitlines()]
        for job in jobs:
            job["minutes"] = job["minutes"].partition(":")[0]  # The jobs take less than an hour.
            job["rule"] = re.sub(r"^rule_|_wildcards_.*", "", job["rule"])
        return jobs

    def of(self, rule: str, state: str) -> list[dict[str, str]]:
        return [job for job in self() if job["rule"] == rule and job["state"] == state]


def one_line(run: Run) -> str:
    """Return the single line about a failed job at the end of the output."""
    lines = re.findall(r"^error: .*$", run.text, re.MULTILINE)
    assert len(lines) == 1, run.text[-3000:]
    line: str = lines[0]
    return line


def without_student(local: Project, folder: Path, *, slow: bool = False) -> Project:
    """Copy the completed workflow without a distilled student and without the score of the teacher."""
    project = local.copy(folder)
    shutil.rmtree((project.folder / STUDENT).parent)
    (project.folder / DONE).unlink()
    (project.folder / OWN_LOG).unlink()
    if slow:
        shutil.copy(ROOT / "tests" / "slurm" / "slow_student.py", project.folder)
        (project.folder / "slow").touch()
        student = {"architecture": "slow_student:Slow", "window_s": 1.28, "pretrained": None}
        project.configure(
            lambda config: (
                config["students"].update(mobilenetv3=student),
                config["distill"].update(epochs=20, validate_every=100),
            )
        )
    return project


def test_every_rule_runs_as_a_job_and_the_tables_equal_those_of_a_local_run(
    cluster: Cluster, submit: Submit, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    project = make(tmp_path / "project")
    fill_in(project)
    rules = set(project.planned())
    run = submit(project, "all")
    local: Project = request.getfixturevalue("local")  # completed while the jobs run
    assert run.end() == 0, run.text[-5000:]
    jobs = Jobs(cluster, run)()
    assert {job["rule"] for job in jobs} == rules - LOCAL
    assert {job["state"] for job in jobs} == {"COMPLETED"}
    for job in jobs:
        allocation = (job["partition"], job["gpus"])
        assert allocation == (("gpu", "gres:gpu:1") if job["rule"] in ON_GPU else ("cpu", "N/A")), job
    for name in ("table1.md", "table1.csv", "table1.tex", "scores.csv"):
        assert (project.results / name).read_bytes() == (local.results / name).read_bytes(), name
    assert project.planned() == {}


@pytest.mark.parametrize(("rule", "student"), [("distill", STUDENT), ("supervise", BASELINE)])
def test_training_on_two_nodes_gives_the_student_of_a_single_process(
    cluster: Cluster, local: Project, submit: Submit, tmp_path: Path, rule: str, student: str
) -> None:
    import torch  # Imported here, because six workers import this module.

    from ssondo.distill.initialise import build_student
    from ssondo.students.checkpoint import load_student

    project = local.copy(tmp_path / "project")
    shutil.rmtree((project.folder / student).parent)
    project.configure(lambda config: config[rule].update(learning_rate=1e-4))
    alone = project.copy(tmp_path / "alone")
    project.configure(lambda config: config["runtime"].update(nodes=2))
    fill_in(project)
    run = submit(project, student)
    alone.snakemake("--quiet=all", student)
    assert run.end() == 0, run.text[-5000:]
    assert [(job["rule"], job["node"]) for job in Jobs(cluster, run)()] == [(rule, "n[1-2]")]
    one, two = (load_student(place.folder / student).state_dict() for place in (alone, project))
    settings = {"architecture": "mobilenetv3", "window_s": 1.28, "width_mult": 0.1}
    start = build_student(settings, n_outputs=len(one["classification_head.mlp.3.bias"]), seed=0).state_dict()
    for key, value in one.items():
        if "running" in key:  # Batch statistics are computed over the batch of all processes.
            torch.testing.assert_close(two[key], value, rtol=1e-2, atol=2e-3)
    # Adam moves a weight by a full step even if its gradient is a rounding error, so all weights are compared together.
    moves = [
        torch.cat([(state[key] - start[key]).flatten() for key in start if key.endswith(("weight", "bias"))])
        for state in (one, two)
    ]
    assert moves[0].abs().max() > 2e-4
    assert torch.cosine_similarity(*moves, dim=0) > 0.99


def test_fetch_job_gets_the_fetch_policy_of_the_configuration(cluster: Cluster, submit: Submit, tmp_path: Path) -> None:
    """The policy is a resource: JSON with quotes and spaces that passes through two command lines."""
    clips = [f"_-{n:02d}abcdefg" for n in range(3)]
    (tmp_path / "fetch.yaml").write_text(CONFIG)
    project = Project.make(tmp_path / "project", tmp_path / "fetch.yaml")
    for name, listed in (("train", ["0000abcdefg"]), ("eval", clips)):
        (project.folder / f"{name}.csv").write_text("".join(f"{clip},3,4,\n" for clip in listed))
    with serving() as server:
        server.behaviour = {clips[1]: 500}
        source = {"kind": "youtube", "url_template": server.url, "requests_per_hour": 100_000, "sleep_s": 0}
        source |= {"max_tries_per_clip": 1, "cookies": "a file's name.txt"}
        (project.folder / source["cookies"]).write_text("# Netscape HTTP Cookie File\n")
        project.configure(lambda config: config["audioset"].update(source=source, max_failed_share=0.5))
        fill_in(project)
        run = submit(project, "results/tiny/data/fetched/eval-0000.h5")
        assert run.end() == 0, run.text[-5000:]
        assert "fetch" in {job["rule"] for job in Jobs(cluster, run)()}
        # Without the policy, the job would try the failing clip three times.
        assert server.count_requests() == dict.fromkeys(clips, 1)


def test_cancelled_job_is_named_and_the_next_run_repeats_only_that_job(
    cluster: Cluster, local: Project, submit: Submit, tmp_path: Path
) -> None:
    project = without_student(local, tmp_path / "project", slow=True)
    fill_in(project, retries=0)
    describe_partitions(project, {"cpu": {"max_runtime": "2h"}, "gpu": {"max_runtime": "2d", "max_gpu": 2}})
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
    # Independent jobs have completed. The partitions were chosen by the resources of the jobs.
    assert {job["rule"]: job["partition"] for job in jobs()} == {"distill": "gpu", "probe": "cpu"}
    done = (project.folder / DONE).stat().st_mtime_ns
    (project.folder / "slow").unlink()
    again = submit(project, STUDENT, DONE)
    assert again.end() == 0, again.text[-5000:]
    assert [job["rule"] for job in Jobs(cluster, again)()] == ["distill"]
    assert (project.folder / DONE).stat().st_mtime_ns == done


def test_job_out_of_memory_is_named_and_the_next_attempt_gets_more(
    cluster: Cluster, local: Project, submit: Submit, tmp_path: Path
) -> None:
    project = without_student(local, tmp_path / "project")
    fill_in(project, {"distill": {"mem_mb": "250 * attempt ** 4"}})
    run = submit(project, STUDENT)
    assert run.end() == 0, run.text[-5000:]
    messages = re.findall(r"message: (.*)$", run.text, re.MULTILINE)
    assert len(messages) == 1
    assert "): out of memory: it had 250 MB (resource mem_mb); log: " in messages[0]
    assert [(job["rule"], job["state"]) for job in Jobs(cluster, run)()] == [
        ("distill", "FAILED"),
        ("distill", "COMPLETED"),
    ]
    assert not re.search(r"^error:", run.text, re.MULTILINE), (
        "a job that succeeded at a later attempt is reported as failed"
    )
    assert "distill" not in project.planned()


def test_request_that_no_node_can_meet_ends_the_run_before_the_first_job(
    cluster: Cluster, local: Project, submit: Submit, tmp_path: Path
) -> None:
    project = without_student(local, tmp_path / "project")
    fill_in(project, {"distill": {"mem_mb": cluster.mem_mb + 1}})
    run = submit(project, STUDENT)
    assert run.end() == 1
    assert one_line(run) == (
        "error: rule distill requests 256,001 MB of memory, and the limit of partition gpu is 256,000; set max_mem_mb: "
        "256000 in default-resources of the profile"
    )
    assert Jobs(cluster, run)() == []


def test_training_out_of_time_is_resumed_by_the_next_attempt(
    cluster: Cluster, local: Project, submit: Submit, tmp_path: Path
) -> None:
    project = without_student(local, tmp_path / "project", slow=True)
    project.configure(lambda config: config["runtime"].update(gpus=2))  # starts the training through torchrun
    fill_in(project)
    run = submit(project, STUDENT)
    jobs, log = Jobs(cluster, run), project.folder / OWN_LOG
    until((project.folder / "training").exists, run)
    # The profile requests SIGTERM five minutes before the time limit, so it arrives within the next minute.
    job = jobs.of("distill", "RUNNING")[0]
    minutes = int(job["minutes"]) + 6
    cluster.query("scontrol", "update", f"jobid={job['id']}", f"timelimit={minutes}")
    until(lambda: log.exists() and "stopped by SIGTERM" in log.read_text(), run)
    (project.folder / "slow").unlink()
    assert run.end() == 0, run.text[-5000:]
    stopped = re.findall(r"message: rule distill .*: stopped by SIGTERM at step (\d+) of 80; the same", run.text)
    assert len(stopped) == 1, run.text[-3000:]
    assert f"resuming at step {stopped[0]} of 80" in log.read_text()
    assert [(job["state"], job["gpus"]) for job in jobs()] == [("FAILED", "gres:gpu:2"), ("COMPLETED", "gres:gpu:2")]


def test_drained_node_completes_its_job_and_the_job_of_a_lost_node_restarts_on_another(
    cluster: Cluster, local: Project, submit: Submit, tmp_path: Path
) -> None:
    project = without_student(local, tmp_path / "project", slow=True)
    fill_in(project, {"distill": {"slurm_partition": "spare", "constraint": "spare"}}, retries=0)
    run = submit(project, STUDENT)
    jobs = Jobs(cluster, run)
    until((project.folder / "training").exists, run)
    node = jobs.of("distill", "RUNNING")[0]["node"]
    try:
        cluster.query("scontrol", "update", f"nodename={node}", "state=drain", "reason=test")
        time.sleep(2)
        assert cluster.state(node) == "draining"
        assert jobs.of("distill", "RUNNING")
        cluster.lose(node)
        (project.folder / "slow").unlink()
        assert run.end() == 0, run.text[-5000:]
    finally:
        cluster.restore(node)
    other = next(name for name in cluster.spare_nodes if name != node)
    assert [(job["state"], job["node"]) for job in jobs()] == [("COMPLETED", other)]
    assert "Error in rule" not in run.text
    assert "distill" not in project.planned()
