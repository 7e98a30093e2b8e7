"""What belongs to the whole run: where files go, and how jobs use the machine."""

from pydantic import Field

from ssondo.config.base import PlainPath, Section


class Paths(Section):
    """Where files go; relative paths start at the working directory."""

    data: PlainPath = "data"
    """Sound, task sets, weights, teacher embeddings: what experiments of one working directory share; terabytes.
    Their `audioset` sections, and teachers and tasks of one name, must be equal; else give each its own folder."""
    results: PlainPath = "results"
    """Everything of one experiment stands in a folder of its name here."""


class Runtime(Section):
    """How jobs use the machine: none of it changes a result beyond float error, so no change of it reruns a job."""

    embed_batch_size: int = Field(default=32, ge=1)
    """Clips that a teacher or student embeds at once."""
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
