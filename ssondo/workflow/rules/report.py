"""The jobs of rules/report.smk: tables, figures and the report."""

from pathlib import Path
from typing import Any

from ssondo.errors import SsondoError
from ssondo.workflow.experiment import Experiment, Job

# The runtime section changes no result, so a change of it must not run the report again. Cookies and proxies are
# secrets.
_NOT_SHOWN: Any = {"runtime": True, "audioset": {"source": {"cookies", "proxies"}}}
PUBLISHED = Path(__file__).parents[2] / "report" / "published"
TEMPLATES = PUBLISHED.with_name("templates")


def _published(experiment: Experiment) -> dict[str, str]:
    """Return the digests of the published numbers, which the tables show next to the measured ones."""
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
        "table1": config.table1.model_dump(mode="json"),
        "table2": config.table2.model_dump(mode="json") if config.table2 else None,
        "fig2": config.fig2.model_dump(mode="json") if config.fig2 else None,
        "clusters": targets.cluster_metrics(),
        "histories": targets.histories(),
        "availability": paths.availability,
        "benchmarks": paths.benchmarks,
        "rule_graph": paths.rule_graph,
        "config": config.model_dump(mode="json", exclude=_NOT_SHOWN),
    }
    templates = experiment.digests.by_name([str(path) for path in sorted(TEMPLATES.iterdir())])
    return Job(options, content=_published(experiment) | templates)
