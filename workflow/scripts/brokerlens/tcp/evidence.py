"""Why a segment has its label: bits that say what spoke for it, kept beside the label so that anyone can weigh them again."""

from __future__ import annotations

from typing import Final

KINDS: Final = ("", "fast", "timeout", "tail_probe", "rack", "unknown")
"""What made a sender send a segment again."""
NO_KIND, FAST, TIMED_OUT, TAIL_PROBE, RACK, UNKNOWN = range(6)

# Bits, in the order of `tables.SEGMENT_EVIDENCE`.
DUPLICATE_ACKS: Final = 1 << 0
SELECTIVE_ACKS: Final = 1 << 1
TIMEOUT_PASSED: Final = 1 << 2
TAIL: Final = 1 << 3
ACKED_BEFORE: Final = 1 << 4
DSACK: Final = 1 << 5
EIFEL: Final = 1 << 6
ID_LATER: Final = 1 << 7
ID_EARLIER: Final = 1 << 8
STAMP_LATER: Final = 1 << 9
STAMP_EARLIER: Final = 1 << 10
SHORT_WAIT: Final = 1 << 11
LONG_WAIT: Final = 1 << 12
BEFORE_CAPTURE: Final = 1 << 13
CAPTURE_ORDER: Final = 1 << 14
LARGER_THAN_MSS: Final = 1 << 15

SPURIOUS: Final = ACKED_BEFORE | DSACK | EIFEL
"""Each of these says that what was sent again had arrived."""
