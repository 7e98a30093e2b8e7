"""Front-ends and windows against values of the published code."""

import json
from pathlib import Path

import fill
import numpy as np
import pytest
import torch

from ssondo.audio.log_mel import LogMel, slice_windows
from ssondo.audio.log_mel_settings import M2D, MATPAC, STUDENT

GOLDEN = Path(__file__).parent / "data" / "golden"
VALUES = json.loads((GOLDEN / "values.json").read_text())


def assert_agrees(log_mel: torch.Tensor, published: dict) -> None:
    assert list(log_mel.shape) == published["shape"]
    assert log_mel.mean().item() == pytest.approx(published["mean"], abs=2e-6)
    assert log_mel.std().item() == pytest.approx(published["std"], abs=2e-6)
    np.testing.assert_allclose(log_mel.flatten()[:8].numpy(), published["head"], rtol=1e-5, atol=1e-5)


def test_student_log_mel_equals_published():
    clips = torch.stack([fill.waveform(10, 32000), fill.waveform(10, 32000, "b")])
    log_mel = LogMel(STUDENT)(clips)
    assert_agrees(log_mel, VALUES["student_logmel"])
    golden = np.load(GOLDEN / "student_logmel_10s_first64frames.npy")
    assert np.abs(log_mel[0, 0, :, :64].numpy() - golden).max() < 1e-4 * np.abs(golden).max()


def test_matpac_log_mel_equals_published():
    assert_agrees(LogMel(MATPAC)(fill.waveform(10, 16000)), VALUES["matpac_frontend"])


def test_m2d_log_mel_equals_published():
    assert_agrees(LogMel(M2D)(fill.waveform(10, 16000)[None]), VALUES["m2d_frontend"])


SLICES = [(*case.split("s add_last="), shape) for case, shape in VALUES["slice"].items()]


@pytest.mark.parametrize(("seconds", "add_last", "shape"), SLICES)
def test_windows_have_the_published_shapes(seconds, add_last, shape):
    windows = slice_windows(torch.ones(1, round(float(seconds) * 16000)), 160000, add_last=add_last == "True")
    if isinstance(shape, str):
        # The published slicer raises the RuntimeError that is in the file; this library must not.
        shape = [1, 1, 160000]
    assert list(windows.shape) == shape
