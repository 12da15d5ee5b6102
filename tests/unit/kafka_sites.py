"""From the packets of these tests to the data sets that a user reads: written as a capture, then split, merged and measured by the stages themselves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from capture_files import Record, ethernet, ip, pcap, tcp
from kafka_streams import ACK, SYN, Packet
from sites import Site, run_site

CLIENT, BROKER, PORT = "192.0.2.5", "192.0.2.10", 9092
EPOCH = 1_766_000_000 * 10**9
HEADERS = 54


def capture_of(packets: Sequence[Packet], path: Path, snaplen: int = 262_144, ends: tuple[str, str] = (CLIENT, BROKER)) -> Path:
    """A capture of the packets, each with the acknowledgement that its sender owes by then; ``ends`` are the client's and the broker's address."""
    following = {(packet.connection, packet.side): packet.seq for packet in sorted(packets, key=lambda packet: -packet.time)}
    records = []
    for packet in sorted(packets, key=lambda packet: packet.time):
        ports = 50_000 + packet.connection, PORT
        other = following.get((packet.connection, 1 - packet.side), 0) if packet.flags & ACK else 0
        segment = tcp(
            ports[packet.side],
            ports[1 - packet.side],
            packet.payload,
            seq=packet.seq & 0xFFFFFFFF,
            ack=other & 0xFFFFFFFF,
            flags=packet.flags,
        )
        frame = ethernet(ip(ends[packet.side], ends[1 - packet.side], segment))
        captured = min(snaplen, HEADERS + packet.captured)
        records.append(Record(EPOCH + packet.time, frame[:captured], len(frame)))
        following[packet.connection, packet.side] = packet.seq + len(packet.payload) + bool(packet.flags & SYN)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pcap(records, nanoseconds=True))
    return path


def site_of(packets: Sequence[Packet], folder: Path, snaplen: int = 262_144) -> Site:
    """What the pipeline makes of a capture of the packets."""
    return run_site([capture_of(packets, folder / "talk.pcap", snaplen)], [f"{BROKER}:{PORT}"], folder)
