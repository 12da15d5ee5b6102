"""Capture quality: what each site's captures hold, skipped and lost, and the captures one by one."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brokerlens.report.results import Results, Site
from brokerlens.report.words import NONE, count, ms, percent, plural, size
from brokerlens.report.zones import utc_stamp
from brokerlens.tls.outcomes import OUTCOMES

MOST_ROWS = 300
SKIPPED_WORDS = {
    "unknown_link": "link types that are not read",
    "not_ip": "not IP",
    "not_tcp": "not TCP",
    "fragment": "later fragments",
    "cut_header": "headers cut off",
    "malformed": "malformed",
    "other_endpoint": "not to or from the brokers",
    "no_time": "without a time",
    "tunnel": "tunnels that could not be opened",
}
FRAME_ODDITIES = {
    "incomplete_frames": "not captured in full",
    "malformed_frames": "malformed",
    "raw_frames": "SASL tokens",
    "lone_responses": "responses without their request",
    "lost_chains": "times looked for anew",
    "broken_chains": "chains that did not hold",
    "rejected_chains": "chains that no answer confirmed",
    "abandoned_scans": "connections given up",
    "unkept_frames": "of which the split kept too little",
}
OUTCOME_WORDS = {
    "in_part": "in part, without a key for the rest",
    "no_key": "without a key",
    "hole": "up to a hole in the capture",
    "cut_by_snaplen": "cut off by the snaplen",
    "began_before_capture": "began before the captures",
    "not_tls": "not TLS",
}
CAPTURE_ODDITIES = {
    "unusable_lengths": "lengths that no frame has",
    "incomplete_frames": "frames not captured in full",
    "malformed_bodies": "malformed bodies",
    "odd_client_ids": "client ids that are no plain text",
    "unknown_apis": "requests of unknown apis",
}


@dataclass(frozen=True)
class SiteQuality:
    """One site's captures together."""

    site: Site
    captures: str
    kept: str
    skipped: str
    skipped_why: str
    first: str
    last: str
    started: str
    tap: str
    tap_configured: str
    loss: str
    undecided: str
    notes: Sequence[str]


@dataclass(frozen=True)
class CaptureRow:
    """One capture."""

    site: Site
    capture: str
    format: str
    packets: str
    kept: str
    skipped: str
    first: str
    first_utc: str
    last: str
    note: str


@dataclass(frozen=True)
class Difference:
    """What the native reader and Wireshark differ in, for one reason."""

    why: str
    explained: bool
    fields: str
    packets: str
    examples: str


@dataclass(frozen=True)
class Verified:
    """What ``verify`` found: a sentence per site, and all differences by reason."""

    sites: Sequence[tuple[Site, str]]
    differences: Sequence[Difference]


@dataclass(frozen=True)
class Quality:
    """Both tables; ``more`` captures are not listed. ``verified`` is None where nobody asked Wireshark."""

    sites: Sequence[SiteQuality]
    captures: Sequence[CaptureRow]
    more: int
    verified: Verified | None


def quality(results: Results) -> Quality:
    """All sites; of the captures at most 300, those with something to say first."""
    captures = [(site, facts) for site in results.newest_first for facts in site.captures]
    if len(captures) > MOST_ROWS:
        captures.sort(key=lambda one: not _note(*one))
    rows = [_capture(site, facts) for site, facts in captures[:MOST_ROWS]]
    return Quality([_site(site) for site in results.newest_first], rows, len(captures) - len(rows), verified(results))


def verified(results: Results) -> Verified | None:
    """The table of ``verify``, if there is one (docs/verify.md)."""
    verification = results.settings.get("verification")
    if verification is None:
        return None
    with Path(verification["table"]).open(encoding="utf-8", newline="") as table:
        rows = list(csv.DictReader(table))
    sites = []
    differing: dict[str, list[dict[str, str]]] = {}
    for site in results.newest_first:
        own = [row for row in rows if (row["experiment"], row["site"]) == site.key]
        if own:
            sites.append((site, _agreement(own)))
        for row in own:
            if row["outcome"] != "agrees":
                differing.setdefault(row["outcome"], []).append(row)
    return Verified(sites, [_difference(differing[outcome]) for outcome in sorted(differing)])


def _agreement(rows: Sequence[Mapping[str, str]]) -> str:
    """A site's result in a sentence."""
    of = f"{plural(int(rows[0]['compared']), 'packet')} of {plural(int(rows[0]['captures']), 'capture')} decoded by Wireshark, too"
    with_row = int(rows[0]["rows"])
    of += f", {count(with_row)} of them to or from a broker" if with_row else ", none of them to or from a broker"
    explained, left = (
        sum(int(row["packets"]) for row in rows if row["outcome"] != "agrees" and (row["outcome"] == "differs") == unexplained)
        for unexplained in (False, True)
    )
    if not explained and not left:
        return f"{of}: every field agrees" if with_row else f"{of}: there was little to compare"
    return f"{of}: {plural(explained + left, 'difference')}, " + (f"{count(left)} without an explanation" if left else "each explained")


def _difference(rows: Sequence[Mapping[str, str]]) -> Difference:
    """The differences of one reason, of all sites and fields."""
    explained = rows[0]["outcome"] != "differs"
    return Difference(
        why=rows[0]["explanation"] if explained else "not explained",
        explained=explained,
        fields=", ".join(dict.fromkeys(row["field"] for row in rows)),
        packets=count(sum(int(row["packets"]) for row in rows)),
        examples=rows[0]["examples"],
    )


def reason_words(reason: str) -> str:
    """Why packets were skipped, in words."""
    return SKIPPED_WORDS.get(reason, reason.replace("_", " "))


def _skipped(captures: Sequence[Mapping[str, Any]]) -> str:
    """Reasons and counts, the most frequent first."""
    total: dict[str, int] = {}
    for facts in captures:
        for reason, number in (facts.get("skipped") or {}).items():
            total[reason_words(reason)] = total.get(reason_words(reason), 0) + int(number)
    return ", ".join(f"{count(number)} {reason}" for reason, number in sorted(total.items(), key=lambda one: (-one[1], one[0])) if number)


def _note(site: Site, facts: Mapping[str, Any]) -> str:
    notes = []
    lost = site.metric("capture_loss", f"capture={facts.get('capture')}", "ratio_of_sums").value
    if lost:
        notes.append(f"{percent(lost, 2)} of acknowledged bytes not captured")
    if facts.get("truncated"):
        notes.append(f"cut short: {facts['truncated']}")
    notes += facts.get("notices") or []
    if facts.get("time_backsteps"):
        notes.append(f"time steps back {plural(int(facts['time_backsteps']), 'time')}")
    if not facts.get("packets"):
        notes.append("no packets")
    elif not facts.get("kept"):
        busiest = ", ".join(f"{endpoint} ({count(number)})" for endpoint, number in (facts.get("endpoints") or [])[:3])
        notes.append("nothing to or from the brokers" + (f"; busiest: {busiest}" if busiest else ""))
    if facts.get("capped_bytes"):
        notes.append(f"{count(facts['capped_bytes'])} bytes not kept for reading frames")
    odd = _counted({reason: int(number) for reason, number in (facts.get("odd") or {}).items()}, CAPTURE_ODDITIES)
    if odd:
        notes.append(f"Kafka by itself: {odd}")
    return "; ".join(notes)


def _capture(site: Site, facts: Mapping[str, Any]) -> CaptureRow:
    zone = site.zone
    return CaptureRow(
        site=site,
        capture=str(facts.get("capture")),
        format=str(facts.get("format") or NONE),
        packets=count(facts.get("packets")),
        kept=count(facts.get("kept")),
        skipped=_skipped([facts]) or "none",
        first=zone.stamp(_time(facts.get("first_seen"))),
        first_utc=utc_stamp(_time(facts.get("first_seen"))),
        last=zone.stamp(_time(facts.get("last_seen"))),
        note=_note(site, facts),
    )


def _time(value: Any) -> int | None:
    """A time of the capture facts; −1 and null are none."""
    return None if value is None or int(value) < 0 else int(value)


def _doubts(site: Site) -> list[str]:
    """What in the packets speaks against reading the figures as they stand."""
    doubts = []
    configured, found = str(site.facts["tap_configured"]), str(site.facts["tap_found"])
    if configured in ("client", "broker") and found not in (configured, "unknown"):
        doubts.append(
            f"configured as captured at the {configured}, but round trips say {found}: round trips and the broker's part of latency depend on it"
        )
    large = site.metric("large_segments", "all", "ratio_of_sums").value
    if large:
        doubts.append(
            f"{percent(large, 2)} of data segments are larger than the wire carries (offload): packets and segments counted are not those of the wire, bytes are"
        )
    copies, gap = site.metric("duplicates").value, site.metric("duplicate_gap", "all", "p50").value
    if copies:
        apart = f", half of them within {ms(gap)}" if gap is not None else ""
        doubts.append(f"{plural(int(copies), 'copy', 'copies')} of packets left out{apart}")
    twins = site.metric("nat_twins").value
    if twins:
        doubts.append(
            f"{plural(int(twins), 'connection')} captured under two addresses and counted twice: leave one of them out of the site's brokers"
        )
    return doubts


def _counted(numbers: Mapping[str, float], words: Mapping[str, str]) -> str:
    """``12 malformed, 3 SASL tokens``: what there is any of, the most frequent first."""
    found = sorted(
        ((words.get(kind, kind.replace("_", " ")), number) for kind, number in numbers.items() if number), key=lambda one: -one[1]
    )
    return ", ".join(f"{count(number)} {what}" for what, number in found)


def _decryption(site: Site) -> list[str]:
    """What the site's TLS keys opened, and why not the rest."""
    numbers = {name: int(site.metric("decryption", f"outcome={name}").value or 0) for name in OUTCOMES[1:]}
    tls = sum(numbers.values()) - numbers["not_tls"]
    if not any(numbers.values()):
        return []
    said = f"{count(numbers.pop('decrypted'))} of {plural(tls, 'TLS connection')} decrypted"
    rest = _counted(numbers, OUTCOME_WORDS)
    unread = site.metric("undecrypted_bytes", "all", "sum").value
    return [said + (f" ({rest})" if rest else "") + (f"; {size(unread)} of TLS stayed unread" if unread else "")]


def _unread(site: Site) -> list[str]:
    """What of Kafka could not be read, and why."""
    notes = _decryption(site)
    for metric, what in (("connections_encrypted", "encrypted"), ("connections_sasl", "with SASL")):
        connections = site.metric(metric)
        if connections.value:
            notes.append(f"{count(connections.value)} of {plural(connections.n, 'connection')} {what}")
    missing, share = site.metric("frame_bytes_missing", "all", "sum"), site.metric("frame_bytes_missing", "all", "ratio_of_sums")
    if missing.value:
        notes.append(f"{size(missing.value)} of frames not captured ({percent(share.value, 2)})")
    odd = _counted({kind: site.metric("frame_oddities", f"kind={kind}").value or 0.0 for kind in FRAME_ODDITIES}, FRAME_ODDITIES)
    if odd:
        notes.append(f"Kafka frames: {odd}")
    return notes


def _site(site: Site) -> SiteQuality:
    facts = site.facts
    frame = site.connections
    cut = [capture for capture in site.captures if capture.get("truncated")]
    notes = []
    if cut:
        notes.append(f"{plural(len(cut), 'capture')} cut short; the packets before the cut are used")
    notes += [*_doubts(site), *_unread(site)]
    undecided = int((frame["skipped_bytes_to_broker"] + frame["skipped_bytes_from_broker"]).sum()) if frame.height else 0
    payload = int((frame["payload_bytes_to_broker"] + frame["payload_bytes_from_broker"]).sum()) if frame.height else 0
    return SiteQuality(
        site=site,
        captures=count(facts["captures"]),
        kept=count(facts["packets_kept"]),
        skipped=count(facts["packets_skipped"]),
        skipped_why=_skipped(site.captures),
        first=site.zone.stamp(facts["first_seen"]),
        last=site.zone.stamp(facts["last_seen"]),
        started=f"{int(frame['started'].sum())} of {frame.height}" if frame.height else "none",
        tap=str(facts["tap_found"]),
        tap_configured=str(facts["tap_configured"]),
        loss=percent(facts["capture_loss"], 2),
        undecided=percent(undecided / payload, 2) if payload else NONE,
        notes=notes,
    )
