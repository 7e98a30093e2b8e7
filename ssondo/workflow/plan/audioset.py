"""The corpus' jobs: segment lists, fetching, resampling, counting."""

from functools import cached_property
from pathlib import Path
from typing import Any

from ssondo.audioset.ledger import reopened_path
from ssondo.config.audioset import FolderSource, LocalSource, RendererSource, YoutubeSource
from ssondo.errors import SsondoError
from ssondo.workflow.plan.flags import flags
from ssondo.workflow.plan.stage import Stage

_SHARD_DIGITS = 4
# Settings of a source that change no clip, and those that are other rules'.
_MANNER = set(YoutubeSource.model_fields) - {"kind", "url_template"}
_NOT_FOR_FETCH = {"watch", "n_train", "n_eval", "pattern", "eval_share"}


class AudioSetStage(Stage):
    """The rules of rules/audioset.smk."""

    rules = ("compose", "list_folder", "index", "locate", "fetch", "resample", "inventory", "availability")

    def shards(self, split: str) -> list[str]:
        """The shard names of a split, "0000" and on."""
        audioset = self.config.audioset
        n = audioset.n_train_shards if split == "train" else audioset.n_eval_shards
        return [f"{i:0{_SHARD_DIGITS}d}" for i in range(n)]

    def shard_paths(self, stage: str, split: str) -> list[str]:
        """Every shard of a stage ("audio", "embeddings/matpac") and split."""
        return [f"{self.paths.data}/{stage}/{split}-{shard}.h5" for shard in self.shards(split)]

    @property
    def renders(self) -> bool:
        """Whether the corpus is rendered rather than fetched."""
        return isinstance(self.config.audioset.source, RendererSource)

    @property
    def lists_folder(self) -> bool:
        """Whether every file of a folder is a clip, so that there is no segment list."""
        audioset = self.config.audioset
        return isinstance(audioset.source, FolderSource) and not audioset.segments.train

    @cached_property
    def locates(self) -> bool:
        """Whether the lab's copy of the clips is searched once for all shards.

        A small folder is not: each job then searches it, and a new file runs its own shard alone.
        """
        source = self.config.audioset.source
        is_small = isinstance(source, FolderSource) and source.watch and bool(self.watch.tree(source.path))
        return isinstance(source, LocalSource) and not is_small

    def _compose(self) -> dict[str, Any]:
        source = self.config.audioset.source
        if not isinstance(source, RendererSource):
            raise SsondoError(f"compose writes the lists of a rendered corpus; audioset.source.kind is {source.kind}")
        clip_s = self.config.audioset.clip_s
        return {"n_train": source.n_train, "n_eval": source.n_eval, "clip_s": clip_s, "seed": source.seed}

    def _list_folder(self) -> dict[str, Any]:
        source = self.config.audioset.source
        if not isinstance(source, FolderSource):
            raise SsondoError(f"list_folder lists a folder's files; audioset.source.kind is {source.kind}")
        return {
            "folder": source.path,
            "pattern": source.pattern,
            "eval_share": source.eval_share,
            "clip_s": self.config.audioset.clip_s,
        }

    def corpus_lists(self) -> list[str]:
        """The segment lists that the workflow itself writes: of a rendered corpus or of a folder's files."""
        if self.renders:
            return [f"{self.paths.corpus}/{name}.csv" for name in ("train", "eval", "classes")]
        return [f"{self.paths.listed}/{name}.csv" for name in ("train", "eval") if self.lists_folder]

    def index_inputs(self) -> dict[str, list[str]]:
        """The segment lists: local files, URLs, or what the workflow writes."""
        made = self.corpus_lists()
        if made:
            return {"train": made[:1], "eval": made[1:2], "classes": made[2:] or [""]}
        segments = self.config.audioset.segments
        return {"train": segments.train, "eval": segments.eval, "classes": [segments.classes]}

    def _index(self) -> dict[str, Any]:
        lists = self.index_inputs()
        audioset = self.config.audioset
        return {
            "train": lists["train"],
            "eval": lists["eval"],
            "classes": lists["classes"][0],
            "n_train_shards": audioset.n_train_shards,
            "n_eval_shards": audioset.n_eval_shards,
            "manifest": audioset.manifest,
        }

    def source_spec(self) -> dict[str, Any]:
        """What the library needs to make the source of clips."""
        return self.config.audioset.source.model_dump(exclude={*_NOT_FOR_FETCH, *_MANNER}, exclude_none=True)

    def _locate(self) -> dict[str, Any]:
        audioset = self.config.audioset
        return {
            "index": self.paths.index,
            "source": self.source_spec(),
            "n_train_shards": audioset.n_train_shards,
            "n_eval_shards": audioset.n_eval_shards,
        }

    def _fetch(self, split: str, shard: str) -> dict[str, Any]:
        return {"source": self.source_spec()}

    def fetch_manner(self) -> str:
        """How politely and as whom clips are fetched, as options: it changes no clip, so it is no provenance."""
        manner = self.config.audioset.source.model_dump(include=_MANNER, exclude_none=True)
        return flags(manner=manner or None, max_failed_share=self.config.audioset.max_failed_share)

    def _resample(self, split: str, shard: str) -> dict[str, Any]:
        audioset = self.config.audioset
        return {
            "sample_rate": audioset.sample_rate,
            "bandlimit_rate": audioset.bandlimit_rate,
            "clip_s": audioset.clip_s,
            "codec": audioset.codec,
        }

    def _inventory(self, stage: str, split: str) -> dict[str, Any]:
        return {"manifest": self.config.audioset.manifest, "split": split}

    def _availability(self) -> dict[str, Any]:
        audioset = self.config.audioset
        return {
            "index": self.paths.index,
            "audio": f"{self.paths.data}/audio",
            "n_train_shards": audioset.n_train_shards,
            "n_eval_shards": audioset.n_eval_shards,
        }

    def modules(self, rule: str, **wildcards: str) -> list[str]:
        """The module of the source of clips, for the rules that open it."""
        return [f"ssondo.audioset.sources.{self.config.audioset.source.kind}"] if rule in ("fetch", "locate") else []

    def content(self, rule: str, **wildcards: str) -> dict[str, str]:
        """The user's lists, manifest and copy of the clips."""
        source, manifest = self.config.audioset.source, [self.config.audioset.manifest or ""]
        if rule == "list_folder" and isinstance(source, FolderSource):
            return self.watch.names(source.path)
        if rule == "index" and not self.corpus_lists():
            lists = [path for paths in self.index_inputs().values() for path in paths]
            return self.watch.files(lists) | self.watch.files(manifest)
        if rule == "inventory":
            return self.watch.files(manifest)
        if rule in ("fetch", "locate"):
            return self._copy_content(**wildcards)
        return {}

    def _copy_content(self, split: str = "", shard: str = "") -> dict[str, str]:
        """The lab's copy of the clips, and what was opened again by hand (`ssondo retry`)."""
        fetched = [self.paths.fetched.format(split=split, shard=shard)] if shard else self._all_fetched()
        found = self.watch.files([str(reopened_path(Path(path))) for path in fetched])
        source = self.config.audioset.source
        if isinstance(source, LocalSource) and source.watch:
            if not isinstance(source, FolderSource):
                found |= self.watch.stamps(source.path)
            elif shard:
                found |= self.watch.shard(source.path, shard, len(self.shards(split)))
        return found

    def _all_fetched(self) -> list[str]:
        """Every fetched shard."""
        return [path for split in ("train", "eval") for path in self.shard_paths("fetched", split)]
