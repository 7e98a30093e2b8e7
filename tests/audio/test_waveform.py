import numpy as np
import pytest
from sounds import tone

from ssondo.audio.waveform import fit_end, resample_to, to_mono


def test_fit_end_cuts_or_pads_the_end() -> None:
    ten = np.arange(10, dtype="f4")
    np.testing.assert_array_equal(fit_end(ten, 4), [0, 1, 2, 3])
    np.testing.assert_array_equal(fit_end(ten[:2], 4), [0, 1, 0, 0])
    np.testing.assert_array_equal(fit_end(np.stack([ten, -ten]), 11)[1], [*-ten, 0])
    np.testing.assert_array_equal(fit_end(ten, 10), ten)


@pytest.mark.parametrize(
    ("n", "from_rate", "expected"), [(44_100, 44_100, 32_000), (4_410, 44_100, 3_200), (1, 8_000, 4)]
)
def test_resampling_keeps_the_duration(n: int, from_rate: int, expected: int) -> None:
    assert resample_to(np.zeros(n, "f4"), from_rate, 32_000).shape == (expected,)
    assert resample_to(np.zeros((2, n), "f4"), from_rate, 32_000).shape == (2, expected)


def test_resampling_keeps_tones_below_and_removes_tones_above_the_nyquist_frequency() -> None:
    below = resample_to(tone(1.0, 96_000, 5_000)[:, 0], 96_000, 32_000)
    above = resample_to(tone(1.0, 96_000, 20_000)[:, 0], 96_000, 32_000)
    middle = slice(4_000, -4_000)
    np.testing.assert_allclose(below[middle], tone(1.0, 32_000, 5_000)[middle, 0], atol=1e-3)
    assert np.abs(above[middle]).max() < 1e-3


def test_mono_is_the_mean_of_all_channels() -> None:
    expected = tone(channels=6)
    # Levels 1, 1/2, ... 1/32 of the first channel: their mean is 63/192 of it.
    np.testing.assert_allclose(to_mono(expected.T), expected[:, 0] * 63 / 192, atol=1e-6)
