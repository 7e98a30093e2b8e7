"""A user's own teacher: an ONNX file, a TorchScript file, or a dotted Python name.

Each takes waveforms, float32, shape (batch, samples), and returns embeddings of shape
(batch, embedding_dim).
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssondo.errors import SsondoError
from ssondo.registry import import_object
from ssondo.teachers import check_waveforms, embed_by_length


class ExternalTeacher:
    """A function from waveforms to embeddings, with its answers checked.

    Args:
        name: what error messages call it.
        function: (batch, samples) float32 tensor -> (batch, embedding_dim).
        sample_rate: in Hz, of the waveforms that it takes.
        embedding_dim: size of an embedding.
        n_parameters: number of learned values, 0 if unknown.
        device: where the function wants its waveforms.
        computes_on: the device that computes, if it is another one.

    Attributes:
        sample_rate, embedding_dim, n_parameters: as above.
        device: what it computes on.
    """

    # Its front-end, say, may square samples, which leaves the range of float16.
    bears_float16 = False

    def __init__(
        self,
        name: str,
        function: Callable[[Tensor], Any],
        *,
        sample_rate: int,
        embedding_dim: int,
        n_parameters: int = 0,
        device: str = "cpu",
        computes_on: str | None = None,
    ) -> None:
        self._name = name
        self._function = function
        self._device = device
        self.device = computes_on or device
        self.sample_rate = sample_rate
        self.embedding_dim = embedding_dim
        self.n_parameters = n_parameters

    @torch.no_grad()
    def __call__(self, waveforms: Tensor) -> Tensor:
        """Embed clips: (batch, samples) -> (batch, embedding_dim), float32.

        Raises:
            SsondoError: if the answer has another shape.
        """
        answer = self._function(check_waveforms(waveforms, self._name).to(self._device))
        if isinstance(answer, np.ndarray):
            answer = torch.from_numpy(answer)
        if not isinstance(answer, Tensor):
            raise SsondoError(f"teacher {self._name}: returned {type(answer).__name__}, expected a tensor or array")
        expected = (len(waveforms), self.embedding_dim)
        if tuple(answer.shape) != expected:
            raise SsondoError(
                f"teacher {self._name}: returned shape {tuple(answer.shape)} for waveforms "
                f"{tuple(waveforms.shape)}, expected (batch, embedding_dim) = {expected}"
            )
        return answer.float()

    def embed(self, waveforms: Sequence[Tensor], batch_size: int = 32) -> Tensor:
        """Embed clips of any lengths, each (samples,) -> (n, embedding_dim), float32, on the CPU."""
        return embed_by_length(self, waveforms, batch_size, self.embedding_dim)


def _needs_file(checkpoint: Path | None, kind: str) -> Path:
    if checkpoint is None:
        raise SsondoError(f"teacher of kind {kind!r} needs a file; give checkpoint=PATH")
    return checkpoint


def load_onnx(
    checkpoint: Path | None, device: str, *, sample_rate: int, embedding_dim: int, threads: int | None = None
) -> ExternalTeacher:
    """A teacher in an ONNX file with one input (batch, samples) and one output (batch, embedding_dim).

    Args:
        checkpoint: the file; weights in a file beside it are found.
        device: "cuda" uses the GPU if this onnxruntime can, else the CPU.
        sample_rate: in Hz, of the waveforms that it takes.
        embedding_dim: size of an embedding.
        threads: of onnxruntime; None for as many as torch uses.
    """
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as states

    path = _needs_file(checkpoint, "onnx")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or torch.get_num_threads()
    providers: list[str | tuple[str, dict[str, int]]] = ["CPUExecutionProvider"]
    if device.startswith("cuda") and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": torch.device(device).index or 0}))
    faults: tuple[type[Exception], ...] = (
        states.Fail,
        states.InvalidGraph,
        states.InvalidProtobuf,
        states.InvalidArgument,
        states.NotImplemented,
    )
    faults += (states.RuntimeException, states.NoSuchFile, states.ModelRequiresCompilation)
    try:
        session = onnxruntime.InferenceSession(path, options, providers=providers)
    except faults as error:
        raise SsondoError(f"{path}: not a usable ONNX file ({_one_line(error)})") from None
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or len(outputs) != 1:
        raise SsondoError(f"{path}: {len(inputs)} inputs and {len(outputs)} outputs; a teacher has one of each")

    def run(waveforms: Tensor) -> np.ndarray:
        try:
            return session.run(None, {inputs[0].name: waveforms.numpy()})[0]
        except faults as error:
            raise SsondoError(
                f"{path}: cannot embed waveforms {tuple(waveforms.shape)}, its input is {inputs[0].shape} "
                f"{inputs[0].type}; export it with free batch and length ({_one_line(error)})"
            ) from None

    return ExternalTeacher(
        path.name,
        run,
        sample_rate=sample_rate,
        embedding_dim=embedding_dim,
        n_parameters=_n_onnx_parameters(path),
        computes_on=device if "CUDAExecutionProvider" in session.get_providers() else "cpu",
    )


def _n_onnx_parameters(path: Path) -> int:
    import onnx

    graph = onnx.load(os.fspath(path), load_external_data=False).graph
    return sum(int(np.prod(tensor.dims)) for tensor in graph.initializer if tensor.dims)


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else f"{text[:300]} ..."


def load_torchscript(checkpoint: Path | None, device: str, *, sample_rate: int, embedding_dim: int) -> ExternalTeacher:
    """A teacher in a TorchScript file whose forward takes (batch, samples).

    Args:
        checkpoint: the file.
        device: a torch device.
        sample_rate: in Hz, of the waveforms that it takes.
        embedding_dim: size of an embedding.
    """
    path = _needs_file(checkpoint, "torchscript")
    try:
        module = torch.jit.load(path, map_location=device).eval()
    except (RuntimeError, ValueError) as error:
        raise SsondoError(f"{path}: not a TorchScript file ({_one_line(error)})") from None

    def run(waveforms: Tensor) -> Any:
        try:
            return module(waveforms)
        except RuntimeError as error:
            raise SsondoError(
                f"{path}: cannot embed waveforms {tuple(waveforms.shape)} ({_last_line(error)})"
            ) from None

    return ExternalTeacher(
        path.name,
        run,
        sample_rate=sample_rate,
        embedding_dim=embedding_dim,
        n_parameters=sum(parameter.numel() for parameter in module.parameters()),
        device=device,
    )


def _last_line(error: Exception) -> str:
    """Where TorchScript says the fault, below its traceback."""
    return next(line.strip() for line in reversed(f"{error} ".splitlines()) if line.strip())


def load_callable(
    checkpoint: Path | None, device: str, *, callable: str, sample_rate: int, embedding_dim: int
) -> ExternalTeacher:
    """A teacher in an importable module.

    Args:
        checkpoint: None, or a file; then the name is a factory, called with the file's path and
            the device, that returns the function.
        device: where the waveforms are put.
        callable: "package.module:name" of a function of waveforms (batch, samples).
        sample_rate: in Hz, of the waveforms that it takes.
        embedding_dim: size of an embedding.
    """
    function = import_object("teacher", callable)
    if checkpoint is not None:
        function = function(checkpoint, device)
    if not hasattr(function, "__call__"):  # noqa: B004 (an argument has the name of the built-in)
        raise SsondoError(f"teacher {callable!r} is a {type(function).__name__}; it must be a function of waveforms")
    parameters = function.parameters() if isinstance(function, torch.nn.Module) else ()
    return ExternalTeacher(
        callable,
        function,
        sample_rate=sample_rate,
        embedding_dim=embedding_dim,
        n_parameters=sum(parameter.numel() for parameter in parameters),
        device=device,
    )
