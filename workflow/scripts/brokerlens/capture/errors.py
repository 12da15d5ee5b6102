"""What is wrong with a capture, in words a user can act on."""

from __future__ import annotations

from brokerlens.errors import UserError


class CaptureError(UserError):
    """A file that cannot be used as a capture: the file, what was found, what was expected and what to do."""

    def __init__(
        self, path: str, found: str, expected: str = "a pcap or pcapng file, plain or as gzip, zstd, xz or bzip2", hint: str = ""
    ) -> None:
        """Word the message; ``hint`` is an extra thing to do that only this fault has."""
        advice = f"{hint} " if hint else ""
        super().__init__(
            f"{path}: found {found}; expected {expected}. {advice}Mend the file or take it out of `captures`: "
            "until then this site and the report wait; other captures and sites go on."
        )
