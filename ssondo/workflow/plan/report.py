"""The jobs of tables, figures and the report."""

from pathlib import Path
from typing import Any

from ssondo.config import Config
from ssondo.errors import SsondoError
from ssondo.workflow.input_digests import InputDigests
from ssondo.workflow.paths import Paths
from ssondo.workflow.plan.audioset import AudioSetStage
from ssondo.workflow.plan.graph import RULE_GRAPH
from ssondo.workflow.plan.probe import ProbeStage
from ssondo.workflow.plan.stage import Stage
from ssondo.workflow.plan.targets import TABLES, Targets

# How the machine is used is no provenance, and must not make the page again. As whom clips are fetched, with which
# password, is nothing for those who read the page.
_NOT_SHOWN: Any = {"runtime": True, "audioset": {"source": {"cookies", "proxies"}}}
_TRAINED_BY = {"supervised": "supervise", "untrained": "initialise"}
PUBLISHED = Path(__file__).parents[2] / "report" / "published"


class ReportStage(Stage):
    """The rules of rules/report.smk."""

    rules = ("scores", *TABLES, "report")

    def __init__(
        self,
        config: Config,
        paths: Paths,
        watch: InputDigests,
        audioset: AudioSetStage,
        probe: ProbeStage,
        targets: Targets,
    ) -> None:
        super().__init__(config, paths, watch)
        self.audioset, self.probe, self.targets = audioset, probe, targets

    def _table1(self) -> dict[str, Any]:
        table = self.config.table1
        return {"teachers": table.teachers, "students": table.students, "tasks": table.tasks}

    def _table2(self) -> dict[str, Any]:
        table = self.config.table2
        if table is None:
            raise SsondoError("table2 is null in this configuration; set it to have the table")
        return {"losses": table.losses, "music": table.music, "environment": table.environment}

    def _fig2(self) -> dict[str, Any]:
        figure = self.config.fig2
        if figure is None:
            raise SsondoError("fig2 is null in this configuration; set it to have the figure")
        return {"tasks": figure.tasks}

    def _report(self) -> dict[str, Any]:
        return {
            "title": f"S-SONDO: {self.config.name}",
            **{name: f"{self.paths.table(name)}.csv" for name in self.targets.tables if name != "table1"},
            "clusters": self.targets.cluster_metrics(),
            "histories": self.targets.histories(),
            "availability": self.paths.availability,
            "benchmarks": self.paths.benchmarks,
            "rulegraph": self.rule_graph(),
            "config": self.config.model_dump(mode="json", exclude=_NOT_SHOWN),
        }

    def rule_graph(self) -> dict[str, list[str]]:
        """The rules of this configuration, and for each the rules whose files it reads."""
        lists_made_by = "compose" if self.audioset.renders else "list_folder" if self.audioset.lists_folder else None
        located_by = "locate" if self.audioset.locates else None
        downloads = "download" if any(self.probe.archives(task) for task in self.config.tasks) else None
        clustered_by = "cluster" if self.targets.clusterings() else None
        trained_by = {_TRAINED_BY.get(model.row_kind) for model in self.targets.models()}
        used = {lists_made_by, located_by, downloads, clustered_by, *trained_by, *self.targets.tables}
        absent = {"compose", "list_folder", "locate", "download", "cluster", *_TRAINED_BY.values(), *TABLES} - used
        return {
            rule: [source for source in sources if source not in absent]
            for rule, sources in RULE_GRAPH.items()
            if rule not in absent
        }

    def content(self, rule: str, **wildcards: str) -> dict[str, str]:
        """The published numbers that stand beside ours."""
        return self.by_name([str(path) for path in sorted(PUBLISHED.glob("*.csv"))])
