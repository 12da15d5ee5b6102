"""What to say where a figure cannot be: a sentence per site without latencies."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from brokerlens.report.results import Key, Results, Site
from brokerlens.report.words import plural
from brokerlens.tls.outcomes import OUTCOMES, UNOPENED


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
    if (unopened := why_unopened(site)) is not None:
        return unopened
    if site.encrypted:
        return "Encrypted: TCP figures only; latency needs a key log."
    if site.requests.height == 0:
        return _why_no_request(site, captures)
    if site.answered.height == 0 and site.requests.filter(site.requests["waits_by_design"]).height == site.requests.height:
        return "Only requests that wait by design (long polls): no latency that says how fast the path is."
    return "No request of this site was answered inside the window."


def why_unopened(site: Site) -> str | None:
    """Why the keys of this site decrypted nothing; None where they did, or where there are none."""
    outcomes = {name: int(site.metric("decryption", f"outcome={name}").value or 0) for name in OUTCOMES[1:]}
    tls = sum(outcomes.values()) - outcomes["not_tls"]
    if not tls or tls > sum(outcomes[name] for name in UNOPENED):
        return None
    if outcomes["no_key"]:
        return f"`tls_keylog` opens none of {plural(tls, 'TLS connection')}: it is probably the wrong file."
    return f"`tls_keylog` opens none of {plural(tls, 'TLS connection')}: their handshakes, without which no key helps, came before the captures."


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


def said_first(results: Results, states: Mapping[Key, str]) -> list[tuple[Site, str]]:
    """What stands above all: each site without latencies, and each whose TLS keys opened nothing."""
    found = [(site, states.get(site.key) or why_unopened(site)) for site in results.sites]
    return [(site, said) for site, said in found if said is not None]


def reasons(results: Results) -> dict[Key, str]:
    """The sentence of each site without latencies."""
    return {site.key: why for site in results.sites if (why := why_no_latency(site)) is not None}
