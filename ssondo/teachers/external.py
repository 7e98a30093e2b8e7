"""Teachers of the user: an ONNX file, a TorchScript file, or a function in an importable module.

Each maps float32 waveforms of shape (batch, samples) at `sample_rate` Hz to embeddings of shape
(batch, embedding_dim).
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssondo.errors import SsondoError
from ssondo.system.registry import import_object
from ssondo.teachers.teacher import check_waveforms, embed_by_length


class ExternalTeacher:
    """A teacher that is a function from waveforms to embeddings (a tensor or an array), which are checked.

    The waveforms are moved to `device` before the function is called; `computes_on` is the device that computes, if
    it is another one. `name` is used in error messages.
    """

    # The function may contain operations that overflow in float16, such as the square of a sample.
    float16_safe = False

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
        self._input_device = device
        self.device = computes_on or device
        self.sample_rate = sample_rate
        self.embedding_dim = embedding_dim
        self.n_parameters = n_parameters

    @torch.no_grad()
    def __call__(self, waveforms: Tensor) -> Tensor:
        """Embed clips of one length: (batch, samples) -> (batch, embedding_dim), float32.

        Raises:
            SsondoError: if the function returns another type or shape.
        """
        embeddings = self._function(check_waveforms(waveforms, self._name).to(self._input_device))
        if isinstance(embeddings, np.ndarray):
            embeddings = torch.from_numpy(embeddings)
        if not isinstance(embeddings, Tensor):
            raise SsondoError(
                f"teacher {self._name}: it returned {type(embeddings).__name__}, expected a tensor or an array"
            )
        expected = (len(waveforms), self.embedding_dim)
        if tuple(embeddings.shape) != expected:
            raise SsondoError(
                f"teacher {self._name}: it returned shape {tuple(embeddings.shape)} for waveforms of shape "
                f"{tuple(waveforms.shape)}, expected (batch, embedding_dim) = {expected}"
            )
        return embeddings.float()

    def embed(self, waveforms: Sequence[Tensor], batch_size: int = 32) -> Tensor:
        """Embed clips of any lengths, each (samples,) -> (len(waveforms), embedding_dim), float32, on the CPU."""
        return embed_by_length(self, waveforms, batch_size, self.embedding_dim)


def _required(checkpoint: Path | None, kind: str) -> Path:
    if checkpoint is None:
        raise SsondoError(f"teacher {kind!r} needs a file; give checkpoint=PATH")
    return checkpoint


@contextmanager
def _one_line_errors(message: str, errors: tuple[type[Exception], ...]) -> Iterator[None]:
    """Raise `SsondoError` with `message` and the reason in place of the exceptions of a runtime."""
    try:
        yield
    except errors as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        # TorchScript prints the traceback of the operation first and the reason last.
        reason = lines[-1] if "Traceback" in str(error) else " ".join(lines)
        raise SsondoError(f"{message} ({reason if len(reason) <= 300 else f'{reason[:300]} ...'})") from None


def load_onnx(
    checkpoint: Path | None, device: str, *, sample_rate: int, embedding_dim: int, threads: int | None = None
) -> ExternalTeacher:
    """Load an ONNX file with one input (batch, samples) and one output (batch, embedding_dim).

    Weights in separate files are read from its folder. A GPU is used if the installed onnxruntime supports it, else
    the CPU, with `threads` threads or as many as torch uses.

    Raises:
        SsondoError: if there is no file or it is not such a model.
    """
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as states

    path = _required(checkpoint, "onnx")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or torch.get_num_threads()
    providers: list[str | tuple[str, dict[str, int]]] = ["CPUExecutionProvider"]
    if device.startswith("cuda") and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": torch.device(device).index or 0}))
    errors = (
        *(states.Fail, states.InvalidGraph, states.InvalidProtobuf, states.InvalidArgument, states.NotImplemented),
        *(states.RuntimeException, states.NoSuchFile, states.ModelRequiresCompilation),
    )
    with _one_line_errors(f"{path}: not a usable ONNX file", errors):
        session = onnxruntime.InferenceSession(path, options, providers=providers)
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or len(outputs) != 1:
        raise SsondoError(f"{path}: {len(inputs)} inputs and {len(outputs)} outputs; a teacher has one of each")

    def run(waveforms: Tensor) -> np.ndarray:
        message = (
            f"{path}: cannot embed waveforms of shape {tuple(waveforms.shape)}, its input is {inputs[0].shape} "
            f"{inputs[0].type}; export it with dynamic batch and length"
        )
        with _one_line_errors(message, errors):
            embeddings: np.ndarray = session.run(None, {inputs[0].name: waveforms.numpy()})[0]
        return embeddings

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


def load_torchscript(checkpoint: Path | None, device: str, *, sample_rate: int, embedding_dim: int) -> ExternalTeacher:
    """Load a TorchScript file whose forward takes (batch, samples).

    Raises:
        SsondoError: if there is no file or it is not TorchScript.
    """
    path = _required(checkpoint, "torchscript")
    with _one_line_errors(f"{path}: not a usable TorchScript file", (RuntimeError, ValueError)):
        module = torch.jit.load(path, map_location=device).eval()

    def run(waveforms: Tensor) -> Any:
        message = f"{path}: cannot embed waveforms of shape {tuple(waveforms.shape)}"
        with _one_line_errors(message, (RuntimeError,)):
            return module(waveforms)

    return ExternalTeacher(
        path.name,
        run,
        sample_rate=sample_rate,
        embedding_dim=embedding_dim,
        n_parameters=sum(parameter.numel() for parameter in module.parameters()),
        device=device,
    )


def load_callable(
    checkpoint: Path | None, device: str, *, callable: str, sample_rate: int, embedding_dim: int
) -> ExternalTeacher:
    """Load a function of waveforms from an importable module; `callable` is its "package.module:name".

    With a checkpoint, `callable` is a factory: it is called with the path of the file and the device, and returns the
    function.

    Raises:
        SsondoError: if the module or the name does not exist, or the object cannot be called.
    """
    function = import_object("teacher", callable)
    if checkpoint is not None:
        function = function(checkpoint, device)
    if not hasattr(function, "__call__"):  # noqa: B004 (an argument shadows the built-in function `callable`)
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
