"""Choose a probe on validation clips (`select`), then score it on test clips (`score`).

`select` is handed training and validation clips and decides everything: training steps, learning rate,
weight decay, batch size. `score` alone is handed test clips, and decides nothing.

All seeds and all grid points train side by side as one model whose weights are shaped
(seeds, inputs, grid points, outputs): a batch of clips is read once for all grid points, and
the first product is one large matrix product a seed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch

from ssondo.errors import SsondoError
from ssondo.system.progress import progress_bar
from ssondo.tasks.metrics import evaluate

# Below every score there is.
_NO_SCORE = -1.0


@dataclass(frozen=True)
class GridPoint:
    """One setting of the optimiser that selection may choose."""

    learning_rate: float
    weight_decay: float
    batch_size: int


@dataclass(frozen=True)
class LabelledEmbeddings:
    """Clips with labels.

    Attributes:
        embeddings: shape (n_clips, embedding_dim), float32.
        labels: shape (n_clips, n_classes), int8, 1, 0 or -1.
    """

    embeddings: torch.Tensor
    labels: torch.Tensor


@dataclass(frozen=True)
class TrainValid:
    """Training and validation clips of every seed: all that selection may see.

    Attributes:
        clips: training and validation clips, in the order of the task; no test clip.
        train_rows: rows of `clips` that train, shape (n_seeds, n_train), int64.
        valid_rows: rows of `clips` that validate, shape (n_seeds, n_valid), int64.
    """

    clips: LabelledEmbeddings
    train_rows: torch.Tensor
    valid_rows: torch.Tensor


@dataclass(frozen=True)
class Head:
    """A probe before training.

    Attributes:
        hidden: width of the one hidden layer; 0 is a linear probe.
        start: initial weights are uniform in ± start / sqrt(inputs) of their layer; 1 is torch.nn.Linear's.
            The last layer's matter: what they say about directions in which no training clip lies
            is noise that training never takes away.
        standardise: whether inputs are brought to mean 0 and standard deviation 1 of the training clips.
    """

    hidden: int
    start: float = 0.1
    standardise: bool = True

    def layers(self, n_inputs: int, n_outputs: int) -> list[tuple[int, int]]:
        """(inputs, outputs) of each layer."""
        return [(n_inputs, self.hidden), (self.hidden, n_outputs)] if self.hidden else [(n_inputs, n_outputs)]


@dataclass(frozen=True)
class EarlyStopping:
    """How long a probe trains. In steps, not epochs: an epoch of a small task is a handful of steps.

    Attributes:
        steps: at most.
        patience: a probe stops after so many steps without a better validation result.
        validate_every: steps between two looks at the validation clips.
    """

    steps: int
    patience: int
    validate_every: int


@dataclass
class FittedProbe:
    """One chosen probe a seed.

    Attributes:
        mean, inverse_std: of the training clips, shape (n_seeds, embedding_dim).
        weights: weight and bias of each layer in turn, shapes (n_seeds, inputs, 1, outputs)
            and (n_seeds, 1, 1, outputs).
        chosen: the grid point of each seed.
        steps: how many steps each seed's probe had trained.
        valid_scores: the validation score that chose, shape (n_seeds,).
    """

    mean: torch.Tensor
    inverse_std: torch.Tensor
    weights: list[torch.Tensor]
    chosen: list[GridPoint]
    steps: list[int]
    valid_scores: torch.Tensor


def _forward(weights: list[torch.Tensor], inputs: torch.Tensor) -> torch.Tensor:
    """Class scores of every probe.

    Args:
        weights: as in `Fitted`, with any number of grid points.
        inputs: standardised embeddings, shape (n_seeds, n_clips, embedding_dim).

    Returns:
        Shape (n_seeds, n_clips, n_points, n_classes).
    """
    n_seeds, n_inputs, n_points, n_outputs = weights[0].shape
    outputs = torch.bmm(inputs, weights[0].view(n_seeds, n_inputs, n_points * n_outputs))
    outputs = outputs.view(n_seeds, -1, n_points, n_outputs) + weights[1]
    if len(weights) == 2:
        return outputs
    return torch.einsum("scgh,shgo->scgo", outputs.relu(), weights[2]) + weights[3]


def _initial_weights(head: Head, n_inputs: int, n_outputs: int, seeds: list[int], n_points: int) -> list[torch.Tensor]:
    """Drawn by each seed; all grid points of a seed start alike. A hidden layer starts as torch.nn.Linear."""
    weights = []
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    layers = head.layers(n_inputs, n_outputs)
    for i, (fan_in, fan_out) in enumerate(layers):
        bound = fan_in**-0.5 * (head.start if i == len(layers) - 1 else 1.0)
        for rows in (fan_in, 1):
            drawn = [torch.rand(rows, 1, fan_out, generator=generator) for generator in generators]
            weights.append(((2 * torch.stack(drawn) - 1) * bound).repeat(1, 1, n_points, 1))
    return weights


def _loss(metric: str, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Loss of every probe: cross-entropy for one class a clip, binary over known labels otherwise.

    Args:
        metric: of the task.
        outputs: shape (n_seeds, n_clips, n_points, n_classes).
        labels: shape (n_seeds, n_clips, n_classes), int8.

    Returns:
        Shape (n_seeds, n_points), the mean over clips (or known labels).
    """
    if metric == "accuracy":
        target = labels.argmax(dim=-1)[:, :, None, None].expand(-1, -1, outputs.shape[2], 1)
        return -outputs.log_softmax(dim=-1).gather(-1, target).squeeze(-1).mean(dim=1)
    known = (labels >= 0)[:, :, None, :].to(outputs.dtype)
    target = (labels == 1)[:, :, None, :].to(outputs.dtype).expand_as(outputs)
    losses = torch.nn.functional.binary_cross_entropy_with_logits(outputs, target, reduction="none")
    return (losses * known).sum(dim=(1, 3)) / known.sum(dim=(1, 3)).clamp(min=1)


class AdamW:
    """AdamW of torch.optim with another learning rate and weight decay for each grid point.

    Args:
        weights: tensors of shape (n_seeds, inputs, n_points, outputs), changed in place.
        points: the grid points, in the order of the weights' third axis.
    """

    def __init__(
        self, weights: list[torch.Tensor], points: list[GridPoint], beta1: float = 0.9, beta2: float = 0.999
    ) -> None:
        self.weights = weights
        self.beta1, self.beta2, self.epsilon, self.n_steps = beta1, beta2, 1e-8, 0
        self._first = [torch.zeros_like(weight) for weight in weights]
        self._second = [torch.zeros_like(weight) for weight in weights]
        self._rate = [self._spread(weight, [p.learning_rate for p in points]) for weight in weights]
        shrink = [1 - point.learning_rate * point.weight_decay for point in points]
        self._keep = [self._spread(weight, shrink) for weight in weights]
        self._decays = any(point.weight_decay for point in points)

    @staticmethod
    def _spread(weight: torch.Tensor, values: list[float]) -> torch.Tensor:
        # Copied along the outputs, so that one long inner loop runs over points and outputs together.
        spread = torch.tensor(values, dtype=weight.dtype, device=weight.device)[:, None]
        return spread.expand(-1, weight.shape[3]).contiguous()

    @torch.no_grad()
    def step(self, gradients: list[torch.Tensor]) -> None:
        """Move the weights by one step against `gradients`, of the same shapes."""
        self.n_steps += 1
        correct1, correct2 = 1 - self.beta1**self.n_steps, 1 - self.beta2**self.n_steps
        for i, (weight, gradient) in enumerate(zip(self.weights, gradients, strict=True)):
            first = self._first[i].lerp_(gradient, 1 - self.beta1)
            second = self._second[i].mul_(self.beta2).addcmul_(gradient, gradient, value=1 - self.beta2)
            # epsilon beside the uncorrected root: one pass over the weights less than in torch.optim.
            change = second.sqrt().add_(self.epsilon * correct2**0.5)
            torch.div(first, change, out=change).mul_(self._rate[i])
            if self._decays:
                weight.mul_(self._keep[i])
            weight.sub_(change, alpha=correct2**0.5 / correct1)

    def drop(self, keep: torch.Tensor) -> None:
        """Go on with the grid points `keep` (indices) only."""
        for name in ("weights", "_first", "_second"):
            setattr(self, name, [value[:, :, keep].contiguous() for value in getattr(self, name)])
        self._rate = [value[keep] for value in self._rate]
        self._keep = [value[keep] for value in self._keep]


def _statistics(clips: torch.Tensor, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and 1 / standard deviation over the clips `rows`, both (embedding_dim,).

    Args:
        clips: embeddings, shape (n_clips, embedding_dim).
        rows: which count, shape (n,).
    """
    chunks = rows.split(4096)
    mean = torch.stack([clips[chunk].sum(dim=0, dtype=torch.float64) for chunk in chunks]).sum(dim=0) / len(rows)
    squares = [(clips[chunk].double() - mean).square().sum(dim=0) for chunk in chunks]
    std = (torch.stack(squares).sum(dim=0) / len(rows)).sqrt()
    # A dimension that never changes says nothing; dividing by its rounding error would make it shout.
    moves = std > 1e-6 * mean.abs().clamp(min=1e-6)
    return mean.float(), torch.where(moves, 1 / std, 0.0).float()


def _scaling(development: TrainValid, head: Head) -> tuple[torch.Tensor, torch.Tensor]:
    """What is taken from an embedding and what it is multiplied by, each (n_seeds, embedding_dim)."""
    rows, clips = development.train_rows, development.clips.embeddings
    if not head.standardise:
        shape = (len(rows), clips.shape[1])
        return torch.zeros(shape, device=clips.device), torch.ones(shape, device=clips.device)
    found = [_statistics(clips, rows[0])]
    for mine in rows[1:]:
        same = torch.equal(mine, rows[0])
        found.append(found[0] if same else _statistics(clips, mine))
    means, inverses = zip(*found, strict=True)
    return torch.stack(means), torch.stack(inverses)


@dataclass
class _Best:
    """The best look so far of every seed and grid point: weights, score, loss, steps trained."""

    weights: list[torch.Tensor]
    score: torch.Tensor
    loss: torch.Tensor
    step: torch.Tensor

    @classmethod
    def none_yet(cls, weights: list[torch.Tensor]) -> "_Best":
        shape = (weights[0].shape[0], weights[0].shape[2])
        device = weights[0].device
        return cls(
            [weight.clone() for weight in weights],
            torch.full(shape, _NO_SCORE, dtype=torch.float64, device=device),
            torch.full(shape, torch.inf, dtype=torch.float64, device=device),
            torch.zeros(shape, dtype=torch.int64, device=device),
        )

    def beaten_by(self, now: "_Best", points: torch.Tensor) -> torch.Tensor:
        """Where `now`, which has the grid points `points`, is better, shape (n_seeds, len(points)).

        A higher score is; among equal scores (few clips have few of them) a lower loss is.
        """
        score, loss = self.score[:, points], self.loss[:, points]
        return (now.score > score) | ((now.score == score) & (now.loss < loss))

    def keep(self, better: torch.Tensor, points: torch.Tensor, now: "_Best") -> None:
        """Take over `now`, which has the grid points `points`, where `better` (n_seeds, len(points))."""
        seeds, columns = better.nonzero(as_tuple=True)
        into = points[columns]
        for mine, theirs in zip(self.weights, now.weights, strict=True):
            mine[seeds, :, into] = theirs[seeds, :, columns]
        for name in ("score", "loss", "step"):
            getattr(self, name)[seeds, into] = getattr(now, name)[seeds, columns]


def _batches(
    generators: list[np.random.Generator], train_rows: torch.Tensor, batch_size: int
) -> Iterator[torch.Tensor]:
    """Rows of each batch without end, shape (n_seeds, batch_size); every seed shuffles its own clips.

    A batch goes on into the next epoch rather than be a short one.
    """
    n = train_rows.shape[1]
    size = min(batch_size, n)
    left = train_rows[:, :0]
    while True:
        order = torch.from_numpy(np.stack([generator.permutation(n) for generator in generators]))
        left = torch.cat([left, train_rows.gather(1, order.to(train_rows.device))], dim=1)
        *full, left = left.split(size, dim=1)
        if left.shape[1] == size:
            full, left = [*full, left], left[:, :0]
        yield from full


class GridSearch:
    """Seeds and grid points of one batch size, training side by side."""

    def __init__(
        self, development: TrainValid, metric: str, head: Head, points: list[GridPoint], seeds: list[int]
    ) -> None:
        self.development, self.metric = development, metric
        self.points = points
        self.mean, self.inverse_std = _scaling(development, head)
        clips = development.clips
        weights = _initial_weights(head, clips.embeddings.shape[1], clips.labels.shape[1], seeds, len(points))
        weights = [weight.to(clips.embeddings.device) for weight in weights]
        self.optimiser = AdamW(weights, points)
        self.best = _Best.none_yet(weights)
        generators = [np.random.default_rng([seed, points[0].batch_size]) for seed in seeds]
        self._batches = _batches(generators, development.train_rows, points[0].batch_size)
        self._valid = self._valid_inputs(development.valid_rows)
        # The grid points that still train.
        self._running = torch.arange(len(points), device=clips.embeddings.device)

    def _inputs(self, rows: torch.Tensor) -> torch.Tensor:
        """Standardised embeddings of rows (n_seeds, n), shape (n_seeds, n, embedding_dim)."""
        return self.development.clips.embeddings[rows].sub_(self.mean[:, None]).mul_(self.inverse_std[:, None])

    def _valid_inputs(self, rows: torch.Tensor) -> list[torch.Tensor]:
        """Standardised validation clips of each seed, (1, n_valid, embedding_dim); one tensor where all share it."""
        train = self.development.train_rows
        if bool((rows == rows[0]).all()) and bool((train == train[0]).all()):
            shared = (self.development.clips.embeddings[rows[0]] - self.mean[0]) * self.inverse_std[0]
            return [shared[None]] * len(rows)
        return list(self._inputs(rows).split(1))

    def _train(self, steps: int) -> None:
        for rows in islice(self._batches, steps):
            weights = [weight.requires_grad_() for weight in self.optimiser.weights]
            outputs = _forward(weights, self._inputs(rows))
            # The sum over probes gives each its own gradient.
            loss = _loss(self.metric, outputs, self.development.clips.labels[rows]).sum()
            gradients = torch.autograd.grad(loss, weights)
            self.optimiser.weights = [weight.detach() for weight in weights]
            self.optimiser.step(list(gradients))

    def _validate(self, step: int) -> _Best:
        """Score and loss of every running probe on its validation clips."""
        scores, losses = [], []
        for s, rows in enumerate(self.development.valid_rows):
            labels = self.development.clips.labels[rows]
            outputs = _forward([weight[s : s + 1] for weight in self.optimiser.weights], self._valid[s])
            score = evaluate(self.metric, outputs[0].transpose(0, 1), labels)
            # A probe that diverged has no ranking: its clips come in any order, and their own may be by class.
            finite = outputs[0].isfinite().all(dim=-1).all(dim=0)
            scores.append(torch.where(finite, score, _NO_SCORE))
            losses.append(_loss(self.metric, outputs, labels[None])[0].double().nan_to_num(nan=torch.inf))
        found = torch.stack(scores)
        return _Best(
            self.optimiser.weights, found, torch.stack(losses), torch.full_like(found, step, dtype=torch.int64)
        )

    def run(self, schedule: EarlyStopping, name: str) -> None:
        """Train until every probe has gone `patience` steps without a better validation result."""
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
        """Keep what is better than before, and drop the grid points whose every seed has stopped."""
        now = self._validate(step)
        # A probe that has stopped may still train beside others; it no longer counts. The first look counts always.
        best = self.best.step[:, self._running]
        stopped = (best > 0) & (step - best > patience)
        self.best.keep(self.best.beaten_by(now, self._running) & ~stopped, self._running, now)
        waiting = step - self.best.step[:, self._running] < patience
        keep = waiting.any(dim=0).nonzero()[:, 0]
        if len(keep) < len(self._running):
            self._running = self._running[keep]
            self.optimiser.drop(keep)


def select(
    development: TrainValid,
    *,
    metric: str,
    head: Head,
    grid: list[GridPoint],
    schedule: EarlyStopping,
    seeds: list[int],
    name: str = "probe",
) -> FittedProbe:
    """Train every grid point with every seed and choose one a seed by the validation score.

    Equal scores: the lower validation loss decides, then the order of the grid.

    Args:
        development: training and validation clips; test clips are no argument of this function.
        metric: "accuracy", "map" or "masked_map".
        head: shape of the probe.
        grid: what may be chosen.
        schedule: how long to train.
        seeds: one run each, for initialisation and batch order.
        name: for the progress display.

    Returns:
        One fitted probe a seed.

    Raises:
        SsondoError: if no probe of a seed stayed finite.
    """
    by_batch_size: dict[int, list[GridPoint]] = {}
    for point in grid:
        by_batch_size.setdefault(point.batch_size, []).append(point)
    races = []
    for batch_size, points in by_batch_size.items():
        race = GridSearch(development, metric, head, points, seeds)
        race.run(schedule, f"{name} batch {batch_size}")
        races.append(race)
    points = [point for race in races for point in race.points]
    scores = torch.cat([race.best.score for race in races], dim=1)
    losses = torch.cat([race.best.loss for race in races], dim=1)
    steps = torch.cat([race.best.step for race in races], dim=1)
    layers = [torch.cat(parts, dim=2) for parts in zip(*(race.best.weights for race in races), strict=True)]
    if (scores.amax(dim=1) == _NO_SCORE).any():
        raise SsondoError(
            f"{name}: the probe diverged at every point of the grid; lower probe.learning_rates or probe.weight_decays"
        )
    winners = [
        min(range(len(points)), key=lambda g, s=s: (-float(scores[s, g]), float(losses[s, g]), g))  # type: ignore[misc]
        for s in range(len(seeds))
    ]
    return FittedProbe(
        mean=races[0].mean,
        inverse_std=races[0].inverse_std,
        weights=[torch.stack([layer[s, :, [g]] for s, g in enumerate(winners)]) for layer in layers],
        chosen=[points[g] for g in winners],
        steps=[int(steps[s, g]) for s, g in enumerate(winners)],
        valid_scores=torch.stack([scores[s, g] for s, g in enumerate(winners)]),
    )


@torch.no_grad()
def _outputs(fitted: FittedProbe, embeddings: torch.Tensor) -> torch.Tensor:
    """Class scores of embeddings (n_clips, embedding_dim) by each seed's probe: (n_seeds, n_clips, n_classes)."""
    outputs = []
    for s in range(len(fitted.chosen)):
        inputs = ((embeddings - fitted.mean[s]) * fitted.inverse_std[s])[None]
        outputs.append(_forward([weight[s : s + 1] for weight in fitted.weights], inputs)[0, :, 0])
    return torch.stack(outputs)


def score(fitted: FittedProbe, test: LabelledEmbeddings, *, metric: str) -> torch.Tensor:
    """The test score of each seed's probe, shape (n_seeds,), float64, in [0, 1]."""
    return evaluate(metric, _outputs(fitted, test.embeddings), test.labels)


def bootstrap_scores(
    fitted: FittedProbe, test: LabelledEmbeddings, *, metric: str, n: int, seed: int | Sequence[int]
) -> torch.Tensor:
    """Test scores, averaged over the seeds, of `n` draws of the test clips with replacement; shape (n,).

    A draw without any positive clip is drawn again.
    """
    outputs = _outputs(fitted, test.embeddings)
    generator = np.random.default_rng(seed)
    scores: list[torch.Tensor] = []
    while len(scores) < n:
        rows = torch.from_numpy(generator.integers(0, len(test.labels), len(test.labels))).to(outputs.device)
        if (test.labels[rows] == 1).any():
            scores.append(evaluate(metric, outputs[:, rows], test.labels[rows]).mean())
    return torch.stack(scores)
