"""What threads that decode cost the thread that launches a GPU's work: both need Python's lock.

    python benchmarks/launch.py --sounds ../shared/data/esc50/audio [--threads 1 4 15]

One thread adds one to four numbers again and again, which takes microseconds, as the launch of a small layer does;
beside it others decode clips of 5 s, as the training's loader does: from a file in memory, and from a Python object,
which is what the loader takes where the system has no such files. All in one run, turn about, the median of the
repeats. With more threads than cores a part of the time is the wait for a core; "share of cores" is how long it would
take if that were all.
"""

import argparse
import os
import statistics
import threading
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

import torch
from loader import RATE, cut
from models import machine

from ssondo.audio.codec import decode_pcm16

CLIP_S, SECONDS = 5.0, 1.0
_MEMORY_FILE = os.memfd_create


def _no_memory_file(name: str) -> int:
    raise OSError(name)


def launched() -> float:
    """Microseconds of a small operation."""
    numbers, n, began = torch.zeros(4), 0, time.perf_counter()
    while time.perf_counter() - began < SECONDS:
        for _ in range(100):
            numbers.add_(1)
        n += 100
    return 1e6 * (time.perf_counter() - began) / n


def beside(blobs: list[bytes], n_threads: int, memory_file: Callable[[str], int]) -> tuple[float, float]:
    """Microseconds of a small operation, and the clips a second that threads decode meanwhile."""
    os.memfd_create = memory_file  # type: ignore[assignment]
    stop, n_done = threading.Event(), [0] * n_threads

    def work(number: int) -> None:
        for row in count(number):
            if stop.is_set():
                return
            decode_pcm16(blobs[row % len(blobs)], RATE)
            n_done[number] += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(n_threads)]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    before, began = sum(n_done), time.perf_counter()
    microseconds = launched()
    rate = (sum(n_done) - before) / (time.perf_counter() - began)
    stop.set()
    for thread in threads:
        thread.join()
    os.memfd_create = _MEMORY_FILE
    return microseconds, rate


def main() -> None:
    """Measure turn about, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sounds", type=Path, required=True, help="a folder of recordings, .ogg")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 4, 15])
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    blobs = cut(options.sounds, CLIP_S, 40)
    print(f"{machine(torch.device('cpu'))}.\n")
    alone = statistics.median(launched() for _ in range(options.repeats))
    n_cores = len(os.sched_getaffinity(0))
    print(
        f"Alone: {alone:.1f} µs.\n\n| threads | share of cores | file in memory | clips/s | Python object | clips/s |"
    )
    print("|--:|--:|--:|--:|--:|--:|")
    for n in options.threads:
        found = [[beside(blobs, n, way) for way in (_MEMORY_FILE, _no_memory_file)] for _ in range(options.repeats)]
        cells = [
            f"{statistics.median(run[way][part] for run in found):,.{1 - part}f}" for way in (0, 1) for part in (0, 1)
        ]
        print(f"| {n} | {alone * max(1, (n + 1) / n_cores):.1f} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
