"""Copies of the project in folders of their own, in which tests run snakemake."""

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
PARTS = ("ssondo", "rules", "envs", "profiles", "Snakefile", "config.yaml")
# Every rule and every table with the smallest useful sizes: one or two minutes on two cores.
FIXED_INPUTS = ROOT / "ssondo" / "workflow" / "fixed_inputs.yaml"
# The command `ssondo`, which also records the modules of the project that it has imported.
_RECORDER = """#!{python}
import json, os, sys, uuid
from pathlib import Path
from ssondo.cli import main
if __name__ == "__main__":
    code = main()
    names = sorted(name for name in sys.modules if name.split(".")[0] == "ssondo")
    folder = Path(os.environ["SSONDO_MODULES"])
    folder.mkdir(exist_ok=True)
    (folder / f"{{sys.argv[1]}}-{{uuid.uuid4().hex}}.json").write_text(json.dumps(names))
    sys.exit(code)
"""


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock that only one worker of pytest can hold at a time."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@dataclass
class Project:
    """A project folder with its own copy of the library, which its `ssondo` command uses."""

    folder: Path
    configfile: Path
    environment: dict[str, str] = field(default_factory=dict)

    @classmethod
    def make(cls, folder: Path, configfile: Path | None = None) -> "Project":
        """Copy the project into a new folder, with a configuration file that is by default fixed_inputs.yaml."""
        folder.mkdir(parents=True)
        for part in PARTS:
            source = ROOT / part
            if source.is_dir():
                shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, folder / part)
        (folder / "slurm").symlink_to("profiles/slurm")
        wrapper = folder / "bin" / "ssondo"
        wrapper.parent.mkdir()
        wrapper.write_text(_RECORDER.format(python=sys.executable))
        wrapper.chmod(0o755)
        text = (configfile or FIXED_INPUTS).read_text()
        # Tests find the results in results/tiny.
        text = text.replace("name: fixed\n", "name: tiny\n").replace("results/fixed/", "results/tiny/")
        (folder / "tiny.yaml").write_text(text)
        return cls.at(folder)

    @classmethod
    def at(cls, folder: Path) -> "Project":
        """Return the project that `make` has created in `folder`."""
        project = cls(folder, folder / "tiny.yaml")
        project.environment = {
            **os.environ,
            "PATH": f"{folder / 'bin'}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(folder),
            "PYTHONDONTWRITEBYTECODE": "1",
            "SSONDO_MODULES": str(folder / "modules"),
        }
        return project

    @classmethod
    def once(cls, folder: Path, make: Callable[[Path], None]) -> "Project":
        """Return the project in `folder`, which `make` creates for the first worker of pytest that needs it."""
        marker = folder.with_name(f"{folder.name}.finished")
        with locked(folder.with_name(f"{folder.name}.lock")):
            if not marker.exists():
                shutil.rmtree(folder, ignore_errors=True)
                make(folder)
                marker.touch()
        return cls.at(folder)

    def command(self, *arguments: str) -> list[str]:
        return [
            str(Path(sys.executable).parent / "snakemake"),
            "--configfile",
            str(self.configfile),
            "--cores",
            "2",
            *arguments,
        ]

    def snakemake(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.command(*arguments), cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )
        if check and done.returncode:
            raise AssertionError(
                f"snakemake {' '.join(arguments)} ended with {done.returncode}:\n{done.stderr[-6000:]}"
            )
        return done

    def ssondo(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["ssondo", *arguments], cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )

    def planned(self, *arguments: str) -> dict[str, int]:
        """Return the number of jobs of each rule that would run now, without the target rule `all`."""
        done = self.snakemake("--dry-run", "--quiet=rules", *arguments)
        text = done.stdout + done.stderr
        counts = dict(re.findall(r"^(\w+) +(\d+)$", text, flags=re.MULTILINE))
        return {rule: int(n) for rule, n in counts.items() if rule not in ("all", "total")}

    def configure(self, change: Callable[[dict], None]) -> None:
        """Change the configuration file of this project."""
        # The conversion to JSON and back separates sections that share an anchor.
        values = json.loads(json.dumps(yaml.safe_load(self.configfile.read_text())))
        change(values)
        self.configfile.write_text(yaml.safe_dump(values))

    def modules(self) -> dict[str, set[str]]:
        """Return the modules of the project that the commands of each verb have imported."""
        modules: dict[str, set[str]] = {}
        for path in (self.folder / "modules").glob("*.json"):
            modules.setdefault(path.name.rpartition("-")[0], set()).update(json.loads(path.read_text()))
        return modules

    @property
    def results(self) -> Path:
        return self.folder / "results" / "tiny"

    def copy(self, folder: Path) -> "Project":
        """Copy the project and its results, with their modification times."""
        subprocess.run(["cp", "-a", str(self.folder), str(folder)], check=True)
        environment = {name: value.replace(str(self.folder), str(folder)) for name, value in self.environment.items()}
        return Project(folder, folder / "tiny.yaml", environment)
