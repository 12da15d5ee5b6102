"""How the clocks of an experiment's sites stand to each other, as far as anything tells.

What is known of a site's clock: its offset from a reference clock, configured or estimated. Where it is not known of both sites of a route, only causality speaks:
no record is fetched before it was produced, so the smallest difference of times from one site to another bounds their clocks' difference from one side, and records
that go the other way from the other side.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import polars as pl

MS: Final = 1_000_000
SAME, KNOWN, UNKNOWN, CONTRADICTED = "same", "known", "unknown", "contradicted"
"""One clock; both offsets known; bounded by causality alone, or not at all; not even causality holds, because a clock stepped or drifted."""
BASIS: Final = pl.Enum([SAME, KNOWN, UNKNOWN, CONTRADICTED])

RELATIONS: Final = pl.Schema(
    {"produce_site": pl.String(), "fetch_site": pl.String(), "shift": pl.Int64(), "clock_uncertainty": pl.Int64(), "basis": BASIS}
)


@dataclass(frozen=True)
class Clock:
    """A site's clock minus a reference clock."""

    offset_ms: float
    doubts: frozenset[tuple[str, float]] = frozenset()
    """How far that may be wrong, ms, one for each estimate on the way from the reference, by the site whose clock it gave."""
    reference: str = ""
    """The site whose clock that is; none for the reference clock of the configuration. Clocks of two references are not related."""

    def uncertainty_ms(self, other: Clock) -> float:
        """How far the difference of both clocks may be wrong: an estimate that both are made of does not count."""
        return math.fsum(doubt for _, doubt in self.doubts ^ other.doubts)


def known_clocks(sites: Sequence[Mapping[str, Any]], estimates: Mapping[str, Clock] | None = None) -> dict[str, Clock]:
    """The clocks of the sites of which the configuration (``site``, ``clock_offset_ms`` or None) or else an estimate tells the offset."""
    configured = {site["site"]: Clock(float(site["clock_offset_ms"])) for site in sites if site["clock_offset_ms"] is not None}
    return dict(estimates or {}) | configured


def estimated_clocks(paths: pl.DataFrame, sites: Sequence[Mapping[str, Any]], span_ms: float) -> dict[str, Clock]:
    """The clocks of sites that shared connections with others tell: from site to site, from those that are configured on, else from the first one, whose clock is
    the reference of all that it leads to then.

    ``paths`` is the data set of that name, whose offsets are the broker's tap's clock minus the client's at the middle of what both saw; a drift is uncertainty over the
    ``span_ms`` of all that was captured.
    """
    links: dict[str, dict[str, tuple[float, float]]] = {}
    measured = paths.filter(pl.col("clock_source").cast(pl.String) == "estimated").select(
        pl.col("client_site", "broker_site").cast(pl.String), "clock_offset_ms", "clock_drift_ppm", "clock_uncertainty_ms"
    )
    for client, broker, offset, drift, uncertainty in measured.unique(("client_site", "broker_site"), maintain_order=True).iter_rows():
        reach = uncertainty + abs(drift or 0.0) * 1e-6 * span_ms
        links.setdefault(client, {})[broker] = (offset, reach)
        links.setdefault(broker, {})[client] = (-offset, reach)
    found = {name: clock for name, clock in known_clocks(sites).items() if name in links}
    for reference in [*found, *(site["site"] for site in sites if site["site"] in links)]:
        found.setdefault(reference, Clock(0.0, reference=reference))
        waiting = [reference]
        while waiting:
            here = waiting.pop(0)
            for there, (offset, reach) in links[here].items():
                if there not in found:
                    before = found[here]
                    found[there] = Clock(before.offset_ms + offset, before.doubts | {(there, reach)}, before.reference)
                    waiting.append(there)
    return found


def relate(differences: pl.DataFrame, clocks: Mapping[str, Clock]) -> pl.DataFrame:
    """How much later the fetching site's clock is than the producing one's, for every route that occurs.

    ``differences`` has a row per delivery: ``produce_site``, ``fetch_site``, ``difference`` (ns, fetched − produced by the clocks as they are). Gives ``produce_site``,
    ``fetch_site``, ``shift`` (ns, to be taken off differences), ``clock_uncertainty`` (ns, null where nothing bounds it), ``basis``.

    Of clocks that are not known the shift is 0, as long as causality allows it: else the middle of what it allows, or the bound nearest to 0 where there is but one.
    """
    least = {
        (produce, fetch): int(smallest)
        for produce, fetch, smallest in differences.drop_nulls()
        .group_by("produce_site", "fetch_site")
        .agg(pl.col("difference").min())
        .sort("produce_site", "fetch_site")
        .iter_rows()
    }
    rows = [(*route, *_relation(route, least, clocks)) for route in least]
    return pl.DataFrame(rows, schema=RELATIONS, orient="row")


def _relation(route: tuple[str, str], least: Mapping[tuple[str, str], int], clocks: Mapping[str, Clock]) -> tuple[int, int | None, str]:
    produce, fetch = route
    if produce == fetch:
        return 0, 0, SAME
    here, there = clocks.get(produce), clocks.get(fetch)
    if here is not None and there is not None and here.reference == there.reference:
        return round((there.offset_ms - here.offset_ms) * MS), round(here.uncertainty_ms(there) * MS), KNOWN
    high = least[route]
    if (fetch, produce) not in least:
        return min(high, 0), None, UNKNOWN
    low = -least[fetch, produce]
    if low > high:
        return 0, None, CONTRADICTED
    shift = 0 if low <= 0 <= high else (low + high) // 2
    return shift, max(high - shift, shift - low), UNKNOWN
