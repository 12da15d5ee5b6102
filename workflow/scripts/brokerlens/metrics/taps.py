"""Where a site's captures were taken, by the votes of its connections."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

TAPS: Final = ("client", "broker", "middle", "unknown")


def tap_of(configured: str, found: str) -> str:
    """Where a site's captures were taken: as configured, else as found."""
    return configured if configured in ("client", "broker") else found


def found_tap(taps: Sequence[str | None]) -> str:
    """Where most connections say that the capture was taken; those that cannot tell have no vote, and a draw is no answer."""
    votes = Counter(tap for tap in taps if tap is not None and tap != "unknown")
    if not votes:
        return "unknown"
    most = max(votes.values())
    leading = [tap for tap in TAPS if votes[tap] == most]
    return leading[0] if len(leading) == 1 else "unknown"
