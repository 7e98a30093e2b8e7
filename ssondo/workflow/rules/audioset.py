"""The jobs of rules/audioset.smk: segment lists, fetching, resampling, counting."""

from pathlib import Path
from typing import Any

from ssondo.audioset.clip_ledger import reset_path
from ssondo.config import Config
from ssondo.config.audioset import FolderSource, LocalSource, RendererSource, YoutubeSource
from ssondo.errors import SsondoError
from ssondo.workflow.experiment import Experiment, Job

# Settings of a source that change no clip: the rate, retries and credentials of fetching.
_FETCH_POLICY = set(YoutubeSource.model_fields) - {"kind", "url_template"}
_NOT_FOR_FETCH = {"watch", "n_train", "n_eval", "pattern", "eval_share"}


def is_rendered(config: Config) -> bool:
    """Return whether the corpus is rendered rather than fetched."""
    return isinstance(config.audioset.source, RendererSource)


def is_unlisted_folder(config: Config) -> bool:
    """Return whether the corpus is every file of a folder, without a segment list."""
    return isinstance(config.audioset.source, FolderSource) and not config.audioset.segments.train


def uses_locate(experiment: Experiment) -> bool:
    """Return whether a local copy of the clips is searched once for all shards.

    A small folder is searched by each job instead, so that a new file runs the jobs of its own shard only.
    """
    source = experiment.config.audioset.source
    is_small = isinstance(source, FolderSource) and source.watch and bool(experiment.digests.tree(source.path))
    return isinstance(source, LocalSource) and not is_small


def written_lists(experiment: Experiment) -> list[str]:
    """Return the segment lists that the workflow itself writes: train, eval and, for a rendered corpus, classes."""
    if is_rendered(experiment.config):
        return [f"{experiment.paths.corpus}/{name}.csv" for name in ("train", "eval", "classes")]
    if is_unlisted_folder(experiment.config):
        return [f"{experiment.paths.listed}/{name}.csv" for name in ("train", "eval")]
    return []


def segment_lists(experiment: Experiment) -> dict[str, list[str]]:
    """Return the segment lists "train" and "eval" and the class list "classes": files or URLs."""
    if written := written_lists(experiment):
        return {"train": written[:1], "eval": written[1:2], "classes": written[2:] or [""]}
    segments = experiment.config.audioset.segments
    return {"train": segments.train, "eval": segments.eval, "classes": [segments.classes]}


def _shard_counts(config: Config) -> dict[str, int]:
    return {"n_train_shards": config.audioset.n_train_shards, "n_eval_shards": config.audioset.n_eval_shards}


def _source_spec(config: Config) -> dict[str, Any]:
    return config.audioset.source.model_dump(exclude={*_NOT_FOR_FETCH, *_FETCH_POLICY}, exclude_none=True)


def _source_module(config: Config) -> str:
    return f"ssondo.audioset.sources.{config.audioset.source.kind}"


def compose(experiment: Experiment) -> Job:
    """Return the job that writes the lists of a rendered corpus."""
    source = experiment.config.audioset.source
    if not isinstance(source, RendererSource):
        raise SsondoError(f"compose writes the lists of a rendered corpus; audioset.source.kind is {source.kind}")
    clip_s = experiment.config.audioset.clip_s
    return Job({"n_train": source.n_train, "n_eval": source.n_eval, "clip_s": clip_s, "seed": source.seed})


def list_folder(experiment: Experiment) -> Job:
    """Return the job that lists the files of a folder as clips."""
    source = experiment.config.audioset.source
    if not isinstance(source, FolderSource):
        raise SsondoError(f"list_folder lists a folder's files; audioset.source.kind is {source.kind}")
    options = {
        "folder": source.path,
        "pattern": source.pattern,
        "eval_share": source.eval_share,
        "clip_s": experiment.config.audioset.clip_s,
    }
    return Job(options, content=experiment.digests.names(source.path))


def index(experiment: Experiment) -> Job:
    """Return the job that distributes the segments over the shards."""
    lists = segment_lists(experiment)
    manifest = experiment.config.audioset.manifest
    options = {
        "train": lists["train"],
        "eval": lists["eval"],
        "classes": lists["classes"][0],
        **_shard_counts(experiment.config),
        "manifest": manifest,
    }
    written = written_lists(experiment)
    own_files = [] if written else [*(path for paths in lists.values() for path in paths), manifest or ""]
    return Job(options, inputs={"lists": written}, content=experiment.digests.files(own_files))


def locate(experiment: Experiment) -> Job:
    """Return the job that searches a local copy for the clips of all shards."""
    config, digests = experiment.config, experiment.digests
    options = {"index": experiment.paths.index, "source": _source_spec(config), **_shard_counts(config)}
    fetched = [path for split in ("train", "eval") for path in experiment.paths.shard_paths("fetched", split)]
    content = digests.files([str(reset_path(Path(path))) for path in fetched])
    source = config.audioset.source
    if isinstance(source, LocalSource) and source.watch and not isinstance(source, FolderSource):
        content |= digests.stamps(source.path)
    return Job(options, modules=[_source_module(config)], content=content)


def fetch(experiment: Experiment, split: str, shard: str) -> Job:
    """Return the job that fetches the clips of a shard."""
    config, paths, digests = experiment.config, experiment.paths, experiment.digests
    source = config.audioset.source
    content = digests.files([str(reset_path(Path(paths.fetched.format(split=split, shard=shard))))])
    if isinstance(source, LocalSource) and source.watch:
        if isinstance(source, FolderSource):
            content |= digests.shard(source.path, shard, len(paths.shards(split)))
        else:
            content |= digests.stamps(source.path)
    return Job(
        {"source": _source_spec(config)},
        untracked={
            "fetch_policy": source.model_dump(include=_FETCH_POLICY, exclude_none=True) or None,
            "max_failed_share": config.audioset.max_failed_share,
        },
        inputs={"located": [paths.located.format(split=split, shard=shard)] if uses_locate(experiment) else []},
        modules=[_source_module(config)],
        content=content,
    )


def resample(experiment: Experiment, split: str, shard: str) -> Job:
    """Return the job that resamples the clips of a shard."""
    keys = ("sample_rate", "bandlimit_rate", "clip_s", "codec")
    return Job({key: getattr(experiment.config.audioset, key) for key in keys})


def inventory(experiment: Experiment, stage: str, split: str) -> Job:
    """Return the job that counts the clips of a stage and split."""
    manifest = experiment.config.audioset.manifest
    return Job({"manifest": manifest, "split": split}, content=experiment.digests.files([manifest or ""]))


def availability(experiment: Experiment) -> Job:
    """Return the job that reports which clips are available."""
    paths = experiment.paths
    return Job({"index": paths.index, "audio": f"{paths.data}/audio", **_shard_counts(experiment.config)})
