"""The sections `teachers` and `embed`, and the origin of a model's weights."""

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
    """Origin of a model's weights. The first of `path`, `package` and `url` that is set is used."""

    url: str | None = None
    """URL that the file is downloaded from."""
    path: LocalPath | None = None
    """Path of a local file."""
    package: str | None = None
    """File inside an installed Python package, as `package:path/in/package`."""
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """Expected SHA-256 of the file in hexadecimal digits; a file with another one is rejected."""
    licence: str = ""
    """Licence of the weights, which is logged before they are downloaded."""

    @model_validator(mode="after")
    def _one_origin(self) -> "Checkpoint":
        if not (self.url or self.path or self.package):
            raise ValueError("one of url, path and package is required")
        return self

    @property
    def file(self) -> str:
        """The name of the file; some checkpoints have settings in their name."""
        name = (self.path or self.package or self.url or "").rstrip("/").rpartition("/")[2].rpartition(":")[2]
        return re.sub(r"[^\w.+-]", "_", name)


class Teacher(Section):
    """A teacher: a sample rate, an embedding size and a function from waveforms to embeddings."""

    kind: TeacherKind
    """Kind of the teacher: matpac, m2d or yamnet (built in), onnx or torchscript (your own file), or callable (your own
    function)."""
    checkpoint: Checkpoint | None = None
    """Weights of the teacher."""
    callable: str | None = Field(default=None, pattern=r"^[\w.]+:[\w.]+$")
    """Function of the kind callable, as `package.module:function`. It maps waveforms (batch, samples) to embeddings
    (batch, embedding_dim)."""
    sample_rate: int | None = Field(default=None, ge=4_000)
    """Sample rate of the teacher in Hz, for the kinds onnx, torchscript and callable."""
    embedding_dim: int | None = Field(default=None, ge=1)
    """Size of an embedding, for the kinds onnx, torchscript and callable."""

    @model_validator(mode="after")
    def _complete(self) -> "Teacher":
        is_external = self.kind in ("onnx", "torchscript", "callable")
        if is_external and (self.sample_rate is None or self.embedding_dim is None):
            raise ValueError(f"kind {self.kind} needs sample_rate and embedding_dim")
        for key in ("sample_rate", "embedding_dim"):
            if not is_external and getattr(self, key) is not None:
                raise ValueError(f"kind {self.kind} has its own {key}; leave {key} out")
        if (self.kind == "callable") != (self.callable is not None):
            raise ValueError("the key callable is required for kind callable and not allowed for other kinds")
        if self.kind != "callable" and self.checkpoint is None:
            raise ValueError(f"kind {self.kind} needs a checkpoint")
        return self


class Embed(Section):
    """Computation of teacher embeddings."""

    dtype: Literal["float16", "float32"] = "float16"
    """Type of the stored embeddings."""
    precision: Literal["auto", "float32", "fp16", "bf16"] = "auto"
    """Precision of a teacher's arithmetic on a GPU. auto is fp16 for the built-in teachers and float32 for others."""
