"""Report how many clips of the corpus are present: by split, reason and class, as tables, a plot and lists of clips."""

import logging
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from ssondo.errors import SsondoError
from ssondo.storage.atomic_files import clip_list_digest, save_figure, write_csv, write_json, write_text
from ssondo.storage.classes import read_classes
from ssondo.storage.segments import SPLITS, read_segments, shard_names
from ssondo.storage.shards.audio import AudioShard
from ssondo.storage.shards.reasons import generalise_reason
from ssondo.storage.shards.status import Status

if TYPE_CHECKING:
    from matplotlib.axes import Axes

log = logging.getLogger(__name__)

_STATUS_COLUMNS = {Status.OK: "available", Status.UNAVAILABLE: "unavailable", Status.FAILED: "failed"}
_N_SHOWN_REASONS = 12
_N_SHOWN_CLASSES = 10
# In inches, of each of the two plots; narrow enough to stay legible on a telephone.
_PLOT_WIDTH, _PLOT_HEIGHT = 5.2, 3.7


def availability(*, index: Path, audio: Path, n_train_shards: int, n_eval_shards: int, out: Path) -> None:
    """Report how many clips are present, by split, reason and class, and list them.

    Args:
        index: Folder of the segment lists and classes.csv.
        audio: Folder of the resampled shards.
        n_train_shards: Number of training shards.
        n_eval_shards: Number of evaluation shards.
        out: Folder for availability.json, .md, .csv (by class) and .png, and available-{split}.txt (one clip per
            line). They count the clips that are listed, available, unavailable (a permanent reason) and failed (a
            reason that may be temporary).

    Raises:
        SsondoError: If a list or a shard is missing, or they do not contain the same clips.
    """
    clips = pd.concat(
        [
            _read_shard(split, index / f"{name}.csv", audio / f"{name}.h5")
            for split, name in shard_names(n_train_shards, n_eval_shards)
        ],
        ignore_index=True,
    )
    names = {each.mid: each.display_name for each in read_classes(index / "classes.csv")}
    by_reason = clips.groupby(["split", "status", "reason"]).size().reset_index(name="n")
    by_class = _count_by_class(clips, names)
    present = {split: clips["ytid"][(clips["split"] == split) & (clips["status"] == Status.OK)] for split in SPLITS}
    for split, ids in present.items():
        write_text(out / f"available-{split}.txt", "".join(f"{clip}\n" for clip in sorted(ids)))
    summary = {split: _summary(by_reason[by_reason["split"] == split], present[split]) for split in SPLITS}
    write_json(out / "availability.json", summary)
    write_csv(out / "availability.csv", by_class)
    write_text(out / "availability.md", _markdown(summary, by_reason, by_class))
    _plot(summary, by_reason, by_class, out / "availability.png")
    log.info(
        "availability: %s; %s",
        ", ".join(f"{numbers['n_ok']} of {numbers['n_listed']} {split} clips" for split, numbers in summary.items()),
        out / "availability.md",
    )


def _read_shard(split: str, segments: Path, audio: Path) -> pd.DataFrame:
    """Split, id, status, reason and labels of each clip of a shard."""
    labels = {segment.ytid: segment.labels for segment in read_segments(segments)}
    with AudioShard(audio) as shard:
        if set(shard.clip_ids) != labels.keys():
            raise SsondoError(f"{audio}: does not contain the clips of {segments}; run snakemake again")
        clips = pd.DataFrame({"split": split, "ytid": shard.clip_ids, "status": shard.status, "reason": shard.reasons})
        clips["labels"] = pd.Series([labels[clip] for clip in shard.clip_ids], dtype=object)
    generalised = {reason: generalise_reason(reason) for reason in clips["reason"].unique()}
    # The reason of a clip that is present says how it was changed, e.g. that it was padded.
    return clips.assign(reason=clips["reason"].map(generalised).where(clips["status"] != Status.OK, ""))


def _count_by_class(clips: pd.DataFrame, names: Mapping[str, str]) -> pd.DataFrame:
    """One row per class: mid, display_name, and for each split how many clips are listed, available and missing.

    Classes are in the order of the class list; labels that are not in it follow, sorted.
    """
    labelled = clips[["split", "status", "labels"]].explode("labels").dropna()
    mids = [*names, *sorted(set(labelled["labels"]) - names.keys())]
    table = pd.DataFrame({"mid": mids, "display_name": [names.get(mid, "") for mid in mids]})
    for split in SPLITS:
        of_split = labelled[labelled["split"] == split]
        columns = {"listed": of_split["labels"]}
        columns |= {name: of_split["labels"][of_split["status"] == status] for status, name in _STATUS_COLUMNS.items()}
        for name, labels in columns.items():
            table[f"{split}_{name}"] = labels.value_counts().reindex(mids, fill_value=0).to_numpy()
    return table


def _summary(by_reason: pd.DataFrame, present: "pd.Series[str]") -> dict[str, Any]:
    """The numbers of a split, for other programs."""
    missing = by_reason[by_reason["status"] != Status.OK]
    n_missing = {status: int(missing["n"][missing["status"] == status].sum()) for status in Status}
    reasons: dict[str, dict[str, int]] = {}
    for status, reason, n in missing[["status", "reason", "n"]].itertuples(index=False):
        reasons.setdefault(Status(status).name, {})[reason] = n
    return {
        "n_listed": int(by_reason["n"].sum()),
        "n_ok": len(present),
        "n_unavailable": n_missing[Status.UNAVAILABLE],
        "n_failed": n_missing[Status.FAILED],
        "clip_list_sha256": clip_list_digest(present),
        "reasons": reasons,
    }


def _percentage(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "–"


def _markdown(summary: Mapping[str, Mapping[str, Any]], by_reason: pd.DataFrame, by_class: pd.DataFrame) -> str:
    """The tables for readers."""
    lines = ["# Availability", "", "| split | listed | available | share | unavailable | failed |"]
    lines.append("|---|--:|--:|--:|--:|--:|")
    for split, numbers in summary.items():
        n_listed, n_ok = numbers["n_listed"], numbers["n_ok"]
        missing = f"{numbers['n_unavailable']:,} | {numbers['n_failed']:,}"
        lines.append(f"| {split} | {n_listed:,} | {n_ok:,} | {_percentage(n_ok, n_listed)} | {missing} |")
    reasons = by_reason[by_reason["status"] != Status.OK]
    if len(reasons):
        lines += ["", "| split | reason | temporary | clips |", "|---|---|---|--:|"]
    for split in SPLITS:
        rows = reasons[reasons["split"] == split].sort_values(["n", "reason"], ascending=[False, True])
        for status, reason, n in rows[["status", "reason", "n"]].itertuples(index=False):
            lines.append(f"| {split} | {reason} | {'yes' if status == Status.FAILED else 'no'} | {n:,} |")
    listed = by_class[by_class["train_listed"] > 0]
    if len(listed):
        lines += ["", "Classes of which the most is missing, training clips:", ""]
        lines += ["| class | listed | available | share |", "|---|--:|--:|--:|"]
    shares = listed.assign(share=listed["train_available"] / listed["train_listed"]).sort_values(["share", "mid"])
    columns = ["mid", "display_name", "train_listed", "train_available"]
    for mid, name, n_listed, n_available in shares.head(_N_SHOWN_CLASSES)[columns].to_numpy():
        lines.append(f"| {name or mid} | {n_listed:,} | {n_available:,} | {_percentage(n_available, n_listed)} |")
    return "\n".join(lines) + "\n"


def _plot(
    summary: Mapping[str, Mapping[str, Any]], by_reason: pd.DataFrame, by_class: pd.DataFrame, path: Path
) -> None:
    """Plot the most frequent reasons as bars and, for labelled clips, the share of each class that is present."""
    from matplotlib.figure import Figure

    shares = {}
    for split in SPLITS:
        listed = by_class[by_class[f"{split}_listed"] > 0]
        shares[split] = sorted(100 * (listed[f"{split}_available"] / listed[f"{split}_listed"]))
    n_plots = 1 + any(shares.values())
    figure = Figure(figsize=(_PLOT_WIDTH, _PLOT_HEIGHT * n_plots), layout="constrained")
    subfigures = figure.subfigures(n_plots, 1, squeeze=False)[:, 0]
    _plot_reasons(summary, by_reason, subfigures[0].subplots())
    if n_plots == 2:
        axes = subfigures[1].subplots()
        for split, values in shares.items():
            axes.plot(range(1, len(values) + 1), values, label=split, marker="." if len(values) < 20 else "")
        axes.set(xlabel="class, by its share", ylabel="% of its clips that are available", ylim=(0, 102))
        axes.set_title("availability by class")
        axes.legend()
    save_figure(path, figure)


def _plot_reasons(summary: Mapping[str, Mapping[str, Any]], by_reason: pd.DataFrame, axes: "Axes") -> None:
    """Plot the most frequent reasons, the first on top, with one bar per split."""
    missing = by_reason[by_reason["status"] != Status.OK]
    totals = missing.groupby("reason")["n"].sum().reset_index().sort_values(["n", "reason"], ascending=[False, True])
    shown = list(totals["reason"][:_N_SHOWN_REASONS])[::-1]
    for split, offset in zip(SPLITS, (0.2, -0.2), strict=True):
        n_of_reason = missing[missing["split"] == split].groupby("reason")["n"].sum()
        values = [100 * n_of_reason.get(reason, 0) / max(summary[split]["n_listed"], 1) for reason in shown]
        axes.barh([position + offset for position in range(len(shown))], values, height=0.4, label=split)
    axes.set_yticks(range(len(shown)), [textwrap.shorten(reason, 30, placeholder=" ...") for reason in shown])
    axes.set_xlabel("% of the listed clips")
    axes.set_title("why clips are missing" if shown else "no clip is missing")
    axes.legend()
