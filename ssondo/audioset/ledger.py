"""Count the fetched clips of a corpus by split, status and reason."""

import logging
from collections import Counter
from pathlib import Path

from ssondo.audioset.clip_ledger import ledger_path, read_ledger
from ssondo.errors import SsondoError
from ssondo.storage.segments import SPLITS, read_segments
from ssondo.storage.shards.audio import AudioShard
from ssondo.storage.shards.reasons import Counts, count_by_reason
from ssondo.storage.shards.status import Status

log = logging.getLogger(__name__)


def ledger(*, folder: Path = Path("data/fetched"), index: Path | None = None) -> None:
    """Count the fetched clips by split, status and reason, including those of unfinished shards.

    Args:
        folder: Folder of the fetched shards and their ledgers.
        index: Folder of the segment lists, from which the number of clips that were not requested yet is
            computed. By default this is the folder `index` next to `folder`, if it exists.

    Raises:
        SsondoError: If there are neither shards nor ledgers.
    """
    index_folder = index if index is not None else folder.parent / "index"
    for split in SPLITS:
        shards = fetched_shards(folder, split)
        counts: Counts = sum((count_fetched(shard) for shard in shards), Counter())
        lists = sorted(index_folder.glob(f"{split}-*.csv"))
        n_listed = sum(len(read_segments(path)) for path in lists) if lists else None
        if not counts and not n_listed:
            continue
        n_finished = sum(shard.is_file() for shard in shards)
        waiting = "" if n_listed is None else f", {n_listed - counts.total():,} of {n_listed:,} not requested yet"
        log.info("%s: %d shards finished of %d started%s", split, n_finished, len(shards), waiting)
        for status in Status:
            reasons = {reason: n for (of_status, reason), n in counts.items() if of_status is status}
            log.info("  %10s  %s", f"{sum(reasons.values()):,}", status.name.lower())
            for reason, n in sorted(reasons.items(), key=lambda item: (-item[1], item[0])):
                if reason:
                    log.info("  %10s    %s", f"{n:,}", reason)
    if not any(fetched_shards(folder, split) for split in SPLITS):
        raise SsondoError(f"{folder}: there are no fetched shards and no ledgers; give their folder with --folder")


def fetched_shards(folder: Path, split: str) -> list[Path]:
    """Paths of a split's fetched shards, including shards that exist only as a ledger so far."""
    names = {path.stem for suffix in ("h5", "ledger") for path in folder.glob(f"{split}-*.{suffix}")}
    return [folder / f"{name}.h5" for name in sorted(names)]


def count_fetched(shard: Path) -> Counts:
    """Number of a shard's clips by status and reason; for an unfinished shard, of the clips requested so far."""
    if shard.is_file():
        with AudioShard(shard) as opened:
            return count_by_reason(opened.status.tolist(), opened.reasons)
    entries = read_ledger(ledger_path(shard)).values()
    return count_by_reason((entry.status for entry in entries), (entry.reason for entry in entries))
