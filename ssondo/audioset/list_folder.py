"""List a folder of audio files as segment lists, so that any corpus can be used for distillation."""

import logging
from pathlib import Path

import pandas as pd

from ssondo.audioset.sources.clip_names import SOUND_SUFFIXES
from ssondo.errors import SsondoError
from ssondo.storage.atomic_files import write_csv
from ssondo.storage.segments import hash64, seconds_text

log = logging.getLogger(__name__)

_COLUMNS = ["# YTID", " start_seconds", " end_seconds", " positive_labels"]


def list_folder(
    *, folder: Path, pattern: str, out_train: Path, out_eval: Path, eval_share: float, clip_s: float
) -> None:
    """List a folder of audio files in the form of AudioSet's segment lists.

    The id of a clip is the name of its file without extension. Whether a file is used for evaluation depends on its
    name alone.

    Args:
        folder: Folder of the audio files.
        pattern: Glob pattern of the files, e.g. "**/*.wav"; files without an audio extension are ignored.
        out_train: Segment list of the training files that is written.
        out_eval: Segment list of the evaluation files that is written.
        eval_share: Share of the files that is used for evaluation, in [0, 1].
        clip_s: Length of a clip in seconds.

    Raises:
        SsondoError: If the folder does not exist, contains no such file, or two files have the same name.
    """
    if not folder.is_dir():
        raise SsondoError(f"{folder}: no such folder")
    files: dict[str, Path] = {}
    for path in sorted(folder.glob(pattern)):
        if path.suffix.lower() not in SOUND_SUFFIXES or not path.is_file():
            continue
        if not (path.stem.isascii() and path.stem.isprintable()):
            raise SsondoError(f"{path}: the name is not plain ASCII; rename the file")
        if path.stem in files:
            raise SsondoError(
                f"{path} and {files[path.stem]} have the same name, which identifies the clip; rename one of them"
            )
        files[path.stem] = path
    if not files:
        raise SsondoError(f"{folder}: no sound file matches {pattern!r} ({', '.join(sorted(SOUND_SUFFIXES))})")
    # Not the hash of `shard_of`: all clips of a shard would then be in the same split.
    is_eval = {stem: hash64(f"split of {stem}") < eval_share * 2**64 for stem in sorted(files)}
    for out, split_is_eval in ((out_train, False), (out_eval, True)):
        stems = [stem for stem, value in is_eval.items() if value == split_is_eval]
        rows = [(stem, "0", seconds_text(clip_s), "") for stem in stems]
        write_csv(out, pd.DataFrame(rows, columns=_COLUMNS, dtype=object))
    n_eval = sum(is_eval.values())
    log.info("list_folder: %d train and %d eval files of %s", len(files) - n_eval, n_eval, folder)
