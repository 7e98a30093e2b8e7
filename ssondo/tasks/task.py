"""Types that describe a downstream task, and the random draws of folds and validation clips.

Each kind of task has a function `load(...) -> Task`. It reads lists only; `prepare_task` reads the audio later, clip by
clip.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from ssondo.errors import SsondoError
from ssondo.tasks import METRICS
from ssondo.tasks.archives import Member

SPLITS = ("train", "valid", "test")
# Default of the share of a task's clips that may be missing or damaged.
MAX_MISSING = 0.02


class Playable(Protocol):
    """Audio that is synthesised instead of read, e.g. `ssondo.audioset.renderer.Scene`; it must support pickling."""

    def play(self) -> tuple[np.ndarray, int]:
        """Return the waveform, float32, shape (samples,), and its sample rate in Hz."""


@dataclass(frozen=True)
class Clip:
    """One clip of a task.

    Attributes:
        clip_id: Identifier, unique in the task.
        source: Audio file, in a folder or an archive, or an object that synthesises the audio.
        labels: Shape (n_classes,), int8: 1 present, 0 absent, -1 unknown.
        split: Split ("train", "valid", "test") or fold (1, 2, ...).
    """

    clip_id: str
    source: Path | Member | Playable
    labels: np.ndarray
    split: str | int


@dataclass(frozen=True)
class DatasetSize:
    """Size of a data set, for official ones as their authors (or those of the split) state it.

    Attributes:
        n_classes: Number of classes.
        clips: Number of clips of each split or fold, or of the whole data set. A validation split that this library
            draws counts as training.
        clip_s: Mean length of a clip in seconds.
        download_gb: Approximate size of the download in GB where its `Remote` files state no size.
    """

    n_classes: int
    clips: Mapping[str | int, int] | int
    clip_s: float
    download_gb: float = 0.0

    @property
    def n_clips(self) -> int:
        """Number of clips of the whole data set."""
        return self.clips if isinstance(self.clips, int) else sum(self.clips.values())

    @property
    def n_scored(self) -> int:
        """Number of test sets: the number of folds, or 1 for a split."""
        n_folds = 0 if isinstance(self.clips, int) else sum(isinstance(split, int) for split in self.clips)
        return n_folds or 1

    def deviations(self, n_classes: int, splits: Iterable[str | int]) -> list[str]:
        """Differences between this size and a copy of the data set, one phrase each; empty if there are none.

        The copy has `n_classes` classes and clips in `splits`, the split or fold of each.
        """
        phrases = [f"{n_classes} of {self.n_classes} classes"] if n_classes != self.n_classes else []
        if isinstance(self.clips, int):
            n_clips = len(list(splits))
            return phrases + ([f"{n_clips:,} of {self.clips:,} clips"] if n_clips != self.clips else [])
        counts = Counter("train" if split == "valid" and "valid" not in self.clips else split for split in splits)
        for split in {**self.clips, **counts}:
            n, official = counts[split], self.clips.get(split, 0)
            if n != official:
                name = f"fold {split}" if isinstance(split, int) else split
                phrases.append(f"{n:,} of {official:,} clips in {name}")
        return phrases


@dataclass(frozen=True)
class Task:
    """The clips of a task, their labels, and the metric of its probes.

    Attributes:
        metric: "accuracy" (one class per clip), "map" (one or more) or "masked_map" (some labels unknown).
        classes: Names of the classes, in the order of the label columns.
        clips: Clips, in the order in which they are stored.
        known_damaged: Ids of clips that are damaged in the official archive; they do not count as missing.
        official_size: Size that the authors of the data set state; None for a user's own data.
        max_missing: Share of the clips that may be missing or damaged; `load_task` sets it.
    """

    metric: str
    classes: Sequence[str]
    clips: Sequence[Clip]
    known_damaged: frozenset[str] = frozenset()
    official_size: DatasetSize | None = None
    max_missing: float = MAX_MISSING

    @property
    def split_kind(self) -> str:
        """Whether the clips have a "split" or a "fold"."""
        return "split" if isinstance(self.clips[0].split, str) else "fold"

    def check(self, name: str) -> None:
        """Check that probes can be trained and scored on the task, which is called `name` in the configuration.

        Raises:
            SsondoError: If a clip is listed twice, a split is empty, there are too few folds or classes, or the labels
                do not match the metric.
        """
        where = f"task {name}"
        if not self.clips:
            raise SsondoError(f"{where}: its list contains no clips; check tasks.{name}.path and its options")
        clip_id, times = Counter(clip.clip_id for clip in self.clips).most_common(1)[0]
        if times > 1:
            raise SsondoError(f"{where}: clip {clip_id} is listed twice; remove one of its rows")
        if self.metric not in METRICS:
            raise SsondoError(f"{where}: metric {self.metric!r} does not exist; choose one of {', '.join(METRICS)}")
        splits = {clip.split for clip in self.clips}
        if len({type(split) for split in splits}) > 1:
            names = ", ".join(sorted(map(str, splits)))
            raise SsondoError(f"{where}: some clips are in a split and others in a fold ({names}); use one of the two")
        if self.split_kind == "split":
            if absent := [split for split in SPLITS if split not in splits]:
                raise SsondoError(f"{where}: no clip is in the split {' or '.join(absent)}; check its list and options")
        elif len(splits) < 3:
            raise SsondoError(f"{where}: {len(splits)} folds; at least 3 are needed for training, validation and test")
        if len(self.classes) < 2:
            raise SsondoError(f"{where}: {len(self.classes)} class(es); a probe needs at least 2")
        if self.metric == "accuracy":
            for clip in self.clips:
                if int((clip.labels == 1).sum()) != 1 or (clip.labels < 0).any():
                    raise SsondoError(
                        f"{where}: clip {clip.clip_id} does not have exactly one class; use the metric map"
                    )


@dataclass(frozen=True)
class Remote:
    """A file of a data set that can be downloaded; its MD5 and its size in bytes are None if they are not published."""

    url: str
    md5: str | None = None
    size: int | None = None


def ascii_id(name: str) -> str:
    """Convert `name` to a clip id: characters outside ASCII become escapes, so that ids stay unique."""
    return name.encode("ascii", "backslashreplace").decode()


def encode_labels(present: Iterable[str], classes: Sequence[str]) -> np.ndarray:
    """Return the labels of a fully annotated clip: 1 for each class in `present`, else 0; shape (n_classes,), int8."""
    present = set(present)
    return np.array([name in present for name in classes], dtype=np.int8)


def stratified_folds(
    labels: Sequence[Sequence[str]], groups: Sequence[str], n_folds: int, seed: int, name: str
) -> list[int]:
    """Return the fold of each clip, 1 to `n_folds`, stratified by class; the clips of a group are in one fold.

    Groups are assigned one after the other: those with the rarest classes first, larger before smaller ones, and equal
    ones in random order. A group goes to the fold with the fewest clips of its rarest class, then of its next rarest
    class, and so on, then with the fewest clips.

    Args:
        labels: Classes of each clip.
        groups: Group of each clip, e.g. the recording from which it was cut.
        n_folds: Number of folds.
        seed: Seed of the random order.
        name: Name of the task, so that two tasks with the same seed differ.

    Raises:
        SsondoError: If there are fewer groups than folds.
    """
    members: dict[str, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    if len(members) < n_folds:
        raise SsondoError(f"task {name}: {len(members)} groups of clips for {n_folds} folds; draw fewer folds")
    total = Counter(label for present in labels for label in set(present))
    classes = {
        key: sorted({label for row in rows for label in labels[row]}, key=lambda label: (total[label], label))
        for key, rows in members.items()
    }
    keys = sorted(members)
    order = np.random.default_rng([seed, *name.encode()]).permutation(len(keys))
    rarity = {key: min((total[label] for label in names), default=len(labels)) for key, names in classes.items()}
    keys = sorted((keys[index] for index in order), key=lambda key: (rarity[key], -len(members[key])))
    counts: list[Counter[str]] = [Counter() for _ in range(n_folds)]
    sizes = [0] * n_folds
    folds = [0] * len(groups)
    for key in keys:
        chosen = min(range(n_folds), key=lambda fold: ([counts[fold][label] for label in classes[key]], sizes[fold]))
        sizes[chosen] += len(members[key])
        for row in members[key]:
            folds[row] = chosen + 1
            counts[chosen].update(set(labels[row]))
    return folds


def draw_valid(labels: Sequence[Sequence[str]], groups: Sequence[str], share: float, seed: int, name: str) -> list[str]:
    """Draw validation clips from training clips and return "train" or "valid" for each clip.

    The draw is that of `stratified_folds`, of which one fold becomes the validation clips.

    Args:
        labels: Classes of each clip.
        groups: Group of each clip.
        share: Share of the clips that become validation clips, above 0 and at most 0.5; the number of folds is the
            integer nearest to 1 / share.
        seed: Seed of the draw.
        name: Name of the task.

    Raises:
        SsondoError: If the share is out of range, or there are too few groups for it.
    """
    key = f"tasks.{name}.options.valid_share"
    if not 0 < share <= 0.5:
        raise SsondoError(f"{key} is {share:g}; it must be above 0 and at most 0.5")
    n_folds, n_groups = round(1 / share), len(set(groups))
    if n_groups < n_folds:
        by_hand = "assign clips to the split valid yourself"
        advice = f"set it to {math.ceil(100 / n_groups) / 100:g} or more, or {by_hand}" if n_groups > 1 else by_hand
        raise SsondoError(f"{key} is {share:g}, which is less than one of {n_groups} group(s) of clips; {advice}")
    folds = stratified_folds(labels, groups, n_folds, seed, name)
    return ["valid" if fold == 1 else "train" for fold in folds]
