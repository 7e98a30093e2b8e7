"""Students: front-end, backbone and mapping head in one module.

student = new_student({"architecture": "mobilenetv3", "width_mult": 0.4}, n_outputs=3840, seed=0)
outputs = student(student.log_mel(waveforms))            # (batch, samples) -> (batch, 3840)
embeddings = student.eval().embed(waveforms, lengths)    # (batch, 384)
"""

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import chain
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ssondo import students
from ssondo.audio.log_mel import LogMel, slice_windows
from ssondo.audio.log_mel_settings import STUDENT
from ssondo.errors import SsondoError
from ssondo.storage.weights import load_strictly, load_weights

# Windows that go through a backbone at once: bounds the memory that a long clip takes. A GPU is idle with few.
_WINDOWS_AT_ONCE = {"cpu": 16, "cuda": 128}


class MappingHead(nn.Module):
    """From a student's embedding to the teacher's space, or to classes: applied to each window, then averaged."""

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
        architecture: "mobilenetv3", "dymn", "eres2net", or "module:Class" (see `ssondo.students`).
        n_outputs: size of the teacher's embedding, or number of classes of a supervised model.
        window_s: length in seconds of the windows that clips are cut into.
        step_s: distance of two windows in seconds; None for `window_s`.
        add_last: zero-pad what is left over to a last window; False drops it, as the published pipeline
            does, which has no embedding for a clip shorter than a window.
        hidden: width of the head's hidden layer; None for the backbone's own (1280 at width 1.0).
        dropout: before the head's last layer.
        front_end: settings of `ssondo.audio.log_mel_settings.LogMelSettings` that differ from the preset `STUDENT`.
        backbone: settings of the architecture, e.g. {"width_mult": 0.4}.

    Attributes:
        sample_rate: of the waveforms it takes, in Hz.
        embedding_dim: size of its embedding, the backbone's, before the head.
        settings: the arguments above as a plain dict; `Student(**settings)` builds the same model.
        model: the backbone; the name is that of published checkpoints.
        classification_head: the mapping head; the name is that of published checkpoints.
        provenance: how it came about, from its checkpoint; empty for a new one.

    Raises:
        SsondoError: if a setting is not known or not possible.

    Example:
        >>> student = Student("mobilenetv3", n_outputs=1024, window_s=1.28, backbone={"width_mult": 0.4}).eval()
        >>> student.embed(torch.zeros(2, 100_000)).shape
        torch.Size([2, 384])
    """

    model: students.Backbone
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
        try:
            preset = replace(STUDENT, **(front_end or {}))
        except TypeError as error:
            raise SsondoError(f"front_end of the student: {error}; it has {', '.join(asdict(STUDENT))}") from None
        self.front_end = LogMel(preset)
        self.model = students.build(architecture, **(backbone or {}))
        self.sample_rate = preset.sample_rate
        self.embedding_dim = self.model.embedding_dim
        self.window = round(window_s * self.sample_rate)
        self.step = self.window if step_s is None else round(step_s * self.sample_rate)
        n_frames = preset.n_frames(self.window)
        if n_frames < self.model.min_frames:
            raise SsondoError(
                f"window_s is {window_s:g}: {n_frames} frames, but {architecture} needs {self.model.min_frames}"
            )
        if self.model.n_mels not in (None, preset.n_mels):
            raise SsondoError(
                f"{architecture} is built for {self.model.n_mels} mel bands and the front-end has {preset.n_mels}; "
                f"set its number of bands to {preset.n_mels}"
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
            "front_end": dict(front_end or {}),
            "backbone": dict(backbone or {}),
        }

    @property
    def n_parameters(self) -> int:
        """Number of parameters of the backbone: what remains when the mapping head is dropped."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    @property
    def n_parameters_with_head(self) -> int:
        """Number of parameters with the mapping head."""
        return sum(parameter.numel() for parameter in self.parameters())

    def log_mel(self, waveforms: Tensor) -> Tensor:
        """Cut clips of equal length into windows and compute their log-mels.

        Args:
            waveforms: shape (batch, samples), at `sample_rate`.

        Returns:
            Shape (batch, windows, mels, frames).

        Raises:
            SsondoError: if `add_last` is off and the clips are shorter than a window.
        """
        return self.front_end(self._windows(waveforms))

    def _windows(self, waveforms: Tensor) -> Tensor:
        """(..., samples) -> (..., windows, samples)."""
        if not self.add_last and waveforms.shape[-1] < self.window:
            raise SsondoError(
                f"a clip of {waveforms.shape[-1] / self.sample_rate:g} s has no window of "
                f"{self.window / self.sample_rate:g} s; set add_last to true, or window_s lower"
            )
        return slice_windows(waveforms, self.window, self.step, self.add_last)

    def embed_windows(self, log_mel: Tensor) -> Tensor:
        """Embed each window of log-mels, (batch, windows, mels, frames): (batch, windows, embedding_dim)."""
        return self.model.embed_windows(log_mel.flatten(0, 1)).unflatten(0, log_mel.shape[:2])

    def forward(self, log_mel: Tensor) -> Tensor:
        """Map clips into the teacher's space: what training compares with the teacher.

        Args:
            log_mel: shape (batch, mels, frames) or (batch, windows, mels, frames).

        Returns:
            Shape (batch, n_outputs), the mean over windows.
        """
        if log_mel.dim() == 3:
            log_mel = log_mel[:, None]
        return self.classification_head(self.embed_windows(log_mel))

    @torch.no_grad()
    def embed(self, waveforms: Tensor, lengths: Tensor | Sequence[int] | None = None) -> Tensor:
        """Embed clips of any length; what a clip gets does not depend on the others in its batch.

        A clip is cut into windows of its own, the last one zero-padded, and its embedding is the
        mean over them. Windows go through the backbone in chunks, so a long clip needs no more memory.

        Args:
            waveforms: shape (batch, samples), floating point, at `sample_rate`.
            lengths: number of samples of each clip, the rest of its row being padding; None for all.

        Returns:
            Shape (batch, embedding_dim), float32.

        Raises:
            ValueError: if shapes or lengths do not fit, or the model is in training mode.
        """
        if self.training:
            raise ValueError("the model is in training mode, call eval() before embed()")
        windows = self._windows_of_clips(waveforms, lengths)
        return embed_in_chunks(self, windows)

    def _windows_of_clips(self, waveforms: Tensor, lengths: Tensor | Sequence[int] | None) -> list[Tensor]:
        """Windows of each clip: a list of tensors of shape (n_windows, samples)."""
        if waveforms.dim() != 2 or not waveforms.is_floating_point():
            raise ValueError(
                f"waveforms must be floating point of shape (batch, samples), not {waveforms.dtype} of shape "
                f"{tuple(waveforms.shape)}"
            )
        whole = waveforms.shape[1]
        found = [whole] * len(waveforms) if lengths is None else [int(length) for length in lengths]
        if len(found) != len(waveforms) or not all(0 < length <= whole for length in found):
            raise ValueError(f"lengths must be {len(waveforms)} numbers in 1..{whole}, not {found}")
        return [self._windows(clip[:length]) for clip, length in zip(waveforms, found, strict=True)]


def embed_in_chunks(student: Student, windows: Sequence[Tensor]) -> Tensor:
    """Mean embedding of each clip, given as its windows of shape (n_windows, samples)."""
    if not windows:
        return torch.zeros(0, student.embedding_dim, device=student.front_end.window.device)
    rows = chain.from_iterable(clip.unbind(0) for clip in windows)
    at_once = _WINDOWS_AT_ONCE.get(windows[0].device.type, 16)
    embedded = [
        student.model.embed_windows(student.front_end(torch.stack(chunk))).float() for chunk in _chunks(rows, at_once)
    ]
    return torch.stack([clip.mean(0) for clip in torch.cat(embedded).split([len(clip) for clip in windows])])


def _chunks(rows: Iterable[Tensor], size: int) -> Iterator[list[Tensor]]:
    chunk: list[Tensor] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def initialise_backbone(
    backbone: students.Backbone, path: str | PathLike[str], trust_checkpoint: bool = False
) -> students.Backbone:
    """Load weights pretrained on ImageNet, as EfficientAT publishes them (`mn10_im.pt`, `dymn10_im.pt`).

    Args:
        backbone: changed in place; `student.model` of a student.
        path: a state dict with the backbone's keys; the `classifier.*` in it is dropped.
        trust_checkpoint: see `ssondo.storage.weights.load_weights`.

    Returns:
        `backbone`.

    Raises:
        SsondoError: if the file cannot be read or holds other weights.
    """
    state = load_weights(path, trust_checkpoint)
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise SsondoError(f"{path}: not a state dict of pretrained weights (expected a dict of tensors)")
    kept = {key: value for key, value in state.items() if not key.startswith("classifier.")}
    load_strictly(path, backbone, kept, f"this {type(backbone).__name__}")
    return backbone


def build_student(spec: Mapping[str, Any], *, n_outputs: int, seed: int, pretrained: Path | None = None) -> Student:
    """Build a student with weights that depend on `spec` and `seed` alone.

    The backbone is drawn before the mapping head, so students of one seed that differ in
    `n_outputs` have one backbone.

    Args:
        spec: `architecture`, other arguments of `Student` such as `window_s`, and the settings of the
            architecture, e.g. `width_mult`: in `backbone`, or beside them where `Student` has no such argument.
        n_outputs: size of the mapping head's output.
        seed: of the weights.
        pretrained: pretrained weights of the backbone, in place of random ones.

    Raises:
        SsondoError: if the architecture or a setting is not known, or `pretrained` is of another one.
    """
    if "architecture" not in spec:
        raise SsondoError("student: architecture is missing; give e.g. mobilenetv3")
    given = dict(spec)
    backbone = dict(given.pop("backbone", {}))
    arguments = set(inspect.signature(Student).parameters) - {"n_outputs"}
    own = {key: value for key, value in given.items() if key in arguments}
    backbone |= {key: value for key, value in given.items() if key not in arguments}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        student = Student(n_outputs=n_outputs, backbone=backbone, **own)
    if pretrained is not None:
        initialise_backbone(student.model, pretrained)
    return student
