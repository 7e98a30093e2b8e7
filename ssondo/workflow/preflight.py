"""What cannot work although every key of the configuration is right."""

import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from glob import glob
from importlib.machinery import ModuleSpec
from pathlib import Path

from ssondo.audio.log_mel_settings import STUDENT
from ssondo.config import Config
from ssondo.config.audioset import FolderSource, LocalSource
from ssondo.config.students import Student
from ssondo.errors import SsondoError
from ssondo.provenance import source_file, targets
from ssondo.workflow.signatures import signature_of

# Linux takes 128 KiB in one argument, and a rule's command is one; the rest is for its options.
_LONGEST_COMMAND = 120_000


def find_command() -> None:
    """Put the folder of this Python on the path of jobs, if nothing there is called `ssondo`.

    So snakemake may be called by its path, without the environment around it.
    """
    if shutil.which("ssondo") is None:
        os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])


def source_of(dotted: str) -> str | None:
    """The file that `package.module:name` stands in; None if there is no such module.

    Unlike `importlib.util.find_spec` it does not run the packages around the module: they may import torch, at
    each start of a plan, or what only a node with a GPU can.
    """
    names = dotted.partition(":")[0].split(".")
    spec, place = None, None
    for n in range(1, len(names) + 1):
        if not names[n - 1] or (n > 1 and place is None):
            return None
        spec = _spec(".".join(names[:n]), place)
        if spec is None:
            return None
        place = spec.submodule_search_locations
    return spec.origin if spec else None


def _spec(module: str, place: Sequence[str] | None) -> ModuleSpec | None:
    found = (finder.find_spec(module, place) for finder in sys.meta_path)
    return next((spec for spec in found if spec is not None), None)


def _check_student(name: str, student: Student) -> None:
    """Refuse settings that no student could be built with: its training comes last."""
    key = f"config: students.{name}"
    target = targets("ssondo.students", "ARCHITECTURES").get(student.architecture, student.architecture)
    module, _, attribute = target.partition(":")
    source = source_of(student.architecture) if target == student.architecture else source_file(module)
    if source is None:
        raise SsondoError(f"{key}.architecture: there is no module {module}; check PYTHONPATH")
    # An extension module has no source to read.
    found = None
    if Path(source).suffix == ".py":
        try:
            found = signature_of(Path(source), attribute)
        except SyntaxError as error:
            raise SsondoError(f"{key}.architecture: {source}: {error.msg} (line {error.lineno})") from None
    if found is not None:
        # Of the student around it, whatever its architecture: the published windows (docs/DEVIATIONS.md).
        found = replace(found, kinds={**found.kinds, "add_last": "bool"})
        if mismatch := found.explain_mismatch(student.settings):
            raise SsondoError(f"{key}.settings{mismatch}")
        least_s = (STUDENT.n_fft + STUDENT.hop_length * (found.min_frames - 1)) / STUDENT.sample_rate
        if student.window_s < least_s:
            raise SsondoError(
                f"{key}.window_s: {student.window_s:g} is too short for {student.architecture}; at least {least_s:g}"
            )
    width = student.settings.get("width_mult", 1)
    if student.pretrained is not None and width != 1 and target != student.architecture:
        full = {known.pretrained.file for known in Config().students.values() if known.pretrained is not None}
        if student.pretrained.file in full:
            raise SsondoError(
                f"{key}.pretrained: these weights have width 1.0; set it to null, or name weights of width {width}"
            )


def check_config(config: Config) -> None:
    """Look for what cannot work although every key is right.

    Raises:
        SsondoError: one line that names the key.
    """
    for name, task in config.tasks.items():
        if task.path is not None and not Path(task.path).exists():
            raise SsondoError(f"config: tasks.{name}.path: {task.path} does not exist")
    source = config.audioset.source
    if isinstance(source, FolderSource) and not Path(source.path).is_dir():
        raise SsondoError(f"config: audioset.source.path: {source.path} is no folder")
    if isinstance(source, LocalSource) and not (Path(source.path).exists() or glob(source.path, recursive=True)):  # noqa: PTH207
        raise SsondoError(f"config: audioset.source.path: {source.path} does not exist")
    manifest = config.audioset.manifest
    if manifest is not None and not Path(manifest).is_file():
        raise SsondoError(f"config: audioset.manifest: {manifest} is no file; make one with: ssondo freeze")
    for name, teacher in config.teachers.items():
        if teacher.callable and source_of(teacher.callable) is None:
            module = teacher.callable.partition(":")[0]
            raise SsondoError(f"config: teachers.{name}.callable: there is no module {module}; check PYTHONPATH")
    for name, student in config.students.items():
        _check_student(name, student)
    shards = config.audioset.n_train_shards + config.audioset.n_eval_shards
    # A distillation reads every shard's sound and embeddings, and its list where it learns from labels as well.
    each = 3 if config.distill.prediction_weight else 2
    path = len(config.paths.data) + max(map(len, config.teachers)) + len("/embeddings//train-0000.h5 ")
    longest = each * shards * path
    if longest > _LONGEST_COMMAND:
        raise SsondoError(
            f"config: audioset.n_train_shards: {shards} shards below {config.paths.data} make a command of {longest:,} "
            f"characters and the system takes {_LONGEST_COMMAND:,}; take fewer shards or a shorter paths.data"
        )
    places = [(f"teachers.{n}.checkpoint", t.checkpoint) for n, t in config.teachers.items()]
    places += [(f"students.{n}.pretrained", s.pretrained) for n, s in config.students.items()]
    for key, checkpoint in places:
        if checkpoint is not None and checkpoint.path and not Path(checkpoint.path).is_file():
            raise SsondoError(f"config: {key}.path: {checkpoint.path} is no file")
