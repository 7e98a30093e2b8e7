"""The tables of a configuration, their models, and the files that they require."""

from collections.abc import Iterable
from functools import cached_property

from ssondo.config import Config
from ssondo.probe.model_id import ModelId
from ssondo.workflow.paths import Paths

TABLES = ("table1", "table2", "fig2")


class Targets:
    """The models and files of a configuration's tables and figures.

    Args:
        config: the checked configuration.
        paths: the paths of the workflow.
    """

    def __init__(self, config: Config, paths: Paths) -> None:
        self.config, self.paths = config, paths

    @cached_property
    def tables(self) -> list[str]:
        """The names of the tables and figures of this configuration."""
        return [name for name in TABLES if getattr(self.config, name) is not None]

    def table1_models(self) -> list[ModelId]:
        """Return the models of the rows of Table 1."""
        table = self.config.table1
        return [
            *(ModelId("teacher", teacher) for teacher in table.teachers),
            *(
                ModelId(row_kind, student=student, seed=seed)
                for row_kind in table.baselines
                for student in table.students
                for seed in table.seeds
            ),
            *(
                ModelId("distilled", teacher, student, table.loss, table.n_clusters, seed)
                for teacher in table.teachers
                for student in table.students
                for seed in table.seeds
            ),
        ]

    def table2_models(self) -> list[ModelId]:
        """Return the models of the rows of Table 2; empty if the configuration has no Table 2."""
        table = self.config.table2
        if table is None:
            return []
        return [
            ModelId("distilled", table.teacher, table.student, loss, table.n_clusters, seed)
            for loss in table.losses
            for seed in table.seeds
        ]

    def fig2_models(self) -> list[ModelId]:
        """Return the models of the points of Fig. 2; empty if the configuration has no Fig. 2."""
        figure = self.config.fig2
        if figure is None:
            return []
        return [
            ModelId("distilled", figure.teacher, figure.student, figure.loss, n_clusters, seed)
            for n_clusters in figure.n_clusters
            for seed in figure.seeds
        ]

    def models(self) -> list[ModelId]:
        """Return every model of the tables and figures once."""
        return list(dict.fromkeys([*self.table1_models(), *self.table2_models(), *self.fig2_models()]))

    def scores(self, models: Iterable[ModelId], tasks: Iterable[str]) -> list[str]:
        """Return the paths of the score files of `models` on `tasks`."""
        return [self.paths.scores.format(model=model.path, task=task) for model in models for task in tasks]

    def table_scores(self, name: str) -> list[str]:
        """Return the paths of the score files that a table or figure is made from."""
        config = self.config
        match name:
            case "table1":
                return self.scores(self.table1_models(), config.table1.tasks)
            case "table2" if config.table2:
                return self.scores(self.table2_models(), [*config.table2.music, *config.table2.environment])
            case "fig2" if config.fig2:
                return self.scores(self.fig2_models(), config.fig2.tasks)
        return []

    def all_scores(self) -> list[str]:
        """Return the path of every score file once."""
        return list(dict.fromkeys(path for name in self.tables for path in self.table_scores(name)))

    def histories(self) -> list[str]:
        """Return the paths of the histories of all trainings."""
        trained = [model for model in self.models() if model.row_kind in ("distilled", "supervised")]
        return [f"{self.paths.student_of(model.path)}/history.csv" for model in trained]

    def clusterings(self) -> list[tuple[str, int]]:
        """Return every (teacher, number of clusters) that a distillation uses, once."""
        distilled = [model for model in self.models() if model.row_kind == "distilled" and model.n_clusters]
        return list(dict.fromkeys((model.teacher, model.n_clusters) for model in distilled))

    def cluster_metrics(self) -> list[str]:
        """Return the paths of the metrics of every clustering."""
        return [
            f"{self.paths.clusters_folder.format(teacher=teacher, n_clusters=n)}/metrics.json"
            for teacher, n in self.clusterings()
        ]

    def all_shards(self) -> list[str]:
        """Return the paths of all shards that the target `all` requires, so that a deleted shard is made again."""
        teachers = dict.fromkeys(m.teacher for m in self.models() if m.row_kind == "distilled")
        stages = ["fetched", "audio", *(f"embeddings/{teacher}" for teacher in teachers)]
        return [
            path for split in ("train", "eval") for stage in stages for path in self.paths.shard_paths(stage, split)
        ]
