"""Published figures: nine significant digits, so that the last bits of a matrix product never change a file's bytes."""

from __future__ import annotations

import math

DIGITS = 9


def published(value: float | None) -> float | None:
    """The value with nine significant digits; ``None`` where it is missing or not finite (an open side, never ±inf)."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.{DIGITS - 1}e}")
