"""Packets for the tests of the TCP kernels: written down one by one, turned into the rows that a shard is read into."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from capture_files import Record, ipv4, pcap, tcp

from brokerlens.capture.working import Rows, read_rows
from split_capture import split_capture

MS = 1_000_000
US = 1_000
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
CLIENT, BROKER = 0, 1
CLIENT_IP, BROKER_IP = "192.0.2.1", "192.0.2.2"
T0 = 1_700_000_000 * 1_000_000_000

SMALL = {"from_broker": np.bool_, "timestamp": np.int64, "flags": np.uint16, "window": np.uint16, "ip_id": np.int32, "ttl": np.uint8}
SMALL |= {
    "packet_type": np.uint8,
    "options": np.uint8,
    "mss": np.uint16,
    "window_scale": np.uint8,
    "sack_count": np.uint8,
    "bucket": np.uint16,
}
WIDE = [
    "connection",
    "frame_number",
    "wire_len",
    "captured_len",
    "interface",
    "header_hash",
    "seq",
    "ack",
    "payload_len",
    "payload_captured",
]
WIDE += ["padded_len", "notebook_id", "tsval", "tsecr"] + [f"sack{k}_{end}" for k in range(1, 5) for end in ("from", "to")]


@dataclass(frozen=True)
class Packet:
    """One packet as captured; ``time`` in ns after `T0`, ``kept`` the runs of its payload (offset, bytes)."""

    time: int
    side: int
    seq: int
    ack: int = 0
    flags: int = ACK
    payload: int = 0
    window: int = 64240
    ip_id: int = 0
    ttl: int = 64
    tsval: int = -1
    tsecr: int = 0
    sacks: tuple[tuple[int, int], ...] = ()
    mss: int = 0
    window_scale: int = -1
    sack_permitted: bool = True
    interface: int = 0
    packet_type: int = 255
    address: int = 0
    captured: int = -1
    kept: tuple[tuple[int, bytes], ...] = field(default=())
    capture: int = 0
    more_fragments: bool = False

    def header(self) -> tuple[Any, ...]:
        """What the packet's IP and TCP headers hold."""
        numbers = self.side, self.seq, self.ack, self.flags, self.payload, self.window, self.ip_id, self.ttl
        return *numbers, self.tsval, self.tsecr, self.sacks, self.mss, self.window_scale

    def values(self) -> dict[str, int]:
        captured = self.payload if self.captured < 0 else min(self.captured, self.payload)
        options = (1 if self.tsval >= 0 else 0) | (2 if self.mss else 0) | (4 if self.window_scale >= 0 else 0)
        options |= 8 if self.flags & SYN and self.sack_permitted else 0
        options |= 32 if self.more_fragments else 0
        values = {
            "connection": self.address, "bucket": 0, "from_broker": self.side, "timestamp": T0 + self.time, "interface": self.interface, "packet_type": self.packet_type,
            "wire_len": 66 + self.payload, "captured_len": 66 + captured, "header_hash": zlib.crc32(repr(self.header()).encode()), "seq": self.seq % 2**32,
            "ack": self.ack % 2**32, "flags": self.flags, "window": self.window, "ip_id": self.ip_id, "ttl": self.ttl, "payload_len": self.payload,
            "payload_captured": captured, "padded_len": captured, "notebook_id": 0, "options": options, "tsval": max(self.tsval, 0) % 2**32, "tsecr": self.tsecr % 2**32,
            "mss": self.mss, "window_scale": max(self.window_scale, 0), "sack_count": len(self.sacks),
        }  # fmt: skip
        for k in range(4):
            left, right = self.sacks[k] if k < len(self.sacks) else (0, 0)
            values[f"sack{k + 1}_from"], values[f"sack{k + 1}_to"] = left % 2**32, right % 2**32
        return values


def frame(packet: Packet) -> Record:
    """The packet as a cooked capture (version 2, which names the interface) has it; its payload is zeros."""
    options = b""
    for wanted, data in (
        (packet.mss > 0, struct.pack(">BBH", 2, 4, packet.mss)),
        (packet.window_scale >= 0, bytes([3, 3, max(packet.window_scale, 0)])),
        (packet.flags & SYN and packet.sack_permitted, b"\x04\x02"),
        (packet.tsval >= 0, struct.pack(">BBII", 8, 10, packet.tsval % 2**32, packet.tsecr % 2**32)),
        (packet.sacks, bytes([5, 2 + 8 * len(packet.sacks)]) + b"".join(struct.pack(">I", n % 2**32) for block in packet.sacks for n in block)),
    ):  # fmt: skip
        options += data if wanted else b""
    ends = ((CLIENT_IP, 40_000 + packet.address), (BROKER_IP, 9092))
    (source, source_port), (target, target_port) = ends if packet.side == CLIENT else ends[::-1]
    segment = tcp(
        source_port, target_port, bytes(packet.payload), seq=packet.seq % 2**32, ack=packet.ack % 2**32, flags=packet.flags, window=packet.window, options=options
    )  # fmt: skip
    whole = bytearray(ipv4(source, target, segment, fragment=0x2000 if packet.more_fragments else 0))
    whole[4:6], whole[8] = struct.pack(">H", packet.ip_id), packet.ttl
    data = b"\x08\x00\x00\x00" + struct.pack(">I", packet.interface) + b"\x00\x01\x03\x06" + bytes(8) + bytes(whole)
    missing = packet.payload - packet.captured if packet.captured >= 0 else 0
    return Record(T0 + packet.time, data[: len(data) - missing], len(data))


def captured(packets: Iterable[Packet]) -> Rows:
    """The rows of packets as `split_capture` reads them from one capture file."""
    with TemporaryDirectory() as folder:
        capture = Path(folder, "case.pcap")
        capture.write_bytes(pcap([frame(packet) for packet in packets], nanoseconds=True, link=276))
        split_capture(capture=str(capture), name=capture.name, brokers=[f"{BROKER_IP}:9092"], output=f"{folder}/rows")
        return next(read_rows([f"{folder}/rows"]))


def rows_of(packets: Iterable[Packet], order: Sequence[int] | None = None) -> Rows:
    """The rows of packets as their captures give them: by capture, then in the order given."""
    listed = sorted(packets, key=lambda packet: packet.capture)
    if order is not None:
        listed = [listed[k] for k in order]
    frames: dict[int, int] = {}
    values = []
    kept: list[tuple[int, int, bytes]] = []
    for number, packet in enumerate(listed):
        frames[packet.capture] = frames.get(packet.capture, 0) + 1
        values.append(packet.values() | {"frame_number": frames[packet.capture]})
        kept += [(number, offset, data) for offset, data in packet.kept]
    columns: dict[str, Any] = {name: np.array([row[name] for row in values], dtype=kind) for name, kind in SMALL.items()}
    columns |= {name: np.array([row[name] for row in values], dtype=np.uint32) for name in WIDE}
    lengths = np.array([len(data) for _, _, data in kept], dtype=np.int64)
    addresses = 1 + max((packet.address for packet in listed), default=-1)
    return Rows(
        columns=columns,
        capture=np.array([packet.capture for packet in listed], dtype=np.int32),
        captures=[f"{k}.pcap" for k in range(1 + max((packet.capture for packet in listed), default=-1))],
        connections={"client_ip": [CLIENT_IP] * addresses, "client_port": list(range(40000, 40000 + addresses)),
                     "broker_ip": [BROKER_IP] * addresses, "broker_port": [9092] * addresses},
        kept_row=np.array([row for row, _, _ in kept], dtype=np.int64),
        kept_offset=np.array([offset for _, offset, _ in kept], dtype=np.int64),
        kept_length=lengths,
        kept_at=np.cumsum(lengths) - lengths,
        data=np.frombuffer(b"".join(data for _, _, data in kept), np.uint8).copy(),
    )  # fmt: skip
