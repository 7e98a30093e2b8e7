"""What audio shards store of each clip."""

from pathlib import Path

from ssondo.storage.shards.audio import AudioShard
from ssondo.storage.shards.status import Status


def results(path: Path) -> dict[str, tuple[str, str]]:
    """Return the status and the reason of each clip of a shard."""
    with AudioShard(path) as shard:
        return {
            clip: (Status(status).name, reason)
            for clip, status, reason in zip(shard.clip_ids, shard.status, shard.reasons, strict=True)
        }
