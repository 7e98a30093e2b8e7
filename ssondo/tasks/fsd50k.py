"""FSD50K (Fonseca et al., 2022): 51,197 clips of 0.3 to 30 s with one or more of 200 classes.

The data set consists of `FSD50K.ground_truth/{vocabulary,dev,eval}.csv`, `FSD50K.dev_audio/` and `FSD50K.eval_audio/`.
The column `split` of the development set separates training from validation clips; the evaluation set is the test set.
"""

import csv
from pathlib import Path

from ssondo.errors import SsondoError
from ssondo.tasks.files import Files
from ssondo.tasks.task import Clip, DatasetSize, Remote, Task, encode_labels

LICENCE = "CC BY 4.0; each clip has its own Creative Commons licence"
_RECORD = "https://zenodo.org/records/4060432/files"
REMOTES = {
    name: Remote(f"{_RECORD}/{name}", md5, size)
    for name, md5, size in (
        ("FSD50K.ground_truth.zip", "ca27382c195e37d2269c4c866dd73485", 334_701),
        ("FSD50K.dev_audio.z01", "faa7cf4cc076fc34a44a479a5ed862a3", 3_221_225_472),
        ("FSD50K.dev_audio.z02", "8f9b66153e68571164fb1315d00bc7bc", 3_221_225_472),
        ("FSD50K.dev_audio.z03", "1196ef47d267a993d30fa98af54b7159", 3_221_225_472),
        ("FSD50K.dev_audio.z04", "d088ac4e11ba53daf9f7574c11cccac9", 3_221_225_472),
        ("FSD50K.dev_audio.z05", "81356521aa159accd3c35de22da28c7f", 3_221_225_472),
        ("FSD50K.dev_audio.zip", "c480d119b8f7a7e32fdb58f3ea4d6c5a", 2_306_663_327),
        ("FSD50K.eval_audio.z01", "3090670eaeecc013ca1ff84fe4442aeb", 3_221_225_472),
        ("FSD50K.eval_audio.zip", "6fa47636c3a3ad5c7dfeba99f2637982", 3_037_675_767),
    )
}
SIZE = DatasetSize(n_classes=200, clips={"train": 36_796, "valid": 4_170, "test": 10_231}, clip_s=7.6)
_TRUTH = "FSD50K.ground_truth"
_LISTS = tuple(f"{_TRUTH}/{name}.csv" for name in ("vocabulary", "dev", "eval"))
_SPLITS = {"train": "train", "val": "valid"}


def _vocabulary(files: Files) -> list[str]:
    """Read the classes, in order; the file has no header, and its columns are index, name and AudioSet id."""
    rows = [row for row in csv.reader(files.text(_LISTS[0]).splitlines()) if row]
    if not rows or any(len(row) != 3 for row in rows):
        raise SsondoError(
            f"{files.root / _LISTS[0]}: this is not the vocabulary of FSD50K (index, name and id in each row)"
        )
    return [name for _, name, _ in sorted(rows, key=lambda row: int(row[0]))]


def load(*, path: Path, task: str) -> Task:
    """Read the ground truth of the development and evaluation sets."""
    files = Files.find(path, task, lists=_LISTS, folders=("FSD50K.dev_audio", "FSD50K.eval_audio"))
    classes = _vocabulary(files)
    dev = files.rows(_LISTS[1], ("fname", "labels", "split"))
    rows = [("dev", row, _SPLITS.get(row["split"])) for row in dev]
    rows += [("eval", row, "test") for row in files.rows(_LISTS[2], ("fname", "labels"))]
    clips = []
    for subset, row, split in rows:
        present = row["labels"].split(",")
        if split is None or not set(present) <= set(classes):
            raise SsondoError(
                f"{files.root / _TRUTH}/{subset}.csv: clip {row['fname']} has an unknown label or split; "
                "download the file again"
            )
        source = files.audio(f"FSD50K.{subset}_audio/{row['fname']}.wav")
        clips.append(Clip(row["fname"], source, encode_labels(present, classes), split))
    return Task("map", classes, clips, official_size=SIZE)
