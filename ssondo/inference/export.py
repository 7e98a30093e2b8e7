"""Export of a student to one ONNX file that maps waveforms to embeddings, for programs without torch."""

import importlib.util
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from ssondo.errors import SsondoError
from ssondo.inference.wrapper import SsondoWrapper
from ssondo.storage.atomic_files import atomic_write
from ssondo.students.checkpoint import load_student
from ssondo.teachers.external import load_onnx

log = logging.getLogger(__name__)

_NEEDED = ("onnx", "onnxruntime", "onnxscript")
# Relative to the largest value, rounding differs by at most 1e-5; a wrong graph, e.g. with a fixed length, by about 1.
_TOLERANCE = 1e-3
# torch.export requires upper bounds of dynamic sizes; the exported file has none.
_MAX_BATCH, _MAX_SAMPLES = 4096, 1 << 30


class _Embed(nn.Module):
    """A module whose forward computes embeddings averaged over windows."""

    def __init__(self, wrapper: SsondoWrapper) -> None:
        super().__init__()
        self.wrapper = wrapper

    def forward(self, waveforms: Tensor) -> Tensor:
        return self.wrapper.get_embeddings(waveforms)


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the exporter's messages, which concern operators that no student uses."""
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    exporter.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        exporter.setLevel(level)


def export(*, student: Path, out: Path, architecture: str | None = None) -> None:
    """Export a student to one ONNX file that maps waveforms to embeddings.

    The input has the shape (batch, samples), with any batch and length, and the output (batch, embedding_dim); the
    front-end is part of the graph. The metadata of the file are `sample_rate`, in Hz, and `embedding_dim`. Before the
    file gets its final name, the embeddings of noise of two lengths by onnxruntime are compared with those by torch.

    Args:
        student: Path of the student checkpoint.
        out: Path of the ONNX file that is written.
        architecture: Class of the student, "package.module:Class", if it is not one of the library's architectures.

    Raises:
        SsondoError: if a package is missing, the file is not a student, torch cannot export it, or the embeddings by
            onnxruntime differ.
    """
    missing = [package for package in _NEEDED if importlib.util.find_spec(package) is None]
    if missing:
        raise SsondoError(
            f"export needs the package {missing[0]}; install it in the folder of this project with: "
            "pip install '.[export]'"
        )
    if not student.is_file():
        raise SsondoError(f"{student}: this student checkpoint does not exist")
    model = SsondoWrapper(load_student(student, architecture=architecture)).eval()
    window = model.student_model.window
    shortest = 1 if model.student_model.add_last else window
    # The first is padded to a window; the second has a last window that is incomplete.
    lengths = (max(shortest, window - 1), 2 * window + window // 2)
    with atomic_write(out) as temporary:
        _write(model, temporary, student, shortest, lengths[1])
        difference = max(_difference(model, temporary, n_samples) for n_samples in lengths)
        if not difference <= _TOLERANCE:
            raise SsondoError(
                f"{student}: the export is wrong: the embeddings of noise by onnxruntime and torch differ by "
                f"{difference:.1e} of the largest value, more than {_TOLERANCE:g}"
            )
        size = temporary.stat().st_size
    log.info(
        "export: %s, %.1f MB, (batch, samples) at %d Hz to (batch, %d); onnxruntime differs from torch by %.1e of the "
        "largest value, on noise of %s samples",
        out,
        size / 1e6,
        model.sample_rate,
        model.embedding_dim,
        difference,
        " and ".join(f"{n_samples:,}" for n_samples in lengths),
    )


def _write(model: SsondoWrapper, path: Path, student: Path, shortest: int, example: int) -> None:
    sizes = {
        0: torch.export.Dim("batch", max=_MAX_BATCH),
        1: torch.export.Dim("samples", min=shortest, max=_MAX_SAMPLES),
    }
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                _Embed(model).eval(),
                (torch.zeros(2, example),),
                dynamo=True,
                verbose=False,
                input_names=["waveforms"],
                output_names=["embeddings"],
                dynamic_shapes=(sizes,),
            )
    except torch.onnx.OnnxExporterError as error:
        reason = " ".join(str(error.__cause__ or error).split())[:300]
        raise SsondoError(f"{student}: torch cannot export this architecture to ONNX ({reason})") from error
    assert program is not None  # torch.onnx.export returns a program if dynamo is True
    program.model.metadata_props.update(
        {"sample_rate": str(model.sample_rate), "embedding_dim": str(model.embedding_dim)}
    )
    program.save(path, external_data=False)


@torch.no_grad()
def _difference(model: SsondoWrapper, path: Path, n_samples: int) -> float:
    """Return the largest difference of the embeddings of noise by onnxruntime and torch, over the largest value."""
    noise = 0.1 * torch.randn(3, n_samples, generator=torch.Generator().manual_seed(0))
    exported = load_onnx(path, "cpu", sample_rate=model.sample_rate, embedding_dim=model.embedding_dim)
    expected = model.get_embeddings(noise)
    return float((exported(noise) - expected).abs().max() / expected.abs().max().clamp_min(1e-30))
