"""Embeddings of a downstream task, computed by a teacher or a student.

    ssondo embed_task --audio tasks/esc50.h5 --student student.ckpt --out esc50.h5

This is a module of its own so that the command that embeds AudioSet does not depend on any student.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ssondo.errors import SsondoError
from ssondo.storage.shards.audio import AudioShard
from ssondo.storage.shards.embedding import ENVIRONMENT_OF
from ssondo.students.checkpoint import load_student
from ssondo.students.student import Student
from ssondo.system.device import disable_tf32
from ssondo.system.hardware import describe_machine
from ssondo.teachers.embed import checkpoint_sha256, embed_batch, prepare_device, write_embeddings
from ssondo.teachers.teacher import Teacher, load_teacher_from_config

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
        model: Teacher | Student
        embed: Callable[[list[Tensor]], np.ndarray]
        if teacher is not None:
            model = load_teacher_from_config(teacher, checkpoint, str(torch_device))
            embed = partial(embed_batch, model, batch_size=batch_size, device=torch_device, precision=precision)
            kind, used_device, n_parameters = str(teacher["kind"]), model.device, model.n_parameters
            provenance: dict[str, Any] = {}
        else:
            assert student is not None
            model = load_student(student, str(torch_device), architecture=architecture)
            embed = partial(_embed_with_student, model, batch_size=batch_size, device=torch_device)
            kind, used_device, provenance = "student", str(torch_device), model.provenance
            n_parameters = sum(parameter.numel() for parameter in model.model.parameters())
        environments = {"embed_task": describe_machine(used_device)}
        if {"verb", "environment"} <= provenance.keys():
            environments[provenance["verb"]] = provenance["environment"]
        write_embeddings(
            shard,
            out,
            embed,
            name=f"embed_task {kind} {shard.settings['task']}",
            sample_rate=model.sample_rate,
            embedding_dim=model.embedding_dim,
            settings={
                **shard.settings,
                "model": {"kind": kind},
                "parameters": n_parameters,
                "training_clip_list_sha256": provenance.get("clip_list_sha256"),
                ENVIRONMENT_OF: environments,
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


def _embed_with_student(student: Student, waveforms: list[Tensor], batch_size: int, device: torch.device) -> np.ndarray:
    """Embed clips in float32 on any device, so that scores compare students and not their rounding."""
    by_length = sorted(range(len(waveforms)), key=lambda index: len(waveforms[index]))
    embeddings = np.empty((len(waveforms), student.embedding_dim), dtype=np.float32)
    for start in range(0, len(waveforms), batch_size):
        rows = by_length[start : start + batch_size]
        clips = [waveforms[index] for index in rows]
        with torch.inference_mode(), disable_tf32():
            padded = pad_sequence(clips, batch_first=True).to(device)
            embeddings[rows] = student.embed(padded, [len(clip) for clip in clips]).cpu().numpy()
    return embeddings
