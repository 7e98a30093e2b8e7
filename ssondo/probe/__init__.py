"""Linear probes on frozen embeddings: embedding of the downstream tasks, grid search and scores."""
