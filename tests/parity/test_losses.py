"""Losses, sampling weights and the learning rate against values of the published code."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from ssondo.distill import losses, lr_schedule, sampler

GOLDEN = Path(__file__).parent / "data" / "golden"


@pytest.fixture(scope="module")
def values():
    return json.loads((GOLDEN / "values.json").read_text())


@pytest.fixture(scope="module")
def pair():
    return tuple(torch.from_numpy(np.load(GOLDEN / f"losses_{name}.npy")) for name in ("student", "teacher"))


@pytest.mark.parametrize("name", ["cosine", "mse", "l1"])
def test_loss_without_temperature_equals_published_value(name, values, pair):
    assert losses.build(name)(*pair).item() == pytest.approx(values["losses"][name], rel=1e-6)


@pytest.mark.parametrize("temperature", [0.1, 1.0, 4.0])
@pytest.mark.parametrize("name", ["kl", "contrastive", "real_contrastive"])
def test_loss_with_temperature_equals_published_value(name, temperature, values, pair):
    loss = losses.build(name, temperature=temperature)
    assert loss(*pair).item() == pytest.approx(values["losses"][f"{name} T={temperature}"], rel=2e-6)


@pytest.mark.parametrize("temperature", [0.1, 1.0, 4.0])
@pytest.mark.parametrize("name", ["contrastive_neg_clusters", "cluster_aware"])
def test_published_masking_equals_published_value(name, temperature, values, pair):
    loss = losses.build(name, temperature=temperature, masking="published")
    clusters = torch.tensor(values["losses_clusters"])
    assert loss(*pair, clusters).item() == pytest.approx(values["losses"][f"{name} T={temperature}"], rel=2e-6)


def test_cross_cluster_guidance_equals_published_value(values, pair):
    found = losses.build("cross_cluster_guidance")(*pair, torch.tensor(values["losses_clusters"])).item()
    # A mean of cosines that nearly cancel: the absolute error of float32 counts.
    assert found == pytest.approx(values["losses"]["cross_cluster_guidance"], abs=2e-8)


def test_hybrid_with_published_masking_equals_published_value(values, pair):
    loss = losses.build(
        "hybrid",
        temperature=0.1,
        alignment_weight=1.0,
        contrastive_weight=0.5,
        cross_cluster_weight=0.25,
        masking="published",
    )
    found = loss(*pair, torch.tensor(values["losses_clusters"])).item()
    assert found == pytest.approx(values["losses"]["hybrid T=0.1 weights 1,.5,.25"], rel=1e-6)


def test_learning_rate_factor_equals_published_one_over_200_epochs(values):
    factor = lr_schedule.lr_lambda("published", steps_per_epoch=833)
    first_steps = [factor(epoch * 833) for epoch in range(200)]
    last_steps = [factor(epoch * 833 + 832) for epoch in range(200)]
    np.testing.assert_allclose(first_steps, values["lr_multiplier_epochs_0_199"], atol=5e-9)
    assert last_steps == first_steps


def test_inverse_cluster_weights_equal_published_ones(values):
    golden = values["inverse_cluster_weights"]
    np.testing.assert_allclose(sampler.balanced_weights(np.array(golden["labels"])), golden["weights"])


def test_class_balanced_weights_equal_published_ones(values):
    golden = values["class_balanced_weights"]
    weights = sampler.class_balanced_weights(golden["labels"], golden["n_classes"], offset=golden["offset"])
    np.testing.assert_allclose(weights, golden["weights"], rtol=1e-6)
