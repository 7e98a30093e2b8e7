"""What the workflow makes: targets, and each rule's inputs, settings and code.

The rules ask a `Plan` for strings and hold no logic of their own: those of rules/STAGE.smk ask
`plan.STAGE`, which stands in the module of that name. Nothing here reads results; a plan depends
on the configuration, the project's code and the user's own input files alone.
"""

from ssondo.config import Config
from ssondo.provenance import code_hash
from ssondo.storage.atomic_files import content_digest
from ssondo.workflow.input_digests import InputDigests
from ssondo.workflow.paths import Paths
from ssondo.workflow.plan.audioset import AudioSetStage
from ssondo.workflow.plan.cluster import ClusterStage
from ssondo.workflow.plan.distill import DistillStage
from ssondo.workflow.plan.flags import flags
from ssondo.workflow.plan.probe import ProbeStage
from ssondo.workflow.plan.report import ReportStage
from ssondo.workflow.plan.stage import Stage
from ssondo.workflow.plan.targets import Targets
from ssondo.workflow.plan.teacher import TeacherStage
from ssondo.workflow.verbs import VERBS


class Plan:
    """The workflow of one configuration.

    Args:
        config: checked configuration.
        watch: knows the content of the user's own input files.
    """

    def __init__(self, config: Config, watch: InputDigests) -> None:
        self.config = config
        self.paths = Paths(config.paths.data, f"{config.paths.results}/{config.name}")
        shared = (config, self.paths, watch)
        self.audioset = AudioSetStage(*shared)
        self.teacher = TeacherStage(*shared)
        self.cluster = ClusterStage(*shared)
        self.distill = DistillStage(*shared, self.audioset, self.teacher)
        self.probe = ProbeStage(*shared, self.teacher, self.distill)
        self.targets = Targets(config, self.paths, self.audioset)
        self.report = ReportStage(*shared, self.audioset, self.probe, self.targets)
        stages = (self.audioset, self.teacher, self.cluster, self.distill, self.probe, self.report)
        self.stage_of: dict[str, Stage] = {rule: stage for stage in stages for rule in stage.rules}
        """Each rule's stage."""

    def options(self, rule: str, **wildcards: str) -> str:
        """The settings of a rule as command-line options."""
        return flags(**self.stage_of[rule].settings(rule, **wildcards))

    def code(self, rule: str, **wildcards: str) -> str:
        """A hash of the code that a rule runs, registries resolved by its wildcards."""
        return code_hash(*self.code_modules(rule, **wildcards))

    def code_modules(self, rule: str, **wildcards: str) -> list[str]:
        """The modules that a rule's command starts from."""
        return [VERBS[rule].partition(":")[0], *self.stage_of[rule].modules(rule, **wildcards)]

    def content(self, rule: str, **wildcards: str) -> str:
        """A digest of the user's own files that a rule reads: they may be larger than Snakemake compares.

        Files that the workflow makes are no part of it.
        """
        found = self.stage_of[rule].content(rule, **wildcards)
        return content_digest(found)[:16] if found else ""
