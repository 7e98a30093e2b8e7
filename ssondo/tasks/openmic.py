"""OpenMIC-2018 (Humphrey et al., 2018): 20,000 clips of 10 s, each labelled for some of twenty instruments.

The archive openmic-2018-v1.0.0.tgz holds `class-map.json`, `openmic-2018-aggregated-labels.csv`,
`partitions/split01_{train,test}.csv` and `audio/000/000046_3840.ogg`. The labels are read from the CSV from which the
authors computed `openmic-2018.npz` (`Y_true`, `Y_mask`), because that file contains a pickle, which can run code when
it is loaded. An instrument without a row for a clip is unknown; one with a relevance of 0.5 or more is present. There
is no official validation split, so one is drawn from the training clips.
"""

from pathlib import Path

import numpy as np

from ssondo.errors import SsondoError
from ssondo.tasks.files import Files
from ssondo.tasks.task import Clip, DatasetSize, Remote, Task, draw_valid

LICENCE = "CC BY 4.0; each clip has its own Creative Commons licence"
REMOTES = {
    "openmic-2018-v1.0.0.tgz": Remote(
        "https://zenodo.org/records/1432913/files/openmic-2018-v1.0.0.tgz",
        md5="e4ccf187e2bb5ab2e115416e8aafe7f4",
        size=2_623_376_754,
    )
}
SIZE = DatasetSize(n_classes=20, clips={"train": 14_915, "test": 5_085}, clip_s=10.0)
_LABELS = "openmic-2018-aggregated-labels.csv"
_CLASSES = "class-map.json"
_TRAIN, _TEST = "partitions/split01_train.csv", "partitions/split01_test.csv"


def load(*, path: Path, task: str, seed: int, valid_share: float = 0.15) -> Task:
    """Read the labels and split 01.

    Args:
        valid_share: Share of the training clips that become validation clips.
    """
    files = Files.find(path, task, lists=(_LABELS, _CLASSES, _TRAIN, _TEST), folders=("audio",))
    index = {str(name): int(column) for name, column in files.json(_CLASSES).items()}
    classes = sorted(index, key=lambda name: index[name])
    labels: dict[str, np.ndarray] = {}
    for row in files.rows(_LABELS, ("sample_key", "instrument", "relevance")):
        if row["instrument"] not in index:
            raise SsondoError(f"{files.root / _LABELS}: instrument {row['instrument']!r} is not in class-map.json")
        clip_labels = labels.setdefault(row["sample_key"], np.full(len(classes), -1, dtype=np.int8))
        clip_labels[index[row["instrument"]]] = float(row["relevance"]) >= 0.5
    train, test = files.text(_TRAIN).split(), files.text(_TEST).split()
    if unlabelled := [key for key in (*train, *test) if key not in labels]:
        raise SsondoError(
            f"{files.root / _LABELS}: clip {unlabelled[0]} of the split has no label; download the file again"
        )
    present = [[classes[i] for i in np.flatnonzero(labels[key] == 1)] for key in train]
    splits = dict(zip(train, draw_valid(present, train, valid_share, seed, task), strict=True))
    splits.update(dict.fromkeys(test, "test"))
    clips = [Clip(key, files.audio(f"audio/{key[:3]}/{key}.ogg"), labels[key], split) for key, split in splits.items()]
    return Task("masked_map", classes, clips, official_size=SIZE)
