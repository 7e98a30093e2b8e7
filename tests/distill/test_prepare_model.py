"""Layers that see the whole batch, compared with torch's layers on the undivided batch."""

import copy
from collections.abc import Callable

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from torch import nn

from ssondo.distill.distributed import DistributedContext
from ssondo.distill.prepare_model import CpuSyncBatchNorm, WholeBatchDropout, convert_sync_batchnorm

CPU = torch.device("cpu")


def batch(*shape):
    generator = torch.Generator().manual_seed(3)
    return 5 + 3 * torch.randn(*shape, generator=generator, dtype=torch.float32)


def norm(momentum=0.1):
    layer = nn.BatchNorm2d(4, eps=0.001, momentum=momentum)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([1.0, 2.0, -1.0, 0.5]))
        layer.bias.copy_(torch.tensor([0.0, 1.0, 2.0, 3.0]))
    return layer


def _process(rank: int, function: Callable, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    torch.save(function(DistributedContext(CPU, rank, 2)), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def on_two_processes(function, folder):
    multiprocessing.spawn(_process, (function, str(folder)), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def normalise(context):
    results = {}
    for momentum in (0.1, None):
        layer = convert_sync_batchnorm(nn.Sequential(norm(momentum)), context)
        own = batch(6, 4, 3, 5).chunk(2)[context.rank].requires_grad_()
        for _ in range(2):
            out = layer(own)
        weights = batch(6, 4, 3, 5).flip(0).chunk(2)[context.rank]
        (out.sin() * weights).sum().backward()
        results[str(momentum)] = {
            "kind": type(layer[0]).__name__,
            "out": out.detach(),
            "input": own.grad,
            "scale": layer[0].weight.grad,
            "shift": layer[0].bias.grad,
            "mean": layer[0].running_mean,
            "variance": layer[0].running_var,
            "n": layer[0].num_batches_tracked,
            "evaluated": layer.eval()(own).detach(),
        }
    return results


@pytest.mark.slow
def test_batch_norm_of_two_processes_equals_torch_on_the_whole_batch(tmp_path):
    halves = on_two_processes(normalise, tmp_path)
    for momentum in (0.1, None):
        layer, whole = norm(momentum), batch(6, 4, 3, 5).requires_grad_()
        for _ in range(2):
            out = layer(whole)
        (out.sin() * batch(6, 4, 3, 5).flip(0)).sum().backward()
        left, right = (half[str(momentum)] for half in halves)
        assert left["kind"] == "CpuSyncBatchNorm"
        close = {"rtol": 1e-4, "atol": 1e-5}
        torch.testing.assert_close(torch.cat([left["out"], right["out"]]), out.detach(), **close)
        torch.testing.assert_close(torch.cat([left["input"], right["input"]]), whole.grad, **close)
        torch.testing.assert_close(left["scale"] + right["scale"], layer.weight.grad, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(left["shift"] + right["shift"], layer.bias.grad, rtol=1e-4, atol=1e-4)
        for side in (left, right):
            torch.testing.assert_close(side["mean"], layer.running_mean, **close)
            torch.testing.assert_close(side["variance"], layer.running_var, **close)
            assert side["n"] == 2
        evaluated = torch.cat([left["evaluated"], right["evaluated"]])
        torch.testing.assert_close(evaluated, layer.eval()(whole).detach(), **close)


def test_dropout_masks_of_all_processes_are_those_of_the_whole_batch():
    whole = torch.ones(8, 5, 3)
    torch.manual_seed(0)
    expected = WholeBatchDropout(0.3, DistributedContext(CPU))(whole)
    slices = []
    for rank in range(4):
        torch.manual_seed(0)
        slices.append(WholeBatchDropout(0.3, DistributedContext(CPU, rank, 4))(whole[:2]))
    assert torch.equal(torch.cat(slices), expected)
    assert expected.unique().tolist() == pytest.approx([0, 1 / 0.7])


def test_dropout_sets_a_fraction_to_zero_and_preserves_the_mean():
    torch.manual_seed(0)
    output = WholeBatchDropout(0.2, DistributedContext(CPU))(torch.ones(1000, 100))
    assert (output == 0).double().mean() == pytest.approx(0.2, abs=0.005)
    assert output.mean() == pytest.approx(1, abs=0.01)
    layer = WholeBatchDropout(0.2, DistributedContext(CPU)).eval()
    assert torch.equal(layer(torch.ones(3)), torch.ones(3))


def test_conversion_preserves_the_names_of_weights_and_one_process_keeps_torch_s_batch_norm():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), norm(), nn.Sequential(nn.Dropout(0.5)))
    before = copy.deepcopy(model.state_dict())
    convert_sync_batchnorm(model, DistributedContext(CPU))
    assert type(model[1]) is nn.BatchNorm2d
    assert type(model[2][0]) is WholeBatchDropout
    convert_sync_batchnorm(model, DistributedContext(CPU, 0, 2))
    assert type(model[1]) is CpuSyncBatchNorm
    assert list(model.state_dict()) == list(before)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
