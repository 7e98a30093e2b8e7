"""ESC-50 (Piczak, 2015): 2,000 clips of 5 s, 50 classes of environmental sound, five official folds.

The data set consists of `meta/esc50.csv` and `audio/*.wav`, as in the archive ESC-50-master.zip.
"""

from pathlib import Path

from ssondo.tasks.files import Files
from ssondo.tasks.task import Clip, DatasetSize, Remote, Task, encode_labels

LICENCE = "CC BY-NC 3.0"
# GitHub creates this archive on request, so its checksum is not stable.
REMOTES = {"ESC-50-master.zip": Remote("https://github.com/karolpiczak/ESC-50/archive/refs/heads/master.zip")}
SIZE = DatasetSize(n_classes=50, clips=dict.fromkeys(range(1, 6), 400), clip_s=5.0, download_gb=0.6)
_LIST = "meta/esc50.csv"


def load(*, path: Path, task: str) -> Task:
    """Read `meta/esc50.csv`."""
    files = Files.find(path, task, lists=(_LIST,), folders=("audio",))
    rows = files.rows(_LIST, ("filename", "fold", "target", "category"))
    classes = [name for _, name in sorted({(int(row["target"]), row["category"]) for row in rows})]
    clips = [
        Clip(
            Path(row["filename"]).stem,
            files.audio(f"audio/{row['filename']}"),
            encode_labels([row["category"]], classes),
            int(row["fold"]),
        )
        for row in rows
    ]
    return Task("accuracy", classes, clips, official_size=SIZE)
