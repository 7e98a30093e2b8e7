"""What the Snakefile asks for: the plan of all jobs, the checks before they start, and their costs.

Nothing in this package computes a result, and nothing in it imports Snakemake.
"""
