"""HDF5 shards: many clips in one file, complete or absent.

An audio shard (`audio`) holds encoded clips end to end, cut by offsets; an embedding shard (`embedding`)
one row a clip; a clustering (`clusters`) the clips' clusters and the centroids. All hold `clip_id`,
fixed-length bytes. There are no variable-length types and no pickles, so anything that reads HDF5 reads
them. docs/formats.md has every name.

A kind has a module of its own, so that an edit of how embeddings are kept fetches no clip again.
"""
