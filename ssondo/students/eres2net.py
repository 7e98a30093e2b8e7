"""ERes2Net (Chen et al., 2023) on log-mels: local and global fusion of features, statistics pooling.

There are no pretrained weights for this input. By default it has 1,368,068 parameters and embeddings of size 1024.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssondo.errors import SsondoError
from ssondo.students.backbone import Backbone, Conv2d

# Planes of the five layers, relative to the channels of the first convolution. A layer has twice as many outputs.
_PLANES = (1, 2, 4, 8, 2)
_STRIDES = (1, 2, 2, 2, 2)
# From this layer on, counted from 0, attention instead of addition fuses the halves of a block.
_FIRST_FUSED = 2


def _relu20(x: Tensor) -> Tensor:
    # In place, because no operation before it needs its output in the backward pass.
    return F.hardtanh_(x, 0.0, 20.0)


class AttentionalFusion(nn.Module):
    """Weighted sum of two feature maps, with weights that depend on both (AFF, Dai et al., 2021)."""

    def __init__(self, channels: int, reduction: int = 4) -> None:
        super().__init__()
        self.local_att = nn.Sequential(
            Conv2d(2 * channels, channels // reduction, 1),
            nn.BatchNorm2d(channels // reduction),
            nn.SiLU(inplace=True),
            Conv2d(channels // reduction, channels, 1),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Fuse `x` and `y`, both of shape (batch, channels, frequency, time)."""
        weight = self.local_att(torch.cat([x, y], dim=1)).tanh() + 1
        # Another order of these sums would be faster, but the layers amplify its difference in rounding to 1e-4.
        return x * weight + y * (2 - weight)


class Res2Block(nn.Module):
    """Bottleneck with two halves of the channels; the filtered first half is fused into the second."""

    def __init__(self, n_in: int, planes: int, stride: int, fused: bool) -> None:
        super().__init__()
        width, n_out = planes // 2, 2 * planes
        self.conv1 = Conv2d(n_in, 2 * width, 1, stride, bias=False)
        self.bn1 = nn.BatchNorm2d(2 * width)
        self.convs = nn.ModuleList(Conv2d(width, width, 3, padding=1, bias=False) for _ in range(2))
        self.bns = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(2))
        self.fuse_models = nn.ModuleList([AttentionalFusion(width)]) if fused else None
        self.conv3 = Conv2d(2 * width, n_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(n_out)
        self.shortcut: nn.Module = nn.Sequential()
        if stride != 1 or n_in != n_out:
            self.shortcut = nn.Sequential(Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out))

    def forward(self, x: Tensor) -> Tensor:
        """Filter `x`, shape (batch, channels, frequency, time)."""
        first, second = _relu20(self.bn1(self.conv1(x))).chunk(2, dim=1)
        first = _relu20(self.bns[0](self.convs[0](first)))
        second = first + second if self.fuse_models is None else self.fuse_models[0](first, second)
        second = _relu20(self.bns[1](self.convs[1](second)))
        out = self.bn3(self.conv3(torch.cat([first, second], dim=1)))
        return _relu20(out + self.shortcut(x))


class ERes2Net(Backbone):
    """ERes2Net with a fifth layer, up to its statistics pooling.

    Args:
        m_channels: Number of channels of the first convolution, a multiple of 8, which scales all others.
        feat_dim: Number of mel bands.
        num_blocks: Numbers of blocks of the five layers.
    """

    # The standard deviation over time needs two frames after the resolution has been halved four times.
    min_frames = 17

    def __init__(self, m_channels: int = 16, feat_dim: int = 128, num_blocks: Sequence[int] = (3, 4, 6, 3, 3)) -> None:
        super().__init__()
        if m_channels < 8 or m_channels % 8:
            raise SsondoError(f"m_channels is {m_channels}; it must be a positive multiple of 8")
        if len(num_blocks) != len(_PLANES) or min(num_blocks) < 1:
            raise SsondoError(f"num_blocks is {list(num_blocks)}; it must be five positive numbers")
        self.conv1 = Conv2d(1, m_channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(m_channels)
        widths = [2 * factor * m_channels for factor in _PLANES]
        n_in = m_channels
        layers = []
        for i, (n_out, stride, n_blocks) in enumerate(zip(widths, _STRIDES, num_blocks, strict=True)):
            blocks = []
            for block in range(n_blocks):
                blocks.append(Res2Block(n_in, n_out // 2, stride if block == 0 else 1, fused=i >= _FIRST_FUSED))
                n_in = n_out
            layers.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3, self.layer4, self.layer5 = layers

        def downsample(i: int) -> Conv2d:
            return Conv2d(widths[i], widths[i + 1], 3, 2, padding=1, bias=False)

        self.layer1_downsample, self.layer2_downsample = downsample(0), downsample(1)
        self.layer3_downsample, self.layer4_downsample = downsample(2), downsample(3)
        self.fuse_mode12, self.fuse_mode123 = AttentionalFusion(widths[1]), AttentionalFusion(widths[2])
        self.fuse_mode1234, self.fuse_mode12345 = AttentionalFusion(widths[3]), AttentionalFusion(widths[4])
        self.n_mels = feat_dim
        # Each of the four halvings of the bands rounds up.
        self.embedding_dim = 2 * widths[4] * -(-feat_dim // 16)
        self.hidden_dim = 1280

    def embed_windows(self, log_mel: Tensor) -> Tensor:
        """Embed each window, of at least 17 frames: (windows, mels, frames) -> (windows, embedding_dim)."""
        layer1 = self.layer1(self.bn1(self.conv1(log_mel[:, None])).relu_())
        layer2 = self.layer2(layer1)
        layer3 = self.layer3(layer2)
        layer4 = self.layer4(layer3)
        layer5 = self.layer5(layer4)
        fused = self.fuse_mode12(layer2, self.layer1_downsample(layer1))
        fused = self.fuse_mode123(layer3, self.layer2_downsample(fused))
        fused = self.fuse_mode1234(layer4, self.layer3_downsample(fused))
        fused = self.fuse_mode12345(layer5, self.layer4_downsample(fused))
        variance, mean = torch.var_mean(fused, dim=-1)
        return torch.cat([mean.flatten(1), (variance + 1e-8).sqrt().flatten(1)], dim=1)
