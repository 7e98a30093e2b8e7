"""The corpus that students learn from: `audioset`, its segment lists and its source of clips."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from ssondo.config.base import LocalPath, Section


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
    max_tries_per_clip: int = Field(default=3, ge=1)
    """Times that a job asks for a clip while the network fails."""
    backoff_s: float = Field(default=60, ge=0)
    """Seconds before a clip is asked for again; twice as long each further time, and some more by chance."""
    max_retries_per_job: int = Field(default=500, ge=0)
    """Times in all that a job asks for clips again."""
    socket_timeout_s: float = Field(default=30, gt=0)
    """A connection that brings nothing for so many seconds is given up."""
    clip_timeout_s: float = Field(default=300, gt=0)
    """A clip that is not there after so many seconds is given up."""


class LocalSource(Section):
    """What the sources share that read a copy which the lab has."""

    path: LocalPath
    """The folder (searched in all its sub-folders), a file, or a pattern with * of several."""
    files_are_clips: bool = True
    """A file is the clip itself; false: a file is the whole video, of which the segment is cut."""
    copy_clips: bool = False
    """Copy what is found into data/fetched, for a copy that will go away; false: read it where it lies."""
    watch: bool = True
    """Look for changed files at every start of snakemake, up to 20,000 files."""


class FolderSource(LocalSource):
    """Clips from a folder of audio files named by their YouTube id."""

    kind: Literal["folder"] = Field(default="folder", description=_KINDS)
    path: LocalPath
    """The folder; it is searched in all its sub-folders."""
    pattern: str = "**/*.*"
    """Which files are listed where audioset.segments.train is empty."""
    eval_share: float = Field(default=0.1, gt=0, lt=1)
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
    """In Hz: what the students take, 32,000; for the bandwidth that the published pipeline kept, set bandlimit_rate."""
    bandlimit_rate: int | None = Field(default=None, ge=4_000)
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
