"""Labels of clips, as the segment lists contain them, as targets of a training."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ssondo.errors import SsondoError
from ssondo.storage.atomic_files import content_digest
from ssondo.storage.classes import read_classes
from ssondo.storage.segments import read_segments


class LabelDataset:
    """The labels of the clips in segment lists, as multi-hot vectors.

    Args:
        segments: Segment lists that `index` wrote.
        classes: Class list with the columns index, mid and display_name.

    Attributes:
        clip_ids: Ids of the listed clips.
        n_classes: Number of classes.
        labels: Classes of each clip, ascending.

    Raises:
        SsondoError: If a list is missing or broken, there are no classes, or a label is not a class.
    """

    noun = "entry in the segment lists"
    files = "segment lists"

    def __init__(self, segments: Sequence[Path], classes: Path) -> None:
        mids = [each.mid for each in read_classes(classes)]
        if not mids:
            raise SsondoError(f"{classes}: contains no classes; training on labels needs a corpus with labels")
        index_of = {mid: index for index, mid in enumerate(mids)}
        labels_of: dict[str, list[int]] = {}
        for path in segments:
            for segment in read_segments(path):
                unknown = [mid for mid in segment.labels if mid not in index_of]
                if unknown:
                    raise SsondoError(
                        f"{path}: clip {segment.ytid} has the label {unknown[0]}, which is not in the class list "
                        f"{classes}; make both lists again from one source"
                    )
                labels_of[segment.ytid] = sorted({index_of[mid] for mid in segment.labels})
        self.n_classes = len(mids)
        self.clip_ids = list(labels_of)
        self.labels = list(labels_of.values())

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Return the labels of the clips at positions `rows` in `clip_ids`, float32, 0 or 1, shape (n, n_classes)."""
        multi_hot = np.zeros((len(rows), self.n_classes), dtype=np.float32)
        for out, row in zip(multi_hot, rows, strict=True):
            out[self.labels[row]] = 1
        return multi_hot

    def digest(self, rows: np.ndarray) -> str:
        """Return a digest of the labels of the clips at positions `rows`."""
        return content_digest({self.clip_ids[row]: str(self.labels[row]) for row in rows})
