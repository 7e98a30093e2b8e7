"""What a run would cost: jobs, hours, disk and downloads of a configuration, before anything starts.

Rates come from rates.csv, which `benchmarks/rates.py` measures; what is not measured is an
estimate and called one.
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
# Rows of AudioSet's official lists, as their first lines say.
_OFFICIAL_ROWS = {
    "balanced_train_segments.csv": 22_160,
    "unbalanced_train_segments.csv": 2_041_789,
    "eval_segments.csv": 20_371,
}
_EMBEDDING_DIMS = {"matpac": 3840, "m2d": 3840, "yamnet": 1024}
_REFERENCE_CLIP_S = 10.0


@dataclass
class Stage:
    """A rule's share of the run.

    Attributes:
        rule: name.
        jobs: how many.
        core_hours: of one processor core; None where there is no rate.
        gpu_hours: of one GPU; None where there is no rate.
        gigabytes: that its outputs take.
    """

    rule: str
    jobs: int
    core_hours: float | None = 0.0
    gpu_hours: float | None = 0.0
    gigabytes: float = 0.0


@dataclass
class Costs:
    """All stages, what is downloaded, and what a reader must know.

    Attributes:
        stages: in the order of the workflow.
        downloads: what and how much, in words.
        fetching_days: at the polite rate; None where nothing is fetched from YouTube.
        notes: one sentence each.
    """

    stages: list[Stage] = field(default_factory=list)
    downloads: list[str] = field(default_factory=list)
    fetching_days: float | None = None
    notes: list[str] = field(default_factory=list)


def read_rates(path: Path = RATES) -> dict[str, float]:
    """Rates by name, as rates.csv says them; their units stand there.

    Raises:
        SsondoError: if a line is no number.
    """
    rates = {}
    for line in csv.DictReader(path.read_text(encoding="utf-8").splitlines()):
        try:
            rates[line["name"]] = float(line["value"])
        except ValueError:
            raise SsondoError(
                f"{path}: {line['name']} is {line['value']!r}, no number; make it with: make bench"
            ) from None
    return rates


def _rows(source: str) -> int | None:
    """Rows of a segment list; None where it is a URL of which nothing is known."""
    name = source.rpartition("/")[2]
    path = Path(source)
    if path.is_file():
        with path.open(encoding="utf-8") as lines:
            return sum(bool(line.strip()) and not line.startswith(("#", "YTID", "ytid")) for line in lines)
    return _OFFICIAL_ROWS.get(name)


def count_clips(experiment: Experiment, split: str) -> int | None:
    """Clips of a split: from the index where it is made, else from the lists; None where nobody knows."""
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
    """The size of a task; without an official size its lists are read, and it is None where they cannot be."""
    task = experiment.config.tasks[name]
    if (size := official_size(task.kind)) is not None:
        return size
    try:
        content = load_task(name, tasks.task_spec(experiment, name), seed=task.seed)
    except SsondoError:
        return None
    parts = Counter(clip.split for clip in content.clips)
    return DatasetSize(len(content.classes), parts, experiment.config.audioset.clip_s)


def downloads(experiment: Experiment, names: Iterable[str]) -> tuple[list[str], float]:
    """Name and size of each downstream task that is downloaded, as text, and the sum of the sizes in GB."""
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
    """The costs of an experiment, rule by rule."""

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
        self.taught = list(dict.fromkeys(m.teacher for m in self.models if m.row_kind == "distilled"))
        self.tasks = list(
            dict.fromkeys(path.rpartition("/")[2].removesuffix(".json") for path in experiment.targets.all_scores())
        )

    def add(self, rule: str, jobs: int, **what: float | None) -> None:
        if jobs:
            self.costs.stages.append(Stage(rule, jobs, **what))  # type: ignore[arg-type]

    def hours(self, n_clips: float, rate: str) -> float | None:
        """Hours of a core or GPU for so many clips of 10 s at a rate in clips a second."""
        return n_clips / self.rates[rate] / 3600 if rate in self.rates else None

    def model_hours(self, name: str, what: str, n_clips: float) -> dict[str, float | None]:
        """Core and GPU hours of a teacher or student (by its kind) on so many clips of 10 s."""
        if not self.on_gpu or name == "yamnet":
            return {"core_hours": self.hours(n_clips, f"{what}_{name}"), "gpu_hours": 0.0}
        return {"core_hours": self.hours(n_clips, "decode"), "gpu_hours": self.hours(n_clips, f"gpu_{what}_{name}")}

    def corpus(self) -> None:
        """Lists, fetching, resampling, what there is of it."""
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
            self.costs.downloads.append(f"{self.n_clips:,} clips from YouTube, about {fetched:,.0f} GB as kept")
        else:
            self.add("fetch", self.n_shards, core_hours=None, gigabytes=0.0)
            self.costs.notes.append("A lab's own copy is read in place; what a source must copy is not counted.")
        self.add("resample", self.n_shards, core_hours=self.hours(clips, "resample"), gigabytes=self.kept(clips))
        self.add("availability", 1)

    def kept(self, clips: float) -> float:
        """Gigabytes of so many resampled clips of 10 s."""
        audioset = self.config.audioset
        whole = _REFERENCE_CLIP_S * audioset.sample_rate * 2 / 1e9
        share = {"flac": self.rates["flac_share"], "opus": self.rates["opus_share"], "pcm16": 1.0}
        return clips * whole * share[audioset.codec]

    def teachers(self) -> None:
        """Checkpoints, teacher embeddings, inventories, clusters."""
        used = {f"teacher-{m.teacher}" for m in self.models if m.teacher}
        used |= {f"student-{m.student}" for m in self.students}
        fetched = {name: it for name, it in teachers.checkpoints(self.config).items() if name in used}
        self.add("checkpoint", len(fetched))
        if remote := [name for name, it in fetched.items() if it.url and not it.path]:
            self.costs.downloads.append(f"weights of {', '.join(n.partition('-')[2] for n in remote)}")
        clips = self.n_clips * self.scale
        total: dict[str, float | None] = {"core_hours": 0.0, "gpu_hours": 0.0}
        bytes_ = 2 if self.config.embed.dtype == "float16" else 4
        disk = 0.0
        for name in dict.fromkeys(model.teacher for model in self.models if model.teacher):
            kind = self.config.teachers[name].kind
            if f"embed_{kind}" not in self.rates:
                self.note(f"{name}: no rate for a teacher of kind {kind}, so its embeddings are not counted.")
        for name in self.taught:
            total = _sum(total, self.model_hours(self.config.teachers[name].kind, "embed", clips))
            disk += self.n_clips * self.dim(name) * bytes_ / 1e9
        self.add("embed", self.n_shards * len(self.taught), **total, gigabytes=disk)
        self.add("inventory", 2 + 2 * len(self.taught))
        clusterings = self.experiment.targets.clusterings()
        settings = self.config.cluster
        fitted = min(settings.sample_size, self.n_train)
        flop = sum(
            2e-9 * self.dim(teacher) * k * (fitted * settings.iterations * settings.restarts + self.n_clips)
            for teacher, k in clusterings
        )
        hours = flop / self.rates["kmeans_gflops"] / 3600
        self.add("cluster", len(clusterings), core_hours=hours, gigabytes=len(clusterings) * self.n_clips * 40 / 1e9)

    def dim(self, teacher: str) -> int:
        """Size of a teacher's embedding."""
        found = self.config.teachers[teacher]
        return found.embedding_dim or _EMBEDDING_DIMS.get(found.kind, 0)

    def trainings(self) -> None:
        """Distillations, supervised and untrained students."""
        for rule, kind, settings in (
            ("distill", "distilled", self.config.distill),
            ("supervise", "supervised", self.config.supervise),
        ):
            models = [m for m in self.models if m.row_kind == kind]
            total: dict[str, float | None] = {"core_hours": 0.0, "gpu_hours": 0.0}
            for model in models:
                drawn = settings.epochs * settings.samples_per_epoch * self.scale
                looked = settings.epochs // settings.validate_every * (self.n_clips - self.n_train) * self.scale / 3
                total = _sum(total, self.model_hours(self.architecture(model.student), "train", drawn + looked))
            self.add(rule, len(models), **total, gigabytes=0.05 * len(models))
        untrained = [m for m in self.models if m.row_kind == "untrained"]
        self.add("initialise", len(untrained), gigabytes=0.05 * len(untrained))

    def architecture(self, student: str) -> str:
        """Architecture of a student; one without a measured rate is noted."""
        found = self.config.students[student]
        name = found.architecture
        if f"train_{name}" not in self.rates:
            self.note(f"{student}: no rate for the architecture {name}, so its trainings are not counted.")
        elif found.settings:
            self.note(f"{student}: counted as {name} at its default size; its settings differ.")
        return name

    def note(self, text: str) -> None:
        """Remember a remark, once."""
        if text not in self.costs.notes:
            self.costs.notes.append(text)

    def scores(self) -> None:
        """Downstream tasks: preparing, embedding, probing, tables."""
        sizes = {name: task_size(self.experiment, name) for name in self.tasks}
        for name in [name for name, size in sizes.items() if size is None]:
            self.note(f"{name}: its data is not there, so its embeddings and probes are not counted.")
        said, gigabytes = downloads(self.experiment, self.tasks)
        n_files = sum(len(tasks.archives(self.experiment, name)) for name in self.tasks)
        self.add("download", n_files, gigabytes=gigabytes)
        if said:
            self.costs.downloads.append(f"data sets, about {gigabytes:.0f} GB: {', '.join(said)}")
        known = {name: size for name, size in sizes.items() if size}
        clips = {name: size.n_clips * size.clip_s / _REFERENCE_CLIP_S for name, size in known.items()}
        disk = sum(self.kept(n) for n in clips.values())
        prepare = self.hours(sum(clips.values()), "resample")
        self.add("prepare_task", len(self.tasks), core_hours=prepare, gigabytes=disk)
        total: dict[str, float | None] = {"core_hours": 0.0, "gpu_hours": 0.0}
        disk, probing = 0.0, 0.0
        scores = self.experiment.targets.all_scores()
        for model in self.models:
            kind = self.config.teachers[model.teacher].kind if model.row_kind == "teacher" else ""
            dim = self.dim(model.teacher) if kind else 960
            for name, size in known.items():
                if self.experiment.paths.scores.format(model=model.path, task=name) not in scores:
                    continue
                name_of = kind or self.config.students[model.student].architecture
                total = _sum(total, self.model_hours(name_of, "embed", clips[name]))
                disk += size.n_clips * dim * 2 / 1e9
                probing += self.probe_hours(size, dim)
        self.add("embed_task", len(scores), **total, gigabytes=disk)
        self.add("probe", len(scores), core_hours=probing)
        for rule in ("scores", *self.experiment.targets.tables, "report"):
            self.add(rule, 1)

    def probe_hours(self, size: DatasetSize, dim: int) -> float:
        """Core hours of a probe, at most: steps, not clips, count, and all of them if it never stops early."""
        settings, measured = self.config.probe, Probe()
        share = size.n_scored * _probe_work(settings) / _probe_work(measured)
        return share * dim / 960 * size.n_classes / 11 * self.rates["probe_core_s"] / 3600


def _probe_work(settings: Probe) -> int:
    """Steps of all probes side by side."""
    n_points = len(settings.learning_rates) * len(settings.weight_decays) * len(settings.batch_sizes)
    return n_points * len(settings.seeds) * settings.steps


def _sum(a: Mapping[str, float | None], b: Mapping[str, float | None]) -> dict[str, float | None]:
    """Added up; what is not known stays out, and is noted where it is met."""
    return {key: (a[key] or 0.0) + (b[key] or 0.0) for key in a}


def estimate(experiment: Experiment, rates: Mapping[str, float], *, n_train: int, n_eval: int) -> Costs:
    """What `experiment` would cost.

    Args:
        experiment: workflow of a configuration.
        rates: as `read_rates` gives them.
        n_train: training clips of the corpus.
        n_eval: evaluation clips.
    """
    found = _Estimate(experiment, rates, n_train, n_eval)
    found.corpus()
    found.teachers()
    found.trainings()
    found.scores()
    costs = found.costs
    if found.on_gpu:
        costs.notes.append(
            "GPU hours are of an NVIDIA H200 beside 16 cores, where whole jobs were measured; docs/RATES.md says which "
            "rates are estimates. Core hours beside them are decoding."
        )
    costs.notes.append(
        "Core hours are of one core, from rates measured on one machine (docs/RATES.md; make bench for yours); "
        "?: it waits for the network or the disk, and no rate is known."
    )
    return costs
