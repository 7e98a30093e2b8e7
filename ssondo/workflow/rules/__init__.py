"""The jobs of each rule of the workflow: one function for each rule, and one module for each file in rules/.

A function takes the experiment and the wildcards of its rule and returns a `Job`.
"""

from collections.abc import Callable

from ssondo.workflow.experiment import Job
from ssondo.workflow.rules import audioset, cluster, distill, probe, report, tasks, teachers

RULES: dict[str, Callable[..., Job]] = {
    "compose": audioset.compose,
    "list_folder": audioset.list_folder,
    "index": audioset.index,
    "locate": audioset.locate,
    "fetch": audioset.fetch,
    "resample": audioset.resample,
    "inventory": audioset.inventory,
    "availability": audioset.availability,
    "checkpoint": teachers.checkpoint,
    "embed": teachers.embed,
    "cluster": cluster.cluster,
    "distill": distill.distill,
    "supervise": distill.supervise,
    "initialise": distill.initialise,
    "download": tasks.download,
    "prepare_task": tasks.prepare_task,
    "embed_task": probe.embed_task,
    "probe": probe.probe,
    "scores": report.scores,
    "table1": report.table1,
    "table2": report.table2,
    "fig2": report.fig2,
    "report": report.report,
}
"""Each rule and the function that returns what its jobs get: (experiment, **wildcards) -> Job."""
