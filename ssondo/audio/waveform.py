"""Mix down, resample, cut and pad waveforms."""

import numpy as np
import soxr


def to_mono(waveform: np.ndarray) -> np.ndarray:
    """Average the channels: (channels, samples) -> (samples,)."""
    if len(waveform) == 1:
        return waveform[0]
    total = waveform.sum(axis=0, dtype=np.float32)
    total /= np.float32(len(waveform))  # np.mean divides in float64: the same bits in three more passes
    return total


def resampled_length(n_samples: int, from_rate: int, to_rate: int) -> int:
    """Number of samples that `resample_to` returns for `n_samples`; rates in Hz."""
    return round(n_samples * to_rate / from_rate)


def resample_to(waveform: np.ndarray, from_rate: int, to_rate: int) -> np.ndarray:
    """Resample float32, shape (samples,) or (channels, samples), with the HQ filter of soxr; rates in Hz.

    The result has `resampled_length` samples; it is `waveform` itself if the rates are equal.
    """
    if from_rate == to_rate:
        return waveform
    n_samples = resampled_length(waveform.shape[-1], from_rate, to_rate)
    resampled = soxr.resample(waveform.T, from_rate, to_rate, quality="HQ").T
    # soxr has returned this length in every tested case, but does not guarantee it.
    return np.ascontiguousarray(fit_end(resampled, n_samples), dtype=np.float32)


def fit_end(waveform: np.ndarray, n_samples: int) -> np.ndarray:
    """Cut or zero-pad the last axis at its end to `n_samples`."""
    missing = n_samples - waveform.shape[-1]
    if missing <= 0:
        return waveform[..., :n_samples]
    return np.pad(waveform, [(0, 0)] * (waveform.ndim - 1) + [(0, missing)])
