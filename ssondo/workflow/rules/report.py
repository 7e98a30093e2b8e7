"""The jobs of rules/report.smk: tables, figures and the report."""

from pathlib import Path
from typing import Any

from ssondo.errors import SsondoError
from ssondo.workflow.experiment import Experiment, Job
from ssondo.workflow.rules import tasks
from ssondo.workflow.rules.audioset import is_rendered, is_unlisted_folder, uses_locate
from ssondo.workflow.rules.graph import RULE_GRAPH
from ssondo.workflow.targets import TABLES

# The use of the machine changes no result and must not make the page again. Cookies and proxies are secrets.
_NOT_SHOWN: Any = {"runtime": True, "audioset": {"source": {"cookies", "proxies"}}}
_RULE_OF = {"supervised": "supervise", "untrained": "initialise"}
PUBLISHED = Path(__file__).parents[2] / "report" / "published"


def _published(experiment: Experiment) -> dict[str, str]:
    """Return digests of the published numbers, which stand next to the measured ones."""
    return experiment.digests.by_name([str(path) for path in sorted(PUBLISHED.glob("*.csv"))])


def scores(experiment: Experiment) -> Job:
    """Return the job that collects the scores."""
    return Job()


def table1(experiment: Experiment) -> Job:
    """Return the job that writes Table 1."""
    options = experiment.config.table1.model_dump(include={"teachers", "students", "tasks"})
    return Job(options, content=_published(experiment))


def table2(experiment: Experiment) -> Job:
    """Return the job that writes Table 2."""
    table = experiment.config.table2
    if table is None:
        raise SsondoError("table2 is null in this configuration; set it to have the table")
    return Job(table.model_dump(include={"losses", "music", "environment"}), content=_published(experiment))


def fig2(experiment: Experiment) -> Job:
    """Return the job that draws Fig. 2."""
    figure = experiment.config.fig2
    if figure is None:
        raise SsondoError("fig2 is null in this configuration; set it to have the figure")
    return Job({"tasks": figure.tasks}, content=_published(experiment))


def report(experiment: Experiment) -> Job:
    """Return the job that writes the HTML report."""
    config, paths, targets = experiment.config, experiment.paths, experiment.targets
    options = {
        "title": f"S-SONDO: {config.name}",
        **{name: f"{paths.table(name)}.csv" for name in targets.tables if name != "table1"},
        "clusters": targets.cluster_metrics(),
        "histories": targets.histories(),
        "availability": paths.availability,
        "benchmarks": paths.benchmarks,
        "rulegraph": rule_graph(experiment),
        "config": config.model_dump(mode="json", exclude=_NOT_SHOWN),
    }
    return Job(options, content=_published(experiment))


def rule_graph(experiment: Experiment) -> dict[str, list[str]]:
    """Return the rules that this configuration uses and, for each, the rules whose files it reads."""
    config, targets = experiment.config, experiment.targets
    conditional = {
        "compose": is_rendered(config),
        "list_folder": is_unlisted_folder(config),
        "locate": uses_locate(experiment),
        "download": any(tasks.archives(experiment, task) for task in config.tasks),
        "cluster": bool(targets.clusterings()),
        **{rule: any(m.row_kind == kind for m in targets.models()) for kind, rule in _RULE_OF.items()},
        **{table: table in targets.tables for table in TABLES},
    }
    return {
        rule: [source for source in sources if conditional.get(source, True)]
        for rule, sources in RULE_GRAPH.items()
        if conditional.get(rule, True)
    }
