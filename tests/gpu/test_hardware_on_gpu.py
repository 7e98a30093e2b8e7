"""The description of a GPU in the provenance."""

import re

import torch

from ssondo.system.hardware import describe_machine


def test_this_gpu_is_described():
    found = describe_machine("cuda:0")
    assert found["gpu"] == torch.cuda.get_device_name()
    assert found["gpu_memory"].endswith(" GiB")
    assert found["cuda"] == torch.version.cuda
    assert found["torch"] == torch.__version__
    assert re.fullmatch(r"[\d.]+", found["driver"])
