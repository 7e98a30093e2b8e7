"""Bring the clips of a fetched shard to one sample rate, one channel and one length."""

import io
import logging
import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ssondo.audio.codec import encode
from ssondo.audio.excerpt import decode_around_centre
from ssondo.audio.waveform import fit_end, resample_to, resampled_length, to_mono
from ssondo.errors import SsondoError, TransientError
from ssondo.storage.atomic_files import is_disk_full
from ssondo.storage.clip_location import ClipLocation, LocationChanged, open_clip
from ssondo.storage.shards.audio import AudioShard, AudioShardWriter
from ssondo.storage.shards.status import Status
from ssondo.system.process_pool import ordered_map
from ssondo.system.progress import progress

log = logging.getLogger(__name__)

# Codecs round to frames; a clip that is this much off is none the less whole.
_NOTED_S = 0.05
_NOT_KNOWN_S = float("nan")


class _Clip(NamedTuple):
    """A clip on its way: as read, or as written."""

    status: Status
    reason: str
    blob: bytes
    duration_s: float = _NOT_KNOWN_S
    origin: ClipLocation | None = None


def resample(
    *,
    audio: Path,
    out: Path,
    sample_rate: int,
    clip_s: float,
    codec: str = "flac",
    bandlimit_rate: int | None = None,
    n_workers: int = 1,
) -> None:
    """Decode a fetched shard and keep it as mono clips of one rate and length.

    A longer clip keeps its centre, a shorter one is padded with zeros; the length of the real
    sound is noted. A clip that cannot be decoded is noted as failed.

    Args:
        audio: shard of clips as they were fetched.
        out: audio shard to write; it lists the same clips.
        sample_rate: in Hz.
        clip_s: length of every clip in seconds.
        codec: flac, pcm16 or opus.
        bandlimit_rate: bring clips to this rate in Hz first, and lose what lies above half of it;
            16000 is what the published pipeline kept.
        n_workers: processes.

    Raises:
        SsondoError: if the shard is missing or broken, the codec unknown, or sound that lies outside
            the shard not there any more.
        TransientError: if sound that lies outside the shard may not be read, or the disk fails.
    """
    began = time.monotonic()
    counts: Counter[Status] = Counter()
    settings = {"clip_s": clip_s, "codec": codec, "bandlimit_rate": bandlimit_rate}
    rates = (sample_rate,) if bandlimit_rate is None else (bandlimit_rate, sample_rate)
    convert = partial(_convert, folder=audio.parent, rates=rates, n_samples=round(clip_s * sample_rate), codec=codec)
    with (
        AudioShard(audio) as fetched,
        AudioShardWriter(out, sample_rate=sample_rate, settings=settings, producer="resample") as shard,
    ):
        n_clips = len(fetched)
        clips = progress(ordered_map(convert, _clips(fetched), n_workers), f"resample {out.stem}", total=n_clips)
        for clip_id, clip in zip(fetched.clip_ids, clips, strict=True):
            counts[clip.status] += 1
            shard.add(clip_id, clip.blob, status=clip.status, reason=clip.reason, duration_s=clip.duration_s)
        n_lost = len(fetched.ok) - counts[Status.OK]
    seconds = time.monotonic() - began
    if n_lost:
        log.warning("resample %s: %d fetched clips cannot be used; the shard notes why", out.stem, n_lost)
    log.info(
        "resample %s: %d of %d clips at %d Hz, %.1f s (%.0f clips/s), in %s",
        out.stem,
        counts[Status.OK],
        n_clips,
        sample_rate,
        seconds,
        n_clips / max(seconds, 1e-9),
        out,
    )


def _clips(shard: AudioShard) -> Iterator[_Clip]:
    """The clips of a shard, in order, one in memory at a time."""
    for row in range(len(shard)):
        elsewhere = shard.location(row)
        origin = None if elsewhere is None else ClipLocation.from_bytes(*elsewhere)
        yield _Clip(Status(shard.status[row]), shard.reasons[row], shard.blob(row), origin=origin)


@contextmanager
def _opened(clip: _Clip, folder: Path) -> Iterator[BinaryIO]:
    """The clip's file, from the shard or from where it lies.

    Raises:
        SsondoError: if it lies elsewhere and is damaged there.
        OriginChanged: if it is not there any more, or not what it was.
        TransientError: if the system does not let it be read.
    """
    if clip.origin is None:
        yield io.BytesIO(clip.blob)
        return
    try:
        with open_clip(clip.origin, folder) as file:
            yield file
    except OSError as error:
        if is_disk_full(error):  # of a temporary file of ffmpeg's
            raise
        if error.errno is None:  # HDF5's, of a damaged row
            raise SsondoError(f"cannot be read: {type(error).__name__}") from None
        raise TransientError(
            f"{folder / clip.origin.path}: cannot be read ({os.strerror(error.errno)}); see to the disk or the rights, "
            "then the same command goes on"
        ) from None


def _convert(clip: _Clip, *, folder: Path, rates: tuple[int, ...], n_samples: int, codec: str) -> _Clip:
    """One clip as it is kept, at the last of `rates`; one that is not there stays as it is."""
    if clip.status is not Status.OK:
        return clip._replace(blob=b"")
    clip_s = n_samples / rates[-1]
    try:
        with _opened(clip, folder) as file:
            decoded, start_s, duration_s = decode_around_centre(file, clip_s)
    except TransientError:
        # Like the next: else a disk that is not mounted would make a shard without sound.
        raise
    except LocationChanged as error:
        raise LocationChanged(
            f"{error}; what was noted of it is out of date: give your snakemake command --forcerun locate fetch"
        ) from None
    except SsondoError as error:
        return _Clip(Status.FAILED, str(error), b"")
    waveform, sample_rate = to_mono(decoded.waveform), decoded.sample_rate
    n_whole = round(duration_s * sample_rate)
    for rate in rates:
        n_whole = resampled_length(n_whole, sample_rate, rate)
        waveform, sample_rate = resample_to(waveform, sample_rate, rate), rate
    before = max(0, (n_whole - n_samples) // 2) - start_s * sample_rate
    blob = encode(fit_end(waveform[before:], n_samples), sample_rate, codec)
    notes = [clip.reason] if clip.reason else []
    if decoded.truncated:
        notes.append("truncated")
    missing_s = clip_s - duration_s
    if abs(missing_s) > _NOTED_S:
        notes.append(f"{'padded' if missing_s > 0 else 'cropped'} from {duration_s:.2f} s")
    return _Clip(Status.OK, ", ".join(notes), blob, duration_s)
