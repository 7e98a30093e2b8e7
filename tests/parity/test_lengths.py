"""Clips of any length, alone and together, through the models of published size."""

import fill
import pytest
import torch

from ssondo.students.student import Student

pytestmark = pytest.mark.slow

RATE = 32000
LENGTHS_S = [25, 0.1, 10, 12.5, 3]


@pytest.fixture(scope="module", params=["mobilenetv3", "dymn", "eres2net"])
def student(request) -> Student:
    built = Student(request.param)
    built.load_state_dict(fill.state_dict(request.param))
    return built.eval()


def same(found: torch.Tensor, expected: torch.Tensor) -> bool:
    return bool((found - expected).abs().max() <= 1e-5 * expected.abs().max())


def test_batching_with_other_lengths_changes_no_embedding(student):
    lengths = [round(seconds * RATE) for seconds in LENGTHS_S]
    clips = fill.waveform(25, RATE)[0].repeat(len(lengths), 1)  # beyond its end a clip's row has sound, too
    together = student.embed(clips, lengths)
    for row, length in enumerate(lengths):
        assert same(together[row], student.embed(clips[row : row + 1, :length])[0]), LENGTHS_S[row]


def test_clip_of_several_windows_has_the_mean_of_their_embeddings_and_outputs(student):
    clip = fill.waveform(25, RATE)
    windows = torch.nn.functional.pad(clip[0], (0, 5 * RATE)).unflatten(0, (3, 10 * RATE))
    assert same(student.embed(clip)[0], student.embed(windows).mean(0))
    with torch.no_grad():
        assert same(student(student.log_mel(clip))[0], student(student.log_mel(windows)).mean(0))
