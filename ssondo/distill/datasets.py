"""Clips by number from many shards: their sound, joined with what the student shall learn of each.

    sound = AudioClips(audio_paths)
    teacher = TeacherEmbeddings(embedding_paths)
    rows, teacher_rows = common(sound.clip_ids, teacher.clip_ids)
    sound.read(rows[:8])                  # (8, samples) int16
    teacher.read(teacher_rows[:8])        # (8, dim) float32

Clips are drawn in no order from hundreds of files, by several threads. HDF5 has one lock for
all of them, so it only says where the bytes are; they are read past it.
"""

import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np

from ssondo.audio.codec import decode_pcm16
from ssondo.errors import SsondoError
from ssondo.storage.shards.audio import AudioShard
from ssondo.storage.shards.embedding import EmbeddingShard


class _Dataset:
    """Rows of a dataset that HDF5 keeps in uncompressed blocks along its first axis."""

    def __init__(self, file: h5py.File, name: str) -> None:
        dataset = file[name]
        if dataset.compression is not None:
            raise SsondoError(f"{file.filename}: {name} is compressed; this ssondo writes it plain, make it again")
        self._path = file.filename
        self._row_bytes = int(dataset.dtype.itemsize * np.prod(dataset.shape[1:], dtype=np.int64))
        if dataset.chunks is None:
            self._block_rows, offsets = max(dataset.shape[0], 1), [dataset.id.get_offset() or 0]
        else:
            self._block_rows = dataset.chunks[0]
            offsets = [0] * -(-dataset.shape[0] // self._block_rows)

            def note(block: h5py.h5d.StoreInfo) -> None:
                offsets[block.chunk_offset[0] // self._block_rows] = block.byte_offset

            dataset.id.chunk_iter(note)
        self._offsets = np.array(offsets, dtype=np.int64)

    def read(self, descriptor: int, start: int, stop: int) -> bytes:
        """Bytes of the rows `start` to `stop`, from a file that is open as `descriptor`."""
        parts = []
        while start < stop:
            block, within = divmod(start, self._block_rows)
            n = min(stop - start, self._block_rows - within)
            wanted = n * self._row_bytes
            part = os.pread(descriptor, wanted, int(self._offsets[block]) + within * self._row_bytes)
            if len(part) != wanted:
                raise SsondoError(f"{self._path}: changed or was cut while it was read; make it again")
            parts.append(part)
            start += n
        return b"".join(parts)


class _Files:
    """Descriptors of files, opened when they are first read and kept."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._open: dict[int, int] = {}
        self._lock = threading.Lock()
        _allow_open_files(2 * len(paths))

    def descriptor(self, number: int) -> int:
        found = self._open.get(number)
        if found is None:
            with self._lock:
                if number not in self._open:
                    self._open[number] = os.open(self._paths[number], os.O_RDONLY)
                found = self._open[number]
        return found

    def __del__(self) -> None:
        for descriptor in self._open.values():
            with suppress(OSError):
                os.close(descriptor)


def _allow_open_files(n: int) -> None:
    """Raise this process's own limit of open files towards `n` more than are usual."""
    try:
        import resource
    except ImportError:  # not a Unix
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = n + 256
    if soft != resource.RLIM_INFINITY and soft < wanted:
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


class AudioDataset:
    """The clips of audio shards that are there, in the order of the shards.

    Args:
        paths: audio shards, with clips of one sample rate and one length.

    Attributes:
        clip_ids: names of the clips.
        sample_rate: in Hz.
        n_absent: clips that the shards list without sound.
        digests: content digests of the shards.

    Raises:
        SsondoError: if a shard is broken, holds clips as fetched, or a clip stands in two.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.clip_ids: list[str] = []
        self.digests: list[str] = []
        self.n_absent = 0
        self.n_samples: int | None = None
        self._blobs: list[_Dataset] = []
        shards, starts, stops, rates = [], [], [], set()
        for number, path in enumerate(paths):
            with AudioShard(path) as shard:
                rows = shard.ok
                offset = shard.extra("offset")
                self.clip_ids.extend(shard.clip_ids[row] for row in rows)
                self.digests.append(shard.digest)
                self.n_absent += len(shard) - len(rows)
                rates.add(shard.sample_rate)
            with h5py.File(path, "r") as file:
                self._blobs.append(_Dataset(file, "blob"))
            shards.append(np.full(len(rows), number, dtype=np.int32))
            starts.append(offset[rows])
            stops.append(offset[rows + 1])
        if len(rates) != 1 or 0 in rates:
            raise SsondoError(
                f"audio shards of {', '.join(f'{rate} Hz' for rate in sorted(rates)) or 'no kind'}; give shards of one "
                "rate that `resample` made (0 Hz means as fetched)"
            )
        (self.sample_rate,) = rates
        self._shard = np.concatenate(shards)
        self._start = np.concatenate(starts)
        self._stop = np.concatenate(stops)
        self._files = _Files(paths)
        _refuse_twice(self.clip_ids, paths)

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Decode clips.

        Args:
            rows: positions in `clip_ids`, shape (n,).

        Returns:
            int16, shape (n, samples).

        Raises:
            SsondoError: if a clip cannot be decoded or has another length than the rest.
        """
        return np.stack([self._decode(int(row)) for row in rows])

    def _decode(self, row: int) -> np.ndarray:
        number = int(self._shard[row])
        blob = self._blobs[number].read(self._files.descriptor(number), int(self._start[row]), int(self._stop[row]))
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
    """The rows of embedding shards, in the order of the shards, read when they are asked for.

    Args:
        paths: embedding shards of one teacher.

    Attributes:
        clip_ids: names of the clips.
        embedding_dim: length of an embedding.
        digests: content digests of the shards.

    Raises:
        SsondoError: if a shard is broken, of another size than the others, or a clip stands in two.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.clip_ids: list[str] = []
        self.digests: list[str] = []
        self._rows: list[_Dataset] = []
        self._dtypes: list[np.dtype] = []
        shards, positions = [], []
        dims: dict[int, Path] = {}
        for number, path in enumerate(paths):
            with EmbeddingShard(path) as shard:
                self.clip_ids.extend(shard.clip_ids)
                self.digests.append(shard.digest)
                dims.setdefault(shard.embedding_dim, path)
                n_rows = len(shard)
            with h5py.File(path, "r") as file:
                self._rows.append(_Dataset(file, "embedding"))
                self._dtypes.append(file["embedding"].dtype)
            shards.append(np.full(n_rows, number, dtype=np.int32))
            positions.append(np.arange(n_rows, dtype=np.int64))
        if len(dims) != 1:
            kinds = ", ".join(f"{dim} ({path})" for dim, path in dims.items())
            raise SsondoError(
                f"embedding shards of different sizes: {kinds or 'none given'}; give one teacher's shards"
            )
        (self.embedding_dim,) = dims
        self._shard = np.concatenate(shards)
        self._position = np.concatenate(positions)
        self._files = _Files(paths)
        _refuse_twice(self.clip_ids, paths)

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Embeddings of clips at positions `rows` in `clip_ids`, float32, shape (n, embedding_dim)."""
        out = np.empty((len(rows), self.embedding_dim), dtype=np.float32)
        for i, row in enumerate(rows):
            number, position = int(self._shard[row]), int(self._position[row])
            data = self._rows[number].read(self._files.descriptor(number), position, position + 1)
            out[i] = np.frombuffer(data, dtype=self._dtypes[number])
        return out


def _refuse_twice(clip_ids: Sequence[str], paths: Sequence[Path]) -> None:
    if len(set(clip_ids)) != len(clip_ids):
        seen: set[str] = set()
        twice = next(clip for clip in clip_ids if clip in seen or seen.add(clip))  # type: ignore[func-returns-value]
        raise SsondoError(f"clip {twice} stands in two of the shards {paths[0]} ...; give each shard once")


def intersect_ids(first: Sequence[str], second: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Clips that both lists have, in the order of the first.

    Returns:
        Their positions in `first` and in `second`, both int64, shape (n_common,).
    """
    where = {clip: position for position, clip in enumerate(second)}
    pairs = [(i, where[clip]) for i, clip in enumerate(first) if clip in where]
    both = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return both[:, 0], both[:, 1]
