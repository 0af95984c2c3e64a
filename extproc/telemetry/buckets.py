"""Bounds of histograms that more than one of them has."""

FIRST_TOKEN_S = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 30.0)
"""The semantic conventions' own, and one more for requests that wait in a queue."""
