"""A user's own teachers, student and task are added by configuration alone and scored like the built-in ones."""

import csv
import wave
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from project import Project

pytestmark = [pytest.mark.slow, pytest.mark.workflow]

OWN_CODE = '''
from torch import nn

from ssondo.students.backbone import Backbone


def loud(waveforms):
    """Root mean square and peak of a clip."""
    return __import__("torch").stack([waveforms.square().mean(1).sqrt(), waveforms.abs().amax(1)], 1)


class Averages(Backbone):
    """Mean log-mels, through one layer."""

    def __init__(self, size: int = 16) -> None:
        super().__init__()
        self.embedding_dim = self.hidden_dim = size
        self.layer = nn.Sequential(nn.LazyLinear(size), nn.ReLU())
        self.layer(__import__("torch").zeros(1, 128))

    def embed_windows(self, log_mel):
        return self.layer(log_mel.mean(-1))
'''


def onnx_teacher(path: Path, n_samples: int = 400) -> None:
    """A random projection of the first samples: (batch, samples) -> (batch, 8)."""
    weights = np.random.default_rng(0).normal(size=(n_samples, 8)).astype(np.float32)
    constants = [
        numpy_helper.from_array(weights, "weights"),
        numpy_helper.from_array(np.array([0]), "start"),
        numpy_helper.from_array(np.array([n_samples]), "end"),
        numpy_helper.from_array(np.array([1]), "axis"),
    ]
    nodes = [
        helper.make_node("Slice", ["waveform", "start", "end", "axis"], ["first"]),
        helper.make_node("MatMul", ["first", "weights"], ["embedding"]),
    ]
    graph = helper.make_graph(
        nodes,
        "projection",
        [helper.make_tensor_value_info("waveform", TensorProto.FLOAT, ["batch", "samples"])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", 8])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path)


class Projection(torch.nn.Module):
    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        return waveforms[:, :4].contiguous()


def own_task(folder: Path) -> Path:
    """Low and high tones as WAV files, with a table of labels and splits."""
    folder.mkdir()
    rows = []
    seconds = np.arange(16_000) / 16_000
    for i in range(24):
        high = i % 2
        tone = np.sin(2 * np.pi * (2000 if high else 200) * (1 + i / 100) * seconds) * 2**14
        with wave.open(str(folder / f"{i}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(16_000)
            file.writeframes(tone.astype("<i2").tobytes())
        rows.append([f"{i}.wav", ["low", "high"][high], ["train", "valid", "test"][i // 2 % 3]])
    table = folder / "tones.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([["path", "label", "split"], *rows])
    return table


def test_own_teachers_student_and_task_are_rows_and_columns_of_table_1(project: Project) -> None:
    (project.folder / "own_parts.py").write_text(OWN_CODE)
    onnx_teacher(project.folder / "mine.onnx")
    torch.jit.script(Projection()).save(project.folder / "mine.pt")
    table = own_task(project.folder / "tones")

    def change(config: dict) -> None:
        rate = {"sample_rate": 16000}
        config["teachers"] |= {
            "mine_onnx": {"kind": "onnx", "checkpoint": {"path": "mine.onnx"}, "embedding_dim": 8, **rate},
            "mine_jit": {"kind": "torchscript", "checkpoint": {"path": "mine.pt"}, "embedding_dim": 4, **rate},
            "mine_code": {"kind": "callable", "callable": "own_parts:loud", "embedding_dim": 2, **rate},
        }
        config["students"]["averages"] = {"architecture": "own_parts:Averages", "pretrained": None, "window_s": 1.28}
        config["tasks"]["tones"] = {"kind": "table", "path": str(table)}
        config["table1"] |= {
            "teachers": ["mine_onnx", "mine_jit", "mine_code"],
            "students": ["averages"],
            "baselines": ["untrained"],
            "n_clusters": 2,
            "tasks": ["tones"],
        }
        config |= {"table2": None, "fig2": None}

    project.configure(change)
    project.snakemake("--quiet=reason", "table1")
    with (project.results / "table1.csv").open() as file:
        rows = {(row["row_kind"], row["teacher"], row["student"]) for row in csv.DictReader(file)}
    teachers = {"mine_onnx", "mine_jit", "mine_code"}
    assert rows >= {("teacher", name, "") for name in teachers}
    assert rows >= {("distilled", name, "averages") for name in teachers}
    assert ("untrained", "", "averages") in rows
    # After an edit of the user's file, the models that it defines are computed again, but not the other teachers.
    code = project.folder / "own_parts.py"
    code.write_text(code.read_text().replace("waveforms.abs()", "waveforms.abs().sqrt()"))
    planned = project.planned("table1")
    assert planned["embed"] == 3
    assert planned["distill"] == 3
