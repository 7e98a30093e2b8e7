"""The jobs of clustering."""

from typing import Any

from ssondo.workflow.plan.stage import Stage


class ClusterStage(Stage):
    """The rules of rules/cluster.smk."""

    rules = ("cluster",)

    def _cluster(self, teacher: str, n_clusters: str) -> dict[str, Any]:
        return {"n_clusters": int(n_clusters), **self.config.cluster.model_dump()}
