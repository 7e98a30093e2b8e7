import os
from pathlib import Path

import pytest
import torch

# Read when CUDA starts: else convolutions in float32 multiply in TF32, with ten bits after the point.
os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.gpu)
            if not torch.cuda.is_available():
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
