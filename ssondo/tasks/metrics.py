"""The three metrics of the downstream tasks, for many probes at a time.

Labels are int8: 1 a class that is there, 0 one that is not, -1 one that nobody has looked
for. Scores may have leading axes (probes, seeds); labels are shared by them.
"""

import torch

from ssondo.errors import SsondoError

METRICS = ("accuracy", "map", "masked_map")


def accuracy(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Share of clips whose highest score is their class.

    Args:
        scores: shape (..., n_clips, n_classes).
        labels: shape (n_clips, n_classes), exactly one 1 a clip.

    Returns:
        Shape (...), float64, in [0, 1].
    """
    return (scores.argmax(dim=-1) == labels.argmax(dim=-1)).double().mean(dim=-1)


def average_precision(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Average precision of each class over the clips whose label for it is known.

    Clips with equal scores enter together, as in scikit-learn, so that the order of the
    clips is no matter.

    Args:
        scores: shape (..., n_clips, n_classes).
        labels: shape (n_clips, n_classes), 1, 0 or -1 (left out).

    Returns:
        Shape (..., n_classes), float64, in [0, 1]; NaN for a class without a positive clip.
    """
    # Clips on the last axis: the sort is several times faster on contiguous memory.
    ranked, order = scores.transpose(-1, -2).contiguous().sort(dim=-1, descending=True)
    by_rank = labels.T.contiguous().expand(order.shape).gather(-1, order)
    positive = by_rank == 1
    n_known = (by_rank >= 0).cumsum(dim=-1)
    n_positive = positive.cumsum(dim=-1)
    last_of_tie = _last_of_tie(ranked)
    precision = n_positive.gather(-1, last_of_tie).double() / n_known.gather(-1, last_of_tie).clamp(min=1)
    return (precision * positive).sum(dim=-1) / n_positive[..., -1]


def _last_of_tie(ranked: torch.Tensor) -> torch.Tensor:
    """For each place of a ranking the last place with the same score; shape as `ranked`, int64."""
    n = ranked.shape[-1]
    place = torch.arange(n, device=ranked.device)
    is_last = torch.ones(ranked.shape, dtype=torch.bool, device=ranked.device)
    is_last[..., :-1] = ranked[..., 1:] != ranked[..., :-1]
    return torch.where(is_last, place, n).flip(-1).cummin(dim=-1).values.flip(-1)


def mean_average_precision(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Macro average precision: the mean over the classes that have a positive clip.

    Args:
        scores: shape (..., n_clips, n_classes).
        labels: shape (n_clips, n_classes), 1, 0 or -1 (the clip is left out for that class).

    Returns:
        Shape (...), float64, in [0, 1].

    Raises:
        SsondoError: if no class has a positive clip.
    """
    scored = (labels == 1).any(dim=0)
    if not scored.any():
        raise SsondoError("no class has a positive clip, so there is no average precision; check the task's labels")
    return average_precision(scores[..., scored], labels[:, scored]).mean(dim=-1)


def check_labels(metric: str, labels: torch.Tensor) -> None:
    """Say what is wrong with `labels` (n_clips, n_classes) for `metric`.

    Raises:
        SsondoError: if the metric is unknown, or accuracy meets a clip without exactly one
            class, or `map` meets unknown labels.
    """
    if metric not in METRICS:
        raise SsondoError(f"metric {metric!r} is unknown; a task's metric is one of {', '.join(METRICS)}")
    if metric == "accuracy":
        wrong = int((((labels == 1).sum(dim=-1) != 1) | (labels < 0).any(dim=-1)).sum())
        if wrong:
            raise SsondoError(f"accuracy needs exactly one class a clip, {wrong} clips have another number; use map")
    elif metric == "map" and (labels < 0).any():
        raise SsondoError("map needs every label known and some are -1; use masked_map")


def evaluate(metric: str, scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The task's metric, shape (...), of scores (..., n_clips, n_classes).

    Args:
        metric: "accuracy", "map" or "masked_map"; the last two differ in which labels
            `check_labels` lets pass, and are computed alike.
        scores: any real numbers, higher is more likely.
        labels: shape (n_clips, n_classes).

    Raises:
        SsondoError: if an average precision is asked for and no class has a positive clip.
    """
    return accuracy(scores, labels) if metric == "accuracy" else mean_average_precision(scores, labels)
