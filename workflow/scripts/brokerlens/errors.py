"""Errors that a user can act on: one message, no traceback; and strangers' texts in messages."""

from __future__ import annotations

LONGEST = 300  # characters of a name that a message shows
LONGEST_MESSAGE = 4_000


def inert(text: str, longest: int = LONGEST) -> str:
    """A text that may come from anywhere, for a terminal or a log: on one line, nothing in it that a terminal obeys, at most about ``longest`` characters.

    What cannot be printed is shown as Python would write it (``\\n``, ``\\x1b``).
    """
    shown = text if len(text) <= longest else f"{text[: longest - longest // 3]} … {text[-longest // 3 :]}"
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape", "surrogatepass").decode() for character in shown
    )


class UserError(Exception):
    """What was found, what was expected, and what to do; shown as it stands, without a traceback."""
