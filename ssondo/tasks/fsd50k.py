"""FSD50K (Fonseca et al., 2022): 51,197 clips of 0.3 to 30 s, 200 classes, several a clip.

Layout: `FSD50K.ground_truth/{vocabulary,dev,eval}.csv`, `FSD50K.dev_audio/`, `FSD50K.eval_audio/`.
The development set's own column says train or validation; the evaluation set is the test.
"""

import csv
from pathlib import Path

from ssondo.errors import SsondoError
from ssondo.tasks.task import Clip, Remote, Task, archive_root, encode_labels, read_rows

LICENCE = "CC BY 4.0; each clip has its own Creative Commons licence"
_RECORD = "https://zenodo.org/records/4060432/files"
REMOTES = {
    name: Remote(f"{_RECORD}/{name}", md5)
    for name, md5 in {
        "FSD50K.dev_audio.zip": "c480d119b8f7a7e32fdb58f3ea4d6c5a",
        "FSD50K.dev_audio.z01": "faa7cf4cc076fc34a44a479a5ed862a3",
        "FSD50K.dev_audio.z02": "8f9b66153e68571164fb1315d00bc7bc",
        "FSD50K.dev_audio.z03": "1196ef47d267a993d30fa98af54b7159",
        "FSD50K.dev_audio.z04": "d088ac4e11ba53daf9f7574c11cccac9",
        "FSD50K.dev_audio.z05": "81356521aa159accd3c35de22da28c7f",
        "FSD50K.eval_audio.zip": "6fa47636c3a3ad5c7dfeba99f2637982",
        "FSD50K.eval_audio.z01": "3090670eaeecc013ca1ff84fe4442aeb",
        "FSD50K.ground_truth.zip": "ca27382c195e37d2269c4c866dd73485",
    }.items()
}
_SPLITS = {"train": "train", "val": "valid"}


def _vocabulary(path: Path) -> list[str]:
    """The classes, in order: the file has no header; its columns are index, name, AudioSet id."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.reader(file) if row]
    if not rows or any(len(row) != 3 for row in rows):
        raise SsondoError(f"{path}: not FSD50K's vocabulary (index, name, id in each row)")
    return [name for _, name, _ in sorted(rows, key=lambda row: int(row[0]))]


def load(*, path: Path, task: str) -> Task:
    """Read the ground truth of the development and evaluation sets.

    Args:
        path: the folder with the unpacked archives.
        task: its name in the config.
    """
    root = archive_root(path, "FSD50K.ground_truth/vocabulary.csv", task)
    truth = root / "FSD50K.ground_truth"
    classes = _vocabulary(truth / "vocabulary.csv")
    dev = read_rows(truth / "dev.csv", ("fname", "labels", "split"))
    rows = [("dev", row, _SPLITS.get(row["split"])) for row in dev]
    rows += [("eval", row, "test") for row in read_rows(truth / "eval.csv", ("fname", "labels"))]
    clips = []
    for part, row, split in rows:
        present = row["labels"].split(",")
        if split is None or not set(present) <= set(classes):
            raise SsondoError(f"{truth}/{part}.csv: clip {row['fname']} has an unknown label or split; get it anew")
        source = root / f"FSD50K.{part}_audio" / f"{row['fname']}.wav"
        clips.append(Clip(row["fname"], source, encode_labels(present, classes), split))
    return Task("map", classes, clips)
