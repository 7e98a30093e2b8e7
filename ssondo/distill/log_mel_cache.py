"""Log-mels of clips for training: from memory where they are kept there, else decoded from the shards."""

import logging
from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from ssondo.distill.datasets import AudioDataset
from ssondo.system.prefetch import prefetch
from ssondo.system.progress import progress

log = logging.getLogger(__name__)

_CLIPS_AT_ONCE = 64
_MB = 1_000_000


class FrontEnd(Protocol):
    """What a student computes before its first layer: waveforms (n, samples) to log-mels (n, windows, mels, frames)."""

    def __call__(self, waveforms: Tensor) -> Tensor:
        """Compute log-mels."""
        ...


class PartialBatch(NamedTuple):
    """What memory and disk have of a batch: log-mels of some of its clips, the sound of the others.

    log_mel: float32, shape (n_kept, windows, mels, frames). sound: int16, shape (n_rest, samples).
    kept, rest: which rows of the batch these are, int64.
    """

    log_mel: Tensor | None
    sound: Tensor | None
    kept: Tensor
    rest: Tensor

    def each(self, function: Callable[[Tensor], Tensor]) -> "PartialBatch":
        """`function` of every tensor."""
        log_mel, sound = (None if part is None else function(part) for part in (self.log_mel, self.sound))
        return PartialBatch(log_mel, sound, function(self.kept), function(self.rest))


class LogMelCache:
    """Log-mels of clips; those that are drawn most often are kept in memory, as many as may be.

    In memory are log-mels, not sound: they are half the size of 16-bit samples at 32 kHz, exact in
    float32, and computing them costs as much as a narrow student.

    Args:
        audio: the clips.
        rows: positions in `audio.clip_ids` of the clips to serve, shape (n_clips,).
        front_end: computes log-mels, on `device`.
        device: where log-mels are wanted.
        cache_mb: most memory for log-mels, in MB; 0 for none.
        num_workers: threads that decode.
        name: of the work, for the progress display; None for no display.
        weights: relative probability with which each clip will be asked for, shape (n_clips,); None for equal ones.

    Attributes:
        clip_ids: names of the clips served.
        n_kept: how many of them are kept in memory.
        kept_mb: the memory that they take.
    """

    def __init__(
        self,
        audio: AudioDataset,
        rows: np.ndarray,
        front_end: FrontEnd,
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
        # Row of a clip in the memory; -1 is nowhere.
        self._place = np.full(len(rows), -1, dtype=np.int64)
        one = self.on_device(self.read(np.arange(1)))
        self.n_kept = min(len(rows), int(max(cache_mb, 0) * _MB / one.nbytes))
        self.kept_mb = self.n_kept * one.nbytes / _MB
        if self.n_kept:
            weights = np.ones(len(rows)) if weights is None else weights
            self._keep(np.argsort(-weights, kind="stable")[: self.n_kept], tuple(one.shape[1:]), num_workers, name)
            if name is not None and self.n_kept < len(rows):
                share = 100 * weights[self._place >= 0].sum() / weights.sum()
                log.info(
                    "%s: log-mels of %d of %d clips are kept in memory (%.0f MB), %.1f %% of what is drawn; "
                    "the rest is decoded",
                    *(name, self.n_kept, len(rows), self.kept_mb, share),
                )

    def _keep(self, clips: np.ndarray, shape: tuple[int, ...], num_workers: int, name: str | None) -> None:
        memory = torch.empty((len(clips), *shape))
        parts = np.array_split(np.arange(len(clips)), -(-len(clips) // _CLIPS_AT_ONCE))
        read = prefetch(lambda i: self.read(clips[parts[i]]), range(len(parts)), num_workers)
        shown = read if name is None else progress(read, f"{name}: log-mels", total=len(parts), unit="batch")
        for part, found in zip(parts, shown, strict=True):
            memory[part[0] : part[-1] + 1] = self.on_device(found).cpu()
        self._memory = memory
        self._place[clips] = np.arange(len(clips))

    def __len__(self) -> int:
        return len(self.clip_ids)

    def read(self, clips: np.ndarray) -> PartialBatch:
        """What memory and disk have of clips, by position in `clip_ids`; for `on_device`."""
        places = self._place[clips]
        kept, rest = np.flatnonzero(places >= 0), np.flatnonzero(places < 0)
        return PartialBatch(
            self._memory[torch.from_numpy(places[kept])] if len(kept) else None,
            torch.from_numpy(self._audio.read(self._rows[clips[rest]])) if len(rest) else None,
            torch.from_numpy(kept),
            torch.from_numpy(rest),
        )

    @torch.no_grad()
    def on_device(self, read: PartialBatch) -> Tensor:
        """Log-mels on the device, shape (n, windows, mels, frames), of what `read` returned."""
        here = read.each(lambda tensor: tensor.to(self._device, non_blocking=True))
        computed = None if here.sound is None else self._front_end(here.sound.float() / 32768)
        if here.log_mel is None or computed is None:
            found = here.log_mel if computed is None else computed
            assert found is not None, "a batch has at least one clip"
            return found
        whole = computed.new_empty((len(here.kept) + len(here.rest), *computed.shape[1:]))
        return whole.index_copy_(0, here.kept, here.log_mel).index_copy_(0, here.rest, computed)
