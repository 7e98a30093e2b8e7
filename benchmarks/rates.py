"""Measure the rates that `ssondo plan` counts with, on one core, and write ssondo/rates.csv
and docs/RATES.md.

    OMP_NUM_THREADS=1 python benchmarks/rates.py [--sound FOLDER]

Clips of 10 s. FLOP are counted, not timed; speeds of a GPU are those of the one that `ON_GPU` names.
How small FLAC and Opus make real sound is measured on the files of --sound, and kept as it was without it.
"""

import argparse
import csv
import io
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from models import TITLES, Bench, machine
from probe import made_up, whole_command

from ssondo.audio.codec import decode_flac_mono, encode, encode_flac
from ssondo.audio.decoding import decode
from ssondo.audio.waveform import fit_end, resample_to, to_mono
from ssondo.cluster.kmeans import fit_centroids
from ssondo.storage.atomic_files import write_text
from ssondo.students import ARCHITECTURES
from ssondo.system.allocator import disable_malloc_trim
from ssondo.workflow.estimate import RATES

CLIP_S = 10.0
RATE = 32_000
ESTIMATES = [("mb_fetched", 0.16, "MB a clip", "estimate: 10 s of sound at YouTube's 128 kbit/s")]
# From benchmarks/jobs.py and benchmarks/models.py, see docs/BENCHMARKS.md; no part of `make bench`, which needs no GPU.
H200 = "NVIDIA H200, 16 cores"
ON_GPU = [
    ("gpu_embed_matpac", 181.0, f"measured: `ssondo embed` of 3,000 clips, 8 threads that decode, {H200}"),
    ("gpu_embed_m2d", 168.0, "estimate: MATPAC++'s job, by how fast both are without decoding"),
    ("gpu_embed_mobilenetv3", 474.0, f"estimate: what 8 threads decode and resample, {H200}"),
    ("gpu_embed_dymn", 436.0, f"measured: without decoding, {H200}"),
    ("gpu_embed_eres2net", 474.0, f"estimate: what 8 threads decode and resample, {H200}"),
    ("gpu_train_mobilenetv3", 599.0, f"measured: an epoch of `ssondo distill`, batches of 120, {H200}"),
    ("gpu_train_dymn", 468.0, f"measured: 39 steps of `ssondo distill`, batches of 120, {H200}"),
    (
        "gpu_train_eres2net",
        358.0,
        "estimate: its step alone, and the 0.15 s a batch that the others' jobs add to theirs",
    ),
]
Row = tuple[str, float, str, str]


class _Rates(Bench):
    """The rows of benchmarks/models.py, kept."""

    rows: list[Row]

    def row(self, name: str, what: str, batch: int, run: Any, flop: float | None) -> None:
        """Time `run` by what it needs of the processor, and keep its rate."""
        times = []
        for _ in range(self.options.repeats + 1):
            began = time.process_time()
            run()
            times.append(time.process_time() - began)
        rate = batch / min(times[1:])
        self.rows.append((f"{what}_{name}", rate, "clips/s and core", f"measured: {TITLES[name]}"))
        if flop:
            self.rows.append((f"gflop_{what}_{name}", flop / 1e9, "GFLOP a clip", "counted"))


def models(repeats: int) -> list[Row]:
    """Teachers and students."""
    options = argparse.Namespace(
        device="cpu", precision="auto", compile=False, repeats=repeats, batch=4, teacher_batch=1, seconds=CLIP_S
    )
    bench = _Rates(options)
    bench.rows = []
    for teacher in ("matpac", "m2d", "yamnet"):
        bench.teacher(teacher)
    for student in ARCHITECTURES:
        bench.student(student)
    return bench.rows


def speed(run: Any, seconds: float = 2.0) -> float:
    """Calls a second of processor time."""
    run()
    began, n = time.process_time(), 0
    while time.process_time() - began < seconds:
        run()
        n += 1
    return n / (time.process_time() - began)


def sound() -> list[Row]:
    """Resampling, decoding, rendering."""
    rng = np.random.default_rng(0)
    tone = 0.2 * np.sin(np.arange(int(CLIP_S * 44_100)) * 0.05) + 0.02 * rng.normal(size=int(CLIP_S * 44_100))
    fetched = encode(tone.astype("f4"), 48_000, "opus")
    kept = encode_flac(fit_end(tone.astype("f4"), int(CLIP_S * RATE)), RATE)

    def resample() -> None:
        waveform, rate = decode(fetched)
        encode_flac(fit_end(resample_to(to_mono(waveform), rate, RATE), int(CLIP_S * RATE)), RATE)

    how = "measured: Opus at 48 kHz to FLAC at 32 kHz"
    rows = [
        ("resample", speed(resample), "clips/s and core", how),
        ("decode", speed(lambda: decode_flac_mono(kept)), "clips/s and core", "measured: FLAC at 32 kHz"),
    ]
    try:
        from ssondo.audioset.renderer import render_clip, ytid

        names = iter(ytid(i, 0) for i in range(10_000))
        rows.append(
            (
                "render",
                speed(lambda: render_clip(next(names), seconds=CLIP_S, seed=0)),
                "clips/s and core",
                "measured: the demo's",
            )
        )
    except ModuleNotFoundError:
        pass
    return rows


def sizes(folder: Path | None, before: dict[str, Row]) -> list[Row]:
    """How small FLAC and Opus make real sound, as shares of 16 bit PCM at 32 kHz."""
    if folder is None:
        return [before[name] for name in ("flac_share", "opus_share")]
    n = {"flac": 0, "opus": 0, "pcm16": 0}
    files = sorted(path for path in folder.iterdir() if path.stat().st_size > 1000)[::5]
    for path in files:
        waveform, rate = decode(path.read_bytes())
        waveform = resample_to(to_mono(waveform), rate, RATE)
        for codec in n:
            n[codec] += len(encode(waveform, RATE, codec))
    how = f"measured: {len(files)} clips of environmental sound"
    return [(f"{codec}_share", n[codec] / n["pcm16"], "of 16 bit PCM", how) for codec in ("flac", "opus")]


def kmeans() -> Row:
    """Products of a Lloyd iteration, of fitting 20,000 points of 3,840 dimensions into 50 clusters."""
    points = np.random.default_rng(0).normal(size=(20_000, 3_840)).astype("f4")
    began = time.process_time()
    fit_centroids(points, 50, seed=0, iterations=10, restarts=1)
    gflop = 2e-9 * points.size * 50 * 10
    return (
        "kmeans_gflops",
        gflop / (time.process_time() - began),
        "GFLOP/s and core",
        "measured: 10 iterations, all told",
    )


def probe() -> Row:
    """A probe with the settings of config.yaml."""
    _, cpu, _ = whole_command(*made_up(33_334, 960, 11))
    return "probe_core_s", cpu, "s of a core", "measured: 20,000 clips x 960 into 11 classes, 5 seeds x 12 grid points"


def markdown(rows: list[Row]) -> str:
    """The rates for reading."""
    lines = [
        "# Rates that `ssondo plan` counts with",
        "",
        "Made by `make bench` (benchmarks/rates.py). Clips of 10 s; speeds are of one core, or of one GPU.",
        "",
        "| name | value | unit | how |",
        "|---|--:|---|---|",
        *(f"| {name} | {value:.4g} | {unit} | {how} |" for name, value, unit, how in rows),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure everything and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sound", type=Path, help="a folder of sound files")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RATES)
    options = parser.parse_args()
    torch.set_num_threads(1)
    disable_malloc_trim()
    before: dict[str, Row] = {}
    if options.out.is_file():
        for name, value, unit, how in list(csv.reader(options.out.open(encoding="utf-8")))[1:]:
            before[name] = (name, float(value), unit, how)
    where = ("threads", torch.get_num_threads(), "of this machine", machine(torch.device("cpu")))
    rows = [where, *sound(), *sizes(options.sound, before), *models(options.repeats), kmeans(), probe(), *ESTIMATES]
    rows += [(name, rate, "clips/s and GPU", how) for name, rate, how in ON_GPU]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["name", "value", "unit", "how"])
    writer.writerows([name, f"{value:.4g}", unit, how] for name, value, unit, how in rows)
    write_text(options.out, text.getvalue())
    if options.out == RATES:
        write_text(Path(__file__).parents[1] / "docs" / "RATES.md", markdown(rows))
    print(f"{machine(torch.device('cpu'))} -> {options.out}")


if __name__ == "__main__":
    main()
