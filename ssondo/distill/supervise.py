"""The supervised baseline: training of a student on the labels of its clips."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssondo.distill.base_loss import BinaryCrossEntropy
from ssondo.distill.datasets import PairedDataset
from ssondo.distill.distributed import init_distributed
from ssondo.distill.labels import LabelDataset
from ssondo.distill.sampler import class_balanced_weights, uniform_weights
from ssondo.distill.trainer import Objective
from ssondo.distill.training import run_training
from ssondo.distill.training_config import DEFAULT_RUNTIME, Outputs, Runtime, TrainingConfig
from ssondo.distill.training_log import Row
from ssondo.errors import SsondoError
from ssondo.students.student import Student
from ssondo.tasks.metrics import mean_average_precision

log = logging.getLogger(__name__)

SAMPLINGS = ("classes", "uniform")
SCORES = {"eval_map": "eval mAP", "constant_map": "mAP of constant outputs"}


def supervise(
    *,
    audio: list[Path],
    segments: list[Path],
    classes: Path,
    eval_audio: list[Path],
    eval_segments: list[Path],
    student: dict[str, Any],
    config: TrainingConfig,
    outputs: Outputs,
    pretrained: Path | None = None,
    sampling: str = "classes",
    runtime: Runtime = DEFAULT_RUNTIME,
) -> None:
    """Train a student on the labels of its clips: the baseline without a teacher.

    If it is interrupted at any moment and started again, it resumes from its last saved state and ends with the
    same weights. Under torchrun it trains on several GPUs.

    Args:
        audio: Audio shards of the training clips.
        segments: Segment lists with the labels of the training clips; clips that are in no list are not used.
        classes: Class list with the columns index, mid and display_name.
        eval_audio: Audio shards of the evaluation clips, on which the student is evaluated.
        eval_segments: Segment lists with the labels of the evaluation clips.
        student: Architecture, window_s and settings of the architecture such as width_mult, as JSON.
        config: Settings of the optimisation.
        outputs: Files that are written.
        pretrained: Path of pretrained weights of the backbone; without it the weights are random.
        sampling: Sampling of training clips: classes (weights from the inverse frequency of the clip's classes)
            or uniform.
        runtime: Use of the machine.

    Raises:
        SsondoError: If a setting or a file cannot be used, or the loss is not finite.
        TransientError: After SIGTERM, once the state is saved.
    """
    if sampling not in SAMPLINGS:
        raise SsondoError(f"sampling is {sampling!r}; it must be one of {', '.join(SAMPLINGS)}")
    with init_distributed(runtime.device) as context:
        labels, eval_labels = LabelDataset(segments, classes), LabelDataset(eval_segments, classes)
        train_set = PairedDataset(audio, labels, "training")
        eval_set = PairedDataset(eval_audio, eval_labels, "eval")
        train_labels = _labels_of(train_set, labels, "training")
        _labels_of(eval_set, eval_labels, "eval")
        if sampling == "classes":
            weights = class_balanced_weights(train_labels, labels.n_classes)
        else:
            weights = uniform_weights(len(train_set))
        eval_targets = torch.from_numpy(eval_set.targets(np.arange(len(eval_set)))).to(torch.int8)
        constant_map = float(mean_average_precision(torch.zeros(eval_targets.shape), eval_targets))

        def evaluate(student: Student, predictions: Tensor) -> Row:
            return {
                "eval_map": float(mean_average_precision(predictions, eval_targets)),
                "constant_map": constant_map,
            }

        run_training(
            "supervise",
            Objective(
                loss=BinaryCrossEntropy(),
                n_outputs=labels.n_classes,
                targets=train_set.targets,
                weights=weights,
                evaluate=evaluate,
                scores=SCORES,
            ),
            train_set,
            eval_set,
            student=student,
            pretrained=pretrained,
            config=config,
            outputs=outputs,
            runtime=runtime,
            context=context,
            name="supervise",
            summary=f"{labels.n_classes} classes",
            settings={
                "sampling": sampling,
                "labels": labels.digest(train_set.target_rows),
                "n_classes": labels.n_classes,
            },
        )


def _labels_of(dataset: PairedDataset, labels: LabelDataset, split: str) -> list[list[int]]:
    """Return the classes of each clip of a data set.

    Raises:
        SsondoError: If no clip has a label.
    """
    rows = [labels.labels[row] for row in dataset.target_rows]
    if not any(rows):
        raise SsondoError(f"none of the {len(rows)} {split} clips has a label; give segment lists with labels")
    log.info("%d of the %d %s clips have no label", sum(not row for row in rows), len(rows), split)
    return rows
