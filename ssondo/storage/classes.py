"""The class list of a corpus, in the form of AudioSet's class_labels_indices.csv."""

import csv
from pathlib import Path
from typing import NamedTuple

from ssondo.errors import SsondoError

CLASSES_HEADER = ("index", "mid", "display_name")


class AudioClass(NamedTuple):
    """Id of a class of sounds, e.g. "/m/09x0r", and its name, e.g. "Speech"."""

    mid: str
    display_name: str


def read_classes(path: Path, *, what: str | None = None) -> list[AudioClass]:
    """Read a class list, a CSV file with the columns of `CLASSES_HEADER`; it is empty for a corpus without labels.

    `what` is the name of the list in error messages, by default its path.

    Raises:
        SsondoError: If the file is missing or not a class list, or its indices are not 0, 1, 2, ...
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file)
            classes = sorted((int(row["index"]), row["mid"], row["display_name"]) for row in rows)
            is_list = {*CLASSES_HEADER} <= {*(rows.fieldnames or ())}
    except FileNotFoundError:
        raise SsondoError(f"{path}: no such class list; make it with: snakemake {path}") from None
    except (KeyError, TypeError, ValueError, csv.Error):
        is_list = False
    if not is_list or [index for index, _, _ in classes] != list(range(len(classes))):
        raise SsondoError(
            f"{what or path}: not AudioSet's class list; expected the header {','.join(CLASSES_HEADER)} and rows "
            "with the indices 0, 1, 2, ..."
        )
    return [AudioClass(mid, display_name) for _, mid, display_name in classes]
