"""GTZAN (Tzanetakis and Cook, 2002): 30 s of music in ten genres, in the fault-filtered split.

The data set consists of `genres/<genre>/<genre>.00000.wav` (or .au, as in older copies of the archive). The split
(Kereliuk, Sturm and Larsen, 2015) excludes repeated, distorted and mislabelled files; it keeps 930 of 1,000 files: 443
train, 197 valid, 290 test.
"""

from pathlib import Path

from ssondo.tasks.files import Files
from ssondo.tasks.task import Clip, DatasetSize, Remote, Task, encode_labels

LICENCE = "none stated; for research"
# The authors' server (opihi.cs.uvic.ca) no longer responds; this copy is published under the name of their project.
# The MD5 of the original is 5b3d6dddb579ab49814ab86dba69e7c7; it is not documented whether the copy has the same one.
REMOTES = {"genres.tar.gz": Remote("https://huggingface.co/datasets/marsyas/gtzan/resolve/main/data/genres.tar.gz")}
SIZE = DatasetSize(n_classes=10, clips={"train": 443, "valid": 197, "test": 290}, clip_s=30.0, download_gb=1.2)
GENRES = ("blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock")

_TRAIN = """
blues 29-49 73-97
classical 30-33 43-48 50-67 80-99
country 19-26 28-29 65-99
disco 5 15-20 22-37 39-45 47 49 53-54 56-57 59 61 70 73-74 89
hiphop 2-25 28-29 31-38 41-42 55-61 77-80
jazz 0-1 11-24 41 47-72
metal 2-3 5 21 24 35 46-57 59-66 69 71-72 79-80 84 86 89-99
pop 2-9 11-12 16-20 23-29 31-36 38-42 44 46 49-50 80 97-99
reggae 0-2 4 6 9 11-12 14-32 42-45 49-51 54-60 63 69
rock 0-9 16-26 57-70 91-99
"""
_VALID = """
blues 0-11 50-60
classical 0-10 68-76
country 0-7 9-18 27 41-42 45 49
disco 0 2-4 6-14 46 48 52 67-68 72 75 90 95
hiphop 81-98
jazz 2-10 25-32
metal 0-1 6-11 16-20 36-37 68 76-77 81-82
pop 10 53 55 58-62 81 83-86
reggae 61-62 70 72 74 76-78 85 92-99
rock 38 49-56 71-85
"""
_TEST = """
blues 12-28 61-72 98-99
classical 11-29 34-41 49 77-79
country 30-40 43-44 46-48 50-51 53-64
disco 1 21 58 62-66 69 76-88 91-94 96-97 99
hiphop 0 26-27 30 40 43-45 51-54 62-75 99
jazz 73-99
metal 12-15 22-23 25-33 38-39 67 70 73-75 78 83 85 87-88
pop 0-1 13-14 43 63-66 69-79 82 88-96
reggae 34-40 46-48 52-53 64-68 71 79 82-84 87-90
rock 10-15 27-37 39-48 86-90
"""


def _tracks(listing: str) -> list[tuple[str, str]]:
    """Return the genre and the name of each track of a listing like "blues 0-11 50"."""
    tracks = []
    for line in listing.split("\n"):
        genre, *ranges = line.split() or [""]
        for span in ranges:
            first, _, last = span.partition("-")
            tracks += [(genre, f"{genre}.{number:05d}") for number in range(int(first), int(last or first) + 1)]
    return tracks


def load(*, path: Path, task: str) -> Task:
    """Return the 930 tracks of the fault-filtered split."""
    files = Files.find(path, task, lists=(), folders=GENRES)
    clips = []
    for split, listing in {"train": _TRAIN, "valid": _VALID, "test": _TEST}.items():
        for genre, name in _tracks(listing):
            source = files.audio(f"{genre}/{name}.wav", any_suffix=True)
            clips.append(Clip(name, source, encode_labels([genre], GENRES), split))
    # In most WAV copies of the data set, this file has no readable header.
    return Task("accuracy", GENRES, clips, known_damaged=frozenset({"jazz.00054"}), official_size=SIZE)
