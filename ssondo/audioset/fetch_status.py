"""The ledger for people: how the clips of a corpus ended, and having one reason asked for again."""

import difflib
import logging
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from ssondo.audioset.ledger import Ledger, counted, latest_source, ledger_path, read_ledger, reopened_path
from ssondo.errors import SsondoError, TransientError
from ssondo.storage.atomic_files import write_text
from ssondo.storage.segments import read_segments
from ssondo.storage.shards.audio import AudioShard
from ssondo.storage.shards.status import Status

log = logging.getLogger(__name__)

_Counts = Counter[tuple[Status, str]]


def ledger(*, folder: Path = Path("data/fetched"), index: Path | None = None) -> None:
    """Say how the clips ended, by split and reason, also of shards that are being fetched now.

    Args:
        folder: of the fetched shards and their ledgers.
        index: folder of the segment lists, to tell how many were not asked for yet; the folder index
            beside `folder` if there is one.

    Raises:
        SsondoError: if there are neither shards nor ledgers.
    """
    lists = index if index is not None else folder.parent / "index"
    for split in ("train", "eval"):
        shards = _shards(folder, split)
        counts: _Counts = sum((_counts(shard) for shard in shards), Counter())
        listed = sorted(lists.glob(f"{split}-*.csv"))
        n_listed = sum(len(read_segments(path)) for path in listed) if listed else None
        if not counts and not n_listed:
            continue
        finished = sum(shard.is_file() for shard in shards)
        waiting = "" if n_listed is None else f", {n_listed - counts.total():,} of {n_listed:,} not asked for yet"
        log.info("%s: %d shards finished of %d begun%s", split, finished, len(shards), waiting)
        for status in Status:
            reasons = {reason: n for (found, reason), n in counts.items() if found is status}
            log.info("  %10s  %s", f"{sum(reasons.values()):,}", status.name.lower())
            for reason, n in sorted(reasons.items(), key=lambda item: (-item[1], item[0])):
                if reason:
                    log.info("  %10s    %s", f"{n:,}", reason)
    if not any(_shards(folder, split) for split in ("train", "eval")):
        raise SsondoError(f"{folder}: no fetched shards and no ledgers; give the right one with --folder")


def retry(*, reason: list[str], folder: Path = Path("data/fetched")) -> None:
    """Have clips that ended for a reason asked for again, and no others; then run snakemake.

    Snakemake runs exactly the shards that have such clips: a small file beside each says so.

    Args:
        reason: as `ssondo ledger` words it, e.g. "private"; several may be given.
        folder: of the fetched shards and their ledgers.

    Raises:
        SsondoError: if no reason is given, or no clip ended for such a one.
        TransientError: if a shard is being fetched at the moment; the others are done.
    """
    shards = [shard for split in ("train", "eval") for shard in _shards(folder, split)]
    counts = {shard: _counts(shard) for shard in shards}
    known: _Counts = sum(counts.values(), Counter())
    reasons = {text for status, text in known if status is not Status.OK}
    there_are = f"there are: {', '.join(sorted(reasons)) or 'none'}"
    if not reason:
        raise SsondoError(f"no reason is given; {there_are}")
    for text in reason:
        if text not in reasons:
            near = difflib.get_close_matches(text, reasons, 1, 0.4)
            hint = f"did you mean {near[0]!r}?" if near else there_are
            raise SsondoError(f"no clip in {folder} ended for {text!r}; {hint}")
    n_clips, n_shards, busy = 0, 0, []
    for shard in shards:
        here = sum(n for (status, text), n in counts[shard].items() if status is not Status.OK and text in reason)
        if not here:
            continue
        try:
            _reopen(shard, reason, here)
        except TransientError:
            busy.append(shard.stem)
            continue
        n_clips += here
        n_shards += 1
    log.info(
        "retry: %d clips in %d shards are open again (%s); run snakemake as before, it fetches those shards anew",
        n_clips,
        n_shards,
        ", ".join(reason),
    )
    if busy:
        raise TransientError(f"{', '.join(busy)}: being fetched at the moment; repeat the command when that has ended")


def _shards(folder: Path, split: str) -> list[Path]:
    """The fetched shards of a split, those too of which there is only a ledger yet."""
    names = {path.stem for suffix in ("h5", "ledger") for path in folder.glob(f"{split}-*.{suffix}")}
    return [folder / f"{name}.h5" for name in sorted(names)]


def _counts(shard: Path) -> _Counts:
    """How the clips of a shard ended; of one that is not finished, those that were asked for."""
    if shard.is_file():
        with AudioShard(shard) as opened:
            return Counter(zip(map(Status, opened.status.tolist()), opened.reasons, strict=True))
    return counted(read_ledger(ledger_path(shard)))


def _reopen(shard: Path, reasons: list[str], n_clips: int) -> None:
    """Open the clips in the ledger, and have a finished shard made again."""
    path = ledger_path(shard)
    if path.is_file():
        with Ledger(path, latest_source(path)) as opened:
            opened.reopen(reasons)
    if shard.is_file():
        note = reopened_path(shard)
        before = note.read_text(encoding="utf-8") if note.is_file() else ""
        now = datetime.now(UTC).isoformat(timespec="microseconds")
        write_text(note, f"{before}{now}\t{n_clips}\t{', '.join(reasons)}\n")
