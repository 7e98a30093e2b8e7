"""Which clips an experiment used: a list that is frozen, handed on, and compared with what is there later.

A manifest is a CSV `split,ytid,start_s,end_s`. Its head has for each split the number of clips, the hash of
their list, the same that inventories and scores carry, and the hash of the list with the times.
"""

import csv
import io
import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from ssondo.errors import SsondoError
from ssondo.storage.atomic_files import clip_list_digest, write_text
from ssondo.storage.segments import read_segments, seconds_text
from ssondo.storage.shards.audio import AudioShard

log = logging.getLogger(__name__)

_TITLE = "# ssondo manifest 2"
_NOTED = re.compile(r"# (\w+): \d+ clips, sha256 (\w+), with times (\w+)$")
_HEADER = ["split", "ytid", "start_s", "end_s"]
_SPLITS = ("train", "eval")


class Manifest(NamedTuple):
    """A frozen list of clips.

    Attributes:
        times: start and end in seconds of each clip, by split and id.
        digests: hash of each split's list of clips, without their times.
    """

    times: dict[str, dict[str, tuple[float, float]]]
    digests: dict[str, str]


def freeze(*, audio: Path, index: Path, out: Path) -> None:
    """Write which clips there are: a list that fixes what an experiment used, and can be handed on.

    Put its path into audioset.manifest, and a later run uses no other clips and says which it lacks.

    Args:
        audio: folder of the resampled shards.
        index: folder of the segment lists that they were made of.
        out: CSV file to write.

    Raises:
        SsondoError: if there are no such shards, their lists are missing, or a clip is in two of them.
    """
    rows: list[tuple[str, str, float, float]] = []
    shard_of_clip: dict[str, Path] = {}
    for split in _SPLITS:
        for path in sorted(audio.glob(f"{split}-*.h5")):
            times = {segment.ytid: segment[1:3] for segment in read_segments(index / f"{path.stem}.csv")}
            with AudioShard(path) as shard:
                clips = shard.clip_ids
                there = [clips[row] for row in shard.ok]
            for clip in clips:
                first = shard_of_clip.setdefault(clip, path)
                if first is not path:
                    raise SsondoError(
                        f"{path}: clip {clip} is in {first.name} too; one of them was made with another number of "
                        f"shards or other lists; remove from {audio} the shards that the run does not have any more"
                    )
            absent = [clip for clip in there if clip not in times]
            if absent:
                raise SsondoError(f"{path}: clip {absent[0]} is not in {index / path.stem}.csv; they are of two runs")
            rows += [(split, clip, *times[clip]) for clip in there]
    if not rows:
        raise SsondoError(
            f"{audio}: no clips of resampled shards; make them first, with your snakemake command and --until resample"
        )
    write_text(out, _text(rows))
    counts = [f"{sum(row[0] == split for row in rows)} {split}" for split in _SPLITS]
    log.info("freeze: %s clips in %s", ", ".join(counts), out)


def _text(rows: Iterable[tuple[str, str, float, float]]) -> str:
    rows = sorted(rows, key=lambda row: (_SPLITS.index(row[0]), row[1]))
    text = io.StringIO()
    text.write(f"{_TITLE}\n")
    for split in _SPLITS:
        times = {clip: (start, end) for name, clip, start, end in rows if name == split}
        digests = f"sha256 {clip_list_digest(times)}, with times {_times_digest(times)}"
        text.write(f"# {split}: {len(times)} clips, {digests}\n")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_HEADER)
    writer.writerows((split, clip, seconds_text(start), seconds_text(end)) for split, clip, start, end in rows)
    return text.getvalue()


def _times_digest(times: Mapping[str, tuple[float, float]]) -> str:
    """SHA-256 of a set of clips and their times."""
    return clip_list_digest(f"{clip},{seconds_text(start)},{seconds_text(end)}" for clip, (start, end) in times.items())


def read_manifest(path: Path) -> Manifest:
    """Read what `freeze` wrote.

    Raises:
        SsondoError: if it is missing, no manifest, or was changed since.
    """
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except FileNotFoundError:
        raise SsondoError(f"{path}: no such manifest; make one with: ssondo freeze") from None
    except UnicodeDecodeError:
        lines = []
    noted = {found[1]: (found[2], found[3]) for line in lines[1:3] if (found := _NOTED.match(line))}
    if not lines or lines[0] != _TITLE or set(noted) != set(_SPLITS) or lines[3:4] != [",".join(_HEADER)]:
        raise SsondoError(f"{path}: not a manifest of this project; make one with: ssondo freeze")
    times: dict[str, dict[str, tuple[float, float]]] = {split: {} for split in _SPLITS}
    try:
        for split, clip, start, end in csv.reader(lines[4:]):
            times[split][clip] = (float(start), float(end))
    except (ValueError, KeyError, csv.Error) as error:
        raise SsondoError(f"{path}: a broken manifest ({error})") from None
    for split in _SPLITS:
        if (clip_list_digest(times[split]), _times_digest(times[split])) != noted[split]:
            raise SsondoError(f"{path}: its {split} clips are not those that its hash is of; it was edited or cut")
    return Manifest(times, {split: digest for split, (digest, _) in noted.items()})
