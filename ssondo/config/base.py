"""Base class of the sections, and types of names and paths."""

import os
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_]*$")]
LocalPath = Annotated[str, AfterValidator(os.path.expanduser)]
# The workflow's own paths are used in shell commands and in Snakemake's patterns. Snakemake compares paths as strings,
# and warns about each file below ./data or data/.
PlainPath = Annotated[
    str, AfterValidator(os.path.expanduser), AfterValidator(os.path.normpath), Field(pattern=r"^[\w./~+@=-]+$")
]


class Section(BaseModel):
    """A section of the configuration. Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True)
