"""Comparison of the metrics with hand calculations and with scikit-learn."""

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


def test_accuracy_is_the_share_of_clips_whose_class_has_the_highest_score():
    scores = tensor([[0.9, 0.1, 0.0], [0.2, 0.5, 0.3], [0.6, 0.1, 0.3], [0.0, 0.1, 0.9]])
    labels = labels_of([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1]])
    assert evaluate("accuracy", scores, labels).item() == 0.75


def test_average_precision_equals_the_hand_calculation():
    # Ranking + - + -: the precision is 1/1 at the first positive clip and 2/3 at the second.
    labels = labels_of([[1], [0], [1], [0]])
    assert average_precision(tensor([[4.0], [3.0], [2.0], [1.0]]), labels).item() == pytest.approx((1 + 2 / 3) / 2)


def test_average_precision_of_equal_scores_does_not_depend_on_their_order():
    # All four clips have the same score, so the precision at both positive clips is 2/4.
    for order in ([1, 1, 0, 0], [0, 0, 1, 1], [0, 1, 0, 1]):
        labels = labels_of([[value] for value in order])
        assert average_precision(torch.zeros(4, 1), labels).item() == pytest.approx(0.5)


def test_unknown_labels_are_ignored():
    # The label of the highest clip is unknown; the ranking of the others is + - +.
    labels = labels_of([[-1], [1], [0], [1]])
    scores = tensor([[9.0], [3.0], [2.0], [1.0]])
    assert average_precision(scores, labels).item() == pytest.approx((1 + 2 / 3) / 2)


def test_masked_map_is_the_mean_over_classes_of_the_average_precision_of_annotated_clips():
    labels = labels_of([[1, -1], [0, 1], [-1, 0], [1, -1]])
    scores = tensor([[0.1, 0.0], [0.5, 0.2], [0.9, 0.8], [0.7, 0.3]])
    first = average_precision_score([1, 0, 1], [0.1, 0.5, 0.7])
    second = average_precision_score([1, 0], [0.2, 0.8])
    assert evaluate("masked_map", scores, labels).item() == pytest.approx((first + second) / 2)


def test_class_without_positive_clips_is_excluded_from_the_mean():
    labels = labels_of([[1, 0], [0, 0], [1, 0]])
    scores = tensor([[0.1, 0.9], [0.2, 0.1], [0.3, 0.4]])
    assert evaluate("map", scores, labels).item() == pytest.approx(average_precision_score([1, 0, 1], [0.1, 0.2, 0.3]))


@pytest.mark.parametrize("decimals", [1, 8])
def test_metrics_equal_those_of_scikit_learn_with_few_and_many_ties(decimals):
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


def test_masked_map_equals_that_of_scikit_learn():
    rng = np.random.default_rng(1)
    scores = rng.normal(size=(300, 5)).round(1).astype("f4")
    labels = rng.integers(-1, 2, size=(300, 5)).astype("i1")
    expected = [average_precision_score(labels[labels[:, c] >= 0, c], scores[labels[:, c] >= 0, c]) for c in range(5)]
    ours = evaluate("masked_map", torch.from_numpy(scores), torch.from_numpy(labels))
    assert ours.item() == pytest.approx(np.mean(expected), rel=1e-12)


@pytest.mark.parametrize(
    ("metric", "labels", "message"),
    [
        ("accuracy", [[1, 1], [0, 1]], "1 clips"),
        ("accuracy", [[0, 0], [0, 1]], "1 clips"),
        ("map", [[1, -1]], "masked_map"),
        ("f1", [[1, 0]], "accuracy, map, masked_map"),
    ],
)
def test_message_for_labels_that_do_not_fit_the_metric_explains_the_problem(metric, labels, message):
    with pytest.raises(SsondoError, match=message):
        check_labels(metric, labels_of(labels))


def test_labels_without_any_positive_clip_fail():
    with pytest.raises(SsondoError, match="no class has a positive"):
        evaluate("map", torch.zeros(2, 2), labels_of([[0, 0], [0, -1]]))
