"""Counts of clips by status and reason."""

import re
from collections import Counter
from collections.abc import Iterable

from ssondo.storage.shards.status import Status

Counts = Counter[tuple[Status, str]]
"""Number of clips by status and reason."""


def count_by_reason(statuses: Iterable[int], reasons: Iterable[str]) -> Counts:
    """Return the number of clips by status and reason, which are given for each clip in the same order."""
    # Statuses become enum members after counting: AudioSet has two million clips and few distinct pairs.
    counts = Counter(zip(statuses, reasons, strict=True))
    return Counter({(Status(status), reason): n for (status, reason), n in counts.items()})


def generalise_reason(reason: str) -> str:
    """Return a reason without its seconds and sizes, which differ between clips that share the reason."""
    return re.sub(r"\d+\.\d+|\(\d+ bytes\)", "#", reason)


def format_counts(counts: Counter[str], n_shown: int) -> str:
    """Return the most frequent reasons with their numbers, e.g. "3 private, 1 removed, 2 others"."""
    shown = counts.most_common(n_shown)
    n_others = counts.total() - sum(n for _, n in shown)
    return ", ".join([*(f"{n} {reason}" for reason, n in shown), *([f"{n_others} others"] if n_others else [])])
