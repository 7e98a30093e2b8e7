"""Training of a student: what distillation and the supervised baseline share.

To use several GPUs, run the same command under torchrun: `torchrun --nproc-per-node 4 -m ssondo distill ...`.
Batch size, learning rate and length of an epoch refer to all GPUs together, and so does the loss: every
process computes it from all outputs of the batch.
"""

import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from ssondo.distill.datasets import PairedDataset
from ssondo.distill.distributed import DistributedContext
from ssondo.distill.log_mel_cache import LogMelCache
from ssondo.distill.prepare_model import to_device
from ssondo.distill.trainer import Objective, Trainer, TrainingData
from ssondo.distill.training_config import Outputs, Runtime, TrainingConfig
from ssondo.distill.training_log import Row, TrainingLogger, write_curves
from ssondo.distill.training_state import fingerprint, resume_path
from ssondo.storage.atomic_files import clip_list_digest, file_digest
from ssondo.students.checkpoint import save_student
from ssondo.students.student import Student, build_student
from ssondo.system.hardware import describe_machine
from ssondo.system.prefetch import prefetch

log = logging.getLogger(__name__)


def run_training(
    verb: str,
    objective: Objective,
    train_set: PairedDataset,
    eval_set: PairedDataset,
    *,
    student: Mapping[str, Any],
    pretrained: Path | None,
    config: TrainingConfig,
    outputs: Outputs,
    runtime: Runtime,
    context: DistributedContext,
    name: str,
    summary: str,
    settings: Mapping[str, Any],
    provenance: Mapping[str, Any] | None = None,
) -> list[Row]:
    """Train a student, or resume its training, and write its checkpoint.

    Args:
        verb: Verb that trains; the code of its module determines the result.
        objective: What the student learns.
        train_set: Training clips.
        eval_set: Clips on which the student is evaluated.
        student: Architecture and settings of the student, see `build_student`.
        pretrained: Path of pretrained weights of the backbone; None for random weights.
        config: Settings of the optimisation.
        outputs: Files that are written.
        runtime: Use of the machine.
        context: This process and its device.
        name: Beginning of the training's name in logs and figures; the architecture follows.
        summary: Description of the training in the last log message and the figure.
        settings: Further plain values that determine the result, written to the provenance.
        provenance: Further plain values for the provenance.

    Returns:
        One row of metrics per epoch.

    Raises:
        SsondoError: If a setting or a file cannot be used, or the loss is not finite.
        TransientError: After SIGTERM, once the state is saved.
    """
    settings = {
        **settings,
        "pretrained": None if pretrained is None else file_digest(pretrained),
        "audio": train_set.audio.digests,
    }
    model = to_device(
        build_student(student, n_outputs=objective.n_outputs, seed=config.seed, pretrained=pretrained), context
    )
    name = f"{name} {model.settings['architecture']}"
    summary = f"{summary}, seed {config.seed}"

    log_mels = make_log_mel_cache(train_set, model, context, runtime, name, objective.weights)
    eval_log_mels = make_log_mel_cache(eval_set, model, context, runtime, name, used_mb=log_mels.cached_mb)
    data = TrainingData(log_mels, objective, config, context)

    def evaluate() -> Row:
        predictions = predict(model, eval_log_mels, config.batch_size, runtime.num_workers, context)
        return objective.evaluate(model, predictions)

    state_path = resume_path(outputs.out)
    trainer = Trainer(
        model,
        objective.loss,
        data,
        evaluate,
        config,
        context=context,
        runtime=runtime,
        state_path=state_path,
        fingerprint=fingerprint(model, objective.loss, config, verb, **settings),
        logger=TrainingLogger(outputs, name=name, n_epochs=config.epochs, scores=objective.scores),
    )
    history = trainer.run()

    if not context.is_main:
        return history
    write_curves(outputs.curves, history, f"{name}, {summary}", objective.scores)
    save_student(
        outputs.out,
        model,
        {
            "verb": verb,
            "config": asdict(config),
            **settings,
            **(provenance or {}),
            "clip_list_sha256": clip_list_digest(train_set.clip_ids),
            "environment": describe_machine(str(context.device), context.world_size),
        },
    )
    state_path.unlink(missing_ok=True)
    last = history[-1]
    scores = ", ".join(f"{label} {last[column]:.3f}" for column, label in objective.scores.items())
    log.info("%s: %s, %d steps, %s, %.0f s -> %s", name, summary, last["step"], scores, last["seconds"], outputs.out)
    return history


def make_log_mel_cache(
    dataset: PairedDataset,
    student: Student,
    context: DistributedContext,
    runtime: Runtime,
    name: str,
    weights: np.ndarray | None = None,
    used_mb: float = 0,
) -> LogMelCache:
    """Return the log-mels of a data set's clips for a student on its device.

    The cache holds at most `runtime.cache_mb` without the `used_mb` of other caches, and first the clips of the
    largest `weights`, which are the relative probabilities with which they are drawn.
    """
    dataset.audio.check_sample_rate(student.sample_rate)
    return LogMelCache(
        dataset.audio,
        dataset.rows,
        student.log_mel,
        device=context.device,
        cache_mb=runtime.cache_mb - used_mb,
        num_workers=runtime.num_workers,
        name=name if context.is_main else None,
        weights=weights,
    )


@torch.no_grad()
def predict(
    student: Student, log_mels: LogMelCache, batch_size: int, num_workers: int, context: DistributedContext
) -> Tensor:
    """Return the outputs of a student in evaluation mode, float32, on the CPU, shape (n_clips, n_outputs)."""
    own = context.local_slice(np.arange(len(log_mels)))
    chunks = np.array_split(own, -(-len(own) // batch_size)) if len(own) else []
    outputs = [
        student(log_mels.to_device(batch)).float().cpu()
        for batch in prefetch(lambda i: log_mels.read(chunks[i]), range(len(chunks)), num_workers)
    ]
    local = torch.cat(outputs) if outputs else torch.zeros(0, student.settings["n_outputs"])
    if context.world_size == 1:
        return local
    slices: list[Any] = [None] * context.world_size
    dist.all_gather_object(slices, local.numpy())
    return torch.from_numpy(np.concatenate(slices))
