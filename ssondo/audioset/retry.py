"""Have the missing clips with a given reason requested again."""

import logging
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from ssondo.audioset.clip_ledger import Ledger, latest_source, ledger_path, reset_path
from ssondo.audioset.ledger import count_fetched, fetched_shards
from ssondo.errors import SsondoError, TransientError
from ssondo.storage.atomic_files import write_text
from ssondo.storage.segments import SPLITS
from ssondo.storage.shards.reasons import Counts
from ssondo.storage.shards.status import Status
from ssondo.system.registry import did_you_mean

log = logging.getLogger(__name__)


def retry(*, reason: list[str], folder: Path = Path("data/fetched")) -> None:
    """Mark the missing clips with a given reason to be requested again, and no others.

    Run Snakemake afterwards: it runs exactly the shards that contain such clips.

    Args:
        reason: Reason as `ssondo ledger` prints it, e.g. "private"; several may be given.
        folder: Folder of the fetched shards and their ledgers.

    Raises:
        SsondoError: If no reason is given, or no clip is missing for a given reason.
        TransientError: If a shard is being fetched; the other shards have been reset.
    """
    shards = [shard for split in SPLITS for shard in fetched_shards(folder, split)]
    counts = {shard: count_fetched(shard) for shard in shards}
    _check_reasons(reason, sum(counts.values(), Counter()), folder)
    n_clips = n_shards = 0
    busy = []
    for shard in shards:
        n_matching = sum(n for (status, text), n in counts[shard].items() if status is not Status.OK and text in reason)
        if not n_matching:
            continue
        try:
            _reset(shard, reason, n_matching)
        except TransientError:
            busy.append(shard.stem)
            continue
        n_clips += n_matching
        n_shards += 1
    what = f"{n_clips} clips in {n_shards} shards will be requested again ({', '.join(reason)})"
    log.info("retry: %s; run snakemake as before to fetch them", what)
    if busy:
        raise TransientError(f"{', '.join(busy)}: being fetched at the moment; repeat the command when that has ended")


def _check_reasons(given: list[str], counts: Counts, folder: Path) -> None:
    existing = {reason for status, reason in counts if status is not Status.OK}
    existing_text = f"existing reasons: {', '.join(sorted(existing)) or 'none'}"
    if not given:
        raise SsondoError(f"--reason is empty; {existing_text}")
    for reason in given:
        if reason not in existing:
            hint = did_you_mean(reason, existing)
            raise SsondoError(f"no clip in {folder} is missing for the reason {reason!r}{hint}; {existing_text}")


def _reset(shard: Path, reasons: list[str], n_clips: int) -> None:
    """Reset the clips in the ledger and, if the shard is finished, have its rule run again."""
    path = ledger_path(shard)
    if path.is_file():
        with Ledger(path, latest_source(path)) as opened:
            opened.reset(reasons)
    if shard.is_file():
        history = reset_path(shard)
        previous = history.read_text(encoding="utf-8") if history.is_file() else ""
        now = datetime.now(UTC).isoformat(timespec="microseconds")
        write_text(history, f"{previous}{now}\t{n_clips}\t{', '.join(reasons)}\n")
