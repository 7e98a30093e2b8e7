"""Write files that are either complete or absent, and digests of their content.

A file gets its final name only when it is complete: `atomic_write` writes a temporary file in the same
folder and renames it. The digest of a file is computed from its content (arrays, tensors, clip ids), not from
its bytes, so that making a file again with the same content does not make its dependents run again.
"""

import csv
import hashlib
import io
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ssondo.errors import SsondoError
from ssondo.storage.atomic_write import atomic_write as atomic_write
from ssondo.storage.atomic_write import is_disk_full as is_disk_full

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

# Dates and program versions would make the files of equal figures differ.
_FIGURE_METADATA: dict[str, dict[str, None]] = {".png": {"Software": None}, ".svg": {"Creator": None, "Date": None}}


def digest_path(path: str | os.PathLike[str]) -> Path:
    """Path of the digest of a file: its name followed by `.digest`."""
    return Path(f"{os.fspath(path)}.digest")


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file in one step, so that a reader sees either the old or the new content."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write a value as indented JSON with sorted keys in one step."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file.

    Raises:
        SsondoError: If the file is missing or not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SsondoError(f"{path}: no such file; make it with: snakemake {path}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise SsondoError(f"{path}: not a JSON file ({error}); remove it and run snakemake again") from None


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    """Return rows as CSV text, with fields quoted where necessary."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def write_csv(path: str | os.PathLike[str], frame: "pd.DataFrame", float_format: str | None = None) -> None:
    """Write a data frame as CSV in one step, without its index; missing values are empty.

    Numbers have the format `float_format`, e.g. "%.6f"; by default the shortest text that gives the same number.
    """
    with atomic_write(path) as temporary:
        frame.to_csv(temporary, index=False, lineterminator="\n", float_format=float_format)


def save_figure(path: str | os.PathLike[str], figure: "Figure", *, dpi: float = 120) -> None:
    """Write a matplotlib figure as .png (with `dpi` dots per inch) or .svg in one step.

    Equal figures give equal bytes. The figure must have been made with `matplotlib.figure.Figure`, not with pyplot,
    which keeps every figure in memory until it is closed.
    """
    from matplotlib import rc_context

    suffix = Path(path).suffix
    if suffix not in _FIGURE_METADATA:
        raise ValueError(f"{path}: a figure is written as .png or .svg, not as {suffix!r}")
    with atomic_write(path) as temporary, rc_context({"svg.hashsalt": "ssondo"}):
        figure.savefig(temporary, format=suffix[1:], dpi=dpi, metadata=_FIGURE_METADATA[suffix])


def array_digest(values: np.ndarray) -> str:
    """SHA-256 of the type, shape and values of an array, in hexadecimal."""
    values = np.ascontiguousarray(values)
    digest = hashlib.sha256(f"{values.dtype.str}{values.shape}".encode())
    digest.update(values.data if values.size else b"")
    return digest.hexdigest()


def content_digest(parts: Mapping[str, str]) -> str:
    """SHA-256 of named parts, each given by its own digest or a short text; their order does not matter."""
    digest = hashlib.sha256()
    for name in sorted(parts):
        digest.update(f"{name}={parts[name]}\n".encode())
    return digest.hexdigest()


def clip_list_digest(clip_ids: Iterable[str]) -> str:
    """SHA-256 of a set of clips, independent of their order; scores with equal digests are comparable."""
    digest = hashlib.sha256()
    for clip_id in sorted(clip_ids):
        digest.update(f"{clip_id}\n".encode())
    return digest.hexdigest()


def file_digest(path: str | os.PathLike[str]) -> str:
    """SHA-256 of the bytes of a file, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_digest(path: str | os.PathLike[str], digest: str) -> None:
    """Write the digest of the file `path` next to it."""
    write_text(digest_path(path), digest + "\n")
