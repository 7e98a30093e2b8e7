"""Explain why a job failed in one line that names the rule, the reason and the logs.

Snakemake reports that a job failed and lists its thousand input files; SLURM reports FAILED. The reason is in the log
of the job, in SLURM's log of it, or in its SLURM status. `JobFailures` collects it from the records that Snakemake
logs, and shortens these records.
"""

import json
import logging
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_MAX_FILES = 4
_MAX_TEXT_CHARS = 600
_OUT_OF_MEMORY = re.compile(r"oom.kill|exceeded memory limit|out.of.memory", re.IGNORECASE)
_SSONDO_ERROR = re.compile(r"^ *SsondoError: (.*)$", re.MULTILINE)
_SBATCH_ERROR = re.compile(r"sbatch failed\. The error message was '(.*?)'\.?\s*$", re.MULTILINE | re.DOTALL)


def failure_reason(message: str, rule_log: str, slurm_log: str, resources: Mapping[str, Any]) -> str:
    """Return why a job failed, as a clause without a full stop.

    Args:
        message: message of the executor about the failure; "" if there is none.
        rule_log: text of the log that the rule names; "" if there is none.
        slurm_log: text of SLURM's log of the job; "" if there is none.
        resources: resources of the job, of which `mem_mb` and `runtime` (in minutes) are reported.
    """
    rejection = _SBATCH_ERROR.search(message)
    if rejection:
        return f"SLURM rejected it: {' '.join(rejection[1].split())}"
    match = re.search(r"SLURM status is: '(\w+)'", message)
    status = match[1] if match else ""
    if status == "OUT_OF_MEMORY" or _OUT_OF_MEMORY.search(slurm_log):
        return f"out of memory: it had {resources.get('mem_mb', 'an unknown number of')} MB (resource mem_mb)"
    if status == "TIMEOUT":
        return f"out of time: it had {resources.get('runtime', 'an unknown number of')} minutes (resource runtime)"
    if status == "CANCELLED":
        return "cancelled, by scancel or an administrator"
    if status == "NODE_FAIL":
        return "its node failed"
    errors = re.findall(r"^\S+ \S+ ERROR error: (.*)$", rule_log, re.MULTILINE)
    errors = errors or re.findall(r"^(?:(?!srun|slurmstepd)[\w.]+: )?error: (.*)$", slurm_log, re.MULTILINE)
    if errors:
        return str(errors[-1])
    return f"its SLURM status is {status}" if status else "its command failed without an error message"


JOB_LIST = "SSONDO_JOB_LIST"
"""Variable of the environment: the file to which the jobs of a dry run are written, one JSON object a line."""


@dataclass
class _Job:
    """What Snakemake logged when it started a job."""

    message: str = ""
    resources: Mapping[str, Any] = field(default_factory=dict)


class JobFailures(logging.Filter):
    """A filter for Snakemake's logger that collects failures and suppresses no record.

    Attributes:
        lines: one line for each job that failed and has not succeeded since, by Snakemake's job number.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lines: dict[int, str] = {}
        self._jobs: dict[int, _Job] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Collect what a record says about a job, and shorten it."""
        match str(getattr(record, "event", "")):
            case "job_info":
                _list_job(record)
                self._jobs[record.jobid] = _Job(  # type: ignore[attr-defined]
                    _attribute(record, "rule_msg", ""), dict(_attribute(record, "resources", {}).items())
                )
                _shorten(record)
            case "job_error":
                line = self._line(record)
                self.lines[record.jobid] = line  # type: ignore[attr-defined]
                _shorten(record)
                record.rule_msg = line
            case "error":
                # Snakemake logs a SsondoError that an input or params function raised with its traceback.
                error = _SSONDO_ERROR.search(record.getMessage())
                if error:
                    record.msg, record.args = f"error: {error[1]}", ()
            case "job_finished":
                self.lines.pop(_attribute(record, "job_id", -1), None)
        return True

    def _line(self, record: logging.LogRecord) -> str:
        job = self._jobs.get(_attribute(record, "jobid", -1), _Job())
        message = _attribute(record, "rule_msg", "")
        logs = [re.sub(r" \(.*\)$", "", str(path)) for path in _attribute(record, "log", [])]
        slurm = [path for path in logs if "slurm" in message.lower() and re.search(r"/\d+\.log$", path)]
        own = [path for path in logs if path not in slurm]
        why = failure_reason(message, _text(own), _text(slurm), job.resources)
        named_logs = [f"log: {path}" for path in own] + [f"SLURM's log: {_short_path(path)}" for path in slurm]
        rule = f"rule {_attribute(record, 'rule_name', '')}"
        return "; ".join([f"{rule} ({job.message}): {why}" if job.message else f"{rule}: {why}", *named_logs])


def _list_job(record: logging.LogRecord) -> None:
    """Append a job of a dry run to the file that `ssondo why` reads, which `JOB_LIST` in the environment names."""
    path = os.environ.get(JOB_LIST)
    if path is not None:
        job = {
            "rule": _attribute(record, "rule_name", ""),
            "wildcards": {name: str(value) for name, value in _attribute(record, "wildcards", {}).items()},
            "output": [str(file) for file in _attribute(record, "output", [])],
            "reason": str(_attribute(record, "reason", "")),
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
