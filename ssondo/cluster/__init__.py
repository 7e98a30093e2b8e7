"""Clustering of teacher embeddings by k-means, with measures of quality and plots."""
