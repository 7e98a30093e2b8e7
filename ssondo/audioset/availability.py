"""How much of the corpus there is: by split, by reason and by class, as a table, a plot and lists to hand on."""

import csv
import io
import logging
import textwrap
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ssondo.audioset.reasons import shared_reason
from ssondo.errors import SsondoError
from ssondo.storage.atomic_files import atomic_write, clip_list_digest, write_json, write_text
from ssondo.storage.segments import read_segments, shard_name
from ssondo.storage.shards.audio import AudioShard
from ssondo.storage.shards.status import Status

if TYPE_CHECKING:
    from matplotlib.axes import Axes

log = logging.getLogger(__name__)

_SPLITS = ("train", "eval")
_SHOWN_REASONS = 12
_SHOWN_CLASSES = 10
# In inches, for each part; so narrow that a telephone shows it without making its text much smaller.
_PLOT_WIDTH, _PLOT_HEIGHT = 5.2, 3.7


class _Split:
    """What there is of a split."""

    def __init__(self) -> None:
        self.endings: Counter[tuple[Status, str]] = Counter()
        self.there: list[str] = []
        self.of_class: dict[Status, Counter[str]] = {status: Counter() for status in Status}

    def add(self, segments: Path, audio: Path) -> None:
        """Count a shard.

        Raises:
            SsondoError: if the shard is not of this list.
        """
        labels = {segment.ytid: segment.labels for segment in read_segments(segments)}
        with AudioShard(audio) as shard:
            if set(shard.clip_ids) != labels.keys():
                raise SsondoError(f"{audio}: does not hold the clips of {segments}; run snakemake again")
            # AudioSet has two million clips: what is done clip by clip is left to C.
            for (status, reason), n in Counter(zip(shard.status.tolist(), shard.reasons, strict=True)).items():
                self.endings[Status(status), "" if status == Status.OK else shared_reason(reason)] += n
            for status, counts in self.of_class.items():
                clips = [shard.clip_ids[row] for row in np.flatnonzero(shard.status == status)]
                counts.update(chain.from_iterable(map(labels.__getitem__, clips)))
                if status is Status.OK:
                    self.there += clips

    @property
    def n_listed(self) -> int:
        """Clips in the list."""
        return self.endings.total()

    def ended(self, status: Status) -> int:
        """Clips that ended so."""
        return sum(n for (found, _), n in self.endings.items() if found is status)

    @property
    def listed_of_class(self) -> Counter[str]:
        """Clips in the list, by class."""
        return sum(self.of_class.values(), Counter())

    def shares_of_class(self) -> dict[str, float]:
        """Share of the listed clips that is there, by class, the lowest first."""
        there = self.of_class[Status.OK]
        shares = {mid: there[mid] / n for mid, n in self.listed_of_class.items()}
        return dict(sorted(shares.items(), key=lambda item: item[::-1]))


def availability(*, index: Path, audio: Path, n_train_shards: int, n_eval_shards: int, out: Path) -> None:
    """Say how many clips there are, by split, reason and class, and list them.

    Args:
        index: folder of the segment lists and classes.csv.
        audio: folder of the resampled shards.
        n_train_shards: number of training shards.
        n_eval_shards: number of evaluation shards.
        out: folder for availability.json, .md, .csv (by class) and .png, and available-{split}.txt (a clip a line).
            In them a clip is listed, and then there, unavailable (which lasts) or failed (which may pass).

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
        "n_unavailable": found.ended(Status.UNAVAILABLE),
        "n_failed": found.ended(Status.FAILED),
        "clip_list_sha256": clip_list_digest(found.there),
        "reasons": {status: counts for status, counts in reasons.items() if status != "OK"},
    }


def _by_class(splits: Mapping[str, _Split], names: Mapping[str, str]) -> str:
    """A row a class: how many of its clips are listed, and how those ended."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    endings = {"there": Status.OK, "unavailable": Status.UNAVAILABLE, "failed": Status.FAILED}
    columns = {
        f"{split}_{what}": counts
        for split in _SPLITS
        for what, counts in {
            "listed": splits[split].listed_of_class,
            **{what: splits[split].of_class[status] for what, status in endings.items()},
        }.items()
    }
    writer.writerow(["mid", "display_name", *columns])
    for mid in [*names, *sorted({mid for counts in columns.values() for mid in counts} - names.keys())]:
        writer.writerow([mid, names.get(mid, ""), *(counts[mid] for counts in columns.values())])
    return text.getvalue()


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "–"


def _markdown(splits: Mapping[str, _Split], names: Mapping[str, str]) -> str:
    """The tables for people."""
    lines = ["# Availability", "", "| split | listed | there | share | unavailable | failed |"]
    lines.append("|---|--:|--:|--:|--:|--:|")
    for split, found in splits.items():
        n_there = len(found.there)
        absent = [f"{found.ended(status):,}" for status in (Status.UNAVAILABLE, Status.FAILED)]
        share = _share(n_there, found.n_listed)
        lines.append(f"| {split} | {found.n_listed:,} | {n_there:,} | {share} | {' | '.join(absent)} |")
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
    if rarest := list(train.shares_of_class())[:_SHOWN_CLASSES]:
        lines += ["", "Classes of which the most is missing, training clips:", ""]
        lines += ["| class | listed | there | share |", "|---|--:|--:|--:|"]
        all_listed = train.listed_of_class
        for mid in rarest:
            listed, there = all_listed[mid], train.of_class[Status.OK][mid]
            lines.append(f"| {names.get(mid) or mid} | {listed:,} | {there:,} | {_share(there, listed)} |")
    return "\n".join(lines) + "\n"


def _plot(splits: Mapping[str, _Split], path: Path) -> None:
    """Bars of the reasons, and below them the share that is there over classes, where clips have some."""
    from matplotlib.figure import Figure

    shares = {split: [100 * share for share in found.shares_of_class().values()] for split, found in splits.items()}
    n_parts = 1 + any(shares.values())
    figure = Figure(figsize=(_PLOT_WIDTH, _PLOT_HEIGHT * n_parts), layout="constrained")
    parts = figure.subfigures(n_parts, 1, squeeze=False)[:, 0]
    _plot_reasons(splits, parts[0].subplots())
    if n_parts == 2:
        axes = parts[1].subplots()
        for split, values in shares.items():
            axes.plot(range(1, len(values) + 1), values, label=split, marker="." if len(values) < 20 else "")
        axes.set(xlabel="class, by its share", ylabel="% of its clips that are there", ylim=(0, 102))
        axes.set_title("availability by class")
        axes.legend()
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120, metadata={"Software": None})


def _plot_reasons(splits: Mapping[str, _Split], axes: "Axes") -> None:
    """The commonest reasons, the first one on top, a bar for each split."""
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
        axes.barh([place + shift for place in places], values, height=0.4, label=split)
    axes.set_yticks(list(places), [textwrap.shorten(reason, 30, placeholder=" ...") for reason in shown])
    axes.set_xlabel("% of the listed clips")
    axes.set_title("why clips are missing" if shown else "no clip is missing")
    axes.legend()
