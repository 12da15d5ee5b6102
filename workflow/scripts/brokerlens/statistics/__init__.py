"""Intervals and comparisons for values that depend on each other in time; knows nothing of packets."""
