"""Names that were importable from `ssondo.model`, for code that was written for that module."""

from ssondo.inference.wrapper import SsondoWrapper, get_ssondo, list_heads, list_models
from ssondo.students.checkpoint import load_student, save_student
from ssondo.students.student import MappingHead, Student, initialise_backbone

__all__ = [
    "MappingHead",
    "SsondoWrapper",
    "Student",
    "get_ssondo",
    "initialise_backbone",
    "list_heads",
    "list_models",
    "load_student",
    "save_student",
]
