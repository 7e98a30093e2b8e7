"""Which rule reads whose files: what the pictures of the workflow show."""

from collections.abc import Mapping

RULE_GRAPH: Mapping[str, tuple[str, ...]] = {
    "index": ("compose", "list_folder"),
    "locate": ("index",),
    "fetch": ("index", "locate"),
    "resample": ("fetch",),
    "embed": ("resample", "checkpoint"),
    "inventory": ("resample", "embed"),
    "availability": ("index", "resample"),
    "cluster": ("embed", "inventory"),
    "distill": ("resample", "embed", "inventory", "cluster", "checkpoint"),
    "supervise": ("resample", "inventory", "index", "checkpoint"),
    "initialise": ("resample", "inventory"),
    "prepare_task": ("download",),
    "embed_task": ("prepare_task", "distill", "supervise", "initialise", "checkpoint"),
    "probe": ("embed_task",),
    "scores": ("probe",),
    "table1": ("probe",),
    "table2": ("probe",),
    "fig2": ("probe",),
    "report": ("table1", "table2", "fig2", "probe", "cluster", "distill", "supervise", "availability"),
}
"""Each rule and the rules whose files it reads, for the pictures."""
