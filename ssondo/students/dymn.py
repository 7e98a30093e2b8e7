"""Dynamic MobileNet (DyMN, Schmid et al., 2024): MobileNetV3 whose blocks adapt to their input.

Pretrained weights (see `ssondo.students.mobilenet_blocks`): `dymn10_im.pt` for width 1.0. With width 1.0 it has
8,643,312 parameters and embeddings of size 960.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssondo.errors import SsondoError
from ssondo.students.backbone import Backbone, Conv2d, is_exporting
from ssondo.students.mobilenet_blocks import (
    Block,
    Linear,
    batch_norm,
    conv_norm,
    initialise_weights,
    make_divisible,
    scaled_blocks,
)

_N_KERNELS = 4


def temperature_at(
    epoch: int, t_max: float = 30.0, slope0: float = 1.0, slope1: float = 0.02, t_min: float = 1.0
) -> float:
    """Return the temperature of the attention in an epoch: a fast linear decrease, then a slow one down to `t_min`.

    The published distillation keeps the temperature of the first epoch, `t_max`.
    """
    knee = 1 + slope1 * (t_max - 1) / slope0
    return max(t_max - slope0 * epoch, knee - slope1 * epoch, t_min)


class DynamicConv(nn.Module):
    """A convolution without bias whose kernel is a mixture of four kernels; each window has its own mixture."""

    def __init__(self, n_in: int, n_out: int, context: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        if groups not in (1, n_in) or (groups == 1) != (kernel == 1):
            raise ValueError("a dynamic convolution must be either 1x1 or depthwise")
        self.n_out, self.kernel, self.stride, self.depthwise = n_out, kernel, stride, groups != 1
        self.weight = nn.Parameter(torch.empty(1, 1, _N_KERNELS, n_out * (n_in // groups) * kernel**2))
        self.residuals = nn.Sequential(Linear(context, _N_KERNELS))
        # He initialisation with the number of outputs to which an input contributes.
        nn.init.normal_(self.weight, 0.0, math.sqrt(2.0 / (n_out * kernel**2)))

    def forward(self, x: Tensor, context: Tensor, temperature: float) -> Tensor:
        """Filter `x`, (batch, n_in, frequency, time), with the kernels that `context`, (batch, context), selects."""
        attention = F.softmax(self.residuals(context) / temperature, dim=-1)
        if not self.depthwise:
            # A 1x1 convolution with one kernel per window is a batched matrix product.
            weight = (attention @ self.weight[0, 0]).unflatten(1, (self.n_out, -1))
            return (weight @ x.flatten(2)).unflatten(2, x.shape[2:])
        if is_exporting():
            return self._mixed_outputs(x, attention)
        return self._mixed_kernels(x, attention)

    def _mixed_kernels(self, x: Tensor, attention: Tensor) -> Tensor:
        """Mix the kernels, then filter the whole batch by one convolution with the windows as groups of channels."""
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
        """Filter by each of the four kernels, then mix: slower, but the graph allows any batch size."""
        weights = self.weight[0, 0].unflatten(1, (self.n_out, 1, self.kernel, self.kernel)).unbind(0)
        outputs = [
            F.conv2d(x, weight, stride=self.stride, padding=(self.kernel - 1) // 2, groups=self.n_out)
            * attention_weight[:, None, None, None]
            for weight, attention_weight in zip(weights, attention.unbind(1), strict=True)
        ]
        return outputs[0] + outputs[1] + outputs[2] + outputs[3]


class DynamicReLU(nn.Module):
    """Dy-ReLU-B: the maximum of two linear functions whose slopes and offsets depend on channel and context."""

    lambdas: Tensor
    init_v: Tensor

    def __init__(self, channels: int, context: int) -> None:
        super().__init__()
        self.coef_net = nn.Sequential(Linear(context, 4 * channels))
        self.register_buffer("lambdas", torch.tensor([1.0, 1.0, 0.5, 0.5]))
        self.register_buffer("init_v", torch.tensor([1.0, 0.0, 0.0, 0.0]))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Apply the activation to `x`, shape (batch, channels, frequency, time)."""
        theta = 2 * self.coef_net(context).sigmoid() - 1
        coefficients = theta.unflatten(1, (-1, 4, 1, 1)) * self.lambdas[:, None, None] + self.init_v[:, None, None]
        slope0, slope1, offset0, offset1 = coefficients.unbind(2)
        if torch.is_grad_enabled() and not is_exporting():
            # max(a, b) = b + relu(a - b); the backward pass of this form reads the feature map half as often.
            return torch.addcmul(offset1, x, slope1) + torch.addcmul(offset0 - offset1, x, slope0 - slope1).relu_()
        return torch.maximum(torch.addcmul(offset0, x, slope0), torch.addcmul(offset1, x, slope1))


class ContextGenerator(nn.Module):
    """Computes the context vector of a window, and the gates over frequency and time."""

    def __init__(self, n_in: int, expanded: int, context: int, stride: int) -> None:
        super().__init__()
        self.joint_conv = Conv2d(n_in, context, 1, bias=False)
        self.joint_norm = batch_norm(context)
        self.conv_f = Conv2d(context, expanded, 1)
        self.conv_t = Conv2d(context, expanded, 1)
        self.stride = stride

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Summarise `x`, shape (batch, n_in, frequency, time).

        Returns:
            The context, (batch, context), the gate over frequency, (batch, expanded, frequency / stride, 1),
            and the gate over time, (batch, expanded, 1, time / stride).
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

    def __init__(self, block: Block, context: int) -> None:
        super().__init__()
        n_in, expanded, n_out = block.n_in, block.expanded, block.n_out
        self.context_gen = ContextGenerator(n_in, expanded, context, block.stride)
        self.expands = expanded != n_in
        if self.expands:
            self.exp_conv = DynamicConv(n_in, expanded, context)
            self.exp_norm = batch_norm(expanded)
            self.exp_act = nn.Hardswish(inplace=True) if block.hardswish else nn.ReLU(inplace=True)
        self.depth_conv = DynamicConv(expanded, expanded, context, block.kernel, block.stride, groups=expanded)
        self.depth_norm = batch_norm(expanded)
        self.depth_act = DynamicReLU(expanded, context)
        self.proj_conv = DynamicConv(expanded, n_out, context)
        self.proj_norm = batch_norm(n_out)
        self.residual = block.stride == 1 and n_in == n_out

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
        width_mult: Factor of all numbers of channels, which are rounded to multiples of 8.
        strides: Strides of the four blocks that reduce the resolution, each 1 or 2.
        temperature: Temperature of the attention over kernels; an attribute too. The published students were
            trained with 30 and are used with it.
        anneal: Whether training lowers the temperature epoch by epoch, from `temperature` on, as EfficientAT
            does and the published distillation does not (see `temperature_at`).
    """

    # Its matrix products and grouped convolutions have outputs in NCHW format, so each block would convert twice.
    trains_channels_last = False

    def __init__(
        self,
        width_mult: float = 1.0,
        strides: Sequence[int] = (2, 2, 2, 2),
        temperature: float = 30.0,
        anneal: bool = False,
    ) -> None:
        super().__init__()
        if not temperature > 0:
            raise SsondoError(f"temperature is {temperature}; it must be above 0")
        blocks = scaled_blocks(width_mult, strides)
        self.temperature = temperature
        self._first_temperature = temperature if anneal else None
        n_out = blocks[-1].n_out
        self.embedding_dim = 6 * n_out
        self.hidden_dim = make_divisible(1280 * width_mult)
        smallest, largest = make_divisible(32 * width_mult), make_divisible(128 * width_mult)
        # The order of these lines determines the random weights of a seed.
        layers = [
            DynamicBlock(block, min(max(make_divisible(block.expanded // 4), smallest), largest)) for block in blocks
        ]
        self.in_c = conv_norm(1, blocks[0].n_in, 3, 2, activation=nn.Hardswish)
        self.layers = nn.ModuleList(layers)
        self.out_c = conv_norm(n_out, self.embedding_dim, 1, activation=nn.Hardswish)
        initialise_weights(self)

    def begin_epoch(self, epoch: int) -> None:
        """Set the temperature of the epoch, if the option `anneal` is set."""
        if self._first_temperature is not None:
            self.temperature = temperature_at(epoch, t_max=self._first_temperature)

    def embed_windows(self, log_mel: Tensor) -> Tensor:
        """Embed each window separately: (windows, mels, frames) -> (windows, embedding_dim)."""
        x = self.in_c(log_mel[:, None])
        for block in self.layers:
            x = block(x, self.temperature)
        return self.out_c(x).mean((2, 3))
