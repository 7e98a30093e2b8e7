"""Golden values of the published code; `data/` holds them and the keys of its checkpoints."""

import json
from typing import Any

import fill
import pytest
import torch
from torch import Tensor


@pytest.fixture(scope="session")
def golden_values() -> dict[str, Any]:
    return json.loads((fill.DATA / "golden" / "values.json").read_text())


@pytest.fixture(scope="session")
def student_waveforms() -> Tensor:
    """The two clips that the published students were run on: (2, 320000) at 32 kHz."""
    return torch.cat([fill.waveform(10, 32000, ""), fill.waveform(10, 32000, "b")])
