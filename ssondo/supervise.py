"""The supervised baseline: a student learns AudioSet's labels, by the same loop as distillation."""

import logging
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ssondo.artefacts import clip_list_digest, content_digest, file_digest
from ssondo.errors import SsondoError
from ssondo.initialise import new_student
from ssondo.labels import multi_hot, read_classes, read_labels
from ssondo.loader import AudioClips, common
from ssondo.losses import BinaryCrossEntropy
from ssondo.metrics import mean_average_precision
from ssondo.provenance import environment
from ssondo.sampler import class_balanced_weights, uniform_weights
from ssondo.schedule import schedule_of
from ssondo.training import (
    Examples,
    Recipe,
    Row,
    conclude,
    outputs_of,
    place,
    running_path,
    served,
    started_job,
    train,
    training_identity,
)

log = logging.getLogger(__name__)

SAMPLINGS = ("classes", "uniform")


def supervise(
    *,
    audio: list[Path],
    segments: list[Path],
    classes: Path,
    eval_audio: list[Path],
    eval_segments: list[Path],
    student: dict[str, Any],
    out: Path,
    history: Path,
    curves: Path,
    seed: int,
    epochs: int,
    draws_per_epoch: int,
    batch_size: int,
    learning_rate: float,
    init: Path | None = None,
    sampling: str = "classes",
    schedule: str = "published",
    warmup_epochs: float = 8,
    decay_start_epoch: float = 80,
    decay_epochs: float = 95,
    final_multiplier: float = 0.01,
    gradient_clip: float = 5.0,
    mixup_alpha: float | None = None,
    freq_mask: int = 0,
    time_mask: int = 0,
    precision: str = "auto",
    compile: bool = False,
    reestimate_batches: int = 0,
    checkpoint_minutes: float = 10,
    validate_every: int = 1,
    num_workers: int = 0,
    cache_mb: int = 0,
    device: str = "auto",
    tensorboard: Path | None = None,
) -> None:
    """Train a student on the labels of its clips: the baseline without a teacher.

    Killed at any moment and started again, it goes on from its last checkpoint and ends with the
    same weights. Under torchrun it trains on several GPUs.

    Args:
        audio: audio shards of the training clips.
        segments: segment lists with their labels; clips that no list has are left out.
        classes: the list of classes, index,mid,display_name.
        eval_audio: audio shards of the eval clips, on which the student is judged.
        eval_segments: segment lists with their labels.
        student: architecture, window_s and settings of the architecture, e.g. width_mult.
        out: the student's checkpoint.
        history: CSV with a line for each epoch.
        curves: PNG of it.
        seed: of weights, draws and dropout.
        epochs: how many.
        draws_per_epoch: clips drawn in an epoch, with replacement; whole batches only.
        batch_size: clips a step, over all GPUs.
        learning_rate: of Adam, at its peak.
        init: pretrained weights of the backbone.
        sampling: draw by the inverse frequency of a clip's classes, or uniform over clips.
        schedule: of the learning rate: published (constant within an epoch), linear, or constant.
        warmup_epochs: length of its ramp up.
        decay_start_epoch: where its ramp down begins.
        decay_epochs: length of the ramp down.
        final_multiplier: share of the learning rate after it.
        gradient_clip: largest norm of the gradient.
        mixup_alpha: of the Beta distribution, 0.3 in the paper; not given, no mixup.
        freq_mask: SpecAugment, widest mask in mel bands; 0 is off.
        time_mask: SpecAugment, widest mask in frames; 0 is off.
        precision: auto, float32, bf16 or fp16; auto is 16 bit on a GPU and float32 on a CPU.
        compile: use torch.compile.
        reestimate_batches: batches on which batch norms are measured at the end; for short trainings.
        checkpoint_minutes: between two checkpoints of the running training.
        validate_every: epochs between two looks at the eval clips; the last is always looked at.
        num_workers: threads that read and decode, for each GPU.
        cache_mb: most memory in MB for log-mels, for each GPU; used if all clips fit.
        device: auto, cpu, cuda.
        tensorboard: folder for TensorBoard event files.
    """
    recipe = Recipe(
        seed=seed,
        epochs=epochs,
        draws_per_epoch=draws_per_epoch,
        batch_size=batch_size,
        learning_rate=learning_rate,
        schedule=schedule_of(
            schedule,
            warmup_epochs=warmup_epochs,
            decay_start_epoch=decay_start_epoch,
            decay_epochs=decay_epochs,
            final_multiplier=final_multiplier,
        ),
        gradient_clip=gradient_clip,
        mixup_alpha=mixup_alpha,
        freq_mask=freq_mask,
        time_mask=time_mask,
        precision=precision,
        compile=compile,
        reestimate_batches=reestimate_batches,
    )
    if sampling not in SAMPLINGS:
        raise SsondoError(f"sampling is {sampling!r}; it must be one of {', '.join(SAMPLINGS)}")
    mids = read_classes(classes)
    with started_job(device) as job:
        known = _Corpus(audio, segments, mids, "training")
        unseen = _Corpus(eval_audio, eval_segments, mids, "eval")
        built = place(new_student(student, n_outputs=len(mids), seed=seed, init=init), job)
        name = f"supervise {built.settings['architecture']}"
        serve = partial(served, student=built, job=job, cache_mb=cache_mb, num_workers=num_workers, name=name)
        if sampling == "classes":
            weights = class_balanced_weights(known.labels, len(mids))
        else:
            weights = uniform_weights(len(known))
        examples = Examples(inputs=serve(known.audio, known.rows), targets=known.targets, weights=weights)
        eval_inputs = serve(unseen.audio, unseen.rows)
        truth = torch.from_numpy(unseen.targets(np.arange(len(unseen)))).to(torch.int8)
        constant_map = float(mean_average_precision(torch.zeros(truth.shape), truth))

        def judge() -> Row:
            outputs = outputs_of(built, eval_inputs, job=job, batch_size=batch_size, num_workers=num_workers)
            return {"eval_map": float(mean_average_precision(outputs, truth)), "constant_map": constant_map}

        told = {
            "sampling": sampling,
            "init": None if init is None else file_digest(init),
            "audio": known.audio.digests,
            "labels": known.label_digest(),
            "n_classes": len(mids),
        }
        rows = train(
            built,
            BinaryCrossEntropy(),
            examples,
            judge,
            recipe,
            job=job,
            running=running_path(out),
            identity=training_identity(built, recipe, __name__, **told),
            num_workers=num_workers,
            checkpoint_minutes=checkpoint_minutes,
            validate_every=validate_every,
            name=name,
        )
        if not job.first:
            return
        conclude(
            built,
            rows,
            out=out,
            history=history,
            curves=curves,
            tensorboard=tensorboard,
            provenance={
                "verb": "supervise",
                "recipe": asdict(recipe),
                **told,
                "clip_list_sha256": clip_list_digest(known.clip_ids),
                "environment": environment(),
            },
            title=f"{name}, seed {seed}",
            scores={"eval_map": "mAP", "constant_map": "mAP of a constant"},
        )
        last = rows[-1]
        log.info(
            "%s: %d classes, seed %d, %d steps, eval mAP %.3f (constant %.3f), %.0f s -> %s",
            name,
            len(mids),
            seed,
            last["step"],
            last["eval_map"],
            last["constant_map"],
            last["seconds"],
            out,
        )


class _Corpus:
    """Clips that have sound and stand in a segment list.

    Attributes:
        clip_ids: their names.
        rows: their positions in `audio`.
        labels: classes of each.
    """

    def __init__(self, audio: list[Path], segments: list[Path], mids: Sequence[str], what: str) -> None:
        self.audio = AudioClips(audio)
        listed = read_labels(segments, mids)
        self._n_classes = len(mids)
        self.rows, _ = common(self.audio.clip_ids, list(listed))
        self.clip_ids = [self.audio.clip_ids[row] for row in self.rows]
        self.labels = [listed[clip] for clip in self.clip_ids]
        n_unlisted = len(self.audio.clip_ids) - len(self)
        n_bare = sum(not classes for classes in self.labels)
        counts = (
            f"{len(self)} {what} clips have sound and stand in a list, {n_bare} of them without a label; "
            f"{n_unlisted} with sound stand in none, {self.audio.n_absent} are listed without sound"
        )
        if not any(self.labels):
            raise SsondoError(f"{counts}; give the audio shards and labelled segment lists of one clip list")
        log.info("%s", counts)

    def __len__(self) -> int:
        return len(self.clip_ids)

    def targets(self, clips: np.ndarray) -> np.ndarray:
        """Multi-hot labels of clips, float32, shape (n, n_classes)."""
        return multi_hot([self.labels[clip] for clip in clips], self._n_classes)

    def label_digest(self) -> str:
        """Digest of all clips' labels."""
        return content_digest({c: str(classes) for c, classes in zip(self.clip_ids, self.labels, strict=True)})
