"""The line that explains a failed job. The input texts are those of SLURM 22.05 and its executor plugin 2.8."""

import logging

import pytest

from ssondo.workflow.job_failures import JobFailures, failure_reason

RESOURCES = {"mem_mb": 4000, "runtime": 60}
RULE_LOG = """\
2026-11-24 15:18:26,778 INFO 60 training clips have sound and an embedding
2026-11-24 15:19:08,301 ERROR error: stopped by SIGTERM at step 386 of 1600; the same command resumes from .s.pt
"""
SLURM_LOG = """\
slurmstepd-n1: error: *** STEP 23.0 ON n1 CANCELLED AT 2026-11-24T15:19:05 ***
srun: error: n1: task 0: Exited with exit code 1
"""


def failed_job(status):
    return f"SLURM-job '23' failed, SLURM status is: '{status}'. Detailed failure reason unavailable."


@pytest.mark.parametrize(
    ("message", "rule_log", "slurm_log", "expected"),
    [
        (failed_job("OUT_OF_MEMORY"), RULE_LOG, "", "out of memory: it had 4000 MB (resource mem_mb)"),
        (
            failed_job("FAILED"),
            "",
            "slurmstepd-n1: error: StepId=30.0 exceeded memory limit (495190016 > 314572800), being killed",
            "out of memory: it had 4000 MB (resource mem_mb)",
        ),
        (
            failed_job("FAILED"),
            "",
            "slurmstepd: error: Detected 1 oom_kill event in StepId=30.0. Some of the step tasks have been OOM Killed.",
            "out of memory: it had 4000 MB (resource mem_mb)",
        ),
        (failed_job("TIMEOUT"), RULE_LOG, SLURM_LOG, "out of time: it had 60 minutes (resource runtime)"),
        (failed_job("CANCELLED"), "", SLURM_LOG, "cancelled, by scancel or an administrator"),
        (failed_job("NODE_FAIL"), "", SLURM_LOG, "its node failed"),
        (
            failed_job("FAILED"),
            RULE_LOG,
            SLURM_LOG,
            "stopped by SIGTERM at step 386 of 1600; the same command resumes from .s.pt",
        ),
        (failed_job("FAILED"), "", f"{SLURM_LOG}error: --epochs: not a number\n", "--epochs: not a number"),
        (failed_job("BOOT_FAIL"), "", "", "its SLURM status is BOOT_FAIL"),
        (
            "SLURM sbatch failed. The error message was 'sbatch: error: invalid partition\n specified: gpu'.\n call",
            RULE_LOG,
            "",
            "SLURM rejected it: sbatch: error: invalid partition specified: gpu",
        ),
        ("", RULE_LOG, "", "stopped by SIGTERM at step 386 of 1600; the same command resumes from .s.pt"),
        ("", "", "", "its command failed without an error message"),
    ],
)
def test_reason_is_found_in_message_or_logs(message, rule_log, slurm_log, expected):
    assert failure_reason(message, rule_log, slurm_log, RESOURCES) == expected


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
        "rule_msg": "Distilling a into b",
        "resources": RESOURCES,
        "reason": str(files),
    }
    logger.info("", extra=started)
    failed = {**job, "event": "job_error", "rule_name": "distill", "rule_msg": failed_job("FAILED")}
    logger.error("", extra={**failed, "log": ["d.log (retrieve from storage)", str(slurm)]})

    line = (
        "rule distill (Distilling a into b): stopped by SIGTERM at step 386 of 1600; the same command resumes from "
        ".s.pt; log: d.log; SLURM's log: .snakemake/slurm_logs/rule_distill/23.log"
    )
    assert failures.lines == {7: line}
    shown = seen.records[-1]
    assert shown.rule_msg == line
    assert shown.input == ["0.h5", "1.h5", "2.h5", "and 1,037 more"]
    assert len(shown.shellcmd) < 700
    assert len(seen.records[0].reason) < 700

    logger.info("", extra={"event": "job_finished", "job_id": 7})
    assert failures.lines == {}


def test_other_records_are_not_changed(logger):
    failures, seen = JobFailures(), Records()
    logger.addFilter(failures)
    logger.addHandler(seen)
    logger.info("Building DAG of jobs...")
    logger.info("", extra={"event": "progress", "done": 1, "total": 2})
    assert [record.getMessage() for record in seen.records] == ["Building DAG of jobs...", ""]
