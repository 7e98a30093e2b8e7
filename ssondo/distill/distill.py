"""Distillation: a student learns to map clips to where a teacher puts them."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ssondo.distill import losses
from ssondo.distill.base_loss import BinaryCrossEntropy
from ssondo.distill.datasets import AudioDataset, EmbeddingDataset, intersect_ids
from ssondo.distill.distributed import init_distributed
from ssondo.distill.labels import multi_hot, read_classes, read_labels
from ssondo.distill.mixup import Mix
from ssondo.distill.prepare_model import to_device
from ssondo.distill.sampler import balanced_weights, uniform_weights
from ssondo.distill.training import (
    TrainingData,
    make_log_mel_cache,
    predict,
    save_results,
    train,
)
from ssondo.distill.training_config import DEFAULT_RUNTIME, Outputs, Runtime, TrainingConfig
from ssondo.distill.training_log import Row, TrainingLogger
from ssondo.distill.training_state import fingerprint, resume_path
from ssondo.errors import SsondoError
from ssondo.storage.atomic_files import array_digest, clip_list_digest, content_digest, file_digest
from ssondo.storage.shards.clusters import Clusters
from ssondo.storage.shards.embedding import EmbeddingShard
from ssondo.students.student import build_student
from ssondo.system.hardware import describe_machine

log = logging.getLogger(__name__)

SAMPLINGS = ("clusters", "uniform")
SCORES = {
    "eval_cosine": "cosine",
    "constant_cosine": "cosine of a constant",
    "eval_nn_agreement": "same neighbour",
}
_ROWS_AT_ONCE = 1024
# Comparing all pairs of AudioSet's eval clips at each look would cost more than the look itself.
_MOST_NEIGHBOURS = 5000


def distill(
    *,
    audio: list[Path],
    embeddings: list[Path],
    eval_audio: list[Path],
    eval_embeddings: list[Path],
    student: dict[str, Any],
    recipe: TrainingConfig,
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
    """Train a student to put clips where the teacher puts them.

    Killed at any moment and started again, it goes on from its last checkpoint and ends with the
    same weights. Under torchrun it trains on several GPUs.

    Args:
        audio: audio shards of the training clips.
        embeddings: the teacher's embeddings of them; clips that lack either are left out.
        eval_audio: audio shards of the eval clips, on which the student is judged.
        eval_embeddings: the teacher's embeddings of them.
        student: architecture, window_s and settings of the architecture, e.g. width_mult.
        recipe: how the student is optimised.
        outputs: the files to write.
        clusters: clusters of the training clips; needed if n_clusters is above 0.
        segments: segment lists with the training clips' labels; needed if prediction_weight is above 0.
        classes: the list of classes, index,mid,display_name; needed then, too.
        pretrained: pretrained weights of the backbone.
        loss: name of the loss, a key of ssondo.distill.losses.LOSSES.
        loss_options: further options of that loss.
        temperature: of losses that have one.
        masking: correct or published, of losses that leave pairs out.
        prediction_weight: of a binary cross-entropy on labels, from 0 (none) to 1 (nothing else); the
            loss has the rest. The mapping head then also has an output for each class, after the others.
        n_clusters: number of clusters; 0 for none.
        sampling: draw evenly over clusters, or uniform over clips; without clusters it is uniform.
        center: subtract the teacher's mean embedding over the training clips.
        runtime: how the training is run.
    """
    if sampling not in SAMPLINGS:
        raise SsondoError(f"sampling is {sampling!r}; it must be one of {', '.join(SAMPLINGS)}")
    options = losses.supported_options(loss, temperature=temperature, masking=masking) | (loss_options or {})
    loss_function = losses.build(loss, **options)
    if loss_function.needs_clusters and not n_clusters:
        raise SsondoError(f"loss {loss!r} compares clusters; set n_clusters above 0")
    combined = losses.Combined(BinaryCrossEntropy(), loss_function, prediction_weight)
    if prediction_weight and (not segments or classes is None):
        raise SsondoError(
            f"prediction_weight is {prediction_weight:g}, which needs labels; give --segments and --classes"
        )
    with init_distributed(runtime.device) as job:
        known, unseen = PairedDataset(audio, embeddings, "training"), PairedDataset(eval_audio, eval_embeddings, "eval")
        if known.teacher.embedding_dim != unseen.teacher.embedding_dim:
            raise SsondoError(
                f"training embeddings have {known.teacher.embedding_dim} values, eval embeddings "
                f"{unseen.teacher.embedding_dim}; give one teacher's shards"
            )
        if center:
            known.mean = unseen.mean = known.mean_embedding()
        labels = _clusters_of(known.clip_ids, clusters, n_clusters) if n_clusters else None
        if labels is not None and sampling == "clusters":
            weights = balanced_weights(labels)
        else:
            weights = uniform_weights(len(known))
        classified = _Labels(known.clip_ids, segments, classes) if prediction_weight and segments and classes else None
        dim = known.teacher.embedding_dim
        n_outputs = dim if classified is None else dim + classified.n_classes

        built = to_device(build_student(student, n_outputs=n_outputs, seed=recipe.seed, pretrained=pretrained), job)
        name = f"distill {_teacher_name(embeddings[0])} -> {built.settings['architecture']}"
        serve = partial(make_log_mel_cache, student=built, job=job, runtime=runtime, name=name)
        examples = TrainingData(
            inputs=serve(known.audio, known.rows, weights=weights),
            targets=known.targets if classified is None else classified.beside(known.targets),
            weights=weights,
            clusters=labels if loss_function.needs_clusters else None,
        )
        eval_inputs = serve(unseen.audio, unseen.rows, beside=examples.inputs)
        wanted = torch.from_numpy(unseen.targets(np.arange(len(unseen))))
        constant_cosine = _cosine(torch.from_numpy(known.mean_direction())[None], wanted)

        def evaluate() -> Row:
            outputs = predict(built, eval_inputs, batch_size=recipe.batch_size, runtime=runtime, job=job)[:, :dim]
            return {
                "eval_cosine": _cosine(outputs, wanted),
                "constant_cosine": constant_cosine,
                "eval_nn_agreement": nearest_neighbour_agreement(outputs.to(job.device), wanted.to(job.device)),
            }

        told = {
            "loss": {"name": loss, **options},
            "sampling": sampling,
            "n_clusters": n_clusters,
            "center": center,
            "pretrained": None if pretrained is None else file_digest(pretrained),
            "clusters": None if labels is None else array_digest(labels),
            "prediction_weight": prediction_weight,
            "labels": None if classified is None else classified.digest(),
            "audio": known.audio.digests,
            "embeddings": known.teacher.digests,
        }
        rows = train(
            built,
            loss_function if classified is None else SplitOutputLoss(combined, dim),
            examples,
            evaluate,
            recipe,
            job=job,
            runtime=runtime,
            running=resume_path(outputs.out),
            identity=fingerprint(built, recipe, __name__, **told),
            journal=TrainingLogger(outputs, name=name, n_epochs=recipe.epochs, scores=SCORES),
        )
        if not job.first:
            return
        save_results(
            built,
            rows,
            outputs=outputs,
            provenance={
                "verb": "distill",
                "recipe": asdict(recipe),
                **told,
                "clip_list_sha256": clip_list_digest(known.clip_ids),
                "center": None if known.mean is None else known.mean.tolist(),
                "environment": describe_machine(str(job.device), job.world_size),
            },
            title=f"{name}, {loss}, k={n_clusters}, seed {recipe.seed}",
            scores=SCORES,
        )
        last = rows[-1]
        log.info(
            "%s: %s, k=%d, seed %d, %d steps, eval cosine %.3f (constant %.3f), the teacher's nearest neighbour for "
            "%.0f %% of clips, %.0f s -> %s",
            name,
            loss,
            n_clusters,
            recipe.seed,
            last["step"],
            last["eval_cosine"],
            last["constant_cosine"],
            100 * (last["eval_nn_agreement"] or 0),
            last["seconds"],
            outputs.out,
        )


class PairedDataset:
    """Clips that have both sound and an embedding.

    Attributes:
        clip_ids: their names.
        rows: their positions in `audio`.
        mean: subtracted from each embedding, or None.
    """

    def __init__(self, audio: list[Path], embeddings: list[Path], what: str) -> None:
        self.audio, self.teacher = AudioDataset(audio), EmbeddingDataset(embeddings)
        self.rows, self._teacher_rows = intersect_ids(self.audio.clip_ids, self.teacher.clip_ids)
        self.clip_ids = [self.audio.clip_ids[row] for row in self.rows]
        self.mean: np.ndarray | None = None
        counts = (
            f"{len(self)} {what} clips have sound and an embedding; {len(self.audio.clip_ids) - len(self)} with sound "
            f"have no embedding, {len(self.teacher.clip_ids) - len(self)} with an embedding have no sound, "
            f"{self.audio.n_absent} are listed without sound"
        )
        if not len(self):
            raise SsondoError(f"{counts}; give the audio and embedding shards of one clip list")
        log.info("%s", counts)

    def __len__(self) -> int:
        return len(self.clip_ids)

    def targets(self, clips: np.ndarray) -> np.ndarray:
        """The teacher's embeddings of clips, centred if there is a mean; float32, shape (n, dim)."""
        found = self.teacher.read(self._teacher_rows[clips])
        return found if self.mean is None else found - self.mean

    def _blocks(self) -> Iterator[np.ndarray]:
        for start in range(0, len(self), _ROWS_AT_ONCE):
            yield self.targets(np.arange(start, min(start + _ROWS_AT_ONCE, len(self))))

    def mean_embedding(self) -> np.ndarray:
        """Mean of the embeddings, float32, shape (dim,)."""
        return (sum(block.sum(axis=0, dtype=np.float64) for block in self._blocks()) / len(self)).astype(np.float32)

    def mean_direction(self) -> np.ndarray:
        """The output that has the highest mean cosine with the embeddings if it is the same for every clip.

        That is the mean of the embeddings' directions; float32, shape (dim,).
        """
        return sum(
            (block / np.linalg.norm(block, axis=1, keepdims=True).clip(1e-12)).sum(axis=0, dtype=np.float64)
            for block in self._blocks()
        ).astype(np.float32)


class _Labels:
    """Classes of the training clips, for the part of the loss that is on labels."""

    def __init__(self, clip_ids: list[str], segments: list[Path], classes: Path) -> None:
        mids = read_classes(classes)
        listed = read_labels(segments, mids)
        without = [clip for clip in clip_ids if clip not in listed]
        if without:
            raise SsondoError(
                f"{len(without)} training clips stand in no segment list (the first is {without[0]}); "
                "give the lists that their shards were made from"
            )
        self._clip_ids = clip_ids
        self._classes = [listed[clip] for clip in clip_ids]
        self.n_classes = len(mids)

    def beside(self, targets: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
        """`targets` with the multi-hot labels after them: shape (n, dim + n_classes)."""

        def both(clips: np.ndarray) -> np.ndarray:
            labels = multi_hot([self._classes[clip] for clip in clips], self.n_classes)
            return np.concatenate([targets(clips), labels], axis=1)

        return both

    def digest(self) -> str:
        """Digest of all clips' labels."""
        return content_digest({c: str(classes) for c, classes in zip(self._clip_ids, self._classes, strict=True)})


class SplitOutputLoss:
    """A combined loss of outputs whose first `dim` are the teacher's, and the rest a logit for each class."""

    def __init__(self, combined: losses.Combined, dim: int) -> None:
        self._combined = combined
        self._dim = dim

    def with_components(
        self, output: Tensor, target: Tensor, clusters: Tensor | None = None, mix: Mix | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Criterion`; output and target are (batch, dim + n_classes)."""
        (mapped, logits), (teacher, labels) = ((x[:, : self._dim], x[:, self._dim :]) for x in (output, target))
        return self._combined.with_components(logits, labels, mapped, teacher, clusters, mix)


def _clusters_of(clip_ids: list[str], path: Path | None, n_clusters: int) -> np.ndarray:
    """Cluster of each clip, int64, shape (n_clips,)."""
    if path is None:
        raise SsondoError(f"n_clusters is {n_clusters}, but no clusters were given; add --clusters, or set it to 0")
    with Clusters(path) as found:
        if len(found.centroids) != n_clusters:
            raise SsondoError(
                f"{path}: has {len(found.centroids)} clusters, n_clusters is {n_clusters}; give the right file"
            )
        cluster_of = dict(zip(found.clip_ids, found.cluster.tolist(), strict=True))
    without = [clip for clip in clip_ids if clip not in cluster_of]
    if without:
        raise SsondoError(
            f"{path}: {len(without)} training clips have no cluster (the first is {without[0]}); "
            "make the clusters again from the same embeddings"
        )
    return np.array([cluster_of[clip] for clip in clip_ids], dtype=np.int64)


def _teacher_name(embeddings: Path) -> str:
    with EmbeddingShard(embeddings) as shard:
        return str(shard.settings.get("teacher", {}).get("kind", "teacher"))


def _cosine(outputs: Tensor, targets: Tensor) -> float:
    return float(F.cosine_similarity(outputs, targets, dim=1).double().mean())


def nearest_neighbour_agreement(outputs: Tensor, targets: Tensor) -> float:
    """Share of clips whose nearest other clip, by cosine, is the same for student and teacher.

    Args:
        outputs: of the student, shape (n_clips, dim), at least two clips; the first 5,000 count.
        targets: of the teacher, shape (n_clips, dim).

    Returns:
        In [0, 1]; chance is 1 / (n_clips - 1).
    """
    nearest = []
    for vectors in (outputs, targets):
        unit = F.normalize(vectors[:_MOST_NEIGHBOURS], dim=1)
        found = []
        for start in range(0, len(unit), _ROWS_AT_ONCE):
            similarity = unit[start : start + _ROWS_AT_ONCE] @ unit.T
            similarity.diagonal(start).fill_(-torch.inf)
            found.append(similarity.argmax(dim=1))
        nearest.append(torch.cat(found))
    return float((nearest[0] == nearest[1]).double().mean())
