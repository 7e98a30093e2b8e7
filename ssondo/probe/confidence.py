"""Confidence intervals of scores."""

from collections.abc import Sequence

import numpy as np


def ci95(scores: Sequence[float] | np.ndarray) -> float | None:
    """Return the half width of the 95 % confidence interval of the mean of the scores of several runs.

    It is 1.96 standard deviations (with Bessel's correction) over the square root of the number of runs, in the unit of
    the scores; None for fewer than two runs.
    """
    return float(1.96 * np.std(scores, ddof=1) / len(scores) ** 0.5) if len(scores) > 1 else None
