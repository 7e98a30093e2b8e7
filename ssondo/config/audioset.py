"""The section `audioset`: the corpus that students learn from, its segment lists and the source of its clips."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from ssondo.config.base import LocalPath, Section


class Segments(Section):
    """Segment lists: local files or URLs, in the format of AudioSet or of its mirrors."""

    train: list[str] = Field(
        default=[
            "https://storage.googleapis.com/us_audioset/youtube_corpus/v1/csv/balanced_train_segments.csv",
            "https://storage.googleapis.com/us_audioset/youtube_corpus/v1/csv/unbalanced_train_segments.csv",
        ],
    )
    """Lists of training segments. If the list is empty and the source is a folder, every file of the folder is a
    clip."""
    eval: list[str] = [
        "https://storage.googleapis.com/us_audioset/youtube_corpus/v1/csv/eval_segments.csv",
    ]
    """Lists of evaluation segments."""
    classes: str = "https://storage.googleapis.com/us_audioset/youtube_corpus/v1/csv/class_labels_indices.csv"
    """List of the classes with their indices. It is empty for a corpus without labels, which allows no supervised
    baseline."""


_KINDS = "Kind of the source: folder, hdf5, parquet or webdataset (a local copy), youtube, or renderer (the demo)."


class YoutubeSource(Section):
    """Clips downloaded from YouTube with yt-dlp, at a rate that all jobs of the run share."""

    kind: Literal["youtube"] = Field(default="youtube", description=_KINDS)
    requests_per_hour: int = Field(default=300, ge=1, le=100_000)
    """Maximum number of requests per hour of the whole run. YouTube allows about 300 per session."""
    max_jobs: int = Field(default=1, ge=1)
    """Number of fetch jobs that may run at once; they share the rate equally."""
    cookies: LocalPath | None = None
    """Cookies file in Netscape format, for a logged-in session."""
    proxies: list[Annotated[str, Field(pattern="^http://")]] = []
    """URLs of proxies, beginning with http:// (ffmpeg supports no other kind). Each fetch job uses one of them."""
    url_template: str = Field(default="https://www.youtube.com/watch?v={ytid}", pattern=r"\{ytid\}")
    """URL of the video of a clip, with {ytid} in place of its id."""
    sleep_s: float = Field(default=5, ge=0)
    """Shortest time between two requests of a job in seconds, whatever the rate."""
    pauses_s: list[Annotated[float, Field(ge=0, le=3600)]] = [60, 300, 900, 3600]
    """Lengths in seconds of the pauses at consecutive rate-limit answers. After the last pause the job fails;
    finished clips are kept."""
    max_tries_per_clip: int = Field(default=3, ge=1)
    """Number of times that one job requests a clip that fails."""
    backoff_s: float = Field(default=60, ge=0)
    """Time in seconds before a clip is requested again. It is doubled with each try and increased by a random
    amount of up to half."""
    max_retries_per_job: int = Field(default=500, ge=0)
    """Number of repeated requests that one job makes in total."""
    socket_timeout_s: float = Field(default=30, gt=0)
    """Time in seconds without data after which a connection is closed."""
    clip_timeout_s: float = Field(default=300, gt=0)
    """Time in seconds after which the download of a clip is aborted."""


class LocalSource(Section):
    """Settings that the sources share which read a local copy."""

    path: LocalPath
    """Path of a folder, which is searched with all its subfolders, of a file, or a pattern with * for several files."""
    files_are_clips: bool = True
    """Whether a file contains the clip only. With false, a file contains the whole video, from which the segment is
    cut."""
    copy_clips: bool = False
    """Whether the sound is copied into data/fetched, for a source that will be removed. With false, clips are read in
    place."""
    watch: bool = True
    """Whether changed files are detected whenever Snakemake starts, if there are at most 20,000 files."""


class FolderSource(LocalSource):
    """Clips from a folder of audio files that are named by their YouTube id."""

    kind: Literal["folder"] = Field(default="folder", description=_KINDS)
    path: LocalPath
    """Path of the folder, which is searched with all its subfolders."""
    pattern: str = "**/*.*"
    """Glob pattern of the files that are listed if audioset.segments.train is empty."""
    eval_share: float = Field(default=0.1, gt=0, lt=1)
    """Share of the listed files that is used for evaluation; their names determine which."""


class Hdf5Source(LocalSource):
    """Clips from HDF5 packs in the format of PANNs and EfficientAT, with audio_name, and mp3 or waveform."""

    kind: Literal["hdf5"] = Field(default="hdf5", description=_KINDS)
    sample_rate: int | None = Field(default=None, ge=1)
    """Sample rate of waveform in Hz, for packs that do not state it."""


class ParquetSource(LocalSource):
    """Clips from parquet files in the format of the Hugging Face hub, with a column of {bytes, path}."""

    kind: Literal["parquet"] = Field(default="parquet", description=_KINDS)
    audio_column: str = "audio"
    """Name of the column with the sound."""
    id_column: str | None = None
    """Name of the column with the id of the clip. With null it is the first of the usual names (video_id, ytid,
    ...) that exists, or else the id is taken from the path of the sound."""


class WebDatasetSource(LocalSource):
    """Clips from WebDataset tar shards."""

    kind: Literal["webdataset"] = Field(default="webdataset", description=_KINDS)
    id_key: str | None = None
    """Key of the id of the clip in the JSON of each sample. With null the id is taken from the name of the sample."""


class RendererSource(Section):
    """Clips rendered from a General MIDI sound bank, the corpus of the demo."""

    kind: Literal["renderer"] = Field(default="renderer", description=_KINDS)
    seed: int = Field(default=0, ge=0)
    """Seed of the rendered clips; a clip depends on this seed and its id only."""
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
    """The corpus that students learn from."""

    segments: Segments = Segments()
    source: Annotated[
        YoutubeSource | FolderSource | Hdf5Source | ParquetSource | WebDatasetSource | RendererSource,
        Field(discriminator="kind"),
    ] = YoutubeSource()
    """Source of the clips."""
    manifest: LocalPath | None = None
    """Manifest that `ssondo freeze` wrote for an earlier run. Only its clips are used, and those that are missing are
    reported."""
    n_train_shards: int = Field(default=512, ge=1, le=9999)
    """Number of training shards. The shard of a clip is a hash of its id modulo this number, and each stage has one
    job per shard."""
    n_eval_shards: int = Field(default=8, ge=1, le=9999)
    """Number of evaluation shards."""
    clip_s: float = Field(default=10.0, gt=0, le=600)
    """Length of a clip in seconds. Longer clips are cropped to their centre, shorter ones are padded with zeros."""
    sample_rate: int = Field(default=32_000, ge=8_000, le=192_000)
    """Sample rate of the clips in Hz. The students require 32,000."""
    bandlimit_rate: int | None = Field(default=None, ge=4_000)
    """Sample rate in Hz to which sound is converted first, which removes frequencies above half of it. The published
    pipeline used 16,000; null omits the conversion."""
    codec: Literal["flac", "pcm16", "opus"] = "flac"
    """Codec of the stored clips. flac and pcm16 are exact to 16 bit; opus needs about a tenth of the space of pcm16."""
    max_failed_share: float = Field(default=0.02, ge=0, le=1)
    """Largest share of the clips of a shard that may fail for a temporary reason; if more do, the job fails, and the
    next one requests these clips again."""

    @model_validator(mode="before")
    @classmethod
    def _one_source(cls, values: Any) -> Any:
        """Remove the keys of other sources: config files are merged deeply, so keys of the default source remain."""
        source = values.get("source") if isinstance(values, dict) else None
        if not isinstance(source, dict):
            return values
        kinds = {model.model_fields["kind"].default: set(model.model_fields) for model in _SOURCES}
        own = kinds.get(source.get("kind", "youtube"))
        if own is None:
            return values
        others = set().union(*kinds.values()) - own
        return {**values, "source": {key: value for key, value in source.items() if key not in others}}
