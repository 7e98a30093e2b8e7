"""HDF5 shards: many clips in one file, which is either complete or absent.

An audio shard (`audio`) stores encoded clips one after the other in one array and the offsets between them,
an embedding shard (`embedding`) one row per clip, and a clustering (`clusters`) the cluster of each clip and
the centroids. There are no variable-length types and no pickles, so any program that reads HDF5 can read
them. docs/formats.md describes every dataset.

Each kind has its own module, so that a change of the embedding format does not fetch any clip again.
"""
