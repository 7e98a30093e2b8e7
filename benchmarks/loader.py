"""Clips a second that the training loader reads in weighted random order, over numbers of shards.

    python benchmarks/loader.py --sounds ../shared/data/esc50/audio [--clips 100000] [--shards 1 8 32] [--clip-s 0.5]

The clips are cut from real recordings, 32 kHz FLAC. They are short so that 100,000 of them fit on a disk; the order
is that of the training's sampler with clusters of very different sizes. The share of decoding is that of the same
blobs, decoded from memory in the same run.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np

from ssondo.audio.codec import decode_pcm16, encode_flac
from ssondo.audio.decoding import decode_file
from ssondo.audio.waveform import resample_to, to_mono
from ssondo.distill.datasets import AudioDataset
from ssondo.distill.sampler import Sampler, balanced_weights
from ssondo.storage.shards.audio import AudioShardWriter
from ssondo.system.prefetch import prefetch

RATE, BATCH = 32_000, 120


def cut(sounds: Path, clip_s: float, n: int) -> list[bytes]:
    """Encoded clips of real sound."""
    size = round(clip_s * RATE)
    blobs: list[bytes] = []
    for path in sorted(sounds.glob("*.ogg")):
        found = decode_file(path.read_bytes())
        mono = resample_to(to_mono(found.waveform), found.sample_rate, RATE)
        for start in range(0, len(mono) - size + 1, size):
            blobs.append(encode_flac(mono[start : start + size], RATE))
            if len(blobs) == n:
                return blobs
    return blobs


def written(folder: Path, blobs: list[bytes], n_clips: int, n_shards: int) -> list[Path]:
    """So many clips in so many shards; the recordings repeat."""
    paths = []
    for number, rows in enumerate(np.array_split(np.arange(n_clips), n_shards)):
        path = folder / f"train-{number:04d}.h5"
        with AudioShardWriter(path, sample_rate=RATE, settings={}) as shard:
            for row in rows:
                shard.add(f"clip{row:07d}", blobs[row % len(blobs)])
        paths.append(path)
    return paths


def main() -> None:
    """Write the shards, read them, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sounds", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=100_000)
    parser.add_argument("--shards", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--clip-s", type=float, default=0.5)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    options = parser.parse_args()
    blobs = cut(options.sounds, options.clip_s, 2_000)
    # Clusters as k-means leaves them: the largest a hundred times the smallest.
    clusters = np.random.default_rng(0).choice(50, options.clips, p=(p := np.geomspace(1, 100, 50)) / p.sum())
    sampler = Sampler(balanced_weights(clusters), seed=0, batch_size=BATCH)
    print(f"{options.clips:,} clips of {options.clip_s:g} s drawn in batches of {BATCH}, {options.workers} threads\n")
    print("| shards | clips/s | ms a clip | of it decoding |\n|--:|--:|--:|--:|")
    for n_shards in options.shards:
        with tempfile.TemporaryDirectory() as name:
            clips = AudioDataset(written(Path(name), blobs, options.clips, n_shards))
            steps = range(options.clips // BATCH)
            began, spent = time.perf_counter(), time.process_time()
            for batch in prefetch(lambda step, c=clips: c.read(sampler.draw(0, step)), steps, options.workers):
                assert len(batch) == BATCH
            seconds, cpu = time.perf_counter() - began, time.process_time() - spent
            n_read = len(steps) * BATCH
        began = time.process_time()
        for n in range(0, n_read, 20):
            decode_pcm16(blobs[n % len(blobs)], RATE)
        decoding = (time.process_time() - began) * 20
        print(
            f"| {n_shards} | {n_read / seconds:,.0f} | {1000 * cpu / n_read:.2f} | {min(1.0, decoding / cpu):.0%} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
