"""`ssondo accept_code` keeps results over an upgrade to code with identical results, and refuses other code."""

import json
from pathlib import Path

import pytest
from project import Project

from ssondo.errors import SsondoError
from ssondo.provenance import SourceTree
from ssondo.workflow.accept_code import REGISTRIES, add_rows, content_of, equivalent

MOVED = '''"""Times of segment lists."""

import math


def parse_time(text: str) -> float:
    """Return a time in seconds; NaN if it is negative."""
    seconds = float(text)
    return round(seconds, 3) if seconds >= 0 else math.nan
'''


def test_code_with_identical_outputs_is_equivalent() -> None:
    old = {("probe", "a" * 16): {"scores.json": "1", "page.html": None}}
    new = {("probe", "b" * 16): {"scores.json": "1", "page.html": None}}
    pairs = equivalent(old, new)
    assert pairs == {"probe": [("a" * 16, "b" * 16)]}
    table = {"probe": [["0" * 16, "a" * 16]]}
    add_rows(table, pairs)
    assert table == {"probe": [["0" * 16, "a" * 16, "b" * 16]]}


def test_code_with_a_different_output_is_refused_with_the_name_of_the_output() -> None:
    old = {("probe", "a" * 16): {"scores.json": "1"}}
    with pytest.raises(SsondoError, match=r"probe: scores\.json differs"):
        equivalent(old, {("probe", "b" * 16): {"scores.json": "2"}})


def test_rule_without_comparable_outputs_is_not_equivalent() -> None:
    assert equivalent({("report", "a" * 16): {"r.html": None}}, {("report", "b" * 16): {"r.html": None}}) == {}


def test_registries_of_rules_exist() -> None:
    tree = SourceTree(Path(__file__).parents[2] / "ssondo")
    for registry in (registry for groups in REGISTRIES.values() for group in groups for registry in group):
        assert tree.targets(*registry)


def test_scores_are_compared_without_the_hash_of_their_code(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    contents = []
    for mean, code in (("0.5", "a" * 16), ("0.5", "b" * 16), ("0.6", "b" * 16)):
        path.write_text(f"task,mean,code,files\nesc50,{mean},{code},esc50.json\n")
        contents.append(content_of(path))
    assert contents[0] == contents[1] != contents[2]


def table(project: Project) -> dict[str, list[list[str]]]:
    text = (project.folder / "ssondo/provenance/equivalent_code.json").read_text()
    rows: dict[str, list[list[str]]] = json.loads(text)
    return rows


def edit(project: Project, old: str, new: str) -> None:
    path = project.folder / "ssondo" / "audioset" / "index.py"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.slow
@pytest.mark.workflow
def test_function_that_is_moved_and_renamed_is_accepted_and_runs_nothing_again(
    finished: Project, project: Project
) -> None:
    (project.folder / "ssondo" / "audioset" / "times.py").write_text(MOVED)
    text = (project.folder / "ssondo" / "audioset" / "index.py").read_text()
    start = text.index("def _parse_seconds")
    edit(project, text[start : text.index("\ndef ", start)].rstrip() + "\n\n\n", "")
    edit(project, "_parse_seconds", "parse_time")
    edit(project, "import read_manifest\n", "import read_manifest\nfrom ssondo.audioset.times import parse_time\n")
    assert "index" in project.planned()
    done = project.ssondo("accept_code", "--old", str(finished.folder))
    assert done.returncode == 0, done.stderr
    assert "accepted the code of index" in done.stdout + done.stderr
    assert list(table(project)) == ["index"]
    assert project.planned() == {}


@pytest.mark.slow
@pytest.mark.workflow
def test_changed_constant_is_refused_with_one_line_that_names_the_output(finished: Project, project: Project) -> None:
    edit(project, "round(seconds, 3)", "round(seconds, 1)")
    done = project.ssondo("accept_code", "--old", str(finished.folder))
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if "error" in line]
    assert "index: results/fixed/data/index/" in line
    assert line.endswith("differs between the old and the new code; nothing is accepted")
    assert table(project) == {}
    assert "index" in project.planned()


@pytest.mark.slow
@pytest.mark.workflow
def test_changed_code_that_the_fixed_inputs_do_not_run_is_listed_and_not_accepted(
    finished: Project, project: Project
) -> None:
    path = project.folder / "ssondo" / "audioset" / "list_folder.py"
    path.write_text(path.read_text() + "\n_CHANGED = 1\n")
    done = project.ssondo("accept_code", "--old", str(finished.folder))
    assert done.returncode == 0, done.stderr
    assert "not covered by the fixed inputs, so their jobs run again: list_folder" in done.stdout + done.stderr
    assert table(project) == {}
