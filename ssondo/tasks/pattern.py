r"""A task that file names describe: a regular expression extracts the label and the split.

Named groups of the expression: `label` (required); `test` and `valid`, which assign a file to that split if they match
a non-empty text; `fold`; and `group`, whose files stay together if folds or a validation split are drawn (a file
without a group is its own group). For `3_george_12.flac`, with the takes 0 to 4 as the test set:

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
from ssondo.tasks.table import Row, build
from ssondo.tasks.task import Task


def load(
    *, path: Path, task: str, seed: int, pattern: str, folds: int | None = None, valid_share: float = 0.15
) -> Task:
    """Read the names of the audio files in a folder and its subfolders.

    Args:
        pattern: Regular expression that must match the whole path relative to `path`, with / between folders. Files
            that it does not match are ignored.
        folds: Number of folds to draw if the pattern has none of the groups `test`, `valid` and `fold`; None is 5.
        valid_share: Share of the training clips that become validation clips if no file is in `valid`.

    Raises:
        SsondoError: If the pattern is not a regular expression, has no group `label` or matches no file, or `label` is
            empty for a file.
    """
    key = f"tasks.{task}.options.pattern"
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise SsondoError(f"{key}: this is not a regular expression ({error})") from None
    groups = expression.groupindex
    if "label" not in groups:
        raise SsondoError(f"{key}: it has no group (?P<label>...), which extracts the class of a file")
    if not path.is_dir():
        raise SsondoError(f"{path}: this folder does not exist; set tasks.{task}.path to the folder of the files")
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in AUDIO_SUFFIXES)
    matches = {file: match for file in files if (match := expression.fullmatch(file.relative_to(path).as_posix()))}
    if not matches:
        example = f", e.g. {files[0].relative_to(path)}" if files else ""
        raise SsondoError(f"{key}: it matches none of the {len(files)} audio files in {path}{example}")
    if unlabelled := next((match.string for match in matches.values() if not match["label"]), None):
        raise SsondoError(f"{key}: the group label is empty for {unlabelled}; it must match a text in every file name")
    if "fold" in groups and not all((match["fold"] or "").isdigit() for match in matches.values()):
        raise SsondoError(f"{key}: the group fold must match a number in every file name")
    rows = [
        Row(match.string, file, [match["label"]], match.groupdict().get("group") or match.string, _split(match))
        for file, match in matches.items()
    ]
    return build(rows, folds=folds, valid_share=valid_share, seed=seed, task=task)


def _split(match: re.Match[str]) -> str | int | None:
    """Return the split or fold of a file, or None if the pattern has no group for it."""
    groups = match.groupdict()
    if "fold" in groups:
        return int(groups["fold"])
    if "test" not in groups and "valid" not in groups:
        return None
    return "test" if groups.get("test") else "valid" if groups.get("valid") else "train"
