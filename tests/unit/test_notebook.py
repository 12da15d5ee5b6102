"""The notebook's figures against its own way of computing them: one walk with a set and a dictionary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brokerlens import tables
from brokerlens.errors import UserError
from brokerlens.metrics import notebook
from brokerlens.metrics.notebook_figures import add_notebook
from brokerlens.metrics.rows import Rows
from brokerlens.metrics.window import Window

T0 = 1_766_769_260_000_000_000
BROKERS = "10.0.0.1:9092", "10.0.0.2:9093"
Packet = dict[str, Any]


def walk(packets: list[Packet], start: int | None, end: int | None) -> dict[str, Any]:
    """The notebook: a dictionary and sets, packet by packet in the order of time, its seconds as floats."""
    resets = zero_windows = retransmissions = 0
    seen: dict[tuple[str, str, int, int], set[int]] = {}
    pending: dict[int, float] = {}
    latencies, arrivals = [], []
    hosts = {broker.rpartition(":")[0] for broker in BROKERS}
    for packet in packets:
        time = packet["timestamp"] / 1e9
        if (
            (start is not None and packet["timestamp"] < start)
            or (end is not None and packet["timestamp"] > end)
            or ":" in packet["src_ip"] + packet["dst_ip"]
        ):
            continue
        to_broker = f"{packet['dst_ip']}:{packet['dst_port']}" in BROKERS
        from_broker = f"{packet['src_ip']}:{packet['src_port']}" in BROKERS
        if not to_broker and not from_broker:
            continue
        resets += bool(packet["tcp_flags"] & 4)
        zero_windows += packet["window_size"] == 0
        if packet["padded_len"] > 0:
            flow = seen.setdefault((packet["src_ip"], packet["dst_ip"], packet["src_port"], packet["dst_port"]), set())
            if packet["seq"] in flow:
                retransmissions += 1
            else:
                flow.add(packet["seq"])
        if packet["padded_len"] > 12:
            if to_broker:
                pending[packet["notebook_id"]] = time
            elif packet["notebook_id"] in pending:
                latencies.append((time - pending.pop(packet["notebook_id"])) * 1000)
        if packet["src_ip"] in hosts:
            arrivals.append(time)
    gaps = [gap for gap in (np.diff(arrivals) * 1000).tolist() if gap < 1000]
    changes = np.abs(np.diff(gaps))
    return {
        "notebook_resets": resets,
        "notebook_retransmissions": retransmissions,
        "notebook_zero_windows": zero_windows,
        "notebook_jitter": float(np.mean(changes)) if changes.size else None,
        "notebook_kafka_latency/count": len(latencies),
        "notebook_kafka_latency/mean": float(np.mean(latencies)) if latencies else None,
        "notebook_kafka_latency/p95": float(np.percentile(latencies, 95)) if latencies else None,
    }


def write_parts(packets: list[Packet], folder: Path, parts: int) -> tuple[list[Path], list[Path]]:
    """The packets as the two data sets hold them, each connection in one part."""
    paths: tuple[list[Path], list[Path]] = [], []
    for part in range(parts):
        rows = [row for row in packets if (row["client"][1] + len(row["client"][0])) % parts == part]
        columns = {}
        for field in tables.schema("packets"):
            default: Any = (
                None if field.nullable else "x" if pa.types.is_dictionary(field.type) else False if field.type == pa.bool_() else 0
            )
            values = [row.get(field.name, default) for row in rows]
            columns[field.name] = (
                pa.array(values, pa.int64()).cast(field.type) if field.name == "timestamp" else pa.array(values, field.type)
            )
        paths[0].append(folder / f"packets-{part}.parquet")
        tables.write(pa.table(columns), paths[0][-1], "packets", {})
        paths[1].append(folder / f"notebook-{part}.parquet")
        kinds = {"timestamp": pa.int64(), "padded_len": pa.uint32(), "notebook_id": pa.uint32()}
        pq.write_table(pa.table({name: pa.array([row[name] for row in rows], kind) for name, kind in kinds.items()}), paths[1][-1])
    return paths


def figures(packets: list[Packet], folder: Path, parts: int, window: Window) -> dict[str, Any]:
    rows = Rows()
    add_notebook(rows, notebook.notebook_figures(*write_parts(packets, folder, parts), window, BROKERS))
    names = {("notebook_kafka_latency", statistic): f"notebook_kafka_latency/{statistic}" for statistic in ("count", "mean", "p95")}
    return {names.get((row["metric"], row["statistic"]), row["metric"]): row["value"] for row in rows.rows}


def make(draw_time: int, client: tuple[str, int], broker: int, *, from_broker: bool, **values: Any) -> Packet:
    ends = client, (BROKERS[broker].rpartition(":")[0], int(BROKERS[broker].rpartition(":")[2]))
    source, target = ends[::-1] if from_broker else ends
    return {
        "timestamp": draw_time,
        "client": client,
        "src_ip": source[0],
        "src_port": source[1],
        "dst_ip": target[0],
        "dst_port": target[1],
        "from_broker": from_broker,
        **values,
    }


CLIENTS = ("192.0.2.7", 40_000), ("192.0.2.7", 40_001), ("2001:db8::7", 40_002), ("10.0.0.2", 40_003)
packets_in_time = st.lists(
    st.tuples(
        st.sampled_from([1_000, 40_000, 3_000_000, 700_000_000, 999_000_500, 1_000_001_000]),
        st.sampled_from(CLIENTS),
        st.integers(0, 1),
        st.booleans(),
        st.fixed_dictionaries(
            {
                "tcp_flags": st.sampled_from([0x10, 0x18, 0x04, 0x14]),
                "window_size": st.sampled_from([0, 500]),
                "seq": st.integers(0, 4),
                "padded_len": st.sampled_from([0, 1, 6, 12, 13, 300]),
                "notebook_id": st.integers(0, 3),
                "is_duplicate": st.booleans(),
            }
        ),
    ),
    max_size=50,
)


@settings(deadline=None)  # files are written and read
@given(packets_in_time, st.integers(1, 3), st.integers(0, 8), st.integers(0, 20))
def test_figures_are_the_notebooks(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[Any], parts: int, from_packet: int, to_packet: int
) -> None:
    time, packets = T0, []
    for gap, client, broker, from_broker, values in drawn:
        time += gap
        packets.append(make(time, client, broker, from_broker=from_broker, **values))
    # Both ends of the window lie on packets: they are included.
    start = packets[from_packet]["timestamp"] if from_packet < len(packets) else None
    end = packets[-1 - to_packet]["timestamp"] if to_packet < len(packets) else None
    found = figures(packets, tmp_path_factory.mktemp("parts"), parts, Window(start, end))
    looked_at = [p for p in packets if ":" not in p["src_ip"] + p["dst_ip"] and (start or 0) <= p["timestamp"] <= (end or time)]
    for name, value in walk(packets, start, end).items():
        none_there = name in ("notebook_resets", "notebook_zero_windows") and not looked_at
        none_there |= name == "notebook_retransmissions" and not any(p["padded_len"] for p in looked_at)
        none_there |= name == "notebook_kafka_latency/count" and not value
        if value is None or none_there:
            assert found[name] is None
        else:
            assert found[name] == pytest.approx(value, abs=1e-3, rel=0), name  # a microsecond, the captures' resolution


def test_packets_of_one_time_count_alike_in_any_number_of_parts(tmp_path: Path) -> None:
    """Two connections use one id in the same microsecond: which request the answer belongs to must not depend on shards."""
    common = {"tcp_flags": 0x18, "window_size": 1, "padded_len": 100, "notebook_id": 9, "seq": 1, "is_duplicate": False}
    packets = [
        make(T0 + at, CLIENTS[who], 0, from_broker=answer, **common)
        for at, who, answer in [(0, 0, False), (5_000, 1, False), (5_000, 0, True), (9_000, 1, True), (9_000, 0, False), (12_000, 1, True)]
    ]
    found = [figures(packets, tmp_path, parts, Window()) for parts in (1, 2, 3)]
    assert found[0] == found[1] == found[2]


def test_working_files_of_another_run_are_refused(tmp_path: Path) -> None:
    common = {"tcp_flags": 0x18, "window_size": 1, "padded_len": 100, "notebook_id": 9, "seq": 1, "is_duplicate": False}
    packets = [make(T0 + at, CLIENTS[0], 0, from_broker=False, **common) for at in (0, 1_000, 2_000)]
    data_set, _ = write_parts(packets, tmp_path, 1)
    other = tmp_path / "other"
    other.mkdir()
    _, fewer = write_parts(packets[:2], other, 1)
    with pytest.raises(UserError, match="earlier run"):
        notebook.notebook_figures(data_set, fewer, Window(), BROKERS)
    _, shifted = write_parts([packet | {"timestamp": packet["timestamp"] + 1} for packet in packets], other, 1)
    with pytest.raises(UserError, match="merge_site"):
        notebook.notebook_figures(data_set, shifted, Window(), BROKERS)
