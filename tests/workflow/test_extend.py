"""A teacher, a student, a loss and a task that are built into the library as docs/extend.md describes."""

import re
from pathlib import Path

import pytest
from project import Project

pytestmark = [pytest.mark.slow, pytest.mark.workflow]

TEACHER = """
import torch

from ssondo.teachers.external import ExternalTeacher


def load_loudness(checkpoint, device):
    scale = float(checkpoint.read_text())
    def embed(waveforms):
        return scale * torch.stack([waveforms.square().mean(1).sqrt(), waveforms.abs().amax(1)], 1)
    return ExternalTeacher("loudness", embed, sample_rate=16000, embedding_dim=2, device=device)
"""
STUDENT = """
from torch import Tensor, nn

from ssondo.students.backbone import Backbone


class Averages(Backbone):
    def __init__(self, size: int = 16) -> None:
        super().__init__()
        self.embedding_dim = self.hidden_dim = size
        self.layer = nn.Linear(128, size)

    def embed_windows(self, log_mel: Tensor) -> Tensor:
        return self.layer(log_mel.mean(-1)).relu()
"""
LOSS = """
import torch
import torch.nn.functional as F

from ssondo.distill.base_loss import Loss


class Huber(Loss):
    def __init__(self, temperature: float = 1.0):
        super().__init__()
        self.delta = temperature

    def per_clip(self, output, target, clusters):
        loss = F.huber_loss(output, target, reduction="none", delta=self.delta).mean(dim=1)
        return loss, torch.ones_like(loss)
"""
TASK = """
from ssondo.tasks import rendered


def load(*, task: str, seed: int, size: float = 1.0):
    return rendered.load(content="drums", task=task, seed=seed + 1, size=size)
"""


def register(package: Path, registry: str, line: str) -> None:
    """Add a line to a registry of a package."""
    path = package / "__init__.py"
    content = path.read_text()
    changed = re.sub(rf"^({registry} = \{{\n)", rf"\g<1>    {line}\n", content, count=1, flags=re.MULTILINE)
    assert changed != content, f"{path} has no registry {registry}"
    path.write_text(changed)


def test_additions_to_the_library_work_and_run_no_existing_job_again(project: Project) -> None:
    existing = [str(path.relative_to(project.folder)) for path in project.results.glob("probes/**/*.json")]
    assert existing

    library = project.folder / "ssondo"
    (library / "teachers" / "loudness.py").write_text(TEACHER)
    register(library / "teachers", "TEACHERS", '"loudness": "ssondo.teachers.loudness:load_loudness",')
    (library / "students" / "averages.py").write_text(STUDENT)
    register(library / "students", "ARCHITECTURES", '"averages": "ssondo.students.averages:Averages",')
    (library / "distill" / "huber.py").write_text(LOSS)
    register(library / "distill", "LOSSES", '"huber": "ssondo.distill.huber:Huber",')
    (library / "tasks" / "hits.py").write_text(TASK)
    register(library / "tasks", "READERS", '"hits": "ssondo.tasks.hits:load",')
    (project.folder / "scale.txt").write_text("2.0")

    def add(config: dict) -> None:
        config["teachers"]["loud"] = {"kind": "loudness", "checkpoint": {"path": "scale.txt"}}
        config["students"]["avg"] = {"architecture": "averages", "window_s": 1.28, "settings": {"size": 8}}
        config["tasks"]["hits"] = {"kind": "hits", "options": {"size": 0.2}}
        config["table1"]["teachers"].append("loud")
        config["table1"]["students"].append("avg")
        config["table1"]["tasks"].append("hits")
        config["table2"]["losses"].append("huber")

    project.configure(add)
    assert project.planned(*existing) == {}
    plan = project.ssondo("plan", "--configfile", "tiny.yaml")
    assert plan.returncode == 0, plan.stderr

    new = {
        "teachers/loudness.py": ("embed", "data/embeddings/loud/eval-0000.h5"),
        "students/averages.py": ("initialise", "students/untrained/avg/seed0/student.ckpt"),
        "distill/huber.py": ("distill", "students/distilled/yamnet/mobilenetv3/huber/k0/seed0/student.ckpt"),
        "tasks/hits.py": ("prepare_task", "data/tasks/hits.h5"),
    }
    paths = [f"results/tiny/{path}" for _, path in new.values()]
    project.snakemake(*paths)
    assert project.planned(*paths) == {}
    for module in new:
        source = library / module
        source.write_text(source.read_text() + "\n_CHANGED = 1\n")
    assert project.planned(*paths) == {rule: 1 for rule, _ in new.values()}
    assert project.planned(*existing) == {}
