"""Dynamic MobileNet (DyMN, Schmid et al., 2024): MobileNetV3 whose blocks adapt to what they hear.

Weights pretrained on ImageNet: `dymn10_im.pt` of EfficientAT's release v0.0.1 (MIT) for width
1.0. They hold a classifier, which is dropped. With width 1.0: 8,643,312 parameters, embedding 960.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssondo.errors import SsondoError
from ssondo.students.backbone import Backbone, Conv2d, Linear, initialise_weights, is_exporting, make_divisible

# Channels in, kernel, expanded channels, channels out, Hardswish (or ReLU).
_BLOCKS = (
    (16, 3, 16, 16, False),
    (16, 3, 64, 24, False),
    (24, 3, 72, 24, False),
    (24, 5, 72, 40, False),
    (40, 5, 120, 40, False),
    (40, 5, 120, 40, False),
    (40, 3, 240, 80, True),
    (80, 3, 200, 80, True),
    (80, 3, 184, 80, True),
    (80, 3, 184, 80, True),
    (80, 3, 480, 112, True),
    (112, 3, 672, 112, True),
    (112, 5, 672, 160, True),
    (160, 5, 960, 160, True),
    (160, 5, 960, 160, True),
)
# The blocks, counted from 0, that reduce the resolution.
_STRIDED = (1, 3, 6, 12)
_N_KERNELS = 4


def temperature_at(
    epoch: int, t_max: float = 30.0, slope0: float = 1.0, slope1: float = 0.02, t_min: float = 1.0
) -> float:
    """DyMN's schedule of the attention's temperature: a steep descent, then a slow one.

    Published distillation never advances it, so students stay at `t_max`.
    """
    knee = 1 + slope1 * (t_max - 1) / slope0
    return max(t_max - slope0 * epoch, knee - slope1 * epoch, t_min)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=0.001, momentum=0.01)


class DynamicConv(nn.Module):
    """A convolution without bias whose kernel is a clip's own mixture of four."""

    def __init__(self, n_in: int, n_out: int, context: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        if groups not in (1, n_in) or (groups == 1) != (kernel == 1):
            raise ValueError("a dynamic convolution is either 1x1 or depthwise")
        self.n_out, self.kernel, self.stride, self.depthwise = n_out, kernel, stride, groups != 1
        self.weight = nn.Parameter(torch.empty(1, 1, _N_KERNELS, n_out * (n_in // groups) * kernel**2))
        self.residuals = nn.Sequential(Linear(context, _N_KERNELS))
        # He initialisation by the number of outputs that an input reaches.
        nn.init.normal_(self.weight, 0.0, math.sqrt(2.0 / (n_out * kernel**2)))

    def forward(self, x: Tensor, context: Tensor, temperature: float) -> Tensor:
        """Filter `x`, shape (batch, n_in, frequency, time), as `context`, (batch, context), says."""
        attention = F.softmax(self.residuals(context) / temperature, dim=-1)
        if not self.depthwise:
            # A 1x1 convolution with a kernel for each clip is a batched matrix product.
            weight = (attention @ self.weight[0, 0]).unflatten(1, (self.n_out, -1))
            return (weight @ x.flatten(2)).unflatten(2, x.shape[2:])
        if is_exporting():
            return self._mixed_outputs(x, attention)
        return self._mixed_kernels(x, attention)

    def _mixed_kernels(self, x: Tensor, attention: Tensor) -> Tensor:
        """One convolution for the whole batch, whose clips stand side by side as channels."""
        batch, channels = x.shape[:2]
        weight = (attention @ self.weight[0, 0]).reshape(batch * channels, 1, self.kernel, self.kernel)
        out = F.conv2d(
            x.reshape(1, batch * channels, *x.shape[2:]),
            weight,
            stride=self.stride,
            padding=(self.kernel - 1) // 2,
            groups=batch * channels,
        )
        return out.unflatten(1, (batch, channels))[0]

    def _mixed_outputs(self, x: Tensor, attention: Tensor) -> Tensor:
        """The same from four static convolutions: slower, but a graph in which the batch may vary."""
        weights = self.weight[0, 0].unflatten(1, (self.n_out, 1, self.kernel, self.kernel)).unbind(0)
        outputs = [
            F.conv2d(x, weight, stride=self.stride, padding=(self.kernel - 1) // 2, groups=self.n_out)
            * share[:, None, None, None]
            for weight, share in zip(weights, attention.unbind(1), strict=True)
        ]
        return outputs[0] + outputs[1] + outputs[2] + outputs[3]


class DynamicReLU(nn.Module):
    """Dy-ReLU-B: the greater of two lines whose slopes and offsets the context sets for each channel."""

    lambdas: Tensor
    init_v: Tensor

    def __init__(self, channels: int, context: int) -> None:
        super().__init__()
        self.coef_net = nn.Sequential(Linear(context, 4 * channels))
        self.register_buffer("lambdas", torch.tensor([1.0, 1.0, 0.5, 0.5]))
        self.register_buffer("init_v", torch.tensor([1.0, 0.0, 0.0, 0.0]))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Bend `x`, shape (batch, channels, frequency, time)."""
        theta = 2 * self.coef_net(context).sigmoid() - 1
        coefficients = theta.unflatten(1, (-1, 4, 1, 1)) * self.lambdas[:, None, None] + self.init_v[:, None, None]
        slope0, slope1, offset0, offset1 = coefficients.unbind(2)
        if torch.is_grad_enabled() and not is_exporting():
            # max(a, b) = b + relu(a - b), whose backward pass needs half as many passes over the map.
            return torch.addcmul(offset1, x, slope1) + torch.addcmul(offset0 - offset1, x, slope0 - slope1).relu_()
        return torch.maximum(torch.addcmul(offset0, x, slope0), torch.addcmul(offset1, x, slope1))


class ContextGenerator(nn.Module):
    """A clip's context vector, and the gates over frequency and time."""

    def __init__(self, n_in: int, expanded: int, context: int, stride: int) -> None:
        super().__init__()
        self.joint_conv = Conv2d(n_in, context, 1, bias=False)
        self.joint_norm = _norm(context)
        self.conv_f = Conv2d(context, expanded, 1)
        self.conv_t = Conv2d(context, expanded, 1)
        self.stride = stride

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Summarise `x`, shape (batch, n_in, frequency, time).

        Returns:
            The context (batch, context), the gate over frequency (batch, expanded, frequency / stride, 1)
            and the gate over time (batch, expanded, 1, time / stride).
        """
        n_bands = x.shape[2]
        sequence = torch.cat([x.mean(3, keepdim=True), x.mean(2, keepdim=True).transpose(2, 3)], dim=2)
        sequence = F.hardswish(self.joint_norm(self.joint_conv(sequence)))
        bands, frames = sequence[:, :, :n_bands], sequence[:, :, n_bands:].transpose(2, 3)
        if self.stride > 1:
            bands = F.avg_pool2d(bands, (3, 1), (self.stride, 1), (1, 0))
            frames = F.avg_pool2d(frames, (1, 3), (1, self.stride), (0, 1))
        return sequence.mean((2, 3)), self.conv_f(bands).sigmoid(), self.conv_t(frames).sigmoid()


class DynamicBlock(nn.Module):
    """An inverted residual block of dynamic convolutions, Dy-ReLU and coordinate attention."""

    def __init__(
        self, n_in: int, kernel: int, expanded: int, n_out: int, hardswish: bool, stride: int, context: int
    ) -> None:
        super().__init__()
        self.context_gen = ContextGenerator(n_in, expanded, context, stride)
        self.expands = expanded != n_in
        if self.expands:
            self.exp_conv = DynamicConv(n_in, expanded, context)
            self.exp_norm = _norm(expanded)
            self.exp_act = nn.Hardswish(inplace=True) if hardswish else nn.ReLU(inplace=True)
        self.depth_conv = DynamicConv(expanded, expanded, context, kernel, stride, groups=expanded)
        self.depth_norm = _norm(expanded)
        self.depth_act = DynamicReLU(expanded, context)
        self.proj_conv = DynamicConv(expanded, n_out, context)
        self.proj_norm = _norm(n_out)
        self.residual = stride == 1 and n_in == n_out

    def forward(self, x: Tensor, temperature: float) -> Tensor:
        """Filter `x`, shape (batch, n_in, frequency, time)."""
        context, gate_f, gate_t = self.context_gen(x)
        out = x
        if self.expands:
            out = self.exp_act(self.exp_norm(self.exp_conv(out, context, temperature)))
        out = self.depth_act(self.depth_norm(self.depth_conv(out, context, temperature)), context)
        out = self.proj_norm(self.proj_conv(out * gate_f * gate_t, context, temperature))
        return out + x if self.residual else out


class DyMN(Backbone):
    """DyMN-Large up to its global pooling.

    Args:
        width_mult: factor on all channel numbers, which are rounded to multiples of 8.
        strides: of the four blocks that reduce the resolution, each 1 or 2.
        temperature: of the attention over kernels; also an attribute, so that training may lower it
            (see `temperature_at`). Published students were trained and are used at 30.
        anneal: lower the temperature epoch by epoch in training, from `temperature` on, as EfficientAT
            does; published distillation does not.
    """

    # Its products and its depthwise convolutions, whose clips stand side by side as channels, make NCHW maps:
    # each block would copy them there and back.
    trains_channels_last = False

    def __init__(
        self,
        width_mult: float = 1.0,
        strides: Sequence[int] = (2, 2, 2, 2),
        temperature: float = 30.0,
        anneal: bool = False,
    ) -> None:
        super().__init__()
        if not width_mult > 0:
            raise SsondoError(f"width_mult is {width_mult}; it must be above 0")
        if len(strides) != len(_STRIDED) or not set(strides) <= {1, 2}:
            raise SsondoError(f"strides is {list(strides)}; it must be four numbers, each 1 or 2")
        if not temperature > 0:
            raise SsondoError(f"temperature is {temperature}; it must be above 0")
        self.temperature = temperature
        self._first_temperature = temperature if anneal else None

        def scaled(channels: int) -> int:
            return make_divisible(channels * width_mult)

        def conv_norm(n_in: int, n_out: int, kernel: int, stride: int) -> nn.Sequential:
            conv = Conv2d(n_in, n_out, kernel, stride, (kernel - 1) // 2, bias=False)
            return nn.Sequential(conv, _norm(n_out), nn.Hardswish(inplace=True))

        stride_of = dict(zip(_STRIDED, strides, strict=True))
        blocks = []
        for i, (n_in, kernel, expanded, n_out, hardswish) in enumerate(_BLOCKS):
            context = min(max(make_divisible(scaled(expanded) // 4), scaled(32)), scaled(128))
            blocks.append(
                DynamicBlock(
                    scaled(n_in), kernel, scaled(expanded), scaled(n_out), hardswish, stride_of.get(i, 1), context
                )
            )
        self.embedding_dim = 6 * scaled(160)
        self.hidden_dim = scaled(1280)
        self.in_c = conv_norm(1, scaled(16), 3, 2)
        self.layers = nn.ModuleList(blocks)
        self.out_c = conv_norm(scaled(160), self.embedding_dim, 1, 1)
        initialise_weights(self)

    def begin_epoch(self, epoch: int) -> None:
        """Lower the temperature, if it is to be."""
        if self._first_temperature is not None:
            self.temperature = temperature_at(epoch, t_max=self._first_temperature)

    def embed_windows(self, log_mel: Tensor) -> Tensor:
        """Embed windows, shape (windows, mels, frames): (windows, embedding_dim)."""
        x = self.in_c(log_mel[:, None])
        for block in self.layers:
            x = block(x, self.temperature)
        return self.out_c(x).mean((2, 3))
