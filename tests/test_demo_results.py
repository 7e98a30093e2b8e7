"""What `make demo` promises, checked on its results where it has been run."""

import csv
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results" / "demo"
pytestmark = [
    pytest.mark.workflow,
    pytest.mark.skipif(not (RESULTS / "report.html").is_file(), reason="looks at the results of: make demo"),
]
TASKS = ("notes", "mixtures", "drums")
STUDENTS = ("mobilenetv3", "dymn")


@pytest.fixture(scope="module")
def rows() -> dict[tuple[str, str, str], dict[str, str]]:
    with (RESULTS / "scores.csv").open() as file:
        return {(row["row_kind"], row["student"], row["task"]): row for row in csv.DictReader(file)}


def test_every_row_has_five_runs_of_a_probe(rows: dict[tuple[str, str, str], dict[str, str]]) -> None:
    kinds = [("teacher", ""), *((kind, s) for kind in ("distilled", "supervised", "untrained") for s in STUDENTS)]
    assert set(rows) == {(kind, student, task) for kind, student in kinds for task in TASKS}
    assert all(int(row["n_runs"]) >= 5 for row in rows.values())


@pytest.mark.parametrize("student", STUDENTS)
def test_distilled_student_beats_the_untrained_one_by_more_than_the_intervals(
    rows: dict[tuple[str, str, str], dict[str, str]], student: str
) -> None:
    for task in TASKS:
        distilled, untrained = rows["distilled", student, task], rows["untrained", student, task]
        low = float(distilled["mean"]) - float(distilled["ci95"])
        high = float(untrained["mean"]) + float(untrained["ci95"])
        assert low > high, task


@pytest.mark.parametrize("student", STUDENTS)
def test_distilled_student_keeps_85_per_cent_of_its_teacher(
    rows: dict[tuple[str, str, str], dict[str, str]], student: str
) -> None:
    def average(kind: str, name: str) -> float:
        return sum(float(rows[kind, name, task]["mean"]) for task in TASKS) / len(TASKS)

    assert average("distilled", student) >= 0.85 * average("teacher", "")


def test_tables_and_report_are_there() -> None:
    for name in ("table1.md", "table1.csv", "table1.tex", "table1.png", "scores.csv"):
        assert (RESULTS / name).stat().st_size > 0, name
    parser = HTMLParser()
    parser.feed((RESULTS / "report.html").read_text(encoding="utf-8"))


def test_second_run_finds_nothing_to_do() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).parent / "snakemake"), "--profile", "profiles/demo"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Nothing to be done" in done.stdout + done.stderr
