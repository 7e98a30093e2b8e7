"""Measure clips per second from encoded files to 32 kHz mono FLAC: ffmpeg, torchaudio, and `ssondo resample`.

    python benchmarks/resample.py --sounds ../shared/data/esc50/audio [--clips 384] [--repeats 3]

The clips are made of real recordings: 10 s, stereo, 48 kHz, half of them Opus in WEBM and half AAC in M4A, the formats
of YouTube. All methods run alternately in one run, on the same files and all cores; the fastest repeat counts.
"""

import argparse
import os
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import soundfile

from ssondo.audio.codec import encode_flac
from ssondo.audio.decoders import ffmpeg_binary
from ssondo.audio.decoding import decode_file
from ssondo.audio.waveform import resample_to, to_mono
from ssondo.audioset.resample import resample
from ssondo.storage.clip_location import ClipLocation, file_fingerprint
from ssondo.storage.shards.audio import AudioShard, AudioShardWriter

RATE, CLIP_S = 32_000, 10.0
_DISTINCT = 64


def make_clips(folder: Path, sounds: Path, n_clips: int) -> list[Path]:
    """Encode clips of two recordings each; after `_DISTINCT` clips they repeat under other names."""
    ffmpeg = ffmpeg_binary()
    assert ffmpeg is not None
    recordings = [path for path in sorted(sounds.iterdir()) if path.suffix == ".ogg"]
    made = []
    for n in range(min(n_clips, _DISTINCT)):
        parts = []
        for offset in (0, 1):
            decoded = decode_file(recordings[(2 * n + offset) % len(recordings)].read_bytes())
            parts.append(resample_to(to_mono(decoded.waveform), decoded.sample_rate, 48_000))
        mono = np.resize(np.concatenate(parts), 480_000)
        soundfile.write(folder / "source.wav", np.stack([mono, np.roll(mono, 240_000)], axis=1), 48_000)
        out, codec = (folder / f"{n:05d}.webm", "libopus") if n % 2 else (folder / f"{n:05d}.m4a", "aac")
        command = [ffmpeg, "-v", "error", "-y", "-i", str(folder / "source.wav"), "-c:a", codec, "-b:a", "128k"]
        subprocess.run([*command, str(out)], check=True)
        made.append(out)
    for n in range(_DISTINCT, n_clips):
        first = made[n % _DISTINCT]
        made.append(folder / f"{n:05d}{first.suffix}")
        made[-1].hardlink_to(first)
    return made


def by_ffmpeg(files: list[Path], out: Path) -> None:
    """Run one ffmpeg command per file, as many at once as there are cores, each writing a FLAC file."""
    ffmpeg = ffmpeg_binary()
    assert ffmpeg is not None

    def convert(file: Path) -> None:
        target = out / f"{file.stem}.flac"
        command = [ffmpeg, "-v", "error", "-y", "-threads", "1", "-i", str(file), "-ac", "1", "-ar", str(RATE)]
        subprocess.run([*command, "-sample_fmt", "s16", str(target)], check=True)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(convert, files))


def _by_torchaudio(file: Path) -> int:
    import torch
    from torchaudio.transforms import Resample

    torch.set_num_threads(1)
    decoded = decode_file(file.read_bytes())
    mono = torch.from_numpy(to_mono(decoded.waveform))
    if decoded.sample_rate not in _RESAMPLERS:
        _RESAMPLERS[decoded.sample_rate] = Resample(decoded.sample_rate, RATE, lowpass_filter_width=64)
    return len(encode_flac(_RESAMPLERS[decoded.sample_rate](mono).numpy(), RATE))


_RESAMPLERS: dict = {}


class ByTorchaudio:
    """The same steps as `ssondo resample`, but with the resampler of torchaudio and a filter of the same quality."""

    def __init__(self) -> None:
        self._pool = ProcessPoolExecutor(os.cpu_count(), get_context("forkserver"))

    def __call__(self, files: list[Path], out: Path) -> None:
        """Convert the files."""
        list(self._pool.map(_by_torchaudio, files))


def by_ssondo(files: list[Path], out: Path) -> None:
    """Run the verb on a fetched shard with the locations of the files; its worker processes are started anew."""
    with AudioShardWriter(out / "fetched.h5", sample_rate=0, settings={}, producer="fetch") as shard:
        for file in files:
            location = ClipLocation(str(file), "", file_fingerprint(file))
            shard.add(file.stem, location=location.to_shard())
    resample(
        audio=out / "fetched.h5",
        out=out / "audio.h5",
        sample_rate=RATE,
        clip_s=CLIP_S,
        n_workers=os.cpu_count() or 1,
    )
    with AudioShard(out / "audio.h5") as shard:
        assert len(shard.ok) == len(files)


def parts(files: list[Path]) -> dict[str, float]:
    """Measure milliseconds of processor time per clip of each step within a process."""
    spent = dict.fromkeys(("decoding", "resampling", "FLAC"), 0.0)
    for file in files:
        data = file.read_bytes()
        times = [time.process_time()]
        decoded = decode_file(data)
        mono = to_mono(decoded.waveform)
        times.append(time.process_time())
        at_rate = resample_to(mono, decoded.sample_rate, RATE)
        times.append(time.process_time())
        encode_flac(at_rate, RATE)
        times.append(time.process_time())
        for step, begin, end in zip(spent, times, times[1:], strict=False):
            spent[step] += 1000 * (end - begin) / len(files)
    return spent


def children_s() -> float:
    """Processor seconds of the programs that this process has run."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Make the clips, run each method, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sounds", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=384)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = make_clips(folder, options.sounds, options.clips)
        by_torchaudio = ByTorchaudio()
        by_torchaudio(files[: os.cpu_count()], folder)  # its processes import torch once
        ways: dict[str, Callable[[list[Path], Path], None]] = {
            "`ffmpeg`, one process per file": by_ffmpeg,
            "PyAV, torchaudio's resampler, FLAC": by_torchaudio,
            "`ssondo resample`": by_ssondo,
        }
        best = dict.fromkeys(ways, float("inf"))
        for _ in range(options.repeats):
            for way, function in ways.items():
                began = time.perf_counter()
                function(files, folder)
                best[way] = min(best[way], time.perf_counter() - began)
        few = files[:_DISTINCT]
        steps = min((parts(few) for _ in range(options.repeats)), key=lambda spent: sum(spent.values()))
        process_ms = float("inf")
        for _ in range(options.repeats):
            before = children_s()
            by_ffmpeg(few, folder)
            process_ms = min(process_ms, 1000 * (children_s() - before) / len(few))
    base = best["`ffmpeg`, one process per file"]
    print(f"{options.clips} clips, {os.cpu_count()} cores, the fastest of {options.repeats} repeats\n")
    print("| method | clips/s | relative to `ffmpeg` |\n|---|--:|--:|")
    for way, seconds in best.items():
        print(f"| {way} | {options.clips / seconds:.1f} | {base / seconds:.2f} |")
    print(
        f"\nms of processor time per clip: `ffmpeg` {process_ms:.1f}; in the process {sum(steps.values()):.1f}: "
        + ", ".join(f"{step} {ms:.1f}" for step, ms in steps.items())
    )


if __name__ == "__main__":
    main()
