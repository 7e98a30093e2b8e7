"""The workflow of one configuration: the options, inputs and code of every job.

The rules ask an `Experiment` for strings and contain no logic of their own. What a job of the rule `distill` gets is
returned by the function `distill` in ssondo/workflow/rules/distill.py; `ssondo.workflow.rules.RULES` lists all of them.
No results are read: everything depends on the configuration, the project's code and the user's own input files only.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ssondo.config import Config
from ssondo.storage.atomic_files import content_digest
from ssondo.workflow.cli_options import to_cli_options
from ssondo.workflow.code_records import job_code, record
from ssondo.workflow.input_digests import MAX_FILES, InputDigests
from ssondo.workflow.paths import Paths
from ssondo.workflow.targets import Targets
from ssondo.workflow.verbs import VERBS


@dataclass(frozen=True)
class Job:
    """What a job gets from the configuration.

    Attributes:
        options: settings of its command, by option. A changed setting runs the job again.
        untracked: options that cannot change the result, such as the expected checksum of a download. A change
            of them runs no job again.
        inputs: files of the workflow that only some configurations have, by name of the rule's input.
        modules: modules that the configuration selects from a registry; the code hash covers them and the module of
            the command.
        content: digests of the user's own files that the job reads, by path. Snakemake compares large files by
            modification time only.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    untracked: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, list[str]] = field(default_factory=dict)
    modules: Sequence[str] = ()
    content: Mapping[str, str] = field(default_factory=dict)


class Experiment:
    """The workflow of one configuration.

    Args:
        config: the checked configuration.
        digests: digests of the user's own input files.
    """

    def __init__(self, config: Config, digests: InputDigests) -> None:
        self.config = config
        self.digests = digests
        self.paths = Paths(config)
        self.targets = Targets(config, self.paths)
        self._jobs: dict[tuple[str, frozenset[tuple[str, str]]], Job] = {}

    def job(self, rule: str, **wildcards: str) -> Job:
        """Return what a job of `rule` gets from the configuration.

        Raises:
            SsondoError: if the configuration does not use the rule.
        """
        from ssondo.workflow.rules import RULES  # These modules import this one.

        key = (rule, frozenset(wildcards.items()))
        if key not in self._jobs:
            self._jobs[key] = RULES[rule](self, **wildcards)
        return self._jobs[key]

    def options(self, rule: str, **wildcards: str) -> str:
        """Return the settings of a job as command-line options."""
        return to_cli_options(**self.job(rule, **wildcards).options)

    def untracked_options(self, rule: str, **wildcards: str) -> str:
        """Return the settings of a job that cannot change its result, as command-line options."""
        return to_cli_options(**self.job(rule, **wildcards).untracked)

    def inputs(self, rule: str, **wildcards: str) -> Mapping[str, list[str]]:
        """Return the files of the workflow that a job reads in this configuration, by name of the rule's input."""
        return self.job(rule, **wildcards).inputs

    def code(self, rule: str, **wildcards: str) -> str:
        """Return a hash of the code that a job runs."""
        return job_code(rule, self.code_modules(rule, **wildcards))

    def code_modules(self, rule: str, **wildcards: str) -> list[str]:
        """Return the modules that a job's command starts from: that of the verb and those from registries."""
        return [VERBS[rule].partition(":")[0], *self.job(rule, **wildcards).modules]

    def content(self, rule: str, **wildcards: str) -> str:
        """Return a digest of the user's own files that a job reads; "" if it reads none."""
        digests = self.job(rule, **wildcards).content
        if not digests:
            return ""
        digest = content_digest(dict(digests))[:16]
        if len(digests) <= MAX_FILES:
            record(digest, lambda: dict(digests))
        return digest
