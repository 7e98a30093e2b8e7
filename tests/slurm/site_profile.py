"""What a site changes in profiles/slurm, and runs of snakemake with it."""

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
    """A project whose workflow has every rule of the demo once or twice: a job on SLURM starts Snakemake twice."""
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
    """Change the profile in a project's folder as a site would; what is not named stays as shipped.

    Args:
        project: has a folder of its own.
        set_resources: by rule, added to what the profile has for it.
        keys: of the profile, underscores for hyphens.
    """
    path = project.folder / "profiles" / "slurm" / "config.yaml"
    profile = yaml.safe_load(path.read_text())
    # There is no accounting database, and the processors are few.
    profile |= {"slurm-status-command": "squeue", "slurm-init-seconds-before-status-checks": 1, "set-threads": THREADS}
    profile |= {key.replace("_", "-"): value for key, value in keys.items()}
    for rule, resources in (set_resources or {}).items():
        profile["set-resources"][rule] = profile["set-resources"].get(rule, {}) | resources
    path.write_text(yaml.safe_dump(profile))


def describe_partitions(project: Project, partitions: dict[str, dict[str, Any]]) -> None:
    """Let the partition of each job be chosen, as the profile's remark says: a file, and no slurm_partition."""
    path = project.folder / "profiles" / "slurm" / "config.yaml"
    (path.parent / "partitions.yaml").write_text(yaml.safe_dump({"partitions": partitions}))
    profile = yaml.safe_load(path.read_text()) | {"slurm-partition-config": "partitions.yaml"}
    for resources in (profile["default-resources"], *profile["set-resources"].values()):
        resources.pop("slurm_partition", None)
    path.write_text(yaml.safe_dump(profile))


@dataclass
class Run:
    """`snakemake --profile slurm` in a project's folder, started."""

    process: subprocess.Popen[str]
    output: Path

    @property
    def text(self) -> str:
        return self.output.read_text()

    def end(self, seconds: float = 1800) -> int:
        """Its exit code, once it has ended."""
        return self.process.wait(seconds)

    def stop(self) -> None:
        """End it as Ctrl-C does, which cancels its jobs."""
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
