"""The device that a model runs on, and the precision of its arithmetic there."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ssondo.errors import SsondoError

_HALF_PRECISION = {"bf16": torch.bfloat16, "fp16": torch.float16}
PRECISIONS = ("auto", "float32", *_HALF_PRECISION)


def resolve_device(device: str | torch.device) -> torch.device:
    """Return the torch device of this name, after a check that it can be used.

    Args:
        device: "auto" (a GPU if there is one, else the CPU), "cpu", "cuda", "cuda:1", or a torch device.

    Raises:
        SsondoError: if there is no such device or it cannot be used.
    """
    name = str(device)
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        if name.startswith("cuda") and not torch.cuda.is_available():
            raise RuntimeError("this machine has no usable GPU")
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise SsondoError(f"device {name!r} cannot be used ({reason}); use 'auto' or 'cpu'") from None
    return torch.device(name)


def check_precision(precision: str) -> None:
    """Check that a precision is one of `PRECISIONS`.

    Raises:
        SsondoError: if it is not.
    """
    if precision not in PRECISIONS:
        raise SsondoError(f"precision {precision!r} is unknown; use one of {', '.join(PRECISIONS)}")


def amp_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """Return the 16-bit type for `torch.autocast`, or None if the computation stays in float32.

    Args:
        precision: one of `PRECISIONS`. "auto" is 16 bit on a GPU (bfloat16 if the GPU supports it natively,
            else float16) and float32 on a CPU, because most CPUs emulate 16-bit arithmetic slowly.
        device: the device that computes.
    """
    if precision == "auto" and device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return _HALF_PRECISION.get(precision)


@contextmanager
def disable_tf32() -> Iterator[None]:
    """Compute convolutions on a GPU in full float32.

    By default torch lets cuDNN use TF32, which keeps 10 of the 23 bits of the mantissa.
    """
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before
