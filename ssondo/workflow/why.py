"""Explain which jobs Snakemake would run again, and why.

Snakemake decides which jobs run: `why` asks it for a dry run. For each of these jobs it compares the params that
Snakemake recorded with the result and those of today: settings, the code hash, and the digest of the user's own files.
"""

import ast
import json
import logging
import os
import re
import shlex
import subprocess
import sys
import tempfile
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ssondo.config.loading import load_files
from ssondo.errors import SsondoError
from ssondo.workflow.code_records import recorded
from ssondo.workflow.experiment import Experiment
from ssondo.workflow.input_digests import InputDigests
from ssondo.workflow.job_failures import JOB_LIST

log = logging.getLogger(__name__)

_METADATA = Path(".snakemake/metadata")
_MAX_NAME = 254
_CONTENT = "content="
_MOST_PARTS = 6
_MOST_GROUPS = 3
# Snakemake's reasons end with the names of files, which differ between jobs.
_FILES_OF_REASON = re.compile(r": [^;]*")


@dataclass
class Rerun:
    """A job that Snakemake would run.

    Attributes:
        rule: Name of the rule.
        wildcards: The job's wildcards.
        output: Its output files.
        reason: The reason that Snakemake gives.
        causes: What changed since the result was made; empty for a job without a result.
    """

    rule: str
    wildcards: dict[str, str] = field(default_factory=dict)
    output: list[str] = field(default_factory=list)
    reason: str = ""
    causes: list[str] = field(default_factory=list)


def _dry_run(arguments: Sequence[str]) -> list[Rerun]:
    """The jobs that Snakemake would run; rules without outputs, which only collect files, are left out."""
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--nocolor", "--cores", "1", *arguments]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "jobs"
        environment = {**os.environ, JOB_LIST: str(path)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    if done.returncode:
        errors = [line for line in (done.stderr + done.stdout).splitlines() if "rror" in line]
        raise SsondoError(f"snakemake --dry-run fails: {errors[0] if errors else done.stderr[-200:]}")
    keys = ("rule", "wildcards", "output", "reason")
    jobs = {line: Rerun(*(json.loads(line)[key] for key in keys)) for line in lines}
    return [job for job in jobs.values() if job.output]


def _recorded_params(output: str) -> list[str] | None:
    """The params with which a file was made, as Snakemake recorded them; None if it has no record."""
    name = urlsafe_b64encode(output.encode()).decode()
    parts = [name[i : i + _MAX_NAME] for i in range(0, len(name), _MAX_NAME)]
    path = _METADATA.joinpath(*(f"@{part}" for part in parts[:-1]), parts[-1])
    try:
        params = json.loads(path.read_text(encoding="utf-8"))["params"]
    except (FileNotFoundError, json.JSONDecodeError, KeyError):
        return None
    return [str(ast.literal_eval(param)) for param in params or []]


def parse_options(text: str) -> dict[str, Any]:
    """Read command-line options back: the values by option, with dots for the keys of a JSON object."""
    options: dict[str, list[str]] = {}
    name = ""
    for word in shlex.split(text):
        if re.match(r"--[a-z]", word):
            name = word.removeprefix("--").replace("-", "_")
            options[name] = []
        elif name:
            options[name].append(word)
    flat: dict[str, Any] = {}
    for name, words in options.items():
        value: Any = " ".join(words) if words else "true"
        if value.startswith("{"):
            value = json.loads(value)
        flat.update(_flatten(name, value))
    return flat


def _flatten(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flatten(f"{name}.{key}", inner)
    else:
        yield name, value


def _config_key(rule: str, option: str, value: Any, keys: Mapping[str, Any]) -> str:
    """The key of the configuration that an option comes from; the option itself if that is not clear."""
    last = option.rpartition(".")[2]
    found = [key for key in keys if key.rpartition(".")[2] == last]
    own = [key for key in found if key.startswith(f"{rule}.")]
    equal = [key for key in found if str(keys[key]) == str(value)]
    for candidates in (own, equal, found):
        if len(candidates) == 1:
            return candidates[0]
    return f"--{option.replace('_', '-')}"


def changed_settings(rule: str, old: str, new: str, keys: Mapping[str, Any]) -> list[str]:
    """Say which settings differ between two strings of options, with the old and the new value of each."""
    before, after = parse_options(old), parse_options(new)
    changed = []
    for option in dict.fromkeys([*before, *after]):
        if before.get(option) != after.get(option):
            key = _config_key(rule, option, after.get(option), keys)
            changed.append(f"{key}: {before.get(option, 'not set')} -> {after.get(option, 'not set')}")
    return changed


def changed_parts(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Say which parts differ between two records: new, removed and changed ones."""
    lines = [f"{name} is new" for name in new if name not in old]
    lines += [f"{name} was removed" for name in old if name not in new]
    return lines + [f"{name} changed" for name in new if name in old and old[name] != new[name]]


def _limited(lines: list[str]) -> list[str]:
    more = len(lines) - _MOST_PARTS
    return lines if more <= 0 else [*lines[:_MOST_PARTS], f"and {more} more"]


def _changed_code(old: str, new: str) -> list[str]:
    before, after = recorded(old), recorded(new)
    if before is None or after is None:
        return [f"code: its hash was {old} and is {new}; the functions behind the old hash are not recorded here"]
    lines = []
    for module in dict.fromkeys([*before, *after]):
        if module not in after:
            lines.append(f"{module} is not used any more")
        elif module not in before:
            lines.append(f"{module} is new")
        else:
            lines += [f"{module}: {line}" for line in changed_parts(before[module], after[module])]
    return [f"code: {line}" for line in _limited(lines)]


def _changed_content(old: str, new: str) -> list[str]:
    before, after = recorded(old), recorded(new)
    if (old and before is None) or (new and after is None):
        return ["input: your own files changed; which ones is not recorded here"]
    return [f"input: {line}" for line in _limited(changed_parts(before or {}, after or {}))]


def _causes(job: Rerun, experiment: Experiment, keys: Mapping[str, Any]) -> list[str]:
    """What changed since the outputs of a job were made."""
    old = next((params for path in job.output if (params := _recorded_params(path)) is not None), None)
    causes = []
    if old is not None and "arams have changed" in job.reason:
        old_code = next((param for param in old if re.fullmatch("[0-9a-f]{16}", param)), "")
        old_content = next((param for param in old if param.startswith(_CONTENT)), _CONTENT)
        options, code = experiment.options(job.rule, **job.wildcards), experiment.code(job.rule, **job.wildcards)
        content = _CONTENT + experiment.content(job.rule, **job.wildcards)
        if options not in old:
            # Other params are paths and options without settings; the settings share most options with today's.
            today = set(parse_options(options))
            before = max(old, key=lambda param: len(today & set(parse_options(param))) if "--" in param else -1)
            settings = changed_settings(job.rule, before if before.startswith("--") else "", options, keys)
            causes += [f"configuration: {line}" for line in settings]
        if old_code != code:
            causes += _changed_code(old_code, code)
        if old_content != content:
            causes += _changed_content(old_content.removeprefix(_CONTENT), content.removeprefix(_CONTENT))
    return causes or [_FILES_OF_REASON.sub("", job.reason).rstrip(".") or "Snakemake gives no reason"]


def reruns(targets: Sequence[str] = (), configfile: Sequence[Path] = ()) -> list[Rerun]:
    """Find the jobs that Snakemake would run, with what changed since their results were made.

    Args:
        targets: Rules or files, as for snakemake; empty for everything.
        configfile: Configuration files that override config.yaml, as for snakemake's --configfile.

    Raises:
        SsondoError: If the configuration is invalid or Snakemake cannot plan the targets.
    """
    options = ["--configfile", *map(str, configfile)] if configfile else []
    jobs = _dry_run([*targets, *options])
    config = load_files(list(configfile))
    experiment = Experiment(config, InputDigests(Path(".snakemake/ssondo/content.json")))
    keys = dict(_flatten("", config.model_dump(mode="json")))
    keys = {key.removeprefix("."): value for key, value in keys.items()}
    for job in jobs:
        job.causes = _causes(job, experiment, keys)
    return jobs


def explain(jobs: Sequence[Rerun]) -> str:
    """Describe jobs as text: those of a rule with the same causes together, and the largest of these groups."""
    if not jobs:
        return "Nothing would run: all results are up to date."
    groups: dict[str, dict[tuple[str, ...], list[str]]] = {}
    for job in jobs:
        groups.setdefault(job.rule, {}).setdefault(tuple(job.causes), []).append(job.output[0])
    lines = []
    for rule, outputs_of in groups.items():
        ordered = sorted(outputs_of.items(), key=lambda group: -len(group[1]))
        for causes, outputs in ordered[:_MOST_GROUPS]:
            lines.append(f"{rule}: {_jobs(len(outputs))} ({outputs[0]}{', ...' if len(outputs) > 1 else ''})")
            lines += [f"    {cause}" for cause in causes]
        if others := sum(len(outputs) for _, outputs in ordered[_MOST_GROUPS:]):
            lines.append(f"{rule}: {_jobs(others)} with other causes; name one of the outputs to see them")
    return "\n".join(lines)


def _jobs(n: int) -> str:
    return f"{n:,} {'job' if n == 1 else 'jobs'}"


def why(target: list[str] | None = None, /, *, configfile: list[Path] | None = None) -> None:
    """Explain each job that Snakemake would run again: the setting, function or input that changed.

    Args:
        target: Rules or files that Snakemake would make. By default, all results are considered.
        configfile: Configuration files that override config.yaml, as for snakemake's --configfile.
    """
    jobs = reruns(target or [], configfile or [])
    log.info("%s", explain(jobs))
    log.info("why: %s would run", _jobs(len(jobs)))
