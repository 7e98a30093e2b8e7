"""Log-mels of clips for training: cached in memory, or decoded from the shards and computed."""

import logging
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ssondo.distill.datasets import AudioDataset
from ssondo.system.prefetch import prefetch
from ssondo.system.progress import progress

log = logging.getLogger(__name__)

_CLIPS_PER_CHUNK = 64
_MB = 1_000_000


class PartialBatch(NamedTuple):
    """A batch as it comes from memory and disk: cached log-mels of some clips, the audio of the others.

    Attributes:
        log_mel: float32, shape (n_cached, windows, mels, frames), or None if no clip is cached.
        audio: int16, shape (n_decoded, samples), or None if all clips are cached.
        cached: Rows of the batch that `log_mel` holds, int64, shape (n_cached,).
        decoded: Rows of the batch that `audio` holds, int64, shape (n_decoded,).
    """

    log_mel: Tensor | None
    audio: Tensor | None
    cached: Tensor
    decoded: Tensor

    def map(self, function: Callable[[Tensor], Tensor]) -> "PartialBatch":
        """Apply `function` to each tensor."""
        log_mel, audio = (None if tensor is None else function(tensor) for tensor in (self.log_mel, self.audio))
        return PartialBatch(log_mel, audio, function(self.cached), function(self.decoded))


class LogMelCache:
    """Log-mels of clips, of which those that are drawn most often are kept in memory.

    The cache holds log-mels and not audio: they take half the memory of 16-bit samples at 32 kHz, are
    exact in float32, and computing them costs as much as a narrow student.

    Args:
        audio: All clips with audio.
        rows: Positions of the clips in `audio.clip_ids`, shape (n_clips,).
        front_end: Function from waveforms, (n, samples), to log-mels, (n, windows, mels, frames), on `device`.
        device: Device of the returned log-mels.
        cache_mb: Size of the cache in MB; 0 for no cache.
        num_workers: Number of threads that decode.
        name: Name of the training in the progress bar; None for no progress bar.
        weights: Relative probability with which each clip is drawn, shape (n_clips,); None for equal ones.

    Attributes:
        clip_ids: Ids of the clips.
        n_cached: Number of clips in the cache.
        cached_mb: Size of the cached log-mels in MB.
    """

    def __init__(
        self,
        audio: AudioDataset,
        rows: np.ndarray,
        front_end: Callable[[Tensor], Tensor],
        *,
        device: torch.device,
        cache_mb: float,
        num_workers: int,
        name: str | None,
        weights: np.ndarray | None = None,
    ) -> None:
        self.clip_ids = [audio.clip_ids[row] for row in rows]
        self._audio = audio
        self._rows = rows
        self._front_end = front_end
        self._device = device
        # Row of each clip in the cache; -1 for a clip that is not cached.
        self._cache_row = np.full(len(rows), -1, dtype=np.int64)
        example = self.to_device(self.read(np.arange(1)))
        self.n_cached = min(len(rows), int(max(cache_mb, 0) * _MB / example.nbytes))
        self.cached_mb = self.n_cached * example.nbytes / _MB
        if self.n_cached:
            weights = np.ones(len(rows)) if weights is None else weights
            most_drawn = np.argsort(-weights, kind="stable")[: self.n_cached]
            self._fill(most_drawn, tuple(example.shape[1:]), num_workers, name)
            if name is not None and self.n_cached < len(rows):
                log.info(
                    "%s: the log-mels of %d of %d clips are cached in memory (%.0f MB), %.1f %% of the draws; "
                    "the others are decoded",
                    *(name, self.n_cached, len(rows), self.cached_mb),
                    100 * weights[self._cache_row >= 0].sum() / weights.sum(),
                )

    def _fill(self, clips: np.ndarray, shape: tuple[int, ...], num_workers: int, name: str | None) -> None:
        cache = torch.empty((len(clips), *shape))
        chunks = np.array_split(np.arange(len(clips)), -(-len(clips) // _CLIPS_PER_CHUNK))
        batches = prefetch(lambda i: self.read(clips[chunks[i]]), range(len(chunks)), num_workers)
        shown = batches if name is None else progress(batches, f"{name}: log-mels", total=len(chunks), unit="batch")
        for chunk, batch in zip(chunks, shown, strict=True):
            cache[chunk[0] : chunk[-1] + 1] = self.to_device(batch).cpu()
        self._cache = cache
        self._cache_row[clips] = np.arange(len(clips))

    def __len__(self) -> int:
        return len(self.clip_ids)

    def read(self, clips: np.ndarray) -> PartialBatch:
        """Read the clips at positions `clips` in `clip_ids` from memory and disk; thread-safe."""
        cache_rows = self._cache_row[clips]
        cached, decoded = np.flatnonzero(cache_rows >= 0), np.flatnonzero(cache_rows < 0)
        return PartialBatch(
            self._cache[torch.from_numpy(cache_rows[cached])] if len(cached) else None,
            torch.from_numpy(self._audio.read(self._rows[clips[decoded]])) if len(decoded) else None,
            torch.from_numpy(cached),
            torch.from_numpy(decoded),
        )

    @torch.no_grad()
    def to_device(self, batch: PartialBatch) -> Tensor:
        """Return the log-mels of a batch on the device, shape (n, windows, mels, frames)."""
        batch = batch.map(lambda tensor: tensor.to(self._device, non_blocking=True))
        computed = None if batch.audio is None else self._front_end(batch.audio.float() / 32768)
        if batch.log_mel is None or computed is None:
            log_mel = batch.log_mel if computed is None else computed
            assert log_mel is not None, "a batch has at least one clip"
            return log_mel
        log_mel = computed.new_empty((len(batch.cached) + len(batch.decoded), *computed.shape[1:]))
        return log_mel.index_copy_(0, batch.cached, batch.log_mel).index_copy_(0, batch.decoded, computed)
