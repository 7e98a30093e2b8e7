"""Where clips come from: a registry of sources by kind.

A source is a class that is made of its settings and hands out one clip at a time. To add one,
write a module here and name it in `SOURCES`; `fetch` imports only the one that is used.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from ssondo.registry import check_options, look_up, parameters_of
from ssondo.storage.clip_location import ClipLocation
from ssondo.storage.segments import Segment
from ssondo.storage.shards.status import Status

SOURCES = {
    "folder": "ssondo.audioset.sources.folder:Folder",
    "hdf5": "ssondo.audioset.sources.hdf5:Hdf5",
    "parquet": "ssondo.audioset.sources.parquet:Parquet",
    "webdataset": "ssondo.audioset.sources.webdataset:WebDataset",
    "renderer": "ssondo.audioset.sources.renderer:Renderer",
    "youtube": "ssondo.audioset.sources.youtube:Youtube",
}


class Fetched(NamedTuple):
    """How a clip ended.

    Attributes:
        status: OK; UNAVAILABLE for a reason that will not change; FAILED for one that may.
        reason: why it is not OK, in few words that many clips share.
        data: the file, empty unless `status` is OK.
        origin: where the sound lies instead, if it can be read there.
    """

    status: Status
    reason: str = ""
    data: bytes = b""
    origin: ClipLocation | None = None


class RateLimited(Exception):
    """The server asks for a pause; the clip has not ended.

    Args:
        why: in a few words.
        retry_after_s: how long the server says, if it says.
    """

    def __init__(self, why: str, retry_after_s: float = 0) -> None:
        super().__init__(why)
        self.retry_after_s = retry_after_s


class Source(Protocol):
    """What `fetch` asks of a source.

    Attributes:
        parallel: whether clips may be fetched by several processes, each with its own source.
        resumes: whether a clip is dear: it is asked for at a polite rate, kept in a ledger, and
            never asked for again.
    """

    parallel: bool
    resumes: bool

    @property
    def identity(self) -> str:
        """The settings that change what is fetched, as text."""
        ...

    def fetch(self, segment: Segment) -> Fetched:
        """Fetch one clip; a fault of the clip is a status, one of the source an exception."""
        ...


def open_source(
    settings: dict[str, Any],
    segments: Sequence[Segment],
    job: int = 0,
    *,
    located: Path | None = None,
    scratch: Path | None = None,
) -> Source:
    """Make the source that `settings` describe.

    Args:
        settings: "kind" and the arguments of its class.
        segments: the clips that will be asked for.
        job: number of this job among those of the run, for what jobs share out (proxies).
        located: where they lie, as `locate` found; for local copies.
        scratch: folder for what must be unpacked; for local copies.

    Raises:
        SsondoError: if the kind is unknown, or has no such setting.
    """
    kind = settings.get("kind")
    make: Callable[..., Source] = look_up("source", kind, SOURCES)
    options = {key: value for key, value in settings.items() if key != "kind"}
    given = {"segments": segments, "job": job, "located": located, "scratch": scratch}
    check_options(f"source {kind!r}", options, parameters_of(make, ignored=given))
    accepted = parameters_of(make)
    return make(**{key: value for key, value in given.items() if key in accepted}, **options)
