"""Estimate the costs of a run from its configuration: jobs, hours, disk space and downloads.

The rates are read from rates.csv, which `benchmarks/rates.py` writes. It marks rates that are estimates rather than
measurements.
"""

import csv
import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ssondo.config.audioset import FolderSource, RendererSource, YoutubeSource
from ssondo.config.probe import Probe
from ssondo.errors import SsondoError
from ssondo.storage.atomic_files import read_json
from ssondo.tasks.load_task import load_task, official_size, remotes
from ssondo.tasks.task import DatasetSize
from ssondo.workflow.experiment import Experiment
from ssondo.workflow.rules import tasks, teachers
from ssondo.workflow.rules.audioset import is_rendered, is_unlisted_folder, uses_locate

log = logging.getLogger(__name__)

RATES = Path(__file__).with_name("rates.csv")
# Numbers of segments in AudioSet's official lists, as stated in their headers.
_OFFICIAL_ROWS = {
    "balanced_train_segments.csv": 22_160,
    "unbalanced_train_segments.csv": 2_041_789,
    "eval_segments.csv": 20_371,
}
_EMBEDDING_DIMS = {"matpac": 3840, "m2d": 3840, "yamnet": 1024}
_REFERENCE_CLIP_S = 10.0


@dataclass
class Stage:
    """The costs of all jobs of one rule.

    Attributes:
        rule: name of the rule.
        jobs: number of jobs.
        core_hours: hours of one processor core; None if there is no rate.
        gpu_hours: hours of one GPU; None if there is no rate.
        gigabytes: size of the outputs in GB.
    """

    rule: str
    jobs: int
    core_hours: float | None = 0.0
    gpu_hours: float | None = 0.0
    gigabytes: float = 0.0


@dataclass
class Costs:
    """The costs of a run.

    Attributes:
        stages: costs of each rule, in the order of the workflow.
        downloads: names and sizes of the downloads, as text.
        fetching_days: days of fetching from YouTube at the configured rate; None if nothing is fetched from there.
        notes: remarks on the estimate, one sentence each.
    """

    stages: list[Stage] = field(default_factory=list)
    downloads: list[str] = field(default_factory=list)
    fetching_days: float | None = None
    notes: list[str] = field(default_factory=list)


def read_rates(path: Path = RATES) -> dict[str, float]:
    """Read the rates by name; rates.csv states the unit of each.

    Raises:
        SsondoError: if a value is not a number.
    """
    rates = {}
    for line in csv.DictReader(path.read_text(encoding="utf-8").splitlines()):
        try:
            rates[line["name"]] = float(line["value"])
        except ValueError:
            raise SsondoError(
                f"{path}: {line['name']} is {line['value']!r}, not a number; write the file with: make bench"
            ) from None
    return rates


def _rows(source: str) -> int | None:
    """Return the number of segments of a list; None for a URL that is not one of AudioSet's official lists."""
    name = source.rpartition("/")[2]
    path = Path(source)
    if path.is_file():
        with path.open(encoding="utf-8") as lines:
            return sum(bool(line.strip()) and not line.startswith(("#", "YTID", "ytid")) for line in lines)
    return _OFFICIAL_ROWS.get(name)


def count_clips(experiment: Experiment, split: str) -> int | None:
    """Return the number of clips of a split, from the index if it exists, else from the lists; None if unknown."""
    audioset = experiment.config.audioset
    summary = Path(experiment.paths.index, "summary.json")
    if summary.is_file():
        return int(read_json(summary)[split]["clips"])
    if isinstance(audioset.source, RendererSource):
        return audioset.source.n_train if split == "train" else audioset.source.n_eval
    if is_unlisted_folder(experiment.config):
        source = audioset.source
        assert isinstance(source, FolderSource)
        files = sum(1 for path in Path(source.path).glob(source.pattern) if path.is_file())
        n_eval = round(files * source.eval_share)
        return n_eval if split == "eval" else files - n_eval
    counts = [_rows(source) for source in getattr(audioset.segments, split)]
    return None if None in counts else sum(count or 0 for count in counts)


def task_size(experiment: Experiment, name: str) -> DatasetSize | None:
    """Return the official size of a task, or the size of its own lists; None if these cannot be read."""
    task = experiment.config.tasks[name]
    if (size := official_size(task.kind)) is not None:
        return size
    try:
        content = load_task(name, tasks.task_spec(experiment, name), seed=task.seed)
    except SsondoError:
        return None
    n_clips = Counter(clip.split for clip in content.clips)
    return DatasetSize(len(content.classes), n_clips, experiment.config.audioset.clip_s)


def downloads(experiment: Experiment, names: Iterable[str]) -> tuple[list[str], float]:
    """Return the name and size of each downstream task that is downloaded, as text, and the total size in GB."""
    texts, total = [], 0.0
    for name in names:
        kind = experiment.config.tasks[name].kind
        if not tasks.archives(experiment, name):
            continue
        size = official_size(kind)
        gigabytes = sum(remote.size or 0 for remote in remotes(kind)[0].values()) / 1e9
        gigabytes = gigabytes or (size.download_gb if size else 0.0)
        texts.append(f"{name} {gigabytes:.1f} GB" if gigabytes else f"{name} (size unknown)")
        total += gigabytes
    return texts, total


class _Estimate:
    """The costs of an experiment, computed rule by rule."""

    def __init__(self, experiment: Experiment, rates: Mapping[str, float], n_train: int, n_eval: int) -> None:
        self.experiment, self.config, self.rates = experiment, experiment.config, rates
        self.n_clips = n_train + n_eval
        self.n_train = n_train
        self.n_shards = len(experiment.paths.shards("train")) + len(experiment.paths.shards("eval"))
        self.scale = experiment.config.audioset.clip_s / _REFERENCE_CLIP_S
        self.on_gpu = experiment.config.runtime.gpus > 0
        self.costs = Costs()
        self.models = experiment.targets.models()
        self.students = [m for m in self.models if m.row_kind in ("distilled", "supervised")]
        self.embedded = list(dict.fromkeys(m.teacher for m in self.models if m.row_kind == "distilled"))
        self.tasks = list(
            dict.fromkeys(path.rpartition("/")[2].removesuffix(".json") for path in experiment.targets.all_scores())
        )

    def add(self, rule: str, jobs: int, **costs: float | None) -> None:
        if jobs:
            self.costs.stages.append(Stage(rule, jobs, **costs))  # type: ignore[arg-type]

    def hours(self, n_clips: float, rate: str) -> float | None:
        """Return the hours of a core or GPU for `n_clips` clips of 10 s at a rate in clips per second."""
        return n_clips / self.rates[rate] / 3600 if rate in self.rates else None

    def model_hours(self, kind: str, action: str, n_clips: float) -> dict[str, float | None]:
        """Return the core and GPU hours in which a kind of model embeds, or trains on, `n_clips` clips of 10 s."""
        if not self.on_gpu or kind == "yamnet":
            return {"core_hours": self.hours(n_clips, f"{action}_{kind}"), "gpu_hours": 0.0}
        return {"core_hours": self.hours(n_clips, "decode"), "gpu_hours": self.hours(n_clips, f"gpu_{action}_{kind}")}

    def corpus(self) -> None:
        """Add segment lists, fetching, resampling and the availability report."""
        source = self.config.audioset.source
        clips = self.n_clips * self.scale
        self.add("compose", int(is_rendered(self.config)))
        self.add("list_folder", int(is_unlisted_folder(self.config)))
        self.add("index", 1)
        self.add("locate", int(uses_locate(self.experiment)))
        fetched = clips * self.rates["mb_fetched"] / 1e3
        if isinstance(source, RendererSource):
            self.add("fetch", self.n_shards, core_hours=self.hours(clips, "render"), gigabytes=self.kept(clips))
        elif isinstance(source, YoutubeSource):
            self.add("fetch", self.n_shards, core_hours=None, gigabytes=fetched)
            self.costs.fetching_days = self.n_clips / source.requests_per_hour / 24
            self.costs.downloads.append(f"{self.n_clips:,} clips from YouTube, stored in about {fetched:,.0f} GB")
        else:
            self.add("fetch", self.n_shards, core_hours=None, gigabytes=0.0)
            self.costs.notes.append("A local copy is read in place; clips that its source must copy are not counted.")
        self.add("resample", self.n_shards, core_hours=self.hours(clips, "resample"), gigabytes=self.kept(clips))
        self.add("availability", 1)

    def kept(self, clips: float) -> float:
        """Return the size of `clips` resampled clips of 10 s in GB."""
        audioset = self.config.audioset
        pcm_gigabytes = _REFERENCE_CLIP_S * audioset.sample_rate * 2 / 1e9
        share = {"flac": self.rates["flac_share"], "opus": self.rates["opus_share"], "pcm16": 1.0}
        return clips * pcm_gigabytes * share[audioset.codec]

    def teachers(self) -> None:
        """Add checkpoints, teacher embeddings, inventories and clusterings."""
        used = {f"teacher-{m.teacher}" for m in self.models if m.teacher}
        used |= {f"student-{m.student}" for m in self.students}
        weights = {name: source for name, source in teachers.checkpoints(self.config).items() if name in used}
        self.add("checkpoint", len(weights))
        if remote := [name for name, source in weights.items() if source.url and not source.path]:
            self.costs.downloads.append(f"weights of {', '.join(n.partition('-')[2] for n in remote)}")
        clips = self.n_clips * self.scale
        total: dict[str, float | None] = {"core_hours": 0.0, "gpu_hours": 0.0}
        value_bytes = 2 if self.config.embed.dtype == "float16" else 4
        disk = 0.0
        for name in dict.fromkeys(model.teacher for model in self.models if model.teacher):
            kind = self.config.teachers[name].kind
            if f"embed_{kind}" not in self.rates:
                self.note(f"{name}: there is no rate for a teacher of kind {kind}, so its embeddings are not counted.")
        for name in self.embedded:
            total = _sum(total, self.model_hours(self.config.teachers[name].kind, "embed", clips))
            disk += self.n_clips * self.dim(name) * value_bytes / 1e9
        self.add("embed", self.n_shards * len(self.embedded), **total, gigabytes=disk)
        self.add("inventory", 2 + 2 * len(self.embedded))
        clusterings = self.experiment.targets.clusterings()
        settings = self.config.cluster
        n_fitted = min(settings.sample_size, self.n_train)
        flop = sum(
            2e-9 * self.dim(teacher) * k * (n_fitted * settings.iterations * settings.restarts + self.n_clips)
            for teacher, k in clusterings
        )
        hours = flop / self.rates["kmeans_gflops"] / 3600
        self.add("cluster", len(clusterings), core_hours=hours, gigabytes=len(clusterings) * self.n_clips * 40 / 1e9)

    def dim(self, teacher: str) -> int:
        """Return the dimension of a teacher's embeddings."""
        section = self.config.teachers[teacher]
        return section.embedding_dim or _EMBEDDING_DIMS.get(section.kind, 0)

    def trainings(self) -> None:
        """Add distilled, supervised and untrained students."""
        for rule, kind, settings in (
            ("distill", "distilled", self.config.distill),
            ("supervise", "supervised", self.config.supervise),
        ):
            models = [m for m in self.models if m.row_kind == kind]
            total: dict[str, float | None] = {"core_hours": 0.0, "gpu_hours": 0.0}
            for model in models:
                n_sampled = settings.epochs * settings.samples_per_epoch * self.scale
                # A validation step takes a third of the time of a training step.
                n_validated = (
                    settings.epochs // settings.validate_every * (self.n_clips - self.n_train) * self.scale / 3
                )
                total = _sum(
                    total, self.model_hours(self.architecture(model.student), "train", n_sampled + n_validated)
                )
            self.add(rule, len(models), **total, gigabytes=0.05 * len(models))
        untrained = [m for m in self.models if m.row_kind == "untrained"]
        self.add("initialise", len(untrained), gigabytes=0.05 * len(untrained))

    def architecture(self, student: str) -> str:
        """Return the architecture of a student, and note if there is no rate for it or for its size."""
        section = self.config.students[student]
        name = section.architecture
        if f"train_{name}" not in self.rates:
            self.note(f"{student}: there is no rate for the architecture {name}, so its trainings are not counted.")
        elif section.settings:
            self.note(f"{student}: counted as {name} of the default size, although its settings differ.")
        return name

    def note(self, text: str) -> None:
        """Add a remark, unless it has been added already."""
        if text not in self.costs.notes:
            self.costs.notes.append(text)

    def scores(self) -> None:
        """Add downstream tasks: downloads, preparation, embeddings, probes and tables."""
        sizes = {name: task_size(self.experiment, name) for name in self.tasks}
        for name in [name for name, size in sizes.items() if size is None]:
            self.note(f"{name}: its data does not exist here, so its embeddings and probes are not counted.")
        texts, gigabytes = downloads(self.experiment, self.tasks)
        n_files = sum(len(tasks.archives(self.experiment, name)) for name in self.tasks)
        self.add("download", n_files, gigabytes=gigabytes)
        if texts:
            self.costs.downloads.append(f"data sets, about {gigabytes:.0f} GB: {', '.join(texts)}")
        sized = {name: size for name, size in sizes.items() if size}
        clips = {name: size.n_clips * size.clip_s / _REFERENCE_CLIP_S for name, size in sized.items()}
        disk = sum(self.kept(n) for n in clips.values())
        prepare = self.hours(sum(clips.values()), "resample")
        self.add("prepare_task", len(self.tasks), core_hours=prepare, gigabytes=disk)
        total: dict[str, float | None] = {"core_hours": 0.0, "gpu_hours": 0.0}
        disk, probing = 0.0, 0.0
        scores = self.experiment.targets.all_scores()
        for model in self.models:
            kind = self.config.teachers[model.teacher].kind if model.row_kind == "teacher" else ""
            dim = self.dim(model.teacher) if kind else 960
            for name, size in sized.items():
                if self.experiment.paths.scores.format(model=model.path, task=name) not in scores:
                    continue
                model_kind = kind or self.config.students[model.student].architecture
                total = _sum(total, self.model_hours(model_kind, "embed", clips[name]))
                disk += size.n_clips * dim * 2 / 1e9
                probing += self.probe_hours(size, dim)
        self.add("embed_task", len(scores), **total, gigabytes=disk)
        self.add("probe", len(scores), core_hours=probing)
        for rule in ("scores", *self.experiment.targets.tables, "report"):
            self.add(rule, 1)

    def probe_hours(self, size: DatasetSize, dim: int) -> float:
        """Return the largest number of core hours of a probe: its cost depends on the steps, and it may stop early."""
        settings, measured = self.config.probe, Probe()
        share = size.n_scored * _probe_work(settings) / _probe_work(measured)
        return share * dim / 960 * size.n_classes / 11 * self.rates["probe_core_s"] / 3600


def _probe_work(settings: Probe) -> int:
    """Return the number of steps of all probes of a grid search."""
    n_points = len(settings.learning_rates) * len(settings.weight_decays) * len(settings.batch_sizes)
    return n_points * len(settings.seeds) * settings.steps


def _sum(a: Mapping[str, float | None], b: Mapping[str, float | None]) -> dict[str, float | None]:
    """Add two costs; an unknown value counts as zero, and the caller notes it."""
    return {key: (a[key] or 0.0) + (b[key] or 0.0) for key in a}


def estimate(experiment: Experiment, rates: Mapping[str, float], *, n_train: int, n_eval: int) -> Costs:
    """Return the costs of an experiment.

    Args:
        experiment: the workflow of a configuration.
        rates: the rates that `read_rates` returns.
        n_train: number of training clips of the corpus.
        n_eval: number of evaluation clips of the corpus.
    """
    estimator = _Estimate(experiment, rates, n_train, n_eval)
    estimator.corpus()
    estimator.teachers()
    estimator.trainings()
    estimator.scores()
    costs = estimator.costs
    if estimator.on_gpu:
        costs.notes.append(
            "GPU hours are those of an NVIDIA H200 with 16 cores, on which whole jobs were measured; docs/RATES.md "
            "marks the rates that are estimates. The core hours of jobs with a GPU are those of decoding."
        )
    costs.notes.append(
        "Core hours are those of one core and were measured on one machine (docs/RATES.md; make bench measures yours). "
        "A question mark stands for jobs that wait for the network or the disk, for which there is no rate."
    )
    return costs
