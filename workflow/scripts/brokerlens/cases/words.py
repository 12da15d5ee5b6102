"""A case in words: one line of plain text of bounded length, whatever names the capture has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from brokerlens import errors

RESET_KINDS: Final[Mapping[str | None, str]] = {
    "abort": "in the middle of the connection",
    "idle": "after it had been idle",
    "refused": "in answer to the SYN",
    "after_fin": "after the sender had closed",
    None: "for an unknown reason",
}
"""`connections.reset_kind` in words, what says most about a fault first."""
LONGEST_NAME: Final = 120


def inert(text: str) -> str:
    """A name from a capture in one line: what cannot be printed as an escape, the backslash too, and of a long one the beginning."""
    begin = text[:LONGEST_NAME]
    shown = errors.inert(begin.replace("\\", r"\\"), longest=2 * LONGEST_NAME)
    return f"{shown}…" if len(text) > LONGEST_NAME else shown


def sentence(row: Mapping[str, Any]) -> str:
    """A row of `cases` in words, in one line of plain text of bounded length."""
    client = f" of client {inert(row['client_id'])}" if row["client_id"] is not None else ""
    sender = "broker" if row["from_broker"] else "client"
    if row["kind"] == "request":
        version = f" v{row['api_version']}" if row["api_version"] is not None else ""
        return (
            f"{inert(row['api_name'])}{version}, correlation id {row['correlation_id']}{client}: answered after {row['latency_ms']:,.1f} ms"
        )
    if row["kind"] == "reset":
        return f"connection{client}: reset by the {sender} {RESET_KINDS.get(row['reset_kind'], RESET_KINDS[None])}"
    return (
        f"connection{client}: {row['lost_bytes']:,} bytes in {_segments(row['lost_segments'])} sent again by the {sender}, "
        f"{row['worst_bytes']:,} in {row['worst_segments']:,} of them within this second"
    )


def _segments(number: int) -> str:
    return f"{number:,} segment{'' if number == 1 else 's'}"
