"""S-SONDO: small students that embed any audio, distilled from large audio foundation models.

    from ssondo import get_ssondo, list_heads, list_models, load_teacher

    model = get_ssondo()                            # MobileNetV3 distilled from MATPAC++
    embeddings = model(waveforms)                   # (batch, samples) at 32 kHz -> (batch, windows, 960)
    logits = get_ssondo(head="esc50")(waveforms)    # (batch, 50)

Importing the package is cheap: torch comes with the first of these names that is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ssondo.inference.wrapper import SsondoWrapper, get_ssondo, list_heads, list_models
    from ssondo.teachers.teacher import load_teacher

    __version__: str

__all__ = ["SsondoWrapper", "__version__", "get_ssondo", "list_heads", "list_models", "load_teacher"]

_HOMES = {
    "SsondoWrapper": "ssondo.inference.wrapper",
    "get_ssondo": "ssondo.inference.wrapper",
    "list_heads": "ssondo.inference.wrapper",
    "list_models": "ssondo.inference.wrapper",
    "load_teacher": "ssondo.teachers.teacher",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("ssondo")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'ssondo' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
