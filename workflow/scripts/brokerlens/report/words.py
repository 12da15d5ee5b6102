"""Numbers and names as the page writes them: comma for thousands, real minus, a space before units, names as plain text."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Sequence

from markupsafe import Markup, escape

from brokerlens.statistics import sentences as sentences_of_rows

NONE = "–"
_BIDI = frozenset("\u061c\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")


def visible(name: str) -> str:
    """The name with control, bidirectional and unpaired characters written as escapes, so that what is shown is what is there."""
    return "".join(
        char.encode("unicode_escape").decode("ascii") if char in _BIDI or unicodedata.category(char) in {"Cc", "Cs", "Co", "Cn"} else char
        for char in name
    )


def name(text: object) -> Markup:
    """A name from the data as HTML: escaped, isolated from the direction of the text around it."""
    return Markup("<bdi>") + escape(visible(str(text))) + Markup("</bdi>")


def fixed(value: float | None, digits: int = 0, *, sign: bool = False) -> str:
    """A number with that many decimals; an en dash for none."""
    return NONE if value is None or not math.isfinite(value) else sentences_of_rows.fixed(value, digits, sign=sign)


def digits_of(value: float | None) -> int:
    """Decimals that give the value three digits, at most three decimals."""
    return min(3, sentences_of_rows.decimals(value))


def digits_for(value: float | None, low: float | None, high: float | None) -> int:
    """Decimals where the interval's bounds begin to differ, at most three: more would say nothing."""
    return min(3, sentences_of_rows.decimals(value, low, high))


def short(value: float | None, *, sign: bool = False) -> str:
    """A number with about three digits."""
    return fixed(value, digits_of(value), sign=sign)


def ms(value: float | None) -> str:
    """A duration in ms, with its unit."""
    return NONE if value is None else f"{short(value)} ms"


def count(value: float | None) -> str:
    """A whole number."""
    return fixed(value, 0)


def percent(share: float | None, digits: int = 1) -> str:
    """A share as a percentage; enough decimals that what is not zero does not look like it."""
    if share is None:
        return NONE
    if share == 0:
        return "0 %"
    value = 100 * share
    while 0 < value < 0.5 * 10**-digits and digits < 3:
        digits += 1
    return f"{fixed(value, digits)} %"


def plural(number: int, word: str, words: str | None = None) -> str:
    """``1 capture``, ``36 captures``."""
    return f"{count(number)} {word if number == 1 else words or word + 's'}"


def listed(items: Sequence[str | Markup], joiner: str = "and") -> Markup:
    """``a, b and c``; the items keep their markup."""
    parts = [escape(item) for item in items]
    if len(parts) < 2:
        return Markup("").join(parts)
    return Markup(", ").join(parts[:-1]) + f" {joiner} " + parts[-1]


def most(items: Sequence[str | Markup], at_most: int = 3) -> Markup:
    """The first few, and how many more there are."""
    if len(items) <= at_most:
        return listed(items)
    return Markup(", ").join(escape(item) for item in items[:at_most]) + f" and {len(items) - at_most} more"


def sentences(parts: Iterable[Markup | str]) -> Markup:
    """Sentences one after another."""
    return Markup(" ").join(escape(part) for part in parts if part)


def strong(text: str | Markup) -> Markup:
    """The words that decide."""
    return Markup("<strong>") + escape(text) + Markup("</strong>")


def grey(text: str | Markup) -> Markup:
    """What stands beside: intervals, small print."""
    return Markup('<span class="soft">') + escape(text) + Markup("</span>")


def size(value: float | None) -> str:
    """Bytes, in the unit that leaves one to four digits (1 kB = 1,000 bytes)."""
    if value is None:
        return NONE
    for unit in ("B", "kB", "MB", "GB"):
        if abs(value) < 10_000:
            return f"{short(value) if unit != 'B' else count(value)} {unit}"
        value /= 1000
    return f"{short(value)} TB"


def duration(seconds: float | None) -> str:
    """A length of time in the unit people would use."""
    if seconds is None:
        return NONE
    if seconds < 120:
        return f"{fixed(seconds, 0 if seconds >= 10 or seconds == int(seconds) else 1)} s"
    if seconds < 7200:
        whole, rest = divmod(round(seconds), 60)
        return f"{whole} min {rest} s" if rest else f"{whole} min"
    return f"{short(seconds / 3600)} h"
