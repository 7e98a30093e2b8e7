"""How much of the corpus there is: by split, by reason and by class, as a table, a plot and lists to hand on."""

import csv
import io
import logging
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ssondo.artefacts import clip_list_digest, replacing, write_json, write_text
from ssondo.errors import SsondoError
from ssondo.inventory import shared_reason
from ssondo.segments import read_segments, shard_name
from ssondo.shards.audio import AudioShard
from ssondo.shards.status import Status

log = logging.getLogger(__name__)

_SPLITS = ("train", "eval")
_SHOWN_REASONS = 12
_SHOWN_CLASSES = 10


class _Split:
    """What there is of a split."""

    def __init__(self) -> None:
        self.endings: Counter[tuple[Status, str]] = Counter()
        self.there: list[str] = []
        self.listed_of_class: Counter[str] = Counter()
        self.there_of_class: Counter[str] = Counter()

    def add(self, segments: Path, audio: Path) -> None:
        """Count a shard.

        Raises:
            SsondoError: if the shard is not of this list.
        """
        labels = {segment.ytid: segment.labels for segment in read_segments(segments)}
        with AudioShard(audio) as shard:
            if set(shard.clip_ids) != labels.keys():
                raise SsondoError(f"{audio}: does not hold the clips of {segments}; run snakemake again")
            for row, clip in enumerate(shard.clip_ids):
                status = Status(shard.status[row])
                self.endings[status, "" if status is Status.OK else shared_reason(shard.reasons[row])] += 1
                self.listed_of_class.update(labels[clip])
                if status is Status.OK:
                    self.there.append(clip)
                    self.there_of_class.update(labels[clip])

    @property
    def n_listed(self) -> int:
        """Clips in the list."""
        return self.endings.total()


def availability(*, index: Path, audio: Path, n_train_shards: int, n_eval_shards: int, out: Path) -> None:
    """Say how many clips there are, by split, reason and class, and list them.

    Args:
        index: folder of the segment lists and classes.csv.
        audio: folder of the resampled shards.
        n_train_shards: number of training shards.
        n_eval_shards: number of evaluation shards.
        out: folder for availability.json, .md, .csv (by class) and .png, and available-{split}.txt (a clip a line).

    Raises:
        SsondoError: if a list or a shard is missing, or they do not belong together.
    """
    splits = {split: _Split() for split in _SPLITS}
    for split, n_shards in (("train", n_train_shards), ("eval", n_eval_shards)):
        for shard in range(n_shards):
            name = shard_name(split, shard)
            splits[split].add(index / f"{name}.csv", audio / f"{name}.h5")
    with (index / "classes.csv").open(encoding="utf-8", newline="") as file:
        names = {row["mid"]: row["display_name"] for row in csv.DictReader(file)}
    for split, found in splits.items():
        write_text(out / f"available-{split}.txt", "".join(f"{clip}\n" for clip in sorted(found.there)))
    write_json(out / "availability.json", {split: _summary(found) for split, found in splits.items()})
    write_text(out / "availability.csv", _by_class(splits, names))
    write_text(out / "availability.md", _markdown(splits, names))
    _plot(splits, out / "availability.png")
    log.info(
        "availability: %s; %s",
        ", ".join(f"{len(found.there)} of {found.n_listed} {split} clips" for split, found in splits.items()),
        out / "availability.md",
    )


def _summary(found: _Split) -> dict[str, Any]:
    """A split's numbers, for other programs."""
    reasons: dict[str, dict[str, int]] = defaultdict(dict)
    for (status, reason), n in found.endings.items():
        reasons[status.name][reason] = n
    return {
        "n_listed": found.n_listed,
        "n_ok": len(found.there),
        "clip_list_sha256": clip_list_digest(found.there),
        "reasons": {status: counts for status, counts in reasons.items() if status != "OK"},
    }


def _by_class(splits: Mapping[str, _Split], names: Mapping[str, str]) -> str:
    """A row a class: how many of its clips are listed and there."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["mid", "display_name", *(f"{split}_{what}" for split in _SPLITS for what in ("listed", "there"))])
    for mid in [*names, *sorted({mid for found in splits.values() for mid in found.listed_of_class} - names.keys())]:
        counts = [
            n for split in _SPLITS for n in (splits[split].listed_of_class[mid], splits[split].there_of_class[mid])
        ]
        writer.writerow([mid, names.get(mid, ""), *counts])
    return text.getvalue()


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "–"


def _markdown(splits: Mapping[str, _Split], names: Mapping[str, str]) -> str:
    """The tables for people."""
    lines = ["# Availability", "", "| split | listed | there | share |", "|---|--:|--:|--:|"]
    for split, found in splits.items():
        n_there = len(found.there)
        lines.append(f"| {split} | {found.n_listed:,} | {n_there:,} | {_share(n_there, found.n_listed)} |")
    missing = [
        (n, split, status, reason)
        for split, found in splits.items()
        for (status, reason), n in found.endings.items()
        if status is not Status.OK
    ]
    if missing:
        lines += ["", "| split | why not | may pass | clips |", "|---|---|---|--:|"]
        for n, split, status, reason in sorted(missing, key=lambda row: (row[1] != "train", -row[0], row[3])):
            lines.append(f"| {split} | {reason} | {'yes' if status is Status.FAILED else 'no'} | {n:,} |")
    train = splits["train"]
    if train.listed_of_class:
        rarest = sorted(
            train.listed_of_class, key=lambda mid: (train.there_of_class[mid] / train.listed_of_class[mid], mid)
        )
        lines += ["", "Classes of which the most is missing, training clips:", ""]
        lines += ["| class | listed | there | share |", "|---|--:|--:|--:|"]
        for mid in rarest[:_SHOWN_CLASSES]:
            listed, there = train.listed_of_class[mid], train.there_of_class[mid]
            lines.append(f"| {names.get(mid) or mid} | {listed:,} | {there:,} | {_share(there, listed)} |")
    return "\n".join(lines) + "\n"


def _plot(splits: Mapping[str, _Split], path: Path) -> None:
    """Bars of the reasons, and the share that is there over classes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4), layout="constrained")
    reasons = Counter[str]()
    for found in splits.values():
        reasons.update({reason: n for (status, reason), n in found.endings.items() if status is not Status.OK})
    shown = [reason for reason, _ in reasons.most_common(_SHOWN_REASONS)][::-1]
    places: Sequence[float] = range(len(shown))
    for split, shift in zip(_SPLITS, (0.2, -0.2), strict=True):
        found = splits[split]
        values = [
            100 * sum(n for (_, text), n in found.endings.items() if text == reason) / max(found.n_listed, 1)
            for reason in shown
        ]
        left.barh([place + shift for place in places], values, height=0.4, label=split)
    left.set_yticks(list(places), shown)
    left.set_xlabel("% of the listed clips")
    left.set_title("why clips are missing")
    left.legend()
    for split in _SPLITS:
        found = splits[split]
        shares = sorted(100 * found.there_of_class[mid] / n for mid, n in found.listed_of_class.items())
        right.plot(range(1, len(shares) + 1), shares, label=split)
    right.set_xlabel("class, by its share")
    right.set_ylabel("% of its clips that are there")
    right.set_ylim(0, 102)
    right.set_title("availability by class")
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120, metadata={"Software": None})
    pyplot.close(figure)
