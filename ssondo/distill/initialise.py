"""Students that have learned nothing: the floor that trained ones are compared with."""

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
from ssondo.students.student import Student, build_student
from ssondo.system.hardware import describe_machine

log = logging.getLogger(__name__)


def _measure_statistics(student: Student, audio: list[Path], n_batches: int, batch_size: int, seed: int) -> None:
    """Measure what batch norms divide by, on training clips drawn evenly; the weights stay random."""
    clips = AudioDataset(audio)
    if clips.sample_rate != student.sample_rate:
        raise SsondoError(
            f"the clips have {clips.sample_rate} Hz and the student takes {student.sample_rate}; "
            f"make them with audioset.sample_rate: {student.sample_rate}"
        )
    sampler = Sampler(uniform_weights(len(clips.clip_ids)), seed=seed, batch_size=batch_size)

    def log_mels() -> Iterator[Tensor]:
        for step in range(n_batches):
            waveforms = torch.from_numpy(clips.read(sampler.draw(0, step)))
            yield student.log_mel(waveforms.float() / 32768)

    with torch.no_grad():
        update_bn(student, log_mels())


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
    """Write a student that has learned nothing: the floor row of the tables.

    Where trained students have their batch norms' statistics measured at the end, this one has too:
    without, a deep network of random weights puts all clips in one place and the floor is no floor.

    Args:
        student: architecture, window_s and settings of the architecture, e.g. width_mult.
        seed: of the weights; distill and supervise start from the same ones.
        out: the student's checkpoint.
        n_outputs: size of the mapping head's output, which nothing downstream sees.
        pretrained: pretrained weights of the backbone.
        audio: audio shards of the training clips; needed if bn_update_batches is above 0.
        bn_update_batches: batches of training clips that batch norms are measured on; 0 for none.
        batch_size: clips in such a batch.

    Raises:
        SsondoError: if the student's settings are not known, or there are no clips to measure on, or they have another
            sample rate than the student.
    """
    built = build_student(student, n_outputs=n_outputs, seed=seed, pretrained=pretrained)
    if bn_update_batches:
        if not audio:
            raise SsondoError(f"initialise: bn_update_batches {bn_update_batches} needs audio shards, give --audio")
        _measure_statistics(built, audio, bn_update_batches, batch_size, seed)
    provenance = {
        "verb": "initialise",
        "seed": seed,
        "pretrained": None if pretrained is None else pretrained.name,
        "bn_update_batches": bn_update_batches,
        "environment": describe_machine(),
    }
    save_student(out, built, provenance)
    log.info(
        "initialise %s: %s parameters, seed %d -> %s",
        built.settings["architecture"],
        f"{built.n_parameters:,}",
        seed,
        out,
    )
