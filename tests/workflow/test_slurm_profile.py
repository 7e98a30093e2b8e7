"""The SLURM profile and its example of a partition file, as the executor plugin reads them."""

import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

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
