"""The table of commands: each verb of `ssondo` and the library function that it calls."""

VERBS = {
    "compose": "ssondo.audioset.compose:compose",
    "list_folder": "ssondo.audioset.list_folder:list_folder",
    "index": "ssondo.audioset.index:index",
    "locate": "ssondo.audioset.locate:locate",
    "fetch": "ssondo.audioset.fetch:fetch",
    "ledger": "ssondo.audioset.ledger:ledger",
    "retry": "ssondo.audioset.retry:retry",
    "resample": "ssondo.audioset.resample:resample",
    "inventory": "ssondo.audioset.inventory:inventory",
    "freeze": "ssondo.audioset.freeze:freeze",
    "availability": "ssondo.audioset.availability:availability",
    "checkpoint": "ssondo.teachers.checkpoint:checkpoint",
    "embed": "ssondo.teachers.embed:embed",
    "cluster": "ssondo.cluster.cluster:cluster",
    "distill": "ssondo.distill.distill:distill",
    "supervise": "ssondo.distill.supervise:supervise",
    "initialise": "ssondo.distill.initialise:initialise",
    "download": "ssondo.tasks.download:download",
    "prepare_task": "ssondo.tasks.prepare_task:prepare_task",
    "embed_task": "ssondo.probe.embed_task:embed_task",
    "probe": "ssondo.probe.probe:probe",
    "scores": "ssondo.report.scores:scores",
    "table1": "ssondo.report.table1:table1",
    "table2": "ssondo.report.table2:table2",
    "fig2": "ssondo.report.fig2:fig2",
    "report": "ssondo.report.report:report",
}
"""The library function of each verb; every rule of the workflow runs one verb."""
COMMANDS = VERBS | {
    "launch": "ssondo.workflow.launch:launch",
    "plan": "ssondo.workflow.plan:plan",
    "why": "ssondo.workflow.why:why",
    "accept_code": "ssondo.workflow.accept_code:accept_code",
    "export": "ssondo.inference.export:export",
}
"""All commands: the verbs, and the commands that are not run by a rule of the same name."""
