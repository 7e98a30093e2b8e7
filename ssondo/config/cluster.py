"""Clusters of teacher embeddings: `cluster`."""

from pydantic import Field

from ssondo.config.base import Section


class Cluster(Section):
    """k-means of teacher embeddings, fitted on training clips only."""

    seed: int = Field(default=0, ge=0)
    """Of the sample and the first centroids."""
    iterations: int = Field(default=30, ge=1)
    """Lloyd iterations."""
    restarts: int = Field(default=3, ge=1)
    """The best of so many starts is kept."""
    include_eval: bool = False
    """Fit on eval clips too, as the published code does."""
    spherical: bool = False
    """Normalise centroids after each iteration."""
    sample_size: int = Field(default=500_000, ge=1)
    """Clips that k-means is fitted on, drawn at random; every clip is assigned."""
    memory_mb: int = Field(default=10_000, ge=500)
    """Upper bound for the memory of clustering. Where sample_size clips do not fit into it, fewer are fitted on, and so
    the clusters are others; 500,000 of AudioSet's, of 3,840 dimensions, need about 9,400."""
    metric_sample: int = Field(default=10_000, ge=100)
    """Clips that silhouette and the like are computed on."""
