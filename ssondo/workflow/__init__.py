"""What the Snakefile imports: the jobs of a configuration, the checks before they start, and their estimated costs.

No module of this package computes a result or imports Snakemake.
"""
