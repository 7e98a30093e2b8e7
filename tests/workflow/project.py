"""A copy of the project in a folder of its own, and snakemake runs in it."""

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
# Prints nothing of its own; notes which project modules a command had imported when it ended.
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
    """Only one of pytest's workers at a time."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@dataclass
class Project:
    """A project folder whose `ssondo` is its own copy of the library."""

    folder: Path
    configfile: Path = ROOT / "tests" / "workflow" / "tiny.yaml"
    environment: dict[str, str] = field(default_factory=dict)

    @classmethod
    def make(cls, folder: Path, configfile: Path | None = None) -> "Project":
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
        shutil.copy(configfile or cls(folder).configfile, folder / "tiny.yaml")
        return cls.at(folder)

    @classmethod
    def at(cls, folder: Path) -> "Project":
        """The project that `make` has made in `folder`."""
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
        """The project that `make` makes in `folder`, made by the first of pytest's workers that needs it."""
        mark = folder.with_name(f"{folder.name}.finished")
        with locked(folder.with_name(f"{folder.name}.lock")):
            if not mark.exists():
                shutil.rmtree(folder, ignore_errors=True)
                make(folder)
                mark.touch()
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
        """How often each rule would run now; target rules that only collect are left out."""
        done = self.snakemake("--dry-run", "--quiet=rules", *arguments)
        text = done.stdout + done.stderr
        counts = dict(re.findall(r"^(\w+) +(\d+)$", text, flags=re.MULTILINE))
        return {rule: int(n) for rule, n in counts.items() if rule not in ("all", "total")}

    def configure(self, change: Callable[[dict], None]) -> None:
        """Change the config file of this project."""
        # Through JSON, so that sections that share an anchor are changed apart.
        values = json.loads(json.dumps(yaml.safe_load(self.configfile.read_text())))
        change(values)
        self.configfile.write_text(yaml.safe_dump(values))

    def modules(self) -> dict[str, set[str]]:
        """The project modules that each verb's commands had imported."""
        found: dict[str, set[str]] = {}
        for path in (self.folder / "modules").glob("*.json"):
            found.setdefault(path.name.rpartition("-")[0], set()).update(json.loads(path.read_text()))
        return found

    @property
    def results(self) -> Path:
        return self.folder / "results" / "tiny"

    def copy(self, folder: Path) -> "Project":
        """The same project and results elsewhere, with their times, to be changed freely."""
        subprocess.run(["cp", "-a", str(self.folder), str(folder)], check=True)
        environment = {name: value.replace(str(self.folder), str(folder)) for name, value in self.environment.items()}
        return Project(folder, folder / "tiny.yaml", environment)
