import numpy as np
import pytest
import torch

from ssondo.distill import sampler
from ssondo.distill.distributed import DistributedContext

WEIGHTS = np.array([0.0, 0.5, 0.0, 0.25, 0.25, 0.0])


def test_every_cluster_is_equally_likely():
    clusters = np.array([0, 0, 0, 0, 3, 5, 5])
    weights = sampler.balanced_weights(clusters)
    np.testing.assert_allclose(np.bincount(clusters, weights)[[0, 3, 5]], 1 / 3)


def test_uniform_weights_sum_to_one():
    assert sampler.uniform_weights(4).tolist() == [0.25] * 4


def test_draws_follow_the_weights():
    sampler_ = sampler.Sampler(WEIGHTS, seed=3, batch_size=100)
    rows = np.concatenate([sampler_.draw(0, step) for step in range(400)])
    fraction = np.bincount(rows, minlength=6) / len(rows)
    # 0.01 is four standard errors of a fraction of 1/2 in 40,000 draws.
    np.testing.assert_allclose(fraction, WEIGHTS, atol=0.01)
    assert not fraction[[0, 2, 5]].any()


def test_draw_does_not_depend_on_earlier_draws():
    first = sampler.Sampler(WEIGHTS, seed=3, batch_size=8)
    second = sampler.Sampler(WEIGHTS, seed=3, batch_size=8)
    for step in range(5):
        first.draw(0, step)
    assert first.draw(1, 2).tolist() == second.draw(1, 2).tolist()


@pytest.mark.parametrize("other", [{"seed": 4}, {"epoch": 1}, {"step": 1}])
def test_draw_depends_on_seed_epoch_and_step(other):
    def draw(seed=3, epoch=0, step=0):
        return sampler.Sampler(np.ones(1000), seed=seed, batch_size=50).draw(epoch, step).tolist()

    assert draw() != draw(**other)


@pytest.mark.parametrize("world_size", [1, 2, 13])
def test_slices_of_all_processes_are_the_whole_batch(world_size):
    rows = sampler.Sampler(np.ones(1000), seed=0, batch_size=26).draw(2, 5)
    contexts = [DistributedContext(torch.device("cpu"), rank, world_size) for rank in range(world_size)]
    slices = [context.local_slice(rows) for context in contexts]
    assert np.concatenate(slices).tolist() == rows.tolist()
    assert {len(own) for own in slices} == {26 // world_size}


def test_clip_without_labels_is_never_drawn():
    weights = sampler.class_balanced_weights([[0], [], [1, 0]], n_classes=2, offset=0)
    assert weights.tolist() == [500.0, 0.0, 1500.0]
    rows = sampler.Sampler(weights, seed=0, batch_size=1000).draw(0, 0)
    assert 1 not in rows


@pytest.mark.parametrize(
    "call",
    [
        lambda: sampler.uniform_weights(0),
        lambda: sampler.Sampler(np.zeros(3), seed=0, batch_size=1),
        lambda: sampler.Sampler(np.array([1.0, -1.0]), seed=0, batch_size=1),
        lambda: sampler.Sampler(np.array([1.0, np.nan]), seed=0, batch_size=1),
    ],
)
def test_invalid_weights_are_refused(call):
    with pytest.raises(ValueError):
        call()
