"""Embeddings of a downstream task, computed by a teacher or a student.

    ssondo embed_task --audio tasks/esc50.h5 --student student.ckpt --out esc50.h5

This is a module of its own so that the command that embeds AudioSet does not depend on any student.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ssondo.errors import SsondoError
from ssondo.storage.shards.audio import AudioShard
from ssondo.storage.shards.embedding import ENVIRONMENT_OF
from ssondo.system.device import disable_tf32
from ssondo.system.hardware import describe_machine
from ssondo.teachers.embed import checkpoint_sha256, embed_batch, prepare_device, write_embeddings
from ssondo.teachers.load_teacher import load_teacher_from_config

# Clips are sorted by length within groups of this many batches, so that batches need little padding.
_GROUP = 8


def embed_task(
    *,
    audio: Path,
    out: Path,
    teacher: dict[str, Any] | None = None,
    checkpoint: Path | None = None,
    student: Path | None = None,
    architecture: str | None = None,
    precision: str = "auto",
    batch_size: int = 32,
    device: str = "auto",
) -> None:
    """Embed the clips of a downstream task, which can have any length, with a teacher or a student.

    Args:
        audio: Path of the audio shard of the task.
        out: Path of the embedding shard that is written. It holds the available clips with their labels and their
            split or fold.
        teacher: The teacher as JSON: its kind and the options of that kind, e.g. {"kind": "matpac"}.
        checkpoint: Path of the teacher's weights.
        student: Path of a student checkpoint, in place of a teacher.
        architecture: Architecture of the student if it is the user's own class, package.module:Class.
        precision: Precision of a teacher's arithmetic on a GPU, see the command embed. A student computes in float32.
        batch_size: Number of clips in a batch.
        device: Device that computes: cuda, cpu, or auto for a GPU if there is one.

    Raises:
        SsondoError: If the shard or the model is missing or unusable, the shard is not that of a task, or an embedding
            is not finite.
    """
    if (teacher is None) == (student is None):
        raise SsondoError("embed_task requires either a teacher or a student")
    torch_device = prepare_device(device, precision, batch_size)
    sha256 = checkpoint_sha256(checkpoint if student is None else student)
    with AudioShard(audio) as shard:
        extras = _extras(shard)
        model: _Student | _Teacher = (
            _Student(student, torch_device, architecture)
            if student is not None
            else _Teacher(teacher or {}, checkpoint, torch_device, precision)
        )
        write_embeddings(
            shard,
            out,
            lambda waveforms: model.embed(waveforms, batch_size),
            name=f"embed_task {model.name} {shard.settings['task']}",
            sample_rate=model.sample_rate,
            embedding_dim=model.embedding_dim,
            settings={
                **shard.settings,
                "model": {"kind": model.name},
                "parameters": model.n_parameters,
                "training_clip_list_sha256": model.training_clip_list_sha256,
                ENVIRONMENT_OF: {**model.environments, "embed_task": describe_machine(model.device)},
            },
            checkpoint_sha256=sha256,
            dtype="float32",
            producer="embed_task",
            batch_size=batch_size,
            group=_GROUP,
            extras=extras,
        )


def _extras(shard: AudioShard) -> dict[str, np.ndarray]:
    """Return the labels and the split or fold of a task, one row per clip."""
    kind = shard.settings.get("split_kind")
    if "task" not in shard.settings or kind not in ("split", "fold"):
        raise SsondoError(f"{shard.path}: this is not the shard of a task; make one with prepare_task")
    return {name: shard.extra(name) for name in ("labels", kind)}


class _Teacher:
    def __init__(self, teacher: dict[str, Any], checkpoint: Path | None, device: torch.device, precision: str) -> None:
        self._model = load_teacher_from_config(teacher, checkpoint, str(device))
        self._device, self._precision = device, precision
        self.device = self._model.device
        self.environments: dict[str, dict[str, str]] = {}
        self.training_clip_list_sha256: str | None = None
        self.name = str(teacher["kind"])
        self.n_parameters = self._model.n_parameters
        self.embedding_dim = self._model.embedding_dim
        self.sample_rate = self._model.sample_rate

    def embed(self, waveforms: list[Tensor], batch_size: int) -> np.ndarray:
        return embed_batch(self._model, waveforms, batch_size, self._device, self._precision)


class _Student:
    def __init__(self, checkpoint: Path, device: torch.device, architecture: str | None) -> None:
        # Imported here so that teacher embeddings of a task do not depend on any student.
        from ssondo.students.checkpoint import load_student

        self._model = load_student(checkpoint, str(device), architecture=architecture)
        self._device = device
        self.device = str(device)
        provenance = self._model.provenance
        has_environment = {"verb", "environment"} <= provenance.keys()
        self.environments = {provenance["verb"]: provenance["environment"]} if has_environment else {}
        self.training_clip_list_sha256: str | None = provenance.get("clip_list_sha256")
        self.name = "student"
        self.n_parameters = sum(parameter.numel() for parameter in self._model.model.parameters())
        self.embedding_dim = self._model.embedding_dim
        self.sample_rate = self._model.sample_rate

    def embed(self, waveforms: list[Tensor], batch_size: int) -> np.ndarray:
        """Embed clips in float32 on any device, so that scores compare students and not their rounding."""
        by_length = sorted(range(len(waveforms)), key=lambda index: len(waveforms[index]))
        embeddings = np.empty((len(waveforms), self.embedding_dim), dtype=np.float32)
        for start in range(0, len(waveforms), batch_size):
            rows = by_length[start : start + batch_size]
            clips = [waveforms[index] for index in rows]
            with torch.inference_mode(), disable_tf32():
                padded = pad_sequence(clips, batch_first=True).to(self._device)
                embeddings[rows] = self._model.embed(padded, [len(clip) for clip in clips]).cpu().numpy()
        return embeddings
