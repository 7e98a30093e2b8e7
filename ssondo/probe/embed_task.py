"""Embeddings of a downstream task, by a teacher or a student.

    ssondo embed_task --audio tasks/esc50.h5 --student student.ckpt --out esc50.h5

A module of its own: what embeds AudioSet does not depend on any student.
"""

import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ssondo.errors import SsondoError
from ssondo.storage.atomic_files import clip_list_digest
from ssondo.storage.shards.audio import AudioShard
from ssondo.storage.shards.embedding import ENVIRONMENT_OF, EmbeddingShardWriter
from ssondo.system.allocator import disable_malloc_trim
from ssondo.system.device import check_precision, disable_tf32, resolve_device
from ssondo.system.hardware import describe_machine
from ssondo.system.progress import progress_bar
from ssondo.teachers.embed import (
    batches,
    checkpoint_sha256,
    embed_batch,
    read_waveforms,
)
from ssondo.teachers.load_teacher import load_teacher_from_config

log = logging.getLogger(__name__)

# So many batches are sorted by length together.
_POOL = 8


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
    """Embed a downstream task's clips, of any length, with a teacher or a student.

    Args:
        audio: the task's audio shard.
        out: the embedding shard to write; it holds the clips that are there, with their labels
            and their split or fold.
        teacher: as JSON: its kind and what that kind takes, e.g. {"kind": "matpac"}.
        checkpoint: the teacher's weights.
        student: a student's checkpoint instead of a teacher.
        architecture: the student's, if it is a class of your own: package.module:Class.
        precision: of a teacher's arithmetic on a GPU (see `ssondo.teachers.embed.embed`); a student's is float32.
        batch_size: clips at once.
        device: cuda, cpu, or auto for a GPU if there is one.

    Raises:
        SsondoError: if the shard or the model is not there or not usable, the shard is not a
            task's, or an embedding has a NaN; the clip is named.
    """
    started = time.monotonic()
    if (teacher is None) == (student is None):
        raise SsondoError("embed_task: give a teacher or a student, one of them")
    check_precision(precision)
    if batch_size < 1:
        raise SsondoError(f"embed_task: batch_size {batch_size} is not positive")
    torch_device = resolve_device(device)
    if torch_device.type == "cpu":
        disable_malloc_trim()
    sha256 = checkpoint_sha256(checkpoint if student is None else student)
    with AudioShard(audio) as shard:
        extras = _extras(shard)
        clip_ids = [shard.clip_ids[row] for row in shard.ok]
        model: _Student | _Teacher = (
            _Student(student, torch_device, architecture)
            if student is not None
            else _Teacher(teacher or {}, checkpoint, torch_device, precision)
        )
        settings = {
            **shard.settings,
            "model": model.settings,
            "parameters": model.n_parameters,
            "n_missing": len(shard) - len(clip_ids),
            "clip_list_sha256": clip_list_digest(clip_ids),
            "training_clip_list_sha256": model.trained_on,
            "audio_digest": shard.digest,
            ENVIRONMENT_OF: {**model.made_with, "embed_task": describe_machine(model.device)},
        }
        name = f"embed_task {model.name} {shard.settings['task']}"
        with (
            EmbeddingShardWriter(
                out,
                embedding_dim=model.embedding_dim,
                settings=settings,
                checkpoint_sha256=sha256,
                dtype="float32",
                producer="embed_task",
            ) as writer,
            progress_bar(len(clip_ids), name) as bar,
        ):
            clips = read_waveforms(shard, model.sample_rate, ahead=2 * batch_size)
            for rows, waveforms in batches(clips, model.sample_rate, _POOL * batch_size):
                writer.add([shard.clip_ids[row] for row in rows], model.embed(waveforms, batch_size))
                bar.update(len(rows))
            for extra, values in extras.items():
                writer.add_extra(extra, values[shard.ok])
    if not clip_ids:
        log.warning("%s: no clip of %d is there, %s is empty", audio, len(shard), out)
    seconds = time.monotonic() - started
    log.info(
        "%s: %d of %d clips, %d-d, in %.1f s (%.1f clips/s on %s) -> %s",
        *(name, len(clip_ids), len(shard), model.embedding_dim, seconds, len(clip_ids) / seconds, torch_device, out),
    )


def _extras(shard: AudioShard) -> dict[str, np.ndarray]:
    """Labels and split or fold of a task shard, a row a clip."""
    kind = shard.settings.get("split_kind")
    if "task" not in shard.settings or kind not in ("split", "fold"):
        raise SsondoError(f"{shard.path}: not the shard of a task (no task and split_kind); make it with prepare_task")
    return {name: shard.extra(name) for name in ("labels", kind)}


class _Teacher:
    def __init__(self, teacher: dict[str, Any], checkpoint: Path | None, device: torch.device, precision: str) -> None:
        self._model = load_teacher_from_config(teacher, checkpoint, str(device))
        self._device, self._precision = device, precision
        self.device = self._model.device
        self.made_with: dict[str, dict[str, str]] = {}
        self.trained_on: str | None = None
        self.name = str(teacher["kind"])
        self.settings = {"kind": self.name}
        self.n_parameters = self._model.n_parameters
        self.embedding_dim = self._model.embedding_dim
        self.sample_rate = self._model.sample_rate

    def embed(self, waveforms: list[Tensor], batch_size: int) -> np.ndarray:
        return embed_batch(self._model, waveforms, batch_size, self._device, self._precision)


class _Student:
    def __init__(self, checkpoint: Path, device: torch.device, architecture: str | None) -> None:
        # Here, not above: a task's teacher embeddings do without any student.
        from ssondo.students.checkpoint import load_student

        self._model = load_student(checkpoint, str(device), architecture=architecture)
        self._device = device
        self.device = str(device)
        made = self._model.provenance
        self.made_with = {made["verb"]: made["environment"]} if {"verb", "environment"} <= made.keys() else {}
        self.trained_on: str | None = made.get("clip_list_sha256")
        self.name = "student"
        self.settings = {"kind": self.name}
        self.n_parameters = sum(parameter.numel() for parameter in self._model.model.parameters())
        self.embedding_dim = self._model.embedding_dim
        self.sample_rate = self._model.sample_rate

    def embed(self, waveforms: list[Tensor], batch_size: int) -> np.ndarray:
        """In float32 on any device: a student is small, and what is compared is the student, not its rounding."""
        by_length = sorted(range(len(waveforms)), key=lambda index: len(waveforms[index]))
        embeddings = np.empty((len(waveforms), self.embedding_dim), dtype=np.float32)
        for start in range(0, len(waveforms), batch_size):
            chosen = by_length[start : start + batch_size]
            clips = [waveforms[index] for index in chosen]
            with torch.inference_mode(), disable_tf32():
                padded = pad_sequence(clips, batch_first=True).to(self._device)
                embeddings[chosen] = self._model.embed(padded, [len(clip) for clip in clips]).cpu().numpy()
        return embeddings
