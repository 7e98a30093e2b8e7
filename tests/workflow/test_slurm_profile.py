"""The SLURM profile and its example of a partition file, as the executor plugin reads them."""

import json
import logging
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from project import Project

from ssondo.workflow.job_failures import JOB_LIST

ROOT = Path(__file__).parents[2]
PROFILE = ROOT / "profiles" / "slurm"


def test_gpu_rules_use_the_gpu_partition_and_trainings_get_sigterm_before_the_time_limit():
    profile = yaml.safe_load((PROFILE / "config.yaml").read_text())
    rules = profile["set-resources"]
    assert set(rules) == {"embed", "embed_task", "distill", "supervise"}
    assert {rule["slurm_partition"] for rule in rules.values()} == {"gpu"}
    assert {name for name, rule in rules.items() if "--signal=TERM@" in rule.get("slurm_extra", "")} == {
        "distill",
        "supervise",
    }
    assert "groups" not in profile


def test_profile_is_found_by_its_name_in_a_fresh_clone():
    assert (ROOT / "slurm" / "config.yaml").samefile(PROFILE / "config.yaml")


@pytest.mark.parametrize(
    ("resources", "threads", "partition"),
    [
        ({"runtime": 60, "mem_mb": 4000}, 1, "short"),
        ({"runtime": 1440, "mem_mb": 4000}, 1, "long"),
        ({"runtime": 120, "mem_mb": 16000, "gpu": 1}, 8, "gpu"),
        ({"runtime": 1440, "mem_mb": 32000, "gpu": 0, "gres": "gpu:4", "nodes": 2, "mpi": "srun"}, 16, "gpu"),
    ],
)
def test_partition_file_selects_the_best_partition_for_each_job(resources, threads, partition):
    partitions = pytest.importorskip("snakemake_executor_plugin_slurm.partitions")
    limits = partitions.read_partition_file(PROFILE / "partitions.yaml")
    job = SimpleNamespace(resources=resources, threads=threads, name="job")
    assert partitions.get_best_partition(limits, job, logging.getLogger("test")) == partition


def request_table(jobs: list[dict]) -> str:
    """Return a Markdown table of what the first attempt of each rule's jobs requests from SLURM."""
    local = re.search(r"localrules:\n((?:    \w+,\n)+)", (ROOT / "rules" / "common.smk").read_text())[1]
    rows = {}
    for job in jobs:
        if f"    {job['rule']},\n" not in local:
            request = job["resources"]
            amounts = (job["threads"], f"{request['mem_mb']:,}", f"{request['runtime']:,}", request["gpu"] or "–")
            rows.setdefault(job["rule"], set()).add((request["slurm_partition"], *amounts))
    lines = ["| rule | partition | processors | MB | minutes | GPUs |", "|---|---|--:|--:|--:|--:|"]
    for rule, requests in sorted(rows.items()):
        lines += [f"| `{rule}` | {' | '.join(map(str, request))} |" for request in requests]
    return "\n".join(lines)


@pytest.mark.slow
@pytest.mark.workflow
@pytest.mark.parametrize("source", ["youtube", "renderer", "folder"])
def test_documentation_lists_what_each_rule_requests(tmp_path, source):
    project = Project.make(tmp_path / "project", ROOT / "config.yaml")
    (project.folder / "mine").mkdir()
    sources = {"youtube": {}, "renderer": {"n_train": 9, "n_eval": 9}, "folder": {"path": "mine"}}

    def shrink(config):
        config["audioset"].update(source={"kind": source, **sources[source]}, n_train_shards=2, n_eval_shards=1)

    project.configure(shrink)
    project.environment[JOB_LIST] = str(tmp_path / "jobs")
    project.snakemake("--dry-run", "--quiet=all", "--profile", "slurm", "--cores", "64", "all")
    table = request_table([json.loads(line) for line in (tmp_path / "jobs").read_text().splitlines()])
    documented = (ROOT / "docs" / "slurm.md").read_text()
    missing = [line for line in table.splitlines() if line not in documented]
    assert not missing, "put these lines into docs/slurm.md:\n" + "\n".join(missing)
