"""The whole workflow on a tiny corpus, in which every rule runs its own shell command."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from project import Project

pytestmark = [pytest.mark.slow, pytest.mark.workflow]
# Rules for other kinds of data, which test_real_sound.py, test_import.py and test_archives.py run.
TESTED_ELSEWHERE = {"list_folder", "locate", "download"}


def rules(project: Project) -> set[str]:
    listed = project.snakemake("--list-rules").stdout.split()
    return {rule for rule in listed if re.fullmatch(r"[a-z_0-9]+", rule)} - {"all"}


def test_every_rule_ran_its_own_command(project: Project) -> None:
    assert rules(project) - TESTED_ELSEWHERE == set(project.modules())


def test_code_hash_of_each_rule_covers_the_modules_that_its_command_imports(finished: Project) -> None:
    code = f"""
import inspect, json, yaml
from pathlib import Path
from ssondo.config.loading import load_config
from ssondo.workflow.experiment import Experiment
from ssondo.provenance import modules_of
from ssondo.workflow.input_digests import InputDigests
from ssondo.workflow.rules import RULES
from snakemake.utils import update_config
values = yaml.safe_load(Path("config.yaml").read_text())
update_config(values, yaml.safe_load(Path("tiny.yaml").read_text()))
plan = Experiment(load_config(values), InputDigests(Path("cache.json")))
wildcards = dict(split="train", shard="0000", stage="audio", checkpoint="teacher-yamnet", file="yamnet.onnx.zip")
wildcards |= dict(teacher="yamnet", student="mobilenetv3", loss="cosine", n_clusters="3", seed="0", task="notes")
covered = {{}}
for rule in {sorted(finished.modules())!r}:
    more = [{{name: value for name, value in wildcards.items() if name in inspect.signature(RULES[rule]).parameters}}]
    if rule in ("embed_task", "probe"):
        more = [dict(task="notes", model=m) for m in ("teacher/yamnet", "supervised/mobilenetv3/seed0")]
    covered[rule] = sorted(set().union(*(modules_of(*plan.code_modules(rule, **w)) for w in more)))
print(json.dumps(covered))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=finished.folder,
        env=finished.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    covered = json.loads(done.stdout)
    # The command line and what it imports to find the command.
    outside = {"ssondo", "ssondo.cli", "ssondo.__main__"}
    outside |= {"ssondo.system", "ssondo.system.registry", "ssondo.workflow", "ssondo.workflow.verbs"}
    for rule, modules in finished.modules().items():
        assert modules - outside <= set(covered[rule]), rule


def test_scores_have_every_row_and_column(finished: Project) -> None:
    with (finished.results / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    columns = ["row_kind", "teacher", "student", "task", "metric", "mean", "ci95", "n_runs"]
    assert list(rows[0])[:8] == columns
    found = {(row["row_kind"], row["task"]) for row in rows}
    assert found == {
        (kind, task) for kind in ("teacher", "distilled", "supervised", "untrained") for task in ("notes", "drums")
    }
    for row in rows:
        assert 0 < float(row["mean"]) <= 1
        assert int(row["n_runs"]) >= 2


def test_two_runs_from_scratch_give_identical_tables(finished: Project, tmp_path: Path) -> None:
    again = Project.make(tmp_path / "again")
    again.snakemake("--quiet=reason", "all")
    for name in ("scores.csv", "table1.md", "table1.csv", "table1.tex", "table2.md", "fig2.csv"):
        assert (again.results / name).read_bytes() == (finished.results / name).read_bytes(), name
    digests = {path.relative_to(again.results): path.read_text() for path in again.results.rglob("*.digest")}
    assert len(digests) > 20
    for path, digest in digests.items():
        assert (finished.results / path).read_text() == digest, path


def test_table_targets_run_only_the_jobs_that_they_need(finished: Project, tmp_path: Path) -> None:
    fresh = Project.make(tmp_path / "fresh")
    assert "table2" not in fresh.planned("table1")
    assert fresh.planned("table1")["distill"] == 1
    assert fresh.planned("table2")["distill"] == 2
    assert "cluster" not in fresh.planned("table2")
    assert fresh.planned("fig2")["cluster"] == 1


def drawn(project: Project, *arguments: str) -> set[tuple[str, str]]:
    """Return the edges of the rule graph that Snakemake draws."""
    text = project.snakemake("--rulegraph", "mermaid-js", "--forceall", *arguments).stdout
    names = dict(re.findall(r"(id\d+)\[(\w+)\]", text))
    edges = {(names[a], names[b]) for a, b in re.findall(r"(id\d+) --> (id\d+)", text)}
    return {edge for edge in edges if "all" not in edge}


def test_rule_graph_of_the_report_equals_that_of_snakemake(project: Project) -> None:
    sources = json.loads((project.folder / ".snakemake/ssondo/rule_graph.json").read_text())
    assert {(source, rule) for rule, names in sources.items() for source in names} == drawn(project)
    page = (project.results / "report.html").read_text()
    assert set(re.findall(r'<text class="name"[^>]*>(\w+)<', page)) == set(sources)


def test_changed_rule_graph_runs_no_job_again(project: Project) -> None:
    graph = project.folder / ".snakemake/ssondo/rule_graph.json"
    before = graph.read_text()
    graph.write_text("{}")
    try:
        assert project.planned() == {}
    finally:
        graph.write_text(before)


def test_printed_command_can_be_repeated_by_hand(project: Project) -> None:
    done = project.snakemake("--dry-run", "--printshellcmds", "--force", "results/tiny/data/audio/eval-0000.h5")
    command = re.search(r"^\s*(?:Shell command: )?(ssondo resample .*)$", done.stdout + done.stderr, re.MULTILINE)
    assert command is not None
    words = command[1].replace("results/tiny/data/audio/eval-0000.h5", "again.h5").split()
    assert project.ssondo(*words[1:]).returncode == 0
    again = (project.folder / "again.h5.digest").read_text()
    assert again == (project.results / "data" / "audio" / "eval-0000.h5.digest").read_text()


def test_snakemake_can_be_called_by_its_path_without_an_activated_environment(tmp_path: Path) -> None:
    project = Project.make(tmp_path / "project")
    project.environment["PATH"] = "/usr/bin:/bin"
    project.snakemake("--quiet=rules", "compose")
    assert list(project.results.rglob("*.csv"))


@pytest.mark.parametrize("profile", ["slurm"])
def test_full_experiment_can_be_planned_from_a_fresh_clone(tmp_path: Path, profile: str) -> None:
    fresh = Project.make(tmp_path / "fresh")
    done = subprocess.run(
        [str(Path(sys.executable).parent / "snakemake"), "--profile", profile, "-n", "all", "--quiet=rules"],
        cwd=fresh.folder,
        env=fresh.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    counts = {k: int(n) for k, n in re.findall(r"^(\w+) +(\d+)$", done.stdout + done.stderr, flags=re.MULTILINE)}
    config = yaml.safe_load((fresh.folder / "config.yaml").read_text())
    shards = config["audioset"]["n_train_shards"] + config["audioset"]["n_eval_shards"]
    assert counts["fetch"] == counts["resample"] == shards
    assert counts["embed"] == 2 * shards
    # Table 1 has 2 teachers x 3 students, Table 2 five losses at k = 0, and Fig. 2 seven values of k, of which 50 is
    # also in Table 1 and 0 in Table 2.
    assert counts["distill"] == 6 + 5 + 5
    assert counts["supervise"] == 3
    assert counts["prepare_task"] == 7
    assert counts["cluster"] == 1 + 1 + 5
    assert counts["probe"] == (2 + 3 + 6 + 5 + 5) * 7
