"""How long following TCP takes beside sorting the same rows with polars on one thread: a ratio measured in one run.

    .venv/bin/python benchmarks/tcp.py [--rows 10000000]

The rows are made in memory: connections whose SYN carries the first request, then requests of one segment and responses of three, in one of a hundred
responses a segment sent again; timestamps and IP ids throughout; all connections interleaved, in order of time, as in a capture.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["POLARS_MAX_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "workflow" / "scripts"))

import numpy as np
import polars as pl

from brokerlens import job  # first: it says where compiled kernels go
from brokerlens.capture.columns import ROW_COLUMNS
from brokerlens.capture.working import Rows
from brokerlens.tcp.order import order_packets
from brokerlens.tcp.segments import follow_segments
from brokerlens.tcp.stream import assemble

assert job
CONNECTIONS = 2000
MSS, REQUEST = 1448, 300
BEGAN = 1_766_600_000 * 10**9

# A round, packet by packet: who sends it (1 the broker), its payload, and what the client and the broker have sent in this round before it.
SIDE = np.array([0, 1, 1, 1, 0, 1, 0, 0])
PAYLOAD = np.array([REQUEST, 0, MSS, MSS, 0, MSS, 0, 0])
BEFORE = np.array([[0, *[REQUEST] * 7], [0, 0, 0, MSS, 2 * MSS, 2 * MSS, 3 * MSS, 3 * MSS]])
AGAIN = 6
"""The packet in whose place the second segment of a response is sent again."""


def make_rows(rows: int) -> Rows:
    """Rows of `CONNECTIONS` connections that talk in rounds, in order of time."""
    random = np.random.default_rng(1)
    rounds = -(-rows // (CONNECTIONS * len(SIDE)))
    step, connection = np.divmod(np.arange(rounds * len(SIDE) * CONNECTIONS, dtype=np.int64), CONNECTIONS)
    number, place = np.divmod(step, len(SIDE))
    again = (place == AGAIN) & (random.random((rounds, CONNECTIONS)) < 0.01)[number, connection]
    side, payload = np.where(again, 1, SIDE[place]), np.where(again, MSS, PAYLOAD[place])
    client, broker = number * REQUEST + BEFORE[0, place], number * 3 * MSS + BEFORE[1, place]
    first = random.integers(0, 1 << 32, (2, CONNECTIONS))[:, connection]
    begins = step == 0
    columns: dict[str, Any] = {name: np.zeros(len(step), kind) for name, kind in ROW_COLUMNS.items() if name != "bucket"}
    filled = {
        "timestamp": BEGAN + step * 15_000_000 + connection * 1000,
        "connection": connection,
        "from_broker": side == 1,
        "seq": np.where(side == 1, first[1] + 1 + broker - np.where(again, 2 * MSS, 0), first[0] + 1 + client - begins) & 0xFFFFFFFF,
        "ack": np.where(side == 1, first[0] + 1 + client, np.where(begins, 0, first[1] + 1 + broker)) & 0xFFFFFFFF,
        "flags": np.where(begins, 2, 16),
        "window": 5000,
        "ttl": 64,
        "packet_type": 255,
        "ip_id": 1 + step % 65535,
        "payload_len": payload,
        "wire_len": 66 + payload,
        "captured_len": 66,
        "frame_number": np.arange(1, len(step) + 1),
        "header_hash": random.integers(0, 1 << 32, len(step)),
        "options": 1,
        "tsval": step * 15 + 7,
        "tsecr": np.maximum(step - 1, 0) * 15 + 7,
    }
    for name, values in filled.items():
        columns[name][:] = values
    none = np.zeros(0, np.int64)
    addresses = {
        "client_ip": ["192.0.2.1"] * CONNECTIONS,
        "client_port": list(range(CONNECTIONS)),
        "broker_ip": ["198.51.100.1"] * CONNECTIONS,
        "broker_port": [9092] * CONNECTIONS,
    }
    return Rows(columns, np.zeros(len(step), np.int32), ["one.pcap"], addresses, none, none, none, none, np.zeros(0, np.uint8))


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of one call, and what it returns."""
    began = time.process_time()
    found = work()
    return time.process_time() - began, found


def peak_megabytes() -> float:
    """Most memory that the process had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Make the rows, time both, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    options = parser.parse_args()
    few = make_rows(40_000)
    assemble(few, (ordered := order_packets(few)), follow_segments(few, ordered)[0])  # compiles what is not in the cache
    rows = make_rows(options.rows)
    print(f"{rows.n:,} rows of {len(rows.columns)} columns, {CONNECTIONS:,} connections\n\n| | CPU s | ns per row |\n|---|---|---|")
    sort, _ = timed(lambda: pl.DataFrame(rows.columns).sort("connection", "timestamp"))
    order, ordered = timed(lambda: order_packets(rows))
    follow, facts = timed(lambda: follow_segments(rows, ordered))
    stream, _ = timed(lambda: assemble(rows, ordered, facts[0]))
    stages = {"polars: sort by connection and time": sort, "order_packets": order, "follow_segments": follow, "assemble": stream}
    for name, seconds in stages.items():
        print(f"| {name} | {seconds:.2f} | {seconds / rows.n * 1e9:,.0f} |")
    print(
        f"\nfollow_segments / polars: {follow / sort:.2f} (goal: at most 1); peak memory {peak_megabytes() / rows.n * 1e6:,.0f} bytes a row"
    )


if __name__ == "__main__":
    main()
