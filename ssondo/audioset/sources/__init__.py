"""The sources of clips: a registry by kind.

To add one, write a module in this package and name its class in `SOURCES`; `fetch` imports only the source that is
used.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from ssondo.storage.clip_location import ClipLocation
from ssondo.storage.segments import Segment
from ssondo.storage.shards.status import Status
from ssondo.system.registry import check_options, look_up, parameters_of

SOURCES = {
    "folder": "ssondo.audioset.sources.folder:Folder",
    "hdf5": "ssondo.audioset.sources.hdf5:Hdf5",
    "parquet": "ssondo.audioset.sources.parquet:Parquet",
    "webdataset": "ssondo.audioset.sources.webdataset:WebDataset",
    "renderer": "ssondo.audioset.sources.renderer:Renderer",
    "youtube": "ssondo.audioset.sources.youtube:Youtube",
}


class Fetched(NamedTuple):
    """The result of fetching one clip.

    Attributes:
        status: OK; UNAVAILABLE for a permanent reason; FAILED for a reason that may be temporary.
        reason: Why the clip is not OK, in a few words that many clips share.
        data: The encoded file; empty unless `status` is OK.
        location: Location of the sound, if it can be read in place; then `data` is empty.
    """

    status: Status
    reason: str = ""
    data: bytes = b""
    location: ClipLocation | None = None


class RateLimited(Exception):
    """The server asks for a pause, of `retry_after_s` seconds if that is not 0; the clip has no result yet."""

    def __init__(self, why: str, retry_after_s: float = 0) -> None:
        super().__init__(why)
        self.retry_after_s = retry_after_s


class Source(Protocol):
    """A class that is constructed from its settings and fetches one clip at a time.

    Attributes:
        parallel: Whether several processes may fetch clips, each with its own source.
    """

    parallel: bool

    @property
    def identity(self) -> str | None:
        """The settings of a server that change what is fetched, as text; None if clips do not come from a server.

        Clips of a server are requested at a limited rate, kept in a ledger with this text, and never requested again.
        """
        ...

    def fetch(self, segment: Segment) -> Fetched:
        """Fetch one clip; an error of the clip is a status, an error of the source is an exception."""
        ...


def open_source(
    settings: dict[str, Any],
    segments: Sequence[Segment],
    job: int = 0,
    *,
    located: Path | None = None,
    scratch: Path | None = None,
) -> Source:
    """Construct the source that `settings` describe.

    Args:
        settings: "kind" and the arguments of its class.
        segments: The clips that will be fetched.
        job: Number of this job within the run, by which jobs share proxies.
        located: The list of locations that `locate` wrote for these clips; for local copies.
        scratch: Folder for temporary or unpacked files.

    Raises:
        SsondoError: If the kind is unknown, a setting is unknown, or a required setting is missing.
    """
    kind = settings.get("kind")
    source_class: Callable[..., Source] = look_up("source", kind, SOURCES)
    options = {key: value for key, value in settings.items() if key != "kind"}
    context = {"segments": segments, "job": job, "located": located, "scratch": scratch}
    check_options(f"source {kind!r}", options, parameters_of(source_class, ignored=context))
    accepted = parameters_of(source_class)
    return source_class(**{key: value for key, value in context.items() if key in accepted}, **options)
