import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ssondo.audio.log_mel import LogMel, slice_windows
from ssondo.audio.log_mel_settings import M2D, MATPAC, STUDENT, YAMNET, LogMelSettings
from ssondo.errors import SsondoError

PRESETS = {"student": STUDENT, "matpac": MATPAC, "m2d": M2D, "yamnet": YAMNET}


@pytest.fixture(params=PRESETS)
def preset(request) -> LogMelSettings:
    return PRESETS[request.param]


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def mel_of(hertz: float, scale: str) -> float:
    """The slaney or htk mel scale, as its authors define it."""
    if scale == "htk":
        return 2595 * np.log10(1 + hertz / 700)
    return hertz * 3 / 200 if hertz < 1000 else 15 + 27 * np.log(hertz / 1000) / np.log(6.4)


def reference_log_mel(waveform: np.ndarray, preset: LogMelSettings) -> np.ndarray:
    """The definition of a log-mel spectrogram in float64: (samples,) -> (mels, frames)."""
    if preset.center:
        waveform = np.pad(waveform, preset.n_fft // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(waveform, preset.n_fft)[:: preset.hop_length]
    n = preset.window
    hann = np.pad(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n) / n), (preset.n_fft - n) // 2)
    spectra = np.abs(np.fft.rfft(frames * hann)) ** preset.power
    hertz = np.linspace(0, preset.sample_rate / 2, 100_000)
    mels = np.array([mel_of(value, preset.mel_scale) for value in hertz])
    limits = [mel_of(value, preset.mel_scale) for value in (preset.f_min, preset.f_max)]
    edges = np.interp(np.linspace(*limits, preset.n_mels + 2), mels, hertz)
    bins = np.linspace(0, preset.sample_rate / 2, preset.n_fft // 2 + 1)
    triangles = [
        np.interp(
            bins, edges[k : k + 3], [0, 2 / (edges[k + 2] - edges[k]) if preset.mel_norm else 1, 0], left=0, right=0
        )
        for k in range(preset.n_mels)
    ]
    return (np.log(spectra @ np.stack(triangles, axis=1) + preset.log_offset).T - preset.mean) / preset.std


def test_log_mel_equals_its_definition_in_float64(preset):
    waveform = noise(preset.sample_rate)
    expected = reference_log_mel(waveform.numpy().astype("f8"), preset)
    np.testing.assert_allclose(LogMel(preset)(waveform).numpy(), expected, rtol=1e-4, atol=5e-4)


@pytest.mark.parametrize(
    ("name", "seconds", "shape"),
    [
        ("student", 10, (128, 624)),
        ("student", 1.28, (128, 79)),
        ("matpac", 10, (80, 998)),
        ("m2d", 10, (80, 1001)),
        ("yamnet", 0.982, (64, 96)),
    ],
)
def test_log_mel_has_the_published_shape(name, seconds, shape):
    preset = PRESETS[name]
    n_samples = round(seconds * preset.sample_rate)
    assert LogMel(preset)(torch.zeros(n_samples)).shape == shape
    assert preset.n_frames(n_samples) == shape[1]


def test_shortest_waveform_has_a_frame_and_a_shorter_one_fails(preset):
    assert LogMel(preset)(noise(1, preset.min_samples)).shape[-1] >= 1
    with pytest.raises(RuntimeError):
        LogMel(preset)(noise(1, preset.min_samples - 1))


def test_buffers_are_not_in_the_state_dict(preset):
    assert LogMel(preset).state_dict() == {}


def test_log_mel_of_a_clip_does_not_depend_on_its_batch(preset):
    front_end, waveforms = LogMel(preset), noise(3, 2, preset.sample_rate)
    together = front_end(waveforms)
    assert together.shape[:2] == (3, 2)
    torch.testing.assert_close(together[1, 1], front_end(waveforms[1, 1]), atol=1e-5, rtol=1e-5)


def test_log_mel_of_silence_is_the_log_of_the_offset(preset):
    expected = (np.log(preset.log_offset) - preset.mean) / preset.std
    np.testing.assert_allclose(LogMel(preset)(torch.zeros(1, preset.sample_rate)).numpy(), expected, rtol=1e-5)


def test_log_mel_of_half_precision_and_under_autocast_is_computed_in_float32():
    front_end, waveforms = LogMel(MATPAC), noise(2, 16000)
    expected = front_end(waveforms)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_autocast = front_end(waveforms)
    assert torch.equal(under_autocast, expected)
    assert front_end(waveforms.bfloat16()).dtype == torch.float32


def test_tone_is_loudest_in_its_band():
    time = torch.arange(32000) / 32000
    log_mel = LogMel(STUDENT)(torch.sin(2 * torch.pi * 4000 * time))
    # 128 bands, equally spaced in mel, with 130 edges.
    low, tone, high = (mel_of(hertz, "slaney") for hertz in (50, 4000, 16000))
    assert log_mel.mean(1).argmax() == round((tone - low) / (high - low) * 129) - 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"f_max": 20000.0}, "f_max 20000"),
        ({"f_min": -1.0}, "f_min -1"),
        ({"hop_length": 0}, "hop_length 0"),
        ({"win_length": 2048}, "win_length 2048"),
        ({"n_mels": 0}, "n_mels 0"),
        ({"log_offset": 0.0}, "log_offset 0"),
        ({"mel_scale": "bark"}, "bark"),
        ({"std": 0.0}, "std 0"),
    ],
)
def test_impossible_settings_are_refused_with_their_name(change, words):
    possible = {"sample_rate": 32000, "n_fft": 1024, "hop_length": 512, "n_mels": 128, "f_min": 50.0, "f_max": 16000.0}
    with pytest.raises(SsondoError, match=words):
        LogMelSettings(**{**possible, **change})


class _Windowed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.front_end = LogMel(STUDENT)

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        return self.front_end(slice_windows(waveforms, 32000))


@pytest.mark.slow
@pytest.mark.parametrize("module", [LogMel(STUDENT), LogMel(M2D), _Windowed()], ids=["student", "m2d", "windows"])
def test_front_end_can_be_exported_with_dynamic_batch_and_length(module):
    dynamic = ((torch.export.Dim("batch"), torch.export.Dim("samples", min=32001, max=10_000_000)),)
    exported = torch.export.export(module, (noise(2, 40000),), dynamic_shapes=dynamic)
    other = noise(3, 100_001)
    torch.testing.assert_close(exported.module()(other), module(other))


def test_last_window_is_zero_padded():
    windows = slice_windows(torch.arange(1, 8), 3)
    assert windows.tolist() == [[1, 2, 3], [4, 5, 6], [7, 0, 0]]


@pytest.mark.parametrize("n_windows", [1, 2, 5])
def test_clip_without_remainder_gets_no_empty_window(n_windows):
    assert slice_windows(torch.ones(2, 4 * n_windows), 4).shape == (2, n_windows, 4)


def test_overlapping_windows_cover_the_clip():
    assert slice_windows(torch.arange(1, 7), 4, 2).tolist() == [[1, 2, 3, 4], [3, 4, 5, 6]]
    assert slice_windows(torch.arange(1, 8), 4, 2).tolist() == [[1, 2, 3, 4], [3, 4, 5, 6], [5, 6, 7, 0]]


def test_remainder_is_dropped_without_add_last():
    assert slice_windows(torch.arange(1, 8), 3, add_last=False).tolist() == [[1, 2, 3], [4, 5, 6]]
    assert slice_windows(torch.ones(5, 2), 3, add_last=False).shape == (5, 0, 3)


@pytest.mark.parametrize(("n_samples", "step"), [(0, None), (4, 0), (4, 4)])
def test_empty_clips_and_windows_with_gaps_are_refused(n_samples, step):
    with pytest.raises(ValueError, match=r"no windows|step"):
        slice_windows(torch.zeros(n_samples), 3, step)


@settings(max_examples=50, deadline=None)
@given(n_samples=st.integers(1, 50), window=st.integers(1, 20))
def test_joined_windows_are_the_clip_followed_by_zeros(n_samples, window):
    clip = torch.arange(1, n_samples + 1)
    joined = slice_windows(clip, window).flatten()
    assert torch.equal(joined[:n_samples], clip)
    assert (joined[n_samples:] == 0).all()
    assert len(joined) - n_samples < window
