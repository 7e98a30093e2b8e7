"""Distillation: training of a student on the embeddings of a teacher."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ssondo.distill import losses
from ssondo.distill.base_loss import Loss
from ssondo.distill.datasets import EmbeddingDataset, PairedDataset, intersect_ids
from ssondo.distill.distributed import init_distributed
from ssondo.distill.labels import LabelDataset
from ssondo.distill.sampler import balanced_weights, uniform_weights
from ssondo.distill.trainer import Objective
from ssondo.distill.training import run_training
from ssondo.distill.training_config import DEFAULT_RUNTIME, Outputs, Runtime, TrainingConfig
from ssondo.distill.training_log import Row
from ssondo.errors import SsondoError
from ssondo.storage.atomic_files import array_digest
from ssondo.storage.shards.clusters import Clusters
from ssondo.storage.shards.embedding import EmbeddingShard
from ssondo.students.student import Student

SAMPLINGS = ("clusters", "uniform")
SCORES = {
    "eval_cosine": "eval cosine",
    "constant_cosine": "cosine of a constant output",
    "eval_nn_agreement": "nearest-neighbour agreement",
}
_ROWS_PER_CHUNK = 1024
# Comparing all pairs of AudioSet's eval clips would take longer than the rest of an evaluation.
_MAX_NEIGHBOUR_CLIPS = 5000


def distill(
    *,
    audio: list[Path],
    embeddings: list[Path],
    eval_audio: list[Path],
    eval_embeddings: list[Path],
    student: dict[str, Any],
    config: TrainingConfig,
    outputs: Outputs,
    clusters: Path | None = None,
    segments: list[Path] | None = None,
    classes: Path | None = None,
    pretrained: Path | None = None,
    loss: str = "cosine",
    loss_options: dict[str, Any] | None = None,
    temperature: float = 1.0,
    masking: str = "correct",
    prediction_weight: float = 0.0,
    n_clusters: int = 0,
    sampling: str = "clusters",
    center: bool = False,
    runtime: Runtime = DEFAULT_RUNTIME,
) -> None:
    """Train a student to map clips to the embeddings of a teacher.

    If it is interrupted at any moment and started again, it resumes from its last saved state and ends with the
    same weights. Under torchrun it trains on several GPUs.

    Args:
        audio: Audio shards of the training clips.
        embeddings: Embedding shards of the training clips; clips that lack audio or an embedding are not used.
        eval_audio: Audio shards of the evaluation clips, on which the student is evaluated.
        eval_embeddings: Embedding shards of the evaluation clips.
        student: Architecture, window_s and settings of the architecture such as width_mult, as JSON.
        config: Settings of the optimisation.
        outputs: Files that are written.
        clusters: Path of the clusters of the training clips; required if n_clusters is above 0.
        segments: Segment lists with the labels of the training clips; required if prediction_weight is above 0.
        classes: Class list with the columns index, mid and display_name; required if prediction_weight is above 0.
        pretrained: Path of pretrained weights of the backbone; without it the weights are random.
        loss: Name of the loss, a key of ssondo.distill.LOSSES.
        loss_options: Further options of the loss, as JSON.
        temperature: Temperature of the losses that have one.
        masking: Masking of excluded pairs in losses that exclude pairs: correct or published.
        prediction_weight: Weight of a binary cross-entropy on the labels, from 0 to 1; the distillation loss has the
            remaining weight. Above 0 the mapping head has an additional output for each class.
        n_clusters: Number of clusters; 0 for no clusters.
        sampling: Sampling of training clips: clusters (all clusters equally often) or uniform. Without clusters it
            is uniform.
        center: Whether the mean of the training embeddings is subtracted from all embeddings.
        runtime: Use of the machine.

    Raises:
        SsondoError: If a setting or a file cannot be used, or the loss is not finite.
        TransientError: After SIGTERM, once the state is saved.
    """
    if sampling not in SAMPLINGS:
        raise SsondoError(f"sampling is {sampling!r}; it must be one of {', '.join(SAMPLINGS)}")
    options = losses.supported_options(loss, temperature=temperature, masking=masking) | (loss_options or {})
    distillation_loss = losses.build(loss, **options)
    if distillation_loss.needs_clusters and not n_clusters:
        raise SsondoError(f"loss {loss!r} needs clusters; set n_clusters above 0")
    if not 0 <= prediction_weight <= 1:
        raise SsondoError(f"prediction_weight is {prediction_weight}; it must be from 0 to 1")
    if prediction_weight and (not segments or classes is None):
        raise SsondoError(
            f"prediction_weight is {prediction_weight:g}, which needs labels; add --segments and --classes"
        )
    with init_distributed(runtime.device) as context:
        teacher, eval_teacher = EmbeddingDataset(embeddings), EmbeddingDataset(eval_embeddings)
        dim = teacher.embedding_dim
        if dim != eval_teacher.embedding_dim:
            raise SsondoError(
                f"training embeddings have {dim} values, eval embeddings {eval_teacher.embedding_dim}; "
                "give the shards of one teacher"
            )
        train_set = PairedDataset(audio, teacher, "training")
        eval_set = PairedDataset(eval_audio, eval_teacher, "eval")
        if center:
            train_set.offset = eval_set.offset = _mean_embedding(train_set)
        cluster_of = _read_clusters(clusters, n_clusters, train_set.clip_ids) if n_clusters else None
        if cluster_of is not None and sampling == "clusters":
            weights = balanced_weights(cluster_of)
        else:
            weights = uniform_weights(len(train_set))
        objective_loss: Loss = distillation_loss
        n_outputs = dim
        labels, label_rows = None, np.empty(0, dtype=np.int64)
        if prediction_weight and segments and classes:
            labels = LabelDataset(segments, classes)
            label_rows = _rows_of(train_set.clip_ids, labels)
            objective_loss = losses.Combined(distillation_loss, prediction_weight, dim)
            n_outputs = dim + labels.n_classes

        def targets(clips: np.ndarray) -> np.ndarray:
            teacher_targets = train_set.targets(clips)
            if labels is None:
                return teacher_targets
            return np.concatenate([teacher_targets, labels.read(label_rows[clips])], axis=1)

        eval_targets = torch.from_numpy(eval_set.targets(np.arange(len(eval_set))))
        constant_cosine = _cosine(torch.from_numpy(_mean_direction(train_set))[None], eval_targets)

        def evaluate(student: Student, predictions: Tensor) -> Row:
            mapped = predictions[:, :dim]
            return {
                "eval_cosine": _cosine(mapped, eval_targets),
                "constant_cosine": constant_cosine,
                "eval_nn_agreement": nearest_neighbour_agreement(
                    mapped.to(context.device), eval_targets.to(context.device)
                ),
            }

        run_training(
            "distill",
            Objective(
                loss=objective_loss,
                n_outputs=n_outputs,
                targets=targets,
                weights=weights,
                evaluate=evaluate,
                scores=SCORES,
                clusters=cluster_of if distillation_loss.needs_clusters else None,
            ),
            train_set,
            eval_set,
            student=student,
            pretrained=pretrained,
            config=config,
            outputs=outputs,
            runtime=runtime,
            context=context,
            name=f"distill {_teacher_name(embeddings[0])} ->",
            summary=f"{loss}, k={n_clusters}",
            settings={
                "loss": {"name": loss, **options},
                "sampling": sampling,
                "n_clusters": n_clusters,
                "center": center,
                "clusters": None if cluster_of is None else array_digest(cluster_of),
                "prediction_weight": prediction_weight,
                "labels": None if labels is None else labels.digest(label_rows),
                "embeddings": teacher.digests,
            },
            # The mean, which an application needs to compare outputs with the teacher, replaces the setting.
            provenance={"center": None if train_set.offset is None else train_set.offset.tolist()},
        )


def _rows_of(clip_ids: list[str], labels: LabelDataset) -> np.ndarray:
    """Return the position of each clip in `labels`, shape (n_clips,)."""
    _, rows = intersect_ids(clip_ids, labels.clip_ids)
    if len(rows) < len(clip_ids):
        missing = sorted(set(clip_ids) - set(labels.clip_ids), key=clip_ids.index)
        raise SsondoError(
            f"{len(missing)} training clips are in no segment list (the first is {missing[0]}); "
            "give the lists from which their shards were made"
        )
    return rows


def _read_clusters(path: Path | None, n_clusters: int, clip_ids: list[str]) -> np.ndarray:
    """Return the cluster of each clip, int64, shape (n_clips,)."""
    if path is None:
        raise SsondoError(
            f"n_clusters is {n_clusters}, but there is no file of clusters; add --clusters, or set it to 0"
        )
    with Clusters(path) as file:
        if len(file.centroids) != n_clusters:
            raise SsondoError(
                f"{path}: has {len(file.centroids)} clusters, but n_clusters is {n_clusters}; give the file with "
                f"{n_clusters} clusters"
            )
        cluster_of = dict(zip(file.clip_ids, file.cluster.tolist(), strict=True))
    missing = [clip for clip in clip_ids if clip not in cluster_of]
    if missing:
        raise SsondoError(
            f"{path}: {len(missing)} training clips have no cluster (the first is {missing[0]}); "
            "make the clusters again from the same embeddings"
        )
    return np.array([cluster_of[clip] for clip in clip_ids], dtype=np.int64)


def _teacher_name(embeddings: Path) -> str:
    with EmbeddingShard(embeddings) as shard:
        return str(shard.settings.get("teacher", {}).get("kind", "teacher"))


def _target_chunks(dataset: PairedDataset) -> Iterator[np.ndarray]:
    for start in range(0, len(dataset), _ROWS_PER_CHUNK):
        yield dataset.targets(np.arange(start, min(start + _ROWS_PER_CHUNK, len(dataset))))


def _mean_embedding(dataset: PairedDataset) -> np.ndarray:
    """Return the mean of the embeddings, float32, shape (dim,)."""
    total = sum(chunk.sum(axis=0, dtype=np.float64) for chunk in _target_chunks(dataset))
    return (total / len(dataset)).astype(np.float32)


def _mean_direction(dataset: PairedDataset) -> np.ndarray:
    """Return the sum of the normalised embeddings, float32, shape (dim,).

    Of all outputs that are equal for every clip, it has the highest mean cosine with the embeddings.
    """
    return sum(
        (chunk / np.linalg.norm(chunk, axis=1, keepdims=True).clip(1e-12)).sum(axis=0, dtype=np.float64)
        for chunk in _target_chunks(dataset)
    ).astype(np.float32)


def _cosine(outputs: Tensor, targets: Tensor) -> float:
    return float(F.cosine_similarity(outputs, targets, dim=1).double().mean())


def nearest_neighbour_agreement(outputs: Tensor, targets: Tensor) -> float:
    """Return the fraction of clips whose nearest other clip, by cosine, is the same for student and teacher.

    Args:
        outputs: Outputs of the student for at least two clips, shape (n_clips, dim); only the first 5,000 are used.
        targets: Embeddings of the teacher, shape (n_clips, dim).

    Returns:
        Fraction in [0, 1]; chance level is 1 / (n_clips - 1).
    """
    neighbours = []
    for vectors in (outputs, targets):
        unit = F.normalize(vectors[:_MAX_NEIGHBOUR_CLIPS], dim=1)
        chunks = []
        for start in range(0, len(unit), _ROWS_PER_CHUNK):
            similarity = unit[start : start + _ROWS_PER_CHUNK] @ unit.T
            similarity.diagonal(start).fill_(-torch.inf)
            chunks.append(similarity.argmax(dim=1))
        neighbours.append(torch.cat(chunks))
    return float((neighbours[0] == neighbours[1]).double().mean())
