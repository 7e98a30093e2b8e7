"""Log-mel front-ends, windows and SpecAugment.

    log_mel = LogMel(STUDENT)(waveforms)                          # (batch, samples) -> (batch, mels, frames)
    windows = slice_windows(waveforms, window=10 * 32000)         # (batch, windows, samples)

Every front-end of the project is one `LogMel` with other settings, so that teachers and
students cannot differ in more than the constants below.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssondo.errors import SsondoError

# Above this frequency in Hz the slaney scale is logarithmic, below it linear.
_SLANEY_BREAK_HZ = 1000.0
_SLANEY_HZ_PER_MEL = 200.0 / 3.0
_SLANEY_LOG_STEP = math.log(6.4) / 27.0


@dataclass(frozen=True, kw_only=True)
class LogMelSettings:
    """Constants of a log-mel front-end: `(log(mel + log_offset) - mean) / std`.

    Attributes:
        sample_rate: in Hz.
        n_fft: length of the transform in samples.
        hop_length: distance of two frames in samples.
        n_mels: number of mel bands.
        f_min: lower edge of the first band in Hz.
        f_max: upper edge of the last band in Hz, at most half the sample rate.
        win_length: length of the Hann window (periodic) in samples, centred in the transform;
            None for `n_fft`.
        mel_scale: "slaney" (linear up to 1 kHz) or "htk".
        mel_norm: "slaney" (bands of equal area) or None (bands of equal height).
        power: 2 for an energy, 1 for a magnitude spectrogram.
        center: whether the first frame is centred on the first sample.
        pad_mode: how a centred transform pads, a mode of `torch.nn.functional.pad`.
        log_offset: added before the logarithm.
        mean: subtracted from the log-mel.
        std: what the log-mel is divided by after that.
    """

    sample_rate: int
    n_fft: int
    hop_length: int
    n_mels: int
    f_min: float
    f_max: float
    win_length: int | None = None
    mel_scale: Literal["slaney", "htk"] = "slaney"
    mel_norm: Literal["slaney"] | None = "slaney"
    power: float = 2.0
    center: bool = False
    pad_mode: str = "reflect"
    log_offset: float = 1e-3
    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        faults = {
            f"hop_length {self.hop_length} is not positive": self.hop_length <= 0,
            f"n_mels {self.n_mels} is not positive": self.n_mels <= 0,
            f"win_length {self.win_length} is not in 1..n_fft ({self.n_fft})": not 1 <= self.window <= self.n_fft,
            f"f_min {self.f_min:g} and f_max {self.f_max:g} Hz do not lie in order in 0..{self.sample_rate / 2:g} Hz": (
                not 0 <= self.f_min < self.f_max <= self.sample_rate / 2
            ),
            f"mel_scale {self.mel_scale!r} is not 'slaney' or 'htk'": self.mel_scale not in ("slaney", "htk"),
            f"mel_norm {self.mel_norm!r} is not 'slaney' or None": self.mel_norm not in ("slaney", None),
            f"power {self.power:g} is not positive": self.power <= 0,
            f"log_offset {self.log_offset:g} is not positive": self.log_offset <= 0,
            f"std {self.std:g} is not positive": self.std <= 0,
        }
        for text, wrong in faults.items():
            if wrong:
                raise SsondoError(f"log-mel settings: {text}")

    @property
    def window(self) -> int:
        """Length of the window in samples."""
        return self.n_fft if self.win_length is None else self.win_length

    @property
    def min_samples(self) -> int:
        """The shortest waveform that has a frame, in samples; pad shorter ones with zeros."""
        # Reflection needs one sample more than it mirrors.
        return self.n_fft // 2 + 1 if self.center else self.n_fft

    def n_frames(self, n_samples: int) -> int:
        """Number of frames of a waveform of `n_samples`."""
        return (n_samples + (2 * (self.n_fft // 2) if self.center else 0) - self.n_fft) // self.hop_length + 1


# SPEC of the published students; the same for all three.
STUDENT = LogMelSettings(sample_rate=32000, n_fft=1024, hop_length=512, n_mels=128, f_min=50.0, f_max=16000.0)
MATPAC = LogMelSettings(
    sample_rate=16000,
    n_fft=400,
    hop_length=160,
    n_mels=80,
    f_min=50.0,
    f_max=8000.0,
    log_offset=float(np.finfo(np.float32).eps),
    mean=-7.056,
    std=4.193,
)
# Mean and std are those of the checkpoint (`norm_stats`) where it has them.
M2D = LogMelSettings(
    sample_rate=16000,
    n_fft=400,
    hop_length=160,
    n_mels=80,
    f_min=50.0,
    f_max=8000.0,
    center=True,
    log_offset=float(np.finfo(np.float32).eps),
    mean=-7.1,
    std=4.2,
)
YAMNET = LogMelSettings(
    sample_rate=16000,
    n_fft=512,
    win_length=400,
    hop_length=160,
    n_mels=64,
    f_min=125.0,
    f_max=7500.0,
    mel_scale="htk",
    mel_norm=None,
    power=1.0,
    log_offset=1e-6,
)


def _mel_of(hertz: float, scale: str) -> float:
    if scale == "htk":
        return 2595.0 * math.log10(1.0 + hertz / 700.0)
    if hertz < _SLANEY_BREAK_HZ:
        return hertz / _SLANEY_HZ_PER_MEL
    return _SLANEY_BREAK_HZ / _SLANEY_HZ_PER_MEL + math.log(hertz / _SLANEY_BREAK_HZ) / _SLANEY_LOG_STEP


def _hertz_of(mel: Tensor, scale: str) -> Tensor:
    if scale == "htk":
        return 700.0 * (10.0 ** (mel / 2595.0) - 1.0)
    break_mel = _SLANEY_BREAK_HZ / _SLANEY_HZ_PER_MEL
    above = _SLANEY_BREAK_HZ * torch.exp(_SLANEY_LOG_STEP * (mel.clamp(min=break_mel) - break_mel))
    return torch.where(mel < break_mel, mel * _SLANEY_HZ_PER_MEL, above)


def mel_filterbank(settings: LogMelSettings) -> Tensor:
    """Triangular mel filters, shape (n_fft // 2 + 1, n_mels), float32.

    In single precision and in torchaudio's order, so that the published students get bit by bit
    the filters that they were trained with: ERes2Net makes 5e-4 of the rounding's 1e-5.
    """
    limits = [_mel_of(hertz, settings.mel_scale) for hertz in (settings.f_min, settings.f_max)]
    edges = _hertz_of(torch.linspace(limits[0], limits[1], settings.n_mels + 2), settings.mel_scale)
    frequencies = torch.linspace(0, settings.sample_rate // 2, settings.n_fft // 2 + 1)[:, None]
    width, distance = edges.diff(), edges - frequencies
    filters = torch.minimum(-distance[:, :-2] / width[:-1], distance[:, 2:] / width[1:]).clamp(min=0.0)
    if settings.mel_norm == "slaney":
        filters *= 2.0 / (edges[2:] - edges[:-2])
    return filters


class LogMel(nn.Module):
    """Waveform to log-mel spectrogram, on any device, always in float32.

    Its constants are no part of a state dict: checkpoints hold what was learned.

    Args:
        settings: one of `STUDENT`, `MATPAC`, `M2D`, `YAMNET`, or your own.

    Example:
        >>> LogMel(STUDENT)(torch.zeros(2, 320000)).shape
        torch.Size([2, 128, 624])
    """

    window: Tensor
    filterbank: Tensor

    def __init__(self, settings: LogMelSettings = STUDENT) -> None:
        super().__init__()
        self.settings = settings
        before = (settings.n_fft - settings.window) // 2
        window = F.pad(torch.hann_window(settings.window), (before, settings.n_fft - settings.window - before))
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("filterbank", mel_filterbank(settings), persistent=False)

    def forward(self, waveforms: Tensor) -> Tensor:
        """Compute log-mels.

        Args:
            waveforms: shape (..., samples), at least `settings.min_samples` long.

        Returns:
            Shape (..., n_mels, frames), float32.
        """
        if torch.is_autocast_enabled(waveforms.device.type):
            # Half precision overflows in the energies and rounds quiet bands away.
            with torch.autocast(waveforms.device.type, enabled=False):
                return self._log_mel(waveforms)
        return self._log_mel(waveforms)

    def _log_mel(self, waveforms: Tensor) -> Tensor:
        settings = self.settings
        batch = waveforms.shape[:-1]
        waveforms = waveforms.float().reshape(-1, waveforms.shape[-1])
        if settings.center:
            half = settings.n_fft // 2
            waveforms = F.pad(waveforms[:, None], (half, half), mode=settings.pad_mode)[:, 0]
        # The values of torch.stft to the bit, in two thirds of the time on a CPU.
        spectrum = torch.fft.rfft(waveforms.unfold(-1, settings.n_fft, settings.hop_length) * self.window)
        # The magnitude first, then its power: torchaudio's order, for the reason at `mel_filterbank`.
        energy = spectrum.abs()  # (batch, frames, bins)
        if settings.power != 1.0:
            energy = energy.square() if settings.power == 2.0 else energy.pow(settings.power)
        log_mel = (energy @ self.filterbank + settings.log_offset).log()
        if settings.mean != 0.0 or settings.std != 1.0:
            log_mel = (log_mel - settings.mean) / settings.std
        return log_mel.mT.contiguous().reshape(*batch, settings.n_mels, -1)


def slice_windows(waveforms: Tensor, window: int, step: int | None = None, add_last: bool = True) -> Tensor:
    """Cut clips into windows of equal length.

    Args:
        waveforms: shape (..., samples).
        window: length of a window in samples.
        step: distance of two windows in samples, at most `window`; None for `window`.
        add_last: zero-pad what is left over to a last window. Then a clip of any length has one,
            and one that the windows cover exactly gets no empty one. False drops what is left
            over, as the published pipeline does: a clip shorter than a window then has none.

    Returns:
        Shape (..., n_windows, window).

    Raises:
        ValueError: if the clips are empty or `step` is not in 1..window.
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
    # sym_max: with a dynamic length under torch.export the number of windows stays symbolic.
    n_more: int = torch.sym_max(0, (n_samples - window + step - 1) // step)  # type: ignore[assignment]
    return F.pad(waveforms, (0, n_more * step + window - n_samples)).unfold(-1, window, step)


class SpecAugment(nn.Module):
    """Random masks over time and frequency on log-mels, in training mode only.

    Park et al., SpecAugment (2019), without time warping. Each clip of a batch gets its own masks.

    Args:
        n_time_masks: how many masks over time.
        max_time_width: the widest in frames; widths are uniform in 0..max.
        n_frequency_masks: how many masks over frequency.
        max_frequency_width: the widest in mel bands.
        fill: value under a mask; None for the clip's mean, which says nothing either way where
            the front-end does not normalise.
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
        """Mask log-mels.

        Args:
            log_mel: shape (batch, ..., mels, frames); what lies between shares the clip's masks.
            generator: source of chance, on the log-mel's device; None for torch's own.
            part: which part of a larger batch this is; masks are drawn for the whole of it.
            n_parts: how many parts of this size it has.

        Returns:
            The same shape; the input is not changed.
        """
        if not self.training:
            return log_mel
        batch, n_mels, n_frames = log_mel.shape[0], log_mel.shape[-2], log_mel.shape[-1]
        draw = partial(_masks, n_parts * batch, device=log_mel.device, generator=generator)
        own = slice(part * batch, (part + 1) * batch)
        over_time = draw(self.n_time_masks, self.max_time_width, n_frames)[own]
        over_frequency = draw(self.n_frequency_masks, self.max_frequency_width, n_mels)[own]
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
    """Which of `size` positions are masked, shape (batch, size), bool."""
    chance = torch.rand((2, batch, n_masks, 1), device=device, generator=generator)
    width = (chance[0] * (min(max_width, size) + 1)).floor()
    start = (chance[1] * (size - width + 1)).floor()
    position = torch.arange(size, device=device)
    return ((position >= start) & (position < start + width)).any(dim=1)
