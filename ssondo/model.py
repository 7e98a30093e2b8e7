"""Students with their front-end and mapping head, their checkpoints, and the published interface.

model = get_ssondo("matpac-mobilenetv3")                 # downloads the published weights
embeddings = model.get_embeddings(waveforms)             # (batch, samples) at 32 kHz -> (batch, 960)

student = load_student("student.ckpt")                   # one of your own
embeddings = student.embed(waveforms, lengths)
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from itertools import chain
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ssondo import artefacts, students
from ssondo.errors import SsondoError, TransientError
from ssondo.features import STUDENT, LogMel, slice_windows
from ssondo.weights import load_weights

# Windows that go through a backbone at once: bounds the memory that a long clip takes.
_WINDOWS_AT_ONCE = 16
_PREFIX = "student_model."
_FORMAT = 1


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
        front_end: settings of `ssondo.features.LogMelSettings` that differ from the preset `STUDENT`.
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
    embedded = [
        student.model.embed_windows(student.front_end(torch.stack(chunk))).float()
        for chunk in _chunks(rows, _WINDOWS_AT_ONCE)
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


@contextmanager
def _measuring_batchnorm(model: nn.Module) -> Iterator[list[nn.modules.batchnorm._BatchNorm]]:
    """Reset all batch norms of `model` and let them, and nothing else, be in training mode."""
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    modes = {module: module.training for module in model.modules()}
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    try:
        yield norms
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for module, mode in modes.items():
            module.training = mode


@torch.no_grad()
def reestimate_batchnorm(model: nn.Module, batches: Iterable[Tensor]) -> int:
    """Compute the running statistics of all batch norms anew, as the plain average over batches.

    With a momentum of 0.01 they mean something after some 500 steps only; a model that was trained
    for less is wrong in evaluation mode. Dropout is off meanwhile; the weights stay as they are.

    Args:
        model: changed in place; its mode is kept.
        batches: inputs of `model`, e.g. log-mels of training clips; a batch counts once whatever its size.

    Returns:
        Number of batches.

    Raises:
        ValueError: if there is no batch; the old statistics are then lost.
    """
    n_batches = 0
    with _measuring_batchnorm(model):
        for batch in batches:
            model(batch)
            n_batches += 1
    if n_batches == 0:
        raise ValueError("no batches to estimate statistics of batch normalisation from")
    return n_batches


def _cannot_load(path: str | PathLike[str], model: nn.Module, state: Mapping[str, Tensor], what: str) -> str | None:
    """Why `state` does not fit `model`, as one line, or None if it does."""
    expected = model.state_dict()
    missing = [key for key in expected if key not in state]
    surplus = [key for key in state if key not in expected]
    if missing or surplus:
        found = [
            f"{len(keys)} {kind} (e.g. {keys[0]})"
            for keys, kind in ((missing, "missing"), (surplus, "unknown"))
            if keys
        ]
        return f"{path}: not the weights of {what}: {' and '.join(found)} keys"
    for key, value in expected.items():
        if value.shape != state[key].shape:
            return (
                f"{path}: {key} has shape {list(state[key].shape)}, {what} has {list(value.shape)}; "
                "the settings differ (width_mult, m_channels, n_outputs)"
            )
    return None


def _load_strictly(path: str | PathLike[str], model: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    fault = _cannot_load(path, model, state, what)
    if fault is not None:
        raise SsondoError(fault)
    model.load_state_dict(dict(state), strict=True)


def initialise_backbone(
    backbone: students.Backbone, path: str | PathLike[str], trust_checkpoint: bool = False
) -> students.Backbone:
    """Load weights pretrained on ImageNet, as EfficientAT publishes them (`mn10_im.pt`, `dymn10_im.pt`).

    Args:
        backbone: changed in place; `student.model` of a student.
        path: a state dict with the backbone's keys; the `classifier.*` in it is dropped.
        trust_checkpoint: see `ssondo.weights.load_weights`.

    Returns:
        `backbone`.

    Raises:
        SsondoError: if the file cannot be read or holds other weights.
    """
    state = load_weights(path, trust_checkpoint)
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise SsondoError(f"{path}: not a state dict of pretrained weights (expected a dict of tensors)")
    kept = {key: value for key, value in state.items() if not key.startswith("classifier.")}
    _load_strictly(path, backbone, kept, f"this {type(backbone).__name__}")
    return backbone


# --- checkpoints -------------------------------------------------------------------------------


def _training_config(student: Student) -> dict[str, Any]:
    """The student's settings in the layout from which the published package builds a model."""
    settings, front_end = student.settings, student.front_end.settings
    config: dict[str, Any] = {"sr": front_end.sample_rate, **_published_settings(student)}
    step_s = settings["window_s"] if settings["step_s"] is None else settings["step_s"]
    return {
        "student_model": config,
        "classification_head": {
            "head_type": "mlp",
            "n_classes": settings["n_outputs"],
            "pooling": "mean",
            "activation_att": None,
            "last_activation": "",
            "hidden_features_size": settings["hidden"],
        },
        "preprocess": {
            "logmelspec": {
                "win_len": front_end.window / front_end.sample_rate,
                "hop_len": front_end.hop_length / front_end.sample_rate,
                "n_mels": front_end.n_mels,
                "f_min": front_end.f_min,
                "f_max": front_end.f_max,
            },
            "slice_audio": {"win_len": settings["window_s"], "step_size": step_s},
        },
    }


def _published_settings(student: Student) -> dict[str, Any]:
    """The backbone's part of `training_config`; other people's architectures have a name only."""
    backbone = student.settings["backbone"]
    name = student.settings["architecture"]
    width = backbone.get("width_mult", 1.0)
    strides = tuple(backbone.get("strides", (2, 2, 2, 2)))
    if name == "mobilenetv3":
        return {
            "model_name": f"mn{round(10 * width):02d}_im",
            "pretrained_name": None,
            "width_mult": width,
            "reduced_tail": False,
            "dilated": False,
            "strides": strides,
            "relu_only": False,
            "input_dim_f": student.front_end.settings.n_mels,
            "input_dim_t": student.front_end.settings.n_frames(student.window),
            "se_dims": "c",
            "se_agg": "max",
            "se_r": 4,
        }
    if name == "dymn":
        return {
            "model_name": f"dymn{round(10 * width):02d}_im",
            "pretrained_name": None,
            "width_mult": width,
            "strides": strides,
            "pretrain_final_temp": float(student.model.temperature),  # type: ignore[arg-type]
        }
    if name == "eres2net":
        return {
            "model_name": "ERes2Net",
            "m_channels": backbone.get("m_channels", 16),
            "feat_dim": backbone.get("feat_dim", 128),
            "num_blocks": list(backbone.get("num_blocks", (3, 4, 6, 3, 3))),
            "pooling_func": "TSTP",
            "add_layer": True,
        }
    return {"model_name": name}


# What a published setting must be, because only that is implemented.
_ONLY = {
    "reduced_tail": (False,),
    "dilated": (False,),
    "relu_only": (False,),
    "se_dims": ("c",),
    "se_r": (4,),
    "pooling_func": ("TSTP",),
    "add_layer": (True,),
    "head_type": ("mlp",),
    "pooling": ("mean",),
    "last_activation": ("", None, "None"),
}


def _settings_of(path: str | PathLike[str], config: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `Student` from a `training_config`."""
    try:
        model, head = config["student_model"], config["classification_head"]
        log_mel, slicing = config["preprocess"]["logmelspec"], config["preprocess"]["slice_audio"]
        for part in (model, head):
            for key, allowed in _ONLY.items():
                if key in part and part[key] not in allowed:
                    raise SsondoError(f"{path}: {key} is {part[key]!r}, only {allowed[0]!r} is implemented")
        sample_rate = int(model["sr"])
        architecture, backbone = _backbone_of(model)
        front_end = {
            "sample_rate": sample_rate,
            "n_fft": round(log_mel["win_len"] * sample_rate),
            "hop_length": round(log_mel["hop_len"] * sample_rate),
            "n_mels": int(log_mel["n_mels"]),
            "f_min": float(log_mel["f_min"]),
            "f_max": float(log_mel["f_max"]),
        }
        return {
            "architecture": architecture,
            "n_outputs": int(head["n_classes"]),
            "window_s": float(slicing["win_len"]),
            "step_s": float(slicing["step_size"]),
            "front_end": {key: value for key, value in front_end.items() if value != getattr(STUDENT, key)},
            "backbone": backbone,
        }
    except (KeyError, TypeError) as error:
        raise SsondoError(f"{path}: its training_config is not that of a student ({error!r})") from None


def _backbone_of(model: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Architecture and its settings from `training_config.student_model`."""
    name = str(model["model_name"])
    if name.startswith("mn"):
        return "mobilenetv3", {"width_mult": float(model["width_mult"]), "strides": list(model["strides"])}
    if name.startswith("dymn"):
        return "dymn", {
            "width_mult": float(model["width_mult"]),
            "strides": list(model["strides"]),
            # Published training never lowers it, so what it started with is what it is used with.
            "temperature": float(model.get("pretrain_final_temp", 1.0)),
        }
    if name == "ERes2Net":
        return "eres2net", {
            "m_channels": int(model["m_channels"]),
            "feat_dim": int(model["feat_dim"]),
            "num_blocks": [int(n) for n in model["num_blocks"]],
        }
    raise SsondoError(f"student {name!r} is not known; there are mn.., dymn.. and ERes2Net")


def save_student(path: str | PathLike[str], student: Student, provenance: Mapping[str, Any] | None = None) -> str:
    """Write a student in the layout of the published checkpoints, in one step, with its digest beside it.

    Args:
        path: file to write.
        student: any mode, any device.
        provenance: plain values that say how it came about; no part of the digest.

    Returns:
        The digest: SHA-256 over tensors and settings, the same for the same weights.
    """
    settings = dict(student.settings)
    if settings["architecture"] == "dymn":
        settings["backbone"] = {**settings["backbone"], "temperature": float(student.model.temperature)}  # type: ignore[arg-type]
    state = {_PREFIX + key: value.detach().cpu().contiguous() for key, value in student.state_dict().items()}
    parts = {key: artefacts.array_digest(value.numpy()) for key, value in state.items()}
    digest = artefacts.content_digest({**parts, "settings": json.dumps(settings, sort_keys=True)})
    checkpoint = {
        "state_dict": state,
        "training_config": _training_config(student),
        "ssondo": {"format": _FORMAT, "settings": settings, "digest": digest, "provenance": dict(provenance or {})},
    }
    # Through an open file: given a name, torch would write that name into the file.
    with artefacts.replacing(path) as temporary, temporary.open("wb") as file:
        torch.save(checkpoint, file)
    artefacts.write_digest(path, digest)
    return digest


def load_student(
    path: str | PathLike[str], device: str | torch.device = "cpu", trust_checkpoint: bool = False
) -> Student:
    """Load a student: one of `save_student`, or a published S-SONDO checkpoint.

    Args:
        path: the `.ckpt` file.
        device: where to put it.
        trust_checkpoint: see `ssondo.weights.load_weights`.

    Returns:
        The student in evaluation mode.

    Raises:
        SsondoError: if the file cannot be read or is not a student.
    """
    checkpoint = load_weights(path, trust_checkpoint)
    if not isinstance(checkpoint, Mapping) or not {"state_dict", "training_config"} <= set(checkpoint):
        raise SsondoError(f"{path}: not a student checkpoint (a dict with state_dict and training_config)")
    own = checkpoint.get("ssondo")
    settings = _own_settings(path, own) if own else _settings_of(path, checkpoint["training_config"])
    name = settings["architecture"]
    if name not in students.ARCHITECTURES and not trust_checkpoint:
        raise SsondoError(
            f"{path}: refused, its architecture is code of somebody else ({name}); "
            "if you trust it, load it with trust_checkpoint=True"
        )
    state = {
        key.removeprefix(_PREFIX): value for key, value in checkpoint["state_dict"].items() if key.startswith(_PREFIX)
    }
    first = state.get("classification_head.mlp.0.weight")
    if first is None:
        raise SsondoError(f"{path}: not a student checkpoint (no {_PREFIX}classification_head.mlp.0.weight)")
    # The width of the hidden layer is not always in the published settings.
    student = Student(**{**settings, "hidden": first.shape[0]})
    _load_strictly(path, student, state, f"a {name} student")
    student.provenance = dict(own["provenance"]) if own else {}
    if student.model.prefers_channels_last:
        student.model.to(memory_format=torch.channels_last)
    return student.to(device).eval()


def _own_settings(path: str | PathLike[str], own: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `Student` from what `save_student` wrote."""
    if own.get("format") != _FORMAT:
        raise SsondoError(
            f"{path}: student checkpoint of format {own.get('format')}, this version reads {_FORMAT}; update ssondo"
        )
    return dict(own["settings"])


# --- the published interface -------------------------------------------------------------------

_HUB = "mohammedali2501/ssondo"
_TEACHERS = {"matpac": "MATPAC++", "m2d": "M2D"}
_STUDENTS = {"mobilenetv3": "MobileNetV3", "dymn": "DyMN", "eres2net": "ERes2Net"}
# Name, file stem under heads/, what it tells apart, number of classes.
_HEADS = {
    "esc50": ("environmental sounds (ESC-50)", 50),
    "us8k": ("urban sounds (UrbanSound8K)", 10),
    "fsd50k": ("sound events (FSD50K)", 200),
    "gtzan": ("music genres (GTZAN)", 10),
    "openmic": ("instruments in music (OpenMIC-2018)", 20),
    "nsynth": ("instrument families (NSynth)", 11),
    "magna-tag-a-tune": ("music tags (MagnaTagATune)", 50),
}


def list_models() -> dict[str, str]:
    """Names of the published models for `get_ssondo`, each with a description."""
    return {
        f"{teacher}-{student}": f"{student_name} distilled from {teacher_name}"
        for teacher, teacher_name in _TEACHERS.items()
        for student, student_name in _STUDENTS.items()
    }


def list_heads() -> dict[str, str]:
    """Names of the published classifiers for `get_ssondo(head=...)`, each with a description."""
    return {name: f"{what}, {n_classes} classes" for name, (what, n_classes) in _HEADS.items()}


def _from_hub(file: str, argument: str) -> Path:
    """Fetch a file of the published repository, or find it in the local cache."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    url = f"https://huggingface.co/{_HUB}/resolve/main/{file}"
    try:
        return Path(hf_hub_download(_HUB, file))
    except LocalEntryNotFoundError:
        raise TransientError(
            f"{file} is not on this machine and {_HUB} on the Hugging Face hub cannot be reached; download {url} "
            f"elsewhere, put it anywhere here and pass its path: get_ssondo({argument}='path/to/{Path(file).name}')"
        ) from None
    except EntryNotFoundError:
        raise SsondoError(f"{url}: not published (yet); pass the path of a checkpoint of your own instead") from None
    except (HfHubHTTPError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise TransientError(
            f"{url}: cannot be downloaded ({reason}); run it again later, or download the file elsewhere and pass its "
            f"path: get_ssondo({argument}='path/to/{Path(file).name}')"
        ) from None


def _checkpoint_path(checkpoint: str | PathLike[str]) -> Path:
    """A local file, or the published model of that name."""
    path = Path(checkpoint)
    if path.is_file():
        return path
    name = str(checkpoint)
    if name not in list_models():
        raise SsondoError(f"{name!r} is neither a file nor a published model; there are {', '.join(list_models())}")
    return _from_hub(f"{name.replace('-', '_')}.ckpt", "checkpoint")


def _published_head(head: str, embedding_dim: int, trust_checkpoint: bool) -> nn.Linear:
    path = Path(head)
    if not path.is_file():
        if head not in _HEADS:
            raise SsondoError(
                f"head {head!r} is neither 'linear', 'mlp', a file, nor one of {', '.join(_HEADS)} (list_heads())"
            )
        path = _from_hub(f"heads/{head}.pth", "head")
    state = load_weights(path, trust_checkpoint)
    prefix = "probe.linear_probe."
    try:
        weights = {name: state[prefix + name] for name in ("weight", "bias")}
    except (KeyError, TypeError, IndexError):
        raise SsondoError(f"{path}: not a classifier (no {prefix}weight and {prefix}bias)") from None
    layer = nn.Linear(embedding_dim, len(weights["bias"]))
    _load_strictly(path, layer, weights, f"a classifier of {embedding_dim}-dimensional embeddings")
    return layer


def _build_head(
    head: str, embedding_dim: int, n_classes: int | None, hidden_sizes: Sequence[int] | None, trust_checkpoint: bool
) -> nn.Module:
    if head not in ("linear", "mlp"):
        return _published_head(head, embedding_dim, trust_checkpoint)
    if n_classes is None:
        raise ValueError(f"n_classes is required with head={head!r}")
    if head == "linear":
        return nn.Linear(embedding_dim, n_classes)
    layers: list[nn.Module] = []
    width = embedding_dim
    for hidden in hidden_sizes or [512]:
        layers += [nn.Linear(width, hidden), nn.ReLU()]
        width = hidden
    return nn.Sequential(*layers, nn.Linear(width, n_classes))


class SsondoWrapper(nn.Module):
    """A student behind the interface of the published package: waveforms in, embeddings or logits out.

    Args:
        student_model: the student.
        return_logits: return logits and embeddings; see `forward`.
        head: classifier of embeddings, (batch, embedding_dim) -> (batch, n_classes).

    Attributes:
        embedding_dim: size of an embedding.
        backbone: the student without its mapping head.
    """

    def __init__(self, student_model: Student, return_logits: bool = False, head: nn.Module | None = None) -> None:
        super().__init__()
        self.student_model = student_model
        self.return_logits = return_logits
        self.head = head

    @property
    def embedding_dim(self) -> int:
        """Size of an embedding."""
        return self.student_model.embedding_dim

    @property
    def backbone(self) -> students.Backbone:
        """The student without its mapping head."""
        return self.student_model.model

    def freeze_backbone(self) -> None:
        """Exclude the student from training; a head stays trainable. Batch statistics stay fixed too."""
        self._set_trainable(False)

    def unfreeze_backbone(self) -> None:
        """Undo `freeze_backbone`."""
        self._set_trainable(True)

    def _set_trainable(self, trainable: bool) -> None:
        self.student_model.requires_grad_(trainable)
        self.train(self.training)

    def train(self, mode: bool = True) -> "SsondoWrapper":
        """Set the mode; a frozen student stays in evaluation mode, so that its embeddings stay what they are."""
        super().train(mode)
        if not any(parameter.requires_grad for parameter in self.student_model.parameters()):
            self.student_model.eval()
        return self

    def preprocess(self, x: Tensor) -> Tensor:
        """Log-mels of waveforms, shape (batch, samples) or (samples,): (batch, windows, mels, frames)."""
        return self.student_model.log_mel(x[None] if x.dim() == 1 else x)

    def get_embeddings(self, x: Tensor) -> Tensor:
        """Embed waveforms, shape (batch, samples) or (samples,), averaged over windows: (batch, embedding_dim)."""
        return self.student_model.embed_windows(self.preprocess(x)).mean(1)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Run the model on mono audio of any length.

        Args:
            x: waveforms at 32 kHz, shape (batch, samples) or (samples,).

        Returns:
            Without a head: embeddings of windows, (batch, windows, embedding_dim), with `return_logits`
            a pair of these and the mapping head's outputs (batch, n_outputs).
            With a head: logits (batch, n_classes), with `return_logits` a pair of these and the
            embeddings averaged over windows.
        """
        if self.head is not None:
            embeddings = self.get_embeddings(x)
            logits = self.head(embeddings)
            return (logits, embeddings) if self.return_logits else logits
        embeddings = self.student_model.embed_windows(self.preprocess(x))
        if self.return_logits:
            return embeddings, self.student_model.classification_head(embeddings)
        return embeddings


def get_ssondo(
    checkpoint: str | PathLike[str] = "matpac-mobilenetv3",
    head: str | None = None,
    n_classes: int | None = None,
    hidden_sizes: Sequence[int] | None = None,
    return_logits: bool = False,
    device: str = "cpu",
    trust_checkpoint: bool = False,
) -> SsondoWrapper:
    """Load a model that is ready to use, as the published package does.

    Args:
        checkpoint: name of a published model (see `list_models`), fetched from the Hugging Face hub
            and cached there; or the path of a `.ckpt` file, published or of `save_student`.
        head: classifier on top: "linear" or "mlp" with random weights, the name of a published one
            (see `list_heads`), or the path of its file. None for embeddings.
        n_classes: number of classes of a "linear" or "mlp" head.
        hidden_sizes: widths of the hidden layers of an "mlp" head; None for one of 512.
        return_logits: see `SsondoWrapper.forward`.
        device: where to put the model.
        trust_checkpoint: see `ssondo.weights.load_weights`.

    Returns:
        The model in evaluation mode.

    Raises:
        SsondoError: if a file cannot be fetched, read or used; the message says what to do.
        ValueError: if `n_classes` is missing.

    Example:
        >>> model = get_ssondo(head="esc50")
        >>> model(torch.zeros(1, 320_000)).shape
        torch.Size([1, 50])
    """
    student = load_student(_checkpoint_path(checkpoint), trust_checkpoint=trust_checkpoint)
    top = None if head is None else _build_head(head, student.embedding_dim, n_classes, hidden_sizes, trust_checkpoint)
    return SsondoWrapper(student, return_logits, top).to(device).eval()
