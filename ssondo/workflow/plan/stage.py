"""What the plans of all stages share."""

from pathlib import Path
from typing import Any, ClassVar

from ssondo.config import Config
from ssondo.workflow.input_digests import InputDigests
from ssondo.workflow.paths import Paths
from ssondo.workflow.preflight import source_of


class Stage:
    """The jobs of one file of rules.

    A rule's settings are the method of its name, with an underscore before it and the rule's wildcards as arguments.

    Args:
        config: checked configuration.
        paths: of the workflow.
        watch: knows the content of the user's own input files.
    """

    rules: ClassVar[tuple[str, ...]]
    """The rules of the stage."""

    def __init__(self, config: Config, paths: Paths, watch: InputDigests) -> None:
        self.config, self.paths, self.watch = config, paths, watch

    def settings(self, rule: str, **wildcards: str) -> dict[str, Any]:
        """The settings of a rule, by option: its own slice of the configuration."""
        found: dict[str, Any] = getattr(self, f"_{rule}")(**wildcards)
        return found

    def modules(self, rule: str, **wildcards: str) -> list[str]:
        """What a rule's command imports by name, from a registry, besides the module of its verb."""
        return []

    def content(self, rule: str, **wildcards: str) -> dict[str, str]:
        """Digests of the user's own files that a rule reads, by path; none of what the workflow makes."""
        return {}

    def own_code(self, dotted: str | None) -> dict[str, str]:
        """The digest of the file of a user's own teacher function or student class; empty for built-in ones."""
        source = source_of(dotted) if dotted and ":" in dotted else None
        return self.by_name([source] if source else [])

    def by_name(self, files: list[str]) -> dict[str, str]:
        """Digests by file name alone: where the code is installed is no matter."""
        return {Path(path).name: digest for path, digest in self.watch.files(files).items()}
