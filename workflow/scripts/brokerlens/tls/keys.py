"""TLS key logs: which lines they have, and those that a set of connections needs. Nothing here shows a key, in an error or otherwise.

The format is that of NSS (draft-ietf-tls-keylogfile): a label, the connection's client random and a secret, both in hexadecimal digits, a line each.
"""

from __future__ import annotations

import os
import re
import stat
from collections import defaultdict
from collections.abc import Iterable
from typing import Final

from brokerlens.errors import UserError

LABELS: Final = (
    b"CLIENT_RANDOM",
    b"PMS_CLIENT_RANDOM",
    b"CLIENT_EARLY_TRAFFIC_SECRET",
    b"CLIENT_HANDSHAKE_TRAFFIC_SECRET",
    b"SERVER_HANDSHAKE_TRAFFIC_SECRET",
    b"CLIENT_TRAFFIC_SECRET_0",
    b"SERVER_TRAFFIC_SECRET_0",
)
OF_CONNECTION: Final = re.compile(rb"(?:" + b"|".join(LABELS) + rb") ([0-9a-fA-F]{64}) [0-9a-fA-F]+")
OF_SESSION: Final = re.compile(rb"RSA (?:Session-ID:[0-9a-fA-F]* Master-Key:[0-9a-fA-F]{96}|[0-9a-fA-F]{16} [0-9a-fA-F]{96})")
"""Keys that do not name a connection: of a session, or of an encrypted premaster secret."""
LONGEST_LINE: Final = 1 << 16
EXPECTED: Final = "lines such as CLIENT_RANDOM or CLIENT_TRAFFIC_SECRET_0, each with two long hexadecimal numbers"


class KeyLog:
    """The lines of one or more key logs by the connection that they are for. Other lines are passed over, as Wireshark does."""

    def __init__(self) -> None:
        self._of_connection: dict[bytes, set[bytes]] = defaultdict(set)
        self._of_session: set[bytes] = set()

    def add(self, lines: Iterable[bytes]) -> None:
        """Take the lines of a key log."""
        for line in lines:
            text = line.strip()
            if known := OF_CONNECTION.fullmatch(text):
                self._of_connection[bytes.fromhex(known[1].decode())].add(text)
            elif OF_SESSION.fullmatch(text):
                self._of_session.add(text)

    def __bool__(self) -> bool:
        return bool(self._of_connection or self._of_session)

    def may_open(self, client_random: bytes) -> bool:
        """Whether there may be a key for the connection whose ClientHello has this random number."""
        return bool(self._of_session) or client_random in self._of_connection

    def lines(self, client_randoms: Iterable[bytes]) -> list[bytes]:
        """The lines for these connections, without line ends."""
        own = {line for random in client_randoms for line in self._of_connection.get(random, ())}
        return sorted(own | self._of_session)


def read_key_log(path: str) -> KeyLog:
    """The keys of a file.

    Raises UserError where it cannot be read or has none.
    """
    keys = KeyLog()
    try:
        with open(path, "rb") as file:
            keys.add(iter(lambda: file.readline(LONGEST_LINE), b""))
    except OSError as error:
        raise UserError(unreadable(path, error)) from None
    if not keys:
        raise UserError(no_keys(path))
    return keys


def check_key_log(path: str) -> str | None:
    """What is wrong with a key log, None if it has a key."""
    try:
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # a pipe could be read once, if ever; a folder cannot be opened
            return f"{path} is not a file. Expected a TLS key log, which is read more than once."
        with open(path, "rb") as file:
            for line in iter(lambda: file.readline(LONGEST_LINE), b""):
                if OF_CONNECTION.fullmatch(line.strip()) or OF_SESSION.fullmatch(line.strip()):
                    return None
    except OSError as error:
        return unreadable(path, error)
    return no_keys(path)


def unreadable(path: str, error: OSError) -> str:
    """The message that a key log cannot be read."""
    return f"{path} cannot be read: {error.strerror}. Expected a TLS key log."


def no_keys(path: str) -> str:
    """The message that a file is no key log."""
    return f"{path} holds no TLS key; expected {EXPECTED}. docs/tls.md says how programs write one."
