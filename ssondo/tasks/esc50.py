"""ESC-50 (Piczak, 2015): 2,000 clips of 5 s, 50 classes of environmental sound, five official folds.

Layout: `meta/esc50.csv` and `audio/*.wav`, as in the archive ESC-50-master.zip.
"""

from pathlib import Path

from ssondo.tasks.task import Clip, Remote, Task, archive_root, encode_labels, read_rows

LICENCE = "CC BY-NC 3.0"
REMOTES = {"ESC-50-master.zip": Remote("https://github.com/karolpiczak/ESC-50/archive/refs/heads/master.zip")}


def load(*, path: Path, task: str) -> Task:
    """Read `meta/esc50.csv`.

    Args:
        path: the unpacked archive.
        task: its name in the config.
    """
    root = archive_root(path, "meta/esc50.csv", task)
    rows = read_rows(root / "meta/esc50.csv", ("filename", "fold", "target", "category"))
    names = {int(row["target"]): row["category"] for row in rows}
    classes = [names[target] for target in sorted(names)]
    clips = [
        Clip(
            Path(row["filename"]).stem,
            root / "audio" / row["filename"],
            encode_labels([row["category"]], classes),
            int(row["fold"]),
        )
        for row in rows
    ]
    return Task("accuracy", classes, clips)
