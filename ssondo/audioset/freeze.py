"""Freeze the list of the clips that are present, for experiments that shall use the same clips."""

import logging
from pathlib import Path

from ssondo.audioset.manifest import write_manifest
from ssondo.errors import SsondoError
from ssondo.storage.segments import SPLITS, read_segments
from ssondo.storage.shards.audio import AudioShard

log = logging.getLogger(__name__)


def freeze(*, audio: Path, index: Path, out: Path) -> None:
    """Write a manifest of the clips that are present, which fixes what an experiment used and can be shared.

    If audioset.manifest is set to its path, a later run uses no other clips and reports which of them it lacks.

    Args:
        audio: Folder of the resampled shards.
        index: Folder of the segment lists that the shards were made from.
        out: CSV file that is written.

    Raises:
        SsondoError: If there are no such shards, their lists are missing, or a clip is in two shards.
    """
    rows: list[tuple[str, str, float, float]] = []
    shard_of_clip: dict[str, Path] = {}
    for split in SPLITS:
        for path in sorted(audio.glob(f"{split}-*.h5")):
            times = {segment.ytid: segment[1:3] for segment in read_segments(index / f"{path.stem}.csv")}
            with AudioShard(path) as shard:
                clips = shard.clip_ids
                present = [clips[row] for row in shard.ok]
            for clip in clips:
                first = shard_of_clip.setdefault(clip, path)
                if first is not path:
                    raise SsondoError(
                        f"{path}: clip {clip} is in {first.name} too; one of them was made with another number of "
                        f"shards or other lists; remove from {audio} the shards that the run does not have any more"
                    )
            unlisted = [clip for clip in present if clip not in times]
            if unlisted:
                raise SsondoError(
                    f"{path}: clip {unlisted[0]} is not in {index / path.stem}.csv; they belong to different runs"
                )
            rows += [(split, clip, *times[clip]) for clip in present]
    if not rows:
        raise SsondoError(
            f"{audio}: no clips of resampled shards; make them first, with your snakemake command and --until resample"
        )
    write_manifest(out, rows)
    counts = [f"{sum(row[0] == split for row in rows)} {split}" for split in SPLITS]
    log.info("freeze: %s clips in %s", ", ".join(counts), out)
