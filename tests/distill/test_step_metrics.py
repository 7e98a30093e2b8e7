"""Numbers of each step: read one step late, whatever they are, and without a wait for the device."""

import numpy as np
import pytest
import torch

from ssondo.distill.distributed import DistributedContext
from ssondo.distill.step_metrics import StepMetrics


def pushed(readings, step, device="cpu"):
    loss = torch.tensor(0.5 + step, device=device, requires_grad=True)
    parts = {"first": loss.detach() / 3, "second": torch.tensor(1.0 + step, device=device)}
    return readings.push(step, loss, parts, torch.tensor(2.0, device=device), False, np.array([step]))


def test_numbers_of_a_step_come_with_the_next_one_each_part_by_its_name():
    readings = StepMetrics(DistributedContext(torch.device("cpu")))
    assert pushed(readings, 0) is None
    first, second = pushed(readings, 1), readings.flush()
    assert (first.step, first.loss, first.norm, first.clips.tolist()) == (0, 0.5, 2.0, [0])
    assert first.parts == {"first": pytest.approx(0.5 / 3), "second": 1.0}
    assert second.parts == {"first": pytest.approx(0.5), "second": 2.0}
    assert readings.flush() is None


def test_a_loss_without_parts_has_none_in_its_reading():
    readings = StepMetrics(DistributedContext(torch.device("cpu")))
    readings.push(0, torch.tensor(1.0), {}, torch.tensor(1.0), False, np.array([0]))
    assert readings.flush().parts == {}
