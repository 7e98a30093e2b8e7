"""Why a job failed, in one line that names the rule, the reason and the logs.

Snakemake says that a job failed and lists its thousand input files; SLURM says FAILED. What a person
wants to know stands in the job's own log, in SLURM's log of it, or in SLURM's word for its end.
`JobFailures` puts it together from the records that Snakemake logs, which it also shortens.
"""

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_MOST_FILES = 4
_LONGEST_COMMAND = 600
_OUT_OF_MEMORY = re.compile(r"oom.kill|exceeded memory limit|out.of.memory", re.IGNORECASE)
_OURS = re.compile(r"^ *SsondoError: (.*)$", re.MULTILINE)
_REFUSED = re.compile(r"sbatch failed\. The error message was '(.*?)'\.?\s*$", re.MULTILINE | re.DOTALL)


def reason(said: str, own_log: str, slurm_log: str, resources: Mapping[str, Any]) -> str:
    """Why a job failed.

    Args:
        said: the executor's message about its end; "" if there is none.
        own_log: text of the log that the rule names; "" if there is none.
        slurm_log: text of SLURM's log of the job; "" if there is none.
        resources: what the job had: mem_mb and runtime, in minutes.

    Returns:
        A clause without a full stop.
    """
    refused = _REFUSED.search(said)
    if refused:
        return f"SLURM refused it: {' '.join(refused[1].split())}"
    found = re.search(r"SLURM status is: '(\w+)'", said)
    status = found[1] if found else ""
    if status == "OUT_OF_MEMORY" or _OUT_OF_MEMORY.search(slurm_log):
        return f"out of memory, it had {resources.get('mem_mb', 'an unknown number of')} MB (its resource mem_mb)"
    if status == "TIMEOUT":
        return f"out of time, it had {resources.get('runtime', 'an unknown number of')} minutes (its resource runtime)"
    if status == "CANCELLED":
        return "cancelled, by scancel or an administrator"
    if status == "NODE_FAIL":
        return "its node failed"
    errors = re.findall(r"^\S+ \S+ ERROR error: (.*)$", own_log, re.MULTILINE)
    errors = errors or re.findall(r"^(?:(?!srun|slurmstepd)[\w.]+: )?error: (.*)$", slurm_log, re.MULTILINE)
    if errors:
        return str(errors[-1])
    return f"SLURM calls it {status}" if status else "its command ended without saying why"


@dataclass
class _Job:
    """What Snakemake said when it started a job."""

    message: str = ""
    resources: Mapping[str, Any] = field(default_factory=dict)


class JobFailures(logging.Filter):
    """Goes onto Snakemake's logger; lets everything through.

    Attributes:
        lines: of each job that failed and has not succeeded since, by Snakemake's number of the job.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lines: dict[int, str] = {}
        self._jobs: dict[int, _Job] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Learn from a record, and make it shorter."""
        match str(getattr(record, "event", "")):
            case "job_info":
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
                # One of ours, from a rule's input or params: Snakemake adds its traceback.
                found = _OURS.search(record.getMessage())
                if found:
                    record.msg, record.args = f"error: {found[1]}", ()
            case "job_finished":
                self.lines.pop(_attribute(record, "job_id", -1), None)
        return True

    def _line(self, record: logging.LogRecord) -> str:
        job = self._jobs.get(_attribute(record, "jobid", -1), _Job())
        said = _attribute(record, "rule_msg", "")
        logs = [re.sub(r" \(.*\)$", "", str(path)) for path in _attribute(record, "log", [])]
        slurm = [path for path in logs if "slurm" in said.lower() and re.search(r"/\d+\.log$", path)]
        own = [path for path in logs if path not in slurm]
        why = reason(said, _text(own), _text(slurm), job.resources)
        where = [f"log: {path}" for path in own] + [f"SLURM's log: {_short_path(path)}" for path in slurm]
        what = f"rule {_attribute(record, 'rule_name', '')}"
        return "; ".join([f"{what} ({job.message}): {why}" if job.message else f"{what}: {why}", *where])


def _attribute(record: logging.LogRecord, name: str, otherwise: Any) -> Any:
    value = getattr(record, name, None)
    return otherwise if value is None else value


def _shorten(record: logging.LogRecord) -> None:
    """Cut lists of files and the command in a record about a job."""
    for name in ("input", "output"):
        setattr(record, name, _first(_attribute(record, name, [])))
    command = _attribute(record, "shellcmd", "")
    if len(command) > _LONGEST_COMMAND:
        record.shellcmd = f"{command[:_LONGEST_COMMAND]} ... (--printshellcmds shows all of it)"
    why = _attribute(record, "reason", "")
    if len(why) > _LONGEST_COMMAND:
        record.reason = f"{why[:_LONGEST_COMMAND]} ..."


def _first(files: Sequence[str]) -> list[str]:
    if len(files) <= _MOST_FILES:
        return list(files)
    return [*files[: _MOST_FILES - 1], f"and {len(files) - _MOST_FILES + 1:,} more"]


def _text(paths: Iterable[str]) -> str:
    """The logs' text, as far as they can be read."""
    found = []
    for path in paths:
        try:
            found.append(Path(path).read_text(encoding="utf-8", errors="replace"))
        except OSError:
            continue
    return "\n".join(found)


def _short_path(path: str) -> str:
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except ValueError:
        return path
