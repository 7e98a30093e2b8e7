"""The three metrics of the downstream tasks, computed for many probes at once.

Labels are int8 of shape (n_clips, n_classes): 1 if the class is present, 0 if it is absent, -1 if it is not annotated,
so that the clip is ignored for that class. Class scores have the shape (..., n_clips, n_classes), where a higher score
means that the class is more likely; their leading axes (probes, seeds) share the labels. All results are float64 in
[0, 1].
"""

import torch

from ssondo.errors import SsondoError
from ssondo.tasks import METRICS


def accuracy(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Compute the share of clips whose class has the highest score, shape (...); each clip has exactly one class."""
    return (scores.argmax(dim=-1) == labels.argmax(dim=-1)).double().mean(dim=-1)


def average_precision(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Compute the average precision of each class over the clips with a known label.

    Clips with equal scores share a threshold, as in scikit-learn, so that the result does not depend on the order of
    the clips.

    Returns:
        Shape (..., n_classes); NaN for a class without a positive clip.
    """
    # The clips are on the last axis because sorting contiguous memory is several times faster.
    ranked, order = scores.transpose(-1, -2).contiguous().sort(dim=-1, descending=True)
    by_rank = labels.T.contiguous().expand(order.shape).gather(-1, order)
    positive = by_rank == 1
    n_known = (by_rank >= 0).cumsum(dim=-1)
    n_positive = positive.cumsum(dim=-1)
    last_of_tie = _last_of_tie(ranked)
    precision = n_positive.gather(-1, last_of_tie).double() / n_known.gather(-1, last_of_tie).clamp(min=1)
    return (precision * positive).sum(dim=-1) / n_positive[..., -1]


def _last_of_tie(ranked: torch.Tensor) -> torch.Tensor:
    """Return the last position with the same score for each position of a ranking; shape of `ranked`, int64."""
    n = ranked.shape[-1]
    position = torch.arange(n, device=ranked.device)
    is_last = torch.ones(ranked.shape, dtype=torch.bool, device=ranked.device)
    is_last[..., :-1] = ranked[..., 1:] != ranked[..., :-1]
    return torch.where(is_last, position, n).flip(-1).cummin(dim=-1).values.flip(-1)


def mean_average_precision(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Compute the mean of the average precision over the classes that have a positive clip, shape (...).

    Raises:
        SsondoError: If no class has a positive clip.
    """
    scored = (labels == 1).any(dim=0)
    if not scored.any():
        raise SsondoError(
            "no class has a positive clip, so average precision is undefined; check the labels of the task"
        )
    return average_precision(scores[..., scored], labels[:, scored]).mean(dim=-1)


def check_labels(metric: str, labels: torch.Tensor) -> None:
    """Check that `labels` are valid for `metric`.

    Raises:
        SsondoError: If the metric does not exist, a clip does not have exactly one class although the metric is
            accuracy, or a label is unknown although the metric is map.
    """
    if metric not in METRICS:
        raise SsondoError(f"metric {metric!r} does not exist; choose one of {', '.join(METRICS)}")
    if metric == "accuracy":
        wrong = int((((labels == 1).sum(dim=-1) != 1) | (labels < 0).any(dim=-1)).sum())
        if wrong:
            raise SsondoError(f"accuracy requires one class per clip, but {wrong} clips have another number; use map")
    elif metric == "map" and (labels < 0).any():
        raise SsondoError("map requires known labels, but some are -1; use masked_map")


def evaluate(metric: str, scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Compute the metric of a task, shape (...).

    The metrics "map" and "masked_map" are computed in the same way; they differ in the labels that `check_labels`
    accepts.

    Raises:
        SsondoError: If the metric is an average precision and no class has a positive clip.
    """
    return accuracy(scores, labels) if metric == "accuracy" else mean_average_precision(scores, labels)
