"""What the student architectures share: the interface and the rounding of channel numbers."""

import torch
from torch import Tensor, nn


def make_divisible(channels: float, divisor: int = 8) -> int:
    """Round to the nearest multiple of `divisor`, at least one and never below 90 % of `channels`."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


def is_exporting() -> bool:
    """Whether a graph is being made in which the batch may vary, by torch.export or by tracing."""
    return torch.compiler.is_exporting() or torch.jit.is_tracing()


class Backbone(nn.Module):
    """A student without its mapping head.

    Attributes:
        embedding_dim: size of an embedding.
        hidden_dim: width of the mapping head's hidden layer that belongs to this backbone.
        min_frames: the fewest frames that a window may have.
        n_mels: the number of mel bands that it is built for; None if it takes any.
        prefers_channels_last: whether that memory format is the faster one for inference.
        trains_channels_last: whether it is for training, where tensor cores want it too.
    """

    embedding_dim: int
    hidden_dim: int
    min_frames = 1
    n_mels: int | None = None
    prefers_channels_last = False
    trains_channels_last = True

    @property
    def emb_size(self) -> int:
        """The published package's name for `embedding_dim`."""
        return self.embedding_dim

    def begin_epoch(self, epoch: int) -> None:
        """Told by the training which epoch its next step belongs to, counted from 0; most do not care."""

    def embed_windows(self, log_mel: Tensor) -> Tensor:
        """Embed windows, shape (windows, mels, frames), one by one: (windows, embedding_dim)."""
        raise NotImplementedError

    def forward(self, log_mel: Tensor) -> Tensor:
        """Embed clips.

        Args:
            log_mel: shape (batch, mels, frames), or (batch, windows, mels, frames).

        Returns:
            The mean over each clip's windows, shape (batch, embedding_dim).
        """
        if log_mel.dim() == 3:
            return self.embed_windows(log_mel)
        n_windows = log_mel.shape[1]
        return self.embed_windows(log_mel.flatten(0, 1)).unflatten(0, (-1, n_windows)).mean(1)


class Conv2d(nn.Conv2d):
    """A convolution whose result for a window depends neither on the batch's size nor on the threads.

    By these torch chooses between two algorithms on a CPU, and ERes2Net makes 4e-4 of the difference
    in rounding. In inference this takes oneDNN's always, which is also the faster one.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Filter `x`, shape (batch, channels, frequency, time)."""
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or is_exporting() or not _has_onednn(x):
            return super().forward(x)
        assert not isinstance(self.padding, str)
        return torch.mkldnn_convolution(
            x, self.weight, self.bias, self.padding, self.stride, self.dilation, self.groups
        )


def _has_onednn(x: Tensor) -> bool:
    return bool(
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and torch.backends.mkldnn.is_available()
        and torch.backends.mkldnn.enabled
    )


class Linear(nn.Linear):
    """A linear layer whose result for a window does not depend on the batch's size.

    One product for the whole batch sums in another order for another size. The gates that follow
    are steep enough to make 1e-4 of that, so in evaluation each row has a product of its own.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map `x`, shape (batch, features)."""
        if self.training or is_exporting():
            return super().forward(x)
        return torch.baddbmm(self.bias, x[:, None], self.weight.t().expand(len(x), -1, -1))[:, 0]


def initialise_weights(backbone: nn.Module) -> None:
    """Draw weights as MobileNetV3 (Howard et al., 2019) does: He for convolutions, small for linear layers."""
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0.0, 0.01)
            nn.init.zeros_(module.bias)
