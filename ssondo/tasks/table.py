"""A task that a CSV file describes: one row per clip with its file, its labels, and optionally its split or fold.

    path,label,split                 path,labels,fold
    a/bark1.wav,dog,train            rain.flac,rain;wind,1

Configuration:

    tasks:
      barks:
        kind: table
        path: data/barks.csv
"""

from pathlib import Path
from typing import Literal, NamedTuple

from ssondo.errors import SsondoError
from ssondo.tasks.files import Files, find_audio
from ssondo.tasks.task import SPLITS, Clip, Task, ascii_id, draw_valid, encode_labels, stratified_folds

_SPLIT_NAMES = {"val": "valid", "validation": "valid", "dev": "valid", "training": "train", "testing": "test"}


def _parse_split(text: str, where: str) -> str | int:
    """Convert a cell of the table to a split or a fold."""
    text = text.strip().lower()
    if text.isdigit() and int(text) > 0:
        return int(text)
    split = _SPLIT_NAMES.get(text, text)
    if split not in SPLITS:
        raise SsondoError(f"{where}: {text!r} is neither a split (train, valid, test) nor a fold (1, 2, ...)")
    return split


class Row(NamedTuple):
    """A clip of a table; `name` becomes its id, a draw keeps the clips of a `group` together.

    `split` is its split or fold; None in all rows to draw folds.
    """

    name: str
    source: Path
    labels: list[str]
    group: str
    split: str | int | None


def build(
    rows: list[Row], *, folds: int | None, valid_share: float, metric: str | None = None, seed: int, task: str
) -> Task:
    """Create a task from rows; folds, or a validation split, are drawn if there are none.

    Args:
        rows: The clips, at least one.
        folds: Number of folds to draw; None is 5.
        valid_share: Share of the training clips that become validation clips if there are none.
        metric: "accuracy" or "map"; None selects "accuracy" if every clip has one class, else "map".
        seed: Seed of the draws.
        task: Name of the task in the configuration.

    Raises:
        SsondoError: If the folds or the validation split cannot be drawn.
    """
    labels, groups = [row.labels for row in rows], [row.group for row in rows]
    splits = [row.split for row in rows if row.split is not None]
    if not splits:
        folds = 5 if folds is None else folds
        if folds < 3:
            raise SsondoError(
                f"tasks.{task}.options.folds is {folds}; it must be at least 3, for training, validation and test"
            )
        splits = list(stratified_folds(labels, groups, folds, seed, task))
    elif "train" in splits and "valid" not in splits:
        train = [index for index, split in enumerate(splits) if split == "train"]
        drawn = draw_valid([labels[i] for i in train], [groups[i] for i in train], valid_share, seed, task)
        for index, split in zip(train, drawn, strict=True):
            splits[index] = split
    classes = sorted({label for present in labels for label in present})
    single = all(len(set(present)) == 1 for present in labels)
    clips = [
        Clip(ascii_id(row.name), row.source, encode_labels(row.labels, classes), split)
        for row, split in zip(rows, splits, strict=True)
    ]
    return Task(metric or ("accuracy" if single else "map"), classes, clips)


def load(
    *,
    path: Path,
    task: str,
    seed: int,
    audio: str | None = None,
    file_column: str | None = None,
    label_column: str | None = None,
    split_column: str | None = None,
    fold_column: str | None = None,
    group_column: str | None = None,
    separator: str = ";",
    delimiter: str = ",",
    folds: int | None = None,
    valid_share: float = 0.15,
    metric: Literal["accuracy", "map"] | None = None,
    missing: Literal["skip"] | None = None,
) -> Task:
    """Read the CSV file.

    Args:
        audio: Folder of the audio files, relative to that of the CSV file; None is the folder of the CSV file. If a
            file does not exist, one of the same name with the suffix of another audio format is used.
        file_column: Column with file names; None is `path`, `file` or `filename`.
        label_column: Column with labels; None is `label` or `labels`.
        split_column: Column with train, valid or test; None is `split`.
        fold_column: Column with 1, 2, ...; None is `fold`.
        group_column: Column with groups; a draw keeps the clips of a group together, and a clip with an empty group
            is its own group.
        separator: Text between two labels of a clip.
        delimiter: Character between two columns.
        folds: Number of folds to draw, stratified by label, in place of the columns `split` and `fold`; None uses the
            columns, or draws 5 folds if there are none.
        valid_share: Share of the training clips that become validation clips if the table has none.
        metric: "accuracy" (one label per clip) or "map"; None selects by the labels.
        missing: "skip" omits rows whose file does not exist; None counts them as missing.

    Raises:
        SsondoError: If a column or all files are missing, a row has no label, or a separator is invalid.
    """
    if len(delimiter) != 1:
        raise SsondoError(
            f'tasks.{task}.options.delimiter is {delimiter!r}; it must be one character (in YAML a tab is "\\t", in '
            "double quotes)"
        )
    if not separator:
        raise SsondoError(f"tasks.{task}.options.separator is empty; omit it if clips have one label each")
    table = Files(path.parent)
    rows = table.rows(path.name, (), delimiter)
    # csv.DictReader stores fields beyond the header under None.
    header = [name for name in rows[0] if name is not None] if rows else []

    def column(key: str, configured: str | None, defaults: tuple[str, ...]) -> str:
        name = configured or next((name for name in defaults if name in header), None)
        if name is None:
            raise SsondoError(
                f"{path}: it has the columns {', '.join(header) or '(none)'}; name the right one with "
                f"tasks.{task}.options.{key}, or set tasks.{task}.options.delimiter (now {delimiter!r})"
            )
        return name

    file_name = column("file_column", file_column, ("path", "file", "filename"))
    label = column("label_column", label_column, ("label", "labels"))
    split = None
    if folds is None:
        split = split_column or fold_column or next((name for name in ("split", "fold") if name in header), None)
    rows = table.rows(path.name, [name for name in (file_name, label, split, group_column) if name], delimiter)
    folder = path.parent / audio if audio else path.parent
    clips = []
    for number, row in enumerate(rows, start=2):
        name = row[file_name]
        if not name.strip():
            raise SsondoError(f"{path}, line {number}: it has no file")
        source = find_audio(folder / name)
        if source is None and missing == "skip":
            continue
        present = [text.strip() for text in row[label].split(separator) if text.strip()]
        if not present:
            raise SsondoError(f"{path}, line {number}: it has no label")
        group = (row[group_column] if group_column else "") or name
        clip_split = _parse_split(row[split], f"{path}, line {number}") if split else None
        clips.append(Row(name, source or folder / name, present, group, clip_split))
    if not clips:
        raise SsondoError(f"{path}: none of its {len(rows)} files is in {folder}; set tasks.{task}.options.audio")
    return build(clips, folds=folds, valid_share=valid_share, metric=metric, seed=seed, task=task)
