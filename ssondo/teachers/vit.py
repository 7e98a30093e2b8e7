"""MATPAC++ and M2D: a ViT-Base over patches of a log-mel. They differ in their front-end and their parameter names.

MATPAC++: Quelennec et al., 2025. Weights `matpac_plus_6s_2048_enconly.pt`, release "MATPAC++" of
github.com/aurianworld/matpac.

M2D: Niizumi et al., Masked Modeling Duo, 2023. Weights `m2d_vit_base-80x608p16x16-221006-mr7_enconly.zip`, release
v0.1.0 of github.com/nttcslab/m2d, file `checkpoint-300.pth`, under NTT's own licence (evaluation and research only).
"""

import re
import zipfile
from collections import OrderedDict, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssondo.audio.log_mel import LogMel, slice_windows
from ssondo.audio.log_mel_settings import M2D, MATPAC
from ssondo.errors import SsondoError
from ssondo.storage.weights import load_strictly, load_weights
from ssondo.teachers.teacher import check_waveforms

_DIM = 768
_DEPTH = 12
_N_HEADS = 12
_WINDOW_S = 10
_T = TypeVar("_T", bound="ViTTeacher")
# Limits memory for clips of several minutes; a window of 10 s has two chunks.
_CHUNKS_AT_ONCE = 64


class Attention(nn.Module):
    """Multi-head self-attention with the parameter names of timm."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(_DIM, 3 * _DIM)
        self.proj = nn.Linear(_DIM, _DIM)

    def forward(self, tokens: Tensor) -> Tensor:
        """Transform tokens, (batch, tokens, dim), without changing their shape."""
        batch, n_tokens, dim = tokens.shape
        qkv = self.qkv(tokens).reshape(batch, n_tokens, 3, _N_HEADS, dim // _N_HEADS)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        attended = F.scaled_dot_product_attention(query, key, value)
        return self.proj(attended.transpose(1, 2).reshape(batch, n_tokens, dim))


class Block(nn.Module):
    """Pre-norm transformer block with the parameter names of timm."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(_DIM, eps=1e-6)
        self.attn = Attention()
        self.norm2 = nn.LayerNorm(_DIM, eps=1e-6)
        layers = {"fc1": nn.Linear(_DIM, 4 * _DIM), "act": nn.GELU(), "fc2": nn.Linear(4 * _DIM, _DIM)}
        self.mlp = nn.Sequential(OrderedDict(layers))

    def forward(self, tokens: Tensor) -> Tensor:
        """Transform tokens, (batch, tokens, dim), without changing their shape."""
        tokens = tokens + self.attn(self.norm1(tokens))
        return tokens + self.mlp(self.norm2(tokens))


class PatchEmbed(nn.Module):
    """Projection of each patch of a log-mel to a token; tokens are ordered by frequency, then by time."""

    def __init__(self, patch: tuple[int, int]) -> None:
        super().__init__()
        self.proj = nn.Conv2d(1, _DIM, kernel_size=patch, stride=patch)

    def forward(self, log_mel: Tensor) -> Tensor:
        """Map log-mels, (batch, mels, frames), to tokens, (batch, patches, dim)."""
        return self.proj(log_mel[:, None]).flatten(2).mT


class Encoder(nn.Module):
    """The transformer blocks and the final layer norm."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(_DEPTH))
        self.norm = nn.LayerNorm(_DIM, eps=1e-6)

    def encode(self, tokens: Tensor) -> Tensor:
        """Transform tokens, (batch, tokens, dim), without changing their shape."""
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)


class ViTTeacher(Encoder):
    """A teacher that is a ViT: it cuts log-mels into chunks, encodes them, and averages over time.

    Args:
        front_end: Front-end that maps waveforms to log-mels.
        n_frames: Number of frames in a chunk, which is the length of the position embedding.
        patch: Size of a patch in (mels, frames).
    """

    sample_rate: int
    embedding_dim: int
    float16_safe = True

    def __init__(self, front_end: LogMel, n_frames: int = 608, patch: tuple[int, int] = (16, 16)) -> None:
        super().__init__()
        self.front_end = front_end
        self.patch_frames = patch[1]
        self.grid = (front_end.settings.n_mels // patch[0], n_frames // patch[1])
        self.sample_rate = front_end.settings.sample_rate
        self.embedding_dim = self.grid[0] * _DIM
        self.patch_embed = PatchEmbed(patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, _DIM))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.grid[0] * self.grid[1], _DIM))

    @property
    def n_parameters(self) -> int:
        """Number of parameters."""
        return sum(parameter.numel() for parameter in self.parameters())

    def log_mel(self, waveforms: Tensor) -> Tensor:
        """Normalised log-mels, zero-padded to whole patches: (n, samples) -> (n, mels, frames)."""
        missing = self.front_end.settings.min_samples - waveforms.shape[-1]
        log_mel = self.normalise(self.front_end(F.pad(waveforms, (0, max(0, missing)))))
        # Zero is the mean of the training data after normalisation, not silence.
        return F.pad(log_mel, (0, -log_mel.shape[-1] % self.patch_frames))

    def normalise(self, log_mel: Tensor) -> Tensor:
        """Apply statistics that the checkpoint holds; by default the front-end has normalised already."""
        return log_mel

    @property
    def device(self) -> str:
        """Device of the parameters."""
        return str(self.cls_token.device)

    def windows(self, waveforms: Tensor) -> Tensor:
        """Cut clips longer than 10 s into windows of 10 s: (batch, samples) -> (batch, windows, samples)."""
        window = _WINDOW_S * self.sample_rate
        return waveforms[:, None] if waveforms.shape[-1] <= window else slice_windows(waveforms, window)

    def _chunk_tokens(self, log_mel: Tensor) -> Tensor:
        """Embed each time step of a chunk: (n, mels, frames) -> (n, steps, embedding_dim)."""
        n_chunks, rows, steps = len(log_mel), self.grid[0], log_mel.shape[-1] // self.patch_frames
        positions = self.pos_embed[:, 1:].unflatten(1, self.grid)[:, :, :steps].flatten(1, 2)
        class_token = (self.cls_token + self.pos_embed[:, :1]).expand(n_chunks, -1, -1)
        tokens = self.encode(torch.cat([class_token, self.patch_embed(log_mel) + positions], dim=1))
        return tokens[:, 1:].unflatten(1, (rows, steps)).transpose(1, 2).flatten(2)

    def encode_log_mel(self, log_mel: Tensor) -> Tensor:
        """Embed log-mels of whole patches, averaged over time: (n, mels, frames) -> (n, embedding_dim)."""
        frames_per_chunk = self.grid[1] * self.patch_frames
        n_full = log_mel.shape[-1] // frames_per_chunk
        full, rest = log_mel.split([n_full * frames_per_chunk, log_mel.shape[-1] - n_full * frames_per_chunk], dim=-1)
        steps = []
        if n_full:
            chunks = full.unflatten(-1, (n_full, frames_per_chunk)).transpose(1, 2).flatten(0, 1)
            encoded = torch.cat([self._chunk_tokens(part) for part in chunks.split(_CHUNKS_AT_ONCE)])
            steps.append(encoded.unflatten(0, (len(log_mel), n_full)).flatten(1, 2))
        if rest.shape[-1]:
            steps.append(torch.cat([self._chunk_tokens(part) for part in rest.split(_CHUNKS_AT_ONCE)]))
        return torch.cat(steps, dim=1).float().mean(dim=1)

    def forward(self, waveforms: Tensor) -> Tensor:
        """Embed clips of one length: (batch, samples) -> (batch, embedding_dim), float32."""
        waveforms = check_waveforms(waveforms, type(self).__name__)
        windows = self.windows(waveforms.to(self.cls_token.device))
        embeddings = self.encode_log_mel(self.log_mel(windows.flatten(0, 1)))
        return embeddings.unflatten(0, windows.shape[:2]).mean(dim=1)

    @torch.no_grad()
    def embed(self, waveforms: Sequence[Tensor], batch_size: int = 32) -> Tensor:
        """Embed clips of any lengths, each (samples,) -> (len(waveforms), embedding_dim), float32, on the CPU.

        A batch consists of windows that have the same number of patches.
        """
        rows_and_windows: dict[int, list[tuple[int, Tensor]]] = defaultdict(list)
        counts = torch.zeros(len(waveforms), 1)
        for row, waveform in enumerate(waveforms):
            windows = self.windows(check_waveforms(waveform[None], type(self).__name__))[0]
            rows_and_windows[windows.shape[-1]].extend((row, window) for window in windows)
            counts[row] = len(windows)
        rows_and_log_mels: dict[int, list[tuple[int, Tensor]]] = defaultdict(list)
        for rows, batch in _batches(rows_and_windows, batch_size):
            log_mels = self.log_mel(batch.to(self.cls_token.device))
            rows_and_log_mels[log_mels.shape[-1]].extend(zip(rows, log_mels, strict=True))
        sums = torch.zeros(len(waveforms), self.embedding_dim)
        for rows, batch in _batches(rows_and_log_mels, batch_size):
            sums.index_add_(0, torch.tensor(rows), self.encode_log_mel(batch).cpu())
        return sums / counts


def _batches(groups: dict[int, list[tuple[int, Tensor]]], batch_size: int) -> Iterator[tuple[list[int], Tensor]]:
    """Yield rows and stacked tensors of each group in batches of at most `batch_size`."""
    for group in groups.values():
        for start in range(0, len(group), batch_size):
            rows, tensors = zip(*group[start : start + batch_size], strict=True)
            yield list(rows), torch.stack(tensors)


class Matpac(ViTTeacher):
    """MATPAC++: 86M parameters, embeddings of size 3840."""

    def __init__(self) -> None:
        super().__init__(LogMel(MATPAC))
        self.student_encoder = Encoder()
        del self.blocks, self.norm

    def encode(self, tokens: Tensor) -> Tensor:
        """Encode tokens with the blocks that the published file holds under `student_encoder`."""
        return self.student_encoder.encode(tokens)


class M2DTeacher(ViTTeacher):
    """M2D: 86M parameters, embeddings of size 3840."""

    norm_stats: Tensor

    def __init__(self, n_frames: int = 608, patch: tuple[int, int] = (16, 16)) -> None:
        # `normalise` applies the statistics of the checkpoint instead of the front-end.
        super().__init__(LogMel(replace(M2D, mean=0.0, std=1.0)), n_frames, patch)
        self.register_buffer("norm_stats", torch.tensor([M2D.mean, M2D.std]))

    def normalise(self, log_mel: Tensor) -> Tensor:
        """Subtract the mean and divide by the standard deviation that the checkpoint holds."""
        return (log_mel - self.norm_stats[0]) / self.norm_stats[1]


def load_matpac(checkpoint: Path | None, device: str, *, trust_checkpoint: bool = False) -> Matpac:
    """Load MATPAC++ from the published encoder-only file, `matpac_plus_6s_2048_enconly.pt`.

    Raises:
        SsondoError: if there is no checkpoint or it holds another model.
    """
    if checkpoint is None:
        raise SsondoError(
            "teacher 'matpac' needs its checkpoint: matpac_plus_6s_2048_enconly.pt, "
            "release MATPAC++ of https://github.com/aurianworld/matpac"
        )
    return _ready(Matpac(), _state_dict(checkpoint, trust_checkpoint), checkpoint, device)


def load_m2d(checkpoint: Path | None, device: str, *, trust_checkpoint: bool = False) -> M2DTeacher:
    """Load M2D from the published encoder-only file, `checkpoint-300.pth`, its zip archive, or the unpacked folder.

    The size of the input and of a patch are read from the name of the archive or folder; 80x608p16x16 is assumed if
    no name contains them.

    Raises:
        SsondoError: if there is no checkpoint or it holds another model.
    """
    if checkpoint is None:
        raise SsondoError(
            "teacher 'm2d' needs its checkpoint: m2d_vit_base-80x608p16x16-221006-mr7_enconly.zip, release v0.1.0 of "
            "https://github.com/nttcslab/m2d (NTT's own licence: evaluation and research)"
        )
    n_frames, patch = _m2d_sizes(checkpoint)
    model = M2DTeacher(n_frames, patch)
    # A file without statistics belongs to a model that was trained with those of the preset.
    weights = {"norm_stats": model.norm_stats, **_state_dict(_m2d_file(checkpoint), trust_checkpoint)}
    return _ready(model, weights, checkpoint, device)


def _m2d_file(checkpoint: Path) -> Path:
    if not checkpoint.is_dir():
        return checkpoint
    files = sorted(checkpoint.glob("*.pth"))
    if len(files) != 1:
        raise SsondoError(f"{checkpoint}: this folder has {len(files)} .pth files, expected one; give the file's path")
    return files[0]


def _m2d_sizes(checkpoint: Path) -> tuple[int, tuple[int, int]]:
    """Read the frames of a chunk and the patch size from a name like m2d_vit_base-80x608p16x16-221006-mr7_enconly."""
    names = [checkpoint.name, checkpoint.absolute().parent.name]
    if checkpoint.is_file() and zipfile.is_zipfile(checkpoint):
        with zipfile.ZipFile(checkpoint) as archive:
            names += archive.namelist()
    for name in names:
        sizes = re.search(r"-(\d+)x(\d+)p(\d+)x(\d+)(p32k)?(?:-|$)", name)
        if sizes is None:
            continue
        n_mels, n_frames, *patch = (int(size) for size in sizes.groups()[:4])
        if sizes[5] or n_mels != M2D.n_mels or n_mels % patch[0] or n_frames % patch[1]:
            raise SsondoError(
                f"{checkpoint}: this M2D has the input {sizes[0].strip('-')}; only 16 kHz with {M2D.n_mels} mels is "
                "supported"
            )
        return n_frames, (patch[0], patch[1])
    return 608, (16, 16)


def _state_dict(checkpoint: Path, trust_checkpoint: bool) -> dict[str, Tensor]:
    """Read a state dict; M2D's training script stores it under the key `model`."""
    weights: Any = load_weights(checkpoint, trust_checkpoint)
    if isinstance(weights, dict) and isinstance(weights.get("model"), dict):
        weights = weights["model"]
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise SsondoError(
            f"{checkpoint}: it holds no state dict, neither directly nor under the key 'model'; check that it is the "
            "file of this teacher"
        )
    return weights


def _ready(model: _T, weights: dict[str, Tensor], checkpoint: Path, device: str) -> _T:
    """Load exactly `weights` into `model`, freeze it, and move it to `device`."""
    load_strictly(checkpoint, model, weights, f"the encoder of {type(model).__name__}")
    model.requires_grad_(False)
    return model.eval().to(device)
