"""The first packets of captures: what they are, whose packets they hold, when they begin.

A bounded part of each is read, whatever its size, and of many captures of a site only some, evenly spread over their names. What follows from that
alone is said as such.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from brokerlens.capture.columns import new_columns
from brokerlens.capture.errors import CaptureError
from brokerlens.capture.headers import END_COLUMNS, FIELDS, read_headers
from brokerlens.capture.layers import LINK_TYPES, SKIPPED, UNKNOWN_LINK, header_of
from brokerlens.capture.lookup import broker_table, busiest, new_endpoints
from brokerlens.capture.reader import Capture
from brokerlens.doctor.findings import Finding
from brokerlens.remote import is_remote
from brokerlens.report.zones import Zone
from brokerlens.wireshark import tools

LOOKED_AT: Final = 8  # captures of a site
MOST_PACKETS: Final = 1000  # of a capture
FEWEST_PACKETS: Final = 100
ALL_PACKETS: Final = 20_000  # of all captures together, about: without the compiler a packet takes 0.1 ms
LIMIT: Final = 4 << 20  # bytes of a capture, decompressed
CHUNK: Final = 1 << 16
RECORD: Final = 16  # bytes before each packet in a pcap file
SHOWN: Final = 5  # faulty captures that are named
LINKS: Final = {0: "loopback", 1: "Ethernet", 9: "PPP", 12: "raw IP", 14: "raw IP", 50: "PPP", 51: "PPPoE", 101: "raw IP", 108: "loopback",
                113: "Linux cooked", 228: "raw IPv4", 229: "raw IPv6", 276: "Linux cooked v2"}  # fmt: skip


class Glance(NamedTuple):
    """What the beginning of a capture tells. Times in ns since 1970 UTC, None where there are none."""

    name: str
    bytes: int
    error: str = ""
    """Why it cannot be read; then the rest means nothing."""
    format: str = ""
    compressed: bool = False
    links: tuple[int, ...] = ()
    unknown_links: int = 0
    """Packets of a link type that the native reader does not know."""
    packets: int = 0
    """Packets looked at."""
    kept: int = 0
    """Those to or from the brokers."""
    size: float = 0.0
    """Mean bytes of a packet in the file, decompressed; 0 without packets."""
    first: int | None = None
    last: int | None = None
    """When the capture ends: as read where it was read to its end, else at the pace of its beginning; None where that cannot be said."""
    whole: bool = False
    """Whether all of its packets were looked at."""
    endpoints: tuple[tuple[str, int], ...] = ()
    """TCP endpoints and their packets, busiest first, where no packet was the brokers'."""
    secrets: int = 0


def chosen(count: int, most: int = LOOKED_AT) -> list[int]:
    """The places of at most ``most`` of ``count`` things, first and last among them, evenly spread."""
    return sorted({round(place * (count - 1) / (min(count, most) - 1)) for place in range(min(count, most))}) if count > 1 else [0] * count


def glance(path: str, name: str, size: int, brokers: Sequence[str], packets: int) -> Glance:
    """Look at a capture's first ``packets`` packets, at most; whatever the file is."""
    try:
        return _glance(path, name, size, brokers, packets)
    except CaptureError as error:
        return Glance(name, size, error=str(error))
    except Exception as error:  # no file may keep the doctor from looking at the next one
        return Glance(name, size, error=f"{path}: reading failed: {type(error).__name__}: {error}")


def _glance(path: str, name: str, size: int, brokers: Sequence[str], packets: int) -> Glance:
    capture = Capture(path, CHUNK, limit=LIMIT)
    table, endpoints = broker_table(brokers), new_endpoints()
    skipped, fields = np.zeros(len(SKIPPED), np.int64), np.zeros(FIELDS, np.int64)
    columns, ends, payload_at = new_columns(packets), np.zeros((packets, END_COLUMNS), np.int64), np.zeros(packets, np.int64)
    seen = kept = passed = 0
    chunks = capture.chunks()
    try:
        for chunk in chunks:
            count = min(chunk.found, packets - seen)
            _, kept = read_headers(
                chunk.buffer, chunk.packets, 0, count, chunk.frame_number, table, endpoints, True, columns, kept, ends, payload_at, skipped, fields
            )  # fmt: skip
            seen += count
            passed += int(chunk.packets.captured[: chunk.found].sum()) + RECORD * chunk.found
            if seen == packets:
                break
        whole = seen == capture.packets and next(chunks, None) is None and not capture.cut
    except CaptureError:
        if not capture.cut:
            raise
        whole = False  # what was to come before the first packet is longer than what is read
    chunks.close()
    times = capture.first_time >= 0
    return Glance(
        name=name,
        bytes=size,
        format=capture.format,
        compressed=bool(capture.compression),
        links=tuple(sorted(capture.links)),
        unknown_links=int(skipped[UNKNOWN_LINK]),
        packets=seen,
        kept=kept,
        size=passed / capture.packets if capture.packets else 0.0,
        first=capture.first_time if times else None,
        last=_last(capture, size, passed, whole) if times else None,
        whole=whole,
        endpoints=tuple(busiest(endpoints)) if not kept else (),
        secrets=capture.secrets,
    )


def _last(capture: Capture, size: int, passed: int, whole: bool) -> int | None:
    """The last packet's time, where the file was read to its end, or at the pace of its beginning."""
    if whole:
        return capture.last_time
    if capture.compression or not passed:
        return None
    return capture.first_time + int((capture.last_time - capture.first_time) * max(size / passed, 1))


class Stretch(NamedTuple):
    """From when to when a site was captured, as far as can be told; ns since 1970 UTC."""

    begin: int
    end: int
    certain: bool
    """Whether all captures were read to their end."""


def stretch_of(glances: Sequence[Glance], captures: int) -> Stretch | None:
    """A site's stretch; None where no packet has a time.

    Where the last capture's end cannot be told, it takes as long as the one before.
    """
    timed = sorted((look.first, look.last) for look in glances if look.first is not None and look.last is not None)
    begins = sorted(look.first for look in glances if look.first is not None)
    if not begins:
        return None
    end = max([last for _, last in timed] + [begins[-1] + (begins[-1] - begins[-2] if len(begins) > 1 else 0)])
    return Stretch(begins[0], end, len(glances) == captures and all(look.whole for look in glances))


def look_at_site(site: Mapping[str, Any], packets: int) -> list[Glance]:
    """Look at some of a site's captures, or all; at none of a storage's."""
    here = [capture for capture in site["captures"] if not is_remote(capture["path"])]
    return [glance(here[place]["path"], here[place]["name"], here[place]["bytes"], site["brokers"], packets) for place in chosen(len(here))]


def packets_each(sites: Sequence[Mapping[str, Any]]) -> int:
    """How many packets of a capture to look at, so that all takes seconds."""
    looks = sum(min(len(site["captures"]), LOOKED_AT) for site in sites)
    return max(FEWEST_PACKETS, min(MOST_PACKETS, ALL_PACKETS // max(looks, 1)))


def describe(site: Mapping[str, Any], glances: Sequence[Glance], zone: Zone) -> list[Finding]:
    """What a site's captures are, and what is wrong with them."""
    about = f"{site['experiment']}/{site['site']}"
    captures = site["captures"]
    remote = [capture for capture in captures if is_remote(capture["path"])]
    findings = []
    if remote:
        size = sum(capture["bytes"] for capture in remote)
        findings.append(
            Finding(
                "ok",
                about,
                f"{_captures(len(remote))}, {size / 1e6:,.1f} MB in a storage: found there, and not looked into, which would fetch them",
            )
        )
    here = len(captures) - len(remote)
    sound = [look for look in glances if not look.error]
    if sound:
        sampled = "" if len(glances) == here else f", of which {len(glances)} were looked at, evenly spread over their names"
        formats = ", ".join(sorted({look.format for look in sound}))
        links = sorted({link for look in sound for link in look.links})
        named = ", ".join(f"{LINKS[link]} (link type {link})" if link in LINKS else f"link type {link}" for link in links) or "no packets"
        begins = [look.first for look in sound if look.first is not None]
        begin = f", first packet at {zone.stamp(min(begins))} ({zone.words(min(begins))})" if begins else ""
        size = sum(capture["bytes"] for capture in captures if not is_remote(capture["path"]))
        findings.append(Finding("ok", about, f"{_captures(here)}, {size / 1e6:,.1f} MB{sampled}: {formats}; {named}{begin}"))
    faulty = [look for look in glances if look.error]
    findings += [Finding("problem", about, look.error) for look in faulty[:SHOWN]]
    if len(faulty) > SHOWN:
        findings.append(Finding("problem", about, f"{len(faulty) - SHOWN} more captures cannot be read"))
    return [
        *findings,
        *_link_types(site, sound, about),
        *_secrets(site, sound, about),
        *_brokers(site, sound, about, certain=len(sound) == len(captures)),
    ]


def _captures(count: int) -> str:
    return f"{count:,} capture{'' if count == 1 else 's'}"


def _link_types(site: Mapping[str, Any], glances: Sequence[Glance], about: str) -> list[Finding]:
    unknown = sorted({link for look in glances if look.unknown_links for link in look.links if header_of(LINK_TYPES, link) < 0})
    if not unknown or site["decoder"] == "wireshark":
        return []
    text = f"packets of link type {', '.join(map(str, unknown))}, which only Wireshark may know"
    if tools.installed():
        return [Finding("note", about, f"{text}: it will be asked, which takes a hundred times longer")]
    return [Finding("note", about, f"{text}: without it they are skipped", f"Install it: {tools.INSTALL}.")]


def _secrets(site: Mapping[str, Any], glances: Sequence[Glance], about: str) -> list[Finding]:
    if site["keys"] or not any(look.secrets for look in glances):
        return []
    return [Finding("note", about, "the captures hold TLS keys that are not used", "Set the site's `tls_keylog` to `captures`.")]


def _brokers(site: Mapping[str, Any], glances: Sequence[Glance], about: str, *, certain: bool) -> list[Finding]:
    """Whether the brokers are in the captures, as far as they were looked at."""
    packets, kept = sum(look.packets for look in glances), sum(look.kept for look in glances)
    brokers = ", ".join(site["brokers"])
    if not packets:
        return []
    whole = certain and all(look.whole for look in glances)
    where = f"all {packets:,} packets" if whole else f"the first {packets:,} packets of {_captures(len(glances))}"
    if kept:
        return [Finding("ok", about, f"{kept:,} of {where} are to or from {brokers}")]
    if site["decoder"] == "wireshark":
        return [Finding("note", about, f"{brokers} is in none of {where}, as far as the native reader knows")]
    counts: Counter[str] = Counter()
    for look in glances:
        counts.update(dict(look.endpoints))
    busy = ", ".join(f"{end} ({count:,})" for end, count in counts.most_common(5))
    return [
        Finding(
            "problem" if whole else "note",
            about,
            f"{brokers}: in none of {where}. " + (f"Busiest TCP endpoints there: {busy}" if busy else "There is no TCP in them"),
            "If one of these is the broker, put it into the site's `brokers`: captures show addresses as the packets have them, behind address translation others than "
            "clients are given.",
        )
    ]  # fmt: skip
