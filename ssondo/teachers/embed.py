"""Teacher embeddings of an audio shard.

    ssondo embed --audio audio/train-0000.h5 --teacher '{"kind": "matpac"}' --checkpoint matpac.pt --out train-0000.h5

Decoding and resampling run in threads while the model works on the batch before.
"""

import logging
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssondo import teachers
from ssondo.audio.codec import decode_mono, resample_to
from ssondo.errors import SsondoError
from ssondo.storage.atomic_files import clip_list_digest, file_digest
from ssondo.storage.shards.audio import AudioShard
from ssondo.storage.shards.embedding import ENVIRONMENT_OF, EmbeddingShardWriter
from ssondo.system.allocator import disable_malloc_trim
from ssondo.system.device import amp_dtype, check_precision, disable_tf32, resolve_device
from ssondo.system.hardware import describe_machine, n_cores
from ssondo.system.progress import progress_bar

log = logging.getLogger(__name__)

_MAX_WORKERS = 8
# Sound that is held at once, in seconds; bounds memory where clips are minutes long.
_BATCH_SECONDS = 1800
# Share of a shard's clips whose embeddings may be not finite.
_MOST_LEFT_OUT = 0.01


def load_teacher_from_config(teacher: dict[str, Any], checkpoint: Path | None, device: str) -> teachers.Teacher:
    """The teacher that a config section describes, its keys `kind` and what that kind takes."""
    if "kind" not in teacher:
        raise SsondoError(f"teacher {teacher}: no kind; one of {', '.join(teachers.KINDS)}")
    return teachers.load(str(teacher["kind"]), checkpoint, device, **_options(teacher))


def _options(teacher: dict[str, Any]) -> dict[str, Any]:
    # Where the checkpoint came from is settled: it is a file by now.
    return {key: value for key, value in teacher.items() if key not in ("kind", "checkpoint") and value is not None}


def checkpoint_sha256(checkpoint: Path | None) -> str:
    """SHA-256 of a checkpoint's bytes; empty without a checkpoint.

    Raises:
        SsondoError: if it is not a file.
    """
    if checkpoint is None:
        return ""
    if not checkpoint.is_file():
        raise SsondoError(f"{checkpoint}: {'a folder, name the file' if checkpoint.is_dir() else 'no such checkpoint'}")
    return file_digest(checkpoint)


def n_workers() -> int:
    """Threads that decode: as many as this process may use, within reason."""
    return min(_MAX_WORKERS, n_cores())


def _waveform(shard: AudioShard, row: int, blob: bytes, sample_rate: int) -> Tensor:
    try:
        waveform = resample_to(decode_mono(blob, shard.sample_rate), shard.sample_rate, sample_rate)
    except SsondoError as error:
        raise SsondoError(f"{shard.path}: clip {shard.clip_ids[row]}: {error}") from None
    if not waveform.size:
        raise SsondoError(f"{shard.path}: clip {shard.clip_ids[row]} has no samples; make the shard again")
    return torch.from_numpy(np.ascontiguousarray(waveform))


def read_waveforms(shard: AudioShard, sample_rate: int, ahead: int) -> Iterator[tuple[int, Tensor]]:
    """Decode and resample the clips that are there, in order, `ahead` clips in advance.

    Args:
        shard: an audio shard.
        sample_rate: of the waveforms in Hz.
        ahead: how many clips may wait, decoded, for the model.

    Yields:
        Row of a clip and its waveform, float32, shape (samples,).

    Raises:
        SsondoError: if a clip cannot be decoded; it is named.
    """
    pending: deque[tuple[int, Future[Tensor]]] = deque()
    with ThreadPoolExecutor(n_workers(), thread_name_prefix="decode") as pool:
        try:
            for row in map(int, shard.ok):
                pending.append((row, pool.submit(_waveform, shard, row, shard.blob(row), sample_rate)))
                if len(pending) > ahead:
                    ready, future = pending.popleft()
                    yield ready, future.result()
            while pending:
                ready, future = pending.popleft()
                yield ready, future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def batches(
    clips: Iterator[tuple[int, Tensor]], sample_rate: int, size: int
) -> Iterator[tuple[list[int], list[Tensor]]]:
    """Rows and waveforms, `size` clips at once, or fewer where they are long."""
    rows: list[int] = []
    waveforms: list[Tensor] = []
    n_samples = 0
    for row, waveform in clips:
        rows.append(row)
        waveforms.append(waveform)
        n_samples += len(waveform)
        if len(rows) == size or n_samples >= _BATCH_SECONDS * sample_rate:
            yield rows, waveforms
            rows, waveforms, n_samples = [], [], 0
    if rows:
        yield rows, waveforms


def embed(
    *,
    audio: Path,
    out: Path,
    teacher: dict[str, Any],
    checkpoint: Path | None = None,
    batch_size: int = 32,
    dtype: str = "float16",
    precision: str = "auto",
    device: str = "auto",
) -> None:
    """Embed every clip of an audio shard with a teacher.

    A clip whose embedding is not finite (silence, for a teacher that divides by the level) is left out
    and named; more than one in a hundred are a fault of the teacher.

    Args:
        audio: the audio shard.
        out: the embedding shard to write; it holds the clips that are there, in order.
        teacher: as JSON: its kind and what that kind takes, e.g. {"kind": "matpac"}.
        checkpoint: the teacher's weights.
        batch_size: clips at once.
        dtype: of the embeddings on disk, float16 or float32.
        precision: of the arithmetic on a GPU: float32, fp16, bf16, or auto for fp16 where the teacher is
            known to bear it, which those built in are; a CPU computes in float32.
        device: cuda, cpu, or auto for a GPU if there is one.

    Raises:
        SsondoError: if the shard or the teacher is not there or not usable, or more than one in a
            hundred embeddings are not finite; a clip is named.
    """
    started = time.monotonic()
    if dtype not in ("float16", "float32"):
        raise SsondoError(f"embed: dtype {dtype!r} is not float16 or float32")
    check_precision(precision)
    if batch_size < 1:
        raise SsondoError(f"embed: batch_size {batch_size} is not positive")
    torch_device = resolve_device(device)
    if torch_device.type == "cpu":
        disable_malloc_trim()
    sha256 = checkpoint_sha256(checkpoint)
    with AudioShard(audio) as shard:
        if not shard.sample_rate:
            raise SsondoError(f"{audio}: clips as they were fetched; give the shard that `resample` made of it")
        model = load_teacher_from_config(teacher, checkpoint, str(torch_device))
        clip_ids = [shard.clip_ids[row] for row in shard.ok]
        left_out: list[str] = []
        settings = {
            "teacher": {"kind": teacher["kind"], **_options(teacher)},
            "sample_rate": model.sample_rate,
            "audio_digest": shard.digest,
            "clip_list_sha256": clip_list_digest(clip_ids),
            "n_missing": len(shard) - len(clip_ids),
            ENVIRONMENT_OF: {"embed": describe_machine(model.device)},
        }
        name = f"embed {teacher['kind']} {audio.stem}"
        with (
            EmbeddingShardWriter(
                out,
                embedding_dim=model.embedding_dim,
                settings=settings,
                checkpoint_sha256=sha256,
                dtype=dtype,
                producer="embed",
            ) as writer,
            progress_bar(len(clip_ids), name) as bar,
        ):
            clips = read_waveforms(shard, model.sample_rate, ahead=2 * batch_size)
            for rows, waveforms in batches(clips, model.sample_rate, batch_size):
                embeddings = embed_batch(model, waveforms, batch_size, torch_device, precision)
                finite = writer.is_finite(embeddings)
                left_out += [shard.clip_ids[row] for row, kept in zip(rows, finite, strict=True) if not kept]
                if len(left_out) > _MOST_LEFT_OUT * len(clip_ids):
                    finite[:] = True  # Not the sound of a few clips is odd then; the writer says what may be.
                written = [shard.clip_ids[row] for row, kept in zip(rows, finite, strict=True) if kept]
                writer.add(written, embeddings[finite])
                bar.update(len(rows))
            if left_out:
                gone = set(left_out)
                clip_ids = [clip for clip in clip_ids if clip not in gone]
                writer.update_settings(
                    not_finite=left_out,
                    clip_list_sha256=clip_list_digest(clip_ids),
                    n_missing=len(shard) - len(clip_ids),
                )
    if left_out:
        log.warning(
            "%s: %d of %d clips are left out, because their embeddings have a NaN or are too large for %s: %s",
            *(name, len(left_out), len(left_out) + len(clip_ids), dtype, ", ".join(left_out)),
        )
    if not clip_ids:
        log.warning("%s: no clip of %d is there, %s is empty", audio, len(shard), out)
    seconds = time.monotonic() - started
    log.info(
        "%s: %d of %d clips, %d-d %s, in %.1f s (%.1f clips/s on %s) -> %s",
        *(name, len(clip_ids), len(shard), model.embedding_dim, dtype),
        *(seconds, len(clip_ids) / seconds, torch_device, out),
    )


def teacher_amp_dtype(model: teachers.Teacher, precision: str, device: torch.device) -> torch.dtype | None:
    """Return the 16-bit type that a teacher computes in, or None for float32.

    A CPU always computes in float32. On a GPU, "auto" is float16 for a teacher that tolerates it.
    """
    if device.type != "cuda":
        return None
    if precision == "auto":
        precision = "fp16" if model.bears_float16 else "float32"
    return amp_dtype(precision, device)


def embed_batch(
    model: teachers.Teacher, waveforms: list[Tensor], batch_size: int, device: torch.device, precision: str
) -> np.ndarray:
    """Embeddings of clips, shape (len(waveforms), embedding_dim), float32.

    Raises:
        SsondoError: if the GPU's memory is too small for the batch.
    """
    half = teacher_amp_dtype(model, precision, device)
    arithmetic = disable_tf32() if half is None else torch.autocast("cuda", dtype=half)
    try:
        with torch.inference_mode(), arithmetic:
            return model.embed(waveforms, batch_size).float().numpy()
    except torch.OutOfMemoryError as error:
        raise SsondoError(
            f"{batch_size} clips at once do not fit into the memory of {device}; lower runtime.embed_batch_size "
            f"(--batch-size), or see what else uses the GPU ({str(error).partition('. GPU')[0]})"
        ) from None
