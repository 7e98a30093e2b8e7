"""Changes of profiles/slurm that a site makes, and runs of snakemake with the changed profile."""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from project import Project

THREADS = dict.fromkeys(
    ["resample", "embed", "cluster", "distill", "supervise", "prepare_task", "embed_task", "probe"], 1
)


def make(folder: Path) -> Project:
    """Create a project with few jobs of each rule, because each SLURM job starts Snakemake twice."""
    project = Project.make(folder)

    def fewer(config: dict[str, Any]) -> None:
        config["audioset"].update(n_train_shards=1)
        config["runtime"].update(gpus=1)
        config["tasks"].pop("drums")
        config["table1"].update(tasks=["notes"])
        config.update(table2=None, fig2=None)

    project.configure(fewer)
    return project


def fill_in(project: Project, set_resources: dict[str, dict[str, Any]] | None = None, **keys: Any) -> None:
    """Change the profile in a project's folder as a site would; other keys keep their values.

    Args:
        project: the project whose profile is changed.
        set_resources: resources by rule, which are added to those in the profile.
        keys: keys of the profile, with underscores instead of hyphens.
    """
    path = project.folder / "profiles" / "slurm" / "config.yaml"
    profile = yaml.safe_load(path.read_text())
    # The cluster has no accounting database, and the machine has few processors.
    profile |= {"slurm-status-command": "squeue", "slurm-init-seconds-before-status-checks": 1, "set-threads": THREADS}
    profile |= {key.replace("_", "-"): value for key, value in keys.items()}
    for rule, resources in (set_resources or {}).items():
        profile["set-resources"][rule] = profile["set-resources"].get(rule, {}) | resources
    path.write_text(yaml.safe_dump(profile))


def describe_partitions(project: Project, partitions: dict[str, dict[str, Any]]) -> None:
    """Replace every slurm_partition by a partition file, so that the executor chooses the partition of each job."""
    path = project.folder / "profiles" / "slurm" / "config.yaml"
    (path.parent / "partitions.yaml").write_text(yaml.safe_dump({"partitions": partitions}))
    profile = yaml.safe_load(path.read_text()) | {"slurm-partition-config": "partitions.yaml"}
    for resources in (profile["default-resources"], *profile["set-resources"].values()):
        resources.pop("slurm_partition", None)
    path.write_text(yaml.safe_dump(profile))


@dataclass
class Run:
    """A started `snakemake --profile slurm` in a project's folder."""

    process: subprocess.Popen[str]
    output: Path

    @property
    def text(self) -> str:
        return self.output.read_text()

    def end(self, seconds: float = 1800) -> int:
        """Wait until it has ended and return its exit code."""
        return self.process.wait(seconds)

    def stop(self) -> None:
        """Stop it as Ctrl-C does, which cancels its jobs."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGINT)
            self.process.wait(60)


def start(project: Project, *targets: str) -> Run:
    output = project.folder / f"run-{len(list(project.folder.glob('run-*.log')))}.log"
    with output.open("w") as file:
        process = subprocess.Popen(
            [
                *(str(Path(sys.executable).parent / "snakemake"), "--profile", "slurm"),
                *("--configfile", str(project.configfile), "--", *targets),
            ],
            cwd=project.folder,
            env=project.environment,
            stdout=file,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
    return Run(process, output)
