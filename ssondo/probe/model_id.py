"""The identity of a model whose embeddings are scored: a teacher, or a student and how it was trained."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

# The fields that identify a model of each kind, in the order of its path.
_FIELDS = {
    "teacher": ("teacher",),
    "distilled": ("teacher", "student", "loss", "n_clusters", "seed"),
    "supervised": ("student", "seed"),
    "untrained": ("student", "seed"),
}
ROW_KINDS = tuple(_FIELDS)
# Prefix of the numbers in a path.
_PREFIXES = {"n_clusters": "k", "seed": "seed"}


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
        kind = model["row_kind"]
        return cls(kind, **{name: model[name] for name in _FIELDS[kind] if model.get(name)})

    @classmethod
    def parse(cls, path: str) -> Self:
        """The model whose `path` is given.

        Raises:
            ValueError: If no model has this path.
        """
        kind, *parts = path.split("/")
        names = _FIELDS.get(kind, ())
        if not names or len(parts) != len(names):
            raise ValueError(f"{path} names no model")
        values: dict[str, Any] = dict(zip(names, parts, strict=True))
        for name, prefix in _PREFIXES.items():
            if name in values:
                values[name] = int(values[name].removeprefix(prefix))
        return cls(kind, **values)

    @property
    def path(self) -> str:
        """The part of a file's path that identifies the model; `parse` is its inverse."""
        parts = [f"{_PREFIXES.get(name, '')}{getattr(self, name)}" for name in _FIELDS[self.row_kind]]
        return "/".join([self.row_kind, *parts])

    @property
    def name(self) -> str:
        """The model in words, without its seed."""
        if self.row_kind == "distilled":
            clusters = f", k={self.n_clusters}" if self.n_clusters else ""
            return f"{self.student} from {self.teacher} ({self.loss}{clusters})"
        return f"{self.student or self.teacher} ({self.row_kind})"

    @property
    def training(self) -> str:
        """How the model was trained, in words."""
        return f"from {self.teacher}" if self.row_kind == "distilled" else self.row_kind
