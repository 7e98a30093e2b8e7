"""Conversion of a data set to one task shard.

    ssondo prepare_task --task esc50 --spec '{"kind": "esc50", "path": "/data/ESC-50-master"}' --seed 0 --out esc50.h5

A task shard is an audio shard (32 kHz mono FLAC, complete clips) with `labels` (1 present, 0 absent, -1 unknown) and
`split` or `fold`.
"""

import logging
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ssondo.audio.codec import encode_flac
from ssondo.audio.decoding import decode_file
from ssondo.audio.waveform import resample_to, to_mono
from ssondo.errors import ClipError, SsondoError
from ssondo.storage.shards.audio import AudioShardWriter
from ssondo.storage.shards.reasons import format_counts
from ssondo.storage.shards.status import Status
from ssondo.system.process_pool import ordered_map
from ssondo.system.progress import progress
from ssondo.tasks.archives import TarMember, ZipMember, read_tar
from ssondo.tasks.files import exists
from ssondo.tasks.load_task import load_task
from ssondo.tasks.task import Clip, Playable, Task

log = logging.getLogger(__name__)

SAMPLE_RATE = 32000
_MAX_NAMED = 10
_N_SHOWN_REASONS = 3
_NO_FILE = "no such file"


class _EncodedClip(NamedTuple):
    """An encoded clip, or the reason why there is none."""

    blob: bytes = b""
    status: Status = Status.OK
    reason: str = ""
    duration_s: float = float("nan")


def _encode(waveform: np.ndarray, sample_rate: int, reason: str = "") -> _EncodedClip:
    blob = encode_flac(resample_to(waveform, sample_rate, SAMPLE_RATE), SAMPLE_RATE)
    return _EncodedClip(blob, reason=reason, duration_s=len(waveform) / sample_rate)


def _read_clip(source: Path | ZipMember | bytes | Playable) -> _EncodedClip:
    """Decode, mix down, resample and encode one clip; damage of its file becomes a reason instead of an exception."""
    if not isinstance(source, Path | ZipMember | bytes):
        return _encode(*source.play())
    try:
        decoded = decode_file(source if isinstance(source, bytes) else source.read_bytes())
    except FileNotFoundError:
        return _EncodedClip(status=Status.UNAVAILABLE, reason=_NO_FILE)
    except OSError as error:
        return _EncodedClip(status=Status.FAILED, reason=f"cannot be read: {error.strerror}")
    except ClipError as error:
        return _EncodedClip(status=Status.UNAVAILABLE, reason=str(error))
    reason = f"cut short: {decoded.duration_s:.2f} s can be read" if decoded.truncated else ""
    return _encode(to_mono(decoded.waveform), decoded.sample_rate, reason)


def _refuse_if_missing(task: str, unusable: dict[str, str], content: Task) -> None:
    """Fail if too many clips cannot be used; `unusable` has the reason of each by its id."""
    unusable = {clip_id: reason for clip_id, reason in unusable.items() if clip_id not in content.known_damaged}
    if len(unusable) <= content.max_missing * len(content.clips):
        return
    counts = format_counts(Counter(unusable.values()), _N_SHOWN_REASONS)
    example = next(clip for clip in content.clips if clip.clip_id in unusable)
    expected = f" (expected at {example.source})" if unusable[example.clip_id] == _NO_FILE else ""
    first = ", ".join(list(unusable)[:3]) + expected
    raise SsondoError(
        f"task {task}: {len(unusable)} of {len(content.clips)} clips cannot be used ({counts}), first {first}; "
        f"complete tasks.{task}.path, or allow a larger share of them with "
        f"tasks.{task}.options.max_missing (now {content.max_missing:g})"
    )


def _in_reading_order(clips: Sequence[Clip]) -> list[Clip]:
    """Order clips as listed, then those in tar archives in the order of the archive, which is read only once."""

    def position(clip: Clip) -> tuple[str, int]:
        source = clip.source
        return (str(source.archive), source.position) if isinstance(source, TarMember) else ("", 0)

    return sorted(clips, key=position)


def _sources(clips: Sequence[Clip]) -> Iterator[Path | ZipMember | bytes | Playable]:
    """Yield the source of each clip; for clips in tar archives, their content."""
    yield from (clip.source for clip in clips if not isinstance(clip.source, TarMember))
    packed = [clip.source for clip in clips if isinstance(clip.source, TarMember)]
    for archive, members in groupby(packed, key=lambda member: member.archive):
        yield from read_tar(archive, [member.position for member in members])


def _describe(unusable: dict[str, str]) -> str:
    """List the first unusable clips with their reasons."""
    shown = ", ".join(f"{clip_id} ({reason})" for clip_id, reason in list(unusable.items())[:_MAX_NAMED])
    more = len(unusable) - _MAX_NAMED
    return shown + (f" and {more:,} more; the shard holds the reason of each" if more > 0 else "")


def prepare_task(*, task: str, spec: dict[str, Any], out: Path, seed: int, n_workers: int = 1) -> None:
    """Write a shard with the audio, labels and splits of the clips of a downstream task.

    A missing or damaged clip is stored without audio but with its reason. Too many of them are an error.

    Args:
        task: Name of the task in the configuration.
        spec: Kind, path and options of the task, as JSON.
        out: Path of the task shard that is written.
        seed: Seed of rendered audio and of folds or validation clips that are drawn.
        n_workers: Number of processes that decode audio.

    Raises:
        SsondoError: If the data is missing or invalid, or too many clips are missing or damaged.
    """
    started = time.perf_counter()
    content = load_task(task, spec, seed)
    content = replace(content, clips=_in_reading_order(content.clips))
    clips = content.clips
    absent = [clip.clip_id for clip in clips if isinstance(clip.source, Path) and not exists(clip.source)]
    _refuse_if_missing(task, dict.fromkeys(absent, _NO_FILE), content)
    if (size := content.official_size) is not None:
        differences = size.deviations(len(content.classes), [clip.split for clip in clips])
        if differences:
            text = ", ".join(differences)
            log.warning("task %s: not the official data set: %s; do not compare its scores", task, text)
    settings = {
        "task": task,
        "metric": content.metric,
        "classes": list(content.classes),
        "split_kind": content.split_kind,
    }
    unusable: dict[str, str] = {}
    with AudioShardWriter(out, sample_rate=SAMPLE_RATE, settings=settings, producer="prepare_task") as shard:
        encoded_clips = ordered_map(_read_clip, _sources(clips), n_workers)
        encoded_clips = progress(encoded_clips, f"prepare {task}", total=len(clips))
        for clip, encoded in zip(clips, encoded_clips, strict=True):
            shard.add(clip.clip_id, **encoded._asdict())
            if encoded.status is not Status.OK:
                unusable[clip.clip_id] = encoded.reason
        _refuse_if_missing(task, unusable, content)
        shard.add_extra("labels", np.stack([clip.labels for clip in clips]).astype(np.int8))
        splits = np.array([clip.split for clip in clips])
        shard.add_extra(content.split_kind, splits.astype("S5" if content.split_kind == "split" else np.int16))
    if unusable:
        log.info("task %s: not usable: %s", task, _describe(unusable))
    used = Counter(clip.split for clip in clips if clip.clip_id not in unusable)
    shares = ", ".join(f"{n} {split}" if content.split_kind == "split" else f"{n}" for split, n in sorted(used.items()))
    log.info(
        "prepared task %s: %d clips in %d classes (%s%s), %d not usable, in %.0f s: %s",
        *(task, len(clips) - len(unusable), len(content.classes)),
        *("" if content.split_kind == "split" else f"{len(used)} folds of ", shares),
        *(len(unusable), time.perf_counter() - started, out),
    )
