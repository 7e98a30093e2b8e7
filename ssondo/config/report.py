"""The sections `table1`, `table2` and `fig2`: the models that are trained and compared."""

from typing import Annotated, Literal

from pydantic import Field

from ssondo.config.base import Name, Section
from ssondo.config.distill import Loss

TABLE1_COLUMNS = (
    *("row_kind", "teacher", "student", "loss", "n_clusters", "parameters"),
    *("average", "average_published", "share_of_teacher", "share_of_teacher_published"),
)
"""Columns of table1.csv other than the tasks."""


class Table1(Section):
    """Table 1: downstream scores of students, their teachers and their baselines."""

    teachers: list[Name] = Field(default=["matpac", "m2d"], min_length=1)
    """Names of the teachers, which are rows; each student is distilled from each of them."""
    students: list[Name] = Field(default=["mobilenetv3", "dymn", "eres2net"], min_length=1)
    """Names of the students, which are rows."""
    baselines: list[Literal["supervised", "untrained"]] = ["supervised"]
    """Baselines, each of which is one more row for each student."""
    loss: Loss = "cosine"
    """Loss of the distilled students."""
    n_clusters: int = Field(default=50, ge=0)
    """Number of clusters for the sampling of clips in distillation; 0 draws all clips equally often."""
    seeds: list[Annotated[int, Field(ge=0)]] = Field(default=[0], min_length=1)
    """Seeds, with one training each."""
    tasks: list[Name] = Field(default=["openmic", "nsynth", "gtzan", "mtt", "fsd50k", "esc50", "us8k"], min_length=1)
    """Names of the tasks, which are columns."""


class Table2(Section):
    """Table 2: comparison of distillation losses."""

    teacher: Name = "matpac"
    """Name of the teacher."""
    student: Name = "mobilenetv3"
    """Name of the student."""
    losses: list[Loss] = Field(default=["cosine", "contrastive", "kl", "l1", "mse"], min_length=1)
    """Losses, which are rows; `contrastive` is called CLAP in the paper."""
    n_clusters: int = Field(default=0, ge=0)
    """Number of clusters. The published row of the cosine loss has the averages of Fig. 2 at 0 clusters, not those of
    Table 1."""
    seeds: list[Annotated[int, Field(ge=0)]] = Field(default=[0], min_length=1)
    """Seeds, with one training each."""
    music: list[Name] = Field(default=["openmic", "nsynth", "gtzan", "mtt"], min_length=1)
    """Names of the tasks of the first average."""
    environment: list[Name] = Field(default=["fsd50k", "esc50", "us8k"], min_length=1)
    """Names of the tasks of the second average."""


class Fig2(Section):
    """Figure 2: scores over the number of clusters."""

    teacher: Name = "matpac"
    """Name of the teacher."""
    student: Name = "mobilenetv3"
    """Name of the student."""
    loss: Loss = "cosine"
    """Distillation loss."""
    n_clusters: list[Annotated[int, Field(ge=0)]] = Field(default=[0, 30, 40, 45, 50, 55, 60], min_length=1)
    """Numbers of clusters, which are the points of the curves; 0 draws all clips equally often."""
    seeds: list[Annotated[int, Field(ge=0)]] = Field(default=[0], min_length=1)
    """Seeds, with one training each."""
    tasks: list[Name] = Field(default=["openmic", "nsynth", "gtzan", "mtt", "fsd50k", "esc50", "us8k"], min_length=1)
    """Names of the tasks, which are the panels."""
