"""Files: HDF5 shards, atomic writing, downloads, weights, segment lists and the locations of clips.

`segments` assigns each clip to a shard, `shards` reads and writes them, and `atomic_files` guarantees that a file
has its final name only when it is complete.
"""
