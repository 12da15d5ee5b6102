"""The shipped edge of experiment08 with the same connections captured at the broker: one clock, and a link whose settings are known.

Expected: what `truth.json` says of the link, and a count of the raw captures in plain Python that shares no code with the pipeline.
"""

from __future__ import annotations

import gzip
import json
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

import numpy as np
import polars as pl
import pytest
from sites import BROKERS, EXAMPLE, ROOT, read_pcap, run_experiment, run_site, shipped, write_pcap

from brokerlens import tables
from brokerlens.metrics.one_way import add_paths
from brokerlens.metrics.rows import Rows
from brokerlens.metrics.window import Window
from match_paths import match_paths

AT_BROKER = ROOT / "tests" / "data" / "both-ends" / "edge-at-broker.pcap.gz"
LINK = json.loads((EXAMPLE / "truth.json").read_text())["experiments"]["experiment08"]["link"]["edge"]
BROKER_PORT = 31289


@dataclass(frozen=True)
class Raw:
    """A TCP packet to or from the broker as the file has it."""

    time: float
    from_broker: bool
    content: tuple[object, ...]


def raw_packets(data: bytes) -> Iterator[Raw]:
    """Ethernet and IPv4 alone, as these captures are."""
    at = 24
    while at < len(data):
        seconds, micros, captured, _ = struct.unpack_from("<IIII", data, at)
        frame = data[at + 16 : at + 16 + captured]
        at += 16 + captured
        if frame[12:14] != b"\x08\x00" or frame[23] != 6:
            continue
        ip = frame[14:]
        header = 4 * (ip[0] & 15)
        length, ip_id = struct.unpack_from(">HH", ip, 2)
        tcp = ip[header:length]
        source, target, seq, ack, flags = struct.unpack_from(">HHIIH", tcp)
        if BROKER_PORT in (source, target):
            # All of the segment but the checksum, options and payload included.
            yield Raw(seconds + micros / 1e6, source == BROKER_PORT, (ip[12:20], ip_id, seq, ack, flags, tcp[:16], tcp[18:]))


def raw_of(paths: Sequence[Path]) -> list[Raw]:
    return [
        packet
        for path in paths
        for packet in raw_packets(gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes())
    ]


@dataclass(frozen=True)
class Found:
    paths: pl.DataFrame
    packets: pl.DataFrame
    requests: pl.DataFrame

    def delays(self, direction: str) -> np.ndarray:
        """One-way delays of a direction, ms."""
        return self.packets.filter(pl.col("direction") == direction)["one_way_ms"].drop_nulls().to_numpy()

    def of(self, direction: str, *names: str) -> dict[str, np.ndarray]:
        """Columns of the rows of a direction."""
        rows = self.paths.filter(pl.col("direction") == direction)
        return {name: rows[name].to_numpy() for name in names}


def run_both(at_client: Sequence[Path], at_broker: Sequence[Path], folder: Path, shards: int = 1) -> Found:
    """Both sites through the stages, then the rule in question."""
    files: dict[str, list[Path]] = {"packets": [], "connections": [], "requests": []}
    for site, captures in (("edge", at_client), ("edge-at-broker", at_broker)):
        run_site(captures, BROKERS["edge"], folder / site, shards)
        for name, found in files.items():
            for part in sorted((folder / site / name).glob("part-*.parquet")):
                target = folder / "results" / name / f"site={site}" / part.name
                target.parent.mkdir(parents=True, exist_ok=True)
                found.append(part.rename(target))
    sites = [{"site": site, "tap": "auto", "clock_offset_ms": None} for site in ("edge", "edge-at-broker")]
    output, working = folder / "paths.parquet", {name: folder / "working" / f"{name}.parquet" for name in ("packets", "requests")}
    match_paths(**files, sites=sites, paths_output=output, working=working)
    return Found(pl.read_parquet(output), pl.read_parquet(working["packets"]), pl.read_parquet(working["requests"]))


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    return run_both(shipped("experiment08", "edge"), [AT_BROKER], tmp_path_factory.mktemp("both"))


@pytest.fixture(scope="module")
def raw() -> tuple[list[Raw], list[Raw]]:
    return raw_of(shipped("experiment08", "edge")), raw_of([AT_BROKER])


def test_the_clocks_are_found_to_be_one(found: Found) -> None:
    assert set(found.paths["clock_source"]) == {"estimated"}
    (offset,) = set(found.paths["clock_offset_ms"])
    assert abs(offset) < 0.5
    # No packet takes less than 17 ms, and the fastest take hardly more: so far could the offset be off, seen from the packets alone.
    (bound,) = set(found.paths["clock_uncertainty_ms"])
    assert LINK["one_way_delay_ms"] < bound < LINK["one_way_delay_ms"] + 0.5
    (scatter,) = set(found.paths["clock_scatter_ms"])
    assert abs(offset) < scatter < 0.5


@pytest.mark.parametrize("direction", ["to_broker", "from_broker"])
def test_one_way_delays_are_those_of_the_link(found: Found, direction: str) -> None:
    """17 ms + |N(0, 8)|: no less than 17 ms. As the link keeps packets in order, some wait for the one before and the quantiles are somewhat above those of the law."""
    delays = found.delays(direction)
    law = NormalDist(0, LINK["jitter_ms"])
    assert LINK["one_way_delay_ms"] <= delays.min() < LINK["one_way_delay_ms"] + 0.5
    for level in (0.5, 0.95, 0.99):
        expected = LINK["one_way_delay_ms"] + law.inv_cdf((1 + level) / 2)
        assert expected - 0.5 < np.quantile(delays, level) < expected + 3.5


@pytest.mark.parametrize("direction", ["to_broker", "from_broker"])
def test_packets_lost_are_those_that_one_end_alone_has(found: Found, raw: tuple[list[Raw], list[Raw]], direction: str) -> None:
    """Counted in the raw files by whole segments: each end's packets of a direction as a multiset, one taken from the other."""
    from_broker = direction == "from_broker"
    client, broker = (Counter(packet.content for packet in end if packet.from_broker == from_broker) for end in raw)
    counted = found.of(direction, "packets_both", "packets_only_client", "packets_only_broker", "packets_outside", "packets_lost")
    total = {name: int(values.sum()) for name, values in counted.items()}
    assert total["packets_both"] == (client & broker).total()
    only = {"packets_only_client": (client - broker).total(), "packets_only_broker": (broker - client).total()}
    assert {name: total[name] for name in only} == only
    assert total["packets_outside"] == 0
    assert total["packets_lost"] == sum(only.values())
    # The sender's end alone has what was lost, never the receiver's.
    assert only["packets_only_client" if from_broker else "packets_only_broker"] == 0
    # 1.5 % of 4,480 and 5,179 packets: within three standard deviations.
    sent = total["packets_both"] + total["packets_lost"]
    expected = LINK["loss"] * sent
    assert abs(total["packets_lost"] - expected) < 3 * (expected * (1 - LINK["loss"])) ** 0.5


@pytest.mark.parametrize("direction", ["to_broker", "from_broker"])
def test_delays_are_those_of_the_raw_captures(found: Found, raw: tuple[list[Raw], list[Raw]], direction: str) -> None:
    """Of segments that each end has once: the same smallest and the same middle one, the offset put back."""
    from_broker = direction == "from_broker"
    client, broker = ({packet.content: packet.time for packet in end if packet.from_broker == from_broker} for end in raw)
    sign = -1 if from_broker else 1
    waited = sorted(sign * 1000 * (broker[content] - client[content]) for content in client.keys() & broker.keys())
    rows = found.of(direction, "clock_offset_ms", "one_way_min_ms")
    offset = sign * rows["clock_offset_ms"][0]
    assert rows["one_way_min_ms"].min() + offset == pytest.approx(waited[0], abs=0.002)
    assert np.median(found.delays(direction)) + offset == pytest.approx(waited[len(waited) // 2], abs=0.02)


def test_every_retransmission_is_explained(found: Found) -> None:
    """A retransmission is needed where its bytes had not arrived: no more of them than data packets lost."""
    kinds = {name: int(found.paths[f"retransmitted_{name}"].to_numpy().sum()) for name in ("needed", "needless", "unknown")}
    lost = found.packets.filter(pl.col("fate") == "lost", pl.col("payload_len") > 0).height
    assert kinds["needed"] + kinds["unknown"] >= 0.8 * lost
    assert kinds["needed"] <= lost
    assert kinds["needless"] > 0  # an acknowledgement was lost, and the tail probed


def test_broker_time_is_measured_where_the_client_can_only_infer_it(found: Found) -> None:
    """The broker of the example answers within about a millisecond; what the client's tap makes of it holds the variation of the link."""
    of_all = found.of("to_broker", "broker_n", "broker_p50_ms", "broker_p95_ms", "broker_inferred_n", "broker_inferred_p95_ms")
    rows = {name: values[of_all["broker_inferred_n"] > 50] for name, values in of_all.items()}
    assert len(rows["broker_n"]) >= 2
    assert rows["broker_n"].min() >= 100
    assert rows["broker_p50_ms"].max() < 2
    assert rows["broker_inferred_p95_ms"].min() > rows["broker_p95_ms"].max()


def test_metrics_of_the_route_are_those_of_its_packets(found: Found) -> None:
    """Without a window all of them, and half of the time about half of them; the interval of the loss holds the link's 1.5 %."""
    rows, first_half = Rows(), Rows()
    add_paths(rows, found.packets, found.requests, Window())
    times = found.packets["time"].to_numpy()
    add_paths(first_half, found.packets, found.requests, Window(None, int(np.median(times))))
    value = {(row["metric"], row["group"], row["statistic"]): row for row in rows.rows}
    half = {(row["metric"], row["group"], row["statistic"]): row["value"] for row in first_half.rows}
    for direction in ("to_broker", "from_broker"):
        group = f"route=edge>edge-at-broker/{direction}"
        counted = found.of(direction, "packets_both", "packets_lost", "one_way_min_ms")
        assert value["one_way_delay", group, "count"]["value"] == counted["packets_both"].sum()
        assert value["one_way_delay", group, "min"]["value"] == counted["one_way_min_ms"].min()
        assert value["path_loss", group, "count"]["value"] == counted["packets_lost"].sum()
        share = value["path_loss", group, "ratio_of_sums"]
        assert share["ci_low"] < LINK["loss"] < share["ci_high"]
        assert 0.3 < half["one_way_delay", group, "count"] / counted["packets_both"].sum() < 0.7
    assert value["broker_time", "route=edge>edge-at-broker/at_broker", "p50"]["value"] < 2


def test_a_row_for_each_connection_and_direction(found: Found) -> None:
    assert found.paths.height == 18
    assert found.paths.select("connection_id", "direction").is_unique().all()
    assert not found.paths["translated"].any()
    assert found.paths.columns == [column.name for column in tables.PATHS]


def test_cuts_and_shards_change_nothing(found: Found, tmp_path: Path) -> None:
    """The broker's capture in three files of odd lengths, the last one first, and both sites in two shards."""
    whole = tmp_path / "whole.pcap"
    whole.write_bytes(gzip.decompress(AT_BROKER.read_bytes()))
    header, records = read_pcap(whole)
    cuts = (records[:1111], records[1111:7001], records[7001:])
    pieces = [write_pcap(tmp_path / name, header, part) for name, part in zip(("c.pcap", "b.pcap", "a.pcap"), cuts, strict=True)]
    again = run_both(shipped("experiment08", "edge"), pieces, tmp_path, shards=2)
    assert again.paths.equals(found.paths)
    assert again.packets.equals(found.packets)
    assert again.requests.equals(found.requests)


def test_a_clock_that_is_wrong_at_one_site_changes_no_delivery_between_both(tmp_path: Path) -> None:
    """Producers captured at the client's site and everything at the broker's, whose clock is 3 s ahead, and nobody says so."""
    at_client = [read_pcap(capture) for capture in shipped("experiment08", "edge")]
    whole = tmp_path / "whole.pcap"
    whole.write_bytes(gzip.decompress(AT_BROKER.read_bytes()))
    header, at_broker = read_pcap(whole)
    consumers = {
        int(connection.split("-")[0].rsplit(":", 1)[1])
        for connection in run_site([whole], BROKERS["edge"], tmp_path / "probe").fetched["connection_id"]
    }

    def produced(record: bytes) -> bool:
        return not consumers & set(struct.unpack_from(">HH", record, 16 + 34))

    def ahead(record: bytes, seconds: int) -> bytes:
        return struct.pack("<I", struct.unpack_from("<I", record)[0] + seconds) + record[4:]

    edge = write_pcap(tmp_path / "edge.pcap", header, [record for _, records in at_client for record in records if produced(record)])
    right, wrong = (
        run_experiment(
            {
                "edge": [edge],
                "hub": [write_pcap(tmp_path / f"hub-{seconds}.pcap", header, [ahead(record, seconds) for record in at_broker])],
            },
            tmp_path / str(seconds),
            clock_offset_ms=None,
            brokers={"edge": BROKERS["edge"], "hub": BROKERS["edge"]},
            with_paths=True,
        )
        for seconds in (0, 3)
    )
    between = right.filter(pl.col("produce_site") == "edge", pl.col("fetch_site") == "hub", pl.col("status") == "delivered")
    assert between.height > 700 and between["status_reason"].null_count() == between.height
    assert between["delivery_ms"].min() > LINK["one_way_delay_ms"]
    assert between["clock_uncertainty_ms"].max() < LINK["one_way_delay_ms"] + 0.5
    assert wrong.equals(right)
