"""The estimated costs of a run, compared with calculations by hand from the paper's settings and the rates."""

import csv
import logging
import sys
import types
from pathlib import Path

import pytest

from ssondo import tasks
from ssondo.config.loading import load_config
from ssondo.errors import SsondoError
from ssondo.tasks import esc50
from ssondo.tasks.task import DatasetSize, Remote
from ssondo.workflow import estimate, verbs
from ssondo.workflow import plan as plan_module
from ssondo.workflow.experiment import Experiment
from ssondo.workflow.input_digests import InputDigests

ROOT = Path(__file__).parents[2]
RATES = estimate.read_rates()


def experiment_of(folder, **changes):
    return Experiment(load_config(changes), InputDigests(folder / "content.json"))


def paper(folder, **changes):
    experiment = experiment_of(folder, **changes)
    return estimate.estimate(experiment, RATES, n_train=2_063_949, n_eval=20_371)


def stage(costs, rule):
    return next(stage for stage in costs.stages if stage.rule == rule)


def test_days_of_fetching_follow_from_the_request_rate(tmp_path):
    # 2,084,320 clips at 300 an hour and 24 hours a day: 289.5 days.
    assert paper(tmp_path).fetching_days == pytest.approx(289.5, abs=0.05)
    faster = paper(tmp_path, audioset={"source": {"kind": "youtube", "requests_per_hour": 600}})
    assert faster.fetching_days == pytest.approx(144.7, abs=0.05)


def test_default_configuration_has_the_jobs_of_the_papers_tables(tmp_path):
    jobs = {stage.rule: stage.jobs for stage in paper(tmp_path).stages}
    assert (jobs["fetch"], jobs["resample"], jobs["embed"]) == (520, 520, 1040)
    assert (jobs["distill"], jobs["supervise"], jobs["cluster"]) == (16, 3, 7)
    assert jobs["probe"] == jobs["embed_task"] == (2 + 3 + 16) * 7


def test_costs_of_teacher_embeddings(tmp_path):
    embed = stage(paper(tmp_path), "embed")
    seconds = 2_084_320 / RATES["gpu_embed_matpac"] + 2_084_320 / RATES["gpu_embed_m2d"]
    assert embed.gpu_hours == pytest.approx(seconds / 3600)
    # Each embedding has 3,840 values of 16 bits.
    assert embed.gigabytes == pytest.approx(2 * 2_084_320 * 3840 * 2 / 1e9)


def test_costs_of_one_distillation_are_200_epochs_of_100_000_clips(tmp_path):
    one = {"table2": None, "fig2": None, "table1": {"teachers": ["m2d"], "students": ["dymn"], "baselines": []}}
    distill = stage(paper(tmp_path, **one), "distill")
    drawn = 200 * 100_000 / RATES["gpu_train_dymn"] / 3600
    assert distill.jobs == 1
    # The validation every 5 epochs adds less than 2 %.
    assert distill.gpu_hours == pytest.approx(drawn, rel=0.02)
    assert distill.gpu_hours > drawn


def test_without_gpus_all_hours_are_core_hours(tmp_path):
    costs = paper(tmp_path, runtime={"gpus": 0})
    assert all(not stage.gpu_hours for stage in costs.stages)
    expected = 2_084_320 * (1 / RATES["embed_matpac"] + 1 / RATES["embed_m2d"]) / 3600
    assert stage(costs, "embed").core_hours == pytest.approx(expected)
    assert not any("GPU" in note for note in costs.notes)


def test_note_names_the_gpu_of_the_gpu_hours(tmp_path):
    assert "GPU hours are those of an NVIDIA H200" in plan_module.costs_text(paper(tmp_path))


def test_note_says_that_a_users_student_is_not_counted(tmp_path):
    mine = {"mine": {"architecture": "json:JSONDecoder"}}
    costs = paper(tmp_path, students=mine, table1={"students": ["mine"]}, table2=None, fig2=None)
    assert any(note.startswith("mine: there is no rate for the architecture") for note in costs.notes)
    assert stage(costs, "distill").gpu_hours == 0


def test_note_says_that_a_users_teacher_is_not_counted(tmp_path):
    own = {"kind": "callable", "callable": "a:b", "sample_rate": 16000, "embedding_dim": 8}
    teachers = {**load_config({}).model_dump()["teachers"], "mine": own, "unused": own}
    notes = paper(tmp_path, teachers=teachers, table1={"teachers": ["m2d", "mine"]}).notes
    assert [note for note in notes if "teacher" in note] == [
        "mine: there is no rate for a teacher of kind callable, so its embeddings are not counted."
    ]


def test_local_copy_of_a_task_is_not_counted_as_a_download(tmp_path):
    assert "gtzan 1.2 GB" in " ".join(paper(tmp_path).downloads)
    own = paper(tmp_path, tasks={**load_config({}).model_dump()["tasks"], "gtzan": {"kind": "gtzan", "path": "/data"}})
    assert "gtzan" not in " ".join(own.downloads)


def test_task_that_was_added_as_documented_is_counted(tmp_path, monkeypatch):
    # docs/extend.md describes a module, a line in READERS and a name in the configuration; this one reads like esc50.
    mine = types.ModuleType("ssondo.tasks.mine")
    mine.load, mine.LICENCE = esc50.load, "CC0"
    mine.REMOTES = {"mine.zip": Remote("https://example.org/mine.zip")}
    monkeypatch.setitem(sys.modules, "ssondo.tasks.mine", mine)
    monkeypatch.setitem(tasks.READERS, "mine", "ssondo.tasks.mine:load")
    experiment = experiment_of(tmp_path, table1={"tasks": ["esc50"]}, table2=None, fig2=None)
    experiment.config.tasks["esc50"] = experiment.config.tasks["esc50"].model_copy(update={"kind": "mine"})

    def costs():
        return estimate.estimate(experiment, RATES, n_train=2_063_949, n_eval=20_371)

    assert "data sets, about 0 GB: esc50 (size unknown)" in costs().downloads
    assert "esc50: its data does not exist here, so its embeddings and probes are not counted." in costs().notes
    mine.SIZE = DatasetSize(n_classes=10, clips={"train": 600, "valid": 200, "test": 200}, clip_s=10.0, download_gb=2.5)
    assert "data sets, about 2 GB: esc50 2.5 GB" in costs().downloads
    assert not any("esc50" in note for note in costs().notes)
    n_models = stage(costs(), "probe").jobs
    hours = stage(costs(), "prepare_task").core_hours
    assert n_models == 2 + 3 + 6
    assert hours == pytest.approx(1000 / RATES["resample"] / 3600)


def test_costs_of_probes_are_proportional_to_their_steps(tmp_path):
    whole = stage(paper(tmp_path), "probe").core_hours
    half = stage(paper(tmp_path, probe={"steps": 1500}), "probe").core_hours
    assert half == pytest.approx(whole / 2)


def test_clips_of_official_and_local_lists_are_counted(tmp_path):
    experiment = experiment_of(tmp_path)
    assert estimate.count_clips(experiment, "train") == 22_160 + 2_041_789
    assert estimate.count_clips(experiment, "eval") == 20_371
    own = tmp_path / "mine.csv"
    own.write_text('# three\n# comment\n# lines\nabc, 0.0, 10.0, "/m/a"\nabd, 0.0, 10.0, "/m/a"\n')
    local = experiment_of(tmp_path, audioset={"segments": {"train": [str(own)]}})
    assert estimate.count_clips(local, "train") == 2


def test_list_of_unknown_length_is_rejected_with_the_option_that_states_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text("audioset: {segments: {train: ['https://example.org/other.csv']}}\n")
    with pytest.raises(SsondoError, match=r"audioset\.segments\.train.*--train-clips"):
        plan_module.plan(configfile=[Path("mine.yaml")])


def test_plan_command_prints_a_table_and_is_not_a_rule(monkeypatch, tmp_path, caplog):
    monkeypatch.chdir(ROOT)
    assert "plan" not in verbs.VERBS
    assert verbs.COMMANDS["plan"] == "ssondo.workflow.plan:plan"
    with caplog.at_level(logging.INFO, logger="ssondo"):
        plan_module.plan(configfile=[Path("profiles/demo/demo.yaml")])
    assert "rule " in caplog.messages[0]
    assert caplog.messages[-1].startswith("plan: demo: 6,400 clips, 78 jobs")
    assert "YouTube" not in caplog.text


def test_every_rate_has_its_origin_and_is_documented():
    text = (ROOT / "docs" / "RATES.md").read_text()
    rows = list(csv.DictReader(estimate.RATES.open()))
    assert len(rows) > 20
    for row in rows:
        assert row["how"].startswith(("measured", "counted", "estimate", "data sheet")) or row["name"] == "threads", row
        assert f"| {row['name']} |" in text
        assert row["how"] in text
