"""What makes a place in a stream a frame's beginning, and a chain of frames believable.

The split and the merge ask the same questions here, so that a chain which the merge gives up is one that the split had given up (and kept whole).
The rules are those of the scan: plausible headers, one client id, rising correlation ids; answers belong to requests in their order.
"""

from __future__ import annotations

from typing import Final

from brokerlens.capture.compiled import kernel
from brokerlens.kafka.machine import CLIENT_LIMIT, REQUEST_LIMIT, Bytes, Int64s, known_api, signed

# Steps that a client's correlation id may take: Java counts once for all its connections.
ID_STEP: Final = 65_535
# Ids that Java sets aside for authenticating again (SaslClientAuthenticator): outside the count.
RESERVED_FIRST, RESERVED_LAST = 2_147_483_640, 2_147_483_647
# Length, key, version, correlation id, length of the client id.
HEAD_BYTES: Final = 14
# A header that can be judged at a glance: with its client id.
HEADER_BYTES: Final = HEAD_BYTES + CLIENT_LIMIT

# Places in the array that `read_header` fills.
H_SIZE, H_KEY, H_VERSION, H_ID, H_CLIENT, H_BYTES = range(6)
HEADER_FACTS: Final = 6


@kernel
def read_header(source: Bytes, at: int, end: int, memory: Int64s, facts: Int64s) -> bool:
    """A plausible request frame begins at source[at], its whole header before `end`: its facts are in `facts`.

    Plausible: the length fits a header and a broker's limit, key and version are (or may become) known, the client id is printable UTF-8.
    """
    if end - at < HEAD_BYTES or at < 0:
        return False
    size = signed(source, at, 4)
    key = signed(source, at + 4, 2)
    version = signed(source, at + 6, 2)
    client = signed(source, at + 12, 2)
    if size < HEAD_BYTES - 4 or size > REQUEST_LIMIT or not known_api(key, version, memory):
        return False
    if client < -1 or client > CLIENT_LIMIT or HEAD_BYTES - 4 + client > size or at + HEAD_BYTES + client > end:
        return False
    value = client + 2
    expected = 0
    for i in range(client):
        byte = int(source[at + HEAD_BYTES + i])
        value = (value * 257 + byte + 1) & 0xFFFFFFFFFFFF
        if expected > 0:
            if byte & 0xC0 != 0x80:
                return False
            expected -= 1
        elif byte >= 0x80:
            if byte < 0xC2 or byte > 0xF4:
                return False
            expected = 1 + (byte >= 0xE0) + (byte >= 0xF0)
        elif byte < 0x20 or byte == 0x7F:
            return False
    if expected > 0:
        return False
    facts[H_SIZE] = size
    facts[H_KEY] = key
    facts[H_VERSION] = version
    facts[H_ID] = signed(source, at + 8, 4)
    facts[H_CLIENT] = value
    facts[H_BYTES] = HEAD_BYTES + max(client, 0)
    return True


@kernel
def is_reserved(correlation: int) -> bool:
    """An id from outside the client's count."""
    return RESERVED_FIRST <= correlation <= RESERVED_LAST


@kernel
def rises(before: int, after: int) -> bool:
    """The id goes on from the one before, modulo 2^32."""
    step = (after - before) & 0xFFFFFFFF
    return 1 <= step <= ID_STEP


@kernel
def is_tls_hello(source: Bytes, at: int, end: int) -> bool:
    """A TLS handshake record (RFC 8446, 5.1) begins here: as Kafka's length prefix it would be beyond every limit."""
    return end - at >= 3 and source[at] == 0x16 and source[at + 1] == 3 and source[at + 2] <= 4


@kernel
def tls_record(source: Bytes, at: int, end: int) -> int:
    """Bytes of the TLS record that begins here with its header, 0 where none does."""
    if end - at < 5 or at < 0:
        return 0
    if source[at] < 20 or source[at] > 23 or source[at + 1] != 3 or source[at + 2] < 1 or source[at + 2] > 4:
        return 0
    size = (int(source[at + 3]) << 8) | int(source[at + 4])
    return size + 5 if 0 < size <= 16_640 else 0
