"""Students: front-end, backbone and mapping head in one module.

student = build_student({"architecture": "mobilenetv3", "width_mult": 0.4}, n_outputs=3840, seed=0)
outputs = student(student.log_mel(waveforms))            # (batch, samples) -> (batch, 3840)
embeddings = student.eval().embed(waveforms, lengths)    # (batch, 384)
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from itertools import chain, islice
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ssondo.audio.log_mel import LogMel, slice_windows
from ssondo.audio.log_mel_settings import STUDENT, LogMelSettings
from ssondo.errors import SsondoError
from ssondo.storage.weights import load_strictly, load_weights
from ssondo.students.backbone import Backbone, build_backbone
from ssondo.system.registry import check_options, parameters_of

# Number of windows that a backbone embeds at once. It bounds the memory for long clips; a GPU needs more to be busy.
_WINDOWS_AT_ONCE = {"cpu": 16, "cuda": 128}


class MappingHead(nn.Module):
    """Maps embeddings to the space of the teacher, or to classes: applied to each window, then averaged."""

    def __init__(self, embedding_dim: int, hidden: int, n_outputs: int, dropout: float = 0.2) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(embedding_dim, hidden), nn.Hardswish(), nn.Dropout(dropout), nn.Linear(hidden, n_outputs)
        )

    def forward(self, embeddings: Tensor) -> Tensor:
        """Map embeddings of windows, shape (batch, windows, embedding_dim), to (batch, n_outputs)."""
        return self.mlp(embeddings).mean(1)


class Student(nn.Module):
    """A student: log-mel front-end, backbone and mapping head.

    Args:
        architecture: "mobilenetv3", "dymn", "eres2net", or "package.module:Class" of a subclass of
            `ssondo.students.backbone.Backbone`.
        n_outputs: Size of the teacher's embeddings, or number of classes of a supervised student.
        window_s: Length of the windows into which clips are cut, in seconds.
        step_s: Distance between two windows in seconds; None for `window_s`.
        add_last: Whether the remainder of a clip is zero-padded to a last window. False drops the remainder, as
            the published pipeline does; a clip shorter than a window then has no embedding.
        hidden: Width of the hidden layer of the mapping head; None for the backbone's `hidden_dim`.
        dropout: Dropout rate before the last layer of the mapping head.
        front_end: Settings of `ssondo.audio.log_mel_settings.LogMelSettings` that differ from `STUDENT`.
        backbone: Options of the architecture, e.g. {"width_mult": 0.4}.

    Attributes:
        sample_rate: Sample rate of the waveforms in Hz.
        embedding_dim: Size of an embedding, which is computed by the backbone, without the mapping head.
        settings: The arguments above as a dict of plain values; `Student(**settings)` builds the same model.
        model: The backbone; the name is that of published checkpoints.
        classification_head: The mapping head; the name is that of published checkpoints.
        provenance: Origin of the student, from its checkpoint; empty for a new one.

    Raises:
        SsondoError: If a setting does not exist or is invalid.

    Example:
        >>> student = Student("mobilenetv3", n_outputs=1024, window_s=1.28, backbone={"width_mult": 0.4}).eval()
        >>> student.embed(torch.zeros(2, 100_000)).shape
        torch.Size([2, 384])
    """

    model: Backbone
    provenance: dict[str, Any]

    def __init__(
        self,
        architecture: str,
        n_outputs: int = 3840,
        *,
        window_s: float = 10.0,
        step_s: float | None = None,
        add_last: bool = True,
        hidden: int | None = None,
        dropout: float = 0.2,
        front_end: Mapping[str, Any] | None = None,
        backbone: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        front_end, backbone = dict(front_end or {}), dict(backbone or {})
        check_options("front_end of the student", {**asdict(STUDENT), **front_end}, parameters_of(LogMelSettings))
        preset = replace(STUDENT, **front_end)
        self.front_end = LogMel(preset)
        self.model = build_backbone(architecture, **backbone)
        self.sample_rate = preset.sample_rate
        self.embedding_dim = self.model.embedding_dim
        self.window = round(window_s * self.sample_rate)
        self.step = self.window if step_s is None else round(step_s * self.sample_rate)
        n_frames = preset.n_frames(self.window)
        if n_frames < self.model.min_frames:
            raise SsondoError(
                f"window_s is {window_s:g}, which gives {n_frames} frames; {architecture} needs at least "
                f"{self.model.min_frames}"
            )
        if self.model.n_mels not in (None, preset.n_mels):
            raise SsondoError(
                f"{architecture} is built for {self.model.n_mels} mel bands, but the front-end has {preset.n_mels}; "
                f"set the option of {architecture} for the number of bands to {preset.n_mels}"
            )
        if not 0 < self.step <= self.window:
            raise SsondoError(f"step_s is {step_s:g}; it must be above 0 and at most window_s ({window_s:g})")
        self.add_last = add_last
        hidden = self.model.hidden_dim if hidden is None else hidden
        self.classification_head = MappingHead(self.embedding_dim, hidden, n_outputs, dropout)
        self.provenance = {}
        self.settings: dict[str, Any] = {
            "architecture": architecture,
            "n_outputs": n_outputs,
            "window_s": window_s,
            "step_s": step_s,
            "add_last": add_last,
            "hidden": hidden,
            "dropout": dropout,
            "front_end": front_end,
            "backbone": backbone,
        }

    @property
    def n_parameters(self) -> int:
        """Number of parameters of the backbone, without the mapping head."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    def log_mel(self, waveforms: Tensor) -> Tensor:
        """Cut clips of equal length into windows and compute their log-mels.

        Args:
            waveforms: Waveforms at `sample_rate`, shape (batch, samples).

        Returns:
            Log-mels, shape (batch, windows, mels, frames).

        Raises:
            SsondoError: If `add_last` is false and the clips are shorter than a window.
        """
        return self.front_end(self._windows(waveforms))

    def _windows(self, waveforms: Tensor) -> Tensor:
        """Cut clips into windows: (..., samples) -> (..., windows, samples)."""
        if not self.add_last and waveforms.shape[-1] < self.window:
            raise SsondoError(
                f"a clip of {waveforms.shape[-1] / self.sample_rate:g} s is shorter than a window of "
                f"{self.window / self.sample_rate:g} s; set add_last to true, or use a smaller window_s"
            )
        return slice_windows(waveforms, self.window, self.step, self.add_last)

    def embed_windows(self, log_mel: Tensor) -> Tensor:
        """Embed each window: (batch, windows, mels, frames) -> (batch, windows, embedding_dim)."""
        return self.model.embed_windows(log_mel.flatten(0, 1)).unflatten(0, log_mel.shape[:2])

    def forward(self, log_mel: Tensor) -> Tensor:
        """Map clips to the space of the teacher; training compares this output with the teacher's embeddings.

        Args:
            log_mel: Log-mels, shape (batch, mels, frames) or (batch, windows, mels, frames).

        Returns:
            Mean over the windows of each clip, shape (batch, n_outputs).
        """
        if log_mel.dim() == 3:
            log_mel = log_mel[:, None]
        return self.classification_head(self.embed_windows(log_mel))

    @torch.no_grad()
    def embed(self, waveforms: Tensor, lengths: Tensor | Sequence[int] | None = None) -> Tensor:
        """Embed clips of any length. The embedding of a clip does not depend on the other clips of the batch.

        Each clip is cut into windows and the last one is zero-padded. The embedding is the mean over the windows,
        which the backbone embeds in chunks, so that a long clip needs no more memory than a short one.

        Args:
            waveforms: Waveforms at `sample_rate`, floating point, shape (batch, samples).
            lengths: Number of samples of each clip; the rest of its row is padding. None if no row is padded.

        Returns:
            Embeddings, float32, shape (batch, embedding_dim).

        Raises:
            ValueError: If the shape of `waveforms` or a length is invalid, or the model is in training mode.
            SsondoError: If `add_last` is false and a clip is shorter than a window.
        """
        if self.training:
            raise ValueError("the model is in training mode; call eval() before embed()")
        if waveforms.dim() != 2 or not waveforms.is_floating_point():
            raise ValueError(
                f"waveforms must be floating point of shape (batch, samples), not {waveforms.dtype} of shape "
                f"{tuple(waveforms.shape)}"
            )
        n_samples = waveforms.shape[1]
        lengths = [n_samples] * len(waveforms) if lengths is None else [int(length) for length in lengths]
        if len(lengths) != len(waveforms) or not all(0 < length <= n_samples for length in lengths):
            raise ValueError(f"lengths must be {len(waveforms)} numbers in 1..{n_samples}, not {lengths}")
        if not lengths:
            return torch.zeros(0, self.embedding_dim, device=self.front_end.window.device)
        windows = [self._windows(clip[:length]) for clip, length in zip(waveforms, lengths, strict=True)]
        rows = chain.from_iterable(clip.unbind(0) for clip in windows)
        chunk_size = _WINDOWS_AT_ONCE.get(waveforms.device.type, 16)
        embeddings = [
            self.model.embed_windows(self.front_end(torch.stack(chunk))).float()
            for chunk in iter(lambda: list(islice(rows, chunk_size)), [])
        ]
        return torch.stack([clip.mean(0) for clip in torch.cat(embeddings).split([len(clip) for clip in windows])])


def initialise_backbone(backbone: Backbone, path: str | PathLike[str], trust_checkpoint: bool = False) -> Backbone:
    """Load weights that were pretrained on ImageNet, such as EfficientAT's `mn10_im.pt` and `dymn10_im.pt`.

    Args:
        backbone: Changed in place; `student.model` of a student.
        path: File with a state dict of the backbone; its keys `classifier.*` are ignored.
        trust_checkpoint: See `ssondo.storage.weights.load_weights`.

    Returns:
        `backbone`.

    Raises:
        SsondoError: If the file cannot be read or has weights of another architecture or width.
    """
    state = load_weights(path, trust_checkpoint)
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise SsondoError(f"{path}: not a state dict of pretrained weights (expected a dict of tensors)")
    weights = {key: value for key, value in state.items() if not key.startswith("classifier.")}
    load_strictly(path, backbone, weights, f"this {type(backbone).__name__}")
    return backbone


def build_student(spec: Mapping[str, Any], *, n_outputs: int, seed: int, pretrained: Path | None = None) -> Student:
    """Build a student whose weights depend on `spec` and `seed` only.

    The weights of the backbone are drawn before those of the mapping head, so students with the same seed and
    different `n_outputs` have the same backbone.

    Args:
        spec: `architecture`, other arguments of `Student` such as `window_s`, and options of the architecture such
            as `width_mult`. The latter may also be in a dict `backbone`, in which any name is an option.
        n_outputs: Number of outputs of the mapping head.
        seed: Seed of the weights.
        pretrained: File of pretrained weights of the backbone, which replace the random ones.

    Raises:
        SsondoError: If the architecture or an option does not exist, an option has an invalid value, or `pretrained`
            belongs to another architecture.
    """
    parameters = parameters_of(Student, ignored=("n_outputs",))
    arguments = {key: value for key, value in spec.items() if key in parameters}
    options = {key: value for key, value in spec.items() if key not in parameters}
    check_options("student", arguments, parameters)
    arguments["backbone"] = {**(arguments.get("backbone") or {}), **options}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        student = Student(n_outputs=n_outputs, **arguments)
    if pretrained is not None:
        initialise_backbone(student.model, pretrained)
    return student
