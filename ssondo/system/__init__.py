"""The machine: devices, processor cores, worker processes, memory, progress bars and lists of files.

Nothing in this package depends on audio or on the pipeline.
"""
