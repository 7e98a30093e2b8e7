"""What a site changes in profiles/slurm, and runs of snakemake with it."""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from project import ROOT, Project

SMALL = ROOT / "tests" / "slurm" / "small.yaml"
THREADS = dict.fromkeys(
    ["resample", "embed", "cluster", "distill", "supervise", "prepare_task", "embed_task", "probe"], 1
)


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


@dataclass
class Run:
    """`snakemake --profile slurm` in a project's folder, started."""

    process: subprocess.Popen[str]
    output: Path

    @property
    def text(self) -> str:
        return self.output.read_text()

    def end(self, seconds: float = 600) -> int:
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
