"""The typed configuration: what may stand in config.yaml, and what each key means.

The sentences below are the reference: `python -m ssondo.config --write` makes config.yaml and
docs/config.md of them, and a test fails if either drifts. Only the Snakefile and the plan import
this module; library functions take their own arguments.
"""

import difflib
import os
import re
import typing
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from ssondo.errors import SsondoError
from ssondo.provenance import registered

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_]*$")]
Loss = Literal[
    "cosine",
    "mse",
    "l1",
    "kl",
    "contrastive",
    "real_contrastive",
    "contrastive_neg_clusters",
    "cluster_aware",
    "cross_cluster_guidance",
    "hybrid",
]

_CLUSTER_LOSSES = ("contrastive_neg_clusters", "cluster_aware", "cross_cluster_guidance", "hybrid")


class Section(BaseModel):
    """A section of the configuration: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True)


LocalPath = Annotated[str, AfterValidator(os.path.expanduser)]
# Paths that the workflow makes stand in shell commands and in Snakemake's patterns.
PlainPath = Annotated[str, AfterValidator(os.path.expanduser), Field(pattern=r"^[\w./~+@=-]+$")]


class Paths(Section):
    """Where files go; relative paths start at the working directory."""

    data: PlainPath = "data"
    """Sound, task sets, weights, teacher embeddings: what experiments of one working directory share; terabytes."""
    results: PlainPath = "results"
    """Everything of one experiment stands in a folder of its name here."""


class Segments(Section):
    """AudioSet's lists: local files or URLs, in the official form or its mirrors'."""

    train: list[str] = Field(
        default=[
            "https://storage.googleapis.com/us_audioset/youtube_corpus/v1/csv/balanced_train_segments.csv",
            "https://storage.googleapis.com/us_audioset/youtube_corpus/v1/csv/unbalanced_train_segments.csv",
        ],
    )
    """Lists of training segments; empty with source folder: every file of the folder is a clip."""
    eval: list[str] = [
        "https://storage.googleapis.com/us_audioset/youtube_corpus/v1/csv/eval_segments.csv",
    ]
    """Lists of evaluation segments."""
    classes: str = "https://storage.googleapis.com/us_audioset/youtube_corpus/v1/csv/class_labels_indices.csv"
    """Class indices; empty for a corpus without labels (then no supervised baseline)."""


_KINDS = "folder, hdf5, parquet or webdataset (a copy that you have), youtube, or renderer (the demo's)."


class YoutubeSource(Section):
    """Clips from YouTube through yt-dlp, at a polite rate that the whole run shares."""

    kind: Literal["youtube"] = Field(default="youtube", description=_KINDS)
    requests_per_hour: int = Field(default=300, ge=1, le=100_000)
    """For the whole run, not for a job. YouTube allows a session about 300 an hour."""
    max_jobs: int = Field(default=1, ge=1)
    """Fetch jobs that may run at once; each takes its part of the rate."""
    cookies: LocalPath | None = None
    """A cookies file in Netscape form, for a logged-in session."""
    proxies: list[Annotated[str, Field(pattern="^http://")]] = []
    """Proxies, http:// (ffmpeg would go past another kind); each fetch job takes one by its shard."""
    url_template: str = Field(default="https://www.youtube.com/watch?v={ytid}", pattern=r"\{ytid\}")
    """Where a clip is fetched from."""
    sleep_s: float = Field(default=5, ge=0)
    """Least seconds between two requests of a job, whatever the rate."""
    pauses_s: list[Annotated[float, Field(ge=0, le=3600)]] = [60, 300, 900, 3600]
    """Pauses at rate-limit answers in a row; after the last the job gives up and its finished clips are kept."""
    attempts: int = Field(default=3, ge=1)
    """Times that a job asks for a clip while the network fails."""
    backoff_s: float = Field(default=60, ge=0)
    """Seconds before a clip is asked for again; twice as long each further time, and some more by chance."""
    retries: int = Field(default=500, ge=0)
    """Times in all that a job asks for clips again."""
    stall_s: float = Field(default=30, gt=0)
    """A connection that brings nothing for so many seconds is given up."""
    deadline_s: float = Field(default=300, gt=0)
    """A clip that is not there after so many seconds is given up."""


class LocalSource(Section):
    """What the sources share that read a copy which the lab has."""

    path: LocalPath
    """The folder (searched in all its sub-folders), a file, or a pattern with * of several."""
    whole_files: bool = True
    """A file is the clip itself; false: a file is the whole video, of which the segment is cut."""
    copy_clips: bool = False
    """Copy what is found into data/fetched, for a copy that will go away; false: read it where it lies."""
    watch: bool = True
    """Look for changed files at every start of snakemake, up to 20,000 files."""


class FolderSource(LocalSource):
    """Clips from a folder of audio files named by their YouTube id."""

    kind: Literal["folder"] = Field(default="folder", description=_KINDS)
    pattern: str = "**/*.*"
    """Which files are listed where audioset.segments.train is empty."""
    eval_share: float = Field(default=0.1, ge=0, lt=1)
    """Share of the listed files that is kept for evaluation, drawn by their names."""


class Hdf5Source(LocalSource):
    """Clips from HDF5 packs of the PANNs and EfficientAT kind: audio_name, and mp3 or waveform."""

    kind: Literal["hdf5"] = Field(default="hdf5", description=_KINDS)
    sample_rate: int | None = Field(default=None, ge=1)
    """Of waveform in Hz, where a pack does not say."""


class ParquetSource(LocalSource):
    """Clips from parquet files as the Hugging Face hub keeps them: a column of {bytes, path}."""

    kind: Literal["parquet"] = Field(default="parquet", description=_KINDS)
    audio_column: str = "audio"
    """The column of the sound."""
    id_column: str | None = None
    """The column of the clip's id; null: the first of the usual names (video_id, ytid, ...), or the sound's path."""


class WebDatasetSource(LocalSource):
    """Clips from WebDataset tar shards."""

    kind: Literal["webdataset"] = Field(default="webdataset", description=_KINDS)
    id_key: str | None = None
    """Key of the clip's id in the JSON of each sample; null: the sample's name has it."""


class RendererSource(Section):
    """Clips rendered from a General MIDI sound bank: the demo's corpus."""

    kind: Literal["renderer"] = Field(default="renderer", description=_KINDS)
    seed: int = Field(default=0, ge=0)
    """What is rendered depends on this seed and the clip's id alone."""
    n_train: int = Field(default=6000, ge=1)
    """Number of training clips."""
    n_eval: int = Field(default=400, ge=1)
    """Number of evaluation clips."""


_SOURCES: tuple[type[Section], ...] = (
    YoutubeSource,
    FolderSource,
    Hdf5Source,
    ParquetSource,
    WebDatasetSource,
    RendererSource,
)


class AudioSet(Section):
    """The unlabelled corpus that students learn from."""

    segments: Segments = Segments()
    source: Annotated[
        YoutubeSource | FolderSource | Hdf5Source | ParquetSource | WebDatasetSource | RendererSource,
        Field(discriminator="kind"),
    ] = YoutubeSource()
    """Where clips come from."""
    manifest: LocalPath | None = None
    """Clips that an earlier run had, frozen with `ssondo freeze`: no others are used, and what is missing is said."""
    n_train_shards: int = Field(default=512, ge=1, le=9999)
    """A clip's shard is a hash of its id modulo this number; a shard is one job of each stage."""
    n_eval_shards: int = Field(default=8, ge=1, le=9999)
    """The same for evaluation clips."""
    clip_s: float = Field(default=10.0, gt=0, le=600)
    """Length of a clip in seconds; longer sound is cropped at both ends, shorter is padded with zeros."""
    sample_rate: int = Field(default=32_000, ge=8_000, le=192_000)
    """In Hz. 32,000 keeps the bandwidth that the students hear (the published pipeline kept 16,000)."""
    through_rate: int | None = Field(default=None, ge=4_000)
    """In Hz: bring sound to this rate first and lose what lies above half of it, as the published 16,000 does."""
    codec: Literal["flac", "pcm16", "opus"] = "flac"
    """How clips are kept: FLAC is exact to 16 bit, Opus a tenth of the size."""
    max_failed_share: float = Field(default=0.02, ge=0, le=1)
    """A shard with a larger share of clips that failed for now (not: that do not exist) is fetched again."""

    @model_validator(mode="before")
    @classmethod
    def _one_source(cls, values: Any) -> Any:
        """Drop keys of the other sources: config files merge deeply, so the default source's keys remain."""
        source = values.get("source") if isinstance(values, dict) else None
        if not isinstance(source, dict):
            return values
        kinds = {model.model_fields["kind"].default: set(model.model_fields) for model in _SOURCES}
        own = kinds.get(source.get("kind", "youtube"))
        if own is None:
            return values
        others = set().union(*kinds.values()) - own
        return {**values, "source": {key: value for key, value in source.items() if key not in others}}


class Checkpoint(Section):
    """Where a model's weights come from; the first of `path`, `package` and `url` that is set."""

    url: str | None = None
    """Download from here."""
    path: LocalPath | None = None
    """A local file instead."""
    package: str | None = None
    """A file inside an installed Python package, `package:path/in/it`."""
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """Refuse a file with another hash."""
    licence: str = ""
    """Shown when the file is downloaded."""

    @model_validator(mode="after")
    def _one_origin(self) -> "Checkpoint":
        if not (self.url or self.path or self.package):
            raise ValueError("needs one of url, path, package")
        return self

    @property
    def file(self) -> str:
        """The file's own name; some checkpoints carry settings in it."""
        name = (self.path or self.package or self.url or "").rstrip("/").rpartition("/")[2].rpartition(":")[2]
        return re.sub(r"[^\w.+-]", "_", name)


class Teacher(Section):
    """A model that embeds: a sample rate, an embedding size and a function of waveforms."""

    kind: Literal["matpac", "m2d", "yamnet", "onnx", "torchscript", "callable"]
    """Built in: matpac, m2d, yamnet. Your own: an ONNX or TorchScript file, or `package.module:callable`."""
    checkpoint: Checkpoint | None = None
    """Its weights."""
    callable: str | None = Field(default=None, pattern=r"^[\w.]+:[\w.]+$")
    """For kind callable: takes waveforms (batch, samples), returns embeddings (batch, embedding_dim)."""
    sample_rate: int | None = Field(default=None, ge=4_000)
    """In Hz; for onnx, torchscript and callable."""
    embedding_dim: int | None = Field(default=None, ge=1)
    """For onnx, torchscript and callable."""

    @model_validator(mode="after")
    def _complete(self) -> "Teacher":
        own = self.kind in ("onnx", "torchscript", "callable")
        if own and (self.sample_rate is None or self.embedding_dim is None):
            raise ValueError(f"kind {self.kind} needs sample_rate and embedding_dim")
        if (self.kind == "callable") != (self.callable is not None):
            raise ValueError("callable belongs to kind callable, and only there")
        if self.kind != "callable" and self.checkpoint is None:
            raise ValueError(f"kind {self.kind} needs a checkpoint")
        return self


class Embed(Section):
    """Teacher inference over shards."""

    dtype: Literal["float16", "float32"] = "float16"
    """Of embeddings on disk."""


class Cluster(Section):
    """k-means of teacher embeddings, fitted on training clips only."""

    seed: int = Field(default=0, ge=0)
    """Of the sample and the first centroids."""
    iterations: int = Field(default=30, ge=1)
    """Lloyd iterations."""
    restarts: int = Field(default=3, ge=1)
    """The best of so many starts is kept."""
    fit_eval: bool = False
    """Fit on eval clips too, as the published code does."""
    spherical: bool = False
    """Normalise centroids after each iteration."""
    sample_size: int = Field(default=500_000, ge=1)
    """Clips that k-means is fitted on, drawn at random; every clip is assigned."""
    metric_sample: int = Field(default=10_000, ge=100)
    """Clips that silhouette and the like are computed on."""


class Student(Section):
    """A small network with a front-end and a mapping head."""

    architecture: str = Field(pattern=r"^[\w.]+(:\w+)?$")
    """mobilenetv3, dymn, eres2net, or `module:Class` of your own."""
    init: Checkpoint | None = None
    """Pretrained weights of the backbone to begin with."""
    window_s: float = Field(default=10.0, gt=0)
    """Longer clips are cut into windows of this many seconds and their embeddings averaged."""
    settings: dict[str, bool | int | float | str | list[int]] = {}
    """Arguments of the architecture, e.g. width_mult."""


class Training(Section):
    """What distillation and the supervised baseline share."""

    epochs: int = Field(default=200, ge=1)
    """The published code does not say; EfficientAT, whose schedule this is, trains 200."""
    draws_per_epoch: int = Field(default=100_000, ge=1)
    """Clips drawn in an epoch, with replacement, by the sampler's probabilities."""
    batch_size: int = Field(default=120, ge=1)
    """Of the whole job, over all its GPUs. The published code does not say; EfficientAT uses 120."""
    learning_rate: float = Field(default=8e-4, gt=0)
    """Of Adam, at its peak."""
    schedule: Literal["published", "linear", "constant"] = "published"
    """Of the learning rate; linear moves with every step, for short trainings."""
    warmup_epochs: float = Field(default=8, ge=0)
    """Exponential ramp-up; linear: a straight one."""
    decay_start_epoch: float = Field(default=80, ge=0)
    """The learning rate falls linearly from here."""
    decay_epochs: float = Field(default=95, ge=0)
    """... over so many epochs ..."""
    final_multiplier: float = Field(default=0.01, ge=0, le=1)
    """... to this share of its peak."""
    gradient_clip: float = Field(default=5.0, gt=0)
    """Largest norm of the gradient."""
    precision: Literal["auto", "float32", "bf16", "fp16"] = "auto"
    """auto: 16 bit on GPUs, float32 on a CPU."""
    mixup_alpha: float | None = Field(default=None, gt=0)
    """Mixup; null is off."""
    freq_mask: int = Field(default=0, ge=0)
    """SpecAugment: widest frequency mask in mel bands; 0 is off."""
    time_mask: int = Field(default=0, ge=0)
    """SpecAugment: widest time mask in frames; 0 is off."""
    reestimate_batches: int = Field(default=0, ge=0)
    """Batches on which BatchNorm's statistics are estimated anew at the end; for short trainings. 0 is off."""
    validate_every: int = Field(default=5, ge=1)
    """Epochs between two looks at the eval clips."""


class Distill(Training):
    """Distillation from output embeddings alone."""

    prediction_weight: float = Field(default=0.0, ge=0, le=1)
    """Share of a cross-entropy on labels in the loss; 0 learns from the teacher alone."""
    center: bool = False
    """Subtract the mean teacher embedding of the training clips; for teachers that are not centred."""
    temperature: float = Field(default=1.0, gt=0)
    """Of the losses that have one."""
    masking: Literal["correct", "published"] = "correct"
    """In contrastive losses with clusters: leave masked pairs out, or let them in as exp(0) like the published code."""
    sampling: Literal["clusters", "uniform"] = "clusters"
    """Draw evenly over clusters (Balanced Data Sampling), or over clips."""


class Supervise(Training):
    """The baseline that learns AudioSet's labels."""

    sampling: Literal["classes", "uniform"] = "classes"
    """Draw clips by the inverse frequency of their labels, or evenly."""
    mixup_alpha: float | None = Field(default=0.3, gt=0)
    """Mixup; null is off."""


class Runtime(Section):
    """How jobs use the machine: none of it changes a result beyond float error, so no change of it reruns a job."""

    embed_batch_size: int = Field(default=32, ge=1)
    """Clips that a teacher or student embeds at once."""
    cluster_memory_mb: int = Field(default=8_000, ge=500)
    """Upper bound for the memory of clustering; if it is short, fewer clips are fitted on."""
    checkpoint_minutes: int = Field(default=10, ge=1)
    """A killed training goes on from its last checkpoint."""
    compile: bool = False
    """Train with torch.compile."""

    num_workers: int = Field(default=8, ge=0)
    """Threads that read and decode clips, for each GPU."""
    cache_mb: int = Field(default=4_000, ge=0)
    """Log-mels kept in memory for each GPU, those of the clips that are drawn most often; the rest is decoded."""
    gpus: int = Field(default=1, ge=0)
    """GPUs of a training job on each of its nodes, by torchrun if several; 0 is the CPU."""
    nodes: int = Field(default=1, ge=1)
    """Nodes of a training job; more than one need SLURM."""


class Task(Section):
    """A downstream data set."""

    kind: Literal[
        "esc50", "fsd50k", "gtzan", "magnatagatune", "nsynth", "openmic", "urbansound8k", "table", "pattern", "rendered"
    ]
    """Its reader: one of the seven, `table` (a CSV of yours), `pattern` (file names), or `rendered` (the demo's)."""
    path: LocalPath | None = None
    """A local copy: the folder of the data set or of its archives, for table the CSV; null downloads the archives."""
    mirror: str | None = Field(default=None, pattern=r"^https?://\S+$")
    """Where else the archives are, under their own names; the address before those names."""
    verify: bool = True
    """Refuse archives whose size and checksum are not the published ones."""
    seed: int = Field(default=0, ge=0)
    """Of folds that are drawn and of sound that is rendered."""
    options: dict[str, Any] = {}
    """What the reader needs besides; docs/tasks.md has them."""

    @model_validator(mode="after")
    def _has_data(self) -> "Task":
        if self.kind in ("table", "pattern") and self.path is None:
            raise ValueError(f"kind {self.kind} needs a path: {'the CSV' if self.kind == 'table' else 'the folder'}")
        if self.kind in ("table", "pattern", "rendered") and self.mirror is not None:
            raise ValueError(f"kind {self.kind} is not downloaded, so it has no mirror")
        return self


class Probe(Section):
    """What is trained on frozen embeddings to score them."""

    head: Literal["linear", "mlp"] = "linear"
    """A linear layer, or one hidden layer."""
    hidden: int = Field(default=512, ge=1)
    """Units of the hidden layer."""
    learning_rates: list[Annotated[float, Field(gt=0)]] = Field(default=[3e-4, 3e-3], min_length=1)
    """Grid, chosen on validation clips."""
    weight_decays: list[Annotated[float, Field(ge=0)]] = Field(default=[0.01, 1.0, 10.0], min_length=1)
    """Grid, chosen on validation clips."""
    batch_sizes: list[Annotated[int, Field(ge=1)]] = Field(default=[64, 256], min_length=1)
    """Grid, chosen on validation clips."""
    steps: int = Field(default=3000, ge=1)
    """At most. Steps, not epochs: an epoch of a small task is a handful of them."""
    patience: int = Field(default=400, ge=1)
    """Steps without a better validation result before it stops."""
    validate_every: int = Field(default=50, ge=1)
    """Steps between two looks at the validation clips."""
    seeds: list[Annotated[int, Field(ge=0)]] = Field(default=[0, 1, 2, 3, 4], min_length=1)
    """A run each; the interval is 1.96 standard deviations over the root of their number."""
    protocol: Literal["field", "published_notebook"] = "field"
    """published_notebook trains as the notebook does and reports the best test score over its 1,000 epochs:
    optimistic, for comparison only, and made for a task as small as ESC-50."""
    bootstrap: int = Field(default=0, ge=0)
    """Resamples of the test clips for a second interval; 0 is none."""


class Table1(Section):
    """Students against their teachers, downstream."""

    teachers: list[Name] = Field(default=["matpac", "m2d"], min_length=1)
    """Rows."""
    students: list[Name] = Field(default=["mobilenetv3", "dymn", "eres2net"], min_length=1)
    """Rows."""
    baselines: list[Literal["supervised", "untrained"]] = ["supervised"]
    """More rows for each student."""
    loss: Loss = "cosine"
    """Of the distilled rows."""
    n_clusters: int = Field(default=50, ge=0)
    """Of the distilled rows; 0 draws clips at random."""
    seeds: list[Annotated[int, Field(ge=0)]] = Field(default=[0], min_length=1)
    """A training each."""
    tasks: list[Name] = Field(default=["openmic", "nsynth", "gtzan", "mtt", "fsd50k", "esc50", "us8k"], min_length=1)
    """Columns."""


class Table2(Section):
    """Losses against each other."""

    teacher: Name = "matpac"
    """The teacher of all."""
    student: Name = "mobilenetv3"
    """The student of all."""
    losses: list[Loss] = Field(default=["cosine", "contrastive", "kl", "l1", "mse"], min_length=1)
    """Rows; `contrastive` is the paper's CLAP."""
    n_clusters: int = Field(default=0, ge=0)
    """The published cosine row has the averages of Fig. 2 at 0 clusters, not of Table 1."""
    seeds: list[Annotated[int, Field(ge=0)]] = Field(default=[0], min_length=1)
    """A training each."""
    music: list[Name] = Field(default=["openmic", "nsynth", "gtzan", "mtt"], min_length=1)
    """Tasks of the first average."""
    environment: list[Name] = Field(default=["fsd50k", "esc50", "us8k"], min_length=1)
    """Tasks of the second."""


class Fig2(Section):
    """Scores over the number of clusters."""

    teacher: Name = "matpac"
    """The teacher of all."""
    student: Name = "mobilenetv3"
    """The student of all."""
    loss: Loss = "cosine"
    """The loss of all."""
    n_clusters: list[Annotated[int, Field(ge=0)]] = Field(default=[0, 30, 40, 45, 50, 55, 60], min_length=1)
    """Points; 0 draws clips at random."""
    seeds: list[Annotated[int, Field(ge=0)]] = Field(default=[0], min_length=1)
    """A training each."""
    tasks: list[Name] = Field(default=["openmic", "nsynth", "gtzan", "mtt", "fsd50k", "esc50", "us8k"], min_length=1)
    """Curves."""


_EFFICIENTAT = "https://github.com/fschmid56/EfficientAT/releases/download/v0.0.1"


class Config(Section):
    """S-SONDO's experiment; the defaults are the paper's."""

    name: Name = "paper"
    """Results stand in a folder of this name."""
    paths: Paths = Paths()
    audioset: AudioSet = AudioSet()
    teachers: dict[Name, Teacher] = {
        "matpac": Teacher(
            kind="matpac",
            checkpoint=Checkpoint(
                url="https://github.com/aurianworld/matpac/releases/download/MATPAC%2B%2B/matpac_plus_6s_2048_enconly.pt",
                licence="see the repository aurianworld/matpac",
            ),
        ),
        "m2d": Teacher(
            kind="m2d",
            checkpoint=Checkpoint(
                url="https://github.com/nttcslab/m2d/releases/download/v0.1.0/m2d_vit_base-80x608p16x16-221006-mr7_enconly.zip",
                licence="NTT's own licence, evaluation and research only, nttcslab/m2d",
            ),
        ),
    }
    """Teachers by name."""
    embed: Embed = Embed()
    cluster: Cluster = Cluster()
    students: dict[Name, Student] = {
        "mobilenetv3": Student(
            architecture="mobilenetv3",
            init=Checkpoint(url=f"{_EFFICIENTAT}/mn10_im.pt", licence="MIT, fschmid56/EfficientAT"),
        ),
        "dymn": Student(
            architecture="dymn",
            init=Checkpoint(url=f"{_EFFICIENTAT}/dymn10_im.pt", licence="MIT, fschmid56/EfficientAT"),
        ),
        "eres2net": Student(architecture="eres2net"),
    }
    """Students by name."""
    distill: Distill = Distill()
    supervise: Supervise = Supervise()
    runtime: Runtime = Runtime()
    tasks: dict[Name, Task] = {
        "openmic": Task(kind="openmic"),
        "nsynth": Task(kind="nsynth"),
        "gtzan": Task(kind="gtzan"),
        "mtt": Task(kind="magnatagatune"),
        "fsd50k": Task(kind="fsd50k"),
        "esc50": Task(kind="esc50"),
        "us8k": Task(kind="urbansound8k"),
    }
    """Downstream data sets by name."""
    probe: Probe = Probe()
    table1: Table1 = Table1()
    table2: Table2 | None = Table2()
    """null leaves it out of `all`."""
    fig2: Fig2 | None = Fig2()
    """null leaves it out of `all`."""

    @model_validator(mode="after")
    def _makes_sense(self) -> "Config":
        def check(key: str, names: list[str], known: Mapping[str, object]) -> None:
            for name in names:
                if name not in known:
                    near = difflib.get_close_matches(name, known, 1)
                    hint = f"; did you mean {near[0]}?" if near else ""
                    raise ValueError(f"{key}: {name!r} is not one of {', '.join(known)}{hint}")

        check("table1.teachers", self.table1.teachers, self.teachers)
        check("table1.students", self.table1.students, self.students)
        check("table1.tasks", self.table1.tasks, self.tasks)
        for key, table in (("table2", self.table2), ("fig2", self.fig2)):
            if table is not None:
                check(f"{key}.teacher", [table.teacher], self.teachers)
                check(f"{key}.student", [table.student], self.students)
        if self.table2 is not None:
            check("table2.music", self.table2.music, self.tasks)
            check("table2.environment", self.table2.environment, self.tasks)
        if self.fig2 is not None:
            check("fig2.tasks", self.fig2.tasks, self.tasks)
        lists_itself = self.audioset.source.kind in ("folder", "renderer")
        if not self.audioset.segments.train and not lists_itself:
            raise ValueError("audioset.segments.train: is empty; name AudioSet's segment lists")
        for key in ("table1", "table2", "fig2"):
            section = getattr(self, key)
            if section is not None and len(set(section.seeds)) < len(section.seeds):
                raise ValueError(f"{key}.seeds: a seed stands there twice")
        if self.table2 is not None and set(self.table2.music) & set(self.table2.environment):
            raise ValueError("table2: a task stands in music and in environment")
        for key, loss, counts in self._distillations():
            if loss in _CLUSTER_LOSSES and 0 in counts:
                raise ValueError(f"{key}: the loss {loss} needs clusters, n_clusters is 0")
        architectures = registered("ssondo.students", "ARCHITECTURES")
        for name, student in self.students.items():
            if ":" not in student.architecture:
                check(f"students.{name}.architecture", [student.architecture], architectures)
        if not self.audioset.segments.eval and self.audioset.segments.train:
            raise ValueError("audioset.segments.eval: is empty; students are judged on these clips")
        if self.distill.prediction_weight and not self.audioset.segments.classes:
            raise ValueError("distill.prediction_weight: needs audioset.segments.classes; this corpus has no labels")
        if "supervised" in self.table1.baselines and not self.audioset.segments.classes:
            raise ValueError("table1.baselines: supervised needs audioset.segments.classes; this corpus has no labels")
        return self

    def _distillations(self) -> list[tuple[str, str, list[int]]]:
        """Where in the config students are distilled: key, loss, numbers of clusters."""
        found = [("table1", self.table1.loss, [self.table1.n_clusters])]
        if self.table2 is not None:
            found += [("table2", loss, [self.table2.n_clusters]) for loss in self.table2.losses]
        if self.fig2 is not None:
            found.append(("fig2", self.fig2.loss, self.fig2.n_clusters))
        return [(key, str(loss), counts) for key, loss, counts in found]


def _section_of(annotation: Any) -> list[type[Section]]:
    """The sections that an annotation allows (through unions, dicts and Annotated)."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [section for part in typing.get_args(annotation) for section in _section_of(part)]


def _keys_at(path: tuple[int | str, ...]) -> list[str]:
    """The keys that are allowed beside the one that `path` ends with."""
    sections: list[type[Section]] = [Config]
    for part in path[:-1]:
        found = [
            section
            for model in sections
            if part in model.model_fields
            for section in _section_of(model.model_fields[str(part)].annotation)
        ]
        # A name that the user gave (teachers.NAME) or a union's tag (source.youtube) is no field: stay.
        tagged = [s for s in sections if "kind" in s.model_fields and s.model_fields["kind"].default == part]
        sections = found or tagged or sections
    return sorted({key for section in sections for key in section.model_fields})


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _sentence(error: ErrorDetails) -> str:
    """One line for a fault that pydantic found: the key, the value, what is allowed."""
    path = error["loc"]
    # The tag of a union is no key of the file.
    shown = ".".join(str(part) for i, part in enumerate(path) if not (i and path[i - 1] == "source"))
    if error["type"] == "extra_forbidden":
        keys = _keys_at(path)
        near = difflib.get_close_matches(str(path[-1]), keys, 1, 0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(keys)}"
        return f"unknown key {shown!r}; {hint}"
    if error["type"] == "union_tag_invalid":
        allowed = error["ctx"]["expected_tags"]
        return f"{shown}.kind: {_shown(error['input'].get('kind'))} is not allowed; it should be one of {allowed}"
    if error["type"] == "missing":
        return f"{shown}: this key is missing"
    message = error["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if error["type"] == "value_error":
        return f"{shown}: {message}" if shown else message
    return f"{shown}: {_shown(error['input'])} is not allowed; it should be {message}"


def load_config(values: Mapping[str, Any]) -> Config:
    """Check the merged configuration.

    Args:
        values: as Snakemake merged it from config.yaml, the profile and the command line.

    Raises:
        SsondoError: one line about the first fault: its key, value and what is allowed.
    """
    try:
        return Config.model_validate(dict(values))
    except ValidationError as error:
        # A key that is misspelt also leaves one that is missing: name the cause.
        details = sorted(error.errors(include_url=False), key=lambda e: e["type"] != "extra_forbidden")
        more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
        raise SsondoError(f"config: {_sentence(details[0])}{more}") from None


def main() -> None:
    """Write config.yaml and docs/config.md (`--write`), or say whether they are in step."""
    import sys
    from pathlib import Path

    from ssondo.artefacts import write_text
    from ssondo.config_files import reference, yaml_text

    root = Path(__file__).parents[1]
    wanted = {root / "config.yaml": yaml_text(Config()), root / "docs" / "config.md": reference(Config)}
    if "--write" in sys.argv[1:]:
        for path, text in wanted.items():
            write_text(path, text)
        return
    stale = [path.name for path, text in wanted.items() if not path.is_file() or path.read_text() != text]
    if stale:
        sys.exit(f"{', '.join(stale)} out of step with ssondo/config.py; run: python -m ssondo.config --write")


if __name__ == "__main__":
    main()
