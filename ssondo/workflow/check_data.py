"""Whether sound and weights in a data folder are those of this configuration, where Snakemake cannot tell.

Snakemake remembers in the working directory how a file was made. Of sound that another working directory made, or
that was copied, it only sees that it is there. Nor does it see a hash of weights that is set after they came: that
makes nothing again, so that a file can be pinned without training on it anew.
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
# Snakemake keeps longer names in another form.
_LONGEST_RECORD = 250


def check_data_folder(config: Config, paths: Paths) -> None:
    """Look at the weights, and at the first shard of sound of each split, if it is there and not on record.

    Raises:
        SsondoError: if the sound was made with other settings than these, or there are more shards than these, or
            weights have another hash; one line.
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
        wanted = {key: getattr(audioset, key) for key in ("sample_rate", "clip_s", "codec", "bandlimit_rate")}
        for key, value in _made_with(shard).items():
            if key in wanted and wanted[key] != value:
                raise SsondoError(f"config: audioset.{key} is {wanted[key]}, and {shard} has {value}: {way_out}")
        if paths.audio.format(split=split, shard=shard_label(n_shards)) in map(str, shard.parent.iterdir()):
            raise SsondoError(
                f"config: audioset.n_{split}_shards is {n_shards}, and {shard.parent} has more: {way_out}"
            )


def _check_weights(config: Config, paths: Paths) -> None:
    places = [(f"teachers.{n}.checkpoint", f"teacher-{n}", t.checkpoint) for n, t in config.teachers.items()]
    places += [(f"students.{n}.pretrained", f"student-{n}", s.pretrained) for n, s in config.students.items()]
    for key, name, checkpoint in places:
        if checkpoint is None or checkpoint.sha256 is None:
            continue
        file = Path(paths.checkpoint.format(checkpoint=name, file=checkpoint.file))
        noted = digest_path(file)
        found = noted.read_text(encoding="utf-8").strip() if file.is_file() and noted.is_file() else checkpoint.sha256
        way_out = "correct it, or remove that file to get it anew"
        if found != checkpoint.sha256 and (checkpoint.path or checkpoint.package):
            # What it is a copy of counts; a changed one is copied again.
            file = Path(checkpoint.path) if checkpoint.path else file_in_package(checkpoint.package or "")
            found, way_out = file_digest(file), "correct one of them"
        if found != checkpoint.sha256:
            raise SsondoError(f"config: {key}.sha256 is {checkpoint.sha256}, and {file} has {found}; {way_out}")


def _is_on_record(path: Path) -> bool:
    record = urlsafe_b64encode(str(path).encode()).decode()
    return len(record) > _LONGEST_RECORD or (_RECORDS / record).is_file()


def _made_with(shard: Path) -> dict[str, object]:
    """Settings of an audio shard; none if it cannot be read, which the jobs that read it will say."""
    import h5py  # where nothing is to be looked at, it need not be loaded

    try:
        with h5py.File(shard, "r") as file:
            return {"sample_rate": int(file.attrs["sample_rate"]), **json.loads(file.attrs["settings"])}
    except (OSError, KeyError, ValueError):
        return {}
