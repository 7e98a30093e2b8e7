"""SpecAugment: random masks on log-mel spectrograms."""

from functools import partial

import torch
from torch import Tensor, nn


class SpecAugment(nn.Module):
    """Random masks over time and frequency, in training mode only: Park et al. (2019) without time warping.

    Each clip of a batch gets its own masks.
    `torchaudio.functional.mask_along_axis_iid` is not used: it takes no generator, so a resumed training would not be
    bit-identical, it cannot draw the masks of one part of a larger batch, and it fills with one value for all clips.

    Args:
        n_time_masks: Number of masks over time.
        max_time_width: Largest width of a mask over time in frames; widths are uniform in 0..max.
        n_frequency_masks: Number of masks over frequency.
        max_frequency_width: Largest width of a mask over frequency in mel bands.
        fill: Value of masked elements; None for the mean of the clip, which is neutral for front-ends
            that do not normalise.
    """

    def __init__(
        self,
        n_time_masks: int = 1,
        max_time_width: int = 0,
        n_frequency_masks: int = 1,
        max_frequency_width: int = 0,
        fill: float | None = None,
    ) -> None:
        super().__init__()
        self.n_time_masks = n_time_masks
        self.max_time_width = max_time_width
        self.n_frequency_masks = n_frequency_masks
        self.max_frequency_width = max_frequency_width
        self.fill = fill

    def forward(
        self, log_mel: Tensor, generator: torch.Generator | None = None, *, part: int = 0, n_parts: int = 1
    ) -> Tensor:
        """Return masked spectrograms of the same shape; the input is not changed.

        Args:
            log_mel: Spectrograms, shape (batch, ..., mels, frames); the dimensions between share the
                masks of their clip.
            generator: Random number generator on the device of the spectrograms; None for the default one.
            part: Index of this part of a larger batch, for all of which the masks are drawn.
            n_parts: Number of parts of this size in the larger batch.
        """
        if not self.training:
            return log_mel
        batch, n_mels, n_frames = log_mel.shape[0], log_mel.shape[-2], log_mel.shape[-1]
        masks = partial(_masks, n_parts * batch, device=log_mel.device, generator=generator)
        rows = slice(part * batch, (part + 1) * batch)
        over_time = masks(self.n_time_masks, self.max_time_width, n_frames)[rows]
        over_frequency = masks(self.n_frequency_masks, self.max_frequency_width, n_mels)[rows]
        masked = over_frequency[:, :, None] | over_time[:, None, :]
        masked = masked.reshape(batch, *(1,) * (log_mel.dim() - 3), n_mels, n_frames)
        if self.fill is None:
            fill = log_mel.mean(dim=tuple(range(1, log_mel.dim())), keepdim=True)
        else:
            fill = log_mel.new_tensor(self.fill)
        return torch.where(masked, fill, log_mel)


def _masks(
    batch: int, n_masks: int, max_width: int, size: int, *, device: torch.device, generator: torch.Generator | None
) -> Tensor:
    """Masked positions, shape (batch, size), bool."""
    uniform = torch.rand((2, batch, n_masks, 1), device=device, generator=generator)
    width = (uniform[0] * (min(max_width, size) + 1)).floor()
    start = (uniform[1] * (size - width + 1)).floor()
    position = torch.arange(size, device=device)
    return ((position >= start) & (position < start + width)).any(dim=1)
