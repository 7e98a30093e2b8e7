"""Convert the clips of a fetched shard to one sample rate, one channel and one length."""

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
from ssondo.errors import ClipError, TransientError
from ssondo.storage.atomic_files import is_disk_full
from ssondo.storage.clip_location import ClipLocation, LocationChanged, open_clip
from ssondo.storage.shards.audio import AudioShard, AudioShardWriter
from ssondo.storage.shards.status import Status
from ssondo.system.process_pool import ordered_map
from ssondo.system.progress import progress

log = logging.getLogger(__name__)

# Codecs round the length to frames, so smaller differences are not recorded.
_LENGTH_TOLERANCE_S = 0.05
_UNKNOWN_S = float("nan")


class _Clip(NamedTuple):
    """A clip before or after the conversion."""

    status: Status
    reason: str
    blob: bytes
    duration_s: float = _UNKNOWN_S
    location: ClipLocation | None = None


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
    """Decode the clips of a fetched shard and store them as mono clips of one sample rate and length.

    Longer clips are cropped to their centre, shorter ones are padded with zeros; the original length is stored. A
    clip that cannot be decoded gets the status FAILED.

    Args:
        audio: Fetched shard that is read.
        out: Audio shard that is written; it lists the same clips.
        sample_rate: Sample rate of the clips in Hz.
        clip_s: Length of every clip in seconds.
        codec: Codec of the clips: flac, pcm16 or opus.
        bandlimit_rate: Sample rate in Hz to which clips are converted first, which removes frequencies above half of
            it; the published pipeline used 16000. By default there is no such conversion.
        n_workers: Number of processes that convert clips.

    Raises:
        SsondoError: If the shard is missing or damaged, the codec is unknown, or sound outside the shard was
            removed or changed.
        TransientError: If sound outside the shard cannot be read at the moment.
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
        log.warning("resample %s: %d fetched clips cannot be used; the shard stores the reasons", out.stem, n_lost)
    what = f"{counts[Status.OK]} of {n_clips} clips at {sample_rate} Hz"
    speed = f"{seconds:.1f} s ({n_clips / max(seconds, 1e-9):.0f} clips/s)"
    log.info("resample %s: %s, %s, in %s", out.stem, what, speed, out)


def _clips(shard: AudioShard) -> Iterator[_Clip]:
    """Yield the clips of a shard in order, with one clip in memory at a time."""
    for row in range(len(shard)):
        encoded = shard.location(row)
        location = None if encoded is None else ClipLocation.from_bytes(*encoded)
        yield _Clip(Status(shard.status[row]), shard.reasons[row], shard.blob(row), location=location)


@contextmanager
def _opened(clip: _Clip, folder: Path) -> Iterator[BinaryIO]:
    """Open the encoded file of a clip, in the shard or at its location."""
    if clip.location is None:
        yield io.BytesIO(clip.blob)
        return
    try:
        with open_clip(clip.location, folder) as file:
            yield file
    except OSError as error:
        if is_disk_full(error):  # by a temporary file of ffmpeg
            raise
        if error.errno is None:  # raised by HDF5 for a damaged row
            raise ClipError(f"cannot be read: {type(error).__name__}") from None
        raise TransientError(
            f"{folder / clip.location.path}: cannot be read ({os.strerror(error.errno)}); check the disk and the "
            "permissions, then run the same command again"
        ) from None


def _convert(clip: _Clip, *, folder: Path, rates: tuple[int, ...], n_samples: int, codec: str) -> _Clip:
    """Convert one clip through all `rates` in turn; a missing clip stays as it is."""
    if clip.status is not Status.OK:
        return clip._replace(blob=b"")
    clip_s = n_samples / rates[-1]
    try:
        with _opened(clip, folder) as file:
            decoded, start_s, duration_s = decode_around_centre(file, clip_s)
    except TransientError:
        # Re-raise: an unmounted disk must fail the job, not mark every clip as failed.
        raise
    except LocationChanged as error:
        advice = "add --forcerun locate fetch to your snakemake command"
        raise LocationChanged(f"{error}; its stored location is out of date: {advice}") from None
    except ClipError as error:
        return _Clip(Status.FAILED, str(error), b"")
    waveform, sample_rate = to_mono(decoded.waveform), decoded.sample_rate
    n_whole = round(duration_s * sample_rate)
    for rate in rates:
        n_whole = resampled_length(n_whole, sample_rate, rate)
        waveform, sample_rate = resample_to(waveform, sample_rate, rate), rate
    first = max(0, (n_whole - n_samples) // 2) - start_s * sample_rate
    blob = encode(fit_end(waveform[first:], n_samples), sample_rate, codec)
    notes = [clip.reason] if clip.reason else []
    if decoded.truncated:
        notes.append("truncated")
    missing_s = clip_s - duration_s
    if abs(missing_s) > _LENGTH_TOLERANCE_S:
        notes.append(f"{'padded' if missing_s > 0 else 'cropped'} from {duration_s:.2f} s")
    return _Clip(Status.OK, ", ".join(notes), blob, duration_s)
