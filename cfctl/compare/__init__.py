"""One comparison of any two saved results of a kind; a kind is one module of this package.

A kind has SCHEMAS, the names of the documents it compares, and
compare(base: Sequence[dict], new: Sequence[dict], thresholds: Sequence[Threshold]) -> Comparison.
"""
