"""The typed configuration: the keys of config.yaml, their types, defaults and descriptions.

Each section is defined in the module of its stage, which has the name of the stage's file in rules/ and
ssondo/workflow/rules/; this module combines them with the paper's values. The docstrings of the keys are the reference
from which `python -m ssondo.config --write` generates config.yaml and docs/config.md; a test fails if either is out of
date. Only the Snakefile and the package `workflow` import this package; other functions take their own arguments.
"""

from collections.abc import Mapping

from pydantic import model_validator

from ssondo.audio.log_mel_settings import STUDENT
from ssondo.config.audioset import AudioSet
from ssondo.config.base import Name, Section
from ssondo.config.cluster import Cluster
from ssondo.config.distill import Distill, Supervise
from ssondo.config.probe import Probe
from ssondo.config.report import TABLE1_COLUMNS, Fig2, Table1, Table2
from ssondo.config.runtime import Paths, Runtime
from ssondo.config.signatures import needs_clusters
from ssondo.config.students import Student
from ssondo.config.tasks import Task
from ssondo.config.teachers import Checkpoint, Embed, Teacher
from ssondo.provenance import registered
from ssondo.system.registry import did_you_mean

_EFFICIENTAT = "https://github.com/fschmid56/EfficientAT/releases/download/v0.0.1"


class Config(Section):
    """One experiment; the defaults are those of the paper."""

    name: Name = "paper"
    """Name of the experiment; its results are in the folder of this name in `paths.results`."""
    paths: Paths = Paths()
    audioset: AudioSet = AudioSet()
    teachers: dict[Name, Teacher] = {
        "matpac": Teacher(
            kind="matpac",
            checkpoint=Checkpoint(
                url="https://github.com/aurianworld/matpac/releases/download/MATPAC%2B%2B/matpac_plus_6s_2048_enconly.pt",
                licence="see the repository aurianworld/matpac",
            ),
        ),
        "m2d": Teacher(
            kind="m2d",
            checkpoint=Checkpoint(
                url="https://github.com/nttcslab/m2d/releases/download/v0.1.0/m2d_vit_base-80x608p16x16-221006-mr7_enconly.zip",
                licence="NTT's own licence, evaluation and research only, nttcslab/m2d",
            ),
        ),
    }
    """Teachers by name. A name is part of paths and is what tables refer to."""
    embed: Embed = Embed()
    cluster: Cluster = Cluster()
    students: dict[Name, Student] = {
        "mobilenetv3": Student(
            architecture="mobilenetv3",
            pretrained=Checkpoint(url=f"{_EFFICIENTAT}/mn10_im.pt", licence="MIT, fschmid56/EfficientAT"),
        ),
        "dymn": Student(
            architecture="dymn",
            pretrained=Checkpoint(url=f"{_EFFICIENTAT}/dymn10_im.pt", licence="MIT, fschmid56/EfficientAT"),
        ),
        "eres2net": Student(architecture="eres2net"),
    }
    """Students by name. A name is part of paths and is what tables refer to."""
    distill: Distill = Distill()
    supervise: Supervise = Supervise()
    runtime: Runtime = Runtime()
    tasks: dict[Name, Task] = {
        "openmic": Task(kind="openmic"),
        "nsynth": Task(kind="nsynth"),
        "gtzan": Task(kind="gtzan"),
        "mtt": Task(kind="magnatagatune"),
        "fsd50k": Task(kind="fsd50k"),
        "esc50": Task(kind="esc50"),
        "us8k": Task(kind="urbansound8k"),
    }
    """Downstream tasks by name. A name is part of paths and is what tables refer to."""
    probe: Probe = Probe()
    table1: Table1 = Table1()
    table2: Table2 | None = Table2()
    """Table 2. With null it is not made."""
    fig2: Fig2 | None = Fig2()
    """Figure 2. With null it is not made."""

    @model_validator(mode="after")
    def _check_consistency(self) -> "Config":
        def check(key: str, names: list[str], choices: Mapping[str, object]) -> None:
            for name in names:
                if name not in choices:
                    raise ValueError(f"{key}: {name!r} is not one of {', '.join(choices)}{did_you_mean(name, choices)}")

        check("table1.teachers", self.table1.teachers, self.teachers)
        check("table1.students", self.table1.students, self.students)
        check("table1.tasks", self.table1.tasks, self.tasks)
        for name in self.table1.tasks:
            if name in TABLE1_COLUMNS:
                raise ValueError(f"tasks.{name}: Table 1 already has a column of this name; rename the task")
        for key, table in (("table2", self.table2), ("fig2", self.fig2)):
            if table is not None:
                check(f"{key}.teacher", [table.teacher], self.teachers)
                check(f"{key}.student", [table.student], self.students)
        if self.table2 is not None:
            check("table2.music", self.table2.music, self.tasks)
            check("table2.environment", self.table2.environment, self.tasks)
        if self.fig2 is not None:
            check("fig2.tasks", self.fig2.tasks, self.tasks)
        lists_itself = self.audioset.source.kind in ("folder", "renderer")
        if not self.audioset.segments.train and not lists_itself:
            raise ValueError(
                "audioset.segments.train: the list is empty; give the paths or URLs of AudioSet's segment lists"
            )
        # A row, column or seed that is listed twice would count twice in averages and intervals.
        for key in ("table1", "table2", "fig2", "probe"):
            for field, entries in getattr(self, key) or ():
                if isinstance(entries, list) and (repeated := [e for n, e in enumerate(entries) if e in entries[:n]]):
                    raise ValueError(f"{key}.{field}: {repeated[0]!r} is listed more than once; list it once")
        if self.table2 is not None and set(self.table2.music) & set(self.table2.environment):
            raise ValueError("table2: a task is listed in both music and environment; list it in one of them")
        for key, loss, counts in self._distillations():
            if 1 in counts:
                raise ValueError(f"{key}.n_clusters: 1 is not allowed; it should be 0, for no clusters, or at least 2")
            if needs_clusters(loss) and 0 in counts:
                raise ValueError(f"{key}: the loss {loss} needs clusters, but n_clusters is 0; set it to at least 2")
        architectures = registered("ssondo.students", "ARCHITECTURES")
        for name, student in self.students.items():
            if ":" not in student.architecture:
                check(f"students.{name}.architecture", [student.architecture], architectures)
        if self.audioset.sample_rate != STUDENT.sample_rate:
            raise ValueError(
                f"audioset.sample_rate: {self.audioset.sample_rate} is not allowed; the students require "
                f"{STUDENT.sample_rate} (to keep only the bandwidth of the published pipeline, set "
                "audioset.bandlimit_rate: 16000)"
            )
        if not self.audioset.segments.eval and self.audioset.segments.train:
            raise ValueError("audioset.segments.eval: the list is empty; students are evaluated on these clips")
        self._check_batches()
        if missing_key := self._missing_key_of_labels():
            if self.distill.prediction_weight:
                raise ValueError(f"distill.prediction_weight: needs labels; set {missing_key}")
            if self._is_supervised():
                raise ValueError(f"table1.baselines: supervised needs labels; set {missing_key}, or remove supervised")
        return self

    def _check_batches(self) -> None:
        """Raise ValueError if the processes of a training cannot share its batches evenly."""
        processes = max(1, self.runtime.gpus) * self.runtime.nodes
        trainings = {"distill": self.distill} | ({"supervise": self.supervise} if self._is_supervised() else {})
        for key, training in trainings.items():
            if training.batch_size % processes:
                raise ValueError(
                    f"{key}.batch_size: {training.batch_size} clips cannot be shared evenly by the {processes} "
                    f"processes of runtime.gpus and runtime.nodes; set it to a multiple of {processes}"
                )

    def _is_supervised(self) -> bool:
        return "supervised" in self.table1.baselines

    def _missing_key_of_labels(self) -> str | None:
        """The key without which the training clips have no labels; None if they have labels."""
        segments = self.audioset.segments
        if self.audioset.source.kind == "folder" and not segments.train:
            return "audioset.segments.train"
        return None if segments.classes else "audioset.segments.classes"

    def _distillations(self) -> list[tuple[str, str, list[int]]]:
        """The sections that distil students: key, loss, numbers of clusters."""
        distillations = [("table1", self.table1.loss, [self.table1.n_clusters])]
        if self.table2 is not None:
            distillations += [("table2", loss, [self.table2.n_clusters]) for loss in self.table2.losses]
        if self.fig2 is not None:
            distillations.append(("fig2", self.fig2.loss, self.fig2.n_clusters))
        return [(key, str(loss), counts) for key, loss, counts in distillations]
