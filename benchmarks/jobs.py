"""Measure the speed of complete jobs, from shards on disk to files on disk, and how long the device waits.

    python benchmarks/jobs.py --sounds ../shared/data/esc50/audio
    python benchmarks/jobs.py --sounds ../shared/data/esc50/audio --device cuda --batch 120 --clips 4000 --draws 24000

The jobs are `ssondo embed` with MATPAC++ and `ssondo distill` with each student, as the workflow runs them, on repeated
clips of 10 s of real sound, FLAC at 32 kHz. Weights and teacher embeddings are random, because speed does not depend on
them. For `embed`, the speed of decoding and resampling alone is measured, too; for `distill` the last epoch counts,
because the first ones compile and warm up. The result is printed as Markdown.
"""

import argparse
import csv
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from models import TITLES, machine

from ssondo.audio.codec import encode_flac
from ssondo.audio.decoding import decode_file
from ssondo.audio.waveform import fit_end, resample_to, to_mono
from ssondo.distill.distill import distill
from ssondo.distill.training_config import Outputs, Runtime, TrainingConfig
from ssondo.storage.shards.audio import AudioShard, AudioShardWriter
from ssondo.storage.shards.embedding import EmbeddingShardWriter
from ssondo.students import ARCHITECTURES
from ssondo.system.device import PRECISIONS
from ssondo.teachers.embed import embed, n_workers, read_waveforms
from ssondo.teachers.vit import Matpac

RATE, CLIP_S, DIM = 32_000, 10.0, 3_840
MAX_RECORDINGS = 200


def recordings(sounds: Path) -> list[bytes]:
    """Encode clips of real sound, each of two recordings."""
    waveforms = []
    for path in sorted(sounds.glob("*.ogg"))[: 2 * MAX_RECORDINGS]:
        decoded = decode_file(path.read_bytes())
        waveforms.append(resample_to(to_mono(decoded.waveform), decoded.sample_rate, RATE))
    pairs = zip(waveforms[::2], waveforms[1::2], strict=False)
    return [encode_flac(fit_end(np.concatenate(pair), round(CLIP_S * RATE)), RATE) for pair in pairs]


def write_shards(folder: Path, name: str, blobs: list[bytes], n_clips: int) -> tuple[Path, Path]:
    """Write an audio shard and a shard of random embeddings."""
    audio, embeddings = folder / f"{name}.audio.h5", folder / f"{name}.embeddings.h5"
    rng = np.random.default_rng(0)
    ids = [f"{name}{row:06d}" for row in range(n_clips)]
    with AudioShardWriter(audio, sample_rate=RATE, settings={}) as shard:
        for row, clip_id in enumerate(ids):
            shard.add(clip_id, blobs[row % len(blobs)], duration_s=CLIP_S)
    settings = {"teacher": {"kind": "random"}}
    with EmbeddingShardWriter(
        embeddings, embedding_dim=DIM, settings=settings, checkpoint_sha256="", dtype="float16"
    ) as shard:
        for start in range(0, n_clips, 500):
            shard.add(ids[start : start + 500], rng.normal(size=(len(ids[start : start + 500]), DIM)).astype("f4"))
    return audio, embeddings


def measure_embed(audio: Path, folder: Path, options: argparse.Namespace) -> None:
    """Measure `ssondo embed`, and its decoding alone, and print rows of the table."""
    weights = folder / "matpac.pt"
    torch.manual_seed(0)
    torch.save(Matpac().state_dict(), weights)
    with AudioShard(audio) as shard:
        began = time.perf_counter()
        n = sum(1 for _ in read_waveforms(shard, Matpac().sample_rate, ahead=2 * options.batch))
        print(
            f"| decode and resample, {n_workers()} threads | {n / (time.perf_counter() - began):,.0f} | |", flush=True
        )
    for what in ("the first time", "again"):
        began = time.perf_counter()
        embed(
            audio=audio,
            out=folder / "embedded.h5",
            teacher={"kind": "matpac"},
            checkpoint=weights,
            batch_size=options.teacher_batch,
            device=options.device,
        )
        seconds = time.perf_counter() - began
        print(f"| `embed`, MATPAC++, {what}, {n} clips | {n / seconds:,.0f} | |", flush=True)


def measure_distill(
    name: str, train: tuple[Path, Path], evaluation: tuple[Path, Path], options: argparse.Namespace
) -> None:
    """Measure `ssondo distill` and print a row of the table."""
    with tempfile.TemporaryDirectory() as folder:
        history = Path(folder) / "history.csv"
        distill(
            audio=[train[0]],
            embeddings=[train[1]],
            eval_audio=[evaluation[0]],
            eval_embeddings=[evaluation[1]],
            student={"architecture": name},
            config=TrainingConfig(
                seed=0,
                epochs=options.epochs,
                samples_per_epoch=options.draws,
                batch_size=options.batch,
                learning_rate=8e-4,
                precision=options.precision,
            ),
            outputs=Outputs(out=Path(folder) / "student.ckpt", history=history, curves=Path(folder) / "curves.png"),
            runtime=Runtime(
                device=options.device,
                num_workers=options.workers,
                cache_mb=options.cache_mb,
                compile=options.compile,
                validate_every=options.epochs,
            ),
        )
        with history.open() as file:
            last = list(csv.DictReader(file))[-1]
    how = f"{TITLES[name]}{', compiled' if options.compile else ''}, {options.workers} threads"
    print(f"| `distill`, {how} | {float(last['clips_per_s']):,.0f} | {float(last['wait_share']):.0%} |", flush=True)


def main() -> None:
    """Write the shards, run the jobs, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sounds", type=Path, required=True, help="a folder of recordings, .ogg")
    parser.add_argument("--clips", type=int, default=64, help="number of clips in the shard")
    parser.add_argument("--draws", type=int, default=64, help="number of clips per epoch")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--teacher-batch", type=int, default=32)
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="threads that decode for training")
    parser.add_argument("--cache-mb", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=PRECISIONS, default="auto")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--students", nargs="*", choices=ARCHITECTURES, default=list(ARCHITECTURES), metavar="STUDENT")
    parser.add_argument("--no-embed", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        blobs = recordings(options.sounds)
        train = write_shards(folder, "train", blobs, options.clips)
        evaluation = write_shards(folder, "eval", blobs, max(2, options.clips // 20))
        print(f"{machine(torch.device(options.device))}. Batches of {options.batch} clips in training.\n")
        print("| job | clips/s | the device waits |\n|---|--:|--:|")
        if not options.no_embed:
            measure_embed(train[0], folder, options)
        for student in options.students:
            measure_distill(student, train, evaluation, options)


if __name__ == "__main__":
    main()
