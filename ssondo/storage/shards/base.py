"""What all kinds of shard share: complete or absent, one digest, what a reader checks."""

import io
import json
import os
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
    """ASCII texts as fixed-length bytes, of the longest's length."""
    try:
        values = np.array([text.encode("ascii") for text in texts], dtype=np.bytes_)
    except UnicodeEncodeError as error:
        raise SsondoError(f"{path}: {what} {error.object!r} has characters outside ASCII; rename the clip") from None
    return values if len(texts) else np.zeros(0, dtype="S1")


class _Disk(io.FileIO):
    """The file under HDF5. A failed write is kept in `fault` and not told to HDF5.

    HDF5 cannot close a file that it could not write, and the process dies of it later; so from the
    first fault on everything is swallowed, and the shard's writer raises the fault itself.
    """

    fault: OSError | None = None

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        done = 0
        while self.fault is None and done < len(view):
            try:
                done += super().write(view[done:])
            except OSError as error:
                self.fault = error
        if self.fault is not None:
            self.seek(len(view) - done, os.SEEK_CUR)
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        if self.fault is None:
            try:
                return super().truncate(size)
            except OSError as error:
                self.fault = error
        return size or 0

    def check(self) -> None:
        """Raise the fault, if there was one."""
        if self.fault is not None:
            raise self.fault


class Writer:
    """What both kinds of shard share: the temporary name, the attributes, the digest."""

    kind: str

    def __init__(
        self, path: str | os.PathLike[str], settings: Mapping[str, Any], attributes: Mapping[str, Any]
    ) -> None:
        self.path = Path(path)
        self._settings = json.dumps(dict(settings), sort_keys=True)
        self._clip_ids: list[str] = []
        self._stack = ExitStack()
        self._replacing = atomic_write(self.path)
        temporary = self._stack.enter_context(self._replacing)
        try:
            self._disk = self._stack.enter_context(_Disk(temporary, "w+b"))
            self._file = self._stack.enter_context(h5py.File(self._disk, "w"))
            self._file.attrs.update(
                {
                    "format_version": FORMAT_VERSION,
                    "kind": self.kind,
                    "settings": self._settings,
                    **attributes,
                }
            )
        except BaseException as error:
            if not self._stack.__exit__(type(error), error, error.__traceback__):
                raise

    def __len__(self) -> int:
        return len(self._clip_ids)

    def note(self, **settings: Any) -> None:
        """Set settings that are known only when the clips are written."""
        self._settings = json.dumps(json.loads(self._settings) | settings, sort_keys=True)
        self._file.attrs["settings"] = self._settings

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            try:
                self._finish()
                self._file.close()
                self._disk.check()
            except BaseException as fault:
                self._abandon(fault)
                raise
            self._stack.__exit__(None, None, None)
            write_digest(self.path, self.digest)
        else:
            self._abandon(error)

    def _abandon(self, error: BaseException) -> None:
        """Close without writing more; `replacing` removes the file and words a full disk."""
        self._disk.fault = self._disk.fault or OSError("abandoned")
        self._stack.__exit__(type(error), error, error.__traceback__)

    def _arrays(self) -> dict[str, np.ndarray]:
        raise NotImplementedError

    def _streamed_digests(self) -> dict[str, str]:
        raise NotImplementedError

    def _identity(self) -> dict[str, str]:
        """Attributes that change what a reader computes, and so belong to the digest."""
        return {"kind": self.kind, "settings": json.dumps(self._settings_that_count(), sort_keys=True)}

    def _settings_that_count(self) -> dict[str, Any]:
        """What readers take from the settings; a digest of other files in them is their own matter."""
        return {key: value for key, value in json.loads(self._settings).items() if not key.endswith("_digest")}

    def _finish(self) -> None:
        if len(set(self._clip_ids)) != len(self._clip_ids):
            seen: set[str] = set()
            twice = next(clip for clip in self._clip_ids if clip in seen or seen.add(clip))  # type: ignore[func-returns-value]
            raise SsondoError(f"{self.path}: clip {twice} was added twice; a shard holds a clip once")
        arrays = {"clip_id": fixed_bytes(self._clip_ids, "clip", self.path), **self._arrays()}
        for name, values in arrays.items():
            self._file.create_dataset(name, data=values)
        self.digest = content_digest(
            {
                **self._identity(),
                **self._streamed_digests(),
                **{name: array_digest(values) for name, values in arrays.items()},
            }
        )
        self._file.attrs["digest"] = self.digest
        self._file.attrs["n_clips"] = len(self._clip_ids)
        self._file.attrs["complete"] = True


class Reader:
    """Open and check a shard; use as a context manager."""

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
            raise SsondoError(f"{self.path}: not a readable HDF5 file, or cut short ({error}); {remake}") from None
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
                raise SsondoError(f"{self.path}: incomplete ({', '.join(missing) or 'no end mark'}); {remake}")
            self.clip_ids: list[str] = [name.decode("ascii") for name in self._file["clip_id"][:]]
            if len(self.clip_ids) != attributes["n_clips"]:
                raise SsondoError(
                    f"{self.path}: {len(self.clip_ids)} clips where {attributes['n_clips']} are noted; {remake}"
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
        """Close the file; arrays that were read stay usable."""
        self._file.close()

    def extra(self, name: str) -> np.ndarray:
        """The array `name` that the writer added, one row a clip."""
        if name not in self._file:
            raise SsondoError(f"{self.path}: has no {name!r}; it holds {', '.join(sorted(self._file))}")
        return self._file[name][:]
