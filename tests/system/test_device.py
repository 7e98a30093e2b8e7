"""The choice of device and of arithmetic precision."""

import pytest
import torch

from ssondo.errors import SsondoError
from ssondo.system.device import amp_dtype, check_precision, disable_tf32, resolve_device


@pytest.mark.parametrize(("n_gpus", "expected"), [(0, "cpu"), (1, "cuda")])
def test_auto_is_a_gpu_if_there_is_one(n_gpus, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: n_gpus > 0)
    assert resolve_device("auto") == torch.device(expected)


def test_a_torch_device_is_returned_as_it_is():
    assert resolve_device(torch.device("cpu")) == torch.device("cpu")


def test_cuda_without_a_gpu_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SsondoError, match=r"device 'cuda:1' cannot be used \(this machine has no usable GPU\)"):
        resolve_device("cuda:1")


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "xpu"])
def test_an_unusable_device_is_refused_with_the_reason_in_one_line(device, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(SsondoError, match=rf"^device '{device}' cannot be used \(.+\); use 'auto' or 'cpu'$"):
        resolve_device(device)


@pytest.mark.parametrize(
    ("precision", "native_bf16", "device", "expected"),
    [
        ("auto", True, "cuda", torch.bfloat16),
        ("auto", False, "cuda", torch.float16),
        ("auto", True, "cpu", None),
        ("bf16", False, "cuda:1", torch.bfloat16),
        ("fp16", True, "cpu", torch.float16),
        ("float32", True, "cuda", None),
    ],
)
def test_amp_dtype(precision, native_bf16, device, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native_bf16)
    assert amp_dtype(precision, torch.device(device)) == expected


def test_an_unknown_precision_is_refused():
    check_precision("bf16")
    with pytest.raises(SsondoError, match="precision 'fp8' is unknown; use one of auto, float32, bf16, fp16"):
        check_precision("fp8")


def test_tf32_is_restored_after_the_block_even_if_it_raises(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    with pytest.raises(KeyError), disable_tf32():
        assert not torch.backends.cudnn.allow_tf32
        raise KeyError
    assert torch.backends.cudnn.allow_tf32
