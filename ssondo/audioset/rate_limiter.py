"""How fast a job asks: its fixed part of the run's rate, and pauses where the server wants them.

Jobs do not speak to each other. The rate of the whole run is divided by the number of jobs that may
run at once, so it is kept whatever the others do; a server that limits the rate tells all of them.
"""

import logging
import random
import time
from collections.abc import Sequence

from ssondo.errors import TransientError

log = logging.getLogger(__name__)

_LONGEST_PAUSE_S = 3600.0
_SLOWEST = 8.0
_RECOVERY = 0.9


class RateLimiter:
    """Waits before each request.

    Args:
        requests_per_hour: that the whole run may make.
        max_jobs: jobs that share that rate.
        sleep_s: least seconds between two requests of a job, whatever the rate.
        pauses_s: seconds to wait at each rate-limit answer in a row; after the last the job gives up.
        max_tries_per_clip: times that a clip is asked for in a job while the network fails.
        backoff_s: seconds before a clip is asked for again; each further time twice as long, and up
            to half of it more by chance.
        max_retries_per_job: times in all that a job asks for clips again.
        in_a_row: clips in a row that fail for one reason and so are taken for a fault of the
            network, or for throttling: a pause like that for a rate limit.
        seed: of the chance in waiting.
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
        in_a_row: int = 5,
        seed: int | None = None,
    ) -> None:
        self.max_tries_per_clip = max_tries_per_clip
        self.max_retries_per_job = max_retries_per_job
        self.in_a_row = in_a_row
        self._interval_s = max(3600 * max_jobs / requests_per_hour, sleep_s)
        self._sleep_s = sleep_s
        self._pauses_s = list(pauses_s)
        self._backoff_s = backoff_s
        self._random = random.Random(seed)
        self._slowness = 1.0
        self._n_pauses = 0
        self._was_answered = False
        # A job that ended just now may have asked just now.
        self._last_s = time.monotonic()
        self._next_s = self._last_s + self._interval_s

    def wait(self) -> None:
        """Sleep until the next request may be made.

        Requests lie on a grid of the rate, each moved back by chance: the rate is never passed. Where that brings
        two close to each other, the second waits for the least time between them.
        """
        chance_s = self._random.uniform(0, self._interval_s / 2)
        due_s = max(self._next_s + chance_s, self._last_s + self._sleep_s)
        time.sleep(max(0.0, due_s - time.monotonic()))
        self._last_s = time.monotonic()
        self._next_s = max(self._next_s, time.monotonic() - self._interval_s) + self._interval_s * self._slowness

    def answered(self) -> None:
        """Note an answer that is no throttling: the job gets faster again, up to its part of the rate."""
        self._n_pauses = 0
        self._was_answered = True
        self._slowness = max(1.0, self._slowness * _RECOVERY)

    def pause(self, why: str, retry_after_s: float = 0) -> None:
        """Wait because the server limits the rate, and go on at half the speed.

        Args:
            why: for messages.
            retry_after_s: how long the server says.

        Raises:
            TransientError: if it still does after the longest pause.
        """
        self._was_answered = True
        if self._n_pauses == len(self._pauses_s):
            raise TransientError(
                f"the server limits the rate ({why}); finished clips are kept, run again later, "
                "with a lower audioset.source.requests_per_hour"
            )
        self._rest(f"rate limited ({why})", retry_after_s)

    def stall(self, n_clips: int, reason: str, *, refused: bool) -> None:
        """Wait because clips fail one after the other for one reason, and go on at half the speed.

        Args:
            n_clips: that have failed so.
            reason: why, for messages.
            refused: whether the server answered them: it may limit the rate by another name.

        Raises:
            TransientError: if they still fail after the longest pause; after the first, if nothing was ever
                answered: a machine without a network has none an hour later.
        """
        self._was_answered |= refused
        what = f"{n_clips} clips in a row failed: {reason}"
        n_allowed = len(self._pauses_s) if self._was_answered else min(1, len(self._pauses_s))
        if self._n_pauses >= n_allowed:
            if refused:
                advice = "the server may limit the rate: lower audioset.source.requests_per_hour, or update yt-dlp"
            else:
                advice = "check the network, audioset.source.proxies and cookies, and that yt-dlp is up to date"
            raise TransientError(f"{what}; {advice}; finished clips are kept, run again later")
        self._rest(what)

    def _rest(self, why: str, retry_after_s: float = 0) -> None:
        own_s = self._pauses_s[self._n_pauses] * self._random.uniform(1, 1.25)
        pause_s = min(max(own_s, retry_after_s), _LONGEST_PAUSE_S)
        self._n_pauses += 1
        self._slowness = min(_SLOWEST, self._slowness * 2)
        log.warning("%s; pausing %.3g s", why, pause_s)
        time.sleep(pause_s)
        self._next_s = time.monotonic() + self.interval_s

    @property
    def interval_s(self) -> float:
        """Seconds between two requests, as slow as the job is now."""
        return self._interval_s * self._slowness

    def backoff_s(self, tries: int) -> float:
        """Seconds before a clip that failed `tries` times is asked for again."""
        return self._backoff_s * 2 ** (tries - 1) * self._random.uniform(1, 1.5)
