"""A student whose training is slow while the file `slow` exists, and which creates the file `training`."""

import time
from pathlib import Path

import torch
from torch import Tensor

from ssondo.students.backbone import Backbone

SLOW, TRAINING = Path("slow"), Path("training")


class Slow(Backbone):
    embedding_dim = 8
    hidden_dim = 16

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Conv2d(1, 8, 3, stride=2)

    def embed_windows(self, log_mel: Tensor) -> Tensor:
        if self.training and SLOW.exists():
            TRAINING.touch()
            time.sleep(2)
        return self.layer(log_mel[:, None]).relu().mean((2, 3))
