"""Captures to measure with: the shipped example's packets over and over, their headers alone, and frames of full size.

All are classic pcap of Ethernet, IPv4 and TCP, one broker and many clients.

    .venv/bin/python benchmarks/captures.py example 500 FILE
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parent.parent
BROKER, PORT = "192.0.2.10", 31289
SITES = {"edge": (BROKER, PORT), "cloud": ("198.51.100.10", 32289)}
INTERLEAVED = 8
RECORD = 16  # bytes of a packet's header in the file
HEADERS = 66  # bytes of Ethernet, IPv4 and TCP with time stamps
SEGMENT = 1448  # bytes of payload in a full frame

Bytes = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.int64]


class Template(NamedTuple):
    """Packets of one site, one behind another with their record headers, and where to change them.

    ``start`` i64[n + 1] are borders in ``data``; ``time`` ns; ``connection`` numbers the address pairs; ``from_broker`` tells the direction; ``digits``
    are places in ``data``. Ethernet, IPv4 without options and TCP, as in the example.
    """

    data: Bytes
    start: Numbers
    time: Numbers
    connection: Numbers
    from_broker: npt.NDArray[np.bool_]
    digits: Numbers


def big_endian(data: Bytes, at: Numbers, size: int) -> Numbers:
    """The numbers at these places."""
    return sum((data[at + i].astype(np.int64) << 8 * (size - 1 - i) for i in range(size)), np.zeros(len(at), np.int64))


def put(data: Bytes, at: Numbers, values: Numbers, size: int, little: bool = False) -> None:
    """Write numbers at these places."""
    for i in range(size):
        data[at + i] = values >> 8 * (i if little else size - 1 - i) & 255


def read_site(folder: Path, broker: tuple[str, int], mid_stream: bool) -> Template:
    """The TCP packets of a site's captures."""
    pieces, starts, times = [], [0], []
    for path in sorted(folder.iterdir()):
        raw = path.read_bytes()
        at = 24
        while at < len(raw):
            seconds, part, captured, _ = np.frombuffer(raw, "<u4", 4, at).tolist()
            if raw[at + 28 : at + 30] == b"\x08\x00" and raw[at + 30] == 0x45 and raw[at + 39] == 6:
                pieces.append(raw[at : at + 16 + captured])
                starts.append(starts[-1] + 16 + captured)
                times.append(seconds * 10**9 + part * 1000)
            at += 16 + captured
    data, start = np.frombuffer(b"".join(pieces), np.uint8).copy(), np.array(starts)
    first = start[:-1]
    address, port = int.from_bytes(bytes(map(int, broker[0].split(".")))), broker[1]
    ports = big_endian(data, first + 50, 2), big_endian(data, first + 52, 2)
    sent = (big_endian(data, first + 42, 4) == address) & (ports[0] == port)
    server_port = np.where(sent, ports[0], ports[1])
    key = np.where(sent, ports[1], ports[0]) << 16 | server_port
    other = (ports[0] == 8080) | (ports[1] == 8080)  # the example's other traffic stays as it is
    names, connection = np.unique(key, return_inverse=True)
    began = np.zeros(len(names), bool)
    began[connection[data[first + 63] & 2 != 0]] = True
    keep = np.flatnonzero(began[connection] | mid_stream | other)
    is_mine = sent | (ports[1] == port)
    ends = np.where(sent[keep], first[keep] + 42, first[keep] + 46)[is_mine[keep]]
    put(data, ends, np.full(len(ends), int.from_bytes(bytes(map(int, BROKER.split("."))))), 4)
    ends = np.where(sent[keep], first[keep] + 50, first[keep] + 52)[is_mine[keep]]
    put(data, ends, np.full(len(ends), PORT), 2)
    lengths = (start[1:] - first)[keep]
    index = pieces_index(first[keep], lengths)
    data = data[index]
    start = np.concatenate([[0], np.cumsum(lengths)])
    packet = np.repeat(np.arange(len(keep)), lengths)
    inside = np.arange(len(data)) - start[packet]
    header = 50 + (data[start[:-1] + 62].astype(np.int64) >> 4) * 4
    digit = (data >= 48) & (data <= 57) & (inside >= header[packet])
    digit &= np.roll(digit, 1) & np.roll(digit, -1)  # single ones may be lengths
    return Template(data, start, np.array(times)[keep], connection[keep], sent[keep], np.flatnonzero(digit))


def pieces_index(first: Numbers, lengths: Numbers) -> Numbers:
    """Places of all bytes of pieces that begin at ``first``."""
    borders = np.cumsum(lengths) - lengths
    return np.repeat(first - borders, lengths) + np.arange(int(lengths.sum()))


def vary(template: Template, copy: int, begin: int, random: np.random.Generator) -> tuple[Bytes, Numbers]:
    """A copy of the template with clients, ports, sequence numbers, times and digits of its own; returns it and the packets' times."""
    data, first = template.data.copy(), template.start[:-1]
    times = template.time - template.time[0] + begin
    put(data, first, times // 10**9, 4, little=True)
    put(data, first + 4, times % 10**9 // 1000, 4, little=True)
    back = template.from_broker
    put(data, np.where(back, first + 46, first + 42), np.full(len(first), 10 << 24 | 1 + copy), 4)
    shift = random.integers(0, 1 << 32, (2, int(template.connection.max()) + 1))
    mine, other = shift[back.astype(np.int64), template.connection], shift[1 - back.astype(np.int64), template.connection]
    put(data, first + 54, big_endian(data, first + 54, 4) + mine, 4)
    put(data, first + 58, big_endian(data, first + 58, 4) + other, 4)
    put(data, first + 34, random.integers(0, 1 << 16, len(first)), 2)
    data[template.digits] = random.integers(48, 58, len(template.digits), dtype=np.uint8)
    return data, times


def full_size() -> Template:
    """A connection of eight Produce requests (version 7) of one batch of 1 MB each, in full frames, one in ten acknowledged, and their answers."""
    random = np.random.default_rng(1)
    client, broker, port = b"\x0a\0\0\x01", bytes(map(int, BROKER.split("."))), 40_000
    at = [1000, 2000]  # the next sequence number of client and broker
    packets: list[tuple[bool, bytes]] = []

    def send(back: bool, payload: bytes = b"", flags: int = 0x10) -> None:
        source, target = ((broker, PORT), (client, port))[:: 1 if back else -1]
        head = (
            struct.pack(">HHIIBBHHH", source[1], target[1], at[back], at[not back], 8 << 4, flags, 500, 0, 0) + b"\1\1\x08\x0a" + bytes(8)
        )
        ip = (
            struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(head) + len(payload), len(packets) & 0xFFFF, 0x4000, 64, 6, 0)
            + source[0]
            + target[0]
        )
        packets.append((back, bytes(12) + b"\x08\0" + ip + head + payload))
        at[back] = at[back] + (len(payload) or flags >> 1 & 1)

    def text(value: bytes) -> bytes:
        return struct.pack(">h", len(value)) + value

    send(False, flags=2)
    send(True, flags=0x12)
    send(False)
    for number in range(8):
        records = random.integers(0, 256, 1_000_000, dtype=np.uint8).tobytes()
        batch = struct.pack(">qiibIhiqqqhii", 0, 49 + len(records), 0, 2, 0, 0, 99, 0, 0, -1, -1, -1, 100) + records
        body = struct.pack(">hhii", -1, -1, 30_000, 1) + text(b"readings") + struct.pack(">iii", 1, 0, len(batch)) + batch
        request = struct.pack(">hhi", 0, 7, number) + text(b"producer") + body
        stream = struct.pack(">i", len(request)) + request
        for place, begin in enumerate(range(0, len(stream), SEGMENT)):
            send(False, stream[begin : begin + SEGMENT])
            if place % 10 == 9:
                send(True)
        response = struct.pack(">ii", number, 1) + text(b"readings") + struct.pack(">iihqqqi", 1, 0, 0, 0, -1, 0, 0)
        send(True, struct.pack(">i", len(response)) + response)
    send(False, flags=0x11)
    lengths = np.array([RECORD + len(data) for _, data in packets])
    data = b"".join(bytes(8) + struct.pack("<II", len(data), len(data)) + data for _, data in packets)
    back = np.array([back for back, _ in packets])
    return Template(
        np.frombuffer(data, np.uint8),
        np.concatenate([[0], np.cumsum(lengths)]),
        12_000 * np.arange(len(packets)),
        np.zeros(len(packets), np.int64),
        back,
        np.empty(0, np.int64),
    )


def example(mid_stream: bool = False) -> list[Template]:
    """The example's four sites; with ``mid_stream`` also connections whose beginning it does not hold."""
    folder = ROOT / "resources" / "example"
    return [
        read_site(folder / run / site, SITES[site], mid_stream) for run in ("experiment07", "experiment08") for site in ("edge", "cloud")
    ]


KINDS = {
    "example": (example, None),
    "example-mid-stream": (lambda: example(mid_stream=True), None),
    "headers": (example, HEADERS),
    "full-size": (lambda: [full_size()], None),
}
"""What captures are made of, and how many bytes of a packet are captured (None: all)."""


def make_capture(path: Path, kind: str, megabytes: int) -> int:
    """Write a capture of at least that size; returns its number of packets."""
    random = np.random.default_rng(1)
    make, snaplen = KINDS[kind]
    templates = make()
    copy = packets = 0
    begin = 1_766_600_000 * 10**9
    with path.open("wb") as file:
        file.write(bytes.fromhex("d4c3b2a1020004000000000000000000") + (262_144).to_bytes(4, "little") + (1).to_bytes(4, "little"))
        while file.tell() < megabytes * 10**6:
            datas, times, lengths = [], [], []
            for _ in range(INTERLEAVED):
                template = templates[copy % len(templates)]
                data, when = vary(template, copy, begin + int(random.integers(0, 10**9)), random)
                datas.append(data)
                times.append(when)
                lengths.append(np.diff(template.start))
                copy += 1
            joined, length = np.concatenate(datas), np.concatenate(lengths)
            order = np.argsort(np.concatenate(times), kind="stable")
            start, length = (np.cumsum(length) - length)[order], length[order]
            if snaplen is not None:
                length = np.minimum(length, RECORD + snaplen)
                put(joined, start + 8, length - RECORD, 4, little=True)
            file.write(joined[pieces_index(start, length)].tobytes())
            packets += len(length)
            begin += 300 * 10**9
    return packets


def records(path: Path) -> Iterator[int]:
    """Where each packet's record ends in a capture."""
    with path.open("rb") as file:
        at = 24
        while header := (file.seek(at), file.read(RECORD))[1]:
            at += RECORD + int.from_bytes(header[8:12], "little")
            yield at


def begin_of(path: Path, packets: int, output: Path) -> Path:
    """A capture of the first packets of another."""
    with path.open("rb") as file:
        size = next((end for number, end in enumerate(records(path), 1) if number == packets), path.stat().st_size)
        output.write_bytes(file.read(size))
    return output


if __name__ == "__main__":
    print(make_capture(Path(sys.argv[3]), sys.argv[1], int(sys.argv[2])))
