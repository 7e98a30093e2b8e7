"""`ssondo why` names the jobs that Snakemake would run, and the setting, function or file that changed."""

import re
import wave
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from project import Project

from ssondo.workflow.why import Rerun, changed_parts, changed_settings, explain


def test_changed_setting_is_named_with_its_key_and_both_values() -> None:
    keys = {"distill.learning_rate": 0.002, "supervise.learning_rate": 0.001}
    lines = changed_settings("distill", "--seed 0 --learning-rate 0.001", "--seed 0 --learning-rate 0.002", keys)
    assert lines == ["distill.learning_rate: 0.001 -> 0.002"]


def test_changed_key_of_a_json_option_is_named() -> None:
    old = """--student '{"backbone": {"width_mult": 0.1}}'"""
    new = old.replace("0.1", "0.2")
    keys = {"students.small.settings.width_mult": 0.2}
    assert changed_settings("distill", old, new, keys) == ["students.small.settings.width_mult: 0.1 -> 0.2"]


def test_new_removed_and_changed_parts_are_named() -> None:
    lines = changed_parts({"f": "1", "g": "1", "h": "1"}, {"f": "2", "h": "1", "i": "1"})
    assert lines == ["i is new", "g was removed", "f changed"]


def test_jobs_with_the_same_causes_are_explained_together() -> None:
    jobs = [Rerun("probe", {}, [f"{i}.json"], "", ["configuration: probe.steps: 1 -> 2"]) for i in range(2)]
    assert explain(jobs) == "probe: 2 jobs (0.json, ...)\n    configuration: probe.steps: 1 -> 2"
    assert "Nothing would run" in explain([])


def test_causes_of_many_jobs_and_many_parts_are_cut() -> None:
    jobs = [Rerun("fetch", {}, [f"{i}.h5"], "", [f"input: {i}.wav changed"]) for i in range(9)]
    lines = explain(jobs).splitlines()
    assert len(lines) == 7
    assert lines[-1] == "fetch: 6 jobs with other causes; name one of the outputs to see them"


def explained(project: Project, *arguments: str) -> tuple[dict[str, int], str]:
    """The number of jobs of each rule that `ssondo why` names, and its text."""
    done = project.ssondo("why", *arguments, "--configfile", str(project.configfile))
    text = done.stdout + done.stderr
    assert done.returncode == 0, text
    counts: Counter[str] = Counter()
    for rule, n in re.findall(r"^(\w+): ([\d,]+) jobs? (?:\(|with other)", text, flags=re.MULTILINE):
        counts[rule] += int(n.replace(",", ""))
    return dict(counts), text


def change_setting(project: Project) -> None:
    project.configure(lambda config: config["probe"].update(steps=60))


def change_constant(project: Project) -> None:
    path = project.folder / "ssondo" / "distill" / "losses.py"
    text = path.read_text()
    assert "temperature: float = 1.0" in text
    path.write_text(text.replace("temperature: float = 1.0", "temperature: float = 2.0"))


def delete_output(project: Project) -> None:
    (project.results / "data" / "audio" / "train-0001.h5").unlink()


@pytest.mark.slow
@pytest.mark.workflow
@pytest.mark.parametrize(
    ("change", "line"),
    [
        (change_setting, "    configuration: probe.steps: 40 -> 60"),
        (change_constant, "    code: ssondo.distill.losses: KullbackLeibler.__init__ changed"),
        (delete_output, "    Missing output files"),
        (lambda project: None, "Nothing would run: all results are up to date."),
    ],
)
def test_jobs_and_causes_agree_with_a_dry_run(project: Project, change: Callable[[Project], None], line: str) -> None:
    change(project)
    counts, text = explained(project)
    assert counts == project.planned()
    assert line in text.splitlines()


def write_clip(path: Path) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(bytes(2 * 20_480))


@pytest.mark.slow
@pytest.mark.workflow
def test_clip_added_to_a_folder_is_named(tmp_path: Path) -> None:
    project = Project.make(tmp_path / "project")
    source = {"source": {"kind": "folder", "path": "clips"}, "segments": {"train": [], "eval": [], "classes": ""}}
    project.configure(lambda config: config["audioset"].update(source))
    project.configure(lambda config: config["table1"].update(baselines=[]))  # the supervised one needs labels
    (project.folder / "clips").mkdir()
    for i in range(12):
        write_clip(project.folder / "clips" / f"clip{i}.wav")
    lists = "results/tiny/data/index/summary.json"
    project.snakemake(lists)
    assert project.planned(lists) == {}
    write_clip(project.folder / "clips" / "another.wav")
    counts, text = explained(project, lists)
    assert counts == project.planned(lists)
    assert "    input: another.wav is new" in text.splitlines()
