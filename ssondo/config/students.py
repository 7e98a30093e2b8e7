"""The section `students`: architectures and their settings."""

from pydantic import Field

from ssondo.config.base import Section
from ssondo.config.teachers import Checkpoint


class Student(Section):
    """A student: a small network with a log-mel front-end and a mapping head."""

    architecture: str = Field(pattern=r"^[\w.]+(:\w+)?$")
    """Architecture: mobilenetv3, dymn, eres2net, or your own class as `package.module:Class`."""
    pretrained: Checkpoint | None = None
    """Pretrained weights of the backbone. The default ones have width 1.0; set null for other widths."""
    window_s: float = Field(default=10.0, ge=0.1)
    """Length of a window in seconds. Longer clips are cut into windows, whose embeddings are averaged."""
    settings: dict[str, bool | int | float | str | list[int]] = {}
    """Settings of the architecture, e.g. width_mult."""
