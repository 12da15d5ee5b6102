"""Errors that a user can act on: one message, no traceback."""

from __future__ import annotations


class UserError(Exception):
    """What was found, what was expected, and what to do; shown as it stands, without a traceback."""
