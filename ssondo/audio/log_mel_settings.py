"""Constants of the log-mel front-ends of all students and teachers; importing them does not import torch."""

from dataclasses import dataclass, replace
from typing import Literal

from ssondo.errors import SsondoError

_FLOAT32_EPS = 2.0**-23


@dataclass(frozen=True, kw_only=True)
class LogMelSettings:
    """Constants of a log-mel front-end: `(log(mel + log_offset) - mean) / std`.

    Attributes:
        sample_rate: Sample rate in Hz.
        n_fft: Length of the Fourier transform in samples.
        hop_length: Distance between two frames in samples.
        n_mels: Number of mel bands.
        f_min: Lower edge of the first band in Hz.
        f_max: Upper edge of the last band in Hz, at most half the sample rate.
        win_length: Length of the periodic Hann window in samples, centred in the transform; None for `n_fft`.
        mel_scale: "slaney" (linear up to 1 kHz) or "htk".
        mel_norm: "slaney" (bands of equal area) or None (bands of equal height).
        power: Exponent of the spectrogram: 2 for energy, 1 for magnitude.
        center: Whether the first frame is centred on the first sample.
        pad_mode: Padding of a centred transform, a mode of `torch.nn.functional.pad`.
        log_offset: Constant that is added before the logarithm.
        mean: Constant that is subtracted from the log-mel.
        std: Constant by which the log-mel is divided afterwards.

    Raises:
        SsondoError: If a value is impossible; the message names it.
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
        problems = {
            f"hop_length {self.hop_length} is not positive": self.hop_length <= 0,
            f"n_mels {self.n_mels} is not positive": self.n_mels <= 0,
            f"win_length {self.win_length} is not in 1..n_fft ({self.n_fft})": not 1 <= self.window <= self.n_fft,
            f"f_min {self.f_min:g} and f_max {self.f_max:g} Hz are not in order in 0..{self.sample_rate / 2:g} Hz": (
                not 0 <= self.f_min < self.f_max <= self.sample_rate / 2
            ),
            f"mel_scale {self.mel_scale!r} is not 'slaney' or 'htk'": self.mel_scale not in ("slaney", "htk"),
            f"mel_norm {self.mel_norm!r} is not 'slaney' or None": self.mel_norm not in ("slaney", None),
            f"power {self.power:g} is not positive": self.power <= 0,
            f"log_offset {self.log_offset:g} is not positive": self.log_offset <= 0,
            f"std {self.std:g} is not positive": self.std <= 0,
        }
        for text, is_present in problems.items():
            if is_present:
                raise SsondoError(f"log-mel settings: {text}")

    @property
    def window(self) -> int:
        """Length of the window in samples."""
        return self.n_fft if self.win_length is None else self.win_length

    @property
    def min_samples(self) -> int:
        """Length of the shortest waveform that gives a frame, in samples."""
        # Reflection needs one sample more than it mirrors.
        return self.n_fft // 2 + 1 if self.center else self.n_fft

    def n_frames(self, n_samples: int) -> int:
        """Number of frames of a waveform of `n_samples`."""
        return (n_samples + (2 * (self.n_fft // 2) if self.center else 0) - self.n_fft) // self.hop_length + 1


# The front-end of all three published students.
STUDENT = LogMelSettings(sample_rate=32000, n_fft=1024, hop_length=512, n_mels=128, f_min=50.0, f_max=16000.0)
MATPAC = LogMelSettings(
    sample_rate=16000,
    n_fft=400,
    hop_length=160,
    n_mels=80,
    f_min=50.0,
    f_max=8000.0,
    log_offset=_FLOAT32_EPS,
    mean=-7.056,
    std=4.193,
)
# A checkpoint that has its own mean and std (`norm_stats`) replaces these.
M2D = replace(MATPAC, center=True, mean=-7.1, std=4.2)
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
