"""Check that the audio and weights in a data folder belong to this configuration.

Snakemake records in the working directory how each file was made. It has no record of audio that was copied or made
from another working directory, and would use it whatever its settings. Setting the expected hash of weights after
they were downloaded runs no job again, so that a file can be pinned without a new training; the hash is checked here.
"""

import json
from base64 import urlsafe_b64encode
from pathlib import Path

from ssondo.config import Config
from ssondo.errors import SsondoError
from ssondo.storage.atomic_files import digest_path, file_digest
from ssondo.storage.segments import shard_label
from ssondo.storage.weights import file_in_package
from ssondo.workflow.paths import Paths

_RECORDS = Path(".snakemake/metadata")
# Snakemake splits longer names into folders.
_MAX_RECORD_CHARS = 250


def check_data_folder(config: Config, paths: Paths) -> None:
    """Check the weights and, for each split, the first audio shard if it exists and Snakemake has no record of it.

    Raises:
        SsondoError: if the audio was made with other settings, there are more shards than configured, or weights have
            another hash.
    """
    _check_weights(config, paths)
    audioset = config.audioset
    for split, n_shards in (("train", audioset.n_train_shards), ("eval", audioset.n_eval_shards)):
        shard = Path(paths.audio.format(split=split, shard=shard_label(0)))
        if not shard.is_file() or _is_on_record(shard):
            continue
        way_out = (
            f"it was made in another working directory or with another configuration; give another paths.data, or "
            f"remove {shard.parent}"
        )
        expected = {key: getattr(audioset, key) for key in ("sample_rate", "clip_s", "codec", "bandlimit_rate")}
        for key, value in _made_with(shard).items():
            if key in expected and expected[key] != value:
                raise SsondoError(f"config: audioset.{key} is {expected[key]}, but {shard} has {value}: {way_out}")
        if paths.audio.format(split=split, shard=shard_label(n_shards)) in map(str, shard.parent.iterdir()):
            raise SsondoError(
                f"config: audioset.n_{split}_shards is {n_shards}, but {shard.parent} has more: {way_out}"
            )


def _check_weights(config: Config, paths: Paths) -> None:
    checkpoints = [(f"teachers.{n}.checkpoint", f"teacher-{n}", t.checkpoint) for n, t in config.teachers.items()]
    checkpoints += [(f"students.{n}.pretrained", f"student-{n}", s.pretrained) for n, s in config.students.items()]
    for key, name, checkpoint in checkpoints:
        if checkpoint is None or checkpoint.sha256 is None:
            continue
        file = Path(paths.checkpoint.format(checkpoint=name, file=checkpoint.file))
        recorded = digest_path(file)
        sha256 = checkpoint.sha256
        if file.is_file() and recorded.is_file():
            sha256 = recorded.read_text(encoding="utf-8").strip()
        way_out = "correct the hash, or remove the file, which will then be retrieved again"
        if sha256 != checkpoint.sha256 and (checkpoint.path or checkpoint.package):
            # The original decides: if it has changed since, the workflow copies it again.
            file = Path(checkpoint.path) if checkpoint.path else file_in_package(checkpoint.package or "")
            sha256, way_out = file_digest(file), "correct one of them"
        if sha256 != checkpoint.sha256:
            raise SsondoError(f"config: {key}.sha256 is {checkpoint.sha256}, but {file} has {sha256}; {way_out}")


def _is_on_record(path: Path) -> bool:
    record = urlsafe_b64encode(str(path).encode()).decode()
    return len(record) > _MAX_RECORD_CHARS or (_RECORDS / record).is_file()


def _made_with(shard: Path) -> dict[str, object]:
    """Return the settings of an audio shard; empty if it cannot be read, which the jobs that read it report."""
    import h5py  # Loaded only if there is a shard to check.

    try:
        with h5py.File(shard, "r") as file:
            return {"sample_rate": int(file.attrs["sample_rate"]), **json.loads(file.attrs["settings"])}
    except (OSError, KeyError, ValueError):
        return {}
