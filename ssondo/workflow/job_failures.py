"""Explain why a job failed in one line that names the rule, the reason and the logs.

Snakemake reports that a job failed and lists its thousand input files; SLURM reports FAILED. The reason is in the log
of the job, in SLURM's log of it, or in its SLURM status. `JobFailures` collects it from the records that Snakemake
logs, and shortens these records.
"""

import json
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

_MAX_FILES = 4
_MAX_TEXT_CHARS = 600
_OUT_OF_MEMORY = re.compile(r"oom.kill|exceeded memory limit|out.of.memory|\d+ Killed +ssondo", re.IGNORECASE)
_WORKER_KILLED = "a worker process was killed"
_SSONDO_ERROR = re.compile(r"^ *SsondoError: (.*)$", re.MULTILINE)
_SBATCH_ERROR = re.compile(r"sbatch failed\. The error message was '(.*?)'\.?\s*$", re.MULTILINE | re.DOTALL)
_SUBMISSION_ERROR = re.compile(r"Job submission failed with exception: (.*)", re.DOTALL)
_SUBMITTED = re.compile(r"Job (\d+) has been submitted with SLURM jobid (\d+)")
_TRY_LATER = re.compile(r"timed out|unable to contact|connection|unavailable|MaxSubmit|try again|busy", re.IGNORECASE)
"""Refusals of SLURM that may not occur again; all others are about the job's resources."""


class Failure(NamedTuple):
    """Why a job failed.

    Attributes:
        reason: a clause without a full stop.
        resource: the resource that was too small, "mem_mb" or "runtime"; None if it was not a resource.
        final: whether another attempt would fail for the same reason.
        refused: whether SLURM did not accept the job, so that its command was never started.
    """

    reason: str
    resource: str | None = None
    final: bool = False
    refused: bool = False


def explain_failure(message: str, rule_log: str, slurm_log: str, resources: Mapping[str, Any]) -> Failure:
    """Return why a job failed.

    Args:
        message: message of the executor about the failure; "" if there is none.
        rule_log: text of the log that the rule names; "" if there is none.
        slurm_log: text of SLURM's log of the job; "" if there is none.
        resources: resources of the job, of which `mem_mb` and `runtime` (in minutes) are reported.
    """
    refusal = _SBATCH_ERROR.search(message) or _SUBMISSION_ERROR.search(message)
    if refusal:
        text = " ".join(refusal[1].split())
        return Failure(f"SLURM refused it: {text}", final=_TRY_LATER.search(text) is None, refused=True)
    match = re.search(r"SLURM status is: '(\w+)'", message)
    status = match[1] if match else ""
    if status == "OUT_OF_MEMORY" or _OUT_OF_MEMORY.search(slurm_log) or _WORKER_KILLED in rule_log:
        memory = resources.get("mem_mb", "an unknown number of")
        at_maximum = memory == resources.get("max_mem_mb")
        limit = "the maximum, resource max_mem_mb" if at_maximum else "resource mem_mb"
        return Failure(f"out of memory: it had {memory} MB ({limit})", "mem_mb", final=at_maximum)
    if status == "TIMEOUT":
        minutes = resources.get("runtime", "an unknown number of")
        return Failure(f"out of time: it had {minutes} minutes (resource runtime)", "runtime")
    if status == "CANCELLED":
        return Failure("cancelled, by scancel or an administrator")
    if status == "NODE_FAIL":
        return Failure("its node failed")
    errors = re.findall(r"^\S+ \S+ ERROR ((?:temporary )?error: .*)$", rule_log, re.MULTILINE)
    errors = errors or re.findall(
        r"^(?:(?!srun|slurmstepd)[\w.]+: )?((?:temporary )?error: .*)$", slurm_log, re.MULTILINE
    )
    if errors:
        kind, _, text = str(errors[-1]).partition(": ")
        return Failure(text, final=kind == "error" and not text.startswith("unexpected "))
    return Failure(f"its SLURM status is {status}" if status else "its command failed without an error message")


JOB_LIST = "SSONDO_JOB_LIST"
"""Variable of the environment: the file to which the jobs of a dry run are written, one JSON object a line."""
_LISTED = ("mem_mb", "runtime", "gpu", "slurm_partition")


@dataclass
class _Job:
    """What Snakemake logged about a job.

    Attributes:
        key: its rule and wildcards.
        message: the message of its rule.
        resources: the resources of its last attempt.
        line: the line about its last failure; "" if it has not failed.
    """

    key: tuple[str, frozenset[tuple[str, str]]]
    message: str = ""
    resources: Mapping[str, Any] = field(default_factory=dict)
    line: str = ""

    @property
    def name(self) -> str:
        """The rule, and the message in brackets."""
        return f"rule {self.key[0]} ({self.message})" if self.message else f"rule {self.key[0]}"


class JobFailures(logging.Filter):
    """A filter for Snakemake's logger that explains failures, decides about repetitions, and suppresses no record.

    Snakemake repeats a failed job whatever the reason, as often as `retries` says. A job that would fail again for the
    same reason is not repeated, once `jobs` has been set.

    Attributes:
        jobs: the jobs of the run by Snakemake's job number.
        submitted: rule and message of each submitted job by its number in SLURM.
    """

    def __init__(self) -> None:
        super().__init__()
        self.jobs: Mapping[int, Any] = {}
        self.submitted: dict[str, str] = {}
        self._logged: dict[int, _Job] = {}
        self._too_small: Counter[tuple[Any, str]] = Counter()

    @property
    def lines(self) -> list[str]:
        """One line for each job that failed and has not succeeded since."""
        return [job.line for job in self._logged.values() if job.line]

    def n_too_small(self, rule: str, wildcards: Mapping[str, Any], resource: str) -> int:
        """Return how often a job has failed because `resource` ("mem_mb" or "runtime") was too small."""
        return self._too_small[_key(rule, wildcards), resource]

    def filter(self, record: logging.LogRecord) -> bool:
        """Collect what a record says about a job, and shorten it."""
        match str(getattr(record, "event", None)):
            case "job_info":
                _list_job(record)
                job = self._job(record)
                job.message = _attribute(record, "rule_msg", "")
                job.resources = dict(_attribute(record, "resources", {}).items())
                _shorten(record)
            case "job_error":
                record.rule_msg = self._failed(record)
                _shorten(record)
            case "error":
                # Snakemake logs a SsondoError that an input or params function raised with its traceback.
                error = _SSONDO_ERROR.search(record.getMessage())
                if error:
                    record.msg, record.args = f"error: {error[1]}", ()
            case "job_finished":
                self._logged.pop(_attribute(record, "job_id", -1), None)
            case "None":
                submitted = _SUBMITTED.match(record.getMessage())
                if submitted and int(submitted[1]) in self._logged:
                    self.submitted[submitted[2]] = self._logged[int(submitted[1])].name
        return True

    def _job(self, record: logging.LogRecord) -> _Job:
        """Return what is stored about the job of a record; the job is added if it is a new one."""
        key = _key(_attribute(record, "rule_name", ""), _attribute(record, "wildcards", {}))
        return self._logged.setdefault(_attribute(record, "jobid", -1), _Job(key))

    def _failed(self, record: logging.LogRecord) -> str:
        """Return the line about a failure, and see to it that a job that would fail again is not repeated."""
        job = self._job(record)
        message = _attribute(record, "rule_msg", "")
        logs = [re.sub(r" \(.*\)$", "", str(path)) for path in _attribute(record, "log", [])]
        slurm = [path for path in logs if "slurm" in message.lower() and re.search(r"/\d+\.log$", path)]
        own = [path for path in logs if path not in slurm]
        failure = explain_failure(message, _text(own), _text(slurm), job.resources)
        if failure.resource is not None:
            self._too_small[job.key, failure.resource] += 1
        if failure.refused and job.line:
            # What failed before is the cause; the refusal concerns what the next attempt requested.
            job.line = f"{job.line}; of the next attempt, {failure.reason}"
        else:
            named_logs = [f"log: {path}" for path in own] + [f"SLURM's log: {_short_path(path)}" for path in slurm]
            job.line = "; ".join([f"{job.name}: {failure.reason}", *named_logs])
        if failure.final:
            self._do_not_repeat(_attribute(record, "jobid", -1))
        return job.line

    def _do_not_repeat(self, jobid: int) -> None:
        job = self.jobs.get(jobid)
        if job is not None:
            job.attempt = max(job.attempt, job.restart_times + 1)  # Snakemake then counts this attempt as the last.


def _key(rule: str, wildcards: Mapping[str, Any]) -> tuple[str, frozenset[tuple[str, str]]]:
    return rule, frozenset((name, str(value)) for name, value in wildcards.items())


def _list_job(record: logging.LogRecord) -> None:
    """Append a job of a dry run to the file that `JOB_LIST` in the environment names; `ssondo why` reads it."""
    path = os.environ.get(JOB_LIST)
    if path is not None:
        job = {
            "rule": _attribute(record, "rule_name", ""),
            "wildcards": {name: str(value) for name, value in _attribute(record, "wildcards", {}).items()},
            "output": [str(file) for file in _attribute(record, "output", [])],
            "reason": str(_attribute(record, "reason", "")),
            "threads": _attribute(record, "threads", 1),
            "resources": {name: _attribute(record, "resources", {}).get(name) for name in _LISTED},
        }
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps(job) + "\n")


def _attribute(record: logging.LogRecord, name: str, default: Any) -> Any:
    value = getattr(record, name, None)
    return default if value is None else value


def _shorten(record: logging.LogRecord) -> None:
    """Shorten the lists of files, the command and the reason in a record about a job."""
    for name in ("input", "output"):
        setattr(record, name, _first(_attribute(record, name, [])))
    command = _attribute(record, "shellcmd", "")
    if len(command) > _MAX_TEXT_CHARS:
        record.shellcmd = f"{command[:_MAX_TEXT_CHARS]} ... (--printshellcmds prints the whole command)"
    why = _attribute(record, "reason", "")
    if len(why) > _MAX_TEXT_CHARS:
        record.reason = f"{why[:_MAX_TEXT_CHARS]} ..."


def _first(files: Sequence[str]) -> list[str]:
    if len(files) <= _MAX_FILES:
        return list(files)
    return [*files[: _MAX_FILES - 1], f"and {len(files) - _MAX_FILES + 1:,} more"]


def _text(paths: Iterable[str]) -> str:
    """Return the text of all logs that can be read."""
    texts = []
    for path in paths:
        try:
            texts.append(Path(path).read_text(encoding="utf-8", errors="replace"))
        except OSError:
            continue
    return "\n".join(texts)


def _short_path(path: str) -> str:
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except ValueError:
        return path
