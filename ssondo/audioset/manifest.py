"""Manifests: frozen lists of the clips that an experiment used, to be shared and compared with later runs.

A manifest is a CSV file with the columns split, ytid, start_s and end_s. Its comment lines state for each split the
number of clips, the hash of the set of clips, which inventories and scores also store, and the hash of the set of
clips with their times.
"""

import csv
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from ssondo.errors import SsondoError
from ssondo.storage.atomic_files import clip_list_digest, csv_text, write_text
from ssondo.storage.segments import SPLITS, seconds_text

_TITLE = "# ssondo manifest 2"
_SPLIT_LINE = re.compile(r"# (\w+): \d+ clips, sha256 (\w+), with times (\w+)$")
_HEADER = ["split", "ytid", "start_s", "end_s"]


class Manifest(NamedTuple):
    """The times of each clip in seconds, by split and id, and the hash of each split's set of clips, without times."""

    times: dict[str, dict[str, tuple[float, float]]]
    digests: dict[str, str]


def write_manifest(path: Path, clips: Iterable[tuple[str, str, float, float]]) -> None:
    """Write a manifest of clips, each given by split, id, start and end in seconds."""
    rows = sorted(clips, key=lambda row: (SPLITS.index(row[0]), row[1]))
    comments = [_TITLE]
    for split in SPLITS:
        times = {clip: (start, end) for of_split, clip, start, end in rows if of_split == split}
        digests = f"sha256 {clip_list_digest(times)}, with times {_times_digest(times)}"
        comments.append(f"# {split}: {len(times)} clips, {digests}")
    table = [_HEADER, *((split, clip, seconds_text(start), seconds_text(end)) for split, clip, start, end in rows)]
    write_text(path, "\n".join([*comments, csv_text(table)]))


def _times_digest(times: Mapping[str, tuple[float, float]]) -> str:
    """SHA-256 of a set of clips with their times."""
    return clip_list_digest(f"{clip},{seconds_text(start)},{seconds_text(end)}" for clip, (start, end) in times.items())


def read_manifest(path: Path) -> Manifest:
    """Read a manifest and verify its hashes.

    Raises:
        SsondoError: If the file is missing, is not a manifest, or was changed after it was written.
    """
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except FileNotFoundError:
        raise SsondoError(f"{path}: no such manifest; make one with: ssondo freeze") from None
    except UnicodeDecodeError:
        lines = []
    digests = {match[1]: (match[2], match[3]) for line in lines[1:3] if (match := _SPLIT_LINE.match(line))}
    if not lines or lines[0] != _TITLE or set(digests) != set(SPLITS) or lines[3:4] != [",".join(_HEADER)]:
        raise SsondoError(f"{path}: not a manifest of this project; make one with: ssondo freeze")
    times: dict[str, dict[str, tuple[float, float]]] = {split: {} for split in SPLITS}
    try:
        for split, clip, start, end in csv.reader(lines[4:]):
            times[split][clip] = (float(start), float(end))
    except (ValueError, KeyError, csv.Error) as error:
        raise SsondoError(f"{path}: a damaged manifest ({error})") from None
    for split in SPLITS:
        if (clip_list_digest(times[split]), _times_digest(times[split])) != digests[split]:
            raise SsondoError(
                f"{path}: its {split} clips do not match its hash, so it was edited or truncated; freeze it again"
            )
    return Manifest(times, {split: digest for split, (digest, _) in digests.items()})
