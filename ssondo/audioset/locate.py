"""Find all clips of the segment lists in a local copy, in one pass.

Hundreds of fetch jobs then each read a short list instead of searching millions of files.
"""

import logging
import time
from pathlib import Path
from typing import Any

import pandas as pd

from ssondo.audioset.sources import open_source
from ssondo.audioset.sources.local import LocalSource, write_located
from ssondo.errors import SsondoError
from ssondo.storage.atomic_files import write_csv, write_json
from ssondo.storage.segments import SPLITS, read_segments, shard_names

log = logging.getLogger(__name__)

_N_SHOWN_CLIPS = 3


def locate(
    *,
    index: Path,
    source: dict[str, Any],
    n_train_shards: int,
    n_eval_shards: int,
    out: Path,
    scratch: Path | None = None,
) -> None:
    """Find every listed clip in a local copy, and write the locations of each shard's clips.

    Args:
        index: Folder of the segment lists, which index wrote.
        source: The local copy: "kind" (folder, hdf5, parquet or webdataset) and its settings.
        n_train_shards: Number of training shards.
        n_eval_shards: Number of evaluation shards.
        out: Folder for {split}-{shard}.csv, missing.csv and summary.json.
        scratch: Folder for clips that cannot be read in place (parquet), which is kept between runs. By default
            it is the subfolder `unpacked` of `out`.

    Raises:
        SsondoError: If a list is missing, the source is not a local copy, or none of the clips is found in it.
    """
    began = time.monotonic()
    opened = open_source(source, (), scratch=scratch or out / "unpacked")
    if not isinstance(opened, LocalSource):
        raise SsondoError(f"audioset.source.kind: {source['kind']} is not a local copy; there is nothing to locate")
    names = shard_names(n_train_shards, n_eval_shards)
    starts: dict[str, float] = {}
    ids_of_shard: dict[str, list[str]] = {}
    for _, name in names:
        segments = read_segments(index / f"{name}.csv")
        ids_of_shard[name] = [segment.ytid for segment in segments]
        starts.update((segment.ytid, segment.start_s) for segment in segments)
    clips, n_seen = opened.search(starts)
    if starts and not clips:
        raise SsondoError(
            f"audioset.source.path: {source.get('path')}: none of its {n_seen} names is a clip of the segment lists; "
            f"a name must contain the YouTube id, as in {next(iter(starts))}.flac"
        )
    missing: list[tuple[str, str]] = []
    for split, name in names:
        ids = ids_of_shard[name]
        write_located(out / f"{name}.csv", {clip: clips[clip] for clip in ids if clip in clips})
        missing += [(split, clip) for clip in ids if clip not in clips]
    write_csv(out / "missing.csv", pd.DataFrame(missing, columns=["split", "ytid"], dtype=object))
    write_json(
        out / "summary.json",
        {
            "seen": n_seen,
            "clips": len(starts),
            "found": len(clips),
            "not_in_the_lists": n_seen - len(clips),
            "missing": {split: sum(of_split == split for of_split, _ in missing) for split in SPLITS},
        },
    )
    path = source.get("path")
    if missing:
        examples = ", ".join(clip for _, clip in missing[:_N_SHOWN_CLIPS])
        what = f"{len(missing)} of {len(starts)} clips are not in {path} ({examples}, ...)"
        log.warning("%s; %s lists them", what, out / "missing.csv")
    what = f"{len(clips)} of {len(starts)} clips found among {n_seen} names of {path}"
    log.info("locate: %s, %.1f s, in %s", what, time.monotonic() - began, out)
