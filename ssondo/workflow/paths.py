"""The names of what the workflow makes: models, and the path of every file."""

from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True)
class Model:
    """What a downstream score is of: a teacher, or a student and how it was trained."""

    row_kind: str
    """teacher, distilled, supervised or untrained."""
    teacher: str = ""
    student: str = ""
    loss: str = ""
    n_clusters: int = 0
    seed: int = 0

    @property
    def path(self) -> str:
        """The part of a path that names it; `parse` reads it back."""
        match self.row_kind:
            case "teacher":
                return f"teacher/{self.teacher}"
            case "distilled":
                return f"distilled/{self.teacher}/{self.student}/{self.loss}/k{self.n_clusters}/seed{self.seed}"
            case _:
                return f"{self.row_kind}/{self.student}/seed{self.seed}"

    @classmethod
    def parse(cls, path: str) -> Self:
        """The model that `path` names.

        Raises:
            ValueError: if it names none.
        """
        match path.split("/"):
            case ["teacher", teacher]:
                return cls("teacher", teacher=teacher)
            case ["distilled", teacher, student, loss, clusters, seed]:
                return cls("distilled", teacher, student, loss, int(clusters[1:]), int(seed[4:]))
            case [("supervised" | "untrained") as row_kind, student, seed]:
                return cls(row_kind, student=student, seed=int(seed[4:]))
        raise ValueError(f"{path} names no model")


class Paths:
    """Every path of the workflow, with Snakemake's wildcards in braces."""

    def __init__(self, data: str, results: str) -> None:
        self.data, self.results = data, results
        self.corpus = f"{data}/corpus"
        self.listed = f"{data}/listed"
        self.index = f"{data}/index"
        self.segments = f"{data}/index/{{split}}-{{shard}}.csv"
        self.classes = f"{data}/index/classes.csv"
        self.located_folder = f"{data}/located"
        self.located = f"{data}/located/{{split}}-{{shard}}.csv"
        self.fetched = f"{data}/fetched/{{split}}-{{shard}}.h5"
        self.audio = f"{data}/audio/{{split}}-{{shard}}.h5"
        self.availability = f"{data}/availability"
        self.inventory = f"{data}/{{stage}}/{{split}}.json"
        self.audio_inventory = f"{data}/audio/{{split}}.json"
        self.checkpoint = f"{data}/checkpoints/{{checkpoint}}/{{file}}"
        self.embeddings = f"{data}/embeddings/{{teacher}}/{{split}}-{{shard}}.h5"
        self.embedding_inventory = f"{data}/embeddings/{{teacher}}/{{split}}.json"
        self.archives = f"{data}/archives/{{task}}"
        self.archive = f"{self.archives}/{{file}}"
        self.task = f"{data}/tasks/{{task}}.h5"
        self.clusters_folder = f"{results}/clusters/{{teacher}}/k{{n_clusters}}"
        self.clusters = f"{self.clusters_folder}/clusters.h5"
        self.student_folder = f"{results}/students/{{model}}"
        self.student = f"{self.student_folder}/student.ckpt"
        self.distilled = self.student_of("distilled/{teacher}/{student}/{loss}/k{n_clusters}/seed{seed}")
        self.supervised = self.student_of("supervised/{student}/seed{seed}")
        self.untrained = self.student_of("untrained/{student}/seed{seed}")
        self.task_embeddings = f"{results}/embeddings/{{model}}/{{task}}.h5"
        self.scores = f"{results}/probes/{{model}}/{{task}}.json"
        self.benchmarks = f"{results}/benchmarks"

    def student_of(self, model: str) -> str:
        """The folder of a student, without a file."""
        return self.student_folder.format(model=model)

    def table(self, name: str) -> str:
        """A table or figure: `{name}.md` and the like; without a suffix here."""
        return f"{self.results}/{name}"

    def log(self, name: str) -> str:
        """Where a rule's log goes."""
        return f"{self.results}/logs/{name}.log"

    def benchmark(self, name: str) -> str:
        """Where Snakemake writes a rule's run time."""
        return f"{self.benchmarks}/{name}.tsv"
