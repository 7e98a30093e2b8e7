"""Numbers of a step are read without a wait for the GPU."""

import numpy as np
import torch

from ssondo.distill.distributed import DistributedContext
from ssondo.distill.step_metrics import StepMetrics


def pushed(readings, step):
    loss = torch.tensor(0.5 + step, device="cuda")
    parts = {"first": loss / 3, "second": loss + 1}
    return readings.push(step, loss, parts, torch.tensor(2.0, device="cuda"), False, np.array([step]))


def test_parts_are_taken_while_the_gpu_still_works():
    readings = StepMetrics(DistributedContext(torch.device("cuda")))
    a = torch.randn(8192, 8192, device="cuda")
    assert pushed(readings, 0) is None
    readings.flush()
    torch.cuda.synchronize()
    for _ in range(60):
        a = a @ a
        a = a / a.norm()
    assert pushed(readings, 1) is None
    assert readings.device_is_busy()
    assert readings.flush().parts == {"first": 0.5, "second": 2.5}
