"""Clips of HDF5 packs of the PANNs and EfficientAT kind.

A pack has `audio_name` (file names) and either `mp3` (an encoded file a row, variable-length uint8) or
`waveform` (int16 samples; their rate is the attribute `sample_rate`); `target` is not read.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath

import h5py
import numpy as np

from ssondo.audioset.sources.local import Candidate, LocalSource, files_of
from ssondo.errors import SsondoError
from ssondo.storage.clip_location import ClipLocation, file_fingerprint
from ssondo.storage.segments import Segment

log = logging.getLogger(__name__)

_SUFFIXES = (".h5", ".hdf", ".hdf5")
# The usual name of each sort of content.
_ENCODED = ("mp3", "audio", "flac", "bytes")
_SAMPLES = ("waveform",)


class Hdf5(LocalSource):
    """Rows of HDF5 packs, found by the clip's id in `audio_name`.

    Args:
        path: a pack, a folder of packs, or a pattern with * of several.
        sample_rate: of `waveform` in Hz, where a pack does not say.
        files_are_clips: a row is the clip itself; false: the whole video, of which the segment is cut.
        copy_clips: keep a copy of each clip in the fetched shard; false: note where it lies.
        segments: the clips that will be asked for.
        located: list of their places that `locate` made; None: they are searched now.
    """

    def __init__(
        self,
        *,
        path: str,
        sample_rate: int | None = None,
        files_are_clips: bool = True,
        copy_clips: bool = False,
        segments: Sequence[Segment] = (),
        located: Path | None = None,
    ) -> None:
        super().__init__(
            path,
            copy_clips=copy_clips,
            files_are_clips=files_are_clips,
            segments=segments,
            located=located,
            scratch=None,
        )
        self._sample_rate = sample_rate

    def candidates(self, is_wanted: Callable[[str], bool]) -> Iterator[Candidate]:
        """Every named row of every pack.

        Raises:
            SsondoError: if a file is no such pack.
        """
        for file in files_of(self.path, _SUFFIXES, "HDF5 packs"):
            stamp = file_fingerprint(file)
            try:
                with h5py.File(file, "r") as pack:
                    names, column, rate = self._layout(file, pack)
            except OSError as error:
                raise SsondoError(f"{file}: not a readable HDF5 file ({error})") from None
            n_nameless = 0
            for row, name in enumerate(names):
                text = name.decode("ascii", "replace") if isinstance(name, bytes) else str(name)
                # PANNs leaves rows of files that it did not find without a name.
                if not text:
                    n_nameless += 1
                    continue
                origin = ClipLocation(str(file), f"{column}[{row}]@{rate}", stamp)
                yield Candidate(PurePosixPath(text).stem, f"{file}{row:012d}", origin)
            if n_nameless:
                log.info("%s: %d of %d rows have no name and no sound", file, n_nameless, len(names))

    def _layout(self, file: Path, pack: h5py.File) -> tuple[np.ndarray, str, int]:
        """The names, the column that has the sound, and the rate of its samples (0 for encoded files)."""
        column = next((name for name in (*_ENCODED, *_SAMPLES) if name in pack), None)
        if "audio_name" not in pack or column is None:
            raise SsondoError(
                f"{file}: not a pack of clips; it holds {', '.join(sorted(pack)) or 'nothing'}, "
                "expected audio_name and mp3 or waveform"
            )
        names = pack["audio_name"][:]
        if len(names) != len(pack[column]):
            raise SsondoError(f"{file}: {len(names)} names for {len(pack[column])} rows of {column}")
        if column not in _SAMPLES:
            return names, column, 0
        kind = h5py.check_vlen_dtype(pack[column].dtype) or pack[column].dtype
        if (kind.kind != "f" and (kind.kind, kind.itemsize) != ("i", 2)) or pack[column].ndim > 2:
            # It would be taken for int16 or for many channels, and be noise or silence.
            raise SsondoError(
                f"{file}: {column} is {kind} of shape {pack[column].shape}; expected (clips, samples) of int16, "
                "or of floats in [-1, 1]"
            )
        rate = int(pack.attrs.get("sample_rate", pack[column].attrs.get("sample_rate", self._sample_rate or 0)))
        if rate <= 0:
            raise SsondoError(
                f"{file}: does not say the sample rate of {column}; set audioset.source.sample_rate (PANNs: 32000)"
            )
        return names, column, rate
