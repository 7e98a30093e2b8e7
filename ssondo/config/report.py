"""What is compared with what: `table1`, `table2`, `fig2`. Every model that is trained stands in one of them."""

from typing import Annotated, Literal

from pydantic import Field

from ssondo.config.base import Name, Section
from ssondo.config.distill import Loss

TABLE1_COLUMNS = (
    *("row_kind", "teacher", "student", "loss", "n_clusters", "parameters"),
    *("average", "average_published", "share_of_teacher", "share_of_teacher_published"),
)
"""What stands in table1.csv beside its tasks."""


class Table1(Section):
    """Students against their teachers, downstream."""

    teachers: list[Name] = Field(default=["matpac", "m2d"], min_length=1)
    """Rows."""
    students: list[Name] = Field(default=["mobilenetv3", "dymn", "eres2net"], min_length=1)
    """Rows."""
    baselines: list[Literal["supervised", "untrained"]] = ["supervised"]
    """More rows for each student."""
    loss: Loss = "cosine"
    """Of the distilled rows."""
    n_clusters: int = Field(default=50, ge=0)
    """Of the distilled rows; 0 draws clips at random."""
    seeds: list[Annotated[int, Field(ge=0)]] = Field(default=[0], min_length=1)
    """A training each."""
    tasks: list[Name] = Field(default=["openmic", "nsynth", "gtzan", "mtt", "fsd50k", "esc50", "us8k"], min_length=1)
    """Columns."""


class Table2(Section):
    """Losses against each other."""

    teacher: Name = "matpac"
    """The teacher of all."""
    student: Name = "mobilenetv3"
    """The student of all."""
    losses: list[Loss] = Field(default=["cosine", "contrastive", "kl", "l1", "mse"], min_length=1)
    """Rows; `contrastive` is the paper's CLAP."""
    n_clusters: int = Field(default=0, ge=0)
    """The published cosine row has the averages of Fig. 2 at 0 clusters, not of Table 1."""
    seeds: list[Annotated[int, Field(ge=0)]] = Field(default=[0], min_length=1)
    """A training each."""
    music: list[Name] = Field(default=["openmic", "nsynth", "gtzan", "mtt"], min_length=1)
    """Tasks of the first average."""
    environment: list[Name] = Field(default=["fsd50k", "esc50", "us8k"], min_length=1)
    """Tasks of the second."""


class Fig2(Section):
    """Scores over the number of clusters."""

    teacher: Name = "matpac"
    """The teacher of all."""
    student: Name = "mobilenetv3"
    """The student of all."""
    loss: Loss = "cosine"
    """The loss of all."""
    n_clusters: list[Annotated[int, Field(ge=0)]] = Field(default=[0, 30, 40, 45, 50, 55, 60], min_length=1)
    """Points; 0 draws clips at random."""
    seeds: list[Annotated[int, Field(ge=0)]] = Field(default=[0], min_length=1)
    """A training each."""
    tasks: list[Name] = Field(default=["openmic", "nsynth", "gtzan", "mtt", "fsd50k", "esc50", "us8k"], min_length=1)
    """Curves."""
