"""Why clips are missing, in words that are the same for many of them."""

import re


def shared_reason(reason: str) -> str:
    """A reason without the seconds and sizes, which differ from clip to clip."""
    return re.sub(r"\d+\.\d+|\(\d+ bytes\)", "#", reason)
