"""A student as one ONNX file, for programs without torch: waveforms in, embeddings out."""

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
# Rounding makes 1e-5 of the largest value at most; a wrong graph, such as a length that was frozen, makes 1.
_TOLERANCE = 1e-3
# What torch.export is told that the input may be; the file has no such bounds.
_MAX_BATCH, _MAX_SAMPLES = 4096, 1 << 30


class _Embed(nn.Module):
    def __init__(self, wrapper: SsondoWrapper) -> None:
        super().__init__()
        self.wrapper = wrapper

    def forward(self, waveforms: Tensor) -> Tensor:
        return self.wrapper.get_embeddings(waveforms)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's own remarks, which are of operators that no student has."""
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
    """Write a student as one ONNX file: waveforms in, embeddings out.

    It takes (batch, samples), of any batch and length, and has (batch, embedding_dim) for an answer; the
    front-end is in it. The metadata hold `sample_rate`, of the waveforms, and `embedding_dim`. Before
    the file has its name, onnxruntime embeds noise of two lengths with it, and torch does.

    Args:
        student: checkpoint of a student.
        out: ONNX file to write.
        architecture: a class of your own, "package.module:Class", that the checkpoint may name.

    Raises:
        SsondoError: if a package is missing, the file is not a student, torch cannot export it, or
            onnxruntime finds other embeddings.
    """
    missing = [package for package in _NEEDED if importlib.util.find_spec(package) is None]
    if missing:
        raise SsondoError(
            f"export needs the package {missing[0]}; install it in the folder of this project with: "
            "pip install '.[export]'"
        )
    if not student.is_file():
        raise SsondoError(f"{student}: no such checkpoint of a student")
    model = SsondoWrapper(load_student(student, architecture=architecture)).eval()
    window = model.student_model.window
    shortest = 1 if model.student_model.add_last else window
    # One sample less than a window is padded, and the longer one has a remainder.
    lengths = (max(shortest, window - 1), 2 * window + window // 2)
    with atomic_write(out) as temporary:
        _write(model, temporary, student, shortest, lengths[1])
        difference = max(_difference(model, temporary, n_samples) for n_samples in lengths)
        if not difference <= _TOLERANCE:
            raise SsondoError(
                f"{student}: not exported, onnxruntime's embeddings of noise differ from torch's by {difference:.1e} "
                f"of the largest value, more than {_TOLERANCE:g}"
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
    assert program is not None  # it is with dynamo
    program.model.metadata_props.update(
        {"sample_rate": str(model.sample_rate), "embedding_dim": str(model.embedding_dim)}
    )
    program.save(path, external_data=False)


@torch.no_grad()
def _difference(model: SsondoWrapper, path: Path, n_samples: int) -> float:
    """The largest difference between onnxruntime's and torch's embeddings of noise, over the largest value."""
    noise = 0.1 * torch.randn(3, n_samples, generator=torch.Generator().manual_seed(0))
    exported = load_onnx(path, "cpu", sample_rate=model.sample_rate, embedding_dim=model.embedding_dim)
    expected = model.get_embeddings(noise)
    return float((exported(noise) - expected).abs().max() / expected.abs().max().clamp_min(1e-30))
