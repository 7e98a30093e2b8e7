"""Faults that a user can mend.

Every other exception is a bug of ssondo. The command line prints a `SsondoError` as one
line, so its text names the file, key or clip and says the way out.
"""


class SsondoError(Exception):
    """A fault in the input, the settings or the surroundings; the text is one line."""

    exit_code = 1


class TransientError(SsondoError):
    """A fault that may be gone when the same command runs again (network, time limit).

    The exit code is EX_TEMPFAIL of sysexits.h.
    """

    exit_code = 75
