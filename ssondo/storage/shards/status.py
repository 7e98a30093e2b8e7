"""The status of a clip in shards and ledgers."""

from enum import IntEnum


class Status(IntEnum):
    """Whether a clip is present, known not to exist, or failed for a reason that may be temporary."""

    OK = 0
    UNAVAILABLE = 1
    FAILED = 2
