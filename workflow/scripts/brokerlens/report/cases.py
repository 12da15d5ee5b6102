"""The cases behind the worst figures: where their packets are, and how to look at them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from brokerlens.cases.words import RESET_KINDS, inert
from brokerlens.report.connections import MOST_ROWS, Value
from brokerlens.report.results import Results, Site
from brokerlens.report.words import count, ms, name, plural, size

HEADINGS = (
    ("Site", False),
    ("Case", False),
    ("What", False),
    ("Began", True),
    ("Connection", False),
    ("Capture and frames", False),
)
_PER_KIND = 5
_KINDS = 3


@dataclass(frozen=True)
class CaseRow:
    """One case: its cells, and a display filter per capture file that holds its packets (name, filter)."""

    cells: Sequence[Value]
    filters: Sequence[tuple[Markup, str]]


@dataclass(frozen=True)
class Cases:
    """The section; ``total`` counts the cases that are not written, too."""

    headings: Sequence[tuple[str, bool]]
    rows: Sequence[CaseRow]
    total: int


def cases(results: Results) -> Cases:
    """The cases of all sites, the latest experiment first; where the sites are many, the worst of each kind."""
    most = max(1, min(_PER_KIND, MOST_ROWS // (_KINDS * max(1, len(results.sites)))))
    rows = [CaseRow(_cells(site, row), _filters(row)) for site in results.newest_first for row in site.cases if _rank(row) <= most]
    return Cases(HEADINGS, rows[:MOST_ROWS], sum(len(site.cases) for site in results.sites))


def _rank(row: Mapping[str, Any]) -> int:
    return int(row["case"].rpartition("-")[2])


def _cells(site: Site, row: Mapping[str, Any]) -> list[Value]:
    return [
        Value(name(site.label)),
        Value(row["case"]),
        Value(_what(row)),
        Value(f"{site.zone.stamp(row['first_time'])}.{row['first_time'] // 1_000_000 % 1000:03d}", row["first_time"] / 1e6),
        Value(_two(name(row["connection_id"]), name(inert(row["client_id"])) if row["client_id"] is not None else "no client id")),
        Value(_where(row)),
    ]


def _what(row: Mapping[str, Any]) -> Markup:
    sender = "broker" if row["from_broker"] else "client"
    match row["kind"]:
        case "request":
            version = "" if row["api_version"] is None else f" v{row['api_version']}"
            return _two(
                Markup("{}{}: {}").format(name(inert(row["api_name"])), version, ms(row["latency_ms"])),
                f"correlation id {row['correlation_id']}",
            )
        case "reset":
            return _two(f"reset by the {sender}", RESET_KINDS.get(row["reset_kind"], RESET_KINDS[None]))
    worst = f"{size(row['worst_bytes'])} of them in this second"
    return _two(f"{size(row['lost_bytes'])} in {plural(row['lost_segments'], 'segment')} sent again by the {sender}", worst)


def _where(row: Mapping[str, Any]) -> Markup:
    """The file with the case's first and last frame, or both files where it goes on in another."""
    first, last = row["first_frame"], row["last_frame"]
    if row["first_capture"] != row["last_capture"]:
        begin = _two(name(row["first_capture"]), f"from frame {count(first)}")
        return begin + _two(name(row["last_capture"]), f"to frame {count(last)}")
    return _two(name(row["first_capture"]), f"frame {count(first)}" if first == last else f"frames {count(first)} to {count(last)}")


def _two(large: str | Markup, small: str) -> Markup:
    return Markup("{}<small>{}</small>").format(large, small)


def _filters(row: Mapping[str, Any]) -> list[tuple[Markup, str]]:
    return [
        (name(capture) if len(row["captures"]) > 1 else Markup(""), text)
        for capture, text in zip(row["captures"], row["filters"], strict=True)
    ]
