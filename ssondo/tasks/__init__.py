"""Downstream tasks: data sets, their archives, and the task shards that embed_task and probe read.

To add a data set, write one module with a function `load(...) -> Task` and register it in `READERS`; docs/extend.md
describes how. `load` takes as keywords, where it declares them, `path` (the folder of the unpacked data set or of its
archives), `task` (its name in the configuration), `seed` (of random draws), and the options of its kind. A module is
imported only when its kind is used, so that a change in one does not prepare other tasks again.
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
"""The function that reads the lists of each kind of task."""

METRICS = ("accuracy", "map", "masked_map")
