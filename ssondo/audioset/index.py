"""Split AudioSet's segment lists into one list per shard, and count the irregular rows."""

import csv
import gc
import logging
import math
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ssondo.audioset.manifest import read_manifest
from ssondo.errors import SsondoError
from ssondo.storage.atomic_files import csv_text, write_json, write_text
from ssondo.storage.classes import CLASSES_HEADER, AudioClass, read_classes
from ssondo.storage.download import retrieve
from ssondo.storage.segments import SEGMENTS_HEADER, SPLITS, seconds_text, shard_name, shard_of

log = logging.getLogger(__name__)

_N_SHOWN_ROWS = 3
# A regular row, in the official form or a mirror's.
_REGULAR_ROW = re.compile(r"^([\w-]+), ?(\d+(?:\.\d+)?), ?(\d+(?:\.\d+)?)(?:,(.*))?$", re.MULTILINE | re.ASCII)
_BLOCK_LINES = 20_000
# Every file is flushed to the disk, so a writer mostly waits.
_N_WRITERS = 16
_IRREGULARITIES = {
    "duplicates": "rows of a video that is already listed",
    "overlapping": "of these overlapping the first in part",
    "also_in_eval": "clips that are also in the eval list",
    "bad_times": "rows with negative or inverted times",
    "unreadable": "rows that are not segments",
    "without_labels": "clips without labels",
    "unknown_labels": "labels that are not classes",
    "not_in_manifest": "clips left out because they are not in the manifest",
    "only_in_manifest": "clips of the manifest that are not in the lists",
}


@contextmanager
def _paused_gc() -> Iterator[None]:
    """Pause the garbage collector, which would search millions of rows for cycles that do not exist."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@_paused_gc()
def index(
    *,
    train: list[str],
    eval: list[str],
    classes: str,
    n_train_shards: int,
    n_eval_shards: int,
    out: Path,
    manifest: Path | None = None,
) -> None:
    """Split AudioSet's segment lists into one list per shard.

    A clip is identified by its video, so each video is used once per split: the first row is kept. A clip in both
    splits is used for evaluation only.

    Args:
        train: Lists of training segments: files or URLs, in AudioSet's format or in that of its mirrors.
        eval: Lists of evaluation segments: files or URLs.
        classes: AudioSet's class_labels_indices.csv as a file or URL; empty for a corpus without labels.
        n_train_shards: Number of training shards.
        n_eval_shards: Number of evaluation shards.
        out: Folder for {split}-{shard}.csv, classes.csv and summary.json.
        manifest: Manifest that `freeze` wrote; clips that it lacks are left out. By default all clips are used.

    Raises:
        SsondoError: If a list is missing or not a segment list, contains no clip of the manifest, or no training
            clips are left.
        TransientError: If a list cannot be downloaded.
    """
    began = time.monotonic()
    class_list = _read_class_list(classes)
    known_mids = {each.mid for each in class_list} if classes else None
    counts: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
    clips: dict[str, pd.DataFrame] = {}
    for split, sources in zip(SPLITS, (train, eval), strict=True):
        rows = [_read_list(source, f"audioset.segments.{split}", counts[split]) for source in sources]
        clips[split] = _unique_clips(rows, known_mids, counts[split])
    is_in_eval = clips["train"]["ytid"].isin(clips["eval"]["ytid"])
    counts["train"]["also_in_eval"] = int(is_in_eval.sum())
    clips["train"] = clips["train"][~is_in_eval]
    if manifest is not None:
        for split, frozen in read_manifest(manifest).times.items():
            clips[split] = _keep_frozen(clips[split], frozen, split, manifest, counts[split])
    if clips["train"].empty:
        raise SsondoError(_why_no_clips(counts["train"], train, manifest))
    class_rows = [(n, *each) for n, each in enumerate(class_list)]
    write_text(out / "classes.csv", csv_text([CLASSES_HEADER, *class_rows]))
    summary = {}
    for split, n_shards in zip(SPLITS, (n_train_shards, n_eval_shards), strict=True):
        summary[split] = {
            "rows": counts[split]["rows"],
            "clips": len(clips[split]),
            **{key: counts[split][key] for key in _IRREGULARITIES},
            "clips_of_shard": _write_shards(out, split, clips[split], n_shards),
        }
    write_json(out / "summary.json", {**summary, "n_classes": len(class_list)})
    for split in SPLITS:
        irregular = [f"{counts[split][key]} {text}" for key, text in _IRREGULARITIES.items() if counts[split][key]]
        if irregular:
            log.info("%s list: %s", split, ", ".join(irregular))
    n_train, n_eval = (len(clips[split]) for split in SPLITS)
    what = f"{n_train} train clips in {n_train_shards} shards, {n_eval} eval clips in {n_eval_shards}"
    log.info("index: %s, %d classes, %.1f s, in %s", what, len(class_list), time.monotonic() - began, out)


def _read_class_list(source: str) -> list[AudioClass]:
    """The classes of a file or URL; empty if there is no list."""
    if not source:
        return []
    with _local_file(source, "audioset.segments.classes") as path:
        classes = read_classes(path, what=source)
    if not classes:
        raise SsondoError(f"{source}: not AudioSet's class list; it has no rows")
    return classes


@contextmanager
def _local_file(source: str, key: str) -> Iterator[Path]:
    """The path of a local file, or of a download that exists while the block runs."""
    if source.startswith(("http://", "https://")):
        with tempfile.TemporaryDirectory(prefix="ssondo-") as folder:
            path = Path(folder, "list.csv")
            by_hand = f"or get it on a machine with network and set {key} to the file"
            retrieve(source, path, by_hand=by_hand)
            yield path
    elif Path(source).is_file():
        yield Path(source)
    else:
        raise SsondoError(f"{source}: no such file; set {key} to a file or URL")


def _read_list(source: str, key: str, counts: Counter[str]) -> pd.DataFrame:
    """The rows of one list that have valid times, with labels as the list has them; increases `counts`.

    `key` is the configuration key of the list, for error messages.
    """
    blocks = [_frame([])]
    n_rows = n_unreadable = 0
    has_header = False
    with _local_file(source, key) as path, path.open(encoding="utf-8", newline="") as lines:
        try:
            while block := list(islice(lines, _BLOCK_LINES)):
                rows = _REGULAR_ROW.findall("".join(block))
                if len(rows) < len(block):
                    parsed = [(line, _parse_row(source, line)) for line in block]
                    rows = [row for _, row in parsed if row is not None]
                    irregular = [line for line, row in parsed if row is None]
                    # A list with a header may be empty: list_folder writes one if no file is for evaluation. Without
                    # a header, an empty file is more likely an interrupted download.
                    has_header |= any("YTID" in line for line in irregular if line.startswith("#"))
                    n_unreadable += _report_unreadable(source, irregular, counts)
                n_rows += len(rows)
                blocks.append(_frame(rows))
        except (csv.Error, UnicodeDecodeError) as error:
            raise SsondoError(f"{source}: not an AudioSet segment list ({error})") from None
    segments = pd.concat(blocks, ignore_index=True)
    counts["bad_times"] += n_rows - len(segments)
    counts["rows"] += n_rows + n_unreadable
    if segments.empty and (n_rows + n_unreadable or not has_header):
        raise SsondoError(
            f'{source}: contains no segments; expected lines like: --PJHxphWEs,30,40,"/m/09x0r,/t/dd00088"; '
            "an intentionally empty list needs the header line: # YTID"
        )
    return segments


def _frame(rows: list[tuple[str, str, str, str]]) -> pd.DataFrame:
    """Id, start, end and labels of the rows with valid times."""
    frame = pd.DataFrame(rows, columns=list(SEGMENTS_HEADER), dtype=object)
    start_s = _map_distinct(frame["start_s"], _parse_seconds).astype(float)
    end_s = _map_distinct(frame["end_s"], _parse_seconds).astype(float)
    return frame.assign(start_s=start_s, end_s=end_s)[(start_s < end_s) & (end_s < math.inf)]


def _map_distinct(column: pd.Series, function: Callable[[Any], Any]) -> pd.Series:
    """Apply a function to a column, once for each distinct value."""
    codes, distinct = pd.factorize(column)
    results = np.empty(len(distinct), dtype=object)
    results[:] = [function(value) for value in distinct]
    # Of type object, as pandas' own type of strings would convert each text twice.
    return pd.Series(results[codes], column.index, dtype=object)


def _parse_seconds(text: str) -> float:
    """Seconds to the millisecond, as all lists have them; NaN if they are negative."""
    seconds = float(text)
    return round(seconds, 3) if seconds >= 0 else math.nan


def _parse_row(source: str, line: str) -> tuple[str, str, str, str] | None:
    """Id, start, end and labels of a line; None if it is not a segment."""
    parts = line.split(",", 3)
    if line.startswith('"'):
        row = next(csv.reader([line], skipinitialspace=True))
        parts = [*row[:3], ",".join(row[3:])]
    try:
        float(parts[1]), float(parts[2])
    except (ValueError, IndexError):
        return None
    if not (parts[0].isascii() and parts[0].isprintable() and parts[0]):
        raise SsondoError(f"{source}: clip id {parts[0]!r} is not plain ASCII; rename the clip")
    return parts[0], parts[1], parts[2], parts[3] if len(parts) > 3 else ""


def _report_unreadable(source: str, lines: Iterable[str], counts: Counter[str]) -> int:
    """Count and log the lines that are not segments; blank lines and comments are not rows.

    The name of a local file may begin with #, so only lines without times are comments.
    """
    unreadable = [line for line in lines if line.strip() and not line.startswith("#")]
    for line in unreadable[: max(0, _N_SHOWN_ROWS - counts["unreadable"])]:
        log.warning("%s: not a segment, left out: %s", source, line.strip()[:100])
    counts["unreadable"] += len(unreadable)
    return len(unreadable)


def _unique_clips(lists: list[pd.DataFrame], known_mids: set[str] | None, counts: Counter[str]) -> pd.DataFrame:
    """The first row of each video, with the known ones of its labels joined by semicolons."""
    rows = pd.concat([_frame([]), *lists], ignore_index=True)
    is_repeated = rows.duplicated("ytid")
    clips = rows[~is_repeated]
    repeated = rows[is_repeated].merge(clips, on="ytid", suffixes=("", "_first"))
    differs = (repeated["start_s"] != repeated["start_s_first"]) | (repeated["end_s"] != repeated["end_s_first"])
    intersects = (repeated["start_s"] < repeated["end_s_first"]) & (repeated["start_s_first"] < repeated["end_s"])
    counts["duplicates"] = len(repeated)
    counts["overlapping"] = int((differs & intersects).sum())
    codes, distinct = pd.factorize(clips["labels"])
    parsed = [_known_labels(text, known_mids) for text in distinct]
    labels = np.array([text for text, _ in parsed], dtype=object)
    n_unknown = np.array([n for _, n in parsed], dtype=np.int64)
    counts["unknown_labels"] = int(n_unknown[codes].sum())
    counts["without_labels"] = int((labels == "")[codes].sum())
    return clips.assign(labels=pd.Series(labels[codes], clips.index, dtype=object))


def _known_labels(text: str, known_mids: set[str] | None) -> tuple[str, int]:
    """The known labels in a list's last column, joined by semicolons, and the number of unknown ones."""
    mids = text.strip(' "\r\n').split(",")
    if known_mids is not None and known_mids.issuperset(mids) and len(set(mids)) == len(mids):
        return ";".join(mids), 0
    mids = [mid for part in text.split(",") if (mid := part.strip().strip('"'))]
    known = mids if known_mids is None else [mid for mid in mids if mid in known_mids]
    return ";".join(dict.fromkeys(known)), len(mids) - len(known)


def _keep_frozen(
    clips: pd.DataFrame, frozen: dict[str, tuple[float, float]], split: str, manifest: Path, counts: Counter[str]
) -> pd.DataFrame:
    """The clips that a manifest contains with the same times; logs the clips of the manifest that are not listed."""
    is_frozen = [frozen.get(ytid) == (start, end) for ytid, start, end, _ in clips.itertuples(index=False)]
    kept = clips[np.array(is_frozen, dtype=bool)]
    absent = frozen.keys() - set(kept["ytid"])
    counts["not_in_manifest"] = len(clips) - len(kept)
    counts["only_in_manifest"] = len(absent)
    if frozen and kept.empty:
        raise SsondoError(
            f"{manifest}: none of its {len(frozen)} {split} clips is in the lists; check audioset.segments"
        )
    if absent:
        what = f"{len(absent)} of its {len(frozen)} {split} clips"
        log.warning("%s: %s are not in the lists, or have other times (%s, ...)", manifest, what, min(absent))
    return kept


def _why_no_clips(counts: Counter[str], lists: list[str], manifest: Path | None) -> str:
    """The error message for a corpus without training clips."""
    n_clips = counts["rows"] - counts["duplicates"] - counts["bad_times"] - counts["unreadable"]
    if counts["also_in_eval"] == n_clips > 0:
        why = f"each of the {n_clips} is also in the eval list; set audioset.segments.eval to another list"
    elif manifest is not None:
        why = f"the manifest {manifest} has none; freeze one that does, or set audioset.manifest: null"
    else:
        why = "the list is empty; set audioset.segments.train to one with clips"
    return f"{', '.join(lists)}: no training clips are left: {why}"


def _write_shards(out: Path, split: str, clips: pd.DataFrame, n_shards: int) -> list[int]:
    """Write a split's lists, including empty ones, sorted by id; return the number of clips in each."""
    times = [_map_distinct(clips[column], seconds_text) for column in ("start_s", "end_s")]
    columns = [column.to_numpy() for column in (clips["ytid"], *times, clips["labels"])]
    shards = np.array([shard_of(ytid, n_shards) for ytid in columns[0]], dtype=np.int64)
    n_clips = np.bincount(shards, minlength=n_shards)
    rows_of = np.split(np.argsort(shards, kind="stable"), np.cumsum(n_clips)[:-1])
    with ThreadPoolExecutor(_N_WRITERS) as pool:
        writing = []
        for shard, rows in enumerate(rows_of):
            text = _segments_text(sorted(zip(*(column[rows] for column in columns), strict=True)))
            writing.append(pool.submit(write_text, out / f"{shard_name(split, shard)}.csv", text))
        for written in writing:
            written.result()
    return n_clips.tolist()


def _segments_text(rows: list[tuple[str, ...]]) -> str:
    """A list of segments as CSV text."""
    table = [SEGMENTS_HEADER, *rows]
    text = "".join([",".join(row) + "\n" for row in table])
    # Fields rarely need quotes, and the csv module takes several times as long; pandas' to_csv takes even longer.
    n_commas = (len(SEGMENTS_HEADER) - 1) * len(table)
    is_plain = text.count(",") == n_commas and '"' not in text and "\r" not in text
    return text if is_plain else csv_text(table)
