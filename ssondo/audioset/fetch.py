"""Fetch the clips of one shard from a source and store the result of each.

The path of one clip, e.g. of a private video:

1. The source returns a `Fetched` (status, reason, sound). `classify_error` of `ssondo.audioset.sources.youtube` turns
   the exception of yt-dlp into UNAVAILABLE, "private".
2. This module appends the result to the shard's ledger (`_fetch_with_retries`), so that a job that was killed, or a
   shard that is made again, requests only what is missing, and writes all results into the shard (`fetch`).
3. `resample` keeps status and reason, and `ssondo.audioset.availability` counts them.

Clips of a local copy need no ledger. They are not copied either; the shard stores their location.
"""

import heapq
import inspect
import logging
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ssondo.audioset.clip_ledger import Ledger, ledger_path
from ssondo.audioset.rate_limiter import RateLimiter
from ssondo.audioset.sources import Fetched, RateLimited, Source, open_source
from ssondo.errors import TransientError
from ssondo.storage.segments import Segment, read_segments, shard_number
from ssondo.storage.shards.audio import AudioShardWriter
from ssondo.storage.shards.reasons import format_counts
from ssondo.storage.shards.status import Status
from ssondo.system.process_pool import ordered_map
from ssondo.system.progress import progress, progress_bar

log = logging.getLogger(__name__)

_N_SHOWN_REASONS = 5


def fetch(
    *,
    segments: Path,
    out: Path,
    source: dict[str, Any],
    fetch_policy: dict[str, Any] | None = None,
    located: Path | None = None,
    max_failed_share: float = 0.02,
    n_workers: int = 1,
) -> None:
    """Fetch the clips of one shard and store them as they are encoded, each with its status and reason.

    Args:
        segments: Segment list of the shard, which index wrote.
        out: Path of the audio shard that is written.
        source: Source of the clips: "kind" (folder, hdf5, parquet, webdataset, youtube or renderer) and its settings.
        fetch_policy: Settings that do not change any clip: rate, pauses, retries, cookies and proxies.
        located: List of the clips' locations in a local copy, which locate wrote; without it the copy is searched.
        max_failed_share: Largest share of clips, in [0, 1], that may fail for a temporary reason; if more do, the
            command fails and keeps what was fetched.
        n_workers: Number of processes, for sources that compute the sound.

    Raises:
        SsondoError: If the list or the settings of the source are invalid.
        TransientError: If a larger share of clips failed; what was fetched is kept for the next run.
    """
    began = time.monotonic()
    listed = read_segments(segments)
    policy = fetch_policy or {}
    limiter_settings = {key: policy[key] for key in inspect.signature(RateLimiter).parameters if key in policy}
    settings = {**source, **{key: value for key, value in policy.items() if key not in limiter_settings}}
    scratch = out.with_suffix(".scratch")
    opened = open_source(settings, listed, shard_number(segments), located=located, scratch=scratch)
    counts: Counter[Status] = Counter()
    failures: Counter[str] = Counter()
    with AudioShardWriter(out, sample_rate=0, settings={"source": source["kind"]}, producer="fetch") as shard:
        if opened.identity is not None:
            ledger_source = f"{source['kind']} {opened.identity}"
            results = _fetch_remote(opened, ledger_source, listed, out, RateLimiter(**limiter_settings), scratch)
        else:
            results = _fetch_local(opened, settings, listed, located, n_workers if opened.parallel else 1)
            results = progress(results, f"fetch {segments.stem}", total=len(listed))
        for segment, fetched in zip(listed, results, strict=True):
            counts[fetched.status] += 1
            failures.update([fetched.reason] if fetched.status is Status.FAILED else [])
            location = fetched.location and fetched.location.to_shard()
            shard.add(segment.ytid, fetched.data, status=fetched.status, reason=fetched.reason, location=location)
        if counts[Status.FAILED] > max_failed_share * len(listed):
            raise TransientError(
                f"{segments.stem}: {counts[Status.FAILED]} of {len(listed)} clips failed, more than "
                f"max_failed_share {max_failed_share:g} allows ({format_counts(failures, _N_SHOWN_REASONS)}); "
                "run the same command again, or raise audioset.max_failed_share"
            )
    seconds = time.monotonic() - began
    missing = f"{counts[Status.UNAVAILABLE]} unavailable, {counts[Status.FAILED]} failed"
    speed = f"{seconds:.1f} s ({len(listed) / max(seconds, 1e-9):.1f} clips/s)"
    what = f"{counts[Status.OK]} of {len(listed)} clips, {missing}, {speed}"
    log.info("fetch %s: %s, in %s", segments.stem, what, out)


def _fetch_local(
    source: Source, settings: dict[str, Any], segments: Sequence[Segment], located: Path | None, n_workers: int
) -> Iterator[Fetched]:
    """Each segment's result, in order, from a source that has no rate limit."""
    if n_workers == 1:
        yield from map(source.fetch, segments)
    else:
        yield from ordered_map(_fetch_in_worker, segments, n_workers, _open_in_worker, (settings, segments, located))


# Each worker process opens its own source: a synthesiser or open files cannot be pickled.
_worker_source: Source


def _open_in_worker(settings: dict[str, Any], segments: Sequence[Segment], located: Path | None) -> None:
    global _worker_source
    _worker_source = open_source(settings, segments, located=located)


def _fetch_in_worker(segment: Segment) -> Fetched:
    return _worker_source.fetch(segment)


def _fetch_remote(
    source: Source, ledger_source: str, segments: Sequence[Segment], out: Path, limiter: RateLimiter, scratch: Path
) -> Iterator[Fetched]:
    """Each segment's result, in order; only clips without a final result in the ledger are requested."""
    with Ledger(ledger_path(out), ledger_source, check_sound=True) as ledger:
        # A killed job leaves the clip that it was downloading.
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        missing = [segment for segment in segments if not ledger.finished(segment)]
        if len(missing) < len(segments):
            log.info("%s has %d of %d clips already", ledger.path, len(segments) - len(missing), len(segments))
        _fetch_with_retries(source, ledger, missing, limiter, out.stem)
        shutil.rmtree(scratch, ignore_errors=True)
        yield from map(ledger.result, segments)


class _QueuedClip(NamedTuple):
    """A clip that waits to be requested; clips are ordered by `due_s`, then by their position in the list."""

    due_s: float
    position: int
    n_tries: int
    segment: Segment


class _FailureStreak:
    """`length` consecutive clips that failed for the same reason, which indicates an outage or a disguised rate limit.

    The failures of a streak are not counted against their clips, but only once for each clip, so that fetching
    terminates if the clips themselves are the cause.
    """

    def __init__(self, length: int) -> None:
        self.n_failed = 0
        self._length = self._needed = length
        self._reason = ""
        self._clips: list[_QueuedClip] = []
        self._excused: set[int] = set()

    def end(self) -> None:
        """Record a clip that did not fail."""
        self._start("")

    def _start(self, reason: str) -> None:
        self._reason, self._clips, self._needed, self.n_failed = reason, [], self._length, 0

    def add(self, clip: _QueuedClip, reason: str) -> list[_QueuedClip]:
        """Record a clip that failed; if the streak is complete, return the clips to request again after a pause."""
        if clip.position in self._excused:
            return []
        if reason != self._reason:
            self._start(reason)
        self.n_failed += 1
        self._clips.append(clip)
        if len(self._clips) < self._needed:
            return []
        excused, self._clips = self._clips, []
        self._excused.update(each.position for each in excused)
        # After the pause a single failure for the same reason shows that the outage goes on.
        self._needed = 1
        return excused


def _fetch_with_retries(
    source: Source, ledger: Ledger, segments: Sequence[Segment], limiter: RateLimiter, name: str
) -> None:
    """Request each clip until it has a result, and append the results to the ledger.

    A clip that failed is queued again behind the others. A clip that met a rate limit counts as not requested.

    Raises:
        TransientError: If the server limits the rate for too long, or clip after clip fails.
    """
    queue = [_QueuedClip(0.0, position, 1, segment) for position, segment in enumerate(segments)]
    n_retries_left = limiter.max_retries_per_job
    streak = _FailureStreak(limiter.failure_streak)
    with progress_bar(len(segments), f"fetch {name}") as bar:
        while queue:
            clip = heapq.heappop(queue)
            time.sleep(max(0.0, clip.due_s - time.monotonic()))
            limiter.wait()
            try:
                fetched = source.fetch(clip.segment)
            except RateLimited as limit:
                heapq.heappush(queue, clip)
                limiter.on_rate_limit(str(limit), limit.retry_after_s)
                continue
            if fetched.status is not Status.FAILED:
                streak.end()
                limiter.on_success()
            elif excused := streak.add(clip, fetched.reason):
                _requeue(queue, excused)
                was_refused = fetched.reason.startswith("HTTP ")
                limiter.on_failure_streak(streak.n_failed, fetched.reason, refused=was_refused)
                continue
            ledger.add(clip.segment, fetched)
            if fetched.status is Status.FAILED and clip.n_tries < limiter.max_tries_per_clip and n_retries_left > 0:
                n_retries_left -= 1
                due_s = time.monotonic() + limiter.backoff_s(clip.n_tries)
                heapq.heappush(queue, clip._replace(due_s=due_s, n_tries=clip.n_tries + 1))
            bar.update(len(segments) - len(queue) - bar.n)


def _requeue(queue: list[_QueuedClip], clips: Sequence[_QueuedClip]) -> None:
    """Requeue these clips at the end with their try count unchanged, replacing an entry already queued."""
    positions = {clip.position for clip in clips}
    queue[:] = [clip for clip in queue if clip.position not in positions]
    queue.extend(clip._replace(due_s=time.monotonic()) for clip in clips)
    heapq.heapify(queue)
