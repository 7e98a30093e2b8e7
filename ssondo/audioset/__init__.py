"""The training corpus: segment lists, fetching, resampling and the record of which clips are available.

Reading order: `index`, `locate`, `fetch`, `resample`, `inventory`, `availability`.
"""
