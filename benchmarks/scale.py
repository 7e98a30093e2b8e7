"""Measure how long snakemake plans the whole workflow of config.yaml: 512 shards, 2,400 jobs, before and after a run.

    python benchmarks/scale.py

In a copy of the project, each output is created as a file of one byte and marked as finished, so that Snakemake has a
record of the parameters, code and inputs of every job; then no job may be left to run. The measurement is repeated
after the audio of one shard has changed. It takes six minutes, mostly because snakemake waits 0.1 s for each job that
it marks.
"""

import csv
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
CHANGED = Path("data/audio/train-0100.h5.digest")


def copy_project(folder: Path) -> None:
    """Copy the files that git tracks, with their present content."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, names.split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)


def snakemake(folder: Path, *arguments: str) -> tuple[float, str, str]:
    """Run snakemake and return the seconds, standard output and standard error."""
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    began = time.perf_counter()
    done = subprocess.run(
        ["snakemake", *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - began
    if done.returncode:
        sys.exit(f"snakemake {' '.join(arguments)} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return seconds, done.stdout, done.stderr


def n_jobs(printed: str) -> int:
    """Return the number of jobs that a dry run would start; 0 if it says that nothing is to be done.

    Raises:
        AssertionError: if the output states neither, or says that Snakemake has no record of some jobs.
    """
    assert "missing provenance" not in printed, printed
    total = re.search(r"^total +(\d+)$", printed, flags=re.MULTILINE)
    assert total or "Nothing to be done" in printed, printed
    return int(total[1]) if total else 0


def main() -> None:
    """Create the copy, run the measurements and print the results."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copy_project(folder)
        lines = []

        def measure(description: str, *arguments: str) -> None:
            seconds, out, err = snakemake(folder, *arguments)
            lines.append(f"{seconds:6.1f} s, {n_jobs(out + err):5,} jobs to do: {description}")

        measure("dry run before any job", "--profile", "slurm", "--dry-run", "--quiet=rules", "all")
        _, summary, _ = snakemake(folder, "--cores", "1", "--summary", "all")
        outputs = [folder / row["output_file"] for row in csv.DictReader(io.StringIO(summary), delimiter="\t")]
        for path in outputs:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("x")
        seconds, *_ = snakemake(folder, "--cores", "1", "--touch", "--forceall", "--quiet=all", "all")
        lines.append(f"{seconds:6.1f} s to mark {len(outputs):,} files as finished")
        measure("dry run after all jobs", "--profile", "slurm", "--dry-run", "--quiet=rules", "all")
        measure("run after all jobs", "--profile", "slurm", "all")
        (folder / CHANGED).write_text("y")
        measure("dry run after a change of one shard", "--profile", "slurm", "--dry-run", "--quiet=rules", "all")
    import torch
    from models import machine

    print("\n".join([machine(torch.device("cpu")), *lines]))


if __name__ == "__main__":
    main()
