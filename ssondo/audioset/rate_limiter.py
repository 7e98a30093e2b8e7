"""Limit the rate of requests of one fetch job, and pause when the server or the network requires it.

Jobs do not communicate. The rate of the whole run is divided by the number of jobs that may run at once, so it is
never exceeded; a server that limits the rate answers all of them.
"""

import logging
import random
import time
from collections.abc import Sequence

from ssondo.errors import TransientError

log = logging.getLogger(__name__)

_MAX_PAUSE_S = 3600.0
_MAX_SLOWDOWN = 8.0
_RECOVERY = 0.9


class RateLimiter:
    """Delays the requests of a job.

    Args:
        requests_per_hour: Number of requests per hour of the whole run.
        max_jobs: Number of jobs that share this rate.
        sleep_s: Shortest time between two requests of a job in seconds, whatever the rate.
        pauses_s: Seconds to pause at consecutive rate-limit answers; after the last pause the job gives up.
        max_tries_per_clip: Number of times that one job requests a clip which fails.
        backoff_s: Seconds before a clip is requested again; doubled with each try, and increased by a random
            amount of up to half.
        max_retries_per_job: Number of repeated requests that one job makes in total.
        failure_streak: Number of consecutive clips failing for the same reason that is treated as an outage
            or a disguised rate limit, and so leads to a pause.
        seed: Seed of the random delays; None for a different sequence in each job.
    """

    def __init__(
        self,
        *,
        requests_per_hour: float = 300,
        max_jobs: int = 1,
        sleep_s: float = 0,
        pauses_s: Sequence[float] = (60, 300, 900, 3600),
        max_tries_per_clip: int = 3,
        backoff_s: float = 60,
        max_retries_per_job: int = 500,
        failure_streak: int = 5,
        seed: int | None = None,
    ) -> None:
        self.max_tries_per_clip = max_tries_per_clip
        self.max_retries_per_job = max_retries_per_job
        self.failure_streak = failure_streak
        self._interval_s = max(3600 * max_jobs / requests_per_hour, sleep_s)
        self._sleep_s = sleep_s
        self._pauses_s = list(pauses_s)
        self._backoff_s = backoff_s
        self._random = random.Random(seed)
        self._slowdown = 1.0
        self._n_pauses = 0
        self._was_answered = False
        # The previous job of this run may have ended with a request just now.
        self._last_s = time.monotonic()
        self._next_s = self._last_s + self._interval_s

    def wait(self) -> None:
        """Sleep until the next request may be made.

        Requests lie on a grid given by the rate, each delayed by a random time, so the rate is never exceeded. If
        the delays bring two requests close to each other, the second one waits for `sleep_s`.
        """
        delay_s = self._random.uniform(0, self._interval_s / 2)
        due_s = max(self._next_s + delay_s, self._last_s + self._sleep_s)
        time.sleep(max(0.0, due_s - time.monotonic()))
        self._last_s = time.monotonic()
        self._next_s = max(self._next_s, time.monotonic() - self._interval_s) + self.interval_s

    def on_success(self) -> None:
        """Record an answer other than a rate limit: the job speeds up again, up to its share of the rate."""
        self._n_pauses = 0
        self._was_answered = True
        self._slowdown = max(1.0, self._slowdown * _RECOVERY)

    def on_rate_limit(self, why: str, retry_after_s: float = 0) -> None:
        """Pause because the server limits the rate (`why` is its answer), and continue at half the speed.

        Raises:
            TransientError: If the server still limits the rate after the longest pause.
        """
        self._was_answered = True
        if self._n_pauses == len(self._pauses_s):
            raise TransientError(
                f"the server limits the rate ({why}); finished clips are kept, run again later, "
                "with a lower audioset.source.requests_per_hour"
            )
        self._pause(f"rate limited ({why})", retry_after_s)

    def on_failure_streak(self, n_clips: int, reason: str, *, refused: bool) -> None:
        """Pause because `n_clips` consecutive clips failed for the same reason, and continue at half the speed.

        `refused` says whether the server answered with an error, which may be a disguised rate limit.

        Raises:
            TransientError: If clips still fail after the longest pause. If no request of the job was ever
                answered, as on a machine without a network, it is raised after the first pause.
        """
        self._was_answered |= refused
        what = f"{n_clips} clips in a row failed: {reason}"
        n_allowed = len(self._pauses_s) if self._was_answered else min(1, len(self._pauses_s))
        if self._n_pauses >= n_allowed:
            advice = "check the network, audioset.source.proxies and cookies, and that yt-dlp is up to date"
            if refused:
                advice = "the server may limit the rate: lower audioset.source.requests_per_hour, or update yt-dlp"
            raise TransientError(f"{what}; {advice}; finished clips are kept, run again later")
        self._pause(what)

    def _pause(self, why: str, retry_after_s: float = 0) -> None:
        own_s = self._pauses_s[self._n_pauses] * self._random.uniform(1, 1.25)
        pause_s = min(max(own_s, retry_after_s), _MAX_PAUSE_S)
        self._n_pauses += 1
        self._slowdown = min(_MAX_SLOWDOWN, self._slowdown * 2)
        log.warning("%s; pausing %.3g s", why, pause_s)
        time.sleep(pause_s)
        self._next_s = time.monotonic() + self.interval_s

    @property
    def interval_s(self) -> float:
        """Mean time between two requests at the present speed, in seconds."""
        return self._interval_s * self._slowdown

    def backoff_s(self, n_tries: int) -> float:
        """Return the seconds before a clip that failed `n_tries` times is requested again."""
        return self._backoff_s * 2 ** (n_tries - 1) * self._random.uniform(1, 1.5)
