"""Metrics of a step are read without waiting for the GPU."""

import numpy as np
import torch

from ssondo.distill.distributed import DistributedContext
from ssondo.distill.step_metrics import StepMetrics


def push(metrics, step):
    loss = torch.tensor(0.5 + step, device="cuda")
    components = {"first": loss / 3, "second": loss + 1}
    return metrics.push(step, loss, components, torch.tensor(2.0, device="cuda"), False, np.array([step]))


def test_metrics_are_pushed_while_the_gpu_is_busy():
    metrics = StepMetrics(DistributedContext(torch.device("cuda")))
    a = torch.randn(8192, 8192, device="cuda")
    assert push(metrics, 0) is None
    metrics.flush()
    torch.cuda.synchronize()
    for _ in range(60):
        a = a @ a
        a = a / a.norm()
    assert push(metrics, 1) is None
    assert metrics.device_is_busy()
    assert metrics.flush().components == {"first": 0.5, "second": 2.5}
