"""Accept code that gives identical results, so that an upgrade to it runs nothing again.

The old and the new code run the workflow of fixed_inputs.yaml up to the rules whose code differs, each in a process and
a folder of its own. Only rules whose outputs are identical get a row in equivalent_code.json.
"""

import ast
import io
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from base64 import urlsafe_b64decode
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from ssondo.errors import SsondoError
from ssondo.provenance import EQUIVALENT_CODE, SourceTree
from ssondo.storage.atomic_files import digest_path, file_digest, read_json, write_json
from ssondo.workflow.rules import RULES

log = logging.getLogger(__name__)

_PROJECT = Path(__file__).parents[2]
_FIXED_INPUTS = Path(__file__).with_name("fixed_inputs.yaml")
_PARTS = ("ssondo", "rules", "envs", "profiles", "Snakefile", "config.yaml")
_STUDENTS, _TEACHERS = ("ssondo.students", "ARCHITECTURES"), ("ssondo.teachers", "TEACHERS")
_SOURCES, _TASKS = ("ssondo.audioset.sources", "SOURCES"), ("ssondo.tasks", "READERS")
REGISTRIES = {
    "locate": [[_SOURCES]],
    "fetch": [[_SOURCES]],
    "embed": [[_TEACHERS]],
    "distill": [[_STUDENTS, ("ssondo.distill", "LOSSES")]],
    "supervise": [[_STUDENTS]],
    "initialise": [[_STUDENTS]],
    "prepare_task": [[_TASKS]],
    "embed_task": [[_STUDENTS], [_TEACHERS]],
}
"""For each rule, alternatives: the registries of each of which the configuration chooses one entry."""
# Entries of a score file that name the code and the machine.
_NOT_COMPARED = ("code", "environment", "environment_of")
# Event files and pages contain times of day, so they cannot be compared.
_WITHOUT_CONTENT = (".tfevents", ".html")


def _unpack(revision: str, folder: Path) -> None:
    """Write a git revision of this project, or the project in a folder, to `folder`."""
    source = Path(revision)
    if source.is_dir():
        for part in _PARTS:
            if (source / part).is_dir():
                shutil.copytree(source / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
            elif (source / part).is_file():
                shutil.copy(source / part, folder / part)
            else:
                raise SsondoError(f"{source}: not a folder of the project; it contains no {part}")
        return
    command = ["git", "-C", str(_PROJECT), "archive", revision, *_PARTS]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        reason = " ".join(done.stderr.decode(errors="replace").split())
        raise SsondoError(f"--old {revision}: neither a folder of the project nor a git revision of it ({reason})")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(folder, filter="data")


def _codes(folder: Path) -> dict[tuple[str, str], str]:
    """The code hashes of each rule of the project in `folder`, each with the first choice of entries that has it."""
    tree = SourceTree(folder / "ssondo")
    codes: dict[tuple[str, str], str] = {}
    try:
        for rule, target in tree.targets("ssondo.workflow.verbs", "VERBS").items():
            if rule not in RULES:
                continue
            for registries in REGISTRIES.get(rule, [[]]):
                for entries in product(*(tree.targets(*registry).items() for registry in registries)):
                    modules = [chosen.partition(":")[0] for _, chosen in (("", target), *entries)]
                    codes.setdefault((rule, tree.code_hash(*modules)), " ".join(name for name, _ in entries))
    except ValueError as error:
        raise SsondoError(f"the code cannot be compared: {error}; nothing is accepted") from None
    return codes


def _snakemake(folder: Path, *options: str) -> str:
    """Run Snakemake on the fixed inputs with the code in `folder`, and return what it prints."""
    own = folder / "ssondo" / "workflow" / _FIXED_INPUTS.name
    shutil.copy(own if own.is_file() else _FIXED_INPUTS, folder / _FIXED_INPUTS.name)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PYTHONPATH": str(folder), "PATH": path}
    command = [sys.executable, "-m", "snakemake", "--configfile", _FIXED_INPUTS.name, *options]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in (done.stderr + done.stdout).splitlines() if "rror" in line]
        reason = lines[-1] if lines else "no message"
        raise SsondoError(f"the {folder.name} code does not run the fixed inputs: {reason}; nothing is accepted")
    return done.stdout + done.stderr


def _planned_rules(folder: Path) -> set[str]:
    """Return the rules that the workflow of the fixed inputs runs."""
    text = _snakemake(folder, "--dry-run", "--quiet=rules")
    return set(re.findall(r"^(\w+) +\d+$", text, flags=re.MULTILINE))


def _run(folder: Path, rules: Sequence[str], cores: int) -> dict[tuple[str, str], dict[str, str | None]]:
    """Run the workflow of the fixed inputs up to some rules with the code in `folder`, and return its outputs."""
    _snakemake(folder, "--cores", str(cores), "--quiet", "all", "--until", *rules)
    return outputs_by_code(folder)


def content_of(path: Path) -> str | None:
    """Return a digest of what an output holds; None if it contains times and cannot be compared."""
    if path.suffix in _WITHOUT_CONTENT or path.name == "curves.png":
        return None
    if digest_path(path).is_file():
        return digest_path(path).read_text(encoding="utf-8")
    if path.suffix == ".json":
        return json.dumps(_comparable(read_json(path)), sort_keys=True)
    if path.name in ("history.csv", "scores.csv"):
        lines = path.read_text(encoding="utf-8").splitlines()
        ignored = "seconds|_s$|per_s|rate$|^code$"
        kept = [i for i, name in enumerate(lines[0].split(",")) if not re.search(ignored, name)]
        return "\n".join(",".join(line.split(",")[i] for i in kept) for line in lines)
    return file_digest(path)


def _comparable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _comparable(inner) for key, inner in value.items() if key not in _NOT_COMPARED}
    return value


def outputs_by_code(folder: Path) -> dict[tuple[str, str], dict[str, str | None]]:
    """Return the content of each output of a finished workflow, by rule and code hash, and then by path."""
    root = folder / ".snakemake" / "metadata"
    outputs: dict[tuple[str, str], dict[str, str | None]] = {}
    for record_path in sorted(path for path in root.rglob("*") if path.is_file()):
        name = "".join(part.removeprefix("@") for part in record_path.relative_to(root).parts)
        output = urlsafe_b64decode(name).decode()
        record = json.loads(record_path.read_text(encoding="utf-8"))
        params = [str(ast.literal_eval(param)) for param in record["params"] or []]
        code = next((param for param in params if re.fullmatch("[0-9a-f]{16}", param)), None)
        if code is not None:
            outputs.setdefault((record["rule"], code), {})[output] = content_of(folder / output)
    return outputs


def equivalent(
    old: Mapping[tuple[str, str], Mapping[str, str | None]], new: Mapping[tuple[str, str], Mapping[str, str | None]]
) -> dict[str, list[tuple[str, str]]]:
    """Return, for each rule, the pairs of old and new code hashes with identical outputs, where the hashes differ.

    A rule of which no output can be compared is left out.

    Raises:
        SsondoError: If an output differs; the message names it.
    """
    code_of = {output: code for (_, code), outputs in old.items() for output in outputs}
    content = {output: value for outputs in old.values() for output, value in outputs.items()}
    pairs: dict[str, set[tuple[str, str]]] = {}
    for (rule, code), outputs in new.items():
        for output, value in outputs.items():
            if output not in content:
                raise SsondoError(f"{rule}: the old code does not make {output}; the codes are not equivalent")
            if value != content[output]:
                raise SsondoError(f"{rule}: {output} differs between the old and the new code; nothing is accepted")
            if value is not None and code_of[output] != code:
                pairs.setdefault(rule, set()).add((code_of[output], code))
    return {rule: sorted(found) for rule, found in pairs.items()}


def add_rows(table: dict[str, list[list[str]]], pairs: Mapping[str, list[tuple[str, str]]]) -> None:
    """Add pairs of hashes to the rows of their rules; a hash is in one row only."""
    for rule, found in pairs.items():
        rows = table.setdefault(rule, [])
        for old, new in found:
            row = next((row for row in rows if old in row), None)
            if row is None:
                rows.append([old, new])
            elif new not in row:
                row.append(new)


def accept_code(*, old: str, cores: int = 2) -> None:
    """Accept this code as equivalent to older code, if fixed inputs give identical results.

    The command runs a tiny workflow with the old and the new code. If all outputs are identical, results of the old
    code stay valid. Code that the tiny workflow does not run, such as a teacher that it does not use, is not accepted.

    Args:
        old: Git revision of the old code, or a folder of the project with it.
        cores: Number of processor cores of each run.

    Raises:
        SsondoError: If an output differs, or one of the codes does not run.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folders = [Path(temporary, name) for name in ("old", "new")]
        for folder, source in zip(folders, (old, str(_PROJECT)), strict=True):
            folder.mkdir()
            _unpack(source, folder)
        before, after = (_codes(folder) for folder in folders)
        changed = {code: choice for code, choice in after.items() if code not in before}
        if not changed:
            log.info("accept_code: the code of no rule has changed, so nothing runs again")
            return
        planned = _planned_rules(folders[-1])
        rules = [rule for rule in dict.fromkeys(rule for rule, _ in changed) if rule in planned]
        pairs = equivalent(*(_run(folder, rules, cores) for folder in folders)) if rules else {}
    table = read_json(EQUIVALENT_CODE)
    add_rows(table, pairs)
    write_json(EQUIVALENT_CODE, table)
    covered = {(rule, new) for rule, codes in pairs.items() for _, new in codes}
    others = [f"{rule} {choice}".strip() for (rule, code), choice in changed.items() if (rule, code) not in covered]
    if others:
        log.warning("not covered by the fixed inputs, so their jobs run again: %s", ", ".join(others))
    log.info("accept_code: accepted the code of %s", ", ".join(pairs) or "no rule")
