"""UrbanSound8K (Salamon et al., 2014): 8,732 clips of up to 4 s, ten classes, ten official folds.

Layout: `metadata/UrbanSound8K.csv` and `audio/fold1` to `audio/fold10`. The folds must not be
drawn anew: slices of one recording lie in one fold.
"""

from pathlib import Path

from ssondo.tasks.task import Clip, Remote, Task, archive_root, encode_labels, read_rows

LICENCE = "CC BY-NC 4.0"
REMOTES = {
    "UrbanSound8K.tar.gz": Remote(
        "https://zenodo.org/records/1203745/files/UrbanSound8K.tar.gz", md5="9aa69802bbf37fb986f71ec1483a196e"
    )
}


def load(*, path: Path, task: str) -> Task:
    """Read `metadata/UrbanSound8K.csv`.

    Args:
        path: the unpacked archive.
        task: its name in the config.
    """
    root = archive_root(path, "metadata/UrbanSound8K.csv", task)
    rows = read_rows(root / "metadata/UrbanSound8K.csv", ("slice_file_name", "fold", "classID", "class"))
    names = {int(row["classID"]): row["class"] for row in rows}
    classes = [names[class_id] for class_id in sorted(names)]
    clips = [
        Clip(
            Path(row["slice_file_name"]).stem,
            root / "audio" / f"fold{row['fold']}" / row["slice_file_name"],
            encode_labels([row["class"]], classes),
            int(row["fold"]),
        )
        for row in rows
    ]
    return Task("accuracy", classes, clips)
