"""Students: windows, batches, settings and pretrained weights."""

import sys
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from small_students import RATE, SMALL, WINDOW, assert_same_embedding, filled, noise, small

from ssondo.errors import SsondoError
from ssondo.students.checkpoint import load_student, save_student
from ssondo.students.student import Student, initialise_backbone

sys.path.append(str(Path(__file__).parents[1] / "parity"))
import fill


@pytest.fixture(scope="module", params=SMALL)
def student(request):
    return filled(request.param)


@pytest.mark.parametrize(
    ("n_samples", "slices"),
    [
        (3200, [(0, 3200)]),
        (WINDOW, [(0, WINDOW)]),
        (WINDOW + 1, [(0, WINDOW), (WINDOW, WINDOW + 1)]),
        (3 * WINDOW, [(0, WINDOW), (WINDOW, 2 * WINDOW), (2 * WINDOW, 3 * WINDOW)]),
        (2 * WINDOW + 500, [(0, WINDOW), (WINDOW, 2 * WINDOW), (2 * WINDOW, 2 * WINDOW + 500)]),
    ],
)
def test_embedding_is_the_mean_over_windows_and_the_last_window_is_padded(student, n_samples, slices):
    clip = noise(n_samples)
    windows = torch.zeros(len(slices), WINDOW)
    for window, (start, stop) in zip(windows, slices, strict=True):
        window[: stop - start] = clip[start:stop]
    with torch.no_grad():
        expected = student.model(student.front_end(windows)).mean(0)
    torch.testing.assert_close(student.embed(clip[None])[0], expected, rtol=1e-5, atol=1e-6)


def test_embedding_does_not_depend_on_clips_of_other_lengths_in_the_batch(student):
    lengths = [3200, WINDOW, 5 * WINDOW + 7, 100, 2 * WINDOW, 3 * WINDOW - 1]
    # The padding of a clip is not zero, and must not influence its embedding.
    batch = noise(len(lengths), max(lengths))
    together = student.embed(batch, torch.tensor(lengths))
    for row, length, found in zip(batch, lengths, together, strict=True):
        alone = student.embed(row[None, :length])[0]
        assert_same_embedding(found, alone)


def test_backbone_embeds_a_clip_of_ten_minutes_in_chunks_of_16_windows():
    student = small()
    sizes = []
    embed_windows = student.model.embed_windows
    student.model.embed_windows = lambda x: (sizes.append(len(x)), embed_windows(x))[1]
    embedding = student.embed(noise(1, 600 * RATE))
    assert embedding.shape == (1, student.embedding_dim)
    assert embedding.isfinite().all()
    assert sum(sizes) == 469  # 600 / 1.28 = 468.75
    assert max(sizes) == 16


@pytest.mark.slow
def test_clips_of_ten_minutes_and_of_a_tenth_of_a_second_can_share_a_batch(student):
    lengths = [600 * RATE, RATE // 10]
    clips = noise(2, 600 * RATE)
    together = student.embed(clips, lengths)
    for row, length in enumerate(lengths):
        assert_same_embedding(together[row], student.embed(clips[row : row + 1, :length])[0])


def test_remainder_of_a_clip_is_dropped_if_add_last_is_false(tmp_path):
    student = small(add_last=False)
    clip = noise(1, 2 * WINDOW + 500)
    assert_same_embedding(student.embed(clip), student.embed(clip[:, : 2 * WINDOW]))
    assert student.log_mel(clip).shape[1] == 2
    for call in (student.embed, student.log_mel):
        with pytest.raises(
            SsondoError, match=r"clip of 0.64 s is shorter than a window of 1.28 s; set add_last to true"
        ):
            call(noise(1, WINDOW // 2))
    save_student(tmp_path / "student.ckpt", student)
    assert load_student(tmp_path / "student.ckpt").add_last is False


def test_no_clips_give_no_embeddings():
    assert small().embed(torch.zeros(0, 100)).shape == (0, 192)


@pytest.mark.parametrize(
    ("waveforms", "lengths", "text"),
    [
        (torch.zeros(100), None, "shape (batch, samples)"),
        (torch.zeros(1, 100, dtype=torch.int16), None, "torch.int16"),
        (torch.zeros(2, 100), [100], "lengths must be 2 numbers"),
        (torch.zeros(1, 100), [101], "in 1..100"),
        (torch.zeros(1, 100), [0], "in 1..100"),
    ],
)
def test_invalid_waveforms_or_lengths_are_refused(waveforms, lengths, text):
    with pytest.raises(ValueError) as error:
        small().embed(waveforms, lengths)
    assert text in str(error.value)


def test_embed_refuses_a_model_in_training_mode():
    with pytest.raises(ValueError, match="call eval"):
        small().train().embed(noise(1, WINDOW))


def test_mapped_output_is_the_mean_of_the_mapped_windows(student):
    log_mel = student.log_mel(noise(2, 3 * WINDOW))
    with torch.no_grad():
        expected = torch.stack([student(log_mel[:, i]) for i in range(3)]).mean(0)
        torch.testing.assert_close(student(log_mel), expected, rtol=1e-5, atol=1e-6)


def test_windows_may_overlap():
    student = small(step_s=0.64)
    assert student.log_mel(noise(1, 2 * WINDOW)).shape[1] == 3


@pytest.mark.parametrize(
    ("name", "settings", "text"),
    [
        ("eres2net", {"window_s": 0.2}, "window_s is 0.2, which gives 11 frames; eres2net needs at least 17"),
        ("mobilenetv3", {"step_s": 2.0}, "step_s is 2; it must be above 0 and at most window_s (1.28)"),
        (
            "eres2net",
            {"front_end": {"n_mels": 64}},
            "eres2net is built for 128 mel bands, but the front-end has 64; set the option",
        ),
        (
            "mobilenetv3",
            {"front_end": {"mels": 64}},
            "front_end of the student has no option 'mels'; its options are sample_rate, n_fft",
        ),
    ],
)
def test_invalid_setting_is_named(name, settings, text):
    with pytest.raises(SsondoError) as error:
        small(name, **settings)
    assert text in str(error.value)


def test_parameters_are_counted_with_and_without_the_head():
    student = Student("mobilenetv3", n_outputs=527)
    # The mapping head has the linear layers 960 -> 1280 -> 527.
    assert student.n_parameters == 2_971_664
    assert sum(p.numel() for p in student.parameters()) == 2_971_664 + 961 * 1280 + 1281 * 527


@pytest.mark.parametrize(("name", "wrong_key"), [("mobilenetv3", "features.0.0.weight"), ("dymn", "in_c.0.weight")])
def test_classifier_of_pretrained_weights_is_ignored(name, wrong_key, tmp_path):
    weights = {
        key.removeprefix("model."): value for key, value in fill.state_dict(name).items() if key.startswith("model.")
    }
    classifier = {"classifier.2.weight": torch.zeros(1280, 960), "classifier.5.bias": torch.zeros(1000)}
    torch.save(OrderedDict({**weights, **classifier}), tmp_path / "pretrained.pt")
    student = Student(name)
    assert initialise_backbone(student.model, tmp_path / "pretrained.pt") is student.model
    state = student.model.state_dict()
    assert all(torch.equal(state[key], value) for key, value in weights.items())
    narrow = Student(name, backbone={"width_mult": 0.4})
    with pytest.raises(SsondoError, match=rf"{wrong_key} has shape \[16, 1, 3, 3\].*\[8, 1, 3, 3\].*width_mult"):
        initialise_backbone(narrow.model, tmp_path / "pretrained.pt")


def test_pretrained_weights_that_are_not_a_state_dict_are_refused(tmp_path):
    torch.save({"model": {}}, tmp_path / "other.pt")
    with pytest.raises(SsondoError, match="not a state dict"):
        initialise_backbone(small().model, tmp_path / "other.pt")
