"""How long following TCP takes beside sorting the same rows with polars on one thread: a ratio measured in one run.

    .venv/bin/python benchmarks/tcp.py [--rows 10000000]

The rows are made in memory: connections that begin with a handshake and exchange requests and responses of several segments, with some lost
segments sent again, every hundredth behind a timeout, timestamps, IP ids and selective acknowledgements; captures in order of time, connections interleaved.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["POLARS_MAX_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "workflow" / "scripts"))

from brokerlens import job  # noqa: E402  # first: it says where compiled kernels go

import numpy as np  # noqa: E402
import polars as pl  # noqa: E402

from brokerlens.capture.columns import ROW_COLUMNS  # noqa: E402
from brokerlens.capture.working import Rows  # noqa: E402
from brokerlens.tcp.order import order_packets  # noqa: E402
from brokerlens.tcp.segments import follow_segments  # noqa: E402
from brokerlens.tcp.stream import assemble  # noqa: E402

assert job
CONNECTIONS = 2000
ROUND = 8
"""Packets of a round: a request of one segment, its acknowledgement, a response of three segments, the acknowledgements of two, a stray one, and the last."""
MSS = 1448
REQUEST = 300
BEGAN = 1_766_600_000 * 10**9


def make_rows(rows: int) -> Rows:
    """Rows of `CONNECTIONS` connections that talk in rounds, in order of time."""
    random = np.random.default_rng(1)
    rounds = -(-rows // (CONNECTIONS * ROUND))
    step, connection = np.divmod(np.arange(rounds * ROUND * CONNECTIONS, dtype=np.int64), CONNECTIONS)
    number, place = np.divmod(step, ROUND)
    # Per place in a round: side, payload, request bytes sent before, response bytes sent before, and those acknowledged.
    side = np.array([0, 1, 1, 1, 0, 1, 0, 0])[place]
    payload = np.array([REQUEST, 0, MSS, MSS, 0, MSS, 0, 0])[place]
    sent = np.array(
        [[0, REQUEST, REQUEST, REQUEST, REQUEST, REQUEST, REQUEST, REQUEST], [0, 0, 0, MSS, 2 * MSS, 2 * MSS, 3 * MSS, 3 * MSS]]
    )
    own, other = (
        number * np.array([REQUEST, 3 * MSS])[side] + sent[side, place],
        number * np.array([3 * MSS, REQUEST])[side] + sent[1 - side, place],
    )
    lost = (place == 3) & (random.random(len(place)) < 0.01)  # sent again in the place of the next segment
    first = random.integers(0, 1 << 32, (2, CONNECTIONS))
    own += np.where((place == 5) & np.roll(lost, 2 * CONNECTIONS), -MSS, 0)
    began = (step == 0).astype(np.int64)
    gap = np.array([1000, 11, 1, 0.1, 0.1, 0.1, 0.1, 200])[place] * 1e6
    n = len(step)
    columns: dict[str, Any] = {name: np.zeros(n, kind) for name, kind in ROW_COLUMNS.items() if name != "bucket"}
    columns["timestamp"][:] = BEGAN + step * 150_000_000 + (gap / 10).astype(np.int64) + connection * 1000
    columns["connection"][:], columns["from_broker"][:] = connection, side == 1
    columns["seq"][:] = (first[side, connection] + 1 + own - began) & 0xFFFFFFFF
    columns["ack"][:] = np.where(began, 0, (first[1 - side, connection] + 1 + other) & 0xFFFFFFFF)
    columns["flags"][:] = np.where(began, 2, 16)
    columns["window"][:], columns["ttl"][:], columns["packet_type"][:] = 5000, 64, 255
    columns["ip_id"][:] = 1 + step % 65535
    columns["payload_len"][:] = np.where(began, 0, payload)
    columns["payload_captured"][:] = 0
    columns["wire_len"][:] = 66 + columns["payload_len"]
    columns["captured_len"][:] = 96
    columns["frame_number"][:] = np.arange(1, n + 1)
    columns["header_hash"][:] = random.integers(0, 1 << 32, n)
    columns["options"][:] = 1
    columns["tsval"][:] = step * 150 + 7
    columns["tsecr"][:] = np.maximum(step - 1, 0) * 150 + 7
    none = np.zeros(0, np.int64)
    addresses = {
        "client_ip": ["192.0.2.1"] * CONNECTIONS,
        "client_port": list(range(CONNECTIONS)),
        "broker_ip": ["198.51.100.1"] * CONNECTIONS,
        "broker_port": [9092] * CONNECTIONS,
    }
    return Rows(columns, np.zeros(n, np.int32), ["one.pcap"], addresses, none, none, none, none, np.zeros(0, np.uint8))


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of one call, and what it returns."""
    began = time.process_time()
    found = work()
    return time.process_time() - began, found


def main() -> None:
    """Make the rows, time both, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    options = parser.parse_args()
    few = make_rows(40_000)
    assemble(few, (ordered := order_packets(few)), follow_segments(few, ordered)[0])  # compiles what is not in the cache
    rows = make_rows(options.rows)
    table = pl.DataFrame(rows.columns)
    print(f"{table.height:,} rows of {table.width} columns, {CONNECTIONS:,} connections")
    print("| | CPU s | ns per row |\n|---|---|---|")
    sort, _ = timed(lambda: table.sort("connection", "timestamp"))
    del table
    order, ordered = timed(lambda: order_packets(rows))
    follow, facts = timed(lambda: follow_segments(rows, ordered))
    stream, _ = timed(lambda: assemble(rows, ordered, facts[0]))
    for name, seconds in (
        ("polars: sort by connection and time", sort),
        ("order_packets", order),
        ("follow_segments", follow),
        ("assemble", stream),
    ):
        print(f"| {name} | {seconds:.2f} | {seconds / rows.n * 1e9:,.0f} |")
    print(f"follow_segments / polars: {follow / sort:.2f} (goal: at most 1)")


if __name__ == "__main__":
    main()
