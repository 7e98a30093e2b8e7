"""Downstream tasks: data sets, their archives, and the shards that the probes read.

To add a data set, write one module with a function `load(...) -> Task` and name it in `READERS`; docs/extend.md
shows it. A kind is imported when it is asked for, so that editing one prepares no other task again.
"""

READERS = {
    "esc50": "ssondo.tasks.esc50:load",
    "fsd50k": "ssondo.tasks.fsd50k:load",
    "gtzan": "ssondo.tasks.gtzan:load",
    "magnatagatune": "ssondo.tasks.magnatagatune:load",
    "nsynth": "ssondo.tasks.nsynth:load",
    "openmic": "ssondo.tasks.openmic:load",
    "urbansound8k": "ssondo.tasks.urbansound8k:load",
    "table": "ssondo.tasks.table:load",
    "pattern": "ssondo.tasks.pattern:load",
    "rendered": "ssondo.tasks.rendered:load",
}
"""Kind of a task -> the function that reads its lists, imported when it is asked for."""
