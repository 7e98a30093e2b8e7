"""The identity of a model whose embeddings are scored: a teacher, or a student and how it was trained."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

ROW_KINDS = ("teacher", "distilled", "supervised", "untrained")


@dataclass(frozen=True)
class ModelId:
    """A teacher, or a student and how it was trained.

    Attributes:
        row_kind: One of `ROW_KINDS`.
        teacher: Name of the teacher; empty for supervised and untrained students.
        student: Name of the student; empty for teachers.
        loss: Distillation loss; empty unless the student is distilled.
        n_clusters: Number of clusters that balance the training clips; 0 means uniform sampling.
        seed: Seed of the training; None stands for all seeds together.
    """

    row_kind: str
    teacher: str = ""
    student: str = ""
    loss: str = ""
    n_clusters: int = 0
    seed: int | None = 0

    @classmethod
    def from_score(cls, model: Mapping[str, Any]) -> Self:
        """The model that a score file describes; fields that do not apply to its kind are left at their defaults."""
        kind, student, seed = model["row_kind"], model.get("student") or "", model.get("seed") or 0
        match kind:
            case "teacher":
                return cls(kind, model.get("teacher") or "", student, seed=seed)
            case "distilled":
                n_clusters = int(model.get("n_clusters") or 0)
                return cls(kind, model.get("teacher") or "", student, model.get("loss") or "", n_clusters, seed)
            case _:
                return cls(kind, student=student, seed=seed)

    @classmethod
    def parse(cls, path: str) -> Self:
        """The model whose `path` is given.

        Raises:
            ValueError: If no model has this path.
        """
        match path.split("/"):
            case ["teacher", teacher]:
                return cls("teacher", teacher=teacher)
            case ["distilled", teacher, student, loss, clusters, seed]:
                return cls("distilled", teacher, student, loss, int(clusters[1:]), int(seed[4:]))
            case [("supervised" | "untrained") as row_kind, student, seed]:
                return cls(row_kind, student=student, seed=int(seed[4:]))
        raise ValueError(f"{path} names no model")

    @property
    def path(self) -> str:
        """The part of a file's path that identifies the model; `parse` is its inverse."""
        match self.row_kind:
            case "teacher":
                return f"teacher/{self.teacher}"
            case "distilled":
                return f"distilled/{self.teacher}/{self.student}/{self.loss}/k{self.n_clusters}/seed{self.seed}"
            case _:
                return f"{self.row_kind}/{self.student}/seed{self.seed}"

    @property
    def name(self) -> str:
        """The model in words, without its seed."""
        match self.row_kind:
            case "teacher":
                return f"{self.teacher} (teacher)"
            case "distilled":
                clusters = f", k={self.n_clusters}" if self.n_clusters else ""
                return f"{self.student} from {self.teacher} ({self.loss}{clusters})"
            case _:
                return f"{self.student} ({self.row_kind})"

    @property
    def training(self) -> str:
        """How the model was trained, in words."""
        return f"from {self.teacher}" if self.row_kind == "distilled" else self.row_kind

    def over_seeds(self) -> Self:
        """The same model for all seeds together."""
        return replace(self, seed=None)
