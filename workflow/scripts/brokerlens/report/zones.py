"""Local time for people and for Vega's axes.

Vega knows only the browser's time zone and UTC. The axes therefore get *local wall time as if it were UTC*, drawn on a UTC scale,
and each row carries the true UTC time for its tooltip.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
from numpy.typing import NDArray

_OFFSET = re.compile(r"([+-])(\d{2}):?(\d{2})")
_SECOND = 1_000_000_000


@dataclass(frozen=True)
class Zone:
    """A time zone: an IANA name (``America/Sao_Paulo``) or a fixed offset (``-03:00``, ``+05:30``)."""

    name: str

    @property
    def info(self) -> tzinfo:
        """The zone as Python knows it; UTC for a name that this machine's database does not have."""
        found = _OFFSET.fullmatch(self.name)
        if found:
            offset = timedelta(hours=int(found[2]), minutes=int(found[3]))
            return timezone(-offset if found[1] == "-" else offset)
        try:
            return ZoneInfo(self.name)
        except (ZoneInfoNotFoundError, ValueError):
            return UTC

    def local(self, ns: int) -> datetime:
        """Local time of nanoseconds since 1970 UTC (microseconds kept)."""
        second, rest = divmod(int(ns), _SECOND)
        return (datetime.fromtimestamp(second, UTC) + timedelta(microseconds=rest // 1000)).astimezone(self.info)

    def wall_ms(self, ns: NDArray[np.int64]) -> NDArray[np.int64]:
        """Local wall time as if it were UTC, in ms since 1970, for each of the times; the offset is looked up per hour."""
        times = np.asarray(ns, dtype=np.int64)
        hours, which = np.unique(times // (900 * _SECOND), return_inverse=True)
        offsets = np.array([self._offset_ms(int(hour) * 900 * _SECOND) for hour in hours], dtype=np.int64)
        return times // 1_000_000 + (offsets[which] if len(offsets) else 0)

    def _offset_ms(self, ns: int) -> int:
        offset = self.local(ns).utcoffset()
        return 0 if offset is None else int(offset.total_seconds() * 1000)

    def words(self, ns: int | None) -> str:
        """The zone in words at that moment: ``UTC−03:00``, with the name where it has one."""
        minutes = 0 if ns is None else self._offset_ms(ns) // 60_000
        sign = "−" if minutes < 0 else "+"
        offset = "UTC" if minutes == 0 else f"UTC{sign}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d}"
        named = not _OFFSET.fullmatch(self.name) and self.name.upper() != "UTC"
        return f"{self.name} ({offset})" if named else offset

    def clock(self, ns: int, *, seconds: bool = True) -> str:
        """Local time of day."""
        return self.local(ns).strftime("%H:%M:%S" if seconds else "%H:%M")

    def clocks(self, start: int, end: int) -> str:
        """From and to as local times of day, with the decimals that tell the ends of a short stretch apart."""
        length = end - start
        digits = 0 if length >= 10 * _SECOND else 3 if length >= _SECOND // 100 else 6
        first, last = (
            f"{self.clock(ns)}.{self.local(ns).microsecond:06d}"[: 9 + digits] if digits else self.clock(ns) for ns in (start, end)
        )
        return f"{first} to {last}"

    def date(self, ns: int) -> str:
        """Local date, ``26 December 2025``."""
        moment = self.local(ns)
        return f"{moment.day} {moment:%B %Y}"

    def stamp(self, ns: int | None) -> str:
        """Local date and time, sortable; an en dash where there is none."""
        return "–" if ns is None else self.local(ns).strftime("%Y-%m-%d %H:%M:%S")

    def span(self, start: int, end: int) -> str:
        """From and to, the date said once where both are on one day."""
        if self.date(start) == self.date(end):
            return f"{self.date(start)}, {self.clocks(start, end)}"
        return f"{self.date(start)}, {self.clock(start)} to {self.date(end)}, {self.clock(end)}"


def utc_stamp(ns: int | None) -> str:
    """UTC date and time with milliseconds; an en dash where there is none."""
    if ns is None:
        return "–"
    second, rest = divmod(int(ns), _SECOND)
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%d %H:%M:%S") + f".{rest // 1_000_000:03d} UTC"
