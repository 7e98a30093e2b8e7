"""Clustering of the teacher's embeddings with k-means, its quality measures and its plots."""
