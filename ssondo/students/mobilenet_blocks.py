"""What MobileNetV3 and DyMN share: the table of blocks, the scaling of its channels, and the initial weights.

Howard et al., 2019, and EfficientAT (Schmid et al., 2023 and 2024). EfficientAT's release v0.0.1 (MIT) has weights
pretrained on ImageNet, on log-mels of the student front-end. They contain a classifier, which is not used here.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ssondo.errors import SsondoError
from ssondo.students.backbone import Conv2d, is_exporting


class Block(NamedTuple):
    """Sizes of an inverted residual block; without Hardswish its activation is ReLU.

    Only MobileNetV3 has squeeze-and-excitation.
    """

    n_in: int
    kernel: int
    expanded: int
    n_out: int
    squeeze: bool
    hardswish: bool
    stride: int = 1


# Blocks of MobileNetV3-Large. The stride of the four blocks that reduce the resolution is an option.
BLOCKS = (
    Block(16, 3, 16, 16, False, False),
    Block(16, 3, 64, 24, False, False),
    Block(24, 3, 72, 24, False, False),
    Block(24, 5, 72, 40, True, False),
    Block(40, 5, 120, 40, True, False),
    Block(40, 5, 120, 40, True, False),
    Block(40, 3, 240, 80, False, True),
    Block(80, 3, 200, 80, False, True),
    Block(80, 3, 184, 80, False, True),
    Block(80, 3, 184, 80, False, True),
    Block(80, 3, 480, 112, True, True),
    Block(112, 3, 672, 112, True, True),
    Block(112, 5, 672, 160, True, True),
    Block(160, 5, 960, 160, True, True),
    Block(160, 5, 960, 160, True, True),
)
_STRIDED = (1, 3, 6, 12)


def make_divisible(channels: float, divisor: int = 8) -> int:
    """Round to the nearest positive multiple of `divisor` that is at least 90 % of `channels`."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


def scaled_blocks(width_mult: float, strides: Sequence[int]) -> list[Block]:
    """Return the blocks of a network of another width.

    Args:
        width_mult: Factor of all numbers of channels, which are rounded by `make_divisible`.
        strides: Strides of the four blocks that reduce the resolution, each 1 or 2.

    Raises:
        SsondoError: If `width_mult` is not positive or `strides` is invalid.
    """
    if not width_mult > 0:
        raise SsondoError(f"width_mult is {width_mult}; it must be above 0")
    if len(strides) != len(_STRIDED) or not set(strides) <= {1, 2}:
        raise SsondoError(f"strides is {list(strides)}; it must be four numbers, each 1 or 2")
    stride_of = dict(zip(_STRIDED, strides, strict=True))
    return [
        block._replace(
            n_in=make_divisible(block.n_in * width_mult),
            expanded=make_divisible(block.expanded * width_mult),
            n_out=make_divisible(block.n_out * width_mult),
            stride=stride_of.get(number, 1),
        )
        for number, block in enumerate(BLOCKS)
    ]


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """Return a batch normalisation with the constants of EfficientAT."""
    return nn.BatchNorm2d(channels, eps=0.001, momentum=0.01)


def conv_norm(
    n_in: int, n_out: int, kernel: int, stride: int = 1, groups: int = 1, activation: type[nn.Module] | None = None
) -> nn.Sequential:
    """Return a convolution without bias that preserves the resolution at stride 1, batch normalisation, activation."""
    layers: list[nn.Module] = [
        Conv2d(n_in, n_out, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False),
        batch_norm(n_out),
    ]
    if activation is not None:
        layers.append(activation(inplace=True))
    return nn.Sequential(*layers)


class Linear(nn.Linear):
    """A linear layer whose result for a window does not depend on the batch size.

    A single product for the whole batch sums in an order that depends on the batch size. The gates that follow
    amplify the difference of the rounding to 1e-4, so in evaluation mode each row has a product of its own.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map `x`, shape (batch, features)."""
        if self.training or is_exporting():
            return super().forward(x)
        return torch.baddbmm(self.bias, x[:, None], self.weight.t().expand(len(x), -1, -1))[:, 0]


def initialise_weights(backbone: nn.Module) -> None:
    """Draw weights as Howard et al. (2019) do: He initialisation for convolutions, small values for linear layers."""
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0.0, 0.01)
            nn.init.zeros_(module.bias)
