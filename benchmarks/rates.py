"""Measure the rates that `ssondo plan` uses, on one core, and write ssondo/workflow/rates.csv and docs/RATES.md.

    OMP_NUM_THREADS=1 python benchmarks/rates.py [--sound FOLDER]

Clips have 10 s. FLOP are counted, not timed; the speeds of a GPU are the constants in `ON_GPU`. The compression of real
sound by FLAC and Opus is measured on the files of --sound; without this option, the previous values are kept.
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
from probe import measure_verb, synthetic

from ssondo.audio.codec import decode_mono, encode, encode_flac
from ssondo.audio.decoding import decode_file
from ssondo.audio.waveform import fit_end, resample_to, to_mono
from ssondo.cluster.kmeans import fit_centroids
from ssondo.storage.atomic_files import write_text
from ssondo.students import ARCHITECTURES
from ssondo.system.allocator import disable_malloc_trim
from ssondo.workflow.estimate import RATES

CLIP_S = 10.0
RATE = 32_000
ESTIMATES = [("mb_fetched", 0.16, "MB per clip", "estimate: 10 s of sound at YouTube's 128 kbit/s")]
# Results of benchmarks/jobs.py and benchmarks/models.py, see docs/BENCHMARKS.md. `make bench` does not measure them, so
# that it needs no GPU.
H200 = "NVIDIA H200, 16 cores"
ON_GPU = [
    ("gpu_embed_matpac", 181.0, f"measured: `ssondo embed` of 3,000 clips, 8 decoding threads, {H200}"),
    ("gpu_embed_m2d", 168.0, "estimate: the job of MATPAC++, scaled by the speeds of both models without decoding"),
    ("gpu_embed_mobilenetv3", 474.0, f"estimate: the rate at which 8 threads decode and resample, {H200}"),
    ("gpu_embed_dymn", 436.0, f"measured: without decoding, {H200}"),
    ("gpu_embed_eres2net", 474.0, f"estimate: the rate at which 8 threads decode and resample, {H200}"),
    ("gpu_train_mobilenetv3", 599.0, f"measured: one epoch of `ssondo distill`, batch size 120, {H200}"),
    ("gpu_train_dymn", 468.0, f"measured: 39 steps of `ssondo distill`, batch size 120, {H200}"),
    (
        "gpu_train_eres2net",
        358.0,
        "estimate: the training step alone plus 0.15 s per batch, the overhead of the other students' jobs",
    ),
]
Row = tuple[str, float, str, str]


class _Rates(Bench):
    """The benchmarks of benchmarks/models.py, whose results are collected instead of printed."""

    rows: list[Row]

    def row(self, name: str, what: str, batch: int, run: Any, flop: float | None) -> None:
        """Measure the processor time of `run` and collect its rate."""
        times = []
        for _ in range(self.options.repeats + 1):
            began = time.process_time()
            run()
            times.append(time.process_time() - began)
        rate = batch / min(times[1:])
        self.rows.append((f"{what}_{name}", rate, "clips/s per core", f"measured: {TITLES[name]}"))
        if flop:
            self.rows.append((f"gflop_{what}_{name}", flop / 1e9, "GFLOP per clip", "counted"))


def models(repeats: int) -> list[Row]:
    """Return the rates of teachers and students."""
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
    """Return the number of calls per second of processor time."""
    run()
    began, n = time.process_time(), 0
    while time.process_time() - began < seconds:
        run()
        n += 1
    return n / (time.process_time() - began)


def sound() -> list[Row]:
    """Return the rates of resampling, decoding and rendering."""
    rng = np.random.default_rng(0)
    tone = 0.2 * np.sin(np.arange(int(CLIP_S * 44_100)) * 0.05) + 0.02 * rng.normal(size=int(CLIP_S * 44_100))
    fetched = encode(tone.astype("f4"), 48_000, "opus")
    kept = encode_flac(fit_end(tone.astype("f4"), int(CLIP_S * RATE)), RATE)

    def resample() -> None:
        waveform, rate, _ = decode_file(fetched)
        encode_flac(fit_end(resample_to(to_mono(waveform), rate, RATE), int(CLIP_S * RATE)), RATE)

    how = "measured: Opus at 48 kHz to FLAC at 32 kHz"
    rows = [
        ("resample", speed(resample), "clips/s per core", how),
        ("decode", speed(lambda: decode_mono(kept, RATE)), "clips/s per core", "measured: FLAC at 32 kHz"),
    ]
    try:
        from ssondo.audioset.renderer import render_clip, ytid

        names = iter(ytid(i, 0) for i in range(10_000))
        rows.append(
            (
                "render",
                speed(lambda: render_clip(next(names), seconds=CLIP_S, seed=0)),
                "clips/s per core",
                "measured: a clip of the demo",
            )
        )
    except ModuleNotFoundError:
        pass
    return rows


def sizes(folder: Path | None, before: dict[str, Row]) -> list[Row]:
    """Return the sizes of real sound in FLAC and Opus, as shares of 16-bit PCM at 32 kHz."""
    if folder is None:
        return [before[name] for name in ("flac_share", "opus_share")]
    n = {"flac": 0, "opus": 0, "pcm16": 0}
    files = sorted(path for path in folder.iterdir() if path.stat().st_size > 1000)[::5]
    for path in files:
        waveform, rate, _ = decode_file(path.read_bytes())
        waveform = resample_to(to_mono(waveform), rate, RATE)
        for codec in n:
            n[codec] += len(encode(waveform, RATE, codec))
    how = f"measured: {len(files)} clips of environmental sound"
    return [(f"{codec}_share", n[codec] / n["pcm16"], "of 16-bit PCM", how) for codec in ("flac", "opus")]


def kmeans() -> Row:
    """Return the rate of k-means with 20,000 points of 3,840 dimensions and 50 clusters."""
    points = np.random.default_rng(0).normal(size=(20_000, 3_840)).astype("f4")
    began = time.process_time()
    fit_centroids(points, 50, seed=0, iterations=10, restarts=1)
    gflop = 2e-9 * points.size * 50 * 10
    return (
        "kmeans_gflops",
        gflop / (time.process_time() - began),
        "GFLOP/s per core",
        "measured: 10 iterations, including the initial centroids",
    )


def probe() -> Row:
    """Return the processor time of a probe with the settings of config.yaml."""
    _, cpu, _ = measure_verb(*synthetic(33_334, 960, 11))
    return "probe_core_s", cpu, "core seconds", "measured: 20,000 clips x 960 into 11 classes, 5 seeds x 12 grid points"


def markdown(rows: list[Row]) -> str:
    """Return the rates as a page in Markdown."""
    lines = [
        "# Rates that `ssondo plan` uses",
        "",
        "`make bench` (benchmarks/rates.py) writes this page. Clips have 10 s; speeds are per core or per GPU.",
        "",
        "| name | value | unit | method |",
        "|---|--:|---|---|",
        *(f"| {name} | {value:.4g} | {unit} | {how} |" for name, value, unit, how in rows),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure all rates and write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sound", type=Path, help="folder of sound files")
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
    rows += [(name, rate, "clips/s per GPU", how) for name, rate, how in ON_GPU]
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
