"""A task of your own from a CSV: the file, its label or labels, and a split, a fold, or neither.

    path,label,split                 path,labels,fold
    a/bark1.wav,dog,train            rain.flac,rain;wind,1

Config:

    tasks:
      barks:
        kind: table
        path: data/barks.csv
"""

from pathlib import Path
from typing import Any, Literal

from ssondo.errors import SsondoError
from ssondo.tasks.files import find_audio, read_rows
from ssondo.tasks.task import (
    SPLITS,
    Clip,
    Task,
    ascii_id,
    draw_valid,
    encode_labels,
    stratified_folds,
)

_SPLIT_NAMES = {"val": "valid", "validation": "valid", "dev": "valid", "training": "train", "testing": "test"}


def _column(given: str | None, usual: tuple[str, ...], header: list[str]) -> str | None:
    """The column that the user names, or the usual one that is there."""
    return given or next((name for name in usual if name in header), None)


def _part(text: str, where: str) -> str | int:
    """A split or a fold as it is written in the table."""
    text = text.strip().lower()
    if text.isdigit() and int(text) > 0:
        return int(text)
    split = _SPLIT_NAMES.get(text, text)
    if split not in SPLITS:
        raise SsondoError(f"{where}: {text!r} is no split (train, valid, test) and no fold (1, 2, ...)")
    return split


def build(
    names: list[str],
    sources: list[Path],
    labels: list[list[str]],
    parts: list[str | int] | None,
    *,
    groups: list[str] | None,
    folds: int | None,
    valid_share: float,
    metric: str | None,
    seed: int,
    task: str,
) -> Task:
    """A task from columns; folds, or a validation split, are drawn where the user gives none.

    Args:
        names: id of each clip.
        sources: its file.
        labels: its classes.
        parts: its split or fold, or None to draw `folds` folds.
        groups: clips of one group are never on both sides of what is drawn; None if each stands alone.
        folds: how many to draw; None for 5.
        valid_share: share of the training clips that validate, where no clip is in "valid".
        metric: "accuracy" or "map"; None for what the labels ask for.
        seed: of what is drawn.
        task: its name in the config.

    Raises:
        SsondoError: if so few folds, or such a validation split, cannot be drawn.
    """
    groups = groups or names
    if parts is None:
        folds = 5 if folds is None else folds
        if folds < 3:
            raise SsondoError(
                f"tasks.{task}.options.folds = {folds}: must be at least 3: one trains, one selects, one is scored"
            )
        parts = list(stratified_folds(labels, groups, folds, seed, task))
    elif "train" in parts and "valid" not in parts:
        train = [row for row, part in enumerate(parts) if part == "train"]
        drawn = draw_valid([labels[row] for row in train], [groups[row] for row in train], valid_share, seed, task)
        parts = list(parts)
        for row, part in zip(train, drawn, strict=True):
            parts[row] = part
    classes = sorted({label for present in labels for label in present})
    single = all(len(set(present)) == 1 for present in labels)
    clips = [
        Clip(ascii_id(name), source, encode_labels(present, classes), part)
        for name, source, present, part in zip(names, sources, labels, parts, strict=True)
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
    missing: Literal["error", "skip"] = "error",
) -> Task:
    """Read a table of clips.

    Args:
        path: the CSV, UTF-8, with a header.
        task: its name in the config.
        seed: of folds or a validation split that are drawn.
        audio: folder that the files are in, relative to the CSV's; None for the CSV's own. A file that
            is there with another suffix of sound (.ogg for .wav) is taken.
        file_column: with file names; None for `path`, `file` or `filename`.
        label_column: None for `label` or `labels`.
        split_column: with train, valid, test; None for `split`.
        fold_column: with 1, 2, ...; None for `fold`.
        group_column: clips with one value here stay on one side of what is drawn; one without a value stands alone.
        separator: between several labels of a clip.
        delimiter: between columns.
        folds: draw so many, stratified by label, and ignore the columns; None uses the columns, or draws 5.
        valid_share: share of training clips that validate, where the table has none that do.
        metric: accuracy (one label a clip) or map; None for what the labels ask for.
        missing: skip leaves out rows without a file instead of counting them as missing.

    Raises:
        SsondoError: if a column or all files are missing, a row has no label, or what stands between columns or
            labels cannot.
    """
    if len(delimiter) != 1:
        raise SsondoError(
            f'tasks.{task}.options.delimiter = {delimiter!r}: must be one character (in YAML a tab is "\\t", in '
            "double quotes)"
        )
    if not separator:
        raise SsondoError(f"tasks.{task}.options.separator is empty; leave it out where clips have one label each")
    rows = read_rows(path, (), delimiter)
    # What a row has beyond its header is under None.
    header = [name for name in rows[0] if name is not None] if rows else []
    file_name = _column(file_column, ("path", "file", "filename"), header)
    label = _column(label_column, ("label", "labels"), header)
    part = None
    if folds is None:
        part = split_column or fold_column or _column(None, ("split", "fold"), header)
    for name, key in ((file_name, "file_column"), (label, "label_column")):
        if name is None:
            raise SsondoError(
                f"{path}: it has {', '.join(header) or 'no columns'}; say which with tasks.{task}.options.{key}, "
                f"or what stands between columns with tasks.{task}.options.delimiter (now {delimiter!r})"
            )
    assert file_name is not None
    assert label is not None
    rows = read_rows(path, [name for name in (file_name, label, part, group_column) if name], delimiter)
    folder = path.parent / audio if audio else path.parent
    columns: dict[str, list[Any]] = {"names": [], "sources": [], "labels": [], "groups": [], "parts": []}
    for number, row in enumerate(rows, start=2):
        if not row[file_name].strip():
            raise SsondoError(f"{path}, line {number}: no file")
        source = find_audio(folder / row[file_name])
        if source is None and missing == "skip":
            continue
        present = [text.strip() for text in row[label].split(separator) if text.strip()]
        if not present:
            raise SsondoError(f"{path}, line {number}: no label")
        columns["names"].append(row[file_name])
        columns["sources"].append(source or folder / row[file_name])
        columns["labels"].append(present)
        columns["groups"].append((row[group_column] if group_column else "") or row[file_name])
        columns["parts"].append(_part(row[part], f"{path}, line {number}") if part else None)
    if not columns["names"]:
        raise SsondoError(f"{path}: none of its {len(rows)} files is in {folder}; set tasks.{task}.options.audio")
    return build(
        columns["names"],
        columns["sources"],
        columns["labels"],
        columns["parts"] if part else None,
        groups=columns["groups"],
        folds=folds,
        valid_share=valid_share,
        metric=metric,
        seed=seed,
        task=task,
    )
