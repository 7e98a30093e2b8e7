"""Rows of segment lists, the assignment of clips to shards, and the lists that `index` writes.

The shard of a clip is a hash of its id modulo the number of shards. Therefore the shards are known before
anything runs, and a longer list moves no clip to another shard.
"""

import csv
import hashlib
from pathlib import Path
from typing import NamedTuple

from ssondo.errors import SsondoError

HEADER = ("ytid", "start_s", "end_s", "labels")
# Suffixes of the files that count as sound in a folder of clips.
SOUND_SUFFIXES = frozenset(
    ".aac .aif .aiff .au .flac .m4a .mka .mkv .mp3 .mp4 .oga .ogg .opus .wav .webm .wma".split()  # noqa: SIM905
)


class Segment(NamedTuple):
    """A row of a segment list of AudioSet.

    Attributes:
        ytid: Id of the video and of the clip.
        start_s: Start of the clip in the video in seconds.
        end_s: End of the clip in the video in seconds.
        labels: Machine ids (mids) of its classes, e.g. "/m/09x0r"; empty for an unlabelled corpus.
    """

    ytid: str
    start_s: float
    end_s: float
    labels: tuple[str, ...] = ()


def hash64(text: str) -> int:
    """The first 64 bits of the SHA-256 of a text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def shard_of(ytid: str, n_shards: int) -> int:
    """Shard of a clip in [0, n_shards): the first 64 bits of the SHA-256 of its id, modulo."""
    return hash64(ytid) % n_shards


def shard_name(split: str, shard: int) -> str:
    """Stem of the file names of a shard, e.g. "train-0003"."""
    return f"{split}-{shard:04d}"


def seconds_text(value: float) -> str:
    """Seconds as text, rounded to milliseconds and without trailing zeros: 30, 0.5."""
    return f"{value:.0f}" if value.is_integer() else f"{value:.3f}".rstrip("0").rstrip(".")


def read_segments(path: Path) -> list[Segment]:
    """Read the segment list of a shard, as `index` writes it.

    Raises:
        SsondoError: If the file is missing or not a segment list.
    """
    try:
        with path.open(encoding="ascii", newline="") as file:
            rows = csv.reader(file)
            if tuple(next(rows, ())) != HEADER:
                raise SsondoError(f"{path}: not a segment list of this project; make it with: snakemake {path}")
            return [
                Segment(ytid, float(start), float(end), tuple(labels.split(";")) if labels else ())
                for ytid, start, end, labels in rows
            ]
    except FileNotFoundError:
        raise SsondoError(f"{path}: no such segment list; make it with: snakemake {path}") from None
    except (ValueError, csv.Error) as error:
        raise SsondoError(f"{path}: a damaged segment list ({error}); remove it and run snakemake again") from None
