"""Requests of a run compared with the partitions of a cluster, and jobs that will never start."""

from types import SimpleNamespace

import pytest

from ssondo.errors import SsondoError
from ssondo.workflow import slurm
from ssondo.workflow.slurm import Node, Request, check_requests, explain_excess, never_starting, parse_partitions

# The output of SLURM 22.05 for two nodes that are in two partitions, and for one with GPUs of two types.
SINFO = """\
short*|1:00:00|4|16000|(null)
short*|1:00:00|4|16000|(null)
long|14-00:00:00|64|250000|(null)
long|14-00:00:00|32|500000+|(null)
gpu|infinite|64|500000|gpu:a100:4(S:0-1),gpu:h100:2
"""
PARTITIONS = parse_partitions(SINFO)


def test_partitions_have_the_limits_that_sinfo_prints():
    assert PARTITIONS.default == "short"
    assert PARTITIONS.nodes == {
        "short": [Node(60, 4, 16_000, 0)],
        "long": [Node(20_160, 32, 500_000, 0), Node(20_160, 64, 250_000, 0)],
        "gpu": [Node(None, 64, 500_000, 6)],
    }


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (Request("index", "", 60, 4000, 1, 0), None),
        (Request("index", "short", 60, 16_000, 4, 0), None),
        (Request("fetch", "short,long", 1_440, 2_000, 1, 0), None),
        (Request("fetch", "short", 1_440, 2_000, 1, 0, qos=True), None),
        (Request("embed", None, 120, 16_000, 8, 1), None),
        (
            Request("fetch", "", 1_440, 2_000, 1, 0),
            "rule fetch requests 1,440 minutes, and the limit of partition short is 60; set max_runtime: 60 in "
            "default-resources of the profile",
        ),
        (
            Request("distill", "short", 60, 68_000, 1, 0),
            "rule distill requests 68,000 MB of memory, and the limit of partition short is 16,000; set max_mem_mb: "
            "16000 in default-resources of the profile",
        ),
        (
            Request("distill", "short", 60, 8_000, 16, 0),
            "rule distill requests 16 processors, and the limit of partition short is 4; set max-threads: 4 in the "
            "profile",
        ),
        (
            Request("embed", "long", 60, 8_000, 4, 1),
            "rule embed requests GPUs (1), and no node of partition long has any; set another slurm_partition for it "
            "in set-resources of the profile, or runtime: {gpus: 0} in the configuration",
        ),
        (
            Request("distill", "gpu", 60, 8_000, 4, 8),
            "rule distill requests 8 GPUs, and the limit of partition gpu is 6; set runtime: {gpus: 6} in the "
            "configuration",
        ),
        (
            Request("cluster", "long", 60, 400_000, 64, 0),
            "rule cluster: no single node of partition long has the processors, memory and GPUs that it requests",
        ),
        (
            Request("embed", "gpus", 60, 8_000, 4, 1),
            "rule embed: SLURM has no partition gpus; it has short, long, gpu; correct slurm_partition in "
            "profiles/slurm/config.yaml",
        ),
        (
            Request("embed", None, 60, 8_000, 4, 9),
            "rule embed requests 9 GPUs, and the limit of the partitions short, long, gpu is 6; set runtime: {gpus: 6} "
            "in the configuration",
        ),
    ],
)
def test_request_that_no_node_meets_is_explained(request_, expected):
    assert explain_excess(request_, PARTITIONS) == expected


def job(rule, threads=1, **resources):
    return SimpleNamespace(rule=SimpleNamespace(name=rule), threads=threads, resources=resources)


def test_requests_are_the_largest_of_each_rule():
    jobs = [
        job("embed", 8, runtime=120, mem_mb=8000, gpu=1, slurm_partition="gpu"),
        job("embed", 4, runtime=60, mem_mb=16_000, gpu=1, slurm_partition="gpu"),
        job("distill", 16, runtime=60, mem_mb=16_000, gpu=0, gres="gpu:a100:4", slurm_partition="gpu"),
        job("index", runtime=60, mem_mb=4000),
    ]
    assert slurm.requests_of(jobs, chosen_by_executor=False) == [
        Request("embed", "gpu", 120, 16_000, 8, 1),
        Request("distill", "gpu", 60, 16_000, 16, 4),
        Request("index", "", 60, 4000, 1, 0),
    ]
    assert slurm.requests_of(jobs[-1:], chosen_by_executor=True) == [Request("index", None, 60, 4000, 1, 0)]


def test_one_error_names_every_rule_that_the_cluster_cannot_run(monkeypatch):
    monkeypatch.setattr(slurm, "_query", lambda *command: SINFO)
    requests = [Request(rule, "short", 1_440, 2_000, 1, 0) for rule in ("fetch", "download")]
    with pytest.raises(SsondoError, match=r"(?s)^rule fetch requests 1,440 .*\nerror: rule download requests 1,440"):
        check_requests(requests)


def test_nothing_is_checked_without_sinfo(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    check_requests([Request("fetch", "short", 10**9, 2_000, 1, 0)])


def test_pending_job_that_never_starts_is_reported_once_for_its_rule_and_reason(monkeypatch):
    rows = [
        "11|PartitionTimeLimit|short|1-00:00:00|2000M|1",
        "12|PartitionTimeLimit|short|1-00:00:00|2000M|1",
        "13|Resources|short|1:00:00|2000M|1",
        "14|Priority|short|1:00:00|2000M|1",
        "99|BadConstraints|short|1:00:00|2000M|1",
    ]
    monkeypatch.setattr(slurm, "_query", lambda *command: "\n".join(rows))
    names = {"11": "rule fetch (clips of train-0000)", "12": "rule fetch (clips of train-0001)", "13": "rule probe (a)"}
    reported = set()
    assert list(never_starting(names, reported)) == [
        "rule fetch (clips of train-0000): SLURM job 11 will not start: PartitionTimeLimit (partition short, time "
        "limit 1-00:00:00, memory 2000M, 1 processors); stop with Ctrl-C, correct profiles/slurm/config.yaml, and give "
        "the same command again"
    ]
    assert list(never_starting(names, reported)) == []
