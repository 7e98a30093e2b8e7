"""MobileNetV3 on log-mels (Howard et al., 2019; EfficientAT, Schmid et al., 2023).

Weights pretrained on ImageNet: `mn10_im.pt` of EfficientAT's release v0.0.1 (MIT) for width 1.0,
`mn04_im.pt`, `mn05_im.pt`, ... for others. They hold a classifier, which is dropped, and take
the same log-mels as every student. With width 1.0: 2,971,664 parameters, embedding 960.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from ssondo.errors import SsondoError
from ssondo.students.backbone import Backbone, Conv2d, Linear, initialise_weights, make_divisible

# Channels in, kernel, expanded channels, channels out, squeeze-excitation, Hardswish (or ReLU).
_BLOCKS = (
    (16, 3, 16, 16, False, False),
    (16, 3, 64, 24, False, False),
    (24, 3, 72, 24, False, False),
    (24, 5, 72, 40, True, False),
    (40, 5, 120, 40, True, False),
    (40, 5, 120, 40, True, False),
    (40, 3, 240, 80, False, True),
    (80, 3, 200, 80, False, True),
    (80, 3, 184, 80, False, True),
    (80, 3, 184, 80, False, True),
    (80, 3, 480, 112, True, True),
    (112, 3, 672, 112, True, True),
    (112, 5, 672, 160, True, True),
    (160, 5, 960, 160, True, True),
    (160, 5, 960, 160, True, True),
)
# The blocks, counted from 0, that reduce the resolution.
_STRIDED = (1, 3, 6, 12)
_SQUEEZE = 4


def _conv_norm(
    n_in: int, n_out: int, kernel: int, stride: int = 1, groups: int = 1, activation: type[nn.Module] | None = None
) -> nn.Sequential:
    layers: list[nn.Module] = [
        Conv2d(n_in, n_out, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False),
        nn.BatchNorm2d(n_out, eps=0.001, momentum=0.01),
    ]
    if activation is not None:
        layers.append(activation(inplace=True))
    return nn.Sequential(*layers)


class SqueezeExcitation(nn.Module):
    """Scale each channel by a gate computed from the means of all channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = make_divisible(channels // _SQUEEZE)
        self.fc1 = Linear(channels, squeezed)
        self.fc2 = Linear(squeezed, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Gate `x`, shape (batch, channels, frequency, time)."""
        gate = self.fc2(self.fc1(x.mean((2, 3))).relu()).sigmoid()
        return x * gate[:, :, None, None]


class ConcurrentSqueezeExcitation(nn.Module):
    """The published checkpoints' list of gates, of which only the one over channels is used."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conc_se_layers = nn.ModuleList([SqueezeExcitation(channels)])

    def forward(self, x: Tensor) -> Tensor:
        """Gate `x`, shape (batch, channels, frequency, time)."""
        return self.conc_se_layers[0](x)


class InvertedResidual(nn.Module):
    """Expand by a 1x1 convolution, filter each channel, gate, project back; add the input where shapes agree."""

    def __init__(
        self, n_in: int, kernel: int, expanded: int, n_out: int, squeeze: bool, hardswish: bool, stride: int
    ) -> None:
        super().__init__()
        activation = nn.Hardswish if hardswish else nn.ReLU
        layers: list[nn.Module] = []
        if expanded != n_in:
            layers.append(_conv_norm(n_in, expanded, 1, activation=activation))
        layers.append(_conv_norm(expanded, expanded, kernel, stride, groups=expanded, activation=activation))
        if squeeze:
            layers.append(ConcurrentSqueezeExcitation(expanded))
        layers.append(_conv_norm(expanded, n_out, 1))
        self.block = nn.Sequential(*layers)
        self.residual = stride == 1 and n_in == n_out

    def forward(self, x: Tensor) -> Tensor:
        """Filter `x`, shape (batch, channels, frequency, time)."""
        return self.block(x) + x if self.residual else self.block(x)


class MobileNetV3(Backbone):
    """MobileNetV3-Large up to its global pooling.

    Args:
        width_mult: factor on all channel numbers, which are rounded to multiples of 8.
        strides: of the four blocks that reduce the resolution, each 1 or 2.
    """

    # A third faster on a CPU. DyMN has nothing from it; ERes2Net has, at the price of another rounding.
    prefers_channels_last = True

    def __init__(self, width_mult: float = 1.0, strides: Sequence[int] = (2, 2, 2, 2)) -> None:
        super().__init__()
        if not width_mult > 0:
            raise SsondoError(f"width_mult is {width_mult}; it must be above 0")
        if len(strides) != len(_STRIDED) or not set(strides) <= {1, 2}:
            raise SsondoError(f"strides is {list(strides)}; it must be four numbers, each 1 or 2")

        def scaled(channels: int) -> int:
            return make_divisible(channels * width_mult)

        stride_of = dict(zip(_STRIDED, strides, strict=True))
        stages: list[nn.Module] = [_conv_norm(1, scaled(16), 3, 2, activation=nn.Hardswish)]
        for i, (n_in, kernel, expanded, n_out, squeeze, hardswish) in enumerate(_BLOCKS):
            stages.append(
                InvertedResidual(
                    scaled(n_in), kernel, scaled(expanded), scaled(n_out), squeeze, hardswish, stride_of.get(i, 1)
                )
            )
        self.embedding_dim = 6 * scaled(160)
        self.hidden_dim = scaled(1280)
        stages.append(_conv_norm(scaled(160), self.embedding_dim, 1, activation=nn.Hardswish))
        self.features = nn.Sequential(*stages)
        initialise_weights(self)

    def embed_windows(self, log_mel: Tensor) -> Tensor:
        """Embed windows, shape (windows, mels, frames): (windows, embedding_dim)."""
        return self.features(log_mel[:, None]).mean((2, 3))
