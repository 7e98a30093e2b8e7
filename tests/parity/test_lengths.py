"""Students of published size embed clips of any length, alone and in a batch."""

import fill
import pytest
import torch

from ssondo.students.student import Student

pytestmark = pytest.mark.slow

RATE = 32000
LENGTHS_S = [25, 0.1, 10, 12.5, 3]


@pytest.fixture(scope="module", params=["mobilenetv3", "dymn", "eres2net"])
def student(request) -> Student:
    student = Student(request.param)
    student.load_state_dict(fill.state_dict(request.param))
    return student.eval()


def is_same(found: torch.Tensor, expected: torch.Tensor) -> bool:
    return bool((found - expected).abs().max() <= 1e-5 * expected.abs().max())


def test_embedding_does_not_depend_on_clips_of_other_lengths_in_the_batch(student):
    lengths = [round(seconds * RATE) for seconds in LENGTHS_S]
    clips = fill.waveform(25, RATE)[0].repeat(len(lengths), 1)  # the padding of a clip is not zero
    together = student.embed(clips, lengths)
    for row, length in enumerate(lengths):
        assert is_same(together[row], student.embed(clips[row : row + 1, :length])[0]), LENGTHS_S[row]


def test_embedding_and_output_of_a_clip_are_means_over_its_windows(student):
    clip = fill.waveform(25, RATE)
    windows = torch.nn.functional.pad(clip[0], (0, 5 * RATE)).unflatten(0, (3, 10 * RATE))
    assert is_same(student.embed(clip)[0], student.embed(windows).mean(0))
    with torch.no_grad():
        assert is_same(student(student.log_mel(clip))[0], student(student.log_mel(windows)).mean(0))
