"""Models that embed and where weights come from: `teachers`, `embed`."""

import re
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from ssondo.config.base import LocalPath, Section
from ssondo.teachers import TEACHERS

# The allowed names are those of the registry; mypy cannot evaluate a computed Literal.
if TYPE_CHECKING:
    TeacherKind = str
else:
    TeacherKind = Literal[tuple(TEACHERS)]


class Checkpoint(Section):
    """Where a model's weights come from; the first of `path`, `package` and `url` that is set."""

    url: str | None = None
    """Download from here."""
    path: LocalPath | None = None
    """A local file instead."""
    package: str | None = None
    """A file inside an installed Python package, `package:path/in/it`."""
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """Refuse a file with another hash."""
    licence: str = ""
    """Shown when the file is downloaded."""

    @model_validator(mode="after")
    def _one_origin(self) -> "Checkpoint":
        if not (self.url or self.path or self.package):
            raise ValueError("needs one of url, path, package")
        return self

    @property
    def file(self) -> str:
        """The file's own name; some checkpoints carry settings in it."""
        name = (self.path or self.package or self.url or "").rstrip("/").rpartition("/")[2].rpartition(":")[2]
        return re.sub(r"[^\w.+-]", "_", name)


class Teacher(Section):
    """A model that embeds: a sample rate, an embedding size and a function of waveforms."""

    kind: TeacherKind
    """Built in: matpac, m2d, yamnet. Your own: an ONNX or TorchScript file, or `package.module:callable`."""
    checkpoint: Checkpoint | None = None
    """Its weights."""
    callable: str | None = Field(default=None, pattern=r"^[\w.]+:[\w.]+$")
    """For kind callable: takes waveforms (batch, samples), returns embeddings (batch, embedding_dim)."""
    sample_rate: int | None = Field(default=None, ge=4_000)
    """In Hz; for onnx, torchscript and callable."""
    embedding_dim: int | None = Field(default=None, ge=1)
    """For onnx, torchscript and callable."""

    @model_validator(mode="after")
    def _complete(self) -> "Teacher":
        own = self.kind in ("onnx", "torchscript", "callable")
        if own and (self.sample_rate is None or self.embedding_dim is None):
            raise ValueError(f"kind {self.kind} needs sample_rate and embedding_dim")
        for key in ("sample_rate", "embedding_dim"):
            if not own and getattr(self, key) is not None:
                raise ValueError(f"kind {self.kind} has its own {key}; leave {key} out")
        if (self.kind == "callable") != (self.callable is not None):
            raise ValueError("callable belongs to kind callable, and only there")
        if self.kind != "callable" and self.checkpoint is None:
            raise ValueError(f"kind {self.kind} needs a checkpoint")
        return self


class Embed(Section):
    """Teacher inference over shards."""

    dtype: Literal["float16", "float32"] = "float16"
    """Of embeddings on disk."""
    precision: Literal["auto", "float32", "fp16", "bf16"] = "auto"
    """Of a teacher's arithmetic on a GPU. auto: fp16 for the teachers built in, float32 for your own."""
