"""The house rules that a tool can check."""

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(BIN / command[0]), *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "command",
    [
        ("ruff", "check", "."),
        ("ruff", "format", "--check", "."),
        ("snakefmt", "--check", "Snakefile", "rules"),
        ("mypy",),
    ],
    ids=" ".join,
)
def test_code_passes(command: tuple[str, ...]) -> None:
    done = run(*command)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.workflow
def test_snakemake_lint_has_no_remark(tmp_path: Path) -> None:
    for part in ("rules", "envs"):
        shutil.copytree(ROOT / part, tmp_path / part)
    for part in ("Snakefile", "config.yaml"):
        shutil.copy(ROOT / part, tmp_path / part)
    done = subprocess.run([str(BIN / "snakemake"), "--lint"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_generated_files_are_in_step_with_the_models() -> None:
    done = run("python", "-m", "ssondo.config")
    assert done.returncode == 0, done.stderr


def test_conda_environment_has_the_ranges_of_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    environment = yaml.safe_load((ROOT / "envs" / "ssondo.yaml").read_text())
    assert environment["dependencies"][0] == f"python {project['requires-python']}"
    wanted = project["dependencies"] + project["optional-dependencies"]["pipeline"]
    assert sorted(environment["dependencies"][-1]["pip"]) == sorted(wanted)


def test_constraints_pin_every_dependency_within_its_range() -> None:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    pins = dict(re.findall(r"^([A-Za-z0-9_.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE))
    pins = {canonicalize_name(name): version for name, version in pins.items()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(d for group in project["optional-dependencies"].values() for d in group)]
    for requirement in map(Requirement, wanted):
        pin = pins.get(canonicalize_name(requirement.name))
        assert pin is not None, f"{requirement.name} has no pin"
        assert requirement.specifier.contains(pin, prereleases=True), f"{requirement} excludes {pin}"


def test_nothing_in_the_library_imports_snakemake_or_reads_the_configuration() -> None:
    readers = {"config", "workflow"}
    for path in (ROOT / "ssondo").rglob("*.py"):
        text = path.read_text()
        assert not re.search(r"^\s*(import|from) snakemake", text, flags=re.MULTILINE), path
        place = path.relative_to(ROOT / "ssondo").parts
        if place[0] not in readers:
            assert not re.search(
                r"^\s*(import ssondo\.config|from ssondo(\.config)? import .*\bconfig\b|from ssondo\.config[ .])",
                text,
                flags=re.MULTILINE,
            ), path


def test_import_is_light() -> None:
    code = "import sys, ssondo; print([m for m in ('torch', 'numpy', 'h5py', 'pydantic') if m in sys.modules])"
    assert run("python", "-c", code).stdout.strip() == "[]"


def documented_commands() -> list[tuple[str, str]]:
    """Each snakemake command of README and docs, from blocks and from backticks, with its file."""
    found = []
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        text = path.read_text()
        blocks = re.findall(r"^ {4,}(snakemake\b.*)$", text, flags=re.MULTILINE)
        inline = [" ".join(code.split()) for code in re.findall(r"`(snakemake\s[^`]+)`", text)]
        found += [(path.name, part.strip()) for line in [*blocks, *inline] for part in line.split("&&")]
    return found


@pytest.mark.parametrize(("file", "command"), sorted(set(documented_commands())))
def test_snakemake_takes_a_documented_command_as_it_is_meant(
    file: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from snakemake.cli import parse_args

    monkeypatch.chdir(ROOT)  # where the profiles are
    rules = set(re.findall(r"^rule (\w+):", "".join(p.read_text() for p in ROOT.glob("rules/*.smk")), re.MULTILINE))
    names = rules | {"all"}
    words = shlex.split(command.replace("RULE", "distill"), comments=True)[1:]
    _, options = parse_args(words)
    assert set(options.targets) <= names, "a target that no rule has"
    named = set(options.until) | set(options.forcerun)
    assert named <= rules, "--until or --forcerun takes a word that no rule has"
    assert {word for word in words if word in names} <= set(options.targets) | named, "an option swallows a target"
    assert all(path.suffix == ".yaml" for path in options.configfile or []), "--configfile swallows a word"
    looks_only = options.dryrun or options.lint or options.unlock
    assert looks_only or options.profile or options.cores, "snakemake would ask for --cores"
    makes = options.until or options.forcerun or options.touch
    assert not makes or options.configfile, "other parameters than the experiment's own would be recorded"


def test_there_are_documented_commands_to_try() -> None:
    assert {file for file, _ in documented_commands()} >= {"README.md", "slurm.md", "extend.md", "audioset.md"}


def test_documents_install_this_folder_and_not_the_package_of_that_name() -> None:
    for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        assert not re.search(r"pip install ['\"]?ssondo", path.read_text()), path
