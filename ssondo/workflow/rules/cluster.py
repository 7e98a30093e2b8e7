"""The job of rules/cluster.smk."""

from ssondo.workflow.experiment import Experiment, Job


def cluster(experiment: Experiment, teacher: str, n_clusters: str) -> Job:
    """Return the job that clusters a teacher's embeddings."""
    return Job({"n_clusters": int(n_clusters), **experiment.config.cluster.model_dump()})
