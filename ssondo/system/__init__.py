"""The machine: devices, processor cores, worker processes, memory, progress bars, lists of files, and
imports by name (`registry`).

Nothing in this package depends on audio or on the pipeline.
"""
