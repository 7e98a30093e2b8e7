"""The machine: devices, processor cores, worker processes, memory, progress bars and folder listings.

Nothing in this package knows about audio or about the pipeline.
"""
