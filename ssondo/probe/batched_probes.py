"""Many probes that train as one model: their weights, forward pass, loss and optimiser.

All seeds and all points of a hyper-parameter grid share one batched model, whose weights have the shape
(n_seeds, n_inputs, n_points, n_outputs). A batch of clips is thus read once for all grid points, and the
first layer is one large matrix product per seed.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch


@dataclass(frozen=True)
class Head:
    """Architecture and initialisation of a probe.

    Attributes:
        hidden: Width of the hidden layer of an MLP, or 0 for a linear probe.
        init_scale: Initial weights of the last layer are uniform in ± init_scale / sqrt(n_inputs); 1 is the
            initialisation of `torch.nn.Linear`. Training never changes the weights in directions that no training
            clip covers, so large initial weights there remain as noise.
        standardise: Whether embeddings are scaled to mean 0 and standard deviation 1 over the training clips.
    """

    hidden: int
    init_scale: float = 0.1
    standardise: bool = True


def initial_weights(head: Head, n_inputs: int, n_outputs: int, seeds: list[int], n_points: int) -> list[torch.Tensor]:
    """Draw the initial weights of the probes; all grid points of a seed start with the same values.

    Returns:
        The weight and the bias of each layer in turn, shapes (n_seeds, layer_inputs, n_points, layer_outputs) and
        (n_seeds, 1, n_points, layer_outputs), float32.
    """
    weights = []
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    sizes = [n_inputs, head.hidden, n_outputs] if head.hidden else [n_inputs, n_outputs]
    for i, (fan_in, fan_out) in enumerate(pairwise(sizes)):
        bound = fan_in**-0.5 * (head.init_scale if i == len(sizes) - 2 else 1.0)
        for n_rows in (fan_in, 1):
            uniform = [torch.rand(n_rows, 1, fan_out, generator=generator) for generator in generators]
            weights.append(((2 * torch.stack(uniform) - 1) * bound).repeat(1, 1, n_points, 1))
    return weights


def forward(weights: list[torch.Tensor], inputs: torch.Tensor) -> torch.Tensor:
    """Compute the class scores of every probe.

    Args:
        weights: Weights and biases as `initial_weights` returns them, with any number of grid points.
        inputs: Standardised embeddings, shape (n_seeds, n_clips, embedding_dim).

    Returns:
        Class scores, shape (n_seeds, n_clips, n_points, n_classes).
    """
    n_seeds, n_inputs, n_points, n_outputs = weights[0].shape
    outputs = torch.bmm(inputs, weights[0].view(n_seeds, n_inputs, n_points * n_outputs))
    outputs = outputs.view(n_seeds, -1, n_points, n_outputs) + weights[1]
    if len(weights) == 2:
        return outputs
    return torch.einsum("scgh,shgo->scgo", outputs.relu(), weights[2]) + weights[3]


def probe_loss(metric: str, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Compute the loss of every probe.

    The loss is cross-entropy for tasks with one class per clip (metric "accuracy"), and binary cross-entropy over the
    known labels otherwise.

    Args:
        metric: Metric of the task.
        outputs: Class scores, shape (n_seeds, n_clips, n_points, n_classes).
        labels: Labels, shape (n_seeds, n_clips, n_classes), int8; -1 is unknown.

    Returns:
        The mean over the clips (or the known labels), shape (n_seeds, n_points).
    """
    if metric == "accuracy":
        target = labels.argmax(dim=-1)[:, :, None, None].expand(-1, -1, outputs.shape[2], 1)
        return -outputs.log_softmax(dim=-1).gather(-1, target).squeeze(-1).mean(dim=1)
    is_known = (labels >= 0)[:, :, None, :].to(outputs.dtype)
    target = (labels == 1)[:, :, None, :].to(outputs.dtype).expand_as(outputs)
    losses = torch.nn.functional.binary_cross_entropy_with_logits(outputs, target, reduction="none")
    return (losses * is_known).sum(dim=(1, 3)) / is_known.sum(dim=(1, 3)).clamp(min=1)


class AdamW:
    """AdamW as in `torch.optim`, with a learning rate and a weight decay of its own for each grid point.

    Args:
        weights: Tensors of shape (n_seeds, n_inputs, n_points, n_outputs), which are changed in place.
        learning_rates: Learning rate of each grid point, in the order of the third axis of the weights.
        weight_decays: Weight decay of each grid point.
    """

    beta1, beta2, epsilon = 0.9, 0.999, 1e-8

    def __init__(self, weights: list[torch.Tensor], learning_rates: list[float], weight_decays: list[float]) -> None:
        self.weights, self.n_steps = weights, 0
        self._first_moments = [torch.zeros_like(weight) for weight in weights]
        self._second_moments = [torch.zeros_like(weight) for weight in weights]
        self._learning_rates = [self._per_point(weight, learning_rates) for weight in weights]
        factors = [1 - rate * decay for rate, decay in zip(learning_rates, weight_decays, strict=True)]
        self._decay_factors = [self._per_point(weight, factors) for weight in weights]
        self._has_decay = any(weight_decays)

    @staticmethod
    def _per_point(weight: torch.Tensor, values: list[float]) -> torch.Tensor:
        # Materialised along the outputs, so that one long inner loop covers grid points and outputs together.
        column = torch.tensor(values, dtype=weight.dtype, device=weight.device)[:, None]
        return column.expand(-1, weight.shape[3]).contiguous()

    @torch.no_grad()
    def step(self, gradients: list[torch.Tensor]) -> None:
        """Update the weights by one step with `gradients`, which have the shapes of the weights."""
        self.n_steps += 1
        correction1, correction2 = 1 - self.beta1**self.n_steps, 1 - self.beta2**self.n_steps
        for i, (weight, gradient) in enumerate(zip(self.weights, gradients, strict=True)):
            first = self._first_moments[i].lerp_(gradient, 1 - self.beta1)
            second = self._second_moments[i].mul_(self.beta2).addcmul_(gradient, gradient, value=1 - self.beta2)
            # Scaling epsilon in place of the second moment saves one pass over the weights compared with torch.optim.
            change = second.sqrt().add_(self.epsilon * correction2**0.5)
            torch.div(first, change, out=change).mul_(self._learning_rates[i])
            if self._has_decay:
                weight.mul_(self._decay_factors[i])
            weight.sub_(change, alpha=correction2**0.5 / correction1)

    def keep_points(self, keep: torch.Tensor) -> None:
        """Continue with the grid points `keep` only, which are indices into the third axis of the weights."""
        for name in ("weights", "_first_moments", "_second_moments"):
            setattr(self, name, [value[:, :, keep].contiguous() for value in getattr(self, name)])
        self._learning_rates = [value[keep] for value in self._learning_rates]
        self._decay_factors = [value[keep] for value in self._decay_factors]
