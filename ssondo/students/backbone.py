"""The interface of student architectures, and the convolution that they share."""

from typing import Any

import torch
from torch import Tensor, nn

from ssondo.errors import SsondoError
from ssondo.students import ARCHITECTURES
from ssondo.system.registry import check_options, import_object, look_up, parameters_of, unknown_name


class Backbone(nn.Module):
    """A student without its mapping head.

    Attributes:
        embedding_dim: Size of an embedding.
        hidden_dim: Width of the hidden layer of the mapping head that is used with this backbone by default.
        min_frames: Smallest number of frames that a window may have.
        n_mels: Number of mel bands that the backbone requires; None if it accepts any number.
        prefers_channels_last: Whether inference is faster in the channels-last memory format.
        trains_channels_last: Whether training is faster in the channels-last memory format.
    """

    embedding_dim: int
    hidden_dim: int
    min_frames = 1
    n_mels: int | None = None
    prefers_channels_last = False
    trains_channels_last = True

    def __init__(self) -> None:
        # The signature of `nn.Module` accepts anything, so without this one unknown options would not be detected.
        super().__init__()

    @property
    def emb_size(self) -> int:
        """The published package's name of `embedding_dim`."""
        return self.embedding_dim

    def begin_epoch(self, epoch: int) -> None:
        """Prepare for the next training step; called before each step with its epoch, counted from 0."""

    def embed_windows(self, log_mel: Tensor) -> Tensor:
        """Embed each window separately: (windows, mels, frames) -> (windows, embedding_dim)."""
        raise NotImplementedError

    def forward(self, log_mel: Tensor) -> Tensor:
        """Embed clips.

        Args:
            log_mel: Log-mels, shape (batch, mels, frames) or (batch, windows, mels, frames).

        Returns:
            Mean over the windows of each clip, shape (batch, embedding_dim).
        """
        if log_mel.dim() == 3:
            return self.embed_windows(log_mel)
        n_windows = log_mel.shape[1]
        return self.embed_windows(log_mel.flatten(0, 1)).unflatten(0, (-1, n_windows)).mean(1)


def build_backbone(architecture: str, **options: Any) -> Backbone:
    """Build a backbone with random weights.

    Args:
        architecture: A key of `ssondo.students.ARCHITECTURES`, or "package.module:Class" of a subclass of `Backbone`.
        options: Options of the architecture, e.g. `width_mult=0.4` or `m_channels=16`.

    Raises:
        SsondoError: If the architecture or an option does not exist, or an option has an invalid value.
    """
    if architecture in ARCHITECTURES:
        kind = look_up("student", architecture, ARCHITECTURES)
    elif ":" in architecture:
        kind = import_object("student", architecture)
    else:
        raise SsondoError(unknown_name("student", architecture, [*ARCHITECTURES, "package.module:Class"]))
    if not (isinstance(kind, type) and issubclass(kind, Backbone)):
        raise SsondoError(f"student {architecture!r} is not a subclass of ssondo.students.backbone.Backbone")
    check_options(f"student {architecture!r}", options, parameters_of(kind))
    return kind(**options)


def is_exporting() -> bool:
    """Return whether torch.export or tracing is recording a graph in which the batch size may vary."""
    return torch.compiler.is_exporting() or torch.jit.is_tracing()


class Conv2d(nn.Conv2d):
    """A convolution whose result for a window depends neither on the batch size nor on the number of threads.

    On a CPU torch chooses one of two algorithms by these numbers, and ERes2Net amplifies the difference of their
    rounding to 4e-4. In inference this layer always uses oneDNN, which is also the faster one.
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
