"""Scores of fitted probes on test clips; nothing is selected here."""

from collections.abc import Sequence

import numpy as np
import torch

from ssondo.probe.batched_probes import forward
from ssondo.probe.grid_search import FittedProbe, LabelledEmbeddings
from ssondo.tasks.metrics import evaluate


@torch.no_grad()
def _outputs(fitted: FittedProbe, embeddings: torch.Tensor) -> torch.Tensor:
    """Class scores of embeddings (n_clips, embedding_dim) by the probe of each seed: (n_seeds, n_clips, n_classes)."""
    outputs = []
    for s in range(len(fitted.chosen)):
        inputs = ((embeddings - fitted.mean[s]) * fitted.inverse_std[s])[None]
        outputs.append(forward([weight[s : s + 1] for weight in fitted.weights], inputs)[0, :, 0])
    return torch.stack(outputs)


def score(fitted: FittedProbe, test: LabelledEmbeddings, *, metric: str) -> torch.Tensor:
    """Return the test score of the probe of each seed, shape (n_seeds,), float64, in [0, 1]."""
    return evaluate(metric, _outputs(fitted, test.embeddings), test.labels)


def bootstrap_scores(
    fitted: FittedProbe, test: LabelledEmbeddings, *, metric: str, n: int, seed: int | Sequence[int]
) -> torch.Tensor:
    """Return the test score, averaged over the seeds of the probes, of each of `n` bootstrap samples of the test clips.

    A sample without any positive clip is drawn again. The samples depend on `seed` only; the result has the shape (n,),
    float64, in [0, 1].
    """
    outputs = _outputs(fitted, test.embeddings)
    generator = np.random.default_rng(seed)
    scores: list[torch.Tensor] = []
    while len(scores) < n:
        rows = torch.from_numpy(generator.integers(0, len(test.labels), len(test.labels))).to(outputs.device)
        if (test.labels[rows] == 1).any():
            scores.append(evaluate(metric, outputs[:, rows], test.labels[rows]).mean())
    return torch.stack(scores)
