"""The connections that stand out, worst first: a table to sort and filter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl
from markupsafe import Markup

from brokerlens.report.results import Results, Site
from brokerlens.report.words import NONE, count, duration, name, percent, short, size

MOST_ROWS = 500


@dataclass(frozen=True)
class Value:
    """A cell: its text, and the number it is sorted by (None sorts last)."""

    text: str | Markup
    sort: float | None = None
    kind: str = ""


@dataclass(frozen=True)
class Connections:
    """Headings (with whether they hold numbers), rows, and how many connections there are in all."""

    headings: Sequence[tuple[str, bool]]
    rows: Sequence[Sequence[Value]]
    total: int


HEADINGS = (
    ("Site", False),
    ("Client", False),
    ("Client id", False),
    ("Broker", False),
    ("First seen", True),
    ("Lasted", True),
    ("Began", False),
    ("Ended", False),
    ("RTT p50, ms", True),
    ("RTT p95, ms", True),
    ("Lost", True),
    ("Lost share", True),
    ("Zero windows", True),
    ("Resets", True),
    ("To broker", True),
    ("From broker", True),
    ("Undecided bytes", True),
)


def connections(results: Results) -> Connections:
    """The connections with most trouble (segments lost, resets, zero windows), at most 500."""
    frames = [_with_trouble(site).with_columns(pl.lit(i).alias("place")) for i, site in enumerate(results.sites) if site.connections.height]
    if not frames:
        return Connections(HEADINGS, [], 0)
    together = pl.concat(frames, how="vertical_relaxed")
    worst = together.sort("trouble", "rtt_broker_p95_ms", "connection_id", descending=[True, True, False], nulls_last=True).head(MOST_ROWS)
    return Connections(HEADINGS, [_row(results.sites[row["place"]], row) for row in worst.iter_rows(named=True)], together.height)


def _sum(column: str) -> pl.Expr:
    return pl.col(f"{column}_to_broker") + pl.col(f"{column}_from_broker")


def _with_trouble(site: Site) -> pl.DataFrame:
    lost = _sum("retransmitted_segments") + _sum("filled_segments")
    return site.connections.with_columns(
        lost.alias("lost"),
        _sum("data_segments").alias("segments"),
        _sum("zero_window_episodes").alias("zero"),
        _sum("resets").alias("rst"),
        (lost + _sum("zero_window_episodes") + _sum("resets")).alias("trouble"),
    )


def address(ip: str, port: int) -> str:
    """``10.0.0.1:9092``, IPv6 in brackets."""
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def _row(site: Site, row: dict[str, object]) -> list[Value]:
    number = {key: value for key, value in row.items() if isinstance(value, (int, float))}
    first, last = int(number["first_seen"]), int(number["last_seen"])
    side = "client" if site.tap == "broker" else "broker"
    rtt50, rtt95 = number.get(f"rtt_{side}_p50_ms"), number.get(f"rtt_{side}_p95_ms")
    share = number["lost"] / number["segments"] if number["segments"] else None
    how = {"refused": "refused", "idle": "reset when idle"}.get(str(row["reset_kind"]), "reset")
    ended = {"fin": "closed", "reset": f"{how} by {row['reset_by']}" if row["reset_by"] else "reset", "open": "open"}.get(
        str(row["ended"]), str(row["ended"])
    )
    began = {"no_answer": "no answer", "half_open": "half open", "refused": "refused"}.get(str(row["setup"]))
    undecided = number["skipped_bytes_to_broker"] + number["skipped_bytes_from_broker"]
    return [
        Value(name(site.label)),
        Value(name(address(str(row["client_ip"]), int(number["client_port"])))),
        Value(name(row["client_id"]) if row["client_id"] is not None else NONE),
        Value(name(address(str(row["broker_ip"]), int(number["broker_port"])))),
        Value(site.zone.stamp(first), first / 1e6),
        Value(duration((last - first) / 1e9), (last - first) / 1e9),
        Value(began or ("seen" if row["started"] else "before"), None, "bad" if began else ""),
        Value(ended, None, "bad" if row["ended"] == "reset" else ""),
        Value(short(rtt50), rtt50),
        Value(short(rtt95), rtt95),
        Value(count(number["lost"]), number["lost"]),
        Value(percent(share), share, "bad" if (share or 0) >= 0.01 else ""),
        Value(count(number["zero"]), number["zero"], "bad" if number["zero"] else ""),
        Value(count(number["rst"]), number["rst"], "bad" if number["rst"] else ""),
        Value(size(number["payload_bytes_to_broker"]), number["payload_bytes_to_broker"]),
        Value(size(number["payload_bytes_from_broker"]), number["payload_bytes_from_broker"]),
        Value(size(undecided), undecided),
    ]
