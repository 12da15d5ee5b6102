"""Several comparisons at once: Holm's adjustment (1979)."""

from __future__ import annotations

from collections.abc import Sequence


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values adjusted for their family, in the order given."""
    family = len(p_values)
    adjusted = [0.0] * family
    largest = 0.0
    for place, index in enumerate(sorted(range(family), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (family - place) * p_values[index]))
        adjusted[index] = largest
    return adjusted
