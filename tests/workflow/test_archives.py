"""The workflow turns a downloaded data set and a user's table into scores; a local server provides the files."""

import json
from pathlib import Path

import pytest
import tasks_replicas as replicas
from file_server import serving
from project import Project

pytestmark = [pytest.mark.slow, pytest.mark.workflow]
TEACHER = """
import torch
def embed(x):
    time = torch.arange(x.shape[1]) / 16000
    tones = torch.tensor([300.0 * 1.35 ** n for n in range(9)])[:, None] * time * 2 * torch.pi
    return torch.hypot(x @ tones.sin().T, x @ tones.cos().T)
"""


def test_downloaded_archives_and_a_users_table_become_scores(tmp_path: Path) -> None:
    project = Project.make(tmp_path / "project")
    for number in range(30):
        replicas.tone(project.folder / f"own/{number}.flac", 0.2, 16000, classes=[number % 3, 3 + number % 2])
    rows = [(f"{number}.flac", f"{'abc'[number % 3]};{'xy'[number % 2]}", 1 + number // 6) for number in range(30)]
    replicas.table(project.folder / "own/list.csv", ("path", "labels", "fold"), rows)
    (project.folder / "ears.py").write_text(TEACHER)
    files = replicas.archives("fsd50k", tmp_path / "unpacked")

    def use(config: dict) -> None:
        config["teachers"] = {
            "ears": {"kind": "callable", "callable": "ears:embed", "sample_rate": 16000, "embedding_dim": 9}
        }
        config["tasks"] = {
            "events": {"kind": "fsd50k", "mirror": server.url(""), "verify": False},
            "own": {"kind": "table", "path": "own/list.csv", "options": {"metric": "map"}},
        }
        config["probe"] |= {"learning_rates": [0.1], "steps": 300, "patience": 30, "validate_every": 10}
        config["table1"] = {"teachers": ["ears"], "students": ["mobilenetv3"], "baselines": []}
        config["table1"]["tasks"] = ["events", "own"]
        config["table2"] = config["fig2"] = None

    scores = [project.results / f"probes/teacher/ears/{task}.json" for task in ("events", "own")]
    targets = [str(score.relative_to(project.folder)) for score in scores]
    with serving(files) as server:
        project.configure(use)
        assert project.planned(*targets) == {"download": 9, "prepare_task": 2, "embed_task": 2, "probe": 2}
        assert server.requested == []
        # The first request fails temporarily, and the second file arrives in two parts.
        server.faults = [503, "cut"]
        project.snakemake(*targets)
        assert sorted(set(server.requested)) == sorted(files)
    events, own = (json.loads(score.read_text()) for score in scores)
    assert events["mean"] > 0.9
    assert (own["metric"], own["n_classes"], own["n_clips"], len(own["splits"])) == ("map", 5, 30, 5)
    assert own["mean"] > 0.9

    # Without the server, nothing runs again, neither for a touched archive nor for deleted archives.
    folder = project.results / "data/archives/events"
    assert sorted(path.name for path in folder.iterdir() if path.suffix != ".digest") == sorted(files)
    (folder / "FSD50K.dev_audio.z03").touch()
    assert project.planned(*targets) == {}
    for path in folder.iterdir():
        path.unlink()
    assert project.planned(*targets) == {}
