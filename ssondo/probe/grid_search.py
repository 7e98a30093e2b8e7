"""Selection of a probe on validation clips: `select` trains every grid point with every seed.

`select` receives training and validation clips only and decides everything: the number of training steps, the
learning rate, the weight decay and the batch size. Test clips are not an argument of any function of this module.
The probes themselves are in `ssondo.probe.batched_probes`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch

from ssondo.errors import SsondoError
from ssondo.probe.batched_probes import AdamW, Head, forward, initial_weights, probe_loss
from ssondo.system.progress import progress_bar
from ssondo.tasks.metrics import evaluate

# Lower than any score of a metric.
_NO_SCORE = -1.0


@dataclass(frozen=True)
class GridPoint:
    """One setting of the optimiser that can be selected."""

    learning_rate: float
    weight_decay: float
    batch_size: int


@dataclass(frozen=True)
class LabelledEmbeddings:
    """Clips with labels.

    Attributes:
        embeddings: Shape (n_clips, embedding_dim), float32.
        labels: Shape (n_clips, n_classes), int8: 1 present, 0 absent, -1 unknown.
    """

    embeddings: torch.Tensor
    labels: torch.Tensor


@dataclass(frozen=True)
class TrainValid:
    """Training and validation clips of every seed, the only data that selection sees.

    Attributes:
        clips: Training and validation clips, in the order of the task.
        train_rows: Rows of `clips` that are trained on, shape (n_seeds, n_train), int64.
        valid_rows: Rows of `clips` that are validated on, shape (n_seeds, n_valid), int64.
    """

    clips: LabelledEmbeddings
    train_rows: torch.Tensor
    valid_rows: torch.Tensor


@dataclass(frozen=True)
class EarlyStopping:
    """Duration of the training of a probe, in steps: an epoch of a small task has only a few steps.

    Attributes:
        steps: Maximum number of steps.
        patience: Number of steps without a better validation result after which a probe stops.
        validate_every: Number of steps between two validations.
    """

    steps: int
    patience: int
    validate_every: int


@dataclass
class FittedProbe:
    """The selected probe of each seed.

    Attributes:
        mean: Mean of the training clips of each seed, shape (n_seeds, embedding_dim).
        inverse_std: Reciprocal of their standard deviation, shape (n_seeds, embedding_dim).
        weights: Weight and bias of each layer in turn, shapes (n_seeds, layer_inputs, 1, layer_outputs)
            and (n_seeds, 1, 1, layer_outputs).
        chosen: Selected grid point of each seed.
        steps: Number of steps that the selected probe of each seed had trained.
        valid_scores: Validation score of the selected probe of each seed, shape (n_seeds,).
    """

    mean: torch.Tensor
    inverse_std: torch.Tensor
    weights: list[torch.Tensor]
    chosen: list[GridPoint]
    steps: list[int]
    valid_scores: torch.Tensor


def _statistics(clips: torch.Tensor, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean and the reciprocal of the standard deviation of some rows of `clips`, (embedding_dim,) each."""
    chunks = rows.split(4096)
    mean = torch.stack([clips[chunk].sum(dim=0, dtype=torch.float64) for chunk in chunks]).sum(dim=0) / len(rows)
    squares = [(clips[chunk].double() - mean).square().sum(dim=0) for chunk in chunks]
    std = (torch.stack(squares).sum(dim=0) / len(rows)).sqrt()
    # A constant dimension carries no information, and division by its rounding error would amplify noise.
    varies = std > 1e-6 * mean.abs().clamp(min=1e-6)
    return mean.float(), torch.where(varies, 1 / std, 0.0).float()


def _standardisation(data: TrainValid, head: Head) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the offset and the factor that standardise the embeddings of each seed, (n_seeds, embedding_dim) each."""
    rows, clips = data.train_rows, data.clips.embeddings
    if not head.standardise:
        shape = (len(rows), clips.shape[1])
        return torch.zeros(shape, device=clips.device), torch.ones(shape, device=clips.device)
    statistics = [_statistics(clips, rows[0])]
    for seed_rows in rows[1:]:
        same = torch.equal(seed_rows, rows[0])
        statistics.append(statistics[0] if same else _statistics(clips, seed_rows))
    means, inverse_stds = zip(*statistics, strict=True)
    return torch.stack(means), torch.stack(inverse_stds)


@dataclass
class _Validated:
    """Probes at a validation, for every seed and grid point.

    The weights are as in `initial_weights`; the validation score, the validation loss and the number of steps that were
    trained have the shape (n_seeds, n_points).
    """

    weights: list[torch.Tensor]
    score: torch.Tensor
    loss: torch.Tensor
    step: torch.Tensor


def _batches(
    generators: list[np.random.Generator], train_rows: torch.Tensor, batch_size: int
) -> Iterator[torch.Tensor]:
    """Yield the rows of batch after batch, without end, shape (n_seeds, batch_size).

    Every seed shuffles its own clips in each epoch. The last batch of an epoch is filled with clips of the next one,
    so that all batches have the same size.
    """
    n = train_rows.shape[1]
    size = min(batch_size, n)
    remaining = train_rows[:, :0]
    while True:
        order = torch.from_numpy(np.stack([generator.permutation(n) for generator in generators]))
        remaining = torch.cat([remaining, train_rows.gather(1, order.to(train_rows.device))], dim=1)
        *full, remaining = remaining.split(size, dim=1)
        if remaining.shape[1] == size:
            full, remaining = [*full, remaining], remaining[:, :0]
        yield from full


class GridSearch:
    """Training of all seeds and all grid points of one batch size side by side."""

    def __init__(self, data: TrainValid, metric: str, head: Head, points: list[GridPoint], seeds: list[int]) -> None:
        self.data, self.metric = data, metric
        self.points = points
        self.mean, self.inverse_std = _standardisation(data, head)
        clips = data.clips
        weights = initial_weights(head, clips.embeddings.shape[1], clips.labels.shape[1], seeds, len(points))
        weights = [weight.to(clips.embeddings.device) for weight in weights]
        self.optimiser = AdamW(weights, [p.learning_rate for p in points], [p.weight_decay for p in points])
        # Any finite probe is better than these.
        score = torch.full((len(seeds), len(points)), _NO_SCORE, dtype=torch.float64, device=clips.embeddings.device)
        loss, step = torch.full_like(score, torch.inf), torch.zeros_like(score, dtype=torch.int64)
        self.best = _Validated([weight.clone() for weight in weights], score, loss, step)
        generators = [np.random.default_rng([seed, points[0].batch_size]) for seed in seeds]
        self._batches = _batches(generators, data.train_rows, points[0].batch_size)
        self._valid_inputs = self._standardised_valid_clips(data.valid_rows)
        # Indices of the grid points that are still training.
        self._running = torch.arange(len(points), device=clips.embeddings.device)

    def _inputs(self, rows: torch.Tensor) -> torch.Tensor:
        """Standardised embeddings of rows (n_seeds, n), shape (n_seeds, n, embedding_dim)."""
        return self.data.clips.embeddings[rows].sub_(self.mean[:, None]).mul_(self.inverse_std[:, None])

    def _standardised_valid_clips(self, rows: torch.Tensor) -> list[torch.Tensor]:
        """Standardised validation clips of each seed, (1, n_valid, embedding_dim); one tensor where all are equal."""
        train = self.data.train_rows
        if bool((rows == rows[0]).all()) and bool((train == train[0]).all()):
            shared = (self.data.clips.embeddings[rows[0]] - self.mean[0]) * self.inverse_std[0]
            return [shared[None]] * len(rows)
        return list(self._inputs(rows).split(1))

    def _train(self, steps: int) -> None:
        for rows in islice(self._batches, steps):
            weights = [weight.requires_grad_() for weight in self.optimiser.weights]
            outputs = forward(weights, self._inputs(rows))
            # The probes share no weights, so the gradient of the sum holds the gradient of each probe.
            loss = probe_loss(self.metric, outputs, self.data.clips.labels[rows]).sum()
            gradients = torch.autograd.grad(loss, weights)
            self.optimiser.weights = [weight.detach() for weight in weights]
            self.optimiser.step(list(gradients))

    def _validate(self, step: int) -> _Validated:
        """Evaluate every running probe on the validation clips of its seed."""
        scores, losses = [], []
        for s, rows in enumerate(self.data.valid_rows):
            labels = self.data.clips.labels[rows]
            outputs = forward([weight[s : s + 1] for weight in self.optimiser.weights], self._valid_inputs[s])
            score = evaluate(self.metric, outputs[0].transpose(0, 1), labels)
            # The outputs of a diverged probe have no ranking, so its score would depend on the order of the clips.
            finite = outputs[0].isfinite().all(dim=-1).all(dim=0)
            scores.append(torch.where(finite, score, _NO_SCORE))
            losses.append(probe_loss(self.metric, outputs, labels[None])[0].double().nan_to_num(nan=torch.inf))
        score = torch.stack(scores)
        steps = torch.full_like(score, step, dtype=torch.int64)
        return _Validated(self.optimiser.weights, score, torch.stack(losses), steps)

    def run(self, schedule: EarlyStopping, name: str) -> None:
        """Train until every probe has gone `schedule.patience` steps without a better validation result."""
        step = 0
        with progress_bar(schedule.steps, name, unit="step") as bar:
            while step < schedule.steps and len(self._running):
                n = min(schedule.validate_every, schedule.steps - step)
                self._train(n)
                step += n
                self._early_stop(step, schedule.patience)
                bar.update(n)

    @torch.no_grad()
    def _early_stop(self, step: int, patience: int) -> None:
        """Keep improved probes, and drop the grid points whose probes have stopped for every seed.

        A higher score is better; between equal scores, which are common with few clips, a lower loss is.
        """
        best, current, running = self.best, self._validate(step), self._running
        score, loss, best_step = best.score[:, running], best.loss[:, running], best.step[:, running]
        improved = (current.score > score) | ((current.score == score) & (current.loss < loss))
        # A stopped probe trains on while another seed of its grid point does, but is not considered any more. The
        # first validation always counts, however short the patience.
        stopped = (best_step > 0) & (step - best_step > patience)
        seeds, columns = (improved & ~stopped).nonzero(as_tuple=True)
        points = running[columns]
        for kept, new in zip(best.weights, current.weights, strict=True):
            kept[seeds, :, points] = new[seeds, :, columns]
        for kept, new in ((best.score, current.score), (best.loss, current.loss), (best.step, current.step)):
            kept[seeds, points] = new[seeds, columns]
        waiting = step - best.step[:, running] < patience
        keep = waiting.any(dim=0).nonzero()[:, 0]
        if len(keep) < len(running):
            self._running = running[keep]
            self.optimiser.keep_points(keep)


def select(
    data: TrainValid,
    *,
    metric: str,
    head: Head,
    grid: list[GridPoint],
    schedule: EarlyStopping,
    seeds: list[int],
    name: str = "probe",
) -> FittedProbe:
    """Train every grid point with every seed and select one probe per seed by its validation score.

    Between equal scores the lower validation loss decides, then the order of the grid.

    Args:
        data: Training and validation clips; test clips are not an argument of this function.
        metric: "accuracy", "map" or "masked_map".
        head: Architecture of the probes.
        grid: Grid points to select from.
        schedule: Duration of the training.
        seeds: Seeds of initialisation and batch order.
        name: Name in the progress display and in error messages.

    Raises:
        SsondoError: If all probes of a seed diverged.
    """
    by_batch_size: dict[int, list[GridPoint]] = {}
    for point in grid:
        by_batch_size.setdefault(point.batch_size, []).append(point)
    searches = []
    for batch_size, points in by_batch_size.items():
        search = GridSearch(data, metric, head, points, seeds)
        search.run(schedule, f"{name} batch {batch_size}")
        searches.append(search)
    points = [point for search in searches for point in search.points]
    scores, losses, steps = (
        torch.cat([getattr(search.best, name) for search in searches], dim=1) for name in ("score", "loss", "step")
    )
    layers = [torch.cat(layer, dim=2) for layer in zip(*(search.best.weights for search in searches), strict=True)]
    if (scores.amax(dim=1) == _NO_SCORE).any():
        raise SsondoError(
            f"{name}: the probe diverged at every point of the grid; lower probe.learning_rates or probe.weight_decays"
        )
    chosen = [
        min(range(len(points)), key=lambda g, s=s: (-float(scores[s, g]), float(losses[s, g]), g))  # type: ignore[misc]
        for s in range(len(seeds))
    ]
    return FittedProbe(
        mean=searches[0].mean,
        inverse_std=searches[0].inverse_std,
        weights=[torch.stack([layer[s, :, [g]] for s, g in enumerate(chosen)]) for layer in layers],
        chosen=[points[g] for g in chosen],
        steps=[int(steps[s, g]) for s, g in enumerate(chosen)],
        valid_scores=torch.stack([scores[s, g] for s, g in enumerate(chosen)]),
    )
