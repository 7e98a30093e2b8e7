r"""A task of your own from file names: a regular expression says what is in them.

Named groups: `label` (needed); `test` and `valid`, which put a file into that split where they
match anything; `fold`; and `group`, to keep files together where folds or a validation split are
drawn (a file where it matches nothing stands alone). `3_george_12.flac` with the takes 0 to 4 as the test:

    tasks:
      digits:
        kind: pattern
        path: data/digits
        options: {pattern: '(?P<label>\d)_(?P<speaker>\w+?)_(?:(?P<test>[0-4])|(?P<valid>[5-9])|\d+)\.flac'}
"""

import re
from pathlib import Path

from ssondo.errors import SsondoError
from ssondo.tasks.files import AUDIO_SUFFIXES
from ssondo.tasks.table import build
from ssondo.tasks.task import Task


def load(
    *, path: Path, task: str, seed: int, pattern: str, folds: int | None = None, valid_share: float = 0.15
) -> Task:
    """Read a folder of files, those in its folders too.

    Args:
        path: the folder.
        task: its name in the config.
        seed: of folds or a validation split that are drawn.
        pattern: regular expression that the whole path below `path` matches, with / between folders. Files that
            do not match are left out.
        folds: how many to draw where the pattern has none of `test`, `valid` and `fold`; None for 5.
        valid_share: share of training clips that validate, where no file is in `valid`.

    Raises:
        SsondoError: if the pattern is no regular expression, has no group `label`, or matches no file, or `label`
            matches nothing in one.
    """
    where = f"tasks.{task}.options.pattern"
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise SsondoError(f"{where}: not a regular expression ({error})") from None
    fields = expression.groupindex
    if "label" not in fields:
        raise SsondoError(f"{where}: it has no group (?P<label>...), which says the class of a file")
    if not path.is_dir():
        raise SsondoError(f"{path}: no such folder; it is tasks.{task}.path")
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in AUDIO_SUFFIXES)
    found = {file: match for file in files if (match := expression.fullmatch(file.relative_to(path).as_posix()))}
    if not found:
        first = f", e.g. {files[0].relative_to(path)}" if files else ""
        raise SsondoError(f"{where}: none of the {len(files)} sound files in {path} matches it{first}")
    matches = list(found.values())
    if unlabelled := next((match.string for match in matches if not match["label"]), None):
        raise SsondoError(f"{where}: the group label matches nothing in {unlabelled}; it must in each file")
    parts: list[str | int] | None = None
    if "fold" in fields:
        if not all((match["fold"] or "").isdigit() for match in matches):
            raise SsondoError(f"{where}: the group fold must match a number in each file")
        parts = [int(match["fold"]) for match in matches]
    elif "test" in fields or "valid" in fields:
        found_in = [match.groupdict() for match in matches]
        parts = ["test" if of.get("test") else "valid" if of.get("valid") else "train" for of in found_in]
    return build(
        [match.string for match in matches],
        list(found),
        [[match["label"]] for match in matches],
        parts,
        groups=[match["group"] or match.string for match in matches] if "group" in fields else None,
        folds=folds,
        valid_share=valid_share,
        metric=None,
        seed=seed,
        task=task,
    )
