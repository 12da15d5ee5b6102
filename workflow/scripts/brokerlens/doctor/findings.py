"""What the doctor found, and how it says so."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

from brokerlens.errors import inert

WIDTH: Final = 150
LONGEST: Final = 1500  # characters: enough for a message that names a path twice


class Finding(NamedTuple):
    """One thing that was looked at. A ``problem`` would end a run, or leave it without figures; a ``note`` is worth knowing."""

    level: Literal["ok", "note", "problem"]
    about: str
    text: str
    do: str = ""
    """The next step."""


def as_text(findings: Sequence[Finding]) -> str:
    """The findings for a terminal, one behind the other; names in them are shown so that the terminal obeys none."""
    return "".join(f"{_lines(finding)}\n" for finding in findings)


def counted(findings: Sequence[Finding]) -> str:
    """How many problems and notes there are."""
    problems, notes = (sum(finding.level == level for finding in findings) for level in ("problem", "note"))
    return f"doctor: {_count(problems, 'problem')}, {_count(notes, 'note')}\n"


def _lines(finding: Finding) -> str:
    texts = [f"{inert(finding.about)}: {inert(finding.text, LONGEST)}"] + ([f"→ {inert(finding.do, LONGEST)}"] if finding.do else [])
    indented = textwrap.wrap(texts[0], WIDTH, initial_indent=f"{finding.level:<9}", subsequent_indent=" " * 9)
    for text in texts[1:]:
        indented += textwrap.wrap(text, WIDTH, initial_indent=" " * 9, subsequent_indent=" " * 11)
    return "\n".join(indented)


def _count(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"
