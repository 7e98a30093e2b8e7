"""What a downstream task is, and how the readers of this folder say it.

A reader is a function `load(...) -> Task`. It looks at lists only; sound is read later, clip by
clip, by `prepare_task`.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from ssondo.errors import SsondoError
from ssondo.tasks.archives import Member

SPLITS = ("train", "valid", "test")
METRICS = ("accuracy", "map", "masked_map")


class Playable(Protocol):
    """Sound that is made, not read; `ssondo.audioset.renderer.Scene` is one. It must be possible to pickle it."""

    def play(self) -> tuple[np.ndarray, int]:
        """The waveform, float32, shape (samples,), and its sample rate in Hz."""


@dataclass(frozen=True)
class Clip:
    """One clip of a task.

    Attributes:
        clip_id: unique in the task.
        source: the sound file, in a folder or an archive, or what renders it.
        labels: shape (n_classes,), int8: 1 present, 0 absent, -1 unknown.
        part: its split ("train", "valid", "test") or its fold (1, 2, ...).
    """

    clip_id: str
    source: Path | Member | Playable
    labels: np.ndarray
    part: str | int


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
        folds = 0 if isinstance(self.clips, int) else sum(isinstance(part, int) for part in self.clips)
        return folds or 1

    def deviations(self, n_classes: int, parts: Iterable[str | int]) -> list[str]:
        """Differences between this size and a copy of the data set, one phrase each; empty if there are none.

        Args:
            n_classes: Number of classes of the copy.
            parts: Split or fold of each clip of the copy.
        """
        phrases = [f"{n_classes} of {self.n_classes} classes"] if n_classes != self.n_classes else []
        if isinstance(self.clips, int):
            n_clips = len(list(parts))
            return phrases + ([f"{n_clips:,} of {self.clips:,} clips"] if n_clips != self.clips else [])
        counts = Counter("train" if part == "valid" and "valid" not in self.clips else part for part in parts)
        for part in {**self.clips, **counts}:
            n, official = counts[part], self.clips.get(part, 0)
            if n != official:
                name = f"fold {part}" if isinstance(part, int) else part
                phrases.append(f"{n:,} of {official:,} clips in {name}")
        return phrases


@dataclass(frozen=True)
class Task:
    """The clips of a task and how a probe of it is scored.

    Attributes:
        metric: "accuracy" (one class a clip), "map" (several) or "masked_map" (some unknown).
        classes: names, in the order of the label columns.
        clips: in the order in which they are kept.
        known_faults: ids of clips that are broken in the official archive; they do not count as missing.
        official_size: Size that the authors of the data set state; None for a user's own data.
    """

    metric: str
    classes: Sequence[str]
    clips: Sequence[Clip]
    known_faults: frozenset[str] = field(default=frozenset())
    official_size: DatasetSize | None = None

    @property
    def split_kind(self) -> str:
        """ "split" or "fold"."""
        return "split" if isinstance(self.clips[0].part, str) else "fold"

    def check(self, name: str) -> None:
        """Refuse what no probe could be trained or scored on.

        Raises:
            SsondoError: if a clip is there twice, a split or a class is empty, or labels do not fit the metric.
        """
        where = f"task {name}"
        if not self.clips:
            raise SsondoError(f"{where}: its list holds no clips; check tasks.{name}.path and its options")
        clip_id, times = Counter(clip.clip_id for clip in self.clips).most_common(1)[0]
        if times > 1:
            raise SsondoError(f"{where}: clip {clip_id} is listed twice; keep one of its rows")
        if self.metric not in METRICS:
            raise SsondoError(f"{where}: metric {self.metric!r} is unknown; one of {', '.join(METRICS)}")
        parts = {clip.part for clip in self.clips}
        if len({type(part) for part in parts}) > 1:
            named = ", ".join(sorted(map(str, parts)))
            raise SsondoError(f"{where}: some clips are in a split and others in a fold ({named}); use one of the two")
        if self.split_kind == "split":
            if absent := [split for split in SPLITS if split not in parts]:
                raise SsondoError(f"{where}: no clip is in the {' nor the '.join(absent)} split; check its split rule")
        elif len(parts) < 3:
            raise SsondoError(f"{where}: {len(parts)} folds; at least 3 are needed to train, to select and to score")
        if len(self.classes) < 2:
            raise SsondoError(f"{where}: {len(self.classes)} class(es); a probe needs at least 2")
        if self.metric == "accuracy":
            for clip in self.clips:
                if int((clip.labels == 1).sum()) != 1 or (clip.labels < 0).any():
                    raise SsondoError(f"{where}: clip {clip.clip_id} has not exactly one class; use the metric map")


@dataclass(frozen=True)
class Remote:
    """A file of an official archive.

    Attributes:
        url: where its makers keep it, or a mirror of theirs.
        md5: of the file, where they (or the loaders that the field shares) state it.
        size: in bytes, likewise.
    """

    url: str
    md5: str | None = None
    size: int | None = None


def ascii_id(name: str) -> str:
    """`name` as a clip id; letters outside ASCII are written as escapes, so that ids stay unique."""
    return name.encode("ascii", "backslashreplace").decode()


def encode_labels(present: Iterable[str], classes: Sequence[str]) -> np.ndarray:
    """Labels of a clip in which all is known: 1 for each name in `present`, else 0; shape (n_classes,), int8."""
    present = set(present)
    return np.array([name in present for name in classes], dtype=np.int8)


def stratified_folds(
    labels: Sequence[Sequence[str]], groups: Sequence[str], n_folds: int, seed: int, name: str
) -> list[int]:
    """Spread clips over folds so that every class is in all of them; a group stays together.

    Groups are placed one after the other, those of the rarest classes first, larger ones before
    smaller ones and in random order among equals, each into the fold that has least of its rarest
    class, then of its next one, then of all.

    Args:
        labels: classes of each clip.
        groups: group of each clip, e.g. the recording it was cut from.
        n_folds: how many.
        seed: decides the order.
        name: of the task, so that two tasks with one seed differ.

    Returns:
        The fold of each clip, 1 to `n_folds`.

    Raises:
        SsondoError: if there are fewer groups than folds.
    """
    members: dict[str, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    if len(members) < n_folds:
        raise SsondoError(f"task {name}: {len(members)} groups of clips for {n_folds} folds; ask for fewer")
    total = Counter(label for present in labels for label in set(present))
    classes = {
        key: sorted({label for row in rows for label in labels[row]}, key=lambda label: (total[label], label))
        for key, rows in members.items()
    }
    keys = sorted(members)
    order = np.random.default_rng([seed, *name.encode()]).permutation(len(keys))
    rarity = {key: min((total[label] for label in found), default=len(labels)) for key, found in classes.items()}
    keys = sorted((keys[place] for place in order), key=lambda key: (rarity[key], -len(members[key])))
    held: list[Counter[str]] = [Counter() for _ in range(n_folds)]
    sizes = [0] * n_folds
    folds = [0] * len(groups)
    for key in keys:
        chosen = min(range(n_folds), key=lambda fold: ([held[fold][label] for label in classes[key]], sizes[fold]))
        sizes[chosen] += len(members[key])
        for row in members[key]:
            folds[row] = chosen + 1
            held[chosen].update(set(labels[row]))
    return folds


def draw_valid(labels: Sequence[Sequence[str]], groups: Sequence[str], share: float, seed: int, name: str) -> list[str]:
    """Take a stratified share of training clips as the validation split.

    Args:
        labels: classes of each training clip.
        groups: group of each; a group stays together.
        share: of the clips that validate, above 0 and at most 0.5; one of n equal parts is taken, n the integer
            nearest to 1 / share.
        seed: decides which.
        name: of the task.

    Returns:
        "train" or "valid" for each clip.

    Raises:
        SsondoError: if the share is out of range, or there are too few groups for it.
    """
    key = f"tasks.{name}.options.valid_share"
    if not 0 < share <= 0.5:
        raise SsondoError(f"{key} = {share:g}: must be above 0 and at most 0.5")
    n_folds, n_groups = round(1 / share), len(set(groups))
    if n_groups < n_folds:
        by_hand = "put clips into the split valid yourself"
        way_out = f"set it to {math.ceil(100 / n_groups) / 100:g} or more, or {by_hand}" if n_groups > 1 else by_hand
        raise SsondoError(
            f"{key} = {share:g}: no such share of {n_groups} group(s) of training clips can be held out; {way_out}"
        )
    folds = stratified_folds(labels, groups, n_folds, seed, name)
    return ["valid" if fold == 1 else "train" for fold in folds]
