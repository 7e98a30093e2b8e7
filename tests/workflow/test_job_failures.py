"""The line that explains a failed job. The input texts are those of SLURM 22.05 and its executor plugin 2.8."""

import logging

import pytest

from ssondo.workflow.job_failures import Failure, JobFailures, explain_failure

RESOURCES = {"mem_mb": 4000, "runtime": 60}
RULE_LOG = """\
2026-11-24 15:18:26,778 INFO 60 training clips have sound and an embedding
2026-11-24 15:19:08,301 ERROR temporary error: stopped by SIGTERM at step 386 of 1600; the same command resumes
"""
SLURM_LOG = """\
slurmstepd-n1: error: *** STEP 23.0 ON n1 CANCELLED AT 2026-11-24T15:19:05 ***
srun: error: n1: task 0: Exited with exit code 1
"""


def failed_job(status):
    return f"SLURM-job '23' failed, SLURM status is: '{status}'. Detailed failure reason unavailable."


STOPPED = "stopped by SIGTERM at step 386 of 1600; the same command resumes"
OUT_OF_MEMORY = Failure("out of memory: it had 4000 MB (resource mem_mb)", "mem_mb")


def refused(text):
    return f"SLURM sbatch failed. The error message was 'sbatch: error: {text}'.\n call"


@pytest.mark.parametrize(
    ("message", "rule_log", "slurm_log", "expected"),
    [
        (failed_job("OUT_OF_MEMORY"), RULE_LOG, "", OUT_OF_MEMORY),
        (
            failed_job("FAILED"),
            "",
            "slurmstepd-n1: error: StepId=30.0 exceeded memory limit (495190016 > 314572800), being killed",
            OUT_OF_MEMORY,
        ),
        (
            failed_job("FAILED"),
            "",
            "slurmstepd: error: Detected 1 oom_kill event in StepId=30.0. Some of the step tasks have been OOM Killed.",
            OUT_OF_MEMORY,
        ),
        (failed_job("FAILED"), "", "/bin/bash: line 1: 4711 Killed                  ssondo embed", OUT_OF_MEMORY),
        ("", "2026-11-24 15:18:26,778 ERROR temporary error: a worker process was killed, usually", "", OUT_OF_MEMORY),
        (
            failed_job("TIMEOUT"),
            RULE_LOG,
            SLURM_LOG,
            Failure("out of time: it had 60 minutes (resource runtime)", "runtime"),
        ),
        (failed_job("CANCELLED"), "", SLURM_LOG, Failure("cancelled, by scancel or an administrator")),
        (failed_job("NODE_FAIL"), "", SLURM_LOG, Failure("its node failed")),
        (failed_job("FAILED"), RULE_LOG, SLURM_LOG, Failure(STOPPED)),
        (
            failed_job("FAILED"),
            "",
            f"{SLURM_LOG}error: --epochs: not a number\n",
            Failure("--epochs: not a number", final=True),
        ),
        (failed_job("BOOT_FAIL"), "", "", Failure("its SLURM status is BOOT_FAIL")),
        ("", RULE_LOG, "", Failure(STOPPED)),
        ("", RULE_LOG.replace("temporary ", ""), "", Failure(STOPPED, final=True)),
        (
            "",
            "2026-11-24 15:18:26,778 ERROR error: unexpected OSError: stale handle; the traceback is in d.log",
            "",
            Failure("unexpected OSError: stale handle; the traceback is in d.log"),
        ),
        ("", "", "", Failure("its command failed without an error message")),
        (
            refused("invalid partition\n specified: gpu"),
            RULE_LOG,
            "",
            Failure("SLURM refused it: sbatch: error: invalid partition specified: gpu", final=True, refused=True),
        ),
        (
            refused("Batch job submission failed: Socket timed out on send/recv operation"),
            "",
            "",
            Failure(
                "SLURM refused it: sbatch: error: Batch job submission failed: Socket timed out on send/recv operation",
                refused=True,
            ),
        ),
        (
            "Job submission failed with exception: The job's slurm_extra contains\n a forbidden option",
            "",
            "",
            Failure("SLURM refused it: The job's slurm_extra contains a forbidden option", final=True, refused=True),
        ),
    ],
)
def test_failure_is_explained_by_message_or_logs(message, rule_log, slurm_log, expected):
    assert explain_failure(message, rule_log, slurm_log, RESOURCES) == expected


@pytest.fixture
def logger():
    logger = logging.Logger("instead of Snakemake's")
    logger.addHandler(logging.NullHandler())
    return logger


class Records(logging.Handler):
    def __init__(self):
        super().__init__()
        self.records = []

    def emit(self, record):
        self.records.append(record)


def test_failed_job_has_one_line_until_it_succeeds(logger, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own, slurm = tmp_path / "d.log", tmp_path / ".snakemake" / "slurm_logs" / "rule_distill" / "23.log"
    slurm.parent.mkdir(parents=True)
    own.write_text(RULE_LOG)
    slurm.write_text(SLURM_LOG)
    failures, seen = JobFailures(), Records()
    logger.addFilter(failures)
    logger.addHandler(seen)

    files = [f"{i}.h5" for i in range(1040)]
    job = {"jobid": 7, "input": files, "output": ["s.ckpt"], "shellcmd": "ssondo distill " + " ".join(files)}
    started = {
        **job,
        "event": "job_info",
        "rule_name": "distill",
        "rule_msg": "Distilling a into b",
        "resources": RESOURCES,
        "reason": str(files),
    }
    logger.info("", extra=started)
    failed = {**job, "event": "job_error", "rule_name": "distill", "rule_msg": failed_job("FAILED")}
    logger.error("", extra={**failed, "log": ["d.log (retrieve from storage)", str(slurm)]})

    line = (
        "rule distill (Distilling a into b): stopped by SIGTERM at step 386 of 1600; the same command resumes; "
        "log: d.log; SLURM's log: .snakemake/slurm_logs/rule_distill/23.log"
    )
    assert failures.lines == [line]
    shown = seen.records[-1]
    assert shown.rule_msg == line
    assert shown.input == ["0.h5", "1.h5", "2.h5", "and 1,037 more"]
    assert len(shown.shellcmd) < 700
    assert len(seen.records[0].reason) < 700

    logger.info("", extra={"event": "job_finished", "job_id": 7})
    assert failures.lines == []


def test_refusal_of_a_later_attempt_does_not_replace_the_first_reason(logger):
    failures = JobFailures()
    logger.addFilter(failures)
    for message in (failed_job("OUT_OF_MEMORY"), refused("Memory specification can not be satisfied")):
        started = {"event": "job_info", "jobid": 7, "rule_name": "embed", "wildcards": {"shard": 1}}
        logger.info("", extra={**started, "rule_msg": "Embedding", "resources": RESOURCES})
        logger.error("", extra={"event": "job_error", "jobid": 7, "rule_name": "embed", "rule_msg": message, "log": []})
    assert failures.lines == [
        "rule embed (Embedding): out of memory: it had 4000 MB (resource mem_mb); of the next attempt, "
        "SLURM refused it: sbatch: error: Memory specification can not be satisfied"
    ]


def test_other_records_are_not_changed(logger):
    failures, seen = JobFailures(), Records()
    logger.addFilter(failures)
    logger.addHandler(seen)
    logger.info("Building DAG of jobs...")
    logger.info("", extra={"event": "progress", "done": 1, "total": 2})
    assert [record.getMessage() for record in seen.records] == ["Building DAG of jobs...", ""]
