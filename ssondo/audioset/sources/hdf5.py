"""Clips in HDF5 packs as PANNs and EfficientAT write them.

A pack has a column `audio_name` (file names) and either `mp3` (one encoded file per row, variable-length uint8) or
`waveform` (int16 samples, whose rate is the attribute `sample_rate`). The column `target` is not read.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import h5py
import numpy as np

from ssondo.audioset.sources.local import Candidate, LocalSource, find_files
from ssondo.errors import SsondoError
from ssondo.storage.clip_location import ClipLocation, file_fingerprint

log = logging.getLogger(__name__)

_SUFFIXES = (".h5", ".hdf", ".hdf5")
# Usual column names, the most common first.
_ENCODED = ("mp3", "audio", "flac", "bytes")
_SAMPLES = ("waveform",)


@dataclass(kw_only=True)
class Hdf5(LocalSource):
    """Rows of HDF5 packs, identified by the clip's id in `audio_name`.

    Args:
        sample_rate: Sample rate of `waveform` in Hz, for packs that do not store it.
    """

    sample_rate: int | None = None

    def candidates(self, is_wanted: Callable[[str], bool]) -> Iterator[Candidate]:
        """Yield every named row of every pack."""
        for file in find_files(self.path, _SUFFIXES, "HDF5 packs"):
            fingerprint = file_fingerprint(file)
            try:
                with h5py.File(file, "r") as pack:
                    names, column, rate = self._layout(file, pack)
            except OSError as error:
                raise SsondoError(f"{file}: not a readable HDF5 file ({error})") from None
            n_nameless = 0
            for row, name in enumerate(names):
                text = name.decode("ascii", "replace") if isinstance(name, bytes) else str(name)
                # PANNs leaves the rows of missing files without a name.
                if not text:
                    n_nameless += 1
                    continue
                location = ClipLocation(str(file), f"{column}[{row}]@{rate}", fingerprint)
                yield Candidate(PurePosixPath(text).stem, f"{file}{row:012d}", location)
            if n_nameless:
                log.info("%s: %d of %d rows have no name and no sound", file, n_nameless, len(names))

    def _layout(self, file: Path, pack: h5py.File) -> tuple[np.ndarray, str, int]:
        """The names, the name of the column with the sound, and its sample rate (0 for encoded files)."""
        column = next((name for name in (*_ENCODED, *_SAMPLES) if name in pack), None)
        if "audio_name" not in pack or column is None:
            raise SsondoError(
                f"{file}: not a pack of clips; it has the columns {', '.join(sorted(pack)) or '(none)'}, "
                "expected audio_name and mp3 or waveform"
            )
        names = pack["audio_name"][:]
        if len(names) != len(pack[column]):
            raise SsondoError(f"{file}: {len(names)} names for {len(pack[column])} rows of {column}")
        if column not in _SAMPLES:
            return names, column, 0
        dtype = h5py.check_vlen_dtype(pack[column].dtype) or pack[column].dtype
        if (dtype.kind != "f" and (dtype.kind, dtype.itemsize) != ("i", 2)) or pack[column].ndim > 2:
            # Other types would be read as int16 or as many channels, and give noise or silence.
            raise SsondoError(
                f"{file}: {column} is {dtype} of shape {pack[column].shape}; expected (clips, samples) of int16, "
                "or of floats in [-1, 1]"
            )
        rate = int(pack.attrs.get("sample_rate", pack[column].attrs.get("sample_rate", self.sample_rate or 0)))
        if rate <= 0:
            raise SsondoError(
                f"{file}: does not state the sample rate of {column}; set audioset.source.sample_rate (PANNs: 32000)"
            )
        return names, column, rate
