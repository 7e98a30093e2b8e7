import itertools
import random

import pytest

from ssondo.audioset.rate_limiter import RateLimiter
from ssondo.errors import TransientError


class Clock:
    """Time that passes only in sleep."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 1_000.0
        self.slept_s: list[float] = []
        monkeypatch.setattr("ssondo.audioset.rate_limiter.time.monotonic", lambda: self.now_s)
        monkeypatch.setattr("ssondo.audioset.rate_limiter.time.sleep", self.sleep)

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        self.slept_s.append(seconds)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def requests(clock: Clock, limiter: RateLimiter, hours: float, longest_answer_s: float = 0) -> list[float]:
    """Return the times of a job's requests within `hours`, if each answer takes up to `longest_answer_s` seconds."""
    chance = random.Random(0)
    times = []
    begin_s = clock.now_s
    while True:
        limiter.wait()
        if clock.now_s - begin_s > hours * 3600:
            return times
        times.append(clock.now_s)
        clock.sleep(chance.uniform(0, longest_answer_s))


def most_in_an_hour(times: list[float]) -> int:
    return max(sum(start <= other < start + 3600 for other in times) for start in times)


@pytest.mark.parametrize("longest_answer_s", [0, 20, 200])
def test_all_jobs_together_never_pass_the_rate(clock: Clock, longest_answer_s: float) -> None:
    times: list[float] = []
    begin_s = clock.now_s
    for seed in range(4):
        clock.now_s = begin_s
        limiter = RateLimiter(requests_per_hour=300, max_jobs=4, seed=seed)
        times += requests(clock, limiter, hours=3, longest_answer_s=longest_answer_s)
    # A job may have one request at either end of an hour.
    assert most_in_an_hour(times) <= 300 + 4
    if longest_answer_s <= 20:
        assert len(times) > 0.95 * 3 * 300


def test_jobs_one_after_the_other_do_not_pass_the_rate(clock: Clock) -> None:
    times: list[float] = []
    for seed in range(300):
        limiter = RateLimiter(requests_per_hour=300, seed=seed)
        limiter.wait()
        times.append(clock.now_s)
    assert most_in_an_hour(times) <= 301


def test_requests_are_not_evenly_spaced(clock: Clock) -> None:
    times = requests(clock, RateLimiter(requests_per_hour=300, seed=0), hours=1)
    gaps = [round(later - earlier, 2) for earlier, later in itertools.pairwise(times)]
    assert len(set(gaps)) > 100
    assert min(gaps) >= 6


@pytest.mark.parametrize("requests_per_hour", [300, 720, 100_000])
@pytest.mark.parametrize("longest_answer_s", [0, 1, 40])
def test_the_least_time_between_two_requests_is_kept_whatever_the_rate(
    clock: Clock, requests_per_hour: float, longest_answer_s: float
) -> None:
    limiter = RateLimiter(requests_per_hour=requests_per_hour, sleep_s=5, seed=0)
    times = requests(clock, limiter, hours=3, longest_answer_s=longest_answer_s)
    assert len(times) > 100
    assert min(later - earlier for earlier, later in itertools.pairwise(times)) > 5 - 1e-6


def test_pauses_grow_and_after_the_last_the_job_gives_up(clock: Clock) -> None:
    limiter = RateLimiter(pauses_s=[60, 300], seed=0)
    limiter.on_rate_limit("HTTP 429")
    limiter.on_rate_limit("HTTP 429")
    assert 60 <= clock.slept_s[0] <= 75
    assert 300 <= clock.slept_s[1] <= 375
    with pytest.raises(TransientError, match=r"limits the rate \(HTTP 429\).*lower audioset\.source"):
        limiter.on_rate_limit("HTTP 429")


def test_failure_streak_is_reported_as_such_and_not_as_a_rate_limit(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    limiter = RateLimiter(pauses_s=[60, 300], seed=0)
    limiter.on_success()
    limiter.on_failure_streak(5, "no network", refused=False)
    limiter.on_failure_streak(6, "no network", refused=False)
    assert 60 <= clock.slept_s[0] <= 75
    assert 300 <= clock.slept_s[1] <= 375
    with pytest.raises(TransientError) as caught:
        limiter.on_failure_streak(7, "no network", refused=False)
    message = str(caught.value)
    assert message.startswith("7 clips in a row failed: no network; check the network, audioset.source.proxies")
    assert "5 clips in a row failed: no network; pausing" in caplog.text
    assert "rate limit" not in caplog.text + message


def test_job_without_any_answer_ends_after_one_pause(clock: Clock) -> None:
    limiter = RateLimiter(pauses_s=[60, 300, 900, 3600], seed=0)
    limiter.on_failure_streak(5, "no network", refused=False)
    with pytest.raises(TransientError, match="6 clips in a row failed: no network; check the network"):
        limiter.on_failure_streak(6, "no network", refused=False)
    assert sum(clock.slept_s) <= 75


def test_streak_of_refusals_uses_all_pauses_like_a_rate_limit(clock: Clock) -> None:
    limiter = RateLimiter(pauses_s=[60, 300], seed=0)
    limiter.on_failure_streak(5, "HTTP 403", refused=True)
    limiter.on_failure_streak(6, "HTTP 403", refused=True)
    with pytest.raises(TransientError, match="7 clips in a row failed: HTTP 403; the server may limit the rate"):
        limiter.on_failure_streak(7, "HTTP 403", refused=True)


@pytest.mark.parametrize("refused", [False, True])
def test_without_pauses_a_failure_streak_ends_the_job_immediately(clock: Clock, refused: bool) -> None:
    with pytest.raises(TransientError, match="5 clips in a row failed"):
        RateLimiter(pauses_s=[], seed=0).on_failure_streak(5, "timeout", refused=refused)


def test_success_restarts_the_sequence_of_pauses(clock: Clock) -> None:
    limiter = RateLimiter(pauses_s=[60, 300], seed=0)
    for _ in range(5):
        limiter.on_rate_limit("HTTP 429")
        limiter.on_success()
    assert max(clock.slept_s) <= 75


@pytest.mark.parametrize(
    ("retry_after_s", "least_s", "most_s"), [(1_200, 1_200, 1_200), (9, 60, 75), (90_000, 3600, 3600)]
)
def test_pause_follows_retry_after_up_to_one_hour(
    clock: Clock, retry_after_s: float, least_s: float, most_s: float
) -> None:
    RateLimiter(pauses_s=[60], seed=0).on_rate_limit("HTTP 429", retry_after_s)
    assert least_s <= clock.slept_s[-1] <= most_s


def test_rate_limit_doubles_the_interval_and_successes_shorten_it_again(clock: Clock) -> None:
    limiter = RateLimiter(requests_per_hour=3600, seed=0)
    assert limiter.interval_s == 1
    for _ in range(4):
        limiter.on_rate_limit("HTTP 429")
    assert limiter.interval_s == 8
    for _ in range(10):
        limiter.on_success()
    assert 1 < limiter.interval_s < 4
    for _ in range(20):
        limiter.on_success()
    assert limiter.interval_s == 1


def test_backoff_doubles_with_each_try_and_differs_between_jobs() -> None:
    waits = [[RateLimiter(backoff_s=60, seed=seed).backoff_s(tries) for seed in range(20)] for tries in (1, 2, 3)]
    for tries, backoffs in enumerate(waits):
        assert 60 * 2**tries <= min(backoffs) < max(backoffs) <= 90 * 2**tries
        assert len(set(backoffs)) == 20
