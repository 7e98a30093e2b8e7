import math

import numpy as np
import pytest
import torch

from ssondo.distill import LOSSES, losses
from ssondo.distill.augment import Mix, draw_mix, mixup
from ssondo.distill.base_loss import BinaryCrossEntropy
from ssondo.errors import SsondoError

CONTRASTIVE = [
    "contrastive",
    "real_contrastive",
    "contrastive_neg_clusters",
    "cluster_aware",
    "cross_cluster_guidance",
    "hybrid",
]
CLUSTERS = torch.tensor([0, 0, 1, 1, 1, 2, 3])


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(7)
    return tuple(torch.randn(7, 16, generator=generator, dtype=torch.float64) for _ in range(2))


def naive_similarities(output, target, temperature):
    unit = [x.numpy() / np.linalg.norm(x.numpy(), axis=1, keepdims=True) for x in (output, target)]
    return unit[0] @ unit[1].T / temperature


def test_neg_clusters_sums_over_clips_of_other_clusters_only(pair):
    s = naive_similarities(*pair, 0.5)
    c = CLUSTERS.numpy()
    expected = []
    for i in range(7):
        negatives = sum(math.exp(s[i, j]) for j in range(7) if c[j] != c[i])
        expected.append(-math.log(math.exp(s[i, i]) / (math.exp(s[i, i]) + negatives)))
    found = losses.build("contrastive_neg_clusters", temperature=0.5)(*pair, CLUSTERS)
    assert found.item() == pytest.approx(np.mean(expected), rel=1e-12)


def test_cluster_aware_excludes_clips_that_are_alone_in_their_cluster(pair):
    s = naive_similarities(*pair, 0.5)
    c = CLUSTERS.numpy()
    expected = []
    for scores in (s, s.T):
        for i in range(5):  # clips 5 and 6 are alone in their clusters
            positives = sum(math.exp(scores[i, j]) for j in range(7) if c[j] == c[i] and j != i)
            negatives = sum(math.exp(scores[i, j]) for j in range(7) if c[j] != c[i])
            expected.append(-math.log(positives / (positives + negatives)))
    found = losses.build("cluster_aware", temperature=0.5)(*pair, CLUSTERS)
    assert found.item() == pytest.approx(np.mean(expected), rel=1e-12)


def test_real_contrastive_has_no_positive_in_its_denominator():
    output = target = torch.eye(3)
    # Unit vectors at right angles: positive 1 / T = 2, two negatives of 0.
    assert losses.build("real_contrastive", temperature=0.5)(output, target).item() == pytest.approx(math.log(2) - 2)


@pytest.mark.parametrize("name", CONTRASTIVE)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_contrastive_loss_is_finite_in_16_bit(name, dtype, pair):
    options = {} if name == "cross_cluster_guidance" else {"temperature": 0.01}
    # exp(1 / 0.01) is far outside float16 and float32.
    output = pair[1].to(dtype).requires_grad_()
    loss = losses.build(name, **options)(output, 100 * pair[1].to(dtype), CLUSTERS)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(output.grad).all()


@pytest.mark.parametrize("name", CONTRASTIVE)
@pytest.mark.parametrize("clusters", [torch.zeros(7, dtype=torch.int64), torch.arange(7)], ids=["one", "all differ"])
def test_contrastive_loss_is_finite_for_any_clusters_of_a_batch(name, clusters, pair):
    output = pair[0].float().requires_grad_()
    loss = losses.build(name)(output, pair[1].float(), clusters)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(output.grad).all()


@pytest.mark.parametrize("name", CONTRASTIVE)
@pytest.mark.parametrize("masking", losses.MASKINGS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_mixed_batch_of_one_cluster_in_16_bit_has_a_finite_loss(name, masking, dtype, pair):
    output = (1000 * pair[0]).to(dtype).requires_grad_()
    mix = Mix(torch.full((7,), 0.7), torch.tensor([1, 2, 3, 4, 5, 6, 0]))
    loss = losses.build(name, **losses.supported_options(name, temperature=0.01, masking=masking))
    value = loss(output, (1000 * pair[1]).to(dtype), torch.zeros(7, dtype=torch.int64), mix)
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(output.grad).all()


@pytest.mark.parametrize("name", ["contrastive_neg_clusters", "cluster_aware"])
def test_loss_and_gradient_of_a_batch_of_one_cluster_are_zero(name, pair):
    output = pair[0].requires_grad_()
    loss = losses.build(name)(output, pair[1], torch.zeros(7, dtype=torch.int64))
    loss.backward()
    assert loss.item() == 0
    assert (output.grad == 0).all()


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "l1"])
def test_gradient_agrees_with_finite_differences(name, pair):
    loss = losses.build(name)
    mix = Mix(torch.full((7,), 0.7, dtype=torch.float64), torch.tensor([1, 2, 3, 4, 5, 6, 0]))
    output = pair[0].requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss(x, pair[1], CLUSTERS), (output,))
    assert torch.autograd.gradcheck(lambda x: loss(x, pair[1], CLUSTERS, mix), (output,))


def test_autocast_does_not_change_a_loss(pair):
    output, target = (x.float() for x in pair)
    exact = losses.build("contrastive")(output, target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert losses.build("contrastive")(output, target).item() == exact.item()


def test_mixed_loss_weighs_both_targets_clip_by_clip(pair):
    output, target = pair
    weight = torch.tensor([1.0, 0.5, 0.9, 0.6, 0.7, 0.8, 0.55], dtype=torch.float64)
    partner = torch.tensor([3, 0, 1, 2, 6, 5, 4])
    squares = (output - target).square().mean(1), (output - target[partner]).square().mean(1)
    expected = sum(w * a + (1 - w) * b for w, a, b in zip(weight, *squares, strict=True)) / 7
    found = losses.build("mse")(output, target, None, Mix(weight, partner))
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)


def test_mixed_loss_uses_the_cluster_of_the_partner(pair):
    output, target = pair
    partner = torch.tensor([5, 6, 0, 1, 2, 3, 4])
    partner_only = Mix(torch.zeros(7, dtype=torch.float64), partner)
    loss = losses.build("contrastive_neg_clusters")
    expected = loss(output, target[partner], CLUSTERS[partner])
    assert loss(output, target, CLUSTERS, partner_only).item() == pytest.approx(expected.item(), rel=1e-12)


def test_mixup_of_a_batch_by_hand():
    mix = Mix(torch.tensor([0.75, 1.0]), torch.tensor([1, 0]))
    mixed = mixup(torch.tensor([[[4.0, 8.0]], [[0.0, 4.0]]]), mix)
    assert mixed.tolist() == [[[3.0, 7.0]], [[0.0, 4.0]]]


def test_mixup_weights_are_at_least_one_half_and_have_the_mean_of_the_beta_distribution():
    mix = draw_mix(20_000, 0.3, np.random.default_rng(0))
    assert mix.weight.min() >= 0.5
    assert sorted(mix.partner.tolist()) == list(range(20_000))
    # E max(w, 1 - w) of Beta(0.3, 0.3), by numerical integration of its density.
    from scipy import integrate, stats

    expected, _ = integrate.quad(lambda w: 2 * w * stats.beta(0.3, 0.3).pdf(w), 0.5, 1)
    assert mix.weight.mean().item() == pytest.approx(expected, abs=0.005)


def gradient_of(loss, output):
    output = output.clone().requires_grad_()
    loss(output).backward()
    return output.grad


def test_components_of_the_hybrid_loss_are_its_losses_without_weights(pair):
    loss = losses.Hybrid(0.5, 1.0, 0.5, 0.25)
    alone = {
        "alignment": losses.Cosine(),
        "contrastive": losses.SupervisedContrastive(0.5),
        "cross_cluster": losses.CrossClusterGuidance(),
    }
    total, components = loss.with_components(*pair, CLUSTERS)
    assert {name: part.item() for name, part in components.items()} == {
        name: part(*pair, CLUSTERS).item() for name, part in alone.items()
    }
    assert not any(part.requires_grad for part in components.values())
    assert total.item() == loss(*pair, CLUSTERS).item()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_components_do_not_change_the_gradient(pair, dtype):
    output, target = (x.to(dtype) for x in pair)
    labels = (target[:, :5] > 0).to(dtype)
    weights = (1.0, 0.5, 0.25)
    hybrid, cross_entropy = losses.Hybrid(0.5, *weights), BinaryCrossEntropy()
    combined = losses.Combined(hybrid, 0.25, dim=16)

    def plain_hybrid(x):
        terms = [w * part(x, target, CLUSTERS) for w, part in zip(weights, hybrid.components, strict=True)]
        return torch.stack(terms).sum()

    def plain_combined(x):
        return torch.stack([0.25 * cross_entropy(x[:, :5], labels), (1 - 0.25) * plain_hybrid(x)]).sum()

    pairs = [
        (plain_hybrid, lambda x: hybrid.with_components(x, target, CLUSTERS)[0]),
        (plain_combined, lambda x: combined.with_components(*with_classes(x, target, labels), CLUSTERS)[0]),
    ]
    for plain, with_components in pairs:
        assert torch.equal(gradient_of(plain, output), gradient_of(with_components, output))


def with_classes(output, target, labels):
    """Output and target of a combined loss; the logits are the first values of the embedding."""
    return torch.cat([output, output[:, : labels.shape[1]]], dim=1), torch.cat([target, labels], dim=1)


def test_components_of_a_combined_loss_include_those_of_its_distillation_loss(pair):
    outputs = with_classes(*pair, (pair[1][:, :5] > 0).double())
    for weight, names in ((0.0, {"distillation"}), (0.5, {"prediction", "distillation"}), (1.0, {"prediction"})):
        total, components = losses.Combined(losses.Cosine(), weight, dim=16).with_components(*outputs)
        assert set(components) == names
        weights = {"prediction": weight, "distillation": 1 - weight}
        assert total.item() == pytest.approx(sum(weights[name] * part.item() for name, part in components.items()))
    _, components = losses.Combined(losses.Hybrid(0.5), 0.5, dim=16).with_components(*outputs, CLUSTERS)
    assert list(components) == ["prediction", "distillation", "alignment", "contrastive", "cross_cluster"]


@pytest.mark.parametrize("name", sorted(set(LOSSES) - {"hybrid"}))
def test_loss_that_is_not_a_sum_has_no_components(name, pair):
    loss = losses.build(name)
    total, components = loss.with_components(*pair, CLUSTERS)
    assert components == {}
    assert total.item() == loss(*pair, CLUSTERS).item()


def test_binary_cross_entropy_equals_torch(pair):
    labels = (pair[1] > 0.5).double()
    expected = torch.nn.BCEWithLogitsLoss()(pair[0], labels)
    assert BinaryCrossEntropy()(pair[0], labels).item() == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize("weight", [0.0, 0.25, 1.0])
def test_combined_loss_weighs_prediction_and_distillation(weight, pair):
    output, teacher = pair
    labels = (teacher > 0).double()
    combined = losses.Combined(losses.Cosine(), weight, dim=16)
    prediction = torch.nn.BCEWithLogitsLoss()(output, labels)
    distillation = (1 - torch.nn.functional.cosine_similarity(output, teacher)).mean()
    found = combined(*with_classes(output, teacher, labels))
    assert found.item() == pytest.approx((weight * prediction + (1 - weight) * distillation).item(), rel=1e-9)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: losses.build("clap"), "loss 'clap' does not exist; choose one of cosine, mse"),
        (
            lambda: losses.build("cosine", temperature=1.0),
            "'cosine' has no option 'temperature'; it has no options",
        ),
        (
            lambda: losses.build("hybrid", weight=1.0),
            "'hybrid' has no option 'weight'; its options are temperature, ",
        ),
        (lambda: losses.build("kl", temperature=0.0), "temperature is 0.0; it must be above 0"),
        (lambda: losses.build("cluster_aware", masking="soft"), "masking is 'soft'; it must be one of correct, publ"),
        (lambda: losses.build("hybrid")(torch.eye(2), torch.eye(2)), "none were given; set n_clusters above 0"),
    ],
)
def test_invalid_loss_or_option_is_refused_with_a_hint(call, text):
    with pytest.raises(SsondoError, match=text):
        call()
