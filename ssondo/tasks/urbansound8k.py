"""UrbanSound8K (Salamon et al., 2014): 8,732 clips of up to 4 s, ten classes, ten official folds.

The data set consists of `metadata/UrbanSound8K.csv` and `audio/fold1` to `audio/fold10`. The official folds must be
used: they keep the slices of one recording together.
"""

from pathlib import Path

from ssondo.tasks.files import Files
from ssondo.tasks.task import Clip, DatasetSize, Remote, Task, encode_labels

LICENCE = "CC BY-NC 4.0"
REMOTES = {
    "UrbanSound8K.tar.gz": Remote(
        "https://zenodo.org/records/1203745/files/UrbanSound8K.tar.gz",
        md5="9aa69802bbf37fb986f71ec1483a196e",
        size=6_023_741_708,
    )
}
SIZE = DatasetSize(
    n_classes=10, clips=dict(enumerate((873, 888, 925, 990, 936, 823, 838, 806, 816, 837), start=1)), clip_s=3.6
)
_LIST = "metadata/UrbanSound8K.csv"


def load(*, path: Path, task: str) -> Task:
    """Read `metadata/UrbanSound8K.csv`."""
    files = Files.find(path, task, lists=(_LIST,), folders=("audio",))
    rows = files.rows(_LIST, ("slice_file_name", "fold", "classID", "class"))
    classes = [name for _, name in sorted({(int(row["classID"]), row["class"]) for row in rows})]
    clips = [
        Clip(
            Path(row["slice_file_name"]).stem,
            files.audio(f"audio/fold{row['fold']}/{row['slice_file_name']}"),
            encode_labels([row["class"]], classes),
            int(row["fold"]),
        )
        for row in rows
    ]
    return Task("accuracy", classes, clips, official_size=SIZE)
