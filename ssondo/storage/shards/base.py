"""What all kinds of shard share: atomic writing, one digest, and the checks of the reader."""

import io
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np

from ssondo.errors import SsondoError
from ssondo.storage.atomic_files import array_digest, atomic_write, content_digest, write_digest

FORMAT_VERSION = 1


def fixed_bytes(texts: Sequence[str], what: str, path: Path) -> np.ndarray:
    """ASCII texts as an array of fixed-length bytes; `what` and `path` name a text with other characters."""
    try:
        values = np.array([text.encode("ascii") for text in texts], dtype=np.bytes_)
    except UnicodeEncodeError as error:
        raise SsondoError(f"{path}: {what} {error.object!r} has characters outside ASCII; rename the clip") from None
    return values if len(texts) else np.zeros(0, dtype="S1")


class _File(io.FileIO):
    """The file that HDF5 writes to. A write error is stored in `error` and hidden from HDF5.

    HDF5 cannot close a file after a failed write, and the process crashes later. Therefore all writes
    after the first error are ignored, and the writer of the shard raises the stored error.
    """

    error: OSError | None = None

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        n_written = 0
        while self.error is None and n_written < len(view):
            try:
                n_written += super().write(view[n_written:])
            except OSError as error:
                self.error = error
        if self.error is not None:
            self.seek(len(view) - n_written, os.SEEK_CUR)
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        if self.error is None:
            try:
                return super().truncate(size)
            except OSError as error:
                self.error = error
        return size or 0

    def raise_error(self) -> None:
        """Raise the first write error, if there was one."""
        if self.error is not None:
            raise self.error


class ShardWriter:
    """Base class of the writers, which are context managers: the file appears when the block succeeds.

    Args:
        path: Final name of the file; the digest is written next to it.
        settings: What the content was made with, stored as JSON.
        attributes: Other attributes of the file.
    """

    kind: str

    def __init__(
        self, path: str | os.PathLike[str], settings: Mapping[str, Any], attributes: Mapping[str, Any]
    ) -> None:
        self.path = Path(path)
        self._settings = json.dumps(dict(settings), sort_keys=True)
        self._clip_ids: list[str] = []
        self._extra: dict[str, np.ndarray] = {}
        self._stack = ExitStack()
        temporary = self._stack.enter_context(atomic_write(self.path))
        try:
            self._disk = self._stack.enter_context(_File(temporary, "w+b"))
            self._file = self._stack.enter_context(h5py.File(self._disk, "w"))
            self._file.attrs.update(
                {"format_version": FORMAT_VERSION, "kind": self.kind, "settings": self._settings, **attributes}
            )
        except BaseException as error:
            if not self._stack.__exit__(type(error), error, error.__traceback__):
                raise

    def __len__(self) -> int:
        return len(self._clip_ids)

    def update_settings(self, **settings: Any) -> None:
        """Add settings whose values are available only after clips were written."""
        self._settings = json.dumps(json.loads(self._settings) | settings, sort_keys=True)
        self._file.attrs["settings"] = self._settings

    def add_extra(self, name: str, values: np.ndarray) -> None:
        """Add an array with one row per clip (labels, split, fold), in the order of `add`."""
        self._extra[name] = np.asarray(values)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            try:
                self._finish()
                self._file.close()
                self._disk.raise_error()
            except BaseException as failure:
                self._abandon(failure)
                raise
            self._stack.__exit__(None, None, None)
            write_digest(self.path, self.digest)
        else:
            self._abandon(error)

    def _abandon(self, error: BaseException) -> None:
        """Close without further writes; `atomic_write` removes the file and reports a full disk."""
        self._disk.error = self._disk.error or OSError("abandoned")
        self._stack.__exit__(type(error), error, error.__traceback__)

    def _arrays(self) -> dict[str, np.ndarray]:
        """Arrays that are written when all clips were added."""
        return {}

    def _streamed_digests(self) -> dict[str, str]:
        """Digests of the arrays that were written while clips were added."""
        return {}

    def _identity(self) -> dict[str, str]:
        """Attributes that change what a reader computes and therefore belong to the digest."""
        return {"kind": self.kind, "settings": json.dumps(self._digested_settings(), sort_keys=True)}

    def _digested_settings(self) -> dict[str, Any]:
        """The settings without digests of input files, which do not change the content."""
        return {key: value for key, value in json.loads(self._settings).items() if not key.endswith("_digest")}

    def _finish(self) -> None:
        if len(set(self._clip_ids)) != len(self._clip_ids):
            duplicate, _ = Counter(self._clip_ids).most_common(1)[0]
            raise SsondoError(f"{self.path}: clip {duplicate} was added twice; a shard holds each clip once")
        for name, values in self._extra.items():
            if len(values) != len(self):
                raise ValueError(f"{name} has {len(values)} rows for {len(self)} clips")
        streamed = self._streamed_digests()
        arrays = {"clip_id": fixed_bytes(self._clip_ids, "clip", self.path), **self._arrays(), **self._extra}
        for name, values in arrays.items():
            self._file.create_dataset(name, data=values)
        self.digest = content_digest(
            {**self._identity(), **streamed, **{name: array_digest(values) for name, values in arrays.items()}}
        )
        self._file.attrs["digest"] = self.digest
        self._file.attrs["n_clips"] = len(self._clip_ids)
        self._file.attrs["complete"] = True


class ShardReader:
    """Base class of the readers, which open and check a shard; use it as a context manager.

    Args:
        path: Path of the shard.

    Raises:
        SsondoError: If the shard is missing, incomplete, damaged, or of another kind or format version.
    """

    kind: str
    _required: tuple[str, ...]

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        remake = f"remove it and make it again with: snakemake {self.path}"
        if not self.path.is_file():
            raise SsondoError(f"{self.path}: no such shard; make it with: snakemake {self.path}")
        try:
            self._file = h5py.File(self.path, "r")
        except OSError as error:
            raise SsondoError(f"{self.path}: not a readable HDF5 file, or truncated ({error}); {remake}") from None
        try:
            attributes = self._file.attrs
            version = attributes.get("format_version")
            if version != FORMAT_VERSION:
                raise SsondoError(
                    f"{self.path}: shard format version {version}, this ssondo reads {FORMAT_VERSION}; {remake}"
                )
            if attributes.get("kind") != self.kind:
                raise SsondoError(f"{self.path}: a shard of kind {attributes.get('kind')!r}, expected {self.kind!r}")
            missing = [name for name in self._required if name not in self._file]
            if missing or not attributes.get("complete"):
                reason = f"no dataset {', '.join(missing)}" if missing else "not marked as complete"
                raise SsondoError(f"{self.path}: incomplete ({reason}); {remake}")
            self.clip_ids: list[str] = [name.decode("ascii") for name in self._file["clip_id"][:]]
            if len(self.clip_ids) != attributes["n_clips"]:
                raise SsondoError(
                    f"{self.path}: has {len(self.clip_ids)} clips, but n_clips is {attributes['n_clips']}; {remake}"
                )
            self.digest: str = attributes["digest"]
            self.settings: dict[str, Any] = json.loads(attributes["settings"])
            self.producer: str = attributes["producer"]
        except BaseException:
            self._file.close()
            raise

    def __len__(self) -> int:
        return len(self.clip_ids)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; arrays that were read remain valid."""
        self._file.close()

    def extra(self, name: str) -> np.ndarray:
        """Read the array `name`, which has one row per clip."""
        if name not in self._file:
            raise SsondoError(f"{self.path}: has no {name!r}; it holds {', '.join(sorted(self._file))}")
        return self._file[name][:]
