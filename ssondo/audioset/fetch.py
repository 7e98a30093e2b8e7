"""Fetch the clips of one shard from a source, and note how each ended.

A clip is ok, unavailable for a reason that will not change, or failed for one that may; a shard
with too many failed clips is no result but a fault that passes. From a dear source a killed job
goes on where it was, and a shard that is made again asks only for what it has not: the ledger
beside it remembers. What a local copy holds is not copied; the shard says where it lies.
"""

import heapq
import inspect
import logging
import re
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ssondo.audioset.ledger import Ledger, ledger_path
from ssondo.audioset.rate_limiter import RateLimiter
from ssondo.audioset.sources import Fetched, RateLimited, Source, open_source
from ssondo.errors import TransientError
from ssondo.storage.segments import Segment, read_segments
from ssondo.storage.shards.audio import AudioShardWriter
from ssondo.storage.shards.status import Status
from ssondo.system.process_pool import ordered_map
from ssondo.system.progress import progress, progress_bar

log = logging.getLogger(__name__)

_SHOWN_REASONS = 5


def fetch(
    *,
    segments: Path,
    out: Path,
    source: dict[str, Any],
    manner: dict[str, Any] | None = None,
    located: Path | None = None,
    max_failed_share: float = 0.02,
    n_workers: int = 1,
) -> None:
    """Fetch the clips of one shard's list.

    Args:
        segments: the shard's list, made by index.
        out: audio shard for the clips as they come, each with its status and reason.
        source: where clips come from: "kind" (folder, hdf5, parquet, webdataset, youtube, renderer) and its settings.
        manner: more settings, those that change no clip: rate, pauses, retries, cookies, proxies.
        located: where the clips lie in a local copy, made by locate; without it the copy is searched now.
        max_failed_share: share of clips that may fail for now, in [0, 1].
        n_workers: processes, for sources that compute (renderer).

    Raises:
        SsondoError: if the list or the source's settings are wrong.
        TransientError: if more clips failed than may; what was fetched is kept for the next try.
    """
    began = time.monotonic()
    listed = read_segments(segments)
    paced, of_source = _split(manner or {})
    scratch = out.with_suffix(".scratch")
    opened = open_source({**source, **of_source}, listed, _job_of(segments), located=located, scratch=scratch)
    counts: Counter[Status] = Counter()
    failures: Counter[str] = Counter()
    with AudioShardWriter(out, sample_rate=0, settings={"source": source["kind"]}, producer="fetch") as shard:
        if opened.resumes:
            clips = _fetch_remote(
                opened, f"{source['kind']} {opened.identity}", listed, out, RateLimiter(**paced), scratch
            )
        else:
            clips = _fetch_local(opened, {**source, **of_source}, listed, located, n_workers if opened.parallel else 1)
            clips = progress(clips, f"fetch {segments.stem}", total=len(listed))
        for segment, clip in zip(listed, clips, strict=True):
            counts[clip.status] += 1
            failures.update([clip.reason] if clip.status is Status.FAILED else [])
            where = clip.origin and clip.origin.to_shard()
            shard.add(segment.ytid, clip.data, status=clip.status, reason=clip.reason, location=where)
        if counts[Status.FAILED] > max_failed_share * len(listed):
            raise TransientError(
                f"{segments.stem}: {counts[Status.FAILED]} of {len(listed)} clips failed, more than "
                f"max_failed_share {max_failed_share:g} allows ({_most_common(failures)}); "
                "run the same command again, or raise audioset.max_failed_share"
            )
    seconds = time.monotonic() - began
    log.info(
        "fetch %s: %d of %d clips, %d unavailable, %d failed, %.1f s (%.1f clips/s), in %s",
        segments.stem,
        counts[Status.OK],
        len(listed),
        counts[Status.UNAVAILABLE],
        counts[Status.FAILED],
        seconds,
        len(listed) / max(seconds, 1e-9),
        out,
    )


def _split(manner: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What of the manner is the pace's, and what the source's."""
    of_pace = inspect.signature(RateLimiter).parameters
    return (
        {key: value for key, value in manner.items() if key in of_pace},
        {key: value for key, value in manner.items() if key not in of_pace},
    )


def _most_common(reasons: Counter[str]) -> str:
    """The commonest reasons with their numbers, and how many clips had others."""
    shown = reasons.most_common(_SHOWN_REASONS)
    others = reasons.total() - sum(number for _, number in shown)
    return ", ".join([*(f"{number} {reason}" for reason, number in shown), *([f"{others} others"] if others else [])])


def _job_of(segments: Path) -> int:
    """Number of a job among those of the run, from its list's name: train-0003 -> 3."""
    found = re.search(r"(\d+)$", segments.stem)
    return int(found[1]) if found else 0


def _fetch_local(
    source: Source, settings: dict[str, Any], segments: Sequence[Segment], located: Path | None, n_workers: int
) -> Iterator[Fetched]:
    """Each segment's clip, in order, from a source that can be asked at any time."""
    if n_workers == 1:
        yield from map(source.fetch, segments)
    else:
        yield from ordered_map(_fetch_here, segments, n_workers, _open_here, (settings, segments, located))


# A worker process keeps its own source: one that holds a synthesiser or open files cannot be sent.
_source: Source


def _open_here(settings: dict[str, Any], segments: Sequence[Segment], located: Path | None) -> None:
    global _source
    _source = open_source(settings, segments, located=located)


def _fetch_here(segment: Segment) -> Fetched:
    return _source.fetch(segment)


def _fetch_remote(
    source: Source, identity: str, segments: Sequence[Segment], out: Path, pace: RateLimiter, scratch: Path
) -> Iterator[Fetched]:
    """Each segment's clip, in order; asked for only if the ledger does not have it."""
    with Ledger(ledger_path(out), identity, check_sound=True) as ledger:
        # What a killed job left of the clip that it was at.
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        wanted = [segment for segment in segments if not ledger.finished(segment)]
        if len(wanted) < len(segments):
            log.info("%s has %d of %d clips already", ledger.path, len(segments) - len(wanted), len(segments))
        _fetch_with_retries(source, ledger, wanted, pace, out.stem)
        shutil.rmtree(scratch, ignore_errors=True)
        yield from map(ledger.ending, segments)


class QueuedClip(NamedTuple):
    """A clip that waits to be asked for: not before `due_s`, in the list's order."""

    due_s: float
    number: int
    tries: int
    segment: Segment


class FailureStreak:
    """Clips that failed one after the other for one reason: an outage, or throttling by another name.

    Each clip is given the benefit of that doubt once, so that clips which really fail have an end.
    """

    def __init__(self, length: int) -> None:
        self.n_failed = 0
        self._length = self._needed = length
        self._reason = ""
        self._turns: list[QueuedClip] = []
        self._spared: set[int] = set()

    def broken(self) -> None:
        """Note a clip that did not fail."""
        self._begin("")

    def _begin(self, reason: str) -> None:
        self._reason, self._turns, self._needed, self.n_failed = reason, [], self._length, 0

    def add(self, turn: QueuedClip, reason: str) -> list[QueuedClip]:
        """Note a clip that failed; returns those to be asked for again after a pause, if it is time for one."""
        if turn.number in self._spared:
            return []
        if reason != self._reason:
            self._begin(reason)
        self.n_failed += 1
        self._turns.append(turn)
        if len(self._turns) < self._needed:
            return []
        spared, self._turns = self._turns, []
        self._spared.update(each.number for each in spared)
        # After the pause the first that fails in the same way is one too many.
        self._needed = 1
        return spared


def _fetch_with_retries(
    source: Source, ledger: Ledger, wanted: Sequence[Segment], pace: RateLimiter, name: str
) -> None:
    """Ask for each clip until it has ended, politely.

    A clip that fails waits its turn behind the others. One that is throttled has not been asked for.

    Raises:
        TransientError: if the server limits the rate for too long, or clip after clip fails.
    """
    queue = [QueuedClip(0.0, number, 1, segment) for number, segment in enumerate(wanted)]
    retries = pace.max_retries_per_job
    row = FailureStreak(pace.in_a_row)
    with progress_bar(len(wanted), f"fetch {name}") as bar:
        while queue:
            turn = heapq.heappop(queue)
            time.sleep(max(0.0, turn.due_s - time.monotonic()))
            pace.wait()
            try:
                fetched = source.fetch(turn.segment)
            except RateLimited as limit:
                heapq.heappush(queue, turn)
                pace.pause(str(limit), limit.retry_after_s)
                continue
            if fetched.status is not Status.FAILED:
                row.broken()
                pace.answered()
            elif spared := row.add(turn, fetched.reason):
                _put_back(queue, spared)
                pace.stall(row.n_failed, fetched.reason, refused=fetched.reason.startswith("HTTP "))
                continue
            ledger.add(turn.segment, fetched)
            if fetched.status is Status.FAILED and turn.tries < pace.max_tries_per_clip and retries > 0:
                retries -= 1
                due_s = time.monotonic() + pace.backoff_s(turn.tries)
                heapq.heappush(queue, turn._replace(due_s=due_s, tries=turn.tries + 1))
            bar.update(len(wanted) - len(queue) - bar.n)


def _put_back(queue: list[QueuedClip], turns: Sequence[QueuedClip]) -> None:
    """Queue clips as if they had not been asked for, behind those that have not, in place of a turn that they have."""
    numbers = {turn.number for turn in turns}
    queue[:] = [turn for turn in queue if turn.number not in numbers]
    queue.extend(turn._replace(due_s=time.monotonic()) for turn in turns)
    heapq.heapify(queue)
