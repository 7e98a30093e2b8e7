"""MobileNetV3 on log-mels (Howard et al., 2019; EfficientAT, Schmid et al., 2023).

Pretrained weights (see `ssondo.students.mobilenet_blocks`): `mn10_im.pt` for width 1.0, `mn04_im.pt` for width 0.4 and
so on. With width 1.0 it has 2,971,664 parameters and embeddings of size 960.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from ssondo.students.backbone import Backbone
from ssondo.students.mobilenet_blocks import (
    Block,
    Linear,
    conv_norm,
    initialise_weights,
    make_divisible,
    scaled_blocks,
)

_SQUEEZE = 4


class SqueezeExcitation(nn.Module):
    """Scale each channel by a gate that is computed from the means of all channels."""

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
    """The list of gates of the published checkpoints, which contains only the gate over channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conc_se_layers = nn.ModuleList([SqueezeExcitation(channels)])

    def forward(self, x: Tensor) -> Tensor:
        """Gate `x`, shape (batch, channels, frequency, time)."""
        return self.conc_se_layers[0](x)


class InvertedResidual(nn.Module):
    """Expand by a 1x1 convolution, filter each channel, gate, project; add the input if the shapes are equal."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        activation = nn.Hardswish if block.hardswish else nn.ReLU
        n_in, expanded, n_out = block.n_in, block.expanded, block.n_out
        layers: list[nn.Module] = []
        if expanded != n_in:
            layers.append(conv_norm(n_in, expanded, 1, activation=activation))
        layers.append(conv_norm(expanded, expanded, block.kernel, block.stride, expanded, activation))
        if block.squeeze:
            layers.append(ConcurrentSqueezeExcitation(expanded))
        layers.append(conv_norm(expanded, n_out, 1))
        self.block = nn.Sequential(*layers)
        self.residual = block.stride == 1 and n_in == n_out

    def forward(self, x: Tensor) -> Tensor:
        """Filter `x`, shape (batch, channels, frequency, time)."""
        return self.block(x) + x if self.residual else self.block(x)


class MobileNetV3(Backbone):
    """MobileNetV3-Large up to its global pooling.

    Args:
        width_mult: Factor of all numbers of channels, which are rounded to multiples of 8.
        strides: Strides of the four blocks that reduce the resolution, each 1 or 2.
    """

    # A third faster on a CPU. DyMN does not become faster; ERes2Net does, but its rounding differs then.
    prefers_channels_last = True

    def __init__(self, width_mult: float = 1.0, strides: Sequence[int] = (2, 2, 2, 2)) -> None:
        super().__init__()
        blocks = scaled_blocks(width_mult, strides)
        n_out = blocks[-1].n_out
        self.embedding_dim = 6 * n_out
        self.hidden_dim = make_divisible(1280 * width_mult)
        self.features = nn.Sequential(
            conv_norm(1, blocks[0].n_in, 3, 2, activation=nn.Hardswish),
            *(InvertedResidual(block) for block in blocks),
            conv_norm(n_out, self.embedding_dim, 1, activation=nn.Hardswish),
        )
        initialise_weights(self)

    def embed_windows(self, log_mel: Tensor) -> Tensor:
        """Embed each window separately: (windows, mels, frames) -> (windows, embedding_dim)."""
        return self.features(log_mel[:, None]).mean((2, 3))
