"""What every section is made of: the base model, names, paths."""

import os
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_]*$")]
LocalPath = Annotated[str, AfterValidator(os.path.expanduser)]
# Paths that the workflow makes stand in shell commands and in Snakemake's patterns. It compares them letter by letter,
# and warns of each file below ./data or data/.
PlainPath = Annotated[
    str, AfterValidator(os.path.expanduser), AfterValidator(os.path.normpath), Field(pattern=r"^[\w./~+@=-]+$")
]


class Section(BaseModel):
    """A section of the configuration: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True)
