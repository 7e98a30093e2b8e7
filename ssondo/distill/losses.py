"""Losses between the output of a student and the embedding of its teacher.

All have the same interface:

    loss = build("cosine")
    mapped = student(log_mel)             # (batch, dim)
    loss(mapped, teacher).backward()      # teacher: (batch, dim)
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssondo.distill import LOSSES
from ssondo.distill.augment import Mix
from ssondo.distill.base_loss import BinaryCrossEntropy, Loss
from ssondo.errors import SsondoError
from ssondo.system.registry import check_options, look_up, parameters_of

MASKINGS = ("correct", "published")


class Cosine(Loss):
    """Mean of 1 - cos(output, target): the loss that the paper uses (S-SONDO, section 2.2)."""

    def per_clip(self, output: Tensor, target: Tensor, clusters: Tensor | None) -> tuple[Tensor, Tensor]:
        """See `Loss`."""
        cosine = (F.normalize(output, dim=1) * F.normalize(target, dim=1)).sum(dim=1)
        return 1 - cosine, torch.ones_like(cosine)


class MeanSquaredError(Loss):
    """Mean of the squared difference over all elements (Hinton et al., 2015; Romero et al., 2015)."""

    def per_clip(self, output: Tensor, target: Tensor, clusters: Tensor | None) -> tuple[Tensor, Tensor]:
        """See `Loss`."""
        loss = (output - target).square().mean(dim=1)
        return loss, torch.ones_like(loss)


class MeanAbsoluteError(Loss):
    """Mean of the absolute difference over all elements (the L1 loss of the S-SONDO ablation)."""

    def per_clip(self, output: Tensor, target: Tensor, clusters: Tensor | None) -> tuple[Tensor, Tensor]:
        """See `Loss`."""
        loss = (output - target).abs().mean(dim=1)
        return loss, torch.ones_like(loss)


class KullbackLeibler(Loss):
    """KL(softmax(target / T) || softmax(output / T)) * T^2, mean over all elements (Hinton et al., 2015).

    The mean is over elements and not over clips, as in the published code.
    """

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        self.temperature = _positive("temperature", temperature)

    def per_clip(self, output: Tensor, target: Tensor, clusters: Tensor | None) -> tuple[Tensor, Tensor]:
        """See `Loss`."""
        log_student = F.log_softmax(output / self.temperature, dim=1)
        log_teacher = F.log_softmax(target / self.temperature, dim=1)
        loss = (log_teacher.exp() * (log_teacher - log_student)).mean(dim=1) * self.temperature**2
        return loss, torch.ones_like(loss)


class Contrastive(Loss):
    """Symmetric cross-entropy over cosine similarities: the paper's 'CLAP' loss.

    After Radford et al., 2021, and Wu et al., 2023. Each clip is classified as its own target among
    those of the batch, and each target as its own clip.
    """

    def __init__(self, temperature: float = 0.1) -> None:
        super().__init__()
        self.temperature = _positive("temperature", temperature)

    def per_clip(self, output: Tensor, target: Tensor, clusters: Tensor | None) -> tuple[Tensor, Tensor]:
        """See `Loss`."""
        logits = _similarities(output, target, self.temperature)
        own = torch.arange(len(logits), device=logits.device)
        forward = F.cross_entropy(logits, own, reduction="none")
        backward = F.cross_entropy(logits.T, own, reduction="none")
        return (forward + backward) / 2, torch.ones_like(forward)


class DecoupledContrastive(Contrastive):
    """Decoupled contrastive loss (Yeh et al., 2022), from student to teacher only.

    The positive is not part of the denominator. The loss of a batch of one clip, which has no
    negatives, is 0.
    """

    def per_clip(self, output: Tensor, target: Tensor, clusters: Tensor | None) -> tuple[Tensor, Tensor]:
        """See `Loss`."""
        logits = _similarities(output, target, self.temperature)
        others = ~torch.eye(len(logits), dtype=torch.bool, device=logits.device)
        negatives, counted = _log_sum(logits, others, "correct")
        return torch.where(counted, negatives - logits.diagonal(), 0.0), counted.to(logits.dtype)


class _ClusterContrastive(Loss):
    """Base class of contrastive losses that exclude clips by their clusters."""

    needs_clusters = True

    def __init__(self, temperature: float = 0.1, masking: str = "correct") -> None:
        super().__init__()
        if masking not in MASKINGS:
            raise SsondoError(f"masking is {masking!r}; it must be one of {', '.join(MASKINGS)}")
        self.temperature = _positive("temperature", temperature)
        self.masking = masking


class ContrastiveNegClusters(_ClusterContrastive):
    """InfoNCE with negatives from other clusters only (S-SONDO's cluster ablation).

    The loss of a clip is -log(e^p / (e^p + sum of e^n)), where p is the logit of its own target and n
    are those of the targets of other clusters. Clips without such negatives are excluded from the
    mean; the loss of a batch of one cluster is 0.

    `masking="published"` reproduces the published code, in which an excluded logit is multiplied by 0
    and therefore adds e^0 = 1 to the sum.
    """

    def per_clip(self, output: Tensor, target: Tensor, clusters: Tensor | None) -> tuple[Tensor, Tensor]:
        """See `Loss`."""
        logits = _similarities(output, target, self.temperature)
        other = ~_same_cluster(clusters)
        positive = logits.diagonal()
        negatives, _ = _log_sum(logits, other, self.masking)
        counted = other.any(dim=1)
        loss = torch.logaddexp(positive, negatives) - positive
        return torch.where(counted, loss, 0.0), counted.to(logits.dtype)


class SupervisedContrastive(_ClusterContrastive):
    """Supervised contrastive loss with clusters as labels (after Khosla et al., 2020), both directions.

    The loss of a clip is -log(P / (P + N)), where P is the sum of e^logit over the other clips of its
    cluster and N the sum over the clips of other clusters; its own target is in neither. Clips
    without positives or without negatives are excluded from the mean. `masking="published"` works as
    in `ContrastiveNegClusters`; no clip is excluded then, since every excluded logit adds 1.
    """

    def per_clip(self, output: Tensor, target: Tensor, clusters: Tensor | None) -> tuple[Tensor, Tensor]:
        """See `Loss`."""
        logits = _similarities(output, target, self.temperature)
        same = _same_cluster(clusters)
        others_of_cluster = same & ~torch.eye(len(same), dtype=torch.bool, device=same.device)
        directions = []
        for scores in (logits, logits.T):
            positives, has_positives = _log_sum(scores, others_of_cluster, self.masking)
            negatives, has_negatives = _log_sum(scores, ~same, self.masking)
            counted = has_positives & has_negatives  # equal in both directions, since the masks are symmetric
            directions.append(torch.where(counted, torch.logaddexp(positives, negatives) - positives, 0.0))
        return (directions[0] + directions[1]) / 2, counted.to(logits.dtype)


class CrossClusterGuidance(Loss):
    """Negative cosine between the student's and the teacher's centroid of a cluster, mean over clusters.

    Centroids are means of the unit vectors of the clips in the batch (a component of S-SONDO's hybrid
    loss).
    """

    needs_clusters = True

    def per_clip(self, output: Tensor, target: Tensor, clusters: Tensor | None) -> tuple[Tensor, Tensor]:
        """See `Loss`: each clip has the loss of its cluster and the weight 1 / size of the cluster."""
        same = _same_cluster(clusters).to(output.dtype)
        # The sum of the unit vectors of a cluster has the direction of their mean.
        student = F.normalize(same @ F.normalize(output, dim=1), dim=1)
        teacher = F.normalize(same @ F.normalize(target, dim=1), dim=1)
        return -(student * teacher).sum(dim=1), 1 / same.sum(dim=1)


class WeightedSum(Loss):
    """Base class of losses that are a weighted sum of other losses."""

    def forward(self, output: Tensor, target: Tensor, clusters: Tensor | None = None, mix: Mix | None = None) -> Tensor:
        """See `Loss`."""
        return self.with_components(output, target, clusters, mix)[0]


class Hybrid(WeightedSum):
    """Weighted sum of `Cosine`, `SupervisedContrastive` and `CrossClusterGuidance` (S-SONDO's cluster ablation)."""

    needs_clusters = True

    def __init__(
        self,
        temperature: float = 0.1,
        alignment_weight: float = 1.0,
        contrastive_weight: float = 0.5,
        cross_cluster_weight: float = 0.25,
        masking: str = "correct",
    ) -> None:
        super().__init__()
        self.components = nn.ModuleList([Cosine(), SupervisedContrastive(temperature, masking), CrossClusterGuidance()])
        self.weights = {
            "alignment": alignment_weight,
            "contrastive": contrastive_weight,
            "cross_cluster": cross_cluster_weight,
        }

    def with_components(
        self, output: Tensor, target: Tensor, clusters: Tensor | None = None, mix: Mix | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Loss`; the components are alignment, contrastive and cross_cluster."""
        terms, components = [], {}
        for (name, weight), component in zip(self.weights.items(), self.components, strict=True):
            value = component(output, target, clusters, mix)
            terms.append(weight * value)
            components[name] = value.detach()
        return torch.stack(terms).sum(), components


class Combined(WeightedSum):
    """`prediction_weight` * cross-entropy on labels + (1 - `prediction_weight`) * distillation (Hinton et al., 2015).

    The first `dim` values of output and target are an embedding, the others are logits and labels of classes. A
    weight of 0 is plain distillation, a weight of 1 the supervised baseline; a term of weight 0 is not computed.
    """

    def __init__(self, distillation: Loss, prediction_weight: float, dim: int) -> None:
        super().__init__()
        self.prediction = BinaryCrossEntropy()
        self.distillation = distillation
        self.prediction_weight = prediction_weight
        self.dim = dim

    def with_components(
        self, output: Tensor, target: Tensor, clusters: Tensor | None = None, mix: Mix | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Loss`; the components are prediction, distillation and the components of the latter."""
        (mapped, logits), (teacher, labels) = ((x[:, : self.dim], x[:, self.dim :]) for x in (output, target))
        terms, components = [], {}
        if self.prediction_weight > 0:
            prediction = self.prediction(logits, labels, None, mix)
            terms.append(self.prediction_weight * prediction)
            components["prediction"] = prediction.detach()
        if self.prediction_weight < 1:
            distillation, nested = self.distillation.with_components(mapped, teacher, clusters, mix)
            terms.append((1 - self.prediction_weight) * distillation)
            components |= {"distillation": distillation.detach(), **nested}
        return torch.stack(terms).sum(), components


def supported_options(name: str, **options: Any) -> dict[str, Any]:
    """Return those of `options` that the loss `name` has.

    Raises:
        SsondoError: If there is no such loss.
    """
    parameters = parameters_of(look_up("loss", name, LOSSES))
    return {key: value for key, value in options.items() if key in parameters}


def build(name: str, **options: Any) -> Loss:
    """Build a distillation loss.

    Args:
        name: A key of `ssondo.distill.LOSSES`.
        options: Options of that loss, e.g. `temperature`.

    Raises:
        SsondoError: If there is no such loss, or if it has no such option.
    """
    loss: type[Loss] = look_up("loss", name, LOSSES)
    check_options(f"loss {name!r}", options, parameters_of(loss))
    return loss(**options)


def _positive(name: str, value: float) -> float:
    if not value > 0:
        raise SsondoError(f"{name} is {value}; it must be above 0")
    return value


def _similarities(output: Tensor, target: Tensor, temperature: float) -> Tensor:
    """Return the cosine of each output (rows) and each target (columns), divided by the temperature."""
    return F.normalize(output, dim=1) @ F.normalize(target, dim=1).T / temperature


def _same_cluster(clusters: Tensor | None) -> Tensor:
    if clusters is None:
        raise SsondoError("this loss needs clusters, but none were given; set n_clusters above 0")
    return clusters[:, None] == clusters[None, :]


def _log_sum(logits: Tensor, kept: Tensor, masking: str) -> tuple[Tensor, Tensor]:
    """Return the log of the sum of e^logit over the kept entries of each row, and which rows have such entries."""
    if masking == "published":
        return torch.logsumexp(logits * kept, dim=1), torch.ones_like(kept[:, 0])
    any_kept = kept.any(dim=1)
    # A row without entries would give log(0), whose gradient is NaN even if the row is excluded afterwards.
    safe = kept | ~any_kept[:, None]
    return torch.logsumexp(logits.masked_fill(~safe, -torch.inf), dim=1), any_kept
