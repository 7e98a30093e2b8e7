"""How long `ssondo index` takes for segment lists of AudioSet's size: 2,084,320 rows into 520 shards.

    python benchmarks/index.py [--rows 2041789]

Labels are drawn at random, one to three of 527 for each clip, which is harder than AudioSet's. The seconds are
those of the command with its start.
"""

import argparse
import multiprocessing
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SIZES = {"unbalanced": 2_041_789, "balanced": 22_160, "eval": 20_371}
N_CLASSES = 527


def write_lists(folder: Path, sizes: dict[str, int]) -> None:
    """Segment lists and classes in AudioSet's form."""
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
    """Write the lists, run the command, print a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=SIZES["unbalanced"], help="of the unbalanced list")
    options = parser.parse_args()
    sizes = SIZES | {"unbalanced": options.rows}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # In a process of its own: a command has at least the memory of what starts it.
        writer = multiprocessing.get_context("spawn").Process(target=write_lists, args=(folder, sizes))
        writer.start()
        writer.join()
        assert writer.exitcode == 0
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [
            sys.executable,
            "-m",
            "ssondo",
            "index",
            "--train",
            folder / "balanced.csv",
            folder / "unbalanced.csv",
        ]
        command += ["--eval", folder / "eval.csv", "--classes", folder / "classes.csv", "--out", folder / "out"]
        command += ["--n-train-shards", "512", "--n-eval-shards", "8"]
        began = time.perf_counter()
        subprocess.run([str(word) for word in command], check=True)
        seconds = time.perf_counter() - began
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    import torch
    from models import machine

    print(
        f"{machine(torch.device('cpu'))}\n{sum(sizes.values()):,} rows: {seconds:.1f} s, "
        f"{spent:.1f} s of processor time"
    )


if __name__ == "__main__":
    main()
