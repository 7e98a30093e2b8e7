"""The section `students`."""

from pydantic import Field

from ssondo.config.base import Section
from ssondo.config.teachers import Checkpoint


class Student(Section):
    """A small network with a front-end and a mapping head."""

    architecture: str = Field(pattern=r"^[\w.]+(:\w+)?$")
    """mobilenetv3, dymn, eres2net, or `module:Class` of your own."""
    pretrained: Checkpoint | None = None
    """Pretrained weights of the backbone to begin with. These are of width 1.0: null for other widths."""
    window_s: float = Field(default=10.0, ge=0.1)
    """Longer clips are cut into windows of this many seconds and their embeddings averaged."""
    settings: dict[str, bool | int | float | str | list[int]] = {}
    """Arguments of the architecture, e.g. width_mult."""
