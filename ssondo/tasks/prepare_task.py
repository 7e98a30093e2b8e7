"""Downstream tasks: from a data set's own layout to one task shard.

A task shard is an audio shard (32 kHz mono FLAC, each clip in its whole length) with `labels`
(1 present, 0 absent, -1 unknown) and `split` or `fold`.
"""

import logging
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from ssondo.audio.codec import encode_flac
from ssondo.audio.decoding import decode_file
from ssondo.audio.waveform import resample_to, to_mono
from ssondo.errors import SsondoError
from ssondo.storage.shards.audio import AudioShardWriter
from ssondo.storage.shards.status import Status
from ssondo.system.process_pool import ordered_map
from ssondo.system.progress import progress
from ssondo.tasks.archives import TarMember, ZipMember, read_tar
from ssondo.tasks.files import exists
from ssondo.tasks.load_task import load_task, max_missing
from ssondo.tasks.task import Clip, Playable

log = logging.getLogger(__name__)

SAMPLE_RATE = 32000
_SHOWN_FAULTS = 10
_NO_FILE = "no such file"


@dataclass(frozen=True)
class _Sound:
    """A clip ready for the shard, or why it is not."""

    blob: bytes = b""
    status: Status = Status.OK
    reason: str = ""
    duration_s: float = float("nan")


def _encoded(waveform: np.ndarray, sample_rate: int, reason: str = "") -> _Sound:
    blob = encode_flac(resample_to(waveform, sample_rate, SAMPLE_RATE), SAMPLE_RATE)
    return _Sound(blob, reason=reason, duration_s=len(waveform) / sample_rate)


def _read_sound(source: Path | ZipMember | bytes | Playable) -> _Sound:
    """Decode, mix down, resample and encode one clip; a fault of its file is a reason, not an exception."""
    if not isinstance(source, Path | ZipMember | bytes):
        return _encoded(*source.play())
    try:
        decoded = decode_file(source if isinstance(source, bytes) else source.read_bytes())
    except FileNotFoundError:
        return _Sound(status=Status.UNAVAILABLE, reason=_NO_FILE)
    except OSError as error:
        return _Sound(status=Status.FAILED, reason=f"cannot be read: {error.strerror}")
    except SsondoError as error:
        return _Sound(status=Status.UNAVAILABLE, reason=str(error))
    reason = f"cut short: {decoded.duration_s:.2f} s can be read" if decoded.truncated else ""
    return _encoded(to_mono(decoded.waveform), decoded.sample_rate, reason)


def _refuse_if_missing(task: str, faults: dict[str, str], clips: Sequence[Clip], max_missing: float) -> None:
    n_clips = len(clips)
    if len(faults) <= max_missing * n_clips:
        return
    counts = ", ".join(f"{n} {reason}" for reason, n in Counter(faults.values()).most_common(3))
    first = ", ".join(list(faults)[:3]) + _looked_for(faults, clips)
    raise SsondoError(
        f"task {task}: {len(faults)} of {n_clips} clips cannot be used ({counts}), first {first}; "
        f"complete tasks.{task}.path, or allow a larger share of them with "
        f"tasks.{task}.options.max_missing (now {max_missing:g})"
    )


def _looked_for(faults: dict[str, str], clips: Sequence[Clip]) -> str:
    first = next(clip for clip in clips if clip.clip_id in faults)
    return f" (looked for {first.source})" if faults[first.clip_id] == _NO_FILE else ""


def _in_order_of_reading(clips: Sequence[Clip]) -> list[Clip]:
    """Clips as listed, but those in tar archives at the end and as they stand there: these are read but once."""
    packed = [clip for clip in clips if isinstance(clip.source, TarMember)]
    return [clip for clip in clips if not isinstance(clip.source, TarMember)] + sorted(packed, key=_place)


def _place(clip: Clip) -> tuple[Path, int]:
    assert isinstance(clip.source, TarMember)
    return clip.source.archive, clip.source.position


def _sources(clips: Sequence[Clip]) -> Iterator[Path | ZipMember | bytes | Playable]:
    """What to read each clip from; of tar archives, their content."""
    packed = []
    for clip in clips:
        if isinstance(clip.source, TarMember):
            packed.append(clip.source)
        else:
            yield clip.source
    for archive, members in groupby(packed, key=lambda member: member.archive):
        yield from read_tar(archive, [member.position for member in members])


def _named(faults: dict[str, str]) -> str:
    """Clips and what is wrong with them, the first few."""
    shown = ", ".join(f"{clip_id} ({reason})" for clip_id, reason in list(faults.items())[:_SHOWN_FAULTS])
    more = len(faults) - _SHOWN_FAULTS
    return shown + (f" and {more:,} more, all of them with their reason in the shard" if more > 0 else "")


def prepare_task(*, task: str, spec: dict[str, Any], out: Path, seed: int, n_workers: int = 1) -> None:
    """Prepare a downstream task: one shard with the sound, labels and splits of its clips.

    A clip that is missing or damaged is kept with its reason and without sound; too many of them are an error.

    Args:
        task: the task's name in the config.
        spec: kind, path and options of the task.
        out: the task shard, written here.
        seed: for tasks that are rendered, or whose folds are drawn.
        n_workers: processes that decode.
    """
    started = time.perf_counter()
    content = load_task(task, spec, seed)
    allowed_share = max_missing(task, spec)
    clips, faults = _in_order_of_reading(content.clips), {}
    absent = [c.clip_id for c in clips if isinstance(c.source, Path) and not exists(c.source)]
    _refuse_if_missing(task, {c: _NO_FILE for c in absent if c not in content.known_damaged}, clips, allowed_share)
    if content.official_size is not None:
        differences = content.official_size.deviations(len(content.classes), [clip.split for clip in clips])
        if differences:
            log.warning(
                "task %s: not the official data set: %s; do not compare its scores", task, ", ".join(differences)
            )
    settings = {
        "task": task,
        "metric": content.metric,
        "classes": list(content.classes),
        "split_kind": content.split_kind,
    }
    with ExitStack() as stack:
        shard = stack.enter_context(
            AudioShardWriter(out, sample_rate=SAMPLE_RATE, settings=settings, producer="prepare_task")
        )
        sounds = progress(ordered_map(_read_sound, _sources(clips), n_workers), f"prepare {task}", total=len(clips))
        for clip, sound in zip(clips, sounds, strict=True):
            shard.add(clip.clip_id, sound.blob, status=sound.status, reason=sound.reason, duration_s=sound.duration_s)
            if sound.status is not Status.OK:
                faults[clip.clip_id] = sound.reason
        counted = {clip_id: reason for clip_id, reason in faults.items() if clip_id not in content.known_damaged}
        _refuse_if_missing(task, counted, clips, allowed_share)
        shard.add_extra("labels", np.stack([clip.labels for clip in clips]).astype(np.int8))
        parts = np.array([clip.split for clip in clips])
        if content.split_kind == "split":
            shard.add_extra("split", parts.astype("S5"))
        else:
            shard.add_extra("fold", parts.astype(np.int16))
    if faults:
        log.info("task %s: not usable: %s", task, _named(faults))
    used = Counter(clip.split for clip in clips if clip.clip_id not in faults)
    shares = ", ".join(f"{n} {part}" if content.split_kind == "split" else f"{n}" for part, n in sorted(used.items()))
    log.info(
        "prepared task %s: %d clips in %d classes (%s%s), %d not usable, in %.0f s: %s",
        *(task, len(clips) - len(faults), len(content.classes)),
        *("" if content.split_kind == "split" else f"{len(used)} folds of ", shares),
        *(len(faults), time.perf_counter() - started, out),
    )
