"""Clips of the demo corpus, which are rendered on demand."""

from ssondo.audioset.sources import Fetched
from ssondo.storage.segments import Segment
from ssondo.storage.shards.status import Status


class Renderer:
    """Renders each clip from its id.

    Args:
        seed: Seed of the corpus, the one that its lists were composed with.
    """

    parallel = True
    identity = None

    def __init__(self, *, seed: int = 0) -> None:
        self._seed = seed

    def fetch(self, segment: Segment) -> Fetched:
        """Render the clip."""
        from ssondo.audioset.renderer import render_clip

        seconds = segment.end_s - segment.start_s
        return Fetched(Status.OK, "", render_clip(segment.ytid, seconds=seconds, seed=self._seed))
