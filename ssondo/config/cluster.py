"""The section `cluster`: k-means of teacher embeddings."""

from pydantic import Field

from ssondo.config.base import Section


class Cluster(Section):
    """k-means of the teacher embeddings of the training clips."""

    seed: int = Field(default=0, ge=0)
    """Seed of the samples and of the initial centroids."""
    iterations: int = Field(default=30, ge=1)
    """Number of iterations of Lloyd's algorithm in each run."""
    restarts: int = Field(default=3, ge=1)
    """Number of runs with different initial centroids, of which the best is kept."""
    include_eval: bool = False
    """Whether the centroids are fitted on the evaluation clips too, as in the published code."""
    spherical: bool = False
    """Whether directions (cosine) are compared instead of Euclidean distances."""
    sample_size: int = Field(default=500_000, ge=1)
    """Maximum number of clips, drawn at random, that the centroids are fitted on; all clips are assigned to
    clusters."""
    memory_mb: int = Field(default=10_000, ge=500)
    """Maximum memory of clustering in MB. If sample_size clips need more, the centroids are fitted on fewer clips,
    which changes the clusters; 500,000 embeddings of 3,840 dimensions need about 9,400 MB."""
    metric_sample: int = Field(default=10_000, ge=100)
    """Maximum number of training clips on which the silhouette, Calinski-Harabasz and Davies-Bouldin indices are
    computed."""
