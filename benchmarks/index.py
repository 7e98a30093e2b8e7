"""Time and peak memory of `ssondo index` for segment lists of AudioSet's size: 2,084,320 rows into 520 shards.

    python benchmarks/index.py [--rows 2041789]

Each clip has one to three random labels of 527 classes. These give more distinct label sets than AudioSet's own and
are therefore slower. The reported time includes the start of the command.
"""

import argparse
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SIZES = {"unbalanced": 2_041_789, "balanced": 22_160, "eval": 20_371}
N_CLASSES = 527


def write_lists(folder: Path, sizes: dict[str, int]) -> None:
    """Write segment lists and a class list in the form of AudioSet."""
    rng = np.random.default_rng(0)
    mids = [f"/m/{n:06x}" for n in range(N_CLASSES)]
    (folder / "classes.csv").write_text(
        "index,mid,display_name\n" + "".join(f"{n},{mid},class {n}\n" for n, mid in enumerate(mids))
    )
    for name, n_rows in sizes.items():
        labels, counts = rng.integers(N_CLASSES, size=(n_rows, 3)).tolist(), rng.integers(1, 4, size=n_rows).tolist()
        with (folder / f"{name}.csv").open("w") as file:
            file.write("# one\n# two\n# YTID, start_seconds, end_seconds, positive_labels\n")
            for row, (drawn, count) in enumerate(zip(labels, counts, strict=True)):
                positive = ",".join(dict.fromkeys(mids[label] for label in drawn[:count]))
                file.write(f'{name[0]}{row:010x}, {row % 600}.000, {row % 600 + 10}.000, "{positive}"\n')


def main() -> None:
    """Write the lists, run the command and print time, processor time and peak memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=SIZES["unbalanced"], help="Number of rows of the unbalanced list.")
    options = parser.parse_args()
    sizes = SIZES | {"unbalanced": options.rows}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # In another process: the peak memory of a command is at least that of the process that starts it.
        writer = multiprocessing.get_context("spawn").Process(target=write_lists, args=(folder, sizes))
        writer.start()
        writer.join()
        assert writer.exitcode == 0
        lists = {
            "--train": [folder / "balanced.csv", folder / "unbalanced.csv"],
            "--eval": [folder / "eval.csv"],
            "--classes": [folder / "classes.csv"],
        }
        command: list[str | Path] = [sys.executable, "-m", "ssondo", "index", "--out", folder / "out"]
        command += ["--n-train-shards", "512", "--n-eval-shards", "8"]
        for option, paths in lists.items():
            command += [option, *paths]
        began = time.perf_counter()
        process = subprocess.Popen(command)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
    import torch
    from models import machine

    print(
        f"{machine(torch.device('cpu'))}\n{sum(sizes.values()):,} rows: {seconds:.1f} s, "
        f"{usage.ru_utime + usage.ru_stime:.1f} s of processor time, {usage.ru_maxrss / 2**10:,.0f} MiB peak memory"
    )


if __name__ == "__main__":
    main()
