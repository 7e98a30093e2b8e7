"""Whether the sound in a data folder is that of this configuration, where Snakemake has no record that could tell.

Snakemake remembers in the working directory how a file was made. Of sound that another working directory made, or
that was copied, it only sees that it is there.
"""

import json
from base64 import urlsafe_b64encode
from pathlib import Path

from ssondo.config import Config
from ssondo.errors import SsondoError
from ssondo.paths import Paths

_RECORDS = Path(".snakemake/metadata")
# Snakemake keeps longer names in another form.
_LONGEST_RECORD = 250


def check_data_folder(config: Config, paths: Paths) -> None:
    """Look at the first shard of sound of each split, if it is there and not on record.

    Raises:
        SsondoError: if it was made with other settings than these, or there are more shards than these; one line.
    """
    audioset = config.audioset
    for split, n_shards in (("train", audioset.n_train_shards), ("eval", audioset.n_eval_shards)):
        shard = Path(paths.audio.format(split=split, shard="0000"))
        if not shard.is_file() or _is_on_record(shard):
            continue
        way_out = (
            f"it was made in another working directory or with another configuration; give another paths.data, or "
            f"remove {shard.parent}"
        )
        wanted = {key: getattr(audioset, key) for key in ("sample_rate", "clip_s", "codec", "through_rate")}
        for key, value in _made_with(shard).items():
            if key in wanted and wanted[key] != value:
                raise SsondoError(f"config: audioset.{key} is {wanted[key]}, and {shard} has {value}: {way_out}")
        if paths.audio.format(split=split, shard=f"{n_shards:04d}") in map(str, shard.parent.iterdir()):
            raise SsondoError(
                f"config: audioset.n_{split}_shards is {n_shards}, and {shard.parent} has more: {way_out}"
            )


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
