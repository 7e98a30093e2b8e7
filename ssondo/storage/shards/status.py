"""How a clip ended, as shards and ledgers note it."""

from enum import IntEnum


class Status(IntEnum):
    """How a clip ended: there, known not to exist, or failed in a way that may pass."""

    OK = 0
    UNAVAILABLE = 1
    FAILED = 2
