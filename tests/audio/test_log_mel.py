import numpy as np
import pytest
import torch
import torchaudio
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ssondo.audio.log_mel import M2D, MATPAC, STUDENT, YAMNET, LogMel, LogMelSettings, SpecAugment, slice_windows
from ssondo.audio.log_mel import mel_filterbank as filterbank_of
from ssondo.errors import SsondoError

PRESETS = {"student": STUDENT, "matpac": MATPAC, "m2d": M2D, "yamnet": YAMNET}


@pytest.fixture(params=PRESETS)
def preset(request) -> LogMelSettings:
    return PRESETS[request.param]


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_mel_filterbank_equals_torchaudio(preset):
    expected = torchaudio.functional.melscale_fbanks(
        preset.n_fft // 2 + 1,
        preset.f_min,
        preset.f_max,
        preset.n_mels,
        preset.sample_rate,
        preset.mel_norm,
        preset.mel_scale,
    )
    torch.testing.assert_close(filterbank_of(preset), expected, atol=2e-5 * expected.max().item(), rtol=1e-4)


def test_log_mel_equals_torchaudio_spectrogram_through_the_same_steps(preset):
    waveforms = noise(2, preset.sample_rate)
    mel = torchaudio.transforms.MelSpectrogram(
        preset.sample_rate,
        n_fft=preset.n_fft,
        win_length=preset.window,
        hop_length=preset.hop_length,
        f_min=preset.f_min,
        f_max=preset.f_max,
        n_mels=preset.n_mels,
        power=preset.power,
        center=preset.center,
        norm=preset.mel_norm,
        mel_scale=preset.mel_scale,
    )(waveforms)
    expected = (torch.log(mel + preset.log_offset) - preset.mean) / preset.std
    torch.testing.assert_close(LogMel(preset)(waveforms), expected, atol=2e-4, rtol=1e-4)


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


def test_the_shortest_waveform_has_one_frame_or_more_and_a_shorter_one_fails(preset):
    assert LogMel(preset)(noise(1, preset.min_samples)).shape[-1] >= 1
    with pytest.raises(RuntimeError):
        LogMel(preset)(noise(1, preset.min_samples - 1))


def test_constants_are_no_part_of_the_state_dict(preset):
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


def test_a_tone_is_loudest_in_its_band():
    time = torch.arange(32000) / 32000
    log_mel = LogMel(STUDENT)(torch.sin(2 * torch.pi * 4000 * time))
    # Band centres from torchaudio's filters, not from ours.
    filters = torchaudio.functional.melscale_fbanks(513, 50.0, 16000.0, 128, 32000, "slaney", "slaney")
    assert log_mel.mean(1).argmax() == filters[4000 * 1024 // 32000].argmax()


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
def test_impossible_settings_are_refused_by_name(change, words):
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
def test_front_end_is_exported_with_free_batch_and_length(module):
    dynamic = ((torch.export.Dim("batch"), torch.export.Dim("samples", min=32001, max=10_000_000)),)
    exported = torch.export.export(module, (noise(2, 40000),), dynamic_shapes=dynamic)
    other = noise(3, 100_001)
    torch.testing.assert_close(exported.module()(other), module(other))


def test_last_window_is_zero_padded():
    windows = slice_windows(torch.arange(1, 8), 3)
    assert windows.tolist() == [[1, 2, 3], [4, 5, 6], [7, 0, 0]]


@pytest.mark.parametrize("n_windows", [1, 2, 5])
def test_exact_multiple_gets_no_empty_window(n_windows):
    assert slice_windows(torch.ones(2, 4 * n_windows), 4).shape == (2, n_windows, 4)


def test_overlapping_windows_cover_the_clip():
    assert slice_windows(torch.arange(1, 7), 4, 2).tolist() == [[1, 2, 3, 4], [3, 4, 5, 6]]
    assert slice_windows(torch.arange(1, 8), 4, 2).tolist() == [[1, 2, 3, 4], [3, 4, 5, 6], [5, 6, 7, 0]]


def test_published_slicer_drops_what_is_left_over():
    assert slice_windows(torch.arange(1, 8), 3, add_last=False).tolist() == [[1, 2, 3], [4, 5, 6]]
    assert slice_windows(torch.ones(5, 2), 3, add_last=False).shape == (5, 0, 3)


@pytest.mark.parametrize(("n_samples", "step"), [(0, None), (4, 0), (4, 4)])
def test_windows_of_nothing_or_with_gaps_are_refused(n_samples, step):
    with pytest.raises(ValueError, match=r"no windows|step"):
        slice_windows(torch.zeros(n_samples), 3, step)


@settings(max_examples=50, deadline=None)
@given(n_samples=st.integers(1, 50), window=st.integers(1, 20))
def test_windows_joined_are_the_clip_and_zeros(n_samples, window):
    clip = torch.arange(1, n_samples + 1)
    joined = slice_windows(clip, window).flatten()
    assert torch.equal(joined[:n_samples], clip)
    assert (joined[n_samples:] == 0).all()
    assert len(joined) - n_samples < window


def augment(**arguments: float) -> SpecAugment:
    return SpecAugment(**arguments).train()


def test_masks_of_the_parts_of_a_batch_are_those_of_the_whole() -> None:
    log_mel = torch.randn(6, 2, 16, 20, generator=torch.Generator().manual_seed(1))
    layer = augment(max_time_width=8, max_frequency_width=8)
    whole = layer(log_mel, torch.Generator().manual_seed(5))
    parts = [
        layer(part, torch.Generator().manual_seed(5), part=number, n_parts=3)
        for number, part in enumerate(log_mel.chunk(3))
    ]
    assert torch.equal(torch.cat(parts), whole)
    assert not torch.equal(whole, log_mel)


def test_spec_augment_does_nothing_in_evaluation_mode():
    log_mel = noise(2, 128, 79)
    assert torch.equal(SpecAugment(2, 40, 2, 40).eval()(log_mel), log_mel)


def test_spec_augment_of_width_zero_does_nothing():
    log_mel = noise(2, 128, 79)
    assert torch.equal(augment(max_time_width=0, max_frequency_width=0)(log_mel), log_mel)


def test_spec_augment_masks_one_band_of_frames_and_one_of_mels_within_their_widths():
    log_mel = torch.ones(500, 128, 79)
    masked = augment(max_time_width=20, max_frequency_width=30, fill=0.0)(log_mel) == 0
    frames, mels = masked.all(1), masked.all(2)
    assert torch.equal(masked, frames[:, None, :] | mels[:, :, None])
    for bands, widest in ((frames, 20), (mels, 30)):
        edges = torch.diff(bands.int(), dim=1).abs().sum(1)
        assert edges.max() <= 2
        widths = bands.sum(1)
        assert (widths.min(), widths.max()) == (0, widest)
        assert abs(widths.float().mean() - widest / 2) < 1.5
        assert bands.any(0).all()


def test_spec_augment_gives_each_clip_its_own_masks_and_its_windows_the_same():
    masked = augment(max_time_width=40, max_frequency_width=0, fill=0.0)(torch.ones(8, 3, 128, 79)) == 0
    assert torch.equal(masked[:, 0], masked[:, 2])
    assert len({tuple(clip[0, 0].tolist()) for clip in masked}) > 4


def test_spec_augment_fills_with_the_mean_of_the_clip_and_leaves_its_input():
    log_mel = noise(4, 128, 79) + torch.arange(4.0)[:, None, None]
    before = log_mel.clone()
    augmented = augment(max_time_width=79, max_frequency_width=0)(log_mel, torch.Generator().manual_seed(1))
    assert torch.equal(log_mel, before)
    changed = augmented != log_mel
    assert changed.any(dim=(1, 2)).all()
    means = log_mel.mean(dim=(1, 2))[:, None, None].expand_as(log_mel)
    torch.testing.assert_close(augmented[changed], means[changed])


def test_spec_augment_is_a_function_of_its_generator():
    log_mel, module = noise(4, 128, 79), augment(max_time_width=40, max_frequency_width=40)
    first, again, other = (module(log_mel, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
