"""Metrics against cases worked by hand and against scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, average_precision_score

from ssondo.errors import SsondoError
from ssondo.tasks.metrics import average_precision, check_labels, evaluate


def tensor(rows):
    return torch.tensor(rows, dtype=torch.float32)


def labels_of(rows):
    return torch.tensor(rows, dtype=torch.int8)


def test_accuracy_is_the_share_of_clips_whose_highest_score_is_their_class():
    scores = tensor([[0.9, 0.1, 0.0], [0.2, 0.5, 0.3], [0.6, 0.1, 0.3], [0.0, 0.1, 0.9]])
    labels = labels_of([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1]])
    assert evaluate("accuracy", scores, labels).item() == 0.75


def test_average_precision_worked_by_hand():
    # Ranking + - + -: precision 1/1 at the first positive, 2/3 at the second.
    labels = labels_of([[1], [0], [1], [0]])
    assert average_precision(tensor([[4.0], [3.0], [2.0], [1.0]]), labels).item() == pytest.approx((1 + 2 / 3) / 2)


def test_equal_scores_enter_together_whatever_their_order():
    # All four tie: both positives have precision 2/4.
    for order in ([1, 1, 0, 0], [0, 0, 1, 1], [0, 1, 0, 1]):
        labels = labels_of([[value] for value in order])
        assert average_precision(torch.zeros(4, 1), labels).item() == pytest.approx(0.5)


def test_unknown_labels_count_neither_as_hit_nor_as_miss():
    # The highest clip is unknown; among the known ones the ranking is + - +.
    labels = labels_of([[-1], [1], [0], [1]])
    scores = tensor([[9.0], [3.0], [2.0], [1.0]])
    assert average_precision(scores, labels).item() == pytest.approx((1 + 2 / 3) / 2)


def test_masked_map_is_the_mean_over_classes_each_over_the_clips_its_mask_covers():
    labels = labels_of([[1, -1], [0, 1], [-1, 0], [1, -1]])
    scores = tensor([[0.1, 0.0], [0.5, 0.2], [0.9, 0.8], [0.7, 0.3]])
    first = average_precision_score([1, 0, 1], [0.1, 0.5, 0.7])
    second = average_precision_score([1, 0], [0.2, 0.8])
    assert evaluate("masked_map", scores, labels).item() == pytest.approx((first + second) / 2)


def test_a_class_without_positives_is_left_out_of_the_mean():
    labels = labels_of([[1, 0], [0, 0], [1, 0]])
    scores = tensor([[0.1, 0.9], [0.2, 0.1], [0.3, 0.4]])
    assert evaluate("map", scores, labels).item() == pytest.approx(average_precision_score([1, 0, 1], [0.1, 0.2, 0.3]))


@pytest.mark.parametrize("decimals", [1, 8])
def test_agrees_with_scikit_learn_also_with_many_ties(decimals):
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(3, 200, 7)).round(decimals).astype("f4")
    labels = (rng.random((200, 7)) < 0.2).astype("i1")
    labels[0] = 1
    ours = evaluate("map", torch.from_numpy(scores), torch.from_numpy(labels))
    theirs = [average_precision_score(labels, member, average="macro") for member in scores]
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-12)
    single = np.eye(7, dtype="i1")[rng.integers(0, 7, 200)]
    ours = evaluate("accuracy", torch.from_numpy(scores[:, :, :]), torch.from_numpy(single))
    theirs = [accuracy_score(single.argmax(1), member.argmax(1)) for member in scores]
    np.testing.assert_allclose(ours.numpy(), theirs)


def test_masked_map_agrees_with_scikit_learn_class_by_class():
    rng = np.random.default_rng(1)
    scores = rng.normal(size=(300, 5)).round(1).astype("f4")
    labels = rng.integers(-1, 2, size=(300, 5)).astype("i1")
    expected = [average_precision_score(labels[labels[:, c] >= 0, c], scores[labels[:, c] >= 0, c]) for c in range(5)]
    ours = evaluate("masked_map", torch.from_numpy(scores), torch.from_numpy(labels))
    assert ours.item() == pytest.approx(np.mean(expected), rel=1e-12)


@pytest.mark.parametrize(
    ("metric", "labels", "says"),
    [
        ("accuracy", [[1, 1], [0, 1]], "1 clips"),
        ("accuracy", [[0, 0], [0, 1]], "1 clips"),
        ("map", [[1, -1]], "masked_map"),
        ("f1", [[1, 0]], "accuracy, map, masked_map"),
    ],
)
def test_labels_that_do_not_fit_the_metric_are_named(metric, labels, says):
    with pytest.raises(SsondoError, match=says):
        check_labels(metric, labels_of(labels))


def test_no_positive_anywhere_is_an_error_and_not_a_zero():
    with pytest.raises(SsondoError, match="no class has a positive"):
        evaluate("map", torch.zeros(2, 2), labels_of([[0, 0], [0, -1]]))
