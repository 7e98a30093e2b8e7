"""Segment lists, and the shard that each clip belongs to.

The shard of a clip is a hash of its id modulo the number of shards, so the shards are known before anything runs, and
a longer list moves no clip to another shard. To find a clip:

    shard_name("train", shard_of("--PJHxphWEs", n_train_shards))  # "train-0496" of 512 shards
"""

import csv
import hashlib
from pathlib import Path
from typing import NamedTuple

from ssondo.errors import SsondoError

SPLITS = ("train", "eval")
SEGMENTS_HEADER = ("ytid", "start_s", "end_s", "labels")


class Segment(NamedTuple):
    """A row of a segment list.

    Attributes:
        ytid: Id of the video, and of the clip.
        start_s: Start of the clip in the video, in seconds.
        end_s: End of the clip in the video, in seconds.
        labels: Ids of its classes, e.g. "/m/09x0r"; empty for a corpus without labels.
    """

    ytid: str
    start_s: float
    end_s: float
    labels: tuple[str, ...] = ()


def hash64(text: str) -> int:
    """Return the first 64 bits of the SHA-256 of a text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def shard_of(ytid: str, n_shards: int) -> int:
    """Return the shard of a clip, in [0, n_shards): the first 64 bits of the SHA-256 of its id, modulo `n_shards`."""
    return hash64(ytid) % n_shards


def shard_label(shard: int) -> str:
    """Return the number of a shard as file names have it, e.g. "0003"."""
    return f"{shard:04d}"


def shard_name(split: str, shard: int) -> str:
    """Return the stem of a shard's files, e.g. "train-0003"."""
    return f"{split}-{shard_label(shard)}"


def shard_names(n_train_shards: int, n_eval_shards: int) -> list[tuple[str, str]]:
    """Return split and stem of every shard, e.g. ("train", "train-0003"), in order."""
    sizes = zip(SPLITS, (n_train_shards, n_eval_shards), strict=True)
    return [(split, shard_name(split, shard)) for split, n_shards in sizes for shard in range(n_shards)]


def shard_number(path: Path) -> int:
    """Return the number in the name of a shard's file, e.g. 3 for train-0003.csv; 0 if it has none."""
    label = path.stem.rpartition("-")[2]
    return int(label) if label.isdecimal() else 0


def seconds_text(value: float) -> str:
    """Return seconds to the millisecond without trailing zeros, e.g. "30" or "0.5"."""
    return f"{value:.0f}" if value.is_integer() else f"{value:.3f}".rstrip("0").rstrip(".")


def read_segments(path: Path) -> list[Segment]:
    """Read the segment list of one shard, which `index` wrote.

    Raises:
        SsondoError: If the file is missing or not such a list.
    """
    try:
        with path.open(encoding="ascii", newline="") as file:
            rows = csv.reader(file)
            if tuple(next(rows, ())) != SEGMENTS_HEADER:
                raise SsondoError(f"{path}: not a segment list of this project; make it with: snakemake {path}")
            return [
                Segment(ytid, float(start), float(end), tuple(labels.split(";")) if labels else ())
                for ytid, start, end, labels in rows
            ]
    except FileNotFoundError:
        raise SsondoError(f"{path}: no such segment list; make it with: snakemake {path}") from None
    except (ValueError, csv.Error) as error:
        raise SsondoError(f"{path}: a damaged segment list ({error}); remove it and run snakemake again") from None
