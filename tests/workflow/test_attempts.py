"""Repetitions of failed jobs in a small workflow: which are made, and with which memory and run time."""

import subprocess
import sys
from pathlib import Path

import pytest

SNAKEFILE = """
import logging
from ssondo.workflow.attempts import limit_attempts
from ssondo.workflow.job_failures import JobFailures

failures = JobFailures()
logging.getLogger("snakemake.logging").addFilter(failures)


onstart:
    failures.jobs = {workflow.dag.jobid(job): job for job in workflow.dag.jobs}


rule all:
    input: "a.done"


rule attempt:
    output: "{name}.done"
    log: "{name}.log"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 1000 * attempt,
        runtime=lambda wildcards, attempt: 10 * attempt,
        max_mem_mb=%(max_mem_mb)s,
    shell:
        "echo {resources.mem_mb} {resources.runtime} >> {wildcards.name}.attempts;"
        " echo '2026-11-24 15:18:26,778 ERROR %(message)s' > {log}; exit 1"


limit_attempts(workflow.rules, failures)
"""


def attempts(folder: Path, message: str, *options: str, max_mem_mb: int = 100_000) -> list[tuple[int, ...]]:
    """Return the memory and run time of each attempt of a job that fails with a message."""
    (folder / "Snakefile").write_text(SNAKEFILE % {"message": message, "max_mem_mb": max_mem_mb})
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--retries", "2", *options]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert run.returncode == 1
    lines = (folder / "a.attempts").read_text().splitlines()
    return [tuple(map(int, line.split())) for line in lines]


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("error: labels.csv: row 7 has no label", [(1000, 10)]),
        ("temporary error: the server does not answer", [(1000, 10)] * 3),
        ("error: unexpected OSError: stale file handle; the traceback is in a.log", [(1000, 10)] * 3),
        ("temporary error: a worker process was killed", [(1000, 10), (2000, 10), (3000, 10)]),
    ],
)
def test_only_failures_that_can_pass_are_repeated_and_only_lack_of_memory_raises_the_memory(
    tmp_path, message, expected
):
    assert attempts(tmp_path, message) == expected


def test_memory_stops_growing_at_the_maximum_of_the_rule_and_of_the_profile(tmp_path):
    killed = "temporary error: a worker process was killed"
    assert attempts(tmp_path, killed, max_mem_mb=2500) == [(1000, 10), (2000, 10), (2500, 10)]
    (tmp_path / "a.attempts").unlink()
    caps = ("--set-resources", "attempt:max_mem_mb=1500", "attempt:max_runtime=5")
    assert attempts(tmp_path, killed, *caps) == [(1000, 5), (1500, 5)], "a third attempt would have no more memory"
