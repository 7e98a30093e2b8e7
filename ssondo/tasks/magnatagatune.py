"""MagnaTagATune (Law et al., 2009): 25,863 clips of 29 s, the fifty most frequent of its tags.

Layout: `annotations_final.csv` (tab-separated) and the folders `0` to `f` of mp3.zip. The split is
the field's: folders 0 to b train, c valid, d to f test. A clip without any of the fifty tags is
kept, with all of them absent; others leave these clips out, which is an option.
"""

from pathlib import Path
from typing import Literal

import numpy as np

from ssondo.errors import SsondoError
from ssondo.tasks.files import Files
from ssondo.tasks.task import Clip, Official, Remote, Task, ascii_id

LICENCE = "CC BY-NC-SA (the music is Magnatune's)"
_HOME = "https://mirg.city.ac.uk/datasets/magnatagatune"
REMOTES = {
    name: Remote(f"{_HOME}/{name}") for name in ("annotations_final.csv", "mp3.zip.001", "mp3.zip.002", "mp3.zip.003")
}
_LIST = "annotations_final.csv"

TAGS = (
    *("guitar", "classical", "slow", "techno", "strings", "drums", "electronic", "rock", "fast", "piano"),
    *("ambient", "beat", "violin", "vocal", "synth", "female", "indian", "opera", "male", "singing"),
    *("vocals", "no vocals", "harpsichord", "loud", "quiet", "flute", "woman", "male vocal", "no vocal", "pop"),
    *("soft", "sitar", "solo", "man", "classic", "choir", "voice", "new age", "dance", "male voice"),
    *("female vocal", "beats", "harp", "cello", "no voice", "weird", "country", "female voice", "metal", "choral"),
)
"""The fifty most frequent of the 188 tags, as the annotations spell them, most frequent first."""

# Empty in mp3.zip since its first day.
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
        path: the folder with the annotations and the folders 0 to f, or the archive's three parts.
        task: its name in the config.
        untagged: drop leaves out clips without any of the fifty tags.
    """
    files = Files.find(path, task, lists=(_LIST,), folders=tuple(_FOLDERS))
    clips = []
    for row in files.rows(_LIST, ("clip_id", *TAGS, "mp3_path"), delimiter="\t"):
        name = row["mp3_path"]
        if name[:2] not in {f"{folder}/" for folder in _FOLDERS}:
            raise SsondoError(
                f"{files.root / _LIST}: mp3_path {name!r} is in none of the folders 0 to f; get the file anew"
            )
        labels = np.array([row[tag] == "1" for tag in TAGS], dtype=np.int8)
        if untagged == "drop" and not labels.any():
            continue
        clips.append(Clip(ascii_id(name), files.sound(name), labels, _split(name[0])))
    official = Official(50, 25_863) if untagged == "keep" else None
    return Task("map", TAGS, clips, known_faults=frozenset(_EMPTY), official=official)
