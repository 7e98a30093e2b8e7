"""Find all clips of the segment lists in a lab's own copy, in one pass.

Hundreds of fetch jobs then read a short list each, where every one would search millions of files.
"""

import csv
import io
import logging
import time
from pathlib import Path
from typing import Any

from ssondo.audioset.sources import open_source
from ssondo.audioset.sources.local import LocalSource, Place, write_places
from ssondo.errors import SsondoError
from ssondo.storage.atomic_files import write_json, write_text
from ssondo.storage.segments import read_segments, shard_name

log = logging.getLogger(__name__)

_SHOWN = 3


def locate(
    *,
    index: Path,
    source: dict[str, Any],
    n_train_shards: int,
    n_eval_shards: int,
    out: Path,
    scratch: Path | None = None,
) -> None:
    """Find every clip of the lists in a local copy, and list for each shard where its clips lie.

    Args:
        index: folder of the segment lists, made by index.
        source: the copy: "kind" (folder, hdf5, parquet, webdataset) and its settings.
        n_train_shards: number of training shards.
        n_eval_shards: number of evaluation shards.
        out: folder for {split}-{shard}.csv, missing.csv and summary.json.
        scratch: folder for clips that cannot be read in place (parquet); kept between runs.

    Raises:
        SsondoError: if a list is missing, the source is no local copy, or nothing is found in it.
    """
    began = time.monotonic()
    opened = open_source(source, (), located=None, scratch=scratch or out / "unpacked")
    if not isinstance(opened, LocalSource):
        raise SsondoError(f"audioset.source.kind: {source['kind']} is no local copy; there is nothing to locate")
    names = [
        (split, shard_name(split, shard))
        for split, n_shards in (("train", n_train_shards), ("eval", n_eval_shards))
        for shard in range(n_shards)
    ]
    starts: dict[str, float] = {}
    clips_of: dict[str, list[str]] = {}
    for _, name in names:
        segments = read_segments(index / f"{name}.csv")
        clips_of[name] = [segment.ytid for segment in segments]
        starts.update((segment.ytid, segment.start_s) for segment in segments)
    places, n_seen = opened.search(starts)
    if starts and not places:
        raise SsondoError(
            f"audioset.source.path: {source.get('path')}: none of its {n_seen} names is a clip of the segment lists; "
            f"a name has the YouTube id in it, like {next(iter(starts))}.flac"
        )
    missing = _write(out, names, clips_of, places)
    n_missing = {split: sum(part == split for part, _ in missing) for split in ("train", "eval")}
    write_json(
        out / "summary.json",
        {
            "seen": n_seen,
            "clips": len(starts),
            "found": len(places),
            "not_in_the_lists": n_seen - len(places),
            "missing": n_missing,
        },
    )
    if missing:
        log.warning(
            "%d of %d clips are not in %s (%s, ...); %s lists them",
            len(missing),
            len(starts),
            source.get("path"),
            ", ".join(clip for _, clip in missing[:_SHOWN]),
            out / "missing.csv",
        )
    log.info(
        "locate: %d of %d clips found among %d names of %s, %.1f s, in %s",
        len(places),
        len(starts),
        n_seen,
        source.get("path"),
        time.monotonic() - began,
        out,
    )


def _write(
    out: Path, names: list[tuple[str, str]], clips_of: dict[str, list[str]], places: dict[str, Place]
) -> list[tuple[str, str]]:
    """Write each shard's list, and return split and id of the clips that were not found."""
    missing: list[tuple[str, str]] = []
    for split, name in names:
        clips = clips_of[name]
        write_places(out / f"{name}.csv", {clip: places[clip] for clip in clips if clip in places})
        missing += [(split, clip) for clip in clips if clip not in places]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("split", "ytid"), *missing])
    write_text(out / "missing.csv", text.getvalue())
    return missing
