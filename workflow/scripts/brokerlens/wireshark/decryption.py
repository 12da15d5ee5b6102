"""Plaintext of TLS records, by tshark: a conversation's records go in one packet each and in order, so that the n-th row is the n-th record.

Neither retransmission nor disorder, sequence number nor port of the capture reaches Wireshark, and keys reach it as a block of decryption secrets on its
standard input: they stand in no file and on no command line.
"""

from __future__ import annotations

import re
import struct
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from brokerlens.errors import UserError
from brokerlens.wireshark import tools

CLIENT_PORT: Final = 50_000
BROKER_PORT: Final = 9093
"""Ports of our own, whatever those of the broker are."""
BROKER: Final = bytes((10, 0, 0, 1))
FIRST_CLIENT: Final = 0x0A000100
FIELDS: Final = ("frame.number", "tls.record.content_type", "tls.record.opaque_type", "tls.app_data_proto", "data.data")
COMMAND: Final = (
    *("-n", "-r", "-", "-d", f"tcp.port=={BROKER_PORT},tls", "-d", f"tls.port=={BROKER_PORT},data"),
    *("-T", "fields", "-E", "occurrence=a", "-E", "separator=/t", "-E", "aggregator=,"),
    *(option for field in FIELDS for option in ("-e", field)),
)
DATA: Final = "Data"  # no protocol
APPLICATION: Final = 23
EMPTY: Final = 5 + 24
"""A TLS 1.2 record of so many bytes holds nothing but what AES-GCM adds."""
SECRETS_BYTES: Final = 1 << 20
RAW_IP: Final = 101
TLS_KEY_LOG: Final = 0x544C534B
LONG_NUMBER: Final = re.compile(r"[0-9A-Fa-f]{32,}")


class Record(NamedTuple):
    """A TLS record on its way to tshark: its conversation, its side (0 from the client), and its bytes with their header."""

    conversation: int
    side: int
    data: bytes


def _block(kind: int, body: bytes) -> bytes:
    """A pcapng block."""
    body += bytes(-len(body) % 4)
    size = struct.pack("<I", len(body) + 12)
    return struct.pack("<I", kind) + size + body + size


def _secrets(lines: Sequence[bytes]) -> Iterator[bytes]:
    """Blocks of decryption secrets with the lines of a key log."""
    room: list[bytes] = []
    size = 0
    for line in lines:
        room.append(line + b"\n")
        size += len(line) + 1
        if size >= SECRETS_BYTES:
            yield _secrets_block(b"".join(room))
            room, size = [], 0
    yield _secrets_block(b"".join(room))


def _secrets_block(text: bytes) -> bytes:
    return _block(10, struct.pack("<II", TLS_KEY_LOG, len(text)) + text)


def _capture(lines: Sequence[bytes], records: Sequence[Record]) -> Iterator[bytes]:
    """A capture with the keys and a packet per record."""
    yield _block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))
    yield from _secrets(lines)
    yield _block(1, struct.pack("<HHI", RAW_IP, 0, 0))
    following = [1, 1]
    conversation = -1
    for record in records:
        if record.conversation != conversation:
            conversation, following = record.conversation, [1, 1]
        packet = _packet(record, following[record.side], following[1 - record.side])
        following[record.side] = (following[record.side] + len(record.data)) & 0xFFFFFFFF
        yield _block(6, struct.pack("<IIIII", 0, 0, 0, len(packet), len(packet)) + packet)


def _packet(record: Record, seq: int, ack: int) -> bytes:
    """A record as a packet of its conversation: each has a client of its own."""
    client = struct.pack(">I", FIRST_CLIENT + record.conversation)
    source, target = (BROKER, client) if record.side else (client, BROKER)
    ports = (BROKER_PORT, CLIENT_PORT) if record.side else (CLIENT_PORT, BROKER_PORT)
    header = struct.pack(">BBHHHBBH", 0x45, 0, 40 + len(record.data), 0, 0x4000, 64, 6, 0) + source + target
    return header + struct.pack(">HHIIBBHHH", *ports, seq, ack, 0x50, 0x18, 0xFFFF, 0, 0) + record.data


def _plaintext(record: bytes, content_type: str, opaque_type: str, protocol: str, data: str) -> bytes | None:
    """What tshark found in a record: plaintext of applications (none in records of other kinds), None where it could not open it.

    Nor is a record open whose plaintext it took for a ``protocol`` that it knows, as ALPN may name one: of that it shows no bytes, or not all.
    """
    if protocol not in ("", DATA):
        return None
    if data:
        return bytes.fromhex(data.replace(",", ""))
    if record[0] != APPLICATION:
        return b""
    is_opened = content_type != "" if opaque_type else len(record) <= EMPTY
    return b"" if is_opened else None


def decrypt(lines: Sequence[bytes], records: Sequence[Record]) -> Iterator[bytes | None]:
    """The plaintext of each record, None where tshark could not open it; those of a conversation stand together, in the order in which they were sent.

    ``lines`` are those of a key log. Raises UserError where tshark is missing or fails.
    """
    command = [tools.find("tshark"), *COMMAND]
    count = 0
    with tempfile.TemporaryFile() as complaints:
        with tools.running(command, _capture(lines, records), stdout=subprocess.PIPE, stderr=complaints) as process:
            assert process.stdout is not None
            for record in records:
                number, *found = process.stdout.readline().decode("ascii", "replace").rstrip("\n").split("\t")
                if number != str(count + 1) or len(found) != len(FIELDS) - 1:
                    break
                count += 1
                yield _plaintext(record.data, *found)
            process.stdout.close()
            code = process.wait()
        complaints.seek(0)
        said = LONG_NUMBER.sub("…", tools.last_line(complaints.read().decode("utf-8", "replace")))
    if count < len(records):
        raise UserError(
            f"tshark ended with {said!r} after {count:,} of {len(records):,} TLS records (exit code {code}); expected all of them."
        )
