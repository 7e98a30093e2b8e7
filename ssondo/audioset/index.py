"""Cut segment lists into one list a shard, counting what is odd about their rows."""

import csv
import io
import logging
import math
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache, partial
from itertools import islice
from pathlib import Path

from ssondo.audioset.manifest import read_manifest
from ssondo.errors import SsondoError
from ssondo.storage.atomic_files import write_json, write_text
from ssondo.storage.download import retrieve
from ssondo.storage.segments import HEADER, SOUND_SUFFIXES, hash64, seconds_text, shard_name, shard_of

log = logging.getLogger(__name__)

_CLASSES_HEADER = ("index", "mid", "display_name")
_LIST_HEADER = ("# YTID", " start_seconds", " end_seconds", " positive_labels")
_SHOWN_ODDITIES = 3


_Times = tuple[float, float]
"""Start and end in seconds."""

_Clip = tuple[_Times, str]
"""Times, and the labels joined by semicolons."""

# A row with nothing odd about it, in the official form or a mirror's.
_PLAIN_ROW = re.compile(r"^([\w-]+), ?(\d+(?:\.\d+)?), ?(\d+(?:\.\d+)?)(?:,(.*))?$", re.MULTILINE | re.ASCII)
_LINES_AT_ONCE = 5_000


class _List:
    """The clips of one split, by id, and what was odd about their rows."""

    def __init__(self) -> None:
        self.clips: dict[str, _Clip] = {}
        self.counts: Counter[str] = Counter()
        self._headed = False

    def read(self, name: str, lines: Iterable[str], known: set[str] | None) -> None:
        """Add the rows of an AudioSet list, official or mirrored.

        Args:
            name: of the list, for messages.
            lines: its text.
            known: mids of the classes; None if there are no classes to compare with.
        """
        n_rows, n_bad_before = 0, self.counts["bad_times"]
        labels_of = cache(partial(_labels, known=known))
        remaining = iter(lines)
        try:
            while block := list(islice(remaining, _LINES_AT_ONCE)):
                # Two million rows pass here: one search takes a block of plain ones apart.
                rows = _PLAIN_ROW.findall("".join(block))
                if len(rows) < len(block):
                    rows = [row for line in block if (row := self._row(name, line)) is not None]
                n_rows += len(rows)
                self._add(rows, labels_of)
        except (csv.Error, UnicodeDecodeError) as error:
            raise SsondoError(f"{name}: not an AudioSet segment list ({error})") from None
        n_segments = n_rows - (self.counts["bad_times"] - n_bad_before)
        n_rows += self.counts.pop("unreadable here", 0)
        if not n_segments and (n_rows or not self._headed):
            raise SsondoError(
                f'{name}: holds no segments; expected lines like: --PJHxphWEs,30,40,"/m/09x0r,/t/dd00088"'
            )
        self.counts["rows"] += n_rows

    def _row(self, name: str, line: str) -> tuple[str, str, str, str] | None:
        """Id, start, end and labels of a line; None, and counted, if it is no segment."""
        parts = line.split(",", 3) if line[:1] != '"' else _csv_parts(line)
        try:
            float(parts[1]), float(parts[2])
        except (ValueError, IndexError):
            self.counts["unreadable here"] += self._note_odd(name, line)
            return None
        if not (parts[0].isascii() and parts[0].isprintable() and parts[0]):
            raise SsondoError(f"{name}: clip id {parts[0]!r} is not plain ASCII; rename the clip")
        return parts[0], parts[1], parts[2], parts[3] if len(parts) > 3 else ""

    def _add(self, rows: Iterable[tuple[str, str, str, str]], labels_of: Callable[[str], tuple[str, int]]) -> None:
        """Add clips, the first of a video alone."""
        clips, counts = self.clips, self.counts
        n_unknown = n_without = 0
        for ytid, start, end, text in rows:
            times = _times(start, end)
            if times is None:
                counts["bad_times"] += 1
            elif ytid in clips:
                counts["duplicates"] += 1
                counts["overlapping"] += _overlap(clips[ytid][0], times)
            else:
                labels, unknown = labels_of(text)
                clips[ytid] = (times, labels)
                n_unknown += unknown
                n_without += not labels
        counts.update(unknown_labels=n_unknown, without_labels=n_without)

    def _note_odd(self, name: str, line: str) -> bool:
        """Count and show a line that is no segment; blank lines and comments are no rows at all.

        A local file's name may begin with #, so only lines without times are comments.
        """
        if not line.strip() or line.startswith("#"):
            # A list with the line of column names may be empty: of a folder without a share for evaluation.
            self._headed |= "YTID" in line
            return False
        self.counts["unreadable"] += 1
        if self.counts["unreadable"] <= _SHOWN_ODDITIES:
            log.warning("%s: not a segment, left out: %s", name, line.strip()[:100])
        return True


def _csv_parts(line: str) -> list[str]:
    """Id, start, end and labels of a line with a quoted id."""
    row = next(csv.reader([line], skipinitialspace=True))
    return [*row[:3], ",".join(row[3:])]


@cache
def _times(start: str, end: str) -> _Times | None:
    """Start and end in seconds, to the millisecond as all lists have them; None if they are none of a segment."""
    start_s, end_s = float(start), float(end)
    rounded = round(start_s, 3), round(end_s, 3)
    return rounded if start_s >= 0 and rounded[0] < rounded[1] < math.inf else None


def _labels(text: str, known: set[str] | None) -> tuple[str, int]:
    """The known labels of a list's last column, joined by semicolons, and the number of unknown ones."""
    mids = text.strip(' "\r\n').split(",")
    if known is not None and known.issuperset(mids) and len(set(mids)) == len(mids):
        return ";".join(mids), 0
    mids = [mid for part in text.split(",") if (mid := part.strip().strip('"'))]
    kept = mids if known is None else [mid for mid in mids if mid in known]
    return ";".join(dict.fromkeys(kept)), len(mids) - len(kept)


def _overlap(first: _Times, second: _Times) -> bool:
    """Whether two different parts of a video have sound in common."""
    return first != second and second[0] < first[1] and first[0] < second[1]


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
    """Cut AudioSet's segment lists into one list a shard.

    A clip is named by its video, so a video counts once a split: the first row is kept. A clip
    that stands in both splits is kept for evaluation only.

    Args:
        train: lists of training segments: files or URLs, in the official form or its mirrors'.
        eval: lists of evaluation segments.
        classes: AudioSet's class_labels_indices.csv, file or URL; empty for a corpus without labels.
        n_train_shards: number of training shards.
        n_eval_shards: number of evaluation shards.
        out: folder for {split}-{shard}.csv, classes.csv and summary.json.
        manifest: list of clips that `freeze` wrote; others are left out. None: all are used.

    Raises:
        SsondoError: if a list is missing or not a segment list, or has no clip of the manifest, or if no
            training clips are left.
        TransientError: if a list cannot be downloaded.
    """
    began = time.monotonic()
    class_rows = _read_classes(classes)
    known = {mid for _, mid, _ in class_rows} if classes else None
    splits = {"train": _List(), "eval": _List()}
    for split, sources in (("train", train), ("eval", eval)):
        for source in sources:
            with _opened(source, f"audioset.segments.{split}") as lines:
                splits[split].read(source, lines, known)
    for ytid in splits["train"].clips.keys() & splits["eval"].clips.keys():
        del splits["train"].clips[ytid]
        splits["train"].counts["also_in_eval"] += 1
    if manifest is not None:
        _keep_manifest(splits, manifest)
    if not splits["train"].clips:
        raise SsondoError(_why_none(splits["train"].counts, train, manifest))
    write_text(out / "classes.csv", _csv_text([_CLASSES_HEADER, *class_rows]))
    summary = {
        split: _write_shards(out, split, splits[split], n_shards)
        for split, n_shards in (("train", n_train_shards), ("eval", n_eval_shards))
    }
    write_json(out / "summary.json", {**summary, "n_classes": len(class_rows)})
    for split, content in splits.items():
        if odd := _oddities(content.counts):
            log.info("%s list: %s", split, odd)
    log.info(
        "index: %d train clips in %d shards, %d eval clips in %d, %d classes, %.1f s, in %s",
        len(splits["train"].clips),
        n_train_shards,
        len(splits["eval"].clips),
        n_eval_shards,
        len(class_rows),
        time.monotonic() - began,
        out,
    )


def _why_none(counts: Counter[str], lists: list[str], manifest: Path | None) -> str:
    """Why there are no training clips, in words."""
    if counts["also_in_eval"] == counts["rows"] - counts["duplicates"] - counts["bad_times"] - counts["unreadable"] > 0:
        why = (
            f"each of the {counts['also_in_eval']} is in the eval list too; set audioset.segments.eval to another list"
        )
    elif manifest is not None:
        why = f"the manifest {manifest} has none; freeze one that does, or set audioset.manifest: null"
    else:
        why = "the list is empty; set audioset.segments.train to one with clips"
    return f"{', '.join(lists)}: no training clips are left: {why}"


def _keep_manifest(splits: dict[str, _List], path: Path) -> None:
    """Leave out what is not in a manifest, and say what of it is not in the lists."""
    for split, wanted in read_manifest(path).times.items():
        content = splits[split]
        kept = {ytid: clip for ytid, clip in content.clips.items() if wanted.get(ytid) == clip[0]}
        content.counts["not_in_manifest"] = len(content.clips) - len(kept)
        content.counts["only_in_manifest"] = len(wanted) - len(kept)
        if wanted and not kept:
            raise SsondoError(
                f"{path}: none of its {len(wanted)} {split} clips is in the lists; check audioset.segments"
            )
        if len(kept) < len(wanted):
            absent = next(ytid for ytid in wanted if ytid not in kept)
            log.warning(
                "%s: %d of its %d %s clips are not in the lists, or with other times (%s, ...)",
                path,
                len(wanted) - len(kept),
                len(wanted),
                split,
                absent,
            )
        content.clips = kept


# Each file is on the disk before the next is begun by the same thread, which is mostly waiting.
_WRITERS = 16
_ODDITIES = {
    "duplicates": "rows of a video that was there already",
    "overlapping": "of these overlapping the first in part",
    "also_in_eval": "clips that are in the eval list too",
    "bad_times": "rows with negative or inverted times",
    "unreadable": "rows that are no segments",
    "without_labels": "clips without labels",
    "unknown_labels": "labels that are no classes",
    "not_in_manifest": "clips left out, as the manifest does not have them",
    "only_in_manifest": "clips of the manifest that are not in the lists",
}


def _oddities(counts: Counter[str]) -> str:
    """What was odd about a list, in words."""
    return ", ".join(f"{counts[key]} {text}" for key, text in _ODDITIES.items() if counts[key])


def _write_shards(out: Path, split: str, content: _List, n_shards: int) -> dict[str, int | list[int]]:
    """Write a split's lists, empty ones too, and return its part of the summary."""
    header = _csv_text([HEADER])
    shards: list[list[str]] = [[] for _ in range(n_shards)]
    for ytid in content.clips:
        shards[shard_of(ytid, n_shards)].append(ytid)
    times_text = cache(lambda times: f"{seconds_text(times[0])},{seconds_text(times[1])}")
    with ThreadPoolExecutor(_WRITERS) as pool:
        writing = []
        for shard, clips in enumerate(shards):
            lines = [header]
            for ytid in sorted(clips):
                times, labels = content.clips[ytid]
                lines.append(f"{_quoted(ytid)},{times_text(times)},{labels}\n")
            writing.append(pool.submit(write_text, out / f"{shard_name(split, shard)}.csv", "".join(lines)))
        for written in writing:
            written.result()
    return {
        "rows": content.counts["rows"],
        "clips": len(content.clips),
        **{key: content.counts[key] for key in _ODDITIES},
        "clips_of_shard": [len(clips) for clips in shards],
    }


def _quoted(ytid: str) -> str:
    """A clip's id as a CSV field; AudioSet's need no quotes, names of local files may."""
    return f'"{ytid.replace(chr(34), chr(34) * 2)}"' if "," in ytid or '"' in ytid else ytid


def _csv_text(rows: Iterable[Iterable[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _read_classes(source: str) -> list[tuple[str, str, str]]:
    """Rows (index, mid, display name) of AudioSet's class list; none if there is no list."""
    if not source:
        return []
    with _opened(source, "audioset.segments.classes") as lines:
        try:
            rows = [(row["index"], row["mid"], row["display_name"]) for row in csv.DictReader(lines)]
        except (KeyError, csv.Error, UnicodeDecodeError):
            rows = []
    if not rows or any(int(row[0]) != n if row[0].isdigit() else True for n, row in enumerate(rows)):
        raise SsondoError(
            f"{source}: not AudioSet's class list; expected a header {','.join(_CLASSES_HEADER)} and rows"
        )
    return rows


@contextmanager
def _opened(source: str, key: str) -> Iterator[Iterable[str]]:
    """The lines of a local file or of one that is downloaded for as long as the block runs."""
    if source.startswith(("http://", "https://")):
        with tempfile.TemporaryDirectory(prefix="ssondo-") as folder:
            path = Path(folder, "list.csv")
            by_hand = f"or get it on a machine with network and set {key} to the file"
            retrieve(source, path, by_hand=by_hand)
            with path.open(encoding="utf-8", newline="") as file:
                yield file
        return
    try:
        with Path(source).open(encoding="utf-8", newline="") as file:
            yield file
    except (FileNotFoundError, IsADirectoryError):
        raise SsondoError(f"{source}: no such file; set {key} to a file or URL") from None


def list_folder(
    *, folder: Path, pattern: str, out_train: Path, out_eval: Path, eval_share: float, clip_s: float
) -> None:
    """List a folder of audio files as AudioSet would, so that any corpus can be distilled on.

    A clip's id is its file's name without extension. Which files are for evaluation depends
    on their names alone.

    Args:
        folder: where the files are.
        pattern: which files, e.g. "**/*.wav"; what is no sound file by its extension is passed over.
        out_train: segment list of the training files.
        out_eval: segment list of the evaluation files.
        eval_share: share of the files that are for evaluation, in [0, 1].
        clip_s: length of a clip in seconds.

    Raises:
        SsondoError: if there is no such folder or file, or two files have one name.
    """
    if not folder.is_dir():
        raise SsondoError(f"{folder}: no such folder")
    files: dict[str, Path] = {}
    for path in sorted(folder.glob(pattern)):
        if path.suffix.lower() not in SOUND_SUFFIXES or not path.is_file():
            continue
        if not (path.stem.isascii() and path.stem.isprintable()):
            raise SsondoError(f"{path}: the name is not plain ASCII; rename the file")
        if path.stem in files:
            raise SsondoError(f"{path} and {files[path.stem]} have one name; a clip is named by its file, rename one")
        files[path.stem] = path
    if not files:
        raise SsondoError(f"{folder}: no sound file matches {pattern!r} ({', '.join(sorted(SOUND_SUFFIXES))})")
    rows: dict[Path, list[tuple[str, str, str, str]]] = {out_train: [], out_eval: []}
    for stem in sorted(files):
        # Another hash than the shard's, or a shard would be all of one split.
        is_eval = hash64(f"split of {stem}") < eval_share * 2**64
        rows[out_eval if is_eval else out_train].append((stem, "0", seconds_text(clip_s), ""))
    for path, listed in rows.items():
        write_text(path, _csv_text([_LIST_HEADER, *listed]))
    log.info("list_folder: %d train and %d eval files of %s", len(rows[out_train]), len(rows[out_eval]), folder)
