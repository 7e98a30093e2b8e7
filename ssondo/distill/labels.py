"""Labels of clips, as segment lists have them: for training on them."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ssondo.errors import SsondoError


def read_classes(path: Path) -> list[str]:
    """Mids of the classes, by index.

    Raises:
        SsondoError: if the list is missing, broken or empty.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [(int(row["index"]), row["mid"]) for row in csv.DictReader(file)]
    except FileNotFoundError:
        raise SsondoError(f"{path}: no such class list; make it with: snakemake {path}") from None
    except (KeyError, TypeError, ValueError, csv.Error):
        raise SsondoError(f"{path}: not a class list; expected lines index,mid,display_name") from None
    if not rows or sorted(index for index, _ in rows) != list(range(len(rows))):
        raise SsondoError(f"{path}: has no classes numbered from 0; a corpus without labels cannot be supervised")
    return [mid for _, mid in sorted(rows)]


def read_labels(segments: Sequence[Path], mids: Sequence[str]) -> dict[str, list[int]]:
    """Classes of each clip that stands in a list, ascending.

    Args:
        segments: lists that `index` wrote.
        mids: of the classes, by index.

    Raises:
        SsondoError: if a list is missing or broken, or has a label that is no class.
    """
    class_of = {mid: index for index, mid in enumerate(mids)}
    found: dict[str, list[int]] = {}
    for path in segments:
        for clip, labels in _rows(path):
            unknown = [mid for mid in labels if mid not in class_of]
            if unknown:
                raise SsondoError(
                    f"{path}: clip {clip} has the label {unknown[0]}, which is not in the class list; "
                    "make the lists again from one source"
                )
            found[clip] = sorted({class_of[mid] for mid in labels})
    return found


def _rows(path: Path) -> list[tuple[str, list[str]]]:
    # Not index.read_segments: an edit of how lists are made must not train every student again.
    try:
        with path.open(encoding="ascii", newline="") as file:
            return [(row["ytid"], [mid for mid in row["labels"].split(";") if mid]) for row in csv.DictReader(file)]
    except FileNotFoundError:
        raise SsondoError(f"{path}: no such segment list; make it with: snakemake {path}") from None
    except (KeyError, AttributeError, ValueError, csv.Error):
        raise SsondoError(f"{path}: not a segment list of this project; make it with: snakemake {path}") from None


def multi_hot(labels: Sequence[Sequence[int]], n_classes: int) -> np.ndarray:
    """1 where a clip has a class, else 0; float32, shape (len(labels), n_classes)."""
    found = np.zeros((len(labels), n_classes), dtype=np.float32)
    for row, classes in enumerate(labels):
        found[row, list(classes)] = 1
    return found
