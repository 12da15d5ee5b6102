"""Put a site's connections together across its captures: packets, requests and connections of one shard."""

from brokerlens import job  # first: limits threads before polars and numba start

import itertools
import json
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa

from brokerlens import in_time, tables
from brokerlens.capture import working
from brokerlens.capture.lookup import BUCKETS, endpoint
from brokerlens.capture.secrets import read_secrets
from brokerlens.errors import UserError
from brokerlens.kafka import batches, bodies
from brokerlens.kafka import requests as kafka_requests
from brokerlens.kafka.frames import FRAMING, StreamFacts, follow_connections
from brokerlens.kafka.machine import HEADER_HOLE
from brokerlens.kafka.requests import UNREAD
from brokerlens.pseudonyms import AS_THEY_ARE, Pseudonyms, of_job
from brokerlens.tcp.captured import captured_bytes, covered
from brokerlens.tcp.duplicates import DUPLICATES
from brokerlens.tcp.evidence import KINDS
from brokerlens.tcp.locate import rows_of_bytes
from brokerlens.tcp.order import ACK, FIN, RST, Ordered, order_packets
from brokerlens.tcp.segments import (
    ENDED,
    LABELS,
    RESET_BY,
    RESETS_BY_KIND,
    SETUPS,
    TAPS,
    ConnectionFacts,
    SegmentFacts,
    follow_segments,
)
from brokerlens.tcp.stream import Streams, assemble, whole_since
from brokerlens.tls.keys import KeyLog, read_key_log
from brokerlens.tls.outcomes import BEGAN_BEFORE, NOT_TLS, NOTHING, OUTCOMES
from brokerlens.tls.plaintext import Plaintext, decrypt_streams
from brokerlens.wireshark import tools

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

log = logging.getLogger("brokerlens")
MS = 1e6
PART_PACKETS: Final = 1_000_000
"""About how many packets are followed at once: memory grows with these and with the results, not with what is needed in between."""
PART_REQUESTS: Final = 250_000
TIMESTAMPS = 1  # bit of the working rows' `options`
SIDES = ("to_broker", "from_broker")
DECRYPTION: Final = pa.schema([("connection_id", pa.string()), ("outcome", pa.string()), ("unread_bytes", pa.int64())])
SASL_APIS = (17, 36)  # SaslHandshake, SaslAuthenticate


def words(codes: np.ndarray, names: Sequence[str]) -> pa.Array:
    """Codes as a dictionary column; null for the first one where its name is empty."""
    absent = codes == 0 if names and names[0] == "" else None
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32), mask=absent), pa.array(list(names), type=pa.string()))


def times(nanoseconds: np.ndarray) -> pa.Array:
    """Times in ns since 1970, null where negative (none)."""
    return pa.array(nanoseconds, mask=nanoseconds < 0).cast(tables.TIME)


def milliseconds(nanoseconds: np.ndarray) -> pa.Array:
    """Durations in ns as ms, null where negative (none)."""
    return pa.array(nanoseconds / MS, mask=nanoseconds < 0)


def connection_table(rows: working.Rows, ordered: Ordered, hide: Pseudonyms = AS_THEY_ARE) -> pl.DataFrame:
    """Addresses and ``connection_id`` of every connection, in the order of their numbers; ``real_client`` and ``real_broker``: by which they are put in order."""
    known = pl.DataFrame(
        rows.connections, schema={"client_ip": pl.String, "client_port": pl.Int64, "broker_ip": pl.String, "broker_port": pl.Int64}
    ).with_columns(
        *(pl.col(f"{end}_ip").alias(f"real_{end}") for end in ("client", "broker")),
        *(pl.Series(name, [*map(hide.address, rows.connections[name])], dtype=pl.String) for name in ("client_ip", "broker_ip")),
    )
    table = known[ordered.address].with_columns(pl.Series("generation", ordered.generation))
    ends = table.select("client_ip", "client_port", "broker_ip", "broker_port", "generation")
    ids = [
        f"{endpoint(client, client_port)}-{endpoint(broker, broker_port)}#{n}"
        for client, client_port, broker, broker_port, n in ends.iter_rows()
    ]
    return table.with_columns(pl.Series("connection_id", ids, dtype=pl.String))


def place_frames(
    rows: working.Rows, ordered: Ordered, facts: SegmentFacts, streams: Streams, frames: pl.DataFrame, plaintext: Plaintext | None
) -> pl.DataFrame:
    """The frames with what the wire says of them.

    ``retransmitted``: a byte was sent again; ``captured``: bytes that are there; ``row``: of the packet in which it begins (-1 where that was not captured).
    Those in ``plaintext`` lie, on the wire, in whole records, and begin when their first record does.
    """
    direction = (2 * frames["connection"] + frames["side"]).to_numpy()
    first_time = frames["first_time"].fill_null(-1).to_numpy()
    stretch = frames["start"].to_numpy(), frames["size"].to_numpy()
    located = plaintext.locate(direction, *stretch) if plaintext else None
    if located:
        stretch = located.start, located.size
        first_time = np.where(located.is_plaintext, located.first_time, first_time)
    captured = captured_bytes(rows, ordered, facts, direction, *stretch)
    if located:
        captured = np.where(located.is_plaintext, located.captured, captured)
    row = rows_of_bytes(
        ordered.first,
        ordered.side,
        ordered.time,
        ordered.position,
        rows.columns["flags"][ordered.row].astype(np.int64),
        rows.columns["payload_len"][ordered.row].astype(np.int64),
        ordered.is_duplicate,
        direction,
        stretch[0],
        first_time,
    )
    return frames.with_columns(
        pl.Series("first_time", first_time, dtype=pl.Int64).replace(-1, None),
        pl.Series("retransmitted", covered(streams.again_first, streams.again_from, streams.again_to, direction, *stretch) > 0),
        pl.Series("captured", captured),
        pl.Series("row", row),
    )


def packet_table(
    rows: working.Rows,
    ordered: Ordered,
    facts: SegmentFacts,
    connections: pl.DataFrame,
    records: np.ndarray,
    latency_ms: np.ndarray,
    order: np.ndarray,
    captures: Sequence[str],
) -> pa.Table:
    """The rows of ``packets``, in ``order``; ``captures`` are the names of the rows' captures as outputs show them."""
    row, connection = ordered.row[order], ordered.connection[order]
    from_broker = ordered.side[order] == 1
    shown = (
        "flags",
        "seq",
        "ack",
        "window",
        "payload_len",
        "options",
        "frame_number",
        "wire_len",
        "captured_len",
        "ttl",
        "ip_id",
        "tsval",
        "tsecr",
    )
    column = {name: rows.columns[name][row] for name in shown}
    addresses = sorted({*connections["client_ip"], *connections["broker_ip"]})
    code = {address: number for number, address in enumerate(addresses)}
    client, broker = (
        np.array([code[address] for address in connections[name]], np.int32)[connection] for name in ("client_ip", "broker_ip")
    )
    client_port, broker_port = (connections[name].to_numpy()[connection] for name in ("client_port", "broker_port"))
    label = facts.label[order]
    stamped = column["options"] & TIMESTAMPS == 0
    return pa.table(
        {
            "timestamp": times(ordered.time[order]),
            "src_ip": words(np.where(from_broker, broker, client), addresses),
            "dst_ip": words(np.where(from_broker, client, broker), addresses),
            "src_port": np.where(from_broker, broker_port, client_port),
            "dst_port": np.where(from_broker, client_port, broker_port),
            "connection_id": words(connection, connections["connection_id"].to_list()),
            "from_broker": from_broker,
            "tcp_flags": column["flags"],
            "seq": column["seq"],
            "ack": pa.array(column["ack"], mask=column["flags"] & ACK == 0),
            "window_size": column["window"].astype(np.uint32),
            "window_bytes": pa.array(facts.window_bytes[order], mask=facts.window_bytes[order] < 0),
            "payload_len": column["payload_len"],
            "actual_msg_count": records[order],
            "rtt_ms": milliseconds(facts.rtt_ns[order]),
            "kafka_lat_ms": pa.array(latency_ms[order], mask=np.isnan(latency_ms[order])),
            "segment": words(label, LABELS),
            "is_retransmission": np.isin(label, [LABELS.index("retransmitted"), LABELS.index("filled")]),
            "retransmission_kind": words(facts.kind[order], KINDS),
            "segment_evidence": facts.evidence[order].astype(np.uint32),
            "new_bytes": facts.new_bytes[order],
            "in_flight": pa.array(facts.in_flight[order], mask=facts.in_flight[order] < 0),
            "late_ms": milliseconds(np.where(facts.late_segments > 0, facts.late_ns, -1)[order]),
            "late_segments": pa.array(facts.late_segments[order], mask=facts.late_segments[order] == 0),
            "is_duplicate": ordered.is_duplicate[order],
            "duplicate_kind": words(ordered.duplicate[order], DUPLICATES),
            "duplicate_gap_ms": milliseconds(np.where(ordered.is_duplicate, ordered.duplicate_gap, -1)[order]),
            "acked_bytes": facts.acked_bytes[order],
            "unseen_bytes": facts.unseen_bytes[order],
            "zero_window_begins": facts.zero_window_begins[order],
            "capture": words(rows.capture[row], captures),
            "frame_number": column["frame_number"],
            "wire_len": column["wire_len"],
            "captured_len": column["captured_len"],
            "ttl": column["ttl"],
            "ip_id": pa.array(column["ip_id"], mask=column["ip_id"] < 0),
            "tsval": pa.array(column["tsval"], mask=stamped),
            "tsecr": pa.array(column["tsecr"], mask=stamped),
        }
    )


def per_packet(located: pl.DataFrame, requests: pl.DataFrame, packets: int) -> tuple[np.ndarray, np.ndarray]:
    """Per row of the shard: records of the batches whose frame begins in it, and the latency of the first response that does (NaN: none)."""
    row_of = located["row"].to_numpy()
    records, latency = np.zeros(packets, np.uint32), np.full(packets, np.nan)
    carried = requests.select("carrier", "record_count").filter(pl.col("record_count") > 0)
    carrier_rows = row_of[carried["carrier"].to_numpy()]
    np.add.at(records, carrier_rows[carrier_rows >= 0], carried["record_count"].to_numpy().astype(np.uint32)[carrier_rows >= 0])
    answered = requests.select("response", "latency_ms").filter(pl.col("latency_ms").is_not_null()).sort("response", descending=True)
    response_rows = row_of[answered["response"].to_numpy()]
    # In descending order of frames, so that the first response of a packet is written last.
    latency[response_rows[response_rows >= 0]] = answered["latency_ms"].to_numpy()[response_rows >= 0]
    return records, latency


def frame_oddities(facts: StreamFacts, frames: pl.DataFrame) -> dict[str, np.ndarray]:
    """Per connection the counts of `tables.FRAME_ODDITIES`."""
    unkept = frames.filter((pl.col("header") & HEADER_HOLE > 0) & (pl.col("captured") == pl.col("size")))["connection"].to_numpy()
    return {**facts.oddities, "unkept_frames": np.bincount(unkept, minlength=len(facts.encrypted))}


def connection_rows(
    connections: pl.DataFrame, facts: ConnectionFacts, streams: StreamFacts, odd: Mapping[str, np.ndarray], requests: pl.DataFrame
) -> pa.Table:
    """The rows of ``connections``, in the order of their numbers; ``odd`` as `frame_oddities` counts."""
    first = (
        requests.select("connection", "request_first", "frame", "client_id", "client_software")
        .sort("request_first", "frame", nulls_last=True)
        .group_by("connection", maintain_order=True)
        .agg(pl.col("client_id").drop_nulls().first(), pl.col("client_software").drop_nulls().first())
    )
    named = (
        connections.with_row_index("connection")
        .with_columns(pl.col("connection").cast(pl.Int64))
        .join(first, on="connection", how="left", maintain_order="left")
    )
    sasl = odd["raw_frames"] > 0
    sasl[requests.filter(pl.col("api_key").is_in(SASL_APIS))["connection"].to_numpy()] = True
    framing = np.where(streams.framing[0::2] > 0, streams.framing[0::2], streams.framing[1::2])
    of_direction = {name: getattr(streams if name in ("frames", "skipped_bytes") else facts, name) for name, *_ in tables.DIRECTION_COLUMNS}
    halves = [f"rtt_{side}_{part}" for side in ("broker", "client") for part in ("n", "min_ms", "p50_ms", "p95_ms")]
    arrow = named.to_arrow()
    return pa.table(
        {
            **{
                name: arrow[name]
                for name in ("connection_id", "client_ip", "client_port", "broker_ip", "broker_port", "client_id", "client_software")
            },
            "first_seen": times(facts.first_seen),
            "last_seen": times(facts.last_seen),
            "started": facts.started,
            "setup": words(facts.setup, SETUPS),
            "connect_ms": milliseconds(facts.connect_ns),
            "syn_retry_ms": milliseconds(facts.syn_retry_ns),
            "ended": words(facts.ended, ENDED),
            "closed_by": words(facts.closed_by, RESET_BY),
            "reset_by": words(facts.reset_by, RESET_BY),
            "reset_kind": words(facts.reset_kind, RESETS_BY_KIND),
            "isn_client": pa.array(facts.isn_client, mask=facts.isn_client < 0),
            "isn_broker": pa.array(facts.isn_broker, mask=facts.isn_broker < 0),
            "mss": pa.array(facts.mss, mask=facts.mss < 0),
            "tap": words(facts.tap, TAPS),
            "handshake_broker_ms": milliseconds(facts.handshake_broker_ns),
            "handshake_client_ms": milliseconds(facts.handshake_client_ns),
            **{name: pa.array(getattr(facts, name), from_pandas=True) for name in halves},
            **{f"{name}_{side}": values[number::2] for name, values in of_direction.items() for number, side in enumerate(SIDES)},
            "framing": words(framing, FRAMING),
            "encrypted": streams.encrypted,
            "sasl": sasl,
            **odd,
        }
    )


def notebook_table(rows: working.Rows, ordered: Ordered, order: np.ndarray) -> pa.Table:
    """What the notebook's arithmetic needs of the packets, in their rows and order; holds payload, so for the owner only."""
    row = ordered.row[order]
    return pa.table(
        {"timestamp": ordered.time[order], "padded_len": rows.columns["padded_len"][row], "notebook_id": rows.columns["notebook_id"][row]},
        schema=pa.schema(
            [
                pa.field("timestamp", pa.int64(), False),
                pa.field("padded_len", pa.uint32(), False),
                pa.field("notebook_id", pa.uint32(), False),
            ]
        ),
    )


def folders_listed(path: str) -> list[str]:
    """The working folders that a list of captures names: they lie beside it."""
    folders = [Path(path).parent / name for name in json.loads(Path(path).read_text(encoding="utf-8"))]
    lost = next((folder for folder in folders if not (folder / "facts.json").exists()), None)
    if lost is not None:
        raise UserError(f"{lost} is not there; expected what split_capture left of a capture. Remove {path} and run again.")
    return [str(folder) for folder in folders]


def demand_packets(folders: Sequence[str], brokers: Sequence[str]) -> int:
    """How many packets of the site's brokers the captures have; without any end with the endpoints that they do hold."""
    facts = [working.read_facts(folder) for folder in folders]
    kept = sum(int(fact["kept"]) for fact in facts)
    if kept:
        return kept
    counted: dict[str, int] = {}
    for fact in facts:
        for name, packets in fact["endpoints"]:
            counted[name] = counted.get(name, 0) + packets
    busiest = sorted(counted.items(), key=lambda item: (-item[1], item[0]))[:8]
    found = ", ".join(f"{name} ({packets:,} packets)" for name, packets in busiest)
    said = f"no packet to or from {', '.join(brokers)} in {len(facts)} capture(s) of {sum(fact['packets'] for fact in facts):,} packets"
    if not found:
        raise UserError(f"{said}; they hold no TCP packets at all. Give the site's `captures` files with its brokers' traffic.")
    raise UserError(f"{said}; they hold, busiest first: {found}. Set the site's `brokers` to the broker's address as the captures show it.")


def read_keys(kind: str | None, sources: Sequence[str], folders: Sequence[str]) -> KeyLog | None:
    """The keys of a site: of a ``file``, or those that stand in its ``captures``; None without either."""
    if kind is None:
        return None
    tools.find("tshark")
    if kind == "file":
        return read_key_log(sources[0])
    keys = KeyLog()
    for source, folder in zip(sources, folders, strict=True):
        for secrets in read_secrets(source, int(working.read_facts(folder)["secrets_blocks"])):
            keys.add(secrets.splitlines())
    if not keys:
        raise UserError(
            f"tls_keylog: captures: no TLS keys in {len(sources)} capture(s); expected blocks of decryption secrets, which only pcapng files have. "
            "Give `tls_keylog` the path of the key log, or put its keys into a capture with `editcap --inject-secrets tls,FILE`."
        )
    return keys


def client_left(rows: working.Rows, ordered: Ordered) -> np.ndarray:
    """Per connection from when on (ns) the client's host refused what came: its FIN or RST, where it sent an RST at all; else -1."""
    flags = rows.columns["flags"][ordered.row]
    sent = (ordered.side == 0) & ~ordered.is_duplicate
    reset, closed = sent & (flags & RST > 0), sent & (flags & (FIN | RST) > 0)
    left = np.full(len(ordered.address), np.iinfo(np.int64).max)
    np.minimum.at(left, ordered.connection[closed], ordered.time[closed])
    refuses = np.zeros(len(left), bool)
    refuses[ordered.connection[reset]] = True
    return np.where(refuses, left, -1)


def ends(facts: ConnectionFacts, plaintext: Plaintext | None) -> list[str]:
    """Per connection how it ended; ``unread`` where its answers could not be decrypted up to there."""
    said = [ENDED[code] for code in facts.ended]
    for connection in np.flatnonzero(plaintext.unread[1::2]) if plaintext else ():
        said[connection] = UNREAD
    return said


def with_decryption(facts: StreamFacts, plaintext: Plaintext) -> StreamFacts:
    """The same, with connections encrypted that were decrypted, and bytes skipped that could not be."""
    return facts._replace(encrypted=facts.encrypted | plaintext.is_tls, skipped_bytes=facts.skipped_bytes + plaintext.unread)


def decryption_table(connections: pl.DataFrame, facts: ConnectionFacts, streams: StreamFacts, plaintext: Plaintext | None) -> pa.Table:
    """Of a site with keys what became of each connection with payload: an outcome (`tls.plaintext.OUTCOMES`), and bytes that stayed unread."""
    if plaintext is None:
        return DECRYPTION.empty_table()
    outcome = plaintext.outcome.copy()
    outcome[streams.encrypted & ~plaintext.is_tls] = BEGAN_BEFORE
    data = facts.payload_bytes[0::2] + facts.payload_bytes[1::2] > 0
    has_frames = streams.frames[0::2] + streams.frames[1::2] > 0
    outcome[~streams.encrypted & data & (has_frames | (outcome == NOTHING))] = NOT_TLS
    some = np.flatnonzero(outcome)
    unread = streams.skipped_bytes[0::2] + streams.skipped_bytes[1::2]
    return pa.table(
        {
            "connection_id": connections["connection_id"].gather(some).to_list(),
            "outcome": [OUTCOMES[code] for code in outcome[some]],
            "unread_bytes": np.where(outcome == NOT_TLS, 0, unread)[some],
        },
        schema=DECRYPTION,
    )


def taps(configured: str, facts: ConnectionFacts) -> list[str]:
    """Per connection where it was captured: as configured, else as the data say."""
    return [configured] * len(facts.tap) if configured != "auto" else [TAPS[code] for code in facts.tap]


class Places(NamedTuple):
    """Of rows in order of time (ns): it, and each row's connection by its place in `Merged.known`."""

    time: np.ndarray
    connection: np.ndarray


class Merged(NamedTuple):
    """What one part of a shard's connections gives; ``notebook`` has the rows of ``packets``."""

    known: pl.DataFrame
    packets_at: Places
    packets: pa.Table | in_time.Stored
    notebook: pa.Table | in_time.Stored
    connections: pa.Table
    requests_at: Places
    requests: pa.Table | in_time.Stored
    topics: pl.DataFrame
    produced: pa.Table | in_time.Stored
    fetched: pa.Table | in_time.Stored
    decryption: pa.Table

    def stored(self, path: str) -> "Merged":
        """The same with its large tables in files, whose names begin as ``path``."""
        return self._replace(
            packets=in_time.Stored(self.packets, f"{path}-packets.arrow"),
            notebook=in_time.Stored(self.notebook, f"{path}-notebook.arrow"),
            requests=in_time.Stored(self.requests, f"{path}-requests.arrow"),
            produced=in_time.Stored(self.produced, f"{path}-produced.arrow"),
            fetched=in_time.Stored(self.fetched, f"{path}-fetched.arrow"),
        )


@contextmanager
def put_aside(output: Path) -> Iterator[Path]:
    """A folder beside an output, for the owner only, that goes with the block; one that a killed job left is emptied first."""
    folder = output.with_name(f".{output.stem}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700, parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def bucket_ranges(low: int, high: int, parts: int) -> list[tuple[int, int]]:
    """The buckets from ``low`` on, ``high`` not included, in so many ranges."""
    parts = min(max(parts, 1), high - low)
    borders = [low + (high - low) * number // parts for number in range(parts + 1)]
    return [*itertools.pairwise(borders)]


def sights(streams: Streams) -> batches.Sights:
    """When the tap had seen stretches of the streams that frames were read from."""
    seen = (
        np.ascontiguousarray(column, np.int64) for column in (streams.seen_first, streams.seen_from, streams.seen_to, streams.seen_time)
    )
    columns = tuple(seen)
    return lambda direction, begin, end: whole_since(*columns, *(np.ascontiguousarray(of, np.int64) for of in (direction, begin, end)))


def merge_part(rows: working.Rows, tap: str, keys: KeyLog | None = None, hide: Pseudonyms = AS_THEY_ARE) -> Merged:
    """Follow the connections of some of a shard's packets; ``tap`` is the configured one, ``keys`` open those that are TLS. Names and addresses leave it as ``hide`` shows them."""
    ordered = order_packets(rows)
    segment_facts, connection_facts = follow_segments(rows, ordered)
    streams = assemble(rows, ordered, segment_facts)
    plaintext = decrypt_streams(streams, keys) if keys else None
    frames, fields, stream_facts = follow_connections(
        plaintext.streams if plaintext else streams, len(ordered.address), wanted=bodies.WANTED
    )
    log.info(
        "%d packets (%d copies) of %d connections, %d frames", len(ordered.row), ordered.copies, len(ordered.address), len(frames.start)
    )

    known = connection_table(rows, ordered, hide)
    table = kafka_requests.frame_table(frames, fields, hide)
    table = place_frames(rows, ordered, segment_facts, streams, table, plaintext)
    if plaintext:
        stream_facts = with_decryption(stream_facts, plaintext)
    timed = np.flatnonzero(segment_facts.rtt_ns >= 0)
    trips = kafka_requests.RoundTrips(ordered.connection[timed], ordered.time[timed], ordered.side[timed] == 1, segment_facts.rtt_ns[timed])
    of_connections = kafka_requests.Connections(
        connection_id=known["connection_id"].to_list(),
        client_ip=known["client_ip"].to_list(),
        client_port=known["client_port"].to_numpy(),
        broker_ip=known["broker_ip"].to_list(),
        broker_port=known["broker_port"].to_numpy(),
        ended=ends(connection_facts, plaintext),
        tap=taps(tap, connection_facts),
        client_left=client_left(rows, ordered),
    )
    contents = bodies.read_contents(fields, table.height, hide)
    requests = kafka_requests.build_requests(table, contents, of_connections, trips)
    began = requests.select(kafka_requests.BEGAN.fill_null(np.iinfo(np.int64).max)).to_series()
    records, latency = per_packet(table, requests, len(ordered.row))
    odd = frame_oddities(stream_facts, table)
    order = np.argsort(ordered.time, kind="stable")
    return Merged(
        known=known,
        packets_at=Places(ordered.time[order], ordered.connection[order]),
        packets=tables.conform(
            packet_table(rows, ordered, segment_facts, known, records, latency, order, [*map(hide.capture, rows.captures)]), "packets"
        ),
        notebook=notebook_table(rows, ordered, order),
        connections=connection_rows(known, connection_facts, stream_facts, odd, requests),
        requests_at=Places(began.to_numpy(), requests["connection"].to_numpy()),
        requests=kafka_requests.to_arrow(requests),
        topics=bodies.learned_topics(table, contents),
        produced=batches.produced(contents, requests).to_arrow(),
        fetched=batches.fetched(contents, requests, table, sights(plaintext.streams if plaintext else streams)).to_arrow(),
        decryption=decryption_table(known, connection_facts, stream_facts, plaintext),
    )


def rank_connections(parts: Sequence[pl.DataFrame]) -> list[np.ndarray]:
    """Per part of a shard the place of each of its connections (`connection_table`) among those of all, by address and generation."""
    keys = pl.concat(part.with_columns(pl.lit(number).alias("part")) for number, part in enumerate(parts))
    order = keys.with_row_index("row").sort("real_client", "client_port", "real_broker", "broker_port", "generation")["row"].to_numpy()
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return np.split(rank, np.cumsum([part.height for part in parts])[:-1])


def time_order(parts: Sequence[Places], ranks: Sequence[np.ndarray], rows: int) -> list[in_time.Stretch]:
    """Rows of all parts in order of time, about so many at once; those of one time in the order of their connections."""
    of_rows = [rank[part.connection] for rank, part in zip(ranks, parts, strict=True)]
    return [*in_time.stretches([part.time for part in parts], of_rows, rows)]


def join_connections(parts: Sequence[pa.Table], ranks: Sequence[np.ndarray]) -> pa.Table:
    """The connections of all parts, in the order of their first packet; those of one time in the order of ``ranks``, as the rows of each part are."""
    table = pa.concat_tables(parts).unify_dictionaries()
    first_seen = table["first_seen"].cast(pa.int64()).to_numpy()
    return table.take(np.lexsort((np.concatenate(ranks), first_seen)))


def merge_site(
    *,
    captures: Sequence[str],
    part: int,
    site: Mapping[str, Any],
    packets: str,
    connections: str,
    requests: str,
    topics: str,
    notebook: str,
    produced: str | None = None,
    fetched: str | None = None,
    decryption: str | None = None,
    key_sources: Sequence[str] = (),
) -> None:
    """Merge one shard of a site: ``captures`` are working folders, ``part`` its number; ``site`` holds brokers, tap, shards, and whether there are keys.

    Writes the shard's ``packets`` and ``connections``, and working files for the stages behind: provisional ``requests``, the ``topics`` that it learned, what
    the ``notebook``'s figures need, the record batches ``produced`` and ``fetched``, and what ``decryption`` could do. ``key_sources``: the key log, or, if the site's ``keys`` are in its captures, those, in
    the order of their folders. Where ``site`` has ``names`` (`pseudonyms.of_job`), all of these show pseudonyms.

    Raises `UserError` if no capture has a packet of the site's brokers, if there are no keys where some should be, or no tshark to use them.
    """
    hide = of_job(site.get("names"))
    kept = demand_packets(captures, site["brokers"])
    keys = read_keys(site.get("keys"), key_sources, captures)
    low, high = (BUCKETS * number // site["shards"] for number in (part, part + 1))
    ranges = bucket_ranges(low, high, -(-kept // (site["shards"] * PART_PACKETS)))
    sizes = {hide.capture(made["capture"]): made["bytes"] for made in map(working.read_provenance, captures)}
    shown = {"brokers": sorted(map(hide.endpoint, site["brokers"])), "tap": site["tap"]}
    provenance = {"captures": dict(sorted(sizes.items())), "site": shown}
    with put_aside(Path(requests)) as folder:
        parts = enumerate(working.read_rows(captures, ranges))
        merged = [merge_part(rows, site["tap"], keys, hide).stored(f"{folder}/{number}") for number, rows in parts]
        ranks = rank_connections([made.known for made in merged])
        order = time_order([made.packets_at for made in merged], ranks, PART_PACKETS)
        tables.write(in_time.arrange([made.packets for made in merged], order), packets, "packets", provenance)
        tables.write_working(in_time.arrange([made.notebook for made in merged], order), notebook, provenance)
        tables.write(join_connections([made.connections for made in merged], ranks), connections, "connections", provenance)
        tables.write_working(bodies.earliest(pl.concat(made.topics for made in merged)).to_arrow(), topics, provenance)
        for path, tables_of_parts in ((produced, [made.produced for made in merged]), (fetched, [made.fetched for made in merged])):
            if path is not None:
                tables.write_working(in_time.in_turn(tables_of_parts, PART_REQUESTS), path, provenance)
        if decryption is not None:
            tables.write_working(pa.concat_tables(made.decryption for made in merged), decryption, provenance)
        order = time_order([made.requests_at for made in merged], ranks, PART_REQUESTS)
        tables.write_working(in_time.arrange([made.requests for made in merged], order), requests, provenance)


if __name__ == "__main__":
    with job.logged(snakemake):
        merge_site(
            captures=folders_listed(snakemake.input.captures),
            part=int(snakemake.wildcards.part),
            site=snakemake.params.site,
            packets=snakemake.output.packets,
            connections=snakemake.output.connections,
            requests=snakemake.output.requests,
            topics=snakemake.output.topics,
            notebook=snakemake.output.notebook,
            produced=snakemake.output.produced,
            fetched=snakemake.output.fetched,
            decryption=snakemake.output.decryption,
            key_sources=list(snakemake.input.key_sources),
        )
