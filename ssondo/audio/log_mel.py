"""Log-mel front-ends and windows.

    log_mel = LogMel(STUDENT)(waveforms)                          # (batch, samples) -> (batch, mels, frames)
    windows = slice_windows(waveforms, window=10 * 32000)         # (batch, windows, samples)

The front-ends of teachers and students differ only in the constants of `ssondo.audio.log_mel_settings`.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssondo.audio.log_mel_settings import STUDENT, LogMelSettings


class LogMel(nn.Module):
    """Computes log-mel spectrograms with torchaudio, on any device, always in float32.

    Its buffers are not part of the state dict, so that checkpoints hold only what was learned.

    Args:
        settings: Constants of the front-end, a preset of `ssondo.audio.log_mel_settings` or others.
    """

    window: Tensor
    filterbank: Tensor

    def __init__(self, settings: LogMelSettings = STUDENT) -> None:
        from torchaudio.functional import melscale_fbanks

        super().__init__()
        self.settings = settings
        # On the CPU, because torchaudio's function needs values, which the meta device does not have.
        with torch.device("cpu"):
            filterbank = melscale_fbanks(
                settings.n_fft // 2 + 1,
                settings.f_min,
                settings.f_max,
                settings.n_mels,
                settings.sample_rate,
                norm=settings.mel_norm,
                mel_scale=settings.mel_scale,
            )
        self.register_buffer("window", torch.hann_window(settings.window), persistent=False)
        self.register_buffer("filterbank", filterbank.to(torch.get_default_device()), persistent=False)

    def forward(self, waveforms: Tensor) -> Tensor:
        """Compute log-mel spectrograms.

        Args:
            waveforms: Waveforms, shape (..., samples), of at least `settings.min_samples` samples.

        Returns:
            Log-mel spectrograms, shape (..., n_mels, frames), float32.
        """
        if torch.is_autocast_enabled(waveforms.device.type):
            # Energies overflow in half precision, and quiet bands are rounded to zero.
            with torch.autocast(waveforms.device.type, enabled=False):
                return self._log_mel(waveforms)
        return self._log_mel(waveforms)

    def _log_mel(self, waveforms: Tensor) -> Tensor:
        from torchaudio.functional import spectrogram

        settings = self.settings
        # torchaudio's own flattening of the batch would not export with a dynamic length of several windows.
        spectra = spectrogram(
            waveforms.float().reshape(-1, waveforms.shape[-1]),
            pad=0,
            window=self.window,
            n_fft=settings.n_fft,
            hop_length=settings.hop_length,
            win_length=settings.window,
            power=settings.power,
            normalized=False,
            center=settings.center,
            pad_mode=settings.pad_mode,
        )
        log_mel = (spectra.mT @ self.filterbank + settings.log_offset).log()  # (batch, frames, mels)
        if settings.mean != 0.0 or settings.std != 1.0:
            log_mel = (log_mel - settings.mean) / settings.std
        return log_mel.mT.contiguous().reshape(*waveforms.shape[:-1], settings.n_mels, -1)


def slice_windows(waveforms: Tensor, window: int, step: int | None = None, add_last: bool = True) -> Tensor:
    """Cut clips into windows of equal length.

    Args:
        waveforms: Waveforms, shape (..., samples).
        window: Length of a window in samples.
        step: Distance between two windows in samples, at most `window`; None for `window`.
        add_last: Zero-pad the remainder of a clip to a last window, so that a clip of any length has a
            window and a clip without a remainder gets no empty one. False drops the remainder, as the
            published pipeline does; a clip shorter than a window then has no window.

    Returns:
        Shape (..., n_windows, window).

    Raises:
        ValueError: If the clips are empty or `step` is not in 1..window.
    """
    step = window if step is None else step
    n_samples = waveforms.shape[-1]
    if n_samples == 0:
        raise ValueError("a clip without samples has no windows")
    if not 0 < step <= window:
        raise ValueError(f"step {step} is not in 1..{window}, the length of a window")
    if not add_last:
        if n_samples < window:
            return waveforms.new_zeros((*waveforms.shape[:-1], 0, window))
        return waveforms.unfold(-1, window, step)
    # With sym_max the number of windows stays symbolic under torch.export with a dynamic length.
    n_more: int = torch.sym_max(0, (n_samples - window + step - 1) // step)  # type: ignore[assignment]
    return F.pad(waveforms, (0, n_more * step + window - n_samples)).unfold(-1, window, step)
