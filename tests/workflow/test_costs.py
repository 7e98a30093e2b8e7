"""`ssondo plan` counts the jobs that Snakemake would run."""

from pathlib import Path

import pytest
import yaml
from project import ROOT, Project

from ssondo.config.loading import load_files
from ssondo.workflow.estimate import estimate, read_rates
from ssondo.workflow.experiment import Experiment
from ssondo.workflow.input_digests import InputDigests

pytestmark = pytest.mark.workflow


@pytest.mark.parametrize("name", ["config.yaml", "profiles/demo/demo.yaml", "ssondo/workflow/fixed_inputs.yaml"])
def test_plan_counts_the_jobs_of_a_dry_run(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    project = Project.make(tmp_path / "project", ROOT / name)
    monkeypatch.chdir(project.folder)
    experiment = Experiment(load_files([project.configfile]), InputDigests(tmp_path / "content.json"))
    counted = {
        stage.rule: stage.jobs for stage in estimate(experiment, read_rates(), n_train=10_000, n_eval=100).stages
    }
    assert counted == project.planned("all")


def test_plan_counts_the_jobs_of_a_folder_without_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = Project.make(tmp_path / "project")
    values = yaml.safe_load(project.configfile.read_text())
    (tmp_path / "sound").mkdir()
    (tmp_path / "sound" / "a.wav").write_bytes(b"")
    values["audioset"]["source"] = {"kind": "folder", "path": str(tmp_path / "sound")}
    values["audioset"]["segments"] = {"train": [], "eval": [], "classes": ""}
    values["table1"]["baselines"] = ["untrained"]
    project.configfile.write_text(yaml.safe_dump(values))
    monkeypatch.chdir(project.folder)
    experiment = Experiment(load_files([project.configfile]), InputDigests(tmp_path / "content.json"))
    counted = {stage.rule: stage.jobs for stage in estimate(experiment, read_rates(), n_train=10, n_eval=1).stages}
    assert counted == project.planned("all")
