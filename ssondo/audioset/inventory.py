"""What is in a set of shards: the small file that later stages depend on and results cite."""

import logging
from collections import Counter
from pathlib import Path
from typing import Any

import h5py

from ssondo.audioset.manifest import read_manifest
from ssondo.audioset.reasons import shared_reason
from ssondo.errors import SsondoError
from ssondo.storage.atomic_files import clip_list_digest, write_json
from ssondo.storage.shards.audio import AudioShard
from ssondo.storage.shards.embedding import EmbeddingShard
from ssondo.storage.shards.status import Status

log = logging.getLogger(__name__)

_LISTED = 1000


def inventory(*, shards: list[Path], out: Path, manifest: Path | None = None, split: str = "train") -> None:
    """Count the clips of shards, with the reasons why some are missing.

    Args:
        shards: audio shards, or embedding shards, all of one kind.
        out: JSON file with the counts, the hash of the list of clips that are there, and each
            shard's digest.
        manifest: list of clips that `freeze` wrote, to compare with; None for none.
        split: train or eval.

    Raises:
        SsondoError: if a shard is missing, broken or of another kind than the first, or no clip has sound.
    """
    n_clips = 0
    present: list[str] = []
    reasons: dict[Status, Counter[str]] = {status: Counter() for status in Status}
    entries: list[dict[str, Any]] = []
    kinds: dict[str, Path] = {}
    for path in shards:
        with _opened(path) as shard:
            kinds.setdefault(shard.kind, path)
            n_clips += len(shard)
            there = _present(shard, reasons)
            present += there
            entries.append({"name": path.stem, "digest": shard.digest, "n_ok": len(there)})
    if len(kinds) > 1:
        (first, one), (second, other) = kinds.items()
        raise SsondoError(f"{one} is a shard of kind {first}, {other} of kind {second}; count them apart")
    if len(set(present)) != len(present):
        twice, _ = Counter(present).most_common(1)[0]
        raise SsondoError(f"clip {twice} is in two of the shards; were they made with different numbers of shards?")
    if n_clips and not present and kinds.keys() == {AudioShard.kind}:
        raise SsondoError(
            f"none of the {n_clips} {split} clips is there ({_missing(reasons)}); look at audioset.source, at "
            f"`ssondo fetch --status` and at {shards[0].parent}"
        )
    write_json(
        out,
        {
            **({} if manifest is None else {"manifest": _compared(present, manifest, split)}),
            "kind": next(iter(kinds), None),
            "n_clips": n_clips,
            "n_ok": len(present),
            "reasons": {status.name: dict(counter) for status, counter in reasons.items() if counter},
            "clip_list_sha256": clip_list_digest(present),
            "shards": entries,
        },
    )
    if len(present) < n_clips:
        log.warning("%d of %d clips are not there: %s", n_clips - len(present), n_clips, _missing(reasons))
    log.info("inventory: %d of %d clips are there, in %d shards; %s", len(present), n_clips, len(shards), out)


def _compared(present: list[str], path: Path, split: str) -> dict[str, Any]:
    """What is there beside what a manifest has; says so where they differ."""
    frozen = read_manifest(path)
    wanted = frozen.times[split]
    missing = sorted(wanted.keys() - set(present))
    extra = len(set(present) - wanted.keys())
    if missing or extra:
        log.warning(
            "OTHER CLIPS than the manifest %s: %d of its %d %s clips are not there%s, %d are there that it has not; "
            "scores of this run and of that one are of different data",
            path,
            len(missing),
            len(wanted),
            split,
            f" ({', '.join(missing[:3])}, ...)" if missing else "",
            extra,
        )
    else:
        log.info("all %d %s clips of the manifest %s are there, and no others", len(wanted), split, path)
    return {
        "sha256": frozen.digests[split],
        "n_clips": len(wanted),
        "n_missing": len(missing),
        "n_extra": extra,
        "missing": missing[:_LISTED],
    }


def _opened(path: Path) -> AudioShard | EmbeddingShard:
    """The shard, by the kind that it says it is."""
    kind = None
    if path.is_file() and h5py.is_hdf5(path):
        try:
            with h5py.File(path, "r") as file:
                kind = file.attrs.get("kind")
        except OSError:
            pass  # The reader says what is wrong with it.
    return (EmbeddingShard if kind == EmbeddingShard.kind else AudioShard)(path)


def _present(shard: AudioShard | EmbeddingShard, reasons: dict[Status, Counter[str]]) -> list[str]:
    """The clips of a shard that are there; counts the reasons of all."""
    if isinstance(shard, EmbeddingShard):
        return shard.clip_ids
    for (status, reason), number in Counter(zip(shard.status.tolist(), shard.reasons, strict=True)).items():
        if reason or status != Status.OK:
            reasons[Status(status)][shared_reason(reason)] += number
    return [shard.clip_ids[row] for row in shard.ok]


def _missing(reasons: dict[Status, Counter[str]]) -> str:
    """Why clips are missing, commonest first."""
    counts = sum((reasons[status] for status in Status if status is not Status.OK), Counter())
    shown = ", ".join(f"{number} {reason}" for reason, number in counts.most_common(8))
    return shown + (", ..." if len(counts) > 8 else "")
