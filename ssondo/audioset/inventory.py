"""Count the clips of a set of shards, in the small file that later stages depend on and results refer to."""

import logging
from collections import Counter
from pathlib import Path
from typing import Any

import h5py

from ssondo.audioset.manifest import read_manifest
from ssondo.errors import SsondoError
from ssondo.storage.atomic_files import clip_list_digest, write_json
from ssondo.storage.shards.audio import AudioShard
from ssondo.storage.shards.embedding import EmbeddingShard
from ssondo.storage.shards.reasons import Counts, count_by_reason, format_counts, generalise_reason
from ssondo.storage.shards.status import Status

log = logging.getLogger(__name__)

_MAX_LISTED_CLIPS = 1000
_N_SHOWN_REASONS = 8


def inventory(*, shards: list[Path], out: Path, manifest: Path | None = None, split: str = "train") -> None:
    """Count the clips of shards, with the reasons why clips are missing.

    Args:
        shards: Audio shards, or embedding shards; all of the same kind.
        out: JSON file that is written: the counts, the hash of the set of clips that are present, and the digest
            of each shard.
        manifest: Manifest that `freeze` wrote and that the shards are compared with. By default nothing is compared.
        split: Split of the shards, train or eval.

    Raises:
        SsondoError: If a shard is missing, damaged or of another kind than the first, a clip is in two shards, or
            none of the clips has sound.
    """
    n_clips = 0
    present: list[str] = []
    counts: Counts = Counter()
    entries: list[dict[str, Any]] = []
    kinds: dict[str, Path] = {}
    for path in shards:
        with _open_shard(path) as shard:
            kinds.setdefault(shard.kind, path)
            n_clips += len(shard)
            ids = shard.clip_ids
            if isinstance(shard, AudioShard):
                counts += count_by_reason(shard.status.tolist(), map(generalise_reason, shard.reasons))
                ids = [ids[row] for row in shard.ok]
            present += ids
            entries.append({"name": path.stem, "digest": shard.digest, "n_ok": len(ids)})
    if len(kinds) > 1:
        (kind, path), (other_kind, other_path) = kinds.items()
        raise SsondoError(f"{path} is a shard of kind {kind}, {other_path} of kind {other_kind}; count them separately")
    if len(set(present)) != len(present):
        twice, _ = Counter(present).most_common(1)[0]
        raise SsondoError(f"clip {twice} is in two of the shards; were they made with different numbers of shards?")
    if n_clips and not present and kinds.keys() == {AudioShard.kind}:
        raise SsondoError(
            f"none of the {n_clips} {split} clips is present ({_missing_text(counts)}); check audioset.source, "
            f"`ssondo ledger` and {shards[0].parent}"
        )
    content: dict[str, Any] = {
        "kind": next(iter(kinds), None),
        "n_clips": n_clips,
        "n_ok": len(present),
        "reasons": _reasons_by_status(counts),
        "clip_list_sha256": clip_list_digest(present),
        "shards": entries,
    }
    if manifest is not None:
        content["manifest"] = _compare(present, manifest, split)
    write_json(out, content)
    if len(present) < n_clips:
        log.warning("%d of %d clips are missing: %s", n_clips - len(present), n_clips, _missing_text(counts))
    log.info("inventory: %d of %d clips are present, in %d shards; %s", len(present), n_clips, len(shards), out)


def _compare(present: list[str], path: Path, split: str) -> dict[str, Any]:
    """The differences between the clips that are present and those of a manifest, which are also logged."""
    manifest = read_manifest(path)
    frozen = manifest.times[split]
    missing = sorted(frozen.keys() - set(present))
    n_extra = len(set(present) - frozen.keys())
    if missing or n_extra:
        examples = f" ({', '.join(missing[:3])}, ...)" if missing else ""
        what = f"{len(missing)} of its {len(frozen)} {split} clips are missing{examples}, {n_extra} clips are not in it"
        consequence = "scores of the two runs are based on different data"
        log.warning("OTHER CLIPS than the manifest %s: %s; %s", path, what, consequence)
    else:
        log.info("all %d %s clips of the manifest %s are present, and no others", len(frozen), split, path)
    return {
        "sha256": manifest.digests[split],
        "n_clips": len(frozen),
        "n_missing": len(missing),
        "n_extra": n_extra,
        "missing": missing[:_MAX_LISTED_CLIPS],
    }


def _open_shard(path: Path) -> AudioShard | EmbeddingShard:
    """Open a shard of the kind that the file declares."""
    kind = None
    if path.is_file() and h5py.is_hdf5(path):
        try:
            with h5py.File(path, "r") as file:
                kind = file.attrs.get("kind")
        except OSError:
            pass  # The reader below reports what is wrong with the file.
    return (EmbeddingShard if kind == EmbeddingShard.kind else AudioShard)(path)


def _reasons_by_status(counts: Counts) -> dict[str, dict[str, int]]:
    reasons: dict[str, dict[str, int]] = {}
    for (status, reason), n in counts.items():
        if reason or status is not Status.OK:
            reasons.setdefault(status.name, {})[reason] = n
    return reasons


def _missing_text(counts: Counts) -> str:
    """The most frequent reasons why clips are missing."""
    missing = Counter[str]()
    for (status, reason), n in counts.items():
        missing.update({reason: n} if status is not Status.OK else {})
    return format_counts(missing, _N_SHOWN_REASONS)
