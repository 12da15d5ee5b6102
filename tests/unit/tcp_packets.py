"""Packets for the tests of the TCP kernels: written down one by one, turned into the rows that a shard is read into."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from brokerlens.capture.working import Rows

MS = 1_000_000
US = 1_000
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
CLIENT, BROKER = 0, 1
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
        connections={"client_ip": ["10.0.0.1"] * addresses, "client_port": list(range(40000, 40000 + addresses)),
                     "broker_ip": ["10.0.0.2"] * addresses, "broker_port": [9092] * addresses},
        kept_row=np.array([row for row, _, _ in kept], dtype=np.int64),
        kept_offset=np.array([offset for _, offset, _ in kept], dtype=np.int64),
        kept_length=lengths,
        kept_at=np.cumsum(lengths) - lengths,
        data=np.frombuffer(b"".join(data for _, _, data in kept), np.uint8).copy(),
    )  # fmt: skip
