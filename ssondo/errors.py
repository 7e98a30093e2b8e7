"""Errors that a user can correct.

Any other exception is a bug of ssondo. The command line prints a `SsondoError` as one line, so its message names the
file, key or clip, and what to do.
"""


class SsondoError(Exception):
    """An error in the input, the settings or the environment; its message is one line."""

    exit_code = 1


class ClipError(SsondoError):
    """The file of one clip cannot be used.

    Results hold the text as the reason why the clip has no sound, so it is data: changing it changes the
    hash of the code (`ssondo.provenance.reduce`), which the texts of other errors do not.
    """


class TransientError(SsondoError):
    """An error that may not occur again when the same command is repeated, e.g. of the network or a time limit.

    The exit code is EX_TEMPFAIL of sysexits.h.
    """

    exit_code = 75
