"""The sections `paths` and `runtime`: where files are written, and how jobs use the machine."""

from pydantic import Field

from ssondo.config.base import PlainPath, Section


class Paths(Section):
    """Folders of the files that are written. Relative paths start at the working directory."""

    data: PlainPath = "data"
    """Folder of sound, tasks, weights and teacher embeddings, which several experiments can share; it can need
    terabytes. Experiments that share it must have equal `audioset` sections, and equal teachers and tasks of the
    same name."""
    results: PlainPath = "results"
    """Folder of the results; each experiment has a subfolder of its name."""


class Runtime(Section):
    """How jobs use the machine. These keys change results by rounding only, so changing them runs no job again."""

    embed_batch_size: int = Field(default=32, ge=1)
    """Number of clips in a batch when embeddings are computed."""
    checkpoint_minutes: int = Field(default=10, ge=1)
    """Interval in minutes at which a training saves its state, from which it resumes after an interruption."""
    compile: bool = False
    """Whether students are trained with torch.compile."""
    num_workers: int = Field(default=8, ge=0)
    """Number of threads per GPU that read and decode clips."""
    cache_mb: int = Field(default=4_000, ge=0)
    """Memory per GPU for log-mels in MB. It holds the clips that are drawn most often; the others are decoded each
    time."""
    gpus: int = Field(default=1, ge=0)
    """Number of GPUs of a training job on each node; several are used through torchrun, and 0 trains on the CPU."""
    nodes: int = Field(default=1, ge=1)
    """Number of nodes of a training job; more than one require SLURM."""
