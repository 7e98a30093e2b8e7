"""The typed configuration: what may stand in config.yaml, and what each key means.

A section stands in the module of its stage, which has the name of the stage's file in rules/ and
in ssondo/workflow/rules/; here they are put together, with the paper's values. The sentences below the keys
are the reference: `python -m ssondo.config --write` makes config.yaml and docs/config.md of them,
and a test fails if either drifts. Only the Snakefile, the plan and what the command `ssondo plan`
runs import this package; library functions take their own arguments.
"""

from collections.abc import Mapping

from pydantic import model_validator

from ssondo.audio.log_mel_settings import STUDENT
from ssondo.config.audioset import AudioSet
from ssondo.config.base import Name, Section
from ssondo.config.cluster import Cluster
from ssondo.config.distill import Distill, Supervise
from ssondo.config.losses import needs_clusters
from ssondo.config.probe import Probe
from ssondo.config.report import TABLE1_COLUMNS, Fig2, Table1, Table2
from ssondo.config.runtime import Paths, Runtime
from ssondo.config.students import Student
from ssondo.config.tasks import Task
from ssondo.config.teachers import Checkpoint, Embed, Teacher
from ssondo.provenance import registered
from ssondo.registry import did_you_mean

_EFFICIENTAT = "https://github.com/fschmid56/EfficientAT/releases/download/v0.0.1"


class Config(Section):
    """S-SONDO's experiment; the defaults are the paper's."""

    name: Name = "paper"
    """Results stand in a folder of this name."""
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
    """Teachers by name."""
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
    """Students by name."""
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
    """Downstream data sets by name."""
    probe: Probe = Probe()
    table1: Table1 = Table1()
    table2: Table2 | None = Table2()
    """null leaves it out of `all`."""
    fig2: Fig2 | None = Fig2()
    """null leaves it out of `all`."""

    @model_validator(mode="after")
    def _makes_sense(self) -> "Config":
        def check(key: str, names: list[str], known: Mapping[str, object]) -> None:
            for name in names:
                if name not in known:
                    raise ValueError(f"{key}: {name!r} is not one of {', '.join(known)}{did_you_mean(name, known)}")

        check("table1.teachers", self.table1.teachers, self.teachers)
        check("table1.students", self.table1.students, self.students)
        check("table1.tasks", self.table1.tasks, self.tasks)
        for name in self.table1.tasks:
            if name in TABLE1_COLUMNS:
                raise ValueError(f"tasks.{name}: Table 1 has a column of that name already; give the task another")
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
            raise ValueError("audioset.segments.train: is empty; name AudioSet's segment lists")
        # A row, column or seed that stands twice would count twice in averages and intervals.
        for key in ("table1", "table2", "fig2", "probe"):
            for field, entries in getattr(self, key) or ():
                if isinstance(entries, list) and (twice := [e for n, e in enumerate(entries) if e in entries[:n]]):
                    raise ValueError(f"{key}.{field}: {twice[0]!r} stands there twice; once is enough")
        if self.table2 is not None and set(self.table2.music) & set(self.table2.environment):
            raise ValueError("table2: a task stands in music and in environment")
        for key, loss, counts in self._distillations():
            if 1 in counts:
                raise ValueError(f"{key}.n_clusters: 1 is not allowed; it should be 0, for no clusters, or 2 and more")
            if needs_clusters(loss) and 0 in counts:
                raise ValueError(f"{key}: the loss {loss} needs clusters, n_clusters is 0")
        architectures = registered("ssondo.students", "ARCHITECTURES")
        for name, student in self.students.items():
            if ":" not in student.architecture:
                check(f"students.{name}.architecture", [student.architecture], architectures)
        if self.audioset.sample_rate != STUDENT.sample_rate:
            raise ValueError(
                f"audioset.sample_rate: is {self.audioset.sample_rate}, the students take {STUDENT.sample_rate}; "
                "set it to that (audioset.bandlimit_rate: 16000 gives the bandwidth that the published pipeline kept)"
            )
        if not self.audioset.segments.eval and self.audioset.segments.train:
            raise ValueError("audioset.segments.eval: is empty; students are judged on these clips")
        self._check_batches()
        if why_not := self._no_labels():
            if self.distill.prediction_weight:
                raise ValueError(f"distill.prediction_weight: needs {why_not}; this corpus has no labels")
            if self._is_supervised():
                raise ValueError(f"table1.baselines: supervised needs {why_not}; this corpus has no labels")
        return self

    def _check_batches(self) -> None:
        """Refuse batches that the processes of a training cannot share: it comes last."""
        processes = max(1, self.runtime.gpus) * self.runtime.nodes
        trainings = {"distill": self.distill} | ({"supervise": self.supervise} if self._is_supervised() else {})
        for key, training in trainings.items():
            if training.batch_size % processes:
                raise ValueError(
                    f"{key}.batch_size: {training.batch_size} clips cannot be shared evenly by the {processes} "
                    "processes of runtime.gpus and runtime.nodes; make it a multiple"
                )

    def _is_supervised(self) -> bool:
        return "supervised" in self.table1.baselines

    def _no_labels(self) -> str | None:
        """The key that clips' labels lack; None if they have labels."""
        segments = self.audioset.segments
        if self.audioset.source.kind == "folder" and not segments.train:
            return "audioset.segments.train"
        return None if segments.classes else "audioset.segments.classes"

    def _distillations(self) -> list[tuple[str, str, list[int]]]:
        """Where in the config students are distilled: key, loss, numbers of clusters."""
        found = [("table1", self.table1.loss, [self.table1.n_clusters])]
        if self.table2 is not None:
            found += [("table2", loss, [self.table2.n_clusters]) for loss in self.table2.losses]
        if self.fig2 is not None:
            found.append(("fig2", self.fig2.loss, self.fig2.n_clusters))
        return [(key, str(loss), counts) for key, loss, counts in found]
