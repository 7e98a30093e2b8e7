"""Teacher embeddings of an audio shard.

    ssondo embed --audio audio/train-0000.h5 --teacher '{"kind": "matpac"}' --checkpoint matpac.pt --out train-0000.h5

Threads decode and resample the next clips while the model computes.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssondo.audio.codec import decode_mono
from ssondo.audio.waveform import resample_to
from ssondo.errors import SsondoError
from ssondo.storage.atomic_files import clip_list_digest, file_digest
from ssondo.storage.shards.audio import AudioShard
from ssondo.storage.shards.embedding import ENVIRONMENT_OF, EmbeddingShardWriter
from ssondo.system.allocator import disable_malloc_trim
from ssondo.system.device import amp_dtype, check_precision, disable_tf32, resolve_device
from ssondo.system.hardware import describe_machine, n_cores
from ssondo.system.progress import progress_bar
from ssondo.teachers.teacher import Teacher, load_teacher_from_config, teacher_options

log = logging.getLogger(__name__)

_MAX_WORKERS = 8
# Maximum duration of the clips in a batch in seconds; limits memory if clips are minutes long.
_MAX_BATCH_S = 1800
# Maximum share of a shard's clips whose embeddings are not finite.
_MAX_NOT_FINITE = 0.01


def checkpoint_sha256(checkpoint: Path | None) -> str:
    """Return the SHA-256 of a checkpoint file; an empty string without a checkpoint.

    Raises:
        SsondoError: if `checkpoint` is not a file.
    """
    if checkpoint is None:
        return ""
    if not checkpoint.is_file():
        reason = "this is a folder; give the file in it" if checkpoint.is_dir() else "this checkpoint does not exist"
        raise SsondoError(f"{checkpoint}: {reason}")
    return file_digest(checkpoint)


def n_workers() -> int:
    """Return the number of threads that decode audio."""
    return min(_MAX_WORKERS, n_cores())


def _waveform(shard: AudioShard, row: int, blob: bytes, sample_rate: int) -> Tensor:
    try:
        waveform = resample_to(decode_mono(blob, shard.sample_rate), shard.sample_rate, sample_rate)
    except SsondoError as error:
        raise SsondoError(f"{shard.path}: clip {shard.clip_ids[row]}: {error}") from None
    if not waveform.size:
        raise SsondoError(
            f"{shard.path}: clip {shard.clip_ids[row]} has no samples; run `resample` for this shard again"
        )
    return torch.from_numpy(np.ascontiguousarray(waveform))


def read_waveforms(shard: AudioShard, sample_rate: int, ahead: int) -> Iterator[tuple[int, Tensor]]:
    """Decode and resample the available clips of an audio shard, in order, in background threads.

    Yields the row of each clip in the shard and its waveform, float32, shape (samples,). At most `ahead` decoded clips
    wait to be consumed.
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


def _batches(
    clips: Iterator[tuple[int, Tensor]], sample_rate: int, size: int
) -> Iterator[tuple[list[int], list[Tensor]]]:
    """Group rows and waveforms into batches of `size` clips, or fewer if they are long."""
    rows: list[int] = []
    waveforms: list[Tensor] = []
    n_samples = 0
    for row, waveform in clips:
        rows.append(row)
        waveforms.append(waveform)
        n_samples += len(waveform)
        if len(rows) == size or n_samples >= _MAX_BATCH_S * sample_rate:
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
    """Compute the teacher embedding of every clip of an audio shard.

    A clip whose embedding has a NaN or an infinity (e.g. silence, for a teacher that divides by the level) is omitted
    and named in the log. If that happens to more than 1 % of the clips, the command fails.

    Args:
        audio: Path of the audio shard.
        out: Path of the embedding shard that is written. It holds the available clips, in the order of the audio shard.
        teacher: The teacher as JSON: its kind and the options of that kind, e.g. {"kind": "matpac"}.
        checkpoint: Path of the teacher's weights.
        batch_size: Number of clips in a batch.
        dtype: Type of the stored embeddings: float16 or float32.
        precision: Precision of the arithmetic on a GPU: float32, fp16, bf16, or auto, which is fp16 for the built-in
            teachers and float32 for others. A CPU computes in float32.
        device: Device that computes: cuda, cpu, or auto for a GPU if there is one.

    Raises:
        SsondoError: if the shard or the teacher is missing or unusable, or more than 1 % of the embeddings are not
            finite.
    """
    if dtype not in ("float16", "float32"):
        raise SsondoError(f"dtype is {dtype!r}; it must be float16 or float32")
    torch_device = prepare_device(device, precision, batch_size)
    sha256 = checkpoint_sha256(checkpoint)
    with AudioShard(audio) as shard:
        if not shard.sample_rate:
            raise SsondoError(
                f"{audio}: this shard holds clips as they were fetched; give the output of `resample` instead"
            )
        model = load_teacher_from_config(teacher, checkpoint, str(torch_device))
        write_embeddings(
            shard,
            out,
            lambda waveforms: embed_batch(model, waveforms, batch_size, torch_device, precision),
            name=f"embed {teacher['kind']} {audio.stem}",
            sample_rate=model.sample_rate,
            embedding_dim=model.embedding_dim,
            settings={
                "teacher": {"kind": teacher["kind"], **teacher_options(teacher)},
                "sample_rate": model.sample_rate,
                ENVIRONMENT_OF: {"embed": describe_machine(model.device)},
            },
            checkpoint_sha256=sha256,
            dtype=dtype,
            producer="embed",
            batch_size=batch_size,
            max_not_finite=_MAX_NOT_FINITE,
        )


def prepare_device(device: str, precision: str, batch_size: int) -> torch.device:
    """Check the settings of an embedding command and return the device that computes.

    Raises:
        SsondoError: if the device, the precision or the batch size is invalid.
    """
    check_precision(precision)
    if batch_size < 1:
        raise SsondoError(f"batch_size is {batch_size}; it must be at least 1")
    torch_device = resolve_device(device)
    if torch_device.type == "cpu":
        disable_malloc_trim()
    return torch_device


def write_embeddings(
    shard: AudioShard,
    out: Path,
    embed_clips: Callable[[list[Tensor]], np.ndarray],
    *,
    name: str,
    sample_rate: int,
    embedding_dim: int,
    settings: Mapping[str, Any],
    checkpoint_sha256: str,
    dtype: str,
    producer: str,
    batch_size: int,
    group: int = 1,
    max_not_finite: float = 0.0,
    extras: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Embed the available clips of an audio shard and write an embedding shard.

    Args:
        shard: An audio shard.
        out: Path of the embedding shard that is written.
        embed_clips: Function from waveforms, each float32 of shape (samples,), to embeddings of shape
            (n_waveforms, embedding_dim), float32.
        name: Name in the progress display and in log messages.
        sample_rate: Sample rate of the waveforms in Hz.
        embedding_dim: Size of an embedding.
        settings: Settings that are stored in the shard besides those of the clips.
        checkpoint_sha256: SHA-256 of the model's checkpoint.
        dtype: Type of the stored embeddings, "float16" or "float32".
        producer: Name of the command, which is stored in the shard.
        batch_size: Number of clips in a batch of the model.
        group: Number of batches that `embed_clips` receives at once.
        max_not_finite: Maximum share of the clips that may be omitted because their embedding is not finite.
        extras: Additional arrays with one row per clip of the audio shard; the rows of available clips are stored.

    Raises:
        SsondoError: if a clip cannot be decoded or too many embeddings are not finite.
    """
    started = time.monotonic()
    clip_ids = [shard.clip_ids[row] for row in shard.ok]
    not_finite: list[str] = []
    of_clips = {
        "audio_digest": shard.digest,
        "clip_list_sha256": clip_list_digest(clip_ids),
        "n_missing": len(shard) - len(clip_ids),
    }
    with (
        EmbeddingShardWriter(
            out,
            embedding_dim=embedding_dim,
            settings={**settings, **of_clips},
            checkpoint_sha256=checkpoint_sha256,
            dtype=dtype,
            producer=producer,
        ) as writer,
        progress_bar(len(clip_ids), name) as bar,
    ):
        clips = read_waveforms(shard, sample_rate, ahead=2 * batch_size)
        for rows, waveforms in _batches(clips, sample_rate, group * batch_size):
            embeddings = embed_clips(waveforms)
            finite = writer.is_finite(embeddings)
            not_finite += [shard.clip_ids[row] for row, kept in zip(rows, finite, strict=True) if not kept]
            if len(not_finite) > max_not_finite * len(clip_ids):
                finite[:] = True  # The writer raises an error that names the first such clip.
            writer.add(
                [shard.clip_ids[row] for row, kept in zip(rows, finite, strict=True) if kept], embeddings[finite]
            )
            bar.update(len(rows))
        for extra, values in (extras or {}).items():
            writer.add_extra(extra, values[shard.ok])
        if not_finite:
            omitted = set(not_finite)
            clip_ids = [clip_id for clip_id in clip_ids if clip_id not in omitted]
            writer.update_settings(
                not_finite=not_finite,
                clip_list_sha256=clip_list_digest(clip_ids),
                n_missing=len(shard) - len(clip_ids),
            )
    if not_finite:
        log.warning(
            "%s: %d of %d clips are omitted because their embeddings have a NaN or are too large for %s: %s",
            *(name, len(not_finite), len(not_finite) + len(clip_ids), dtype, ", ".join(not_finite)),
        )
    if not clip_ids:
        log.warning("%s: none of the %d clips is available, so %s is empty", shard.path, len(shard), out)
    seconds = time.monotonic() - started
    log.info(
        "%s: %d of %d clips, %d-d %s, in %.1f s (%.1f clips/s) -> %s",
        *(name, len(clip_ids), len(shard), embedding_dim, dtype, seconds, len(clip_ids) / seconds, out),
    )


def teacher_amp_dtype(model: Teacher, precision: str, device: torch.device) -> torch.dtype | None:
    """Return the 16-bit type that a teacher computes in, or None for float32.

    A CPU always computes in float32. On a GPU, "auto" is float16 if the teacher is `float16_safe`.
    """
    if device.type != "cuda":
        return None
    if precision == "auto":
        precision = "fp16" if model.float16_safe else "float32"
    return amp_dtype(precision, device)


def embed_batch(
    model: Teacher, waveforms: list[Tensor], batch_size: int, device: torch.device, precision: str
) -> np.ndarray:
    """Embed clips with a teacher.

    Returns:
        Shape (len(waveforms), embedding_dim), float32.

    Raises:
        SsondoError: if the GPU's memory is too small for the batch.
    """
    dtype = teacher_amp_dtype(model, precision, device)
    precision_context = disable_tf32() if dtype is None else torch.autocast("cuda", dtype=dtype)
    try:
        with torch.inference_mode(), precision_context:
            return model.embed(waveforms, batch_size).float().numpy()
    except torch.OutOfMemoryError as error:
        raise SsondoError(
            f"a batch of {batch_size} clips does not fit into the memory of {device}; lower runtime.embed_batch_size "
            f"(--batch-size) or stop other programs that use the GPU ({str(error).partition('. GPU')[0]})"
        ) from None
