"""The interface of a loss, and the loss of the supervised baseline.

The losses of distillation are in the separate module `ssondo.distill.losses`, so that a change there
does not retrain the supervised baseline.

Losses are computed in float32 or float64 even under autocast, because squares, exponentials and sums
over thousands of dimensions exceed the range of float16.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssondo.distill.augment import Mix


class Loss(nn.Module):
    """Base class of losses that are a weighted mean of `per_clip`, over one target or the two of a mixed batch.

        loss = BinaryCrossEntropy()
        value = loss(student(log_mel), labels)
        value.backward()

    Attributes:
        needs_clusters: Whether the loss needs the cluster of each clip.
    """

    needs_clusters = False

    def __init__(self) -> None:
        # Without a signature of its own a loss would seem to accept the arguments of `nn.Module`, which are any.
        super().__init__()

    def per_clip(self, output: Tensor, target: Tensor, clusters: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the loss of each clip and its weight in the mean, both of shape (batch,)."""
        raise NotImplementedError

    def forward(self, output: Tensor, target: Tensor, clusters: Tensor | None = None, mix: Mix | None = None) -> Tensor:
        """Compute the loss of a batch, a scalar.

        Args:
            output: Outputs of the student, shape (batch, dim).
            target: Targets, shape (batch, dim).
            clusters: Cluster of each target, integers, shape (batch,); required by losses with `needs_clusters`.
            mix: How the student's input was mixed. The loss is then
                w * L(output, target) + (1 - w) * L(output, target[partner]) for each clip.
        """
        with torch.autocast(output.device.type, enabled=False):
            dtype = torch.promote_types(output.dtype, torch.float32)
            output, target = output.to(dtype), target.to(dtype)
            loss, weight = self.per_clip(output, target, clusters)
            if mix is None:
                return (weight * loss).sum() / weight.sum().clamp(min=1e-12)
            partners = None if clusters is None else clusters[mix.partner]
            other_loss, other_weight = self.per_clip(output, target[mix.partner], partners)
            weight = weight * mix.weight
            other_weight = other_weight * (1 - mix.weight)
            total = (weight + other_weight).sum().clamp(min=1e-12)
            return (weight * loss + other_weight * other_loss).sum() / total

    def with_components(
        self, output: Tensor, target: Tensor, clusters: Tensor | None = None, mix: Mix | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the loss of a batch and its components.

        Returns:
            The loss, a scalar, and the components of which it is a weighted sum, by name: scalars without
            their weights and without gradients. A loss that is not a sum has no components.
        """
        return self(output, target, clusters, mix), {}


class BinaryCrossEntropy(Loss):
    """Binary cross-entropy of logits and multi-hot labels, mean over clips and classes: the supervised baseline."""

    def per_clip(self, output: Tensor, target: Tensor, clusters: Tensor | None) -> tuple[Tensor, Tensor]:
        """See `Loss`."""
        loss = F.binary_cross_entropy_with_logits(output, target, reduction="none").mean(dim=1)
        return loss, torch.ones_like(loss)
