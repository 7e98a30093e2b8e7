"""Recomputation of the statistics of batch normalisation."""

import pytest
import torch
from small_students import SMALL, WINDOW, noise, small
from torch import nn

from ssondo.distill.update_bn import update_bn
from ssondo.students.student import Student


def test_statistics_are_the_plain_average_over_batches():
    model = nn.Sequential(nn.Dropout(0.9), nn.BatchNorm1d(3, momentum=0.01))
    batches = [2 + 3 * noise(50, 3, seed=i) for i in range(4)]
    model.train()
    model[1].eval()
    update_bn(model, batches)
    norm = model[1]
    torch.testing.assert_close(norm.running_mean, torch.stack([b.mean(0) for b in batches]).mean(0))
    torch.testing.assert_close(norm.running_var, torch.stack([b.var(0) for b in batches]).mean(0))
    assert norm.momentum == 0.01
    assert (model.training, model[0].training, norm.training) == (True, True, False)


@torch.no_grad()
def _offset(student: Student, log_mel: torch.Tensor) -> float:
    """Mean absolute channel mean after batch normalisation, in the layer where it is largest."""
    means = []
    norms = [module for module in student.modules() if isinstance(module, nn.BatchNorm2d)]
    hooks = [
        norm.register_forward_hook(
            lambda norm, _args, out: means.append((out.mean((0, 2, 3)) - norm.bias).abs().mean())
        )
        for norm in norms
    ]
    student(log_mel)
    for hook in hooks:
        hook.remove()
    assert len(means) == len(norms)
    return max(means).item()


@pytest.mark.parametrize("name", SMALL)
def test_student_with_recomputed_statistics_normalises_these_clips(name):
    student = small(name)
    log_mel = student.log_mel(noise(6, WINDOW, seed=4))
    assert _offset(student, log_mel) > 0.5
    update_bn(student, [log_mel])
    # Not exactly 0, because the statistics contain the unbiased variance.
    assert _offset(student, log_mel) < 0.1
