"""What to say where a figure cannot be: a sentence per site without latencies."""

from __future__ import annotations

import polars as pl

from brokerlens.report.results import Results, Site
from brokerlens.report.words import plural


def why_no_latency(site: Site) -> str | None:
    """Why this site has no latency; None where it has."""
    if len(site.latencies):
        return None
    captures = plural(int(site.facts["captures"]), "capture")
    if site.facts["packets_kept"] == 0:
        return f"No packets to or from these brokers in {captures}: check `brokers`."
    if _window_misses_captures(site):
        first, last = site.facts["first_seen"], site.facts["last_seen"]
        start, end = site.window
        held = f"Captures cover {site.zone.stamp(first)} to {site.zone.clock(last)} local"
        if start is not None and last < start:
            return f"{held}; the window begins at {site.zone.stamp(start)}."
        return f"{held}; the window ends at {site.zone.stamp(end)}."
    if site.encrypted:
        return "Encrypted: TCP figures only; latency needs a key log."
    if site.requests.height == 0:
        return _why_no_request(site, captures)
    if site.answered.height == 0 and site.requests.filter(site.requests["waits_by_design"]).height == site.requests.height:
        return "Only requests that wait by design (long polls): no latency that says how fast the path is."
    return "No request of this site was answered inside the window."


def _why_no_request(site: Site, captures: str) -> str:
    """The captures meet the window, but no request began inside it."""
    if site.requests_captured:
        return f"No Kafka request inside the window; the captures hold {plural(site.requests_captured, 'request')} outside."
    if site.connections.filter(pl.sum_horizontal("frames_to_broker", "frames_from_broker") > 0).height:
        return f"Kafka responses in {captures}, but none of their requests."
    with_data = site.connections.filter(pl.sum_horizontal("payload_bytes_to_broker", "payload_bytes_from_broker") > 0).height
    if with_data:
        return f"{plural(with_data, 'connection')} with data in {captures}, but nothing that could be read as Kafka."
    return f"No Kafka requests to these brokers in {captures}: check `brokers`."


def _window_misses_captures(site: Site) -> bool:
    start, end = site.window
    first, last = site.facts["first_seen"], site.facts["last_seen"]
    if first is None or last is None:
        return False
    return bool((start is not None and last < start) or (end is not None and first > end))


def reasons(results: Results) -> dict[tuple[str, str], str]:
    """The sentence of each site without latencies."""
    return {site.key: why for site in results.sites if (why := why_no_latency(site)) is not None}
