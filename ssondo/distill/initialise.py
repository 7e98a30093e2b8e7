"""Untrained students: the baseline with random weights."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssondo.distill.datasets import AudioDataset
from ssondo.distill.sampler import Sampler, uniform_weights
from ssondo.distill.update_bn import update_bn
from ssondo.errors import SsondoError
from ssondo.students.checkpoint import save_student
from ssondo.students.student import build_student
from ssondo.system.hardware import describe_machine

log = logging.getLogger(__name__)


def initialise(
    *,
    student: dict[str, Any],
    seed: int,
    out: Path,
    n_outputs: int = 3840,
    pretrained: Path | None = None,
    audio: list[Path] | None = None,
    bn_update_batches: int = 0,
    batch_size: int = 64,
) -> None:
    """Write an untrained student: the random baseline of the tables.

    If the statistics of batch normalisation are recomputed at the end of trainings, they must be computed here
    too: without them a deep network with random weights maps all clips to one point.

    Args:
        student: Architecture, window_s and settings of the architecture such as width_mult, as JSON.
        seed: Seed of the weights; distill and supervise start from the same weights.
        out: Path of the student checkpoint that is written.
        n_outputs: Number of outputs of the mapping head, which embeddings do not depend on.
        pretrained: Path of pretrained weights of the backbone; without it the weights are random.
        audio: Audio shards of the training clips; required if bn_update_batches is above 0.
        bn_update_batches: Number of batches of training clips on which the statistics of batch normalisation are
            computed. With 0 they are not computed.
        batch_size: Number of clips in each of these batches.

    Raises:
        SsondoError: If a setting of the student does not exist, if the audio shards are missing, or if their sample
            rate is not that of the student.
    """
    model = build_student(student, n_outputs=n_outputs, seed=seed, pretrained=pretrained)
    if bn_update_batches:
        if not audio:
            raise SsondoError(f"bn_update_batches is {bn_update_batches}, which needs audio shards; add --audio")
        clips = AudioDataset(audio)
        clips.check_sample_rate(model.sample_rate)
        sampler = Sampler(uniform_weights(len(clips.clip_ids)), seed=seed, batch_size=batch_size)

        def log_mels() -> Iterator[Tensor]:
            for step in range(bn_update_batches):
                waveforms = torch.from_numpy(clips.read(sampler.draw(0, step)))
                yield model.log_mel(waveforms.float() / 32768)

        update_bn(model, log_mels())
    provenance = {
        "verb": "initialise",
        "seed": seed,
        "pretrained": None if pretrained is None else pretrained.name,
        "bn_update_batches": bn_update_batches,
        "environment": describe_machine(),
    }
    save_student(out, model, provenance)
    architecture = model.settings["architecture"]
    log.info("initialise %s: %s parameters, seed %d -> %s", architecture, f"{model.n_parameters:,}", seed, out)
