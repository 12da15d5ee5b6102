"""TLS with keys: every request of a real capture at its true times, however the captures were cut; and what cannot be decrypted is said and never guessed."""

from __future__ import annotations

import itertools
import json
import logging
import random
import shutil
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from sites import BROKERS, NOT_ABOUT_CAPTURES, ROOT, Site, read_pcap, run_site, shipped, write_pcap

import merge_site
from brokerlens.errors import UserError
from brokerlens.tls import plaintext

pytestmark = pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")

DATA = ROOT / "tests" / "data" / "tls"
KEYS = DATA / "tls.keylog"
BROKER = ["192.0.2.20:31293"]
TRUTH = json.loads((DATA / "truth.json").read_text(encoding="utf-8"))
TIMES = ("request_first", "request_last", "response_first", "response_last")
FOUND = ("client_port", "client_id", "api_key", "api_version", "correlation_id", "request_bytes", "response_bytes", *TIMES)
NO_KEY = {row["client_port"] for row in TRUTH["connections"] if row["tls"] and not row["keys"]}
PORT = 40332
"""A connection of librdkafka's with 73 records from the broker, out of order in part, and key updates."""


class Segment(NamedTuple):
    """A packet of a connection: its place in the capture, its side (0 from the client), sequence number and bytes of payload."""

    place: int
    side: int
    seq: int
    size: int


def true_requests() -> pl.DataFrame:
    return pl.DataFrame(TRUTH["requests"], schema=list(FOUND), orient="row").sort(FOUND)


def requests_of(site: Site) -> pl.DataFrame:
    """The requests in the columns of the truth."""
    times = (pl.col(name).dt.timestamp("ns") for name in TIMES)
    others = pl.col(*[name for name in FOUND if name not in TIMES])
    return site.requests.select(others, *times).with_columns(pl.col(pl.Categorical).cast(pl.String)).sort(FOUND)


def outcomes(site: Site) -> dict[int, str]:
    """What became of each connection, by client port."""
    ports = site.decryption["connection_id"].str.extract(r":(\d+)-").cast(pl.Int64)
    return dict(zip(ports, site.decryption["outcome"], strict=True))


def packets() -> tuple[bytes, list[bytes]]:
    return read_pcap(DATA / "client.pcap")


def segments(records: Sequence[bytes], port: int) -> Iterator[Segment]:
    """The packets of one connection, Ethernet and IPv4."""
    for place, record in enumerate(records):
        packet = record[16 + 14 :]
        at = 4 * (packet[0] & 15)
        source, target, seq = struct.unpack_from(">HHI", packet, at)
        (total,) = struct.unpack_from(">H", packet, 2)
        if port in (source, target):
            yield Segment(place, int(target == port), seq, total - at - 4 * (packet[at + 12] >> 4))


def is_of(record: bytes, port: int) -> bool:
    return any(True for _ in segments([record], port))


def capture(folder: Path, keep: Callable[[int], bool]) -> Path:
    """The capture without some of its packets."""
    header, records = packets()
    return write_pcap(folder / "client.pcap", header, [record for place, record in enumerate(records) if keep(place)])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return run_site([DATA / "client.pcap"], BROKER, tmp_path_factory.mktemp("whole"), keys=KEYS)


def assert_same(found: Site, expected: Site) -> None:
    by = ["request_first", "connection_id", "correlation_id"]
    for a, b, order in ((found.requests, expected.requests, by), (found.connections, expected.connections, ["connection_id"])):
        assert_frame_equal(a.sort(order), b.sort(order), categorical_as_str=True)
    assert_frame_equal(found.decryption.sort("connection_id"), expected.decryption.sort("connection_id"))
    assert_frame_equal(*(site.metrics.filter(NOT_ABOUT_CAPTURES) for site in (found, expected)))
    assert_frame_equal(found.series, expected.series)
    by = ["timestamp", "connection_id", "seq", "ack"]
    assert_frame_equal(
        *(site.packets.drop("capture", "frame_number").sort(by) for site in (found, expected)),
        categorical_as_str=True,
    )


def test_every_request_with_its_sizes_and_times(whole: Site) -> None:
    assert_frame_equal(requests_of(whole), true_requests(), check_dtypes=False)
    said = whole.requests.filter(pl.col("status") != "answered")["status_reason"].cast(pl.String)
    assert sorted(said) == ["client_had_closed", "client_had_closed", "connection_closed"]  # the consumer left
    assert whole.requests.filter(pl.col("topics").list.contains("readings"))["record_count"].sum() == 200  # produced and fetched


def test_connections_say_what_was_decrypted(whole: Site) -> None:
    expected = {row["client_port"]: "decrypted" if row["keys"] else "no_key" for row in TRUTH["connections"] if row["tls"]}
    assert outcomes(whole) == expected
    rows = {row["client_port"]: row for row in whole.connections.rows(named=True)}
    assert all(rows[port]["encrypted"] for port in expected)
    assert {rows[port]["framing"] for port in NO_KEY} == {"none"}
    assert {rows[port]["framing"] for port in expected if port not in NO_KEY} == {"start"}
    ids = {row["client_port"]: row["client_id"] for row in TRUTH["connections"] if row["keys"]}
    assert {port: rows[port]["client_id"] for port in ids} == ids
    counts = whole.metrics.filter(pl.col("metric") == "decryption").select(pl.col("group").cast(pl.String), "value").rows()
    assert {group: value for group, value in counts if value} == {"outcome=decrypted": 16, "outcome=no_key": 5}


def test_frames_land_in_the_packets_that_begin_their_records(whole: Site) -> None:
    """Latencies and records stand in packets at the times of the frames."""
    begins = whole.requests.filter(pl.col("latency_ms").is_not_null())["response_first"].unique()
    latencies = whole.packets.filter(pl.col("kafka_lat_ms").is_not_null())
    assert set(latencies["timestamp"]) == set(begins)
    assert whole.packets["actual_msg_count"].sum() == whole.requests["record_count"].sum()


def test_secrets_in_the_capture(whole: Site, tmp_path: Path) -> None:
    found = run_site([DATA / "with-secrets.pcapng"], BROKER, tmp_path, keys="captures")
    ports = set(outcomes(found))
    assert len(ports) == 11
    assert set(outcomes(found).values()) == {"decrypted"}
    assert_frame_equal(requests_of(found), true_requests().filter(pl.col("client_port").is_in(ports)), check_dtypes=False)


def test_secrets_where_there_are_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no TLS keys in 1 capture") as error:
        run_site([DATA / "client.pcap"], BROKER, tmp_path, keys="captures")
    assert "editcap --inject-secrets" in str(error.value)


@pytest.mark.parametrize("overlap", [0, 9])
@pytest.mark.parametrize("seed", range(2))
def test_cut_anywhere(whole: Site, tmp_path: Path, seed: int, overlap: int) -> None:
    """At random, and between any two packets of a handshake; in no order; with some packets in both files or in none but one."""
    header, records = packets()
    chance = random.Random(seed)
    handshake = [segment.place for segment in segments(records, PORT)][1:12]
    cuts = [0, *sorted({*handshake, *chance.sample(range(1, len(records)), 15)}), len(records)]
    pieces = [
        write_pcap(tmp_path / f"{chance.random()}-{n}.pcap", header, records[a : b + chance.randint(0, overlap)])
        for n, (a, b) in enumerate(itertools.pairwise(cuts))
    ]
    assert_same(run_site(pieces, BROKER, tmp_path, keys=KEYS), whole)


def test_shards_parts_and_batches(whole: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plaintext, "BATCH_BYTES", 20_000)
    monkeypatch.setattr(merge_site, "PART_PACKETS", 300)
    assert_same(run_site([DATA / "client.pcap"], BROKER, tmp_path, shards=3, keys=KEYS), whole)


def test_without_keys_nothing_is_kept_of_tls(whole: Site, tmp_path: Path) -> None:
    found = run_site([DATA / "client.pcap"], BROKER, tmp_path)
    assert found.requests.height == found.decryption.height == 0
    kept = sum(pl.read_parquet(path)["data"].bin.size().sum() for path in tmp_path.glob("captures/*/kept_bytes.parquet"))
    assert kept < 1_000
    same = ["connection_id", "first_seen", "payload_bytes_to_broker", "retransmitted_segments_from_broker", "encrypted"]
    assert_frame_equal(found.connections.select(same), whole.connections.select(same))


def test_plaintext_beside_keys(tmp_path: Path) -> None:
    """What is not TLS is as without keys."""
    captures = shipped("experiment08", "edge")[:2]
    without = run_site(captures, BROKERS["edge"], tmp_path / "without")
    found = run_site(captures, BROKERS["edge"], tmp_path / "with", keys=KEYS)
    assert found.requests.height > 100
    assert set(outcomes(found).values()) == {"not_tls"}
    for name in ("requests", "connections", "packets"):
        assert_frame_equal(getattr(found, name), getattr(without, name))


def test_read_by_wireshark(whole: Site, tmp_path: Path) -> None:
    assert_same(run_site([DATA / "client.pcap"], BROKER, tmp_path, decoder="wireshark", keys=KEYS), whole)


def test_one_port_twice(tmp_path: Path) -> None:
    """Two connections by one port, one after another."""
    first, second = 60596, 60614
    header, records = packets()
    renamed = [
        record.replace(struct.pack(">H", second), struct.pack(">H", first), 1) if is_of(record, second) else record for record in records
    ]
    found = run_site([write_pcap(tmp_path / "renamed.pcap", header, renamed)], BROKER, tmp_path, keys=KEYS)
    of_port = found.decryption.filter(pl.col("connection_id").str.starts_with(f"192.0.2.25:{first}-")).sort("connection_id")
    assert of_port["connection_id"].str.tail(2).to_list() == ["#1", "#2"]
    assert of_port["outcome"].to_list() == ["decrypted", "decrypted"]
    expected = true_requests().with_columns(pl.col("client_port").replace(second, first)).sort(FOUND)
    assert_frame_equal(requests_of(found), expected, check_dtypes=False)


def test_keys_of_other_connections(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of the right form, for nothing that was captured."""
    wrong = tmp_path / "wrong.keylog"
    wrong.write_text(f"CLIENT_RANDOM {'12' * 32} {'34' * 48}\n")
    with caplog.at_level(logging.WARNING, "brokerlens"):
        found = run_site([DATA / "client.pcap"], BROKER, tmp_path, keys=wrong)
    assert set(outcomes(found).values()) == {"no_key"}
    assert found.requests.height == 0
    assert set(found.connections["framing"]) == {"none"}
    assert "opens none of 21 TLS connections: it is probably the wrong file" in caplog.text


def test_keys_that_do_not_fit(tmp_path: Path) -> None:
    """The right connections, another secret."""
    wrong = tmp_path / "wrong.keylog"
    lines = [line.split() for line in KEYS.read_text().splitlines() if line and not line.startswith("#")]
    wrong.write_text("".join(f"{label} {client_random} {'56' * (len(secret) // 2)}\n" for label, client_random, secret in lines))
    found = run_site([DATA / "client.pcap"], BROKER, tmp_path, keys=wrong)
    assert set(outcomes(found).values()) == {"no_key"}
    assert found.requests.height == 0


def test_keys_of_one_direction(tmp_path: Path) -> None:
    """Its requests are there, and nothing says that the keys open nothing."""
    half = tmp_path / "half.keylog"
    half.write_text("".join(line for line in KEYS.read_text(encoding="utf-8").splitlines(True) if line.startswith("CLIENT_")))
    found = run_site([DATA / "client.pcap"], BROKER, tmp_path, keys=half)
    assert outcomes(found)[PORT] == "in_part"
    asked = [name for name in FOUND if not name.startswith("response")]
    of_port = (frame.filter(pl.col("client_port") == PORT).select(asked) for frame in (requests_of(found), true_requests()))
    assert_frame_equal(*of_port, check_dtypes=False)
    said = found.requests.filter(pl.col("client_port") == PORT)["status_reason"].cast(pl.String)
    assert set(said) <= {"response_not_decrypted", "no_response_expected"}


def test_a_packet_that_was_not_captured(whole: Site, tmp_path: Path) -> None:
    """That direction ends there, the other one goes on."""
    _, records = packets()
    answers = [segment for segment in segments(records, PORT) if segment.side == 1 and segment.size]
    once = [one for one in answers if sum(o.seq < one.seq + one.size and one.seq < o.seq + o.size for o in answers) == 1]
    lost = once[len(once) // 2]
    found = run_site([capture(tmp_path, lambda place: place != lost.place)], BROKER, tmp_path, keys=KEYS)
    assert outcomes(found) == outcomes(whole) | {PORT: "hole"}
    same, cut = (requests_of(found).filter(expr) for expr in (pl.col("client_port") != PORT, pl.col("client_port") == PORT))
    assert_frame_equal(same, true_requests().filter(pl.col("client_port") != PORT), check_dtypes=False)
    truth = true_requests().filter(pl.col("client_port") == PORT)
    asked = [name for name in FOUND if not name.startswith("response")]
    assert_frame_equal(cut.select(asked), truth.select(asked), check_dtypes=False)
    answered = cut["response_last"].is_not_null().sum()
    assert 0 < answered < cut.height
    assert_frame_equal(cut.sort("request_first")[:answered], truth.sort("request_first")[:answered], check_dtypes=False)
    rows = found.requests.filter(pl.col("client_port") == PORT).sort("request_first")
    assert set(rows[answered + 1 :]["status_reason"].cast(pl.String)) == {"response_not_decrypted"}
    unread = found.decryption.filter(pl.col("outcome") == "hole")["unread_bytes"].item()
    behind = sum(one.size for one in once if one.seq > lost.seq)
    assert behind <= unread <= behind + lost.size + 20_000
    assert found.connections.filter(pl.col("client_port") == PORT)["skipped_bytes_from_broker"].item() == unread


def test_a_capture_that_begins_after_the_handshake(whole: Site, tmp_path: Path) -> None:
    _, records = packets()
    early = {segment.place for segment in list(segments(records, PORT))[:12]}
    found = run_site([capture(tmp_path, lambda place: place not in early)], BROKER, tmp_path, keys=KEYS)
    assert outcomes(found) == outcomes(whole) | {PORT: "began_before_capture"}
    assert_frame_equal(requests_of(found), true_requests().filter(pl.col("client_port") != PORT), check_dtypes=False)
    row = found.connections.filter(pl.col("client_port") == PORT).row(0, named=True)
    assert (row["framing"], row["encrypted"]) == ("none", True)


def test_hellos_that_were_not_captured(whole: Site, tmp_path: Path) -> None:
    """One of them, and both."""
    _, records = packets()
    with_data = [[one.place for one in segments(records, port) if one.size] for port in (PORT, 60596)]
    lost = {with_data[0][0], *with_data[1][:2]}
    found = run_site([capture(tmp_path, lambda place: place not in lost)], BROKER, tmp_path, keys=KEYS)
    assert outcomes(found) == outcomes(whole) | {PORT: "hole", 60596: "hole"}
    assert_frame_equal(requests_of(found), true_requests().filter(~pl.col("client_port").is_in([PORT, 60596])), check_dtypes=False)


def test_a_client_alone(tmp_path: Path) -> None:
    """Only packets to the broker: half a handshake, and nothing invented."""
    _, records = packets()
    answers = {one.place for port in (PORT, 60596) for one in segments(records, port) if one.side == 1}
    found = run_site([capture(tmp_path, lambda place: place not in answers)], BROKER, tmp_path, keys=KEYS)
    assert {outcomes(found)[port] for port in (PORT, 60596)} == {"hole"}
    assert found.requests.filter(pl.col("client_port").is_in([PORT, 60596])).height == 0


def test_a_syn_that_was_not_captured(whole: Site, tmp_path: Path) -> None:
    """The handshake is there all the same."""
    _, records = packets()
    syns = {segment.place for segment in list(segments(records, PORT))[:3]}
    found = run_site([capture(tmp_path, lambda place: place not in syns)], BROKER, tmp_path, keys=KEYS)
    assert_frame_equal(requests_of(found), true_requests(), check_dtypes=False)
    assert outcomes(found) == outcomes(whole)


@pytest.mark.parametrize("snaplen", [200, 400])
def test_a_snaplen(tmp_path: Path, snaplen: int) -> None:
    """What is found is true, and what was cut is said."""
    header, records = packets()
    cut = []
    for record in records:
        seconds, fraction, captured, wire = struct.unpack_from("<IIII", record)
        cut.append(struct.pack("<IIII", seconds, fraction, min(captured, snaplen), wire) + record[16 : 16 + snaplen])
    found = run_site([write_pcap(tmp_path / "cut.pcap", header, cut)], BROKER, tmp_path, keys=KEYS)
    assert "cut_by_snaplen" in outcomes(found).values()
    assert set(outcomes(found).values()) <= {"cut_by_snaplen", "no_key", "hole"}
    asked = [name for name in FOUND if not name.startswith("response")]
    assert requests_of(found).select(asked).join(true_requests().select(asked), on=asked, how="anti", nulls_equal=True).height == 0
