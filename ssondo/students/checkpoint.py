"""Checkpoints of students, in a layout that this library and the published package can both read.

save_student("student.ckpt", student, {"seed": 0})
student = load_student("student.ckpt")                   # also loads published .ckpt files
"""

import json
from collections.abc import Mapping
from os import PathLike
from typing import Any

import torch

from ssondo.audio.log_mel_settings import STUDENT
from ssondo.errors import SsondoError
from ssondo.storage import atomic_files
from ssondo.storage.weights import load_strictly, load_weights
from ssondo.students import ARCHITECTURES
from ssondo.students.student import Student

_PREFIX = "student_model."
_FORMAT = 1


def _training_config(student: Student) -> dict[str, Any]:
    """Return the student's settings in the layout from which the published package builds a model."""
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
    """Return the section of `training_config` for the backbone; a user-defined one has a name only."""
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


# The implemented values of published settings.
_IMPLEMENTED = {
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
    """Return arguments of `Student` from a `training_config`."""
    try:
        model, head = config["student_model"], config["classification_head"]
        log_mel, slicing = config["preprocess"]["logmelspec"], config["preprocess"]["slice_audio"]
        for section in (model, head):
            for key, implemented in _IMPLEMENTED.items():
                if key in section and section[key] not in implemented:
                    raise SsondoError(f"{path}: {key} is {section[key]!r}, but only {implemented[0]!r} is implemented")
        sample_rate = int(model["sr"])
        architecture, backbone = _backbone_of(path, model)
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
        raise SsondoError(f"{path}: the training_config is not that of a student ({error!r})") from None


def _backbone_of(path: str | PathLike[str], model: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the architecture and its options from `training_config.student_model`."""
    name = str(model["model_name"])
    if name.startswith("mn"):
        return "mobilenetv3", {"width_mult": float(model["width_mult"]), "strides": list(model["strides"])}
    if name.startswith("dymn"):
        return "dymn", {
            "width_mult": float(model["width_mult"]),
            "strides": list(model["strides"]),
            # The published training keeps the initial temperature.
            "temperature": float(model.get("pretrain_final_temp", 1.0)),
        }
    if name == "ERes2Net":
        return "eres2net", {
            "m_channels": int(model["m_channels"]),
            "feat_dim": int(model["feat_dim"]),
            "num_blocks": [int(n) for n in model["num_blocks"]],
        }
    raise SsondoError(f"{path}: model_name is {name!r}; it must begin with mn or dymn, or be ERes2Net")


def save_student(path: str | PathLike[str], student: Student, provenance: Mapping[str, Any] | None = None) -> str:
    """Write a student atomically in the layout of the published checkpoints, and its digest to a second file.

    Args:
        path: File that is written.
        student: A student in any mode on any device.
        provenance: Plain values that describe the origin of the student; they are not part of the digest.

    Returns:
        SHA-256 of tensors and settings; equal students have equal digests.
    """
    settings = dict(student.settings)
    if settings["architecture"] == "dymn":
        settings["backbone"] = {**settings["backbone"], "temperature": float(student.model.temperature)}  # type: ignore[arg-type]
    state = {_PREFIX + key: value.detach().cpu().contiguous() for key, value in student.state_dict().items()}
    tensors = {key: atomic_files.array_digest(value.numpy()) for key, value in state.items()}
    digest = atomic_files.content_digest({**tensors, "settings": json.dumps(settings, sort_keys=True)})
    checkpoint = {
        "state_dict": state,
        "training_config": _training_config(student),
        "ssondo": {"format": _FORMAT, "settings": settings, "digest": digest, "provenance": dict(provenance or {})},
    }
    # torch writes the name of a path into the file, so it gets an open file instead.
    with atomic_files.atomic_write(path) as temporary, temporary.open("wb") as file:
        torch.save(checkpoint, file)
    atomic_files.write_digest(path, digest)
    return digest


def load_student(
    path: str | PathLike[str],
    device: str | torch.device = "cpu",
    trust_checkpoint: bool = False,
    architecture: str | None = None,
) -> Student:
    """Load a student from a file that `save_student` wrote or from a published S-SONDO checkpoint.

    Args:
        path: Path of the `.ckpt` file.
        device: Device of the student.
        trust_checkpoint: Whether the file may contain objects or name an architecture of any module, which can run
            any code; see `ssondo.storage.weights.load_weights`.
        architecture: A user-defined architecture, "package.module:Class", that the file may name.

    Returns:
        The student in evaluation mode.

    Raises:
        SsondoError: If the file cannot be read or is not a student.
    """
    checkpoint = load_weights(path, trust_checkpoint)
    if not isinstance(checkpoint, Mapping) or not {"state_dict", "training_config"} <= set(checkpoint):
        raise SsondoError(f"{path}: not a student checkpoint (a dict with state_dict and training_config)")
    own = checkpoint.get("ssondo")
    settings = _own_settings(path, own) if own else _settings_of(path, checkpoint["training_config"])
    name = settings["architecture"]
    if name not in (*ARCHITECTURES, architecture) and not trust_checkpoint:
        raise SsondoError(
            f"{path}: refused, because its architecture is code outside this library ({name}); if the code is yours, "
            f'load the file with architecture="{name}"; if you trust the file, with trust_checkpoint=True'
        )
    state = {
        key.removeprefix(_PREFIX): value for key, value in checkpoint["state_dict"].items() if key.startswith(_PREFIX)
    }
    hidden_layer = state.get("classification_head.mlp.0.weight")
    if hidden_layer is None:
        raise SsondoError(f"{path}: not a student checkpoint (no {_PREFIX}classification_head.mlp.0.weight)")
    # Published settings do not always include the width of the hidden layer.
    student = Student(**{**settings, "hidden": hidden_layer.shape[0]})
    load_strictly(path, student, state, f"a {name} student")
    student.provenance = dict(own["provenance"]) if own else {}
    if student.model.prefers_channels_last:
        student.model.to(memory_format=torch.channels_last)
    return student.to(device).eval()


def _own_settings(path: str | PathLike[str], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments of `Student` from the entry that `save_student` added."""
    if own.get("format") != _FORMAT:
        raise SsondoError(
            f"{path}: student checkpoint of format {own.get('format')}, but this version reads {_FORMAT}; update ssondo"
        )
    return dict(own["settings"])
