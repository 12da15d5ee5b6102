"""Whether an experiment's window lies in its captures, and which time zone would explain it where it does not."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any, Final

from brokerlens.doctor.captures import Stretch
from brokerlens.doctor.findings import Finding
from brokerlens.report.zones import Zone

HOUR: Final = 3_600_000_000_000
FARTHEST: Final = 14  # hours that a zone is from UTC, at most
MOSTLY: Final = 0.5  # share of what could be in the window


def overlap(start: int | None, end: int | None, stretch: Stretch) -> float:
    """The share of the shorter of window and stretch that both have; an open side of the window is as long as the stretch."""
    low, high = (
        start if start is not None else min(stretch.begin, end or stretch.begin),
        end if end is not None else max(stretch.end, start or 0),
    )
    both = min(high, stretch.end) - max(low, stretch.begin)
    shorter = min(high - low, stretch.end - stretch.begin)
    return max(both, 0) / shorter if shorter > 0 else float(both >= 0)


def describe(site: Mapping[str, Any], stretch: Stretch | None, timezone: str) -> list[Finding]:
    """Where a site's window and its captures meet."""
    about, zone = f"{site['experiment']}/{site['site']}", Zone(timezone)
    start, end = site["window"]["start"], site["window"]["end"]
    if stretch is None:
        return []
    words = zone.words(stretch.begin)
    seen = f"captures from {zone.stamp(stretch.begin)} to {'' if stretch.certain else 'about '}{zone.stamp(stretch.end)} ({words})"
    if start is None and end is None:
        return [Finding("ok", about, f"no window: all counts; {seen}")]
    window = f"window {'from the beginning' if start is None else zone.stamp(start)} to {'the end' if end is None else zone.stamp(end)} ({words})"
    share = overlap(start, end, stretch)
    if share >= MOSTLY:
        return [
            Finding(
                "ok", about, f"{window} lies in the {seen}" if share > 0.999 else f"{window}: {share:.0%} of it or of the captures; {seen}"
            )
        ]
    hint = other_zone(start, end, stretch, zone)
    advice = (
        f'The window would fit if its times were of {hint}: then set `timezone` to "{hint}", or mend the times.'
        if hint
        else "Compare the window with the captures' times, and `timezone` with the place where the window's times were noted."
    )
    text = f"{window} {'holds none' if share == 0 else f'meets {share:.0%}'} of the {seen}"
    return [
        Finding("problem" if share == 0 and (stretch.certain or (end is not None and end < stretch.begin)) else "note", about, text, advice)
    ]


def other_zone(start: int | None, end: int | None, stretch: Stretch, zone: Zone) -> str:
    """The zone of which the window's local times would lie in the captures: of those that fit best UTC, then the same offset with the other sign, then the nearest; "" if none."""
    if start is None or end is None:
        return ""
    offset = round((zone.local(start).utcoffset() or dt.timedelta()) / dt.timedelta(hours=1) * 4) / 4
    fits = []
    for quarters in range(-4 * FARTHEST, 4 * FARTHEST + 1):
        other = quarters / 4
        moved = round((offset - other) * HOUR)
        share = overlap(start + moved, end + moved, stretch)
        if share >= MOSTLY and other != offset:
            fits.append((-round(share, 2), other != 0, other != -offset, other % 1 != 0, abs(other - offset), other))
    if not fits:
        return ""
    best = min(fits)[-1]
    hours, minutes = divmod(round(abs(best) * 60), 60)
    return "UTC" if best == 0 else f"{'-' if best < 0 else '+'}{hours:02d}:{minutes:02d}"
