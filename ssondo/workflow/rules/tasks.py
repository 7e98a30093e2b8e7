"""The jobs of rules/tasks.smk: downloads and preparation of downstream data sets."""

from contextlib import suppress
from dataclasses import replace
from typing import Any

from ssondo.errors import SsondoError
from ssondo.provenance import registered
from ssondo.tasks.load_task import load_task, remotes
from ssondo.tasks.task import Remote
from ssondo.workflow.experiment import Experiment, Job
from ssondo.workflow.input_digests import MAX_FILES


def _remotes(experiment: Experiment, task: str) -> dict[str, Remote]:
    """Return the files that a task is downloaded as; empty for a local copy or if nothing is downloaded."""
    section = experiment.config.tasks[task]
    if section.path is not None:
        return {}
    official = remotes(section.kind)[0]
    if section.mirror is None:
        return official
    mirror = section.mirror.rstrip("/")
    return {name: replace(remote, url=f"{mirror}/{name}") for name, remote in official.items()}


def archives(experiment: Experiment, task: str) -> list[str]:
    """Return the downloaded files that a task is prepared from; empty for a local copy."""
    return [experiment.paths.archive.format(task=task, file=name) for name in _remotes(experiment, task)]


def task_spec(experiment: Experiment, task: str) -> dict[str, Any]:
    """Return the arguments with which the library reads a task."""
    section = experiment.config.tasks[task]
    folder = experiment.paths.archives.format(task=task) if _remotes(experiment, task) else section.path
    path = {} if folder is None else {"path": folder}
    return {"kind": section.kind, **path, **section.options}


def download(experiment: Experiment, task: str, file: str) -> Job:
    """Return the job that downloads a file of a task."""
    section, remote = experiment.config.tasks[task], _remotes(experiment, task)[file]
    checks = {"md5": remote.md5, "size": remote.size} if section.verify else {}
    licence = remotes(section.kind)[1]
    return Job({"url": remote.url}, untracked={**checks, "licence": licence, "config_key": f"tasks.{task}.path"})


def prepare_task(experiment: Experiment, task: str) -> Job:
    """Return the job that prepares the clips of a task."""
    section = experiment.config.tasks[task]
    return Job(
        {"task": task, "spec": task_spec(experiment, task), "seed": section.seed},
        inputs={"archives": archives(experiment, task)},
        modules=[registered("ssondo.tasks", "READERS")[section.kind]],
        content=_own_files(experiment, task),
    )


def _own_files(experiment: Experiment, task: str) -> dict[str, str]:
    """Return the digests of the user's copy of a task: of a table, only the table and the audio files that it lists."""
    section = experiment.config.tasks[task]
    if section.path is None:
        return {}
    if section.kind != "table":
        return experiment.digests.tree(section.path)
    # Other files in the table's folder are not covered: it may be the data folder of this workflow.
    listed: list[str] = []
    with suppress(SsondoError):  # The job itself reports an invalid table.
        listed = [str(clip.source) for clip in load_task(task, task_spec(experiment, task), section.seed).clips]
    return experiment.digests.files([section.path, *(listed if len(listed) <= MAX_FILES else [])])
