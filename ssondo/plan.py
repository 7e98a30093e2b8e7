"""What the workflow makes: targets, and each rule's inputs, settings and code.

The rules ask a `Plan` for strings and hold no logic of their own. Nothing here reads results;
a plan depends on the configuration, the project's code and the user's own input files alone.
"""

import json
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ssondo.artefacts import content_digest
from ssondo.check import source_of
from ssondo.cli import VERBS
from ssondo.config import Config
from ssondo.config.audioset import FolderSource, LocalSource, RendererSource, YoutubeSource
from ssondo.config.teacher import Checkpoint
from ssondo.ledger import reopened_path
from ssondo.paths import Model, Paths
from ssondo.provenance import code_hash, registered
from ssondo.tasks import remotes
from ssondo.tasks.task import Remote
from ssondo.watch import Watch

_SHARD_DIGITS = 4
# Settings of a source that change no clip, and those that are other rules'.
_MANNER = set(YoutubeSource.model_fields) - {"kind", "url_template"}
_NOT_FOR_FETCH = {"watch", "n_train", "n_eval", "pattern", "eval_share"}
_TABLES = ("table1", "table2", "fig2")
RULE_GRAPH: Mapping[str, tuple[str, ...]] = {
    "index": ("compose", "list_folder"),
    "locate": ("index",),
    "fetch": ("index", "locate"),
    "resample": ("fetch",),
    "embed": ("resample", "checkpoint"),
    "inventory": ("resample", "embed"),
    "cluster": ("embed", "inventory"),
    "distill": ("resample", "embed", "inventory", "cluster", "checkpoint"),
    "supervise": ("resample", "inventory", "index", "checkpoint"),
    "initialise": ("resample", "inventory"),
    "prepare_task": ("download",),
    "embed_task": ("prepare_task", "distill", "supervise", "initialise", "checkpoint"),
    "probe": ("embed_task",),
    "scores": ("probe",),
    "table1": ("probe",),
    "table2": ("probe",),
    "fig2": ("probe",),
    "report": ("table1", "table2", "fig2", "probe", "cluster", "distill", "supervise", "inventory"),
}
"""Each rule and the rules whose files it reads, for the pictures."""


def flags(**values: Any) -> str:
    """Settings as command-line options: `--key value`, quoted for the shell, in the given order.

    None and empty lists are left out, a mapping becomes JSON.
    """
    words: list[str] = []
    for key, value in values.items():
        name = "--" + key.replace("_", "-")
        if value is None or value in ([], ()):
            continue
        if isinstance(value, bool):
            words.append(name if value else f"--no-{name[2:]}")
        elif isinstance(value, Mapping):
            words += [name, json.dumps(value, sort_keys=True)]
        elif isinstance(value, list | tuple):
            words += [name, *map(str, value)]
        else:
            words += [name, str(value)]
    return shlex.join(words)


class Plan:
    """The workflow of one configuration.

    Args:
        config: checked configuration.
        watch: knows the content of the user's own input files.
    """

    def __init__(self, config: Config, watch: Watch) -> None:
        self.config = config
        self.paths = Paths(config.paths.data, f"{config.paths.results}/{config.name}")
        self._watch = watch

    # What there is

    def shards(self, split: str) -> list[str]:
        """The shard names of a split, "0000" and on."""
        audioset = self.config.audioset
        n = audioset.n_train_shards if split == "train" else audioset.n_eval_shards
        return [f"{i:0{_SHARD_DIGITS}d}" for i in range(n)]

    def shard_paths(self, stage: str, split: str) -> list[str]:
        """Every shard of a stage ("audio", "embeddings/matpac") and split."""
        return [f"{self.paths.data}/{stage}/{split}-{shard}.h5" for shard in self.shards(split)]

    @property
    def renders(self) -> bool:
        """Whether the corpus is rendered rather than fetched."""
        return isinstance(self.config.audioset.source, RendererSource)

    @property
    def lists_folder(self) -> bool:
        """Whether every file of a folder is a clip, so that there is no segment list."""
        audioset = self.config.audioset
        return isinstance(audioset.source, FolderSource) and not audioset.segments.train

    @cached_property
    def locates(self) -> bool:
        """Whether the lab's copy of the clips is searched once for all shards.

        A small folder is not: each job then searches it, and a new file runs its own shard alone.
        """
        source = self.config.audioset.source
        is_small = isinstance(source, FolderSource) and source.watch and bool(self._watch.tree(source.path))
        return isinstance(source, LocalSource) and not is_small

    def checkpoints(self) -> dict[str, Checkpoint]:
        """Checkpoints by name, of teachers and of students' initial weights."""
        found = {f"teacher-{name}": teacher.checkpoint for name, teacher in self.config.teachers.items()}
        found |= {f"student-{name}": student.init for name, student in self.config.students.items()}
        return {name: checkpoint for name, checkpoint in found.items() if checkpoint is not None}

    def checkpoint(self, name: str) -> list[str]:
        """The file of a checkpoint; empty if the model has none."""
        found = self.checkpoints().get(name)
        return [self.paths.checkpoint.format(checkpoint=name, file=found.file)] if found else []

    # Targets

    def table1_models(self) -> list[Model]:
        """Rows of Table 1."""
        table = self.config.table1
        return [
            *(Model("teacher", teacher) for teacher in table.teachers),
            *(
                Model(row_kind, student=student, seed=seed)
                for row_kind in table.baselines
                for student in table.students
                for seed in table.seeds
            ),
            *(
                Model("distilled", teacher, student, table.loss, table.n_clusters, seed)
                for teacher in table.teachers
                for student in table.students
                for seed in table.seeds
            ),
        ]

    def table2_models(self) -> list[Model]:
        """Rows of Table 2."""
        table = self.config.table2
        if table is None:
            return []
        return [
            Model("distilled", table.teacher, table.student, loss, table.n_clusters, seed)
            for loss in table.losses
            for seed in table.seeds
        ]

    def fig2_models(self) -> list[Model]:
        """Points of Fig. 2."""
        figure = self.config.fig2
        if figure is None:
            return []
        return [
            Model("distilled", figure.teacher, figure.student, figure.loss, n_clusters, seed)
            for n_clusters in figure.n_clusters
            for seed in figure.seeds
        ]

    def scores(self, models: Iterable[Model], tasks: Iterable[str]) -> list[str]:
        """The score files of `models` on `tasks`."""
        return [self.paths.scores.format(model=model.path, task=task) for model in models for task in tasks]

    def table_scores(self, name: str) -> list[str]:
        """The score files that a table or figure needs."""
        config = self.config
        match name:
            case "table1":
                return self.scores(self.table1_models(), config.table1.tasks)
            case "table2" if config.table2:
                return self.scores(self.table2_models(), [*config.table2.music, *config.table2.environment])
            case "fig2" if config.fig2:
                return self.scores(self.fig2_models(), config.fig2.tasks)
        return []

    @cached_property
    def tables(self) -> list[str]:
        """The tables and figures that this configuration has."""
        return [name for name in _TABLES if getattr(self.config, name) is not None]

    def all_scores(self) -> list[str]:
        """Every score file, each once."""
        return list(dict.fromkeys(path for name in self.tables for path in self.table_scores(name)))

    def models(self) -> list[Model]:
        """Every model, each once."""
        return list(dict.fromkeys([*self.table1_models(), *self.table2_models(), *self.fig2_models()]))

    def histories(self) -> list[str]:
        """The training histories."""
        trained = [model for model in self.models() if model.row_kind in ("distilled", "supervised")]
        return [f"{self.paths.student_of(model.path)}/history.csv" for model in trained]

    def cluster_metrics(self) -> list[str]:
        """The metrics of every clustering."""
        return [
            f"{self.paths.clusters_folder.format(teacher=teacher, n_clusters=n)}/metrics.json"
            for teacher, n in self.clusterings()
        ]

    def inventories(self) -> list[str]:
        """How many clips of the corpus there are."""
        return [self.paths.audio_inventory.format(split=split) for split in ("train", "eval")]

    def clusterings(self) -> list[tuple[str, int]]:
        """The (teacher, number of clusters) that distillation needs, each once."""
        distilled = [model for model in self.models() if model.row_kind == "distilled" and model.n_clusters]
        return list(dict.fromkeys((model.teacher, model.n_clusters) for model in distilled))

    def all_fetched(self) -> list[str]:
        """Every fetched shard."""
        return [path for split in ("train", "eval") for path in self.shard_paths("fetched", split)]

    def all_shards(self) -> list[str]:
        """Every shard that `all` keeps in place, so that one that was deleted is made again."""
        teachers = list(dict.fromkeys(m.teacher for m in self.models() if m.row_kind == "distilled"))
        found = []
        for split in ("train", "eval"):
            for shard in self.shards(split):
                for pattern in (self.paths.fetched, self.paths.audio):
                    found.append(pattern.format(split=split, shard=shard))
                for teacher in teachers:
                    found.append(self.paths.embeddings.format(teacher=teacher, split=split, shard=shard))
        return found

    # What a rule is given

    def model_inputs(self, model: str) -> dict[str, list[str]]:
        """The files that embedding a task with `model` reads, by name."""
        parsed = Model.parse(model)
        if parsed.row_kind == "teacher":
            checkpoint = self.checkpoint(f"teacher-{parsed.teacher}")
            return {"checkpoint": checkpoint, "student": []}
        return {"checkpoint": [], "student": [self.paths.student.format(model=model)]}

    def label_inputs(self) -> dict[str, list[str]]:
        """What distillation needs to learn from labels as well; empty where it does not."""
        if not self.config.distill.prediction_weight:
            return {"segments": [], "classes": []}
        shards = self.shards("train")
        segments = [self.paths.segments.format(split="train", shard=shard) for shard in shards]
        return {"segments": segments, "classes": [self.paths.classes]}

    def measured_audio(self) -> list[str]:
        """The clips that an untrained student's batch norms are measured on, if they are."""
        return self.shard_paths("audio", "train") if self.config.supervise.reestimate_batches else []

    def cluster_inputs(self, teacher: str, n_clusters: str | int) -> list[str]:
        """The clusters that distillation draws by; none for 0 clusters."""
        if not int(n_clusters):
            return []
        return [self.paths.clusters.format(teacher=teacher, n_clusters=n_clusters)]

    def options(self, rule: str, **wildcards: str) -> str:
        """The settings of a rule as command-line options: its own slice of the configuration."""
        slices: Mapping[str, Any] = getattr(self, f"_{rule}")(**wildcards)
        return flags(**slices)

    def _compose(self) -> dict[str, Any]:
        source = self.config.audioset.source
        assert isinstance(source, RendererSource)
        clip_s = self.config.audioset.clip_s
        return {"n_train": source.n_train, "n_eval": source.n_eval, "clip_s": clip_s, "seed": source.seed}

    def _list_folder(self) -> dict[str, Any]:
        source = self.config.audioset.source
        assert isinstance(source, FolderSource)
        return {
            "folder": source.path,
            "pattern": source.pattern,
            "eval_share": source.eval_share,
            "clip_s": self.config.audioset.clip_s,
        }

    def corpus_lists(self) -> list[str]:
        """The segment lists that the workflow itself writes: of a rendered corpus or of a folder's files."""
        if self.renders:
            return [f"{self.paths.corpus}/{name}.csv" for name in ("train", "eval", "classes")]
        return [f"{self.paths.listed}/{name}.csv" for name in ("train", "eval") if self.lists_folder]

    def index_inputs(self) -> dict[str, list[str]]:
        """The segment lists: local files, URLs, or what the workflow writes."""
        made = self.corpus_lists()
        if made:
            return {"train": made[:1], "eval": made[1:2], "classes": made[2:] or [""]}
        segments = self.config.audioset.segments
        return {"train": segments.train, "eval": segments.eval, "classes": [segments.classes]}

    def _index(self) -> dict[str, Any]:
        lists = self.index_inputs()
        audioset = self.config.audioset
        return {
            "train": lists["train"],
            "eval": lists["eval"],
            "classes": lists["classes"][0],
            "n_train_shards": audioset.n_train_shards,
            "n_eval_shards": audioset.n_eval_shards,
            "manifest": audioset.manifest,
        }

    def _fetch(self, split: str, shard: str) -> dict[str, Any]:
        audioset = self.config.audioset
        source = self.source_spec()
        source["clip_s"] = audioset.clip_s
        return {"source": source}

    def source_spec(self) -> dict[str, Any]:
        """What the library needs to make the source of clips."""
        return self.config.audioset.source.model_dump(exclude={*_NOT_FOR_FETCH, *_MANNER}, exclude_none=True)

    def _locate(self) -> dict[str, Any]:
        audioset = self.config.audioset
        return {
            "index": self.paths.index,
            "source": self.source_spec(),
            "n_train_shards": audioset.n_train_shards,
            "n_eval_shards": audioset.n_eval_shards,
        }

    def fetch_manner(self) -> str:
        """How politely and as whom clips are fetched, as options: it changes no clip, so it is no provenance."""
        manner = self.config.audioset.source.model_dump(include=_MANNER, exclude_none=True)
        return flags(manner=manner or None, max_failed_share=self.config.audioset.max_failed_share)

    def _resample(self, split: str, shard: str) -> dict[str, Any]:
        audioset = self.config.audioset
        return {
            "sample_rate": audioset.sample_rate,
            "through_rate": audioset.through_rate,
            "clip_s": audioset.clip_s,
            "codec": audioset.codec,
        }

    def _inventory(self, stage: str, split: str) -> dict[str, Any]:
        manifest = self.config.audioset.manifest
        return {"manifest": manifest, "split": split} if manifest else {}

    def _availability(self) -> dict[str, Any]:
        audioset = self.config.audioset
        return {
            "index": self.paths.index,
            "audio": f"{self.paths.data}/audio",
            "n_train_shards": audioset.n_train_shards,
            "n_eval_shards": audioset.n_eval_shards,
        }

    def _checkpoint(self, checkpoint: str, file: str) -> dict[str, Any]:
        found = self.checkpoints()[checkpoint]
        values = found.model_dump()
        section, _, name = checkpoint.partition("-")
        key = f"teachers.{name}.checkpoint" if section == "teacher" else f"students.{name}.init"
        return {**values, "config_key": key}

    def teacher_spec(self, teacher: str) -> dict[str, Any]:
        """What the library needs to build a teacher."""
        return self.config.teachers[teacher].model_dump(exclude={"checkpoint"}, exclude_none=True)

    def _embed(self, teacher: str, split: str, shard: str) -> dict[str, Any]:
        settings = self.config.embed
        return {"teacher": self.teacher_spec(teacher), "dtype": settings.dtype}

    def _cluster(self, teacher: str, n_clusters: str) -> dict[str, Any]:
        return {"n_clusters": int(n_clusters), **self.config.cluster.model_dump()}

    def student_spec(self, student: str) -> dict[str, Any]:
        """What the library needs to build a student."""
        found = self.config.students[student]
        return {"architecture": found.architecture, "window_s": found.window_s, **found.settings}

    def _distill(self, teacher: str, student: str, loss: str, n_clusters: str, seed: str) -> dict[str, Any]:
        return {
            "student": self.student_spec(student),
            "loss": loss,
            "n_clusters": int(n_clusters),
            "seed": int(seed),
            **self.config.distill.model_dump(),
        }

    def _supervise(self, student: str, seed: str) -> dict[str, Any]:
        return {"student": self.student_spec(student), "seed": int(seed), **self.config.supervise.model_dump()}

    def training_machine(self) -> str:
        """How training uses the machine, as options; it is no provenance."""
        runtime = self.config.runtime
        return flags(
            num_workers=runtime.num_workers,
            cache_mb=runtime.cache_mb,
            checkpoint_minutes=runtime.checkpoint_minutes,
            compile=runtime.compile,
        )

    def training_nodes(self) -> dict[str, int | str]:
        """Where training runs, as resources that SLURM and `ssondo.launch` read."""
        gpus, nodes = self.config.runtime.gpus, self.config.runtime.nodes
        if nodes == 1:
            return {"gpu": gpus, "nodes": 1, "gres": ""}
        # Of `gpu`, the number in the whole job, SLURM may give one node more than another.
        on_each = f"gpu:{gpus}" if gpus else ""
        return {"gpu": 0, "nodes": nodes, "gres": on_each, "mpi": "srun", "tasks": nodes, "tasks_per_gpu": 0}

    def _initialise(self, student: str, seed: str) -> dict[str, Any]:
        training = self.config.supervise
        measured = {"reestimate_batches": training.reestimate_batches, "batch_size": training.batch_size}
        return {
            "student": self.student_spec(student),
            "seed": int(seed),
            **(measured if training.reestimate_batches else {}),
        }

    def _remotes(self, task: str) -> dict[str, Remote]:
        """The files that a task is downloaded as; none where there is a local copy or nothing to download."""
        found = self.config.tasks[task]
        if found.path is not None:
            return {}
        official = remotes(found.kind)[0]
        if found.mirror is None:
            return official
        return {name: replace(it, url=f"{found.mirror.rstrip('/')}/{name}") for name, it in official.items()}

    def archives(self, task: str) -> list[str]:
        """The downloaded files that a task is prepared from; none where there is a local copy."""
        return [self.paths.archive.format(task=task, file=name) for name in self._remotes(task)]

    def _download(self, task: str, file: str) -> dict[str, Any]:
        return {"url": self._remotes(task)[file].url}

    def published(self, task: str, file: str) -> str:
        """What is known of an archive, as options: it only checks, so it is no provenance."""
        found, remote = self.config.tasks[task], self._remotes(task)[file]
        known = {"md5": remote.md5, "size": remote.size} if found.verify else {}
        return flags(**known, licence=remotes(found.kind)[1], config_key=f"tasks.{task}.path")

    def _prepare_task(self, task: str) -> dict[str, Any]:
        return {"task": task, "spec": self.task_spec(task), "seed": self.config.tasks[task].seed}

    def task_spec(self, task: str) -> dict[str, Any]:
        """What the library needs to read a task."""
        found = self.config.tasks[task]
        folder = self.paths.archives.format(task=task) if self._remotes(task) else found.path
        path = {} if folder is None else {"path": folder}
        return {"kind": found.kind, **path, **found.options}

    def _embed_task(self, model: str, task: str) -> dict[str, Any]:
        parsed = Model.parse(model)
        teacher = self.teacher_spec(parsed.teacher) if parsed.row_kind == "teacher" else None
        architecture = self.config.students[parsed.student].architecture if parsed.student else ""
        return {"teacher": teacher, "architecture": architecture if ":" in architecture else None}

    def _probe(self, model: str, task: str) -> dict[str, Any]:
        return {"model": Model.parse(model).__dict__, **self.config.probe.model_dump()}

    def _table1(self) -> dict[str, Any]:
        table = self.config.table1
        return {"teachers": table.teachers, "students": table.students, "tasks": table.tasks}

    def _table2(self) -> dict[str, Any]:
        table = self.config.table2
        assert table is not None
        return {"losses": table.losses, "music": table.music, "environment": table.environment}

    def _fig2(self) -> dict[str, Any]:
        figure = self.config.fig2
        assert figure is not None
        return {"tasks": figure.tasks}

    def rule_graph(self) -> dict[str, list[str]]:
        """The rules of this configuration, and for each the rules whose files it reads."""
        lists_made_by = "compose" if self.renders else "list_folder" if self.lists_folder else None
        located_by = "locate" if self.locates else None
        downloads = "download" if any(self._remotes(task) for task in self.config.tasks) else None
        used = {lists_made_by, located_by, downloads, *self.tables}
        absent = {"compose", "list_folder", "locate", "download", *_TABLES} - used
        return {
            rule: [source for source in sources if source not in absent]
            for rule, sources in RULE_GRAPH.items()
            if rule not in absent
        }

    def _report(self) -> dict[str, Any]:
        return {
            "title": f"S-SONDO: {self.config.name}",
            **{name: f"{self.paths.table(name)}.csv" for name in self.tables if name != "table1"},
            "clusters": self.cluster_metrics(),
            "histories": self.histories(),
            "inventories": self.inventories(),
            "benchmarks": self.paths.benchmarks,
            "rulegraph": self.rule_graph(),
            # How the machine is used is no provenance, and must not make the page again.
            "config": self.config.model_dump(mode="json", exclude={"runtime"}),
        }

    def code(self, rule: str, **wildcards: str) -> str:
        """A hash of the code that a rule runs, registries resolved by its wildcards."""
        return code_hash(*self.code_modules(rule, **wildcards))

    def code_modules(self, rule: str, **wildcards: str) -> list[str]:
        """The modules that a rule's command starts from."""
        modules = [VERBS[rule].partition(":")[0]]
        if rule in ("fetch", "locate"):
            modules.append(f"ssondo.sources.{self.config.audioset.source.kind}")
        model = (
            Model.parse(wildcards["model"])
            if "model" in wildcards
            else Model("", wildcards.get("teacher", ""), wildcards.get("student", ""))
        )
        if model.student and rule != "probe":
            architecture = self.config.students[model.student].architecture
            known = registered("ssondo.students", "ARCHITECTURES")
            modules += [known[architecture]] if architecture in known else []
        elif model.teacher and rule in ("embed", "embed_task"):
            modules.append(registered("ssondo.teachers", "KINDS")[self.config.teachers[model.teacher].kind])
        if rule == "prepare_task":
            modules.append(registered("ssondo.tasks", "READERS")[self.config.tasks[wildcards["task"]].kind])
        return modules

    # The user's own input files

    def _own_code(self, wildcards: Mapping[str, str]) -> list[str]:
        """The file of a user's own teacher function or student class, if that is what runs."""
        model = Model.parse(wildcards["model"]) if "model" in wildcards else None
        student = model.student if model else wildcards.get("student", "")
        if student:
            dotted: str | None = self.config.students[student].architecture
        else:
            dotted = self.config.teachers[model.teacher if model else wildcards["teacher"]].callable
        source = source_of(dotted) if dotted and ":" in dotted else None
        return [source] if source else []

    def _task_files(self, task: str) -> dict[str, str]:
        """The files of a task; for a table, the table and the folder of the sound that it lists."""
        spec = self.config.tasks[task]
        if spec.path is None:
            return {}
        if spec.kind != "table":
            return self._watch.tree(spec.path)
        sound = str(spec.options.get("audio") or Path(spec.path).parent)
        return self._watch.tree(sound) | self._watch.files([spec.path])

    def _copy_content(self, rule: str, split: str = "", shard: str = "") -> dict[str, str]:
        """The lab's copy of the clips, and what was opened again by hand (`ssondo retry`)."""
        fetched = [self.paths.fetched.format(split=split, shard=shard)] if shard else self.all_fetched()
        found = self._watch.files([str(reopened_path(Path(path))) for path in fetched])
        source = self.config.audioset.source
        if isinstance(source, LocalSource) and source.watch:
            if not isinstance(source, FolderSource):
                found |= self._watch.stamps(source.path)
            elif shard:
                found |= self._watch.shard(source.path, shard, len(self.shards(split)))
        return found

    def content(self, rule: str, **wildcards: str) -> str:
        """A digest of the user's own files that a rule reads: they may be larger than Snakemake compares.

        Files that the workflow makes are no part of it.
        """
        found: dict[str, str] = {}
        source = self.config.audioset.source
        if rule == "list_folder" and isinstance(source, FolderSource):
            found = self._watch.names(source.path)
        elif rule == "index" and not self.corpus_lists():
            found = self._watch.files([path for paths in self.index_inputs().values() for path in paths])
            found |= self._watch.files([self.config.audioset.manifest or ""])
        elif rule == "inventory":
            found = self._watch.files([self.config.audioset.manifest or ""])
        elif rule in ("fetch", "locate"):
            found = self._copy_content(rule, **wildcards)
        elif rule in ("embed", "embed_task", "distill", "supervise", "initialise"):
            found = _by_name(self._watch.files(self._own_code(wildcards)))
        elif rule == "checkpoint":
            path = self.checkpoints()[wildcards["checkpoint"]].path
            # The weights of a large ONNX model stand in a second file.
            found = self._watch.files([path, f"{path}.data", f"{path}_data"] if path else [])
        elif rule == "prepare_task":
            found = self._task_files(wildcards["task"])
        elif rule in (*_TABLES, "report"):
            found = _by_name(self._watch.files([str(path) for path in sorted(PUBLISHED.glob("*.csv"))]))
        return content_digest(found)[:16] if found else ""


PUBLISHED = Path(__file__).parent / "published"


def _by_name(files: Mapping[str, str]) -> dict[str, str]:
    """Digests by file name alone: where the code is installed is no matter."""
    return {Path(path).name: digest for path, digest in files.items()}
