"""The supervised baseline: a student learns AudioSet's labels, by the same loop as distillation."""

import logging
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ssondo.distill.base_loss import BinaryCrossEntropy
from ssondo.distill.datasets import AudioDataset, intersect_ids
from ssondo.distill.distributed import init_distributed
from ssondo.distill.labels import multi_hot, read_classes, read_labels
from ssondo.distill.prepare_model import to_device
from ssondo.distill.sampler import class_balanced_weights, uniform_weights
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
from ssondo.storage.atomic_files import clip_list_digest, content_digest, file_digest
from ssondo.students.student import build_student
from ssondo.system.hardware import describe_machine
from ssondo.tasks.metrics import mean_average_precision

log = logging.getLogger(__name__)

SAMPLINGS = ("classes", "uniform")
SCORES = {"eval_map": "mAP", "constant_map": "mAP of a constant"}


def supervise(
    *,
    audio: list[Path],
    segments: list[Path],
    classes: Path,
    eval_audio: list[Path],
    eval_segments: list[Path],
    student: dict[str, Any],
    recipe: TrainingConfig,
    outputs: Outputs,
    pretrained: Path | None = None,
    sampling: str = "classes",
    runtime: Runtime = DEFAULT_RUNTIME,
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
        recipe: how the student is optimised.
        outputs: the files to write.
        pretrained: pretrained weights of the backbone.
        sampling: draw by the inverse frequency of a clip's classes, or uniform over clips.
        runtime: how the training is run.
    """
    if sampling not in SAMPLINGS:
        raise SsondoError(f"sampling is {sampling!r}; it must be one of {', '.join(SAMPLINGS)}")
    mids = read_classes(classes)
    with init_distributed(runtime.device) as job:
        known = PairedDataset(audio, segments, mids, "training")
        unseen = PairedDataset(eval_audio, eval_segments, mids, "eval")
        built = to_device(build_student(student, n_outputs=len(mids), seed=recipe.seed, pretrained=pretrained), job)
        name = f"supervise {built.settings['architecture']}"
        serve = partial(make_log_mel_cache, student=built, job=job, runtime=runtime, name=name)
        if sampling == "classes":
            weights = class_balanced_weights(known.labels, len(mids))
        else:
            weights = uniform_weights(len(known))
        inputs = serve(known.audio, known.rows, weights=weights)
        examples = TrainingData(inputs=inputs, targets=known.targets, weights=weights)
        eval_inputs = serve(unseen.audio, unseen.rows, beside=inputs)
        truth = torch.from_numpy(unseen.targets(np.arange(len(unseen)))).to(torch.int8)
        constant_map = float(mean_average_precision(torch.zeros(truth.shape), truth))

        def evaluate() -> Row:
            outputs = predict(built, eval_inputs, batch_size=recipe.batch_size, runtime=runtime, job=job)
            return {"eval_map": float(mean_average_precision(outputs, truth)), "constant_map": constant_map}

        told = {
            "sampling": sampling,
            "pretrained": None if pretrained is None else file_digest(pretrained),
            "audio": known.audio.digests,
            "labels": known.label_digest(),
            "n_classes": len(mids),
        }
        rows = train(
            built,
            BinaryCrossEntropy(),
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
                "verb": "supervise",
                "recipe": asdict(recipe),
                **told,
                "clip_list_sha256": clip_list_digest(known.clip_ids),
                "environment": describe_machine(str(job.device), job.world_size),
            },
            title=f"{name}, seed {recipe.seed}",
            scores=SCORES,
        )
        last = rows[-1]
        log.info(
            "%s: %d classes, seed %d, %d steps, eval mAP %.3f (constant %.3f), %.0f s -> %s",
            name,
            len(mids),
            recipe.seed,
            last["step"],
            last["eval_map"],
            last["constant_map"],
            last["seconds"],
            outputs.out,
        )


class PairedDataset:
    """Clips that have sound and stand in a segment list.

    Attributes:
        clip_ids: their names.
        rows: their positions in `audio`.
        labels: classes of each.
    """

    def __init__(self, audio: list[Path], segments: list[Path], mids: Sequence[str], what: str) -> None:
        self.audio = AudioDataset(audio)
        listed = read_labels(segments, mids)
        self._n_classes = len(mids)
        self.rows, _ = intersect_ids(self.audio.clip_ids, list(listed))
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
