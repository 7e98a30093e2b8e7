"""What every training minimises: the form of a loss, and the loss on labels.

The losses of distillation stand in `ssondo.distill.losses`, apart: a new one there must not train the
supervised baseline again.

Every loss is computed in float32 or better, whatever autocast is on, because squares, exponentials
and sums over thousands of dimensions leave the range of float16.
"""

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssondo.distill.mixup import Mix


class Criterion(Protocol):
    """What the training loop asks of a loss."""

    def with_components(
        self, output: Tensor, target: Tensor, clusters: Tensor | None = None, mix: Mix | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch, a scalar, and by name the parts that it is a weighted sum of.

        A part is a scalar without its weight and without a gradient; a loss that is no sum has none.
        """


class Loss(nn.Module):
    """Base class: a weighted mean of `per_clip`, over one target or over the two of a mixed batch."""

    needs_clusters = False

    def per_clip(self, output: Tensor, target: Tensor, clusters: Tensor | None) -> tuple[Tensor, Tensor]:
        """Loss of each clip and the weight it has in the mean, both of shape (batch,)."""
        raise NotImplementedError

    def forward(self, output: Tensor, target: Tensor, clusters: Tensor | None = None, mix: Mix | None = None) -> Tensor:
        """The loss of a batch, a scalar.

        Args:
            output: of the student, shape (batch, dim).
            target: what it should be, shape (batch, dim).
            clusters: cluster of each target, shape (batch,), integers; some losses need it.
            mix: how the student's input was mixed; the loss is then
                w * L(output, target) + (1 - w) * L(output, target[partner]), clip by clip.
        """
        with torch.autocast(output.device.type, enabled=False):
            exact = torch.promote_types(output.dtype, torch.float32)
            output, target = output.to(exact), target.to(exact)
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
        """See `Criterion`."""
        return self(output, target, clusters, mix), {}


class BinaryCrossEntropy(Loss):
    """Binary cross-entropy of logits against multi-hot labels, mean over clips and classes: the supervised baseline.

    Shapes: output and target (batch, n_classes).

        loss = BinaryCrossEntropy()
        value = loss(student(log_mel), labels)
        value.backward()
    """

    def per_clip(self, output: Tensor, target: Tensor, clusters: Tensor | None) -> tuple[Tensor, Tensor]:
        """See `Loss`."""
        loss = F.binary_cross_entropy_with_logits(output, target, reduction="none").mean(dim=1)
        return loss, torch.ones_like(loss)
