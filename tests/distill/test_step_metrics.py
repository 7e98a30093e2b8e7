"""Metrics of each step are delivered one step late."""

import numpy as np
import pytest
import torch

from ssondo.distill.distributed import DistributedContext
from ssondo.distill.step_metrics import StepMetrics


def push(metrics, step, device="cpu"):
    loss = torch.tensor(0.5 + step, device=device, requires_grad=True)
    components = {"first": loss.detach() / 3, "second": torch.tensor(1.0 + step, device=device)}
    return metrics.push(step, loss, components, torch.tensor(2.0, device=device), False, np.array([step]))


def test_metrics_of_a_step_are_returned_by_the_next_one_with_components_by_name():
    metrics = StepMetrics(DistributedContext(torch.device("cpu")))
    assert push(metrics, 0) is None
    first, second = push(metrics, 1), metrics.flush()
    assert (first.step, first.loss, first.gradient_norm, first.clips.tolist()) == (0, 0.5, 2.0, [0])
    assert first.components == {"first": pytest.approx(0.5 / 3), "second": 1.0}
    assert second.components == {"first": pytest.approx(0.5), "second": 2.0}
    assert metrics.flush() is None


def test_loss_without_components_has_none_in_its_result():
    metrics = StepMetrics(DistributedContext(torch.device("cpu")))
    metrics.push(0, torch.tensor(1.0), {}, torch.tensor(1.0), False, np.array([0]))
    assert metrics.flush().components == {}
