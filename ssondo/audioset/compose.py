"""Compose the demo corpus: the segment lists and classes of clips that are rendered on demand."""

import logging
import time
from pathlib import Path

from ssondo.audioset.renderer import CLASSES, mid, scene, ytid
from ssondo.errors import SsondoError
from ssondo.storage.atomic_files import write_text

log = logging.getLogger(__name__)


def compose(*, n_train: int, n_eval: int, clip_s: float, seed: int, train: Path, eval: Path, classes: Path) -> None:
    """Compose the demo corpus: segment lists and classes in the form of AudioSet's.

    Args:
        n_train: Number of training clips.
        n_eval: Number of evaluation clips; none of them is a training clip.
        clip_s: Length of a clip in seconds.
        seed: Seed that determines the ids and the content of the clips.
        train: Segment list of the training clips that is written.
        eval: Segment list of the evaluation clips that is written.
        classes: List of the index, id and name of each class that is written.

    Raises:
        SsondoError: If there is no training clip, or the length is impossible.
    """
    if n_train < 1 or n_eval < 0:
        raise SsondoError(f"a corpus of {n_train} training and {n_eval} evaluation clips; give at least 1 and 0")
    clip_s = round(clip_s, 3)  # as the list stores it: the renderer must be given the same length
    if not 0.1 <= clip_s <= 60:
        raise SsondoError(f"clip_s = {clip_s}: the length of a rendered clip must be 0.1 to 60 seconds")
    started = time.perf_counter()
    clips = [ytid(index, seed) for index in range(n_train + n_eval)]
    write_text(train, _segments_csv(clips[:n_train], clip_s, seed))
    write_text(eval, _segments_csv(clips[n_train:], clip_s, seed))
    rows = [f'{index},{mid(name)},"{name}"' for index, name in enumerate(CLASSES)]
    write_text(classes, "\n".join(["index,mid,display_name", *rows, ""]))
    what = f"{n_train} training and {n_eval} evaluation clips of {clip_s:.2f} s in {len(CLASSES)} classes"
    log.info("composed %s (%.1f s): %s, %s", what, time.perf_counter() - started, train, eval)


def _segments_csv(clips: list[str], clip_s: float, seed: int) -> str:
    labels = {clip: [mid(name) for name in scene(clip, seconds=clip_s, seed=seed).labels] for clip in sorted(clips)}
    n_positive = sum(map(len, labels.values()))
    n_classes = len({label for present in labels.values() for label in present})
    numbers = f"num_ytids={len(clips)}, num_segs={len(clips)}, num_unique_labels={n_classes}"
    header = [
        f"# Segments csv composed by ssondo, seed {seed}",
        f"# {numbers}, num_positive_labels={n_positive}",
        "# YTID, start_seconds, end_seconds, positive_labels",
    ]
    rows = [f'{clip}, 0.000, {clip_s:.3f}, "{",".join(present)}"' for clip, present in labels.items()]
    return "\n".join([*header, *rows, ""])
