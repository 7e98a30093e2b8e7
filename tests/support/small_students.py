"""Small students, and the settings in published checkpoints."""

import sys
from pathlib import Path

import torch

from ssondo.students.student import Student

sys.path.append(str(Path(__file__).parents[1] / "parity"))
import fill

RATE = 32000
WINDOW = 40960  # samples of 1.28 s
SMALL = {
    "mobilenetv3": {"width_mult": 0.2},
    "dymn": {"width_mult": 0.2},
    "eres2net": {"m_channels": 8, "num_blocks": [1, 1, 1, 1, 1]},
}
# `training_config.student_model` of published checkpoints, by architecture.
PUBLISHED = {
    "mobilenetv3": {
        "model_name": "mn10_im",
        "sr": 32000,
        "pretrained_name": "mn10_im.pt",
        "width_mult": 1.0,
        "reduced_tail": False,
        "dilated": False,
        "strides": (2, 2, 2, 2),
        "relu_only": False,
        "input_dim_f": 128,
        "input_dim_t": 998,
        "se_dims": "c",
        "se_agg": "max",
        "se_r": 4,
    },
    "dymn": {
        "model_name": "dymn10_im",
        "sr": 32000,
        "width_mult": 1,
        "pretrained_name": "dymn10_im",
        "strides": (2, 2, 2, 2),
        "pretrain_final_temp": 30.0,
    },
    "eres2net": {
        "model_name": "ERes2Net",
        "sr": 32000,
        "m_channels": 16,
        "feat_dim": 128,
        "num_blocks": [3, 4, 6, 3, 3],
        "pooling_func": "TSTP",
        "add_layer": True,
    },
}


def small(name: str = "mobilenetv3", **settings) -> Student:
    torch.manual_seed(0)
    return Student(name, **{"n_outputs": 24, "window_s": 1.28, "backbone": SMALL[name], **settings}).eval()


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def assert_same_embedding(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def filled(name: str) -> Student:
    """A small student with the weights of `fill`, because the activations of a new student almost vanish."""
    student = small(name)
    student.load_state_dict(
        {
            key: fill.tensor(key, tuple(value.shape)) if key.endswith(("weight", "bias", "_mean", "_var")) else value
            for key, value in student.state_dict().items()
        }
    )
    return student
