"""How long a run may take and how much disk it may need, from what packets cost on the machines where that was measured (docs/performance.md)."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from brokerlens.doctor.captures import Glance
from brokerlens.doctor.findings import Finding

READ: Final = {"native": 0.6e-6, "wireshark": 80e-6}
"""Seconds of a core that reading a packet takes, by decoder."""
FOLLOW: Final = 15e-6
"""Seconds of a core that a broker's packet takes behind that: merge, metrics, comparisons, report."""
JOB: Final = 0.65
"""Seconds of a core that each capture's job takes beside its packets."""
REST: Final = 30.0
"""Seconds that a run of the least takes."""
DISK: Final = 150
"""Bytes that a broker's packet leaves in results/, working files among them."""
LEAST_DISK: Final = 10e6
"""Bytes of the report with its figures, about."""
COMPRESSION: Final = 4
"""Times that a compressed capture is longer decompressed: a guess, since only that tells."""
UNKNOWN_PACKET: Final = 200
"""Bytes of a packet where none was looked at."""


def packets_of(site: Mapping[str, Any], glances: Sequence[Glance]) -> tuple[float, float]:
    """Packets of a site's captures, and those of its brokers: by the sizes and the share seen in the captures looked at. Where none was, all are the brokers'."""
    sound = [look for look in glances if look.packets]
    seen = sum(look.packets for look in sound)
    size = sum(look.size * look.packets for look in sound) / seen if seen else UNKNOWN_PACKET
    total = sum(capture["bytes"] for capture in site["captures"])
    looked = sum(look.bytes for look in sound)
    longer = sum(look.bytes * (COMPRESSION if look.compressed else 1) for look in sound) / looked if looked else 1.0
    packets = total * longer / size
    share = sum(look.kept for look in sound) / seen if seen else 1.0
    return packets, packets * share


def describe(sites: Sequence[Mapping[str, Any]], glances: Sequence[Sequence[Glance]], cores: int, results: Path) -> list[Finding]:
    """Time and disk of a whole run from scratch."""
    counts = [packets_of(site, looks) for site, looks in zip(sites, glances, strict=True)]
    work = [
        (packets * READ[site["decoder"]] + JOB * len(site["captures"]), kept * FOLLOW)
        for site, (packets, kept) in zip(sites, counts, strict=True)
    ]
    total = sum(read + follow for read, follow in work)
    longest = max((follow for _, follow in work), default=0.0)
    seconds = REST + max(total / cores, longest)
    disk = LEAST_DISK + sum(kept for _, kept in counts) * DISK
    findings = [
        Finding(
            "ok",
            "estimate",
            f"{'a minute' if seconds < 90 else _duration(seconds)} for a whole run with {cores} core{'' if cores == 1 else 's'}, from about "
            f"{_rounded(sum(packets for packets, _ in counts))} packets; a guess by what packets cost elsewhere, right within a factor of three or so",
        )
    ]
    there = next(path for path in (results, *results.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    text = f"about {_size(disk)} of disk for results, of {_size(free)} that are free in {there.absolute()}"
    if disk > free:
        return [*findings, Finding("problem", "estimate", text, "Free some, or choose another folder with --directory.")]
    return [*findings, Finding("note" if disk > free / 2 else "ok", "estimate", text)]


def _duration(seconds: float) -> str:
    return f"{seconds / 60:,.0f} minutes" if seconds < 5400 else f"{seconds / 3600:,.1f} hours"


def _rounded(number: float) -> str:
    return f"{float(f'{number:.1e}'):,.0f}"


def _size(size: float) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.0f} MB"
