"""A data set that is downloaded: from a local server to a score, by the workflow's own commands."""

import json
import sys
from pathlib import Path

import pytest
from project import ROOT, Project

sys.path.append(str(ROOT / "tests" / "unit"))

import tasks_replicas as replicas
from file_server import serving

pytestmark = [pytest.mark.slow, pytest.mark.workflow]
EARS = """
import torch
def embed(x):
    time = torch.arange(x.shape[1]) / 16000
    tones = torch.tensor([300.0 * 1.35 ** n for n in range(9)])[:, None] * time * 2 * torch.pi
    return torch.hypot(x @ tones.sin().T, x @ tones.cos().T)
"""


def test_split_archives_are_downloaded_prepared_embedded_and_scored(tmp_path: Path) -> None:
    project = Project.make(tmp_path / "project")
    (project.folder / "ears.py").write_text(EARS)
    files = replicas.archives("fsd50k", tmp_path / "unpacked")

    def use(config: dict) -> None:
        config["teachers"] = {
            "ears": {"kind": "callable", "callable": "ears:embed", "sample_rate": 16000, "embedding_dim": 9}
        }
        config["tasks"] = {"events": {"kind": "fsd50k", "mirror": server.url(""), "verify": False}}
        config["table1"] = {"teachers": ["ears"], "students": ["mobilenetv3"], "baselines": [], "tasks": ["events"]}
        config["table2"] = config["fig2"] = None

    score = project.results / "probes/teacher/ears/events.json"
    target = str(score.relative_to(project.folder))
    with serving(files) as server:
        project.configure(use)
        assert project.planned(target) == {"download": 9, "prepare_task": 1, "embed_task": 1, "probe": 1}
        assert server.asked == []
        # One file fails for now and one comes in two halves.
        server.faults = [503, "cut"]
        project.snakemake(target)
        assert sorted(set(server.asked)) == sorted(files)
    assert json.loads(score.read_text())["mean"] > 0.5

    # Without the server: nothing runs again, not for a touched archive nor for archives that were deleted.
    folder = project.results / "data/archives/events"
    assert sorted(path.name for path in folder.iterdir() if path.suffix != ".digest") == sorted(files)
    (folder / "FSD50K.dev_audio.z03").touch()
    assert project.planned(target) == {}
    for path in folder.iterdir():
        path.unlink()
    assert project.planned(target) == {}
