"""Random access to the clips of many shards: their audio and their targets.

    train_set = PairedDataset(audio_paths, EmbeddingDataset(embedding_paths), "training")
    train_set.audio.read(train_set.rows[:8])        # (8, samples) int16
    train_set.targets(np.arange(8))                 # (8, dim) float32

Several threads read clips in random order from hundreds of files. The HDF5 library has one global
lock, so it is used only to find the position of the bytes, which are then read from the file directly.
"""

import logging
import os
import resource
import weakref
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import h5py
import numpy as np

from ssondo.audio.codec import decode_pcm16
from ssondo.errors import SsondoError
from ssondo.storage.shards.audio import AudioShard
from ssondo.storage.shards.embedding import EmbeddingShard

log = logging.getLogger(__name__)


class _ChunkedRows:
    """Rows of an HDF5 dataset that is stored in uncompressed chunks along its first axis; its file is kept open."""

    def __init__(self, path: Path, name: str) -> None:
        self._path = path
        with h5py.File(path, "r") as file:
            dataset = file[name]
            if dataset.compression is not None:
                raise SsondoError(f"{path}: {name} is compressed; make the file again with this version")
            self.dtype = dataset.dtype
            self._row_bytes = int(dataset.dtype.itemsize * np.prod(dataset.shape[1:], dtype=np.int64))
            if dataset.chunks is None:
                self._chunk_rows, offsets = max(dataset.shape[0], 1), [dataset.id.get_offset() or 0]
            else:
                self._chunk_rows = dataset.chunks[0]
                offsets = [0] * -(-dataset.shape[0] // self._chunk_rows)

                def store_offset(chunk: h5py.h5d.StoreInfo) -> None:
                    offsets[chunk.chunk_offset[0] // self._chunk_rows] = chunk.byte_offset

                dataset.id.chunk_iter(store_offset)
        self._offsets = np.array(offsets, dtype=np.int64)
        self._descriptor = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._descriptor)

    def read(self, start: int, stop: int) -> bytes:
        """Return the bytes of the rows `start` to `stop` (exclusive)."""
        pieces = []
        while start < stop:
            chunk, row = divmod(start, self._chunk_rows)
            n_rows = min(stop - start, self._chunk_rows - row)
            n_bytes = n_rows * self._row_bytes
            piece = os.pread(self._descriptor, n_bytes, int(self._offsets[chunk]) + row * self._row_bytes)
            if len(piece) != n_bytes:
                raise SsondoError(f"{self._path}: changed or was truncated while it was read; make it again")
            pieces.append(piece)
            start += n_rows
        return b"".join(pieces)


def _raise_open_files_limit(n: int) -> None:
    """Raise this process's limit of open files to `n` plus a reserve, if the system allows it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = n + 256
    if soft != resource.RLIM_INFINITY and soft < needed:
        limit = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


class AudioDataset:
    """The available clips of audio shards, in the order of the shards.

    Args:
        paths: Audio shards whose clips have one sample rate and one length.

    Attributes:
        clip_ids: Ids of the clips.
        sample_rate: Sample rate in Hz.
        n_absent: Number of clips that the shards list without audio.
        digests: Content digests of the shards.

    Raises:
        SsondoError: If a shard is broken or holds clips as fetched, or if two shards contain the same clip.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        # The files of the targets are open at the same time.
        _raise_open_files_limit(2 * len(paths))
        self.clip_ids: list[str] = []
        self.digests: list[str] = []
        self.n_absent = 0
        self.n_samples: int | None = None
        self._blobs: list[_ChunkedRows] = []
        shards, starts, stops, rates = [], [], [], set()
        for number, path in enumerate(paths):
            with AudioShard(path) as shard:
                rows = shard.ok
                offset = shard.extra("offset")
                self.clip_ids.extend(shard.clip_ids[row] for row in rows)
                self.digests.append(shard.digest)
                self.n_absent += len(shard) - len(rows)
                rates.add(shard.sample_rate)
            self._blobs.append(_ChunkedRows(path, "blob"))
            shards.append(np.full(len(rows), number, dtype=np.int32))
            starts.append(offset[rows])
            stops.append(offset[rows + 1])
        if len(rates) != 1 or 0 in rates:
            raise SsondoError(
                f"the audio shards have clips of {', '.join(f'{rate} Hz' for rate in sorted(rates)) or 'no rate'}; "
                "give shards of one rate that `resample` wrote (0 Hz means clips as fetched)"
            )
        (self.sample_rate,) = rates
        self._shard = np.concatenate(shards)
        self._start = np.concatenate(starts)
        self._stop = np.concatenate(stops)
        _check_unique(self.clip_ids, paths)

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Decode the clips at positions `rows` in `clip_ids`, int16, shape (n, samples).

        Raises:
            SsondoError: If a clip cannot be decoded or its length differs from that of the others.
        """
        return np.stack([self._decode(int(row)) for row in rows])

    def check_sample_rate(self, sample_rate: int) -> None:
        """Raise SsondoError unless `sample_rate`, the student's, is that of the clips."""
        if self.sample_rate != sample_rate:
            raise SsondoError(
                f"the clips have {self.sample_rate} Hz and the student takes {sample_rate}; "
                f"make them with audioset.sample_rate: {sample_rate}"
            )

    def _decode(self, row: int) -> np.ndarray:
        number = int(self._shard[row])
        blob = self._blobs[number].read(int(self._start[row]), int(self._stop[row]))
        try:
            waveform = decode_pcm16(blob, self.sample_rate)
        except SsondoError as error:
            raise SsondoError(f"clip {self.clip_ids[row]}: {error}") from None
        if self.n_samples is None:
            self.n_samples = len(waveform)
        if len(waveform) != self.n_samples:
            raise SsondoError(
                f"clip {self.clip_ids[row]} has {len(waveform)} samples, others have {self.n_samples}; "
                "make all audio shards with one clip length"
            )
        return waveform


class EmbeddingDataset:
    """The rows of embedding shards, in the order of the shards, read on demand.

    Args:
        paths: Embedding shards of one teacher.

    Attributes:
        clip_ids: Ids of the clips.
        embedding_dim: Size of an embedding.
        digests: Content digests of the shards.

    Raises:
        SsondoError: If a shard is broken, if the shards differ in the size of an embedding, or if two shards
            contain the same clip.
    """

    noun = "embedding"
    files = "embedding shards"

    def __init__(self, paths: Sequence[Path]) -> None:
        # The files of the targets are open at the same time.
        _raise_open_files_limit(2 * len(paths))
        self.clip_ids: list[str] = []
        self.digests: list[str] = []
        self._rows: list[_ChunkedRows] = []
        n_rows: list[int] = []
        dims: dict[int, Path] = {}
        for path in paths:
            with EmbeddingShard(path) as shard:
                self.clip_ids.extend(shard.clip_ids)
                self.digests.append(shard.digest)
                dims.setdefault(shard.embedding_dim, path)
                n_rows.append(len(shard))
            self._rows.append(_ChunkedRows(path, "embedding"))
        if len(dims) != 1:
            sizes = ", ".join(f"{dim} ({path})" for dim, path in dims.items())
            raise SsondoError(
                f"the embedding shards have embeddings of different sizes: {sizes or 'no shards'}; "
                "give the shards of one teacher"
            )
        (self.embedding_dim,) = dims
        self._shard = np.repeat(np.arange(len(paths)), n_rows)
        self._position = np.concatenate([np.arange(n) for n in n_rows])
        _check_unique(self.clip_ids, paths)

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Return the embeddings of the clips at positions `rows` in `clip_ids`, float32, shape (n, embedding_dim)."""
        out = np.empty((len(rows), self.embedding_dim), dtype=np.float32)
        for i, row in enumerate(rows):
            number, position = int(self._shard[row]), int(self._position[row])
            data = self._rows[number].read(position, position + 1)
            out[i] = np.frombuffer(data, dtype=self._rows[number].dtype)
        return out


class TargetDataset(Protocol):
    """What a student learns of each clip."""

    clip_ids: list[str]
    noun: str
    """Description of one target in messages."""
    files: str
    """Description of the files in messages."""

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Return the targets of the clips at positions `rows` in `clip_ids`, float32, shape (n, dim)."""


class PairedDataset:
    """The clips that have both audio and a target.

    Args:
        audio: Audio shards.
        targets: Targets by clip.
        split: "training" or "eval", used in messages.

    Attributes:
        clip_ids: Ids of the clips.
        audio: All clips with audio.
        rows: Position of each clip in `audio`, shape (n_clips,).
        target_rows: Position of each clip in `targets`, shape (n_clips,).
        offset: Subtracted from each target, shape (dim,); None for no offset.

    Raises:
        SsondoError: If no clip has both.
    """

    def __init__(self, audio: Sequence[Path], targets: TargetDataset, split: str) -> None:
        self.audio = AudioDataset(audio)
        self.rows, self.target_rows = intersect_ids(self.audio.clip_ids, targets.clip_ids)
        self.clip_ids = [self.audio.clip_ids[row] for row in self.rows]
        self.offset: np.ndarray | None = None
        self._targets = targets
        counts = (
            f"{len(self)} {split} clips have sound and an {targets.noun}; "
            f"{len(self.audio.clip_ids) - len(self)} with sound have no {targets.noun}, "
            f"{len(targets.clip_ids) - len(self)} with an {targets.noun} have no sound, "
            f"{self.audio.n_absent} are listed without sound"
        )
        if not len(self):
            raise SsondoError(f"{counts}; give audio shards and {targets.files} of the same clips")
        log.info("%s", counts)

    def __len__(self) -> int:
        return len(self.clip_ids)

    def targets(self, clips: np.ndarray) -> np.ndarray:
        """Return the targets of the clips at positions `clips` in `clip_ids`, float32, shape (n, dim)."""
        values = self._targets.read(self.target_rows[clips])
        return values if self.offset is None else values - self.offset


def _check_unique(clip_ids: Sequence[str], paths: Sequence[Path]) -> None:
    if len(set(clip_ids)) != len(clip_ids):
        duplicate = next(clip for clip, count in Counter(clip_ids).items() if count > 1)
        raise SsondoError(f"clip {duplicate} is in two of the shards {paths[0]} ...; give each shard once")


def intersect_ids(first: Sequence[str], second: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Find the clips that both lists contain, in the order of the first.

    Returns:
        Their positions in `first` and in `second`, both int64, shape (n_common,).
    """
    position = {clip: row for row, clip in enumerate(second)}
    pairs = [(row, position[clip]) for row, clip in enumerate(first) if clip in position]
    both = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return both[:, 0], both[:, 1]
