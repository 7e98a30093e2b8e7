"""Checks of a valid configuration before any job starts: files, modules and student settings must exist and fit."""

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
from ssondo.config.signatures import signature_of
from ssondo.config.students import Student
from ssondo.errors import SsondoError
from ssondo.provenance import source_file, targets

# Linux accepts 128 KiB in one argument, and the command of a rule is one argument; the remainder is for its options.
_MAX_COMMAND_CHARS = 120_000


def find_command() -> None:
    """Add the folder of this Python to PATH if the command `ssondo` is not found there.

    Jobs then find it even if snakemake was started by its path, without an activated environment.
    """
    if shutil.which("ssondo") is None:
        os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])


def source_of(dotted: str) -> str | None:
    """Return the file that contains `package.module:name`, or None if there is no such module.

    Unlike `importlib.util.find_spec`, this does not run the enclosing packages: they may import torch, which is slow,
    or libraries that work only on a node with a GPU.
    """
    names = dotted.partition(":")[0].split(".")
    spec, search_path = None, None
    for n in range(1, len(names) + 1):
        if not names[n - 1] or (n > 1 and search_path is None):
            return None
        spec = _spec(".".join(names[:n]), search_path)
        if spec is None:
            return None
        search_path = spec.submodule_search_locations
    return spec.origin if spec else None


def _spec(module: str, search_path: Sequence[str] | None) -> ModuleSpec | None:
    specs = (finder.find_spec(module, search_path) for finder in sys.meta_path)
    return next((spec for spec in specs if spec is not None), None)


def _check_student(name: str, student: Student) -> None:
    """Reject settings that the student's class would reject, because its training starts hours later."""
    key = f"config: students.{name}"
    target = targets("ssondo.students", "ARCHITECTURES").get(student.architecture, student.architecture)
    module, _, attribute = target.partition(":")
    source = source_of(student.architecture) if target == student.architecture else source_file(module)
    if source is None:
        raise SsondoError(f"{key}.architecture: there is no module {module}; check PYTHONPATH")
    # An extension module has no source code.
    signature = None
    if Path(source).suffix == ".py":
        try:
            signature = signature_of(Path(source), attribute)
        except SyntaxError as error:
            raise SsondoError(f"{key}.architecture: {source}: {error.msg} (line {error.lineno})") from None
    if signature is not None:
        # Every architecture accepts `add_last`, which selects the published windows (docs/DEVIATIONS.md).
        signature = replace(signature, kinds={**signature.kinds, "add_last": "bool"})
        if mismatch := signature.explain_mismatch(student.settings):
            raise SsondoError(f"{key}.settings{mismatch}")
        min_s = (STUDENT.n_fft + STUDENT.hop_length * (signature.min_frames - 1)) / STUDENT.sample_rate
        if student.window_s < min_s:
            raise SsondoError(
                f"{key}.window_s: {student.window_s:g} is too short for {student.architecture}; it needs at least "
                f"{min_s:g}"
            )
    width = student.settings.get("width_mult", 1)
    if student.pretrained is not None and width != 1 and target != student.architecture:
        published = {
            default.pretrained.file for default in Config().students.values() if default.pretrained is not None
        }
        if student.pretrained.file in published:
            raise SsondoError(
                f"{key}.pretrained: these weights have width 1.0; set it to null, or to weights of width {width}"
            )


def check_config(config: Config) -> None:
    """Check that the files and modules of a configuration exist and that its students can be built.

    Raises:
        SsondoError: one line that names the key.
    """
    for name, task in config.tasks.items():
        if task.path is not None and not Path(task.path).exists():
            raise SsondoError(f"config: tasks.{name}.path: {task.path} does not exist")
    source = config.audioset.source
    if isinstance(source, FolderSource) and not Path(source.path).is_dir():
        raise SsondoError(f"config: audioset.source.path: {source.path} is not a folder")
    if isinstance(source, LocalSource) and not (Path(source.path).exists() or glob(source.path, recursive=True)):  # noqa: PTH207
        raise SsondoError(f"config: audioset.source.path: {source.path} does not exist")
    manifest = config.audioset.manifest
    if manifest is not None and not Path(manifest).is_file():
        raise SsondoError(f"config: audioset.manifest: {manifest} is not a file; write it with: ssondo freeze")
    for name, teacher in config.teachers.items():
        if teacher.callable and source_of(teacher.callable) is None:
            module = teacher.callable.partition(":")[0]
            raise SsondoError(f"config: teachers.{name}.callable: there is no module {module}; check PYTHONPATH")
    for name, student in config.students.items():
        _check_student(name, student)
    shards = config.audioset.n_train_shards + config.audioset.n_eval_shards
    # A distillation reads the audio and embeddings of every shard, and its segment list if it also learns from labels.
    files_per_shard = 3 if config.distill.prediction_weight else 2
    path_chars = len(config.paths.data) + max(map(len, config.teachers)) + len("/embeddings//train-0000.h5 ")
    command_chars = files_per_shard * shards * path_chars
    if command_chars > _MAX_COMMAND_CHARS:
        raise SsondoError(
            f"config: audioset.n_train_shards: the paths of {shards} shards in {config.paths.data} make a command of "
            f"{command_chars:,} characters, and the system accepts {_MAX_COMMAND_CHARS:,}; use fewer shards or a "
            "shorter paths.data"
        )
    checkpoints = [(f"teachers.{n}.checkpoint", t.checkpoint) for n, t in config.teachers.items()]
    checkpoints += [(f"students.{n}.pretrained", s.pretrained) for n, s in config.students.items()]
    for key, checkpoint in checkpoints:
        if checkpoint is not None and checkpoint.path and not Path(checkpoint.path).is_file():
            raise SsondoError(f"config: {key}.path: {checkpoint.path} is not a file")
