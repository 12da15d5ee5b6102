"""The table of agreements and differences between the native reader and Wireshark: a row per site, field and outcome."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from brokerlens.wireshark.agreement import AGREES, COMPARED, DIFFERS, EXAMPLES, RULES

COLUMNS: Final = ("experiment", "site", "captures", "compared", "rows", "field", "outcome", "explanation", "packets", "examples")
EXPLANATIONS: Final = {rule.name: rule.says for rule in RULES}


def tabulate(found: Sequence[str], sites: Sequence[Sequence[str]]) -> str:
    """The table, as CSV, of the captures whose results these files hold; ``sites`` has experiment and site of each."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for experiment, site in sorted({(experiment, site) for experiment, site in sites}):
        captures = [
            json.loads(Path(path).read_text(encoding="utf-8"))
            for path, of in zip(found, sites, strict=True)
            if tuple(of) == (experiment, site)
        ]
        about = {
            "experiment": experiment,
            "site": site,
            "captures": len(captures),
            "compared": sum(capture["compared"] for capture in captures),
            "rows": sum(capture["rows"] for capture in captures),
        }
        for field in COMPARED:
            writer.writerows(about | row for row in _field(field, captures))
    return text.getvalue()


def _field(field: str, captures: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of one field: agreements first."""
    agrees = sum(capture["fields"][field]["agrees"] for capture in captures)
    rows = [{"field": field, "outcome": AGREES, "explanation": "", "packets": agrees, "examples": ""}]
    rules = sorted({rule for capture in captures for rule in capture["fields"][field]["differences"]})
    for rule in rules:
        found = [(capture["capture"], capture["fields"][field]["differences"].get(rule)) for capture in captures]
        counted = [(capture, difference) for capture, difference in found if difference]
        examples = [
            f"{capture}, frame {one['frame_number']}: native {one['native']}, Wireshark {one['wireshark']}"
            for capture, difference in counted
            for one in difference["examples"]
        ]
        packets = sum(difference["count"] for _, difference in counted)
        rows.append(
            {
                "field": field,
                "outcome": rule,
                "explanation": EXPLANATIONS.get(rule, ""),
                "packets": packets,
                "examples": "; ".join(examples[:EXAMPLES]),
            }
        )
    return rows


def read(text: str) -> list[dict[str, str]]:
    """The table's rows."""
    return list(csv.DictReader(io.StringIO(text)))


def unexplained(rows: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """The rows of differences that no rule explains."""
    return [row for row in rows if row["outcome"] == DIFFERS]
