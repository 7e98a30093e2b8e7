"""MagnaTagATune (Law et al., 2009): 25,863 clips of 29 s, labelled with the fifty most frequent tags.

The data set consists of `annotations_final.csv` (tab-separated) and the folders `0` to `f` of mp3.zip. The split is the
one that is commonly used: folders 0 to b train, c validates, d to f test. A clip without any of the fifty tags is kept,
with all tags absent; the option `untagged` omits such clips, as some publications do.
"""

from pathlib import Path
from typing import Literal

import numpy as np

from ssondo.errors import SsondoError
from ssondo.tasks.files import Files
from ssondo.tasks.task import Clip, DatasetSize, Remote, Task, ascii_id

LICENCE = "CC BY-NC-SA (the music is Magnatune's)"
_HOME = "https://mirg.city.ac.uk/datasets/magnatagatune"
# The MD5 sums are those that the loaders of several other libraries verify; the authors state none.
REMOTES = {
    name: Remote(f"{_HOME}/{name}", md5, size)
    for name, md5, size in (
        ("annotations_final.csv", "f04fa01752a8cc64f6e1ca142a0fef1d", 21_517_373),
        ("mp3.zip.001", "179c91c8c2a6e9b3da3d4e69d306fd3b", 1_100_000_000),
        ("mp3.zip.002", "acf8265ff2e35c6ff22210e46457a824", 1_100_000_000),
        ("mp3.zip.003", "582dc649cabb8cd991f09e14b99349a5", 772_769_864),
    )
}
# The official list has 25,863 rows; three of their MP3 files are empty.
SIZE = DatasetSize(n_classes=50, clips=25_863, clip_s=29.0)
_LIST = "annotations_final.csv"

TAGS = (
    *("guitar", "classical", "slow", "techno", "strings", "drums", "electronic", "rock", "fast", "piano"),
    *("ambient", "beat", "violin", "vocal", "synth", "female", "indian", "opera", "male", "singing"),
    *("vocals", "no vocals", "harpsichord", "loud", "quiet", "flute", "woman", "male vocal", "no vocal", "pop"),
    *("soft", "sitar", "solo", "man", "classic", "choir", "voice", "new age", "dance", "male voice"),
    *("female vocal", "beats", "harp", "cello", "no voice", "weird", "country", "female voice", "metal", "choral"),
)
"""The fifty most frequent of the 188 tags, in the spelling of the annotations, most frequent first."""

# These files are empty in the official mp3.zip.
_EMPTY = (
    "6/norine_braun-now_and_zen-08-gently-117-146.mp3",
    "8/jacob_heringman-josquin_des_prez_lute_settings-19-gintzler__pater_noster-204-233.mp3",
    "9/american_baroque-dances_and_suites_of_rameau_and_couperin-25-le_petit_rien_xiveme_ordre_couperin-88-117.mp3",
)
_FOLDERS = "0123456789abcdef"


def _split(folder: str) -> str:
    number = _FOLDERS.index(folder)
    return "train" if number < 12 else "valid" if number == 12 else "test"


def load(*, path: Path, task: str, untagged: Literal["keep", "drop"] = "keep") -> Task:
    """Read `annotations_final.csv`.

    Args:
        untagged: Whether clips without any of the fifty tags are kept, keep or drop.
    """
    files = Files.find(path, task, lists=(_LIST,), folders=tuple(_FOLDERS))
    clips = []
    for row in files.rows(_LIST, ("clip_id", *TAGS, "mp3_path"), delimiter="\t"):
        name = row["mp3_path"]
        if name[:2] not in {f"{folder}/" for folder in _FOLDERS}:
            raise SsondoError(
                f"{files.root / _LIST}: mp3_path {name!r} is not in one of the folders 0 to f; download the file again"
            )
        labels = np.array([row[tag] == "1" for tag in TAGS], dtype=np.int8)
        if untagged == "drop" and not labels.any():
            continue
        clips.append(Clip(ascii_id(name), files.audio(name), labels, _split(name[0])))
    return Task("map", TAGS, clips, known_damaged=frozenset(_EMPTY), official_size=SIZE if untagged == "keep" else None)
