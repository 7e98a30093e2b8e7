"""Synthetic sound files for tests."""

import io

import numpy as np
import soundfile

RATE = 44_100


def tone(seconds: float = 1.0, rate: int = RATE, frequency: float = 440.0, channels: int = 1) -> np.ndarray:
    """A sine, float32, shape (samples, channels); each channel has half the level of the previous one."""
    time = np.arange(round(seconds * rate)) / rate
    return np.stack([0.5**k * 0.8 * np.sin(2 * np.pi * frequency * time) for k in range(channels)], 1).astype("f4")


def encoded(waveform: np.ndarray, rate: int = RATE, container: str = "WAV", subtype: str = "PCM_16") -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, waveform, rate, format=container, subtype=subtype)
    return buffer.getvalue()
