"""Every data set's columns: name, type, unit and description, in one place.

The Parquet schemas (with descriptions as field metadata) and the documentation of the columns are both made from these tables.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from brokerlens import __version__

TIME: Final = pa.timestamp("ns", tz="UTC")
WORD: Final = pa.dictionary(pa.int32(), pa.string())
TEXT: Final = pa.string()
TEXTS: Final = pa.list_(pa.string())
FLOAT: Final = pa.float64()
BOOL: Final = pa.bool_()
INT: Final = pa.int64()
U16: Final = pa.uint16()
U32: Final = pa.uint32()


@dataclass(frozen=True)
class Column:
    """One column: its Arrow type, unit (empty where it has none), meaning, and whether it may be null."""

    name: str
    type: pa.DataType
    description: str
    unit: str = ""
    nullable: bool = True

    def field(self) -> pa.Field:
        """The Arrow field, description and unit in its metadata."""
        metadata = {"description": self.description} | ({"unit": self.unit} if self.unit else {})
        return pa.field(self.name, self.type, nullable=self.nullable, metadata=metadata)


PACKETS: Final = (
    Column("timestamp", TIME, "when the packet was captured", "ns since 1970, UTC", nullable=False),
    Column("src_ip", WORD, "source address of the innermost IP header", nullable=False),
    Column("dst_ip", WORD, "destination address of the innermost IP header", nullable=False),
    Column("src_port", U16, "TCP source port", nullable=False),
    Column("dst_port", U16, "TCP destination port", nullable=False),
    Column(
        "connection_id", WORD, "clientip:port-brokerip:port#n; n counts connections on the same addresses and ports from 1", nullable=False
    ),
    Column("from_broker", BOOL, "sent by the broker's side", nullable=False),
    Column("tcp_flags", U16, "TCP flags as on the wire, low 9 bits", nullable=False),
    Column("seq", U32, "sequence number as on the wire", nullable=False),
    Column("ack", U32, "acknowledgement number; null without the ACK flag"),
    Column("window_size", U32, "window field as on the wire", nullable=False),
    Column("window_bytes", U32, "window scaled by the shift of the connection's SYNs; null where they were not captured", "bytes"),
    Column("payload_len", U32, "TCP payload on the wire, also where less was captured", "bytes", nullable=False),
    Column("actual_msg_count", U32, "Kafka records in the record batches whose frame begins in this packet", "records", nullable=False),
    Column("rtt_ms", FLOAT, "round trip that this packet ended (tap, other side, tap); never an ambiguous one", "ms"),
    Column("kafka_lat_ms", FLOAT, "latency_ms of the first response that begins in this packet", "ms"),
    Column(
        "segment",
        WORD,
        "new, retransmitted, filled, reordered, ambiguous, keepalive or window_probe; null where the packet carries nothing",
    ),
    Column("is_retransmission", BOOL, "segment is retransmitted or filled", nullable=False),
    Column(
        "retransmission_kind",
        WORD,
        "what made the sender send it again: fast, timeout, tail_probe, rack or unknown; null where it is no retransmission",
    ),
    Column(
        "segment_evidence", U32, "what speaks for the label: a sum of bits, listed below; 0 for packets without a segment", nullable=False
    ),
    Column("new_bytes", U32, "payload that was not captured before", "bytes", nullable=False),
    Column("in_flight", U32, "bytes sent and not yet acknowledged, as the tap sees it, after this packet; null without payload", "bytes"),
    Column("late_ms", FLOAT, "filled or reordered: time since the first segment behind it", "ms"),
    Column(
        "late_segments", U32, "filled or reordered: its distance from that segment, in segments (RFC 4737's reordering extent)", "segments"
    ),
    Column("is_duplicate", BOOL, "a copy made by the capture or the network; counted nowhere else", nullable=False),
    Column(
        "duplicate_kind",
        WORD,
        "why it is a copy: interface (seen on another one), capture (same IP id within 1 ms), pattern (the whole connection was captured several times), "
        "network (same IP id within 1 s); null for no copy",
    ),
    Column("duplicate_gap_ms", FLOAT, "time since the packet that it copies; null for no copy, or one of another interface", "ms"),
    Column("acked_bytes", U32, "bytes of the other direction that this packet acknowledges for the first time", "bytes", nullable=False),
    Column("unseen_bytes", U32, "of acked_bytes, those that were never captured", "bytes", nullable=False),
    Column("zero_window_begins", BOOL, "this packet begins a zero-window episode of its sender", nullable=False),
    Column("capture", WORD, "name of the capture file", nullable=False),
    Column("frame_number", U32, "number of the packet in its capture, from 1, as Wireshark counts", nullable=False),
    Column("wire_len", U32, "length of the packet on the wire", "bytes", nullable=False),
    Column("captured_len", U32, "bytes of the packet that were captured", "bytes", nullable=False),
    Column("ttl", pa.uint8(), "IPv4 time to live or IPv6 hop limit", nullable=False),
    Column("ip_id", U16, "IPv4 identification; null for IPv6"),
    Column("tsval", U32, "TCP timestamp value; null where absent or not captured"),
    Column("tsecr", U32, "TCP timestamp echo reply; null where absent or not captured"),
)

SEGMENT_EVIDENCE: Final[Mapping[str, str]] = {
    "duplicate_acks": "the other side had sent three or more duplicate acknowledgements",
    "selective_acks": "the other side had reported data above it selectively",
    "timeout_passed": "nine tenths of the retransmission timeout had passed since it was sent, or since its hole opened (RFC 6298, at least 200 ms)",
    "tail": "the last segment sent, once so far, and nothing reported missing",
    "acked_before": "all of it had been acknowledged: it was not needed",
    "dsack": "the receiver reported that it came twice (RFC 2883): it was not needed",
    "eifel": "its first acknowledgement answers an earlier copy by its timestamp (RFC 3522): it was not needed",
    "id_later": "its IP id is later than all before: it was sent again",
    "id_earlier": "its IP id is earlier than that of the packet behind the hole: it was overtaken",
    "stamp_later": "its timestamp is later than that of the packet behind the hole: it was sent again",
    "stamp_earlier": "its timestamp is earlier than that of the packet behind the hole: it was overtaken",
    "short_wait": "it came sooner behind the hole than a round trip, and within 3 ms, so before its sender can have heard of it: it was overtaken",
    "long_wait": "it came nine tenths of a round trip or more behind the hole, 200 ms where a half of it is not known: it was sent again",
    "before_capture": "its hole may be older than the capture",
    "capture_order": "captured up to 1 ms behind its own acknowledgement",
    "larger_than_mss": "larger than a segment on the wire can be (above the MSS, or 1,460 bytes where a SYN was not captured): put together by offload",
}
"""What speaks for a segment's label: the bits of `packets.segment_evidence`, the first of them 1, the next 2, then 4, …"""

REQUESTS: Final = (
    Column("connection_id", WORD, "the connection, as in packets", nullable=False),
    Column("client_ip", WORD, "address of the client's side", nullable=False),
    Column("client_port", U16, "port of the client's side", nullable=False),
    Column("broker_ip", WORD, "address of the broker's side", nullable=False),
    Column("broker_port", U16, "port of the broker's side", nullable=False),
    Column("client_id", TEXT, "client id of the request's header; null where there is none"),
    Column("client_software", TEXT, "name and version that the client gave on this connection in ApiVersions (version 3 on)"),
    Column("api_key", pa.int16(), "Kafka api key; null for a response without its request"),
    Column("api_name", WORD, "name of the api, `api_KEY` where unknown"),
    Column("api_version", pa.int16(), "version of the api"),
    Column("correlation_id", pa.int32(), "correlation id", nullable=False),
    Column("acks", pa.int16(), "Produce: acknowledgements asked for (-1 all, 0 none); null where not captured"),
    Column("status", WORD, "answered, no_response_expected, unanswered or request_not_captured", nullable=False),
    Column("status_reason", WORD, "why, where the status needs a reason (docs/data-sets.md has the list)"),
    Column("request_first", TIME, "the tap first saw the request's first byte"),
    Column("request_last", TIME, "the tap first saw the request's last byte"),
    Column("response_first", TIME, "the tap first saw the response's first byte"),
    Column("response_last", TIME, "the tap first saw the response's last byte"),
    Column("request_bytes", INT, "request frame with its 4-byte length", "bytes"),
    Column("response_bytes", INT, "response frame with its 4-byte length", "bytes"),
    Column(
        "request_captured_bytes", INT, "of request_bytes, those that were captured: the rest a snaplen cut off or the capture lost", "bytes"
    ),
    Column("response_captured_bytes", INT, "of response_bytes, those that were captured", "bytes"),
    Column("latency_ms", FLOAT, "response_first - request_last", "ms"),
    Column("total_ms", FLOAT, "response_last - request_first", "ms"),
    Column("queue_ms", FLOAT, "part of latency_ms before the connection's previous response was complete", "ms"),
    Column("service_ms", FLOAT, "latency_ms - queue_ms", "ms"),
    Column("network_rtt_ms", FLOAT, "the connection's latest valid round trip between tap and the far side, at most 10 s old", "ms"),
    Column(
        "broker_ms",
        FLOAT,
        "time in the broker: service_ms at a broker tap; at a client tap min(service_ms, latency_ms - network_rtt_ms), null where that is negative "
        "or a retransmission was waited for",
        "ms",
    ),
    Column("waits_by_design", BOOL, "the api waits by design: Fetch, ShareFetch, JoinGroup, SyncGroup", nullable=False),
    Column("max_wait_ms", pa.int32(), "longest wait that a Fetch asks for", "ms"),
    Column(
        "topics",
        TEXTS,
        "topics named in the request, its response, or the fetch session that it continues, sorted; a topic id where the site does not tell its name",
    ),
    Column("partitions", pa.int32(), "partitions named in the request (Produce) or the response (Fetch)", "partitions"),
    Column("record_count", INT, "records in the record batches of the request (Produce) or the response (Fetch)", "records"),
    Column("record_bytes", INT, "bytes of those record batches", "bytes"),
    Column(
        "fetch_session",
        WORD,
        "Fetch: none (names all its topics), opened, continued (names only what changes), or unknown (continued, but not followed from its "
        "opening, so topics are those of its answer)",
    ),
    Column("replica_id", pa.int32(), "Fetch: broker id of a follower that replicates; null or -1 of a consumer"),
    Column(
        "lag_records",
        INT,
        "Fetch: high watermark - next offset after this answer, at the partition of the answer where that is most; null where it is not known of any, or the answer's body was not captured whole",
        "records",
    ),
    Column("producer_id", INT, "Produce: producer id of the first record batch; null of a producer without id"),
    Column("producer_epoch", pa.int16(), "Produce: producer epoch of the first record batch"),
    Column("base_sequence", pa.int32(), "Produce: first sequence number of the first record batch"),
    Column(
        "retried_batches",
        INT,
        "Produce: record batches that an earlier request of the site carried (same producer id, epoch, partition and sequence); null without producer ids",
        "batches",
    ),
    Column("codec", WORD, "compression of those record batches: none, gzip, snappy, lz4, zstd; mixed where they differ"),
    Column("error_code", pa.int16(), "first error code of the response that is not 0, else 0; null where not captured"),
    Column("throttle_ms", pa.int32(), "throttle time that the broker reports", "ms"),
    Column("retransmitted", BOOL, "a byte of the request or the response was sent again", nullable=False),
)

STATUS_REASONS: Final[Mapping[str, Mapping[str, str]]] = {
    "answered": {
        "capture_order": "the capture shows the response up to 1 ms before its request: latency, its parts and the total are null",
    },
    "no_response_expected": {
        "acks_0": "a Produce request that asked for no acknowledgement",
        "later_request_answered": "a Produce request whose acks were not captured, passed over by the answers of later requests",
    },
    "unanswered": {
        "client_had_closed": "the response came after the client had closed, and its host refused it: times stand, latency, its parts and the total are null",
        "response_lost": "a later request of the connection was answered: answers come in order, so this one was not captured",
        "connection_reset": "the connection was reset first",
        "connection_closed": "the connection was closed first",
        "capture_ended": "the captures of the connection end first",
        "response_not_decrypted": "the connection is TLS, and its answers could not be decrypted up to its end (docs/tls.md)",
    },
    "request_not_captured": {
        "sent_before_capture": "the response comes before the connection's first captured request",
        "request_lost": "the captures hold earlier requests of the connection, but not this one",
    },
}
"""Every reason that `requests.status_reason` may name, by status."""

DIRECTION_COLUMNS: Final = (
    ("packets", INT, "packets, duplicates left out", "packets"),
    ("payload_bytes", INT, "payload on the wire, retransmissions included", "bytes"),
    ("data_segments", INT, "packets with payload, SYN or FIN, keep-alives and window probes left out", "segments"),
    ("retransmitted_segments", INT, "segments carrying bytes that were captured before: lost, if lost, behind the tap", "segments"),
    ("retransmitted_bytes", INT, "bytes that were captured before", "bytes"),
    ("filled_segments", INT, "retransmissions that filled a hole: lost before the tap", "segments"),
    ("filled_bytes", INT, "bytes of holes that retransmissions filled", "bytes"),
    ("reordered_segments", INT, "segments that came late because they were overtaken", "segments"),
    ("ambiguous_segments", INT, "segments that came late for a reason that cannot be told", "segments"),
    ("duplicate_segments", INT, "copies made by the capture or the network; counted nowhere else", "packets"),
    ("unseen_bytes", INT, "acknowledged by the other side, never captured", "bytes"),
    ("acked_bytes", INT, "acknowledged by the other side", "bytes"),
    ("zero_window_episodes", INT, "times that this direction's sender closed its own receive window (advertised 0)", "episodes"),
    ("zero_window_ms", FLOAT, "how long its receive window stayed closed", "ms"),
    ("window_probes", INT, "probes of the other side's closed window", "segments"),
    ("keepalives", INT, "keep-alives", "segments"),
    ("duplicate_acks", INT, "acknowledgements that repeat the one before while data is outstanding", "packets"),
    ("resets", INT, "RST segments sent in this direction", "packets"),
    ("invalid_resets", INT, "of them those whose number lies outside their connection's window (RFC 5961): spoofed or stray", "packets"),
    ("syns", INT, "SYN segments, repeated ones included", "packets"),
    ("fast_segments", INT, "retransmissions behind three duplicate acknowledgements or as many segments' worth of SACK", "segments"),
    ("timeout_segments", INT, "retransmissions behind a retransmission timeout", "segments"),
    ("tail_probe_segments", INT, "retransmissions that probe for a loss at the tail (RFC 8985)", "segments"),
    ("rack_segments", INT, "retransmissions behind less SACK than a fast one", "segments"),
    ("spurious_segments", INT, "retransmissions of what had arrived, by any evidence", "segments"),
    ("triple_duplicate_acks", INT, "times that a third duplicate acknowledgement in a row was sent", "times"),
    ("dsacks", INT, "reports that something came twice (RFC 2883), sent in this direction", "packets"),
    ("window_limited_ms", FLOAT, "time in which the data in flight filled the other side's open window", "ms"),
    ("most_in_flight", INT, "most bytes sent and not yet acknowledged, as the tap sees it", "bytes"),
    ("unfilled_bytes", INT, "holes that nothing ever filled", "bytes"),
    ("large_segments", INT, "segments larger than the MSS: put together by offload", "segments"),
    ("frames", INT, "Kafka frames found", "frames"),
    ("skipped_bytes", INT, "bytes that belong to no frame that could be decided", "bytes"),
)

FRAME_ODDITIES: Final = (
    ("incomplete_frames", "frames of which bytes that had to be read were not captured: what they say is null", "frames"),
    ("malformed_frames", "frames whose body does not follow the api's layout: what is certain of them stands", "frames"),
    ("raw_frames", "frames without a Kafka header (SASL tokens)", "frames"),
    ("lone_responses", "responses whose request was not captured, where frames are followed from the SYN", "frames"),
    ("lost_chains", "times that the length of the next frame was not captured, or cannot be one: frames were looked for anew", "times"),
    ("broken_chains", "chains of frames that were found and then did not hold", "times"),
    ("rejected_chains", "chains of frames that were found and that no answer confirmed: they give no rows", "times"),
    ("abandoned_scans", "1 where so many chains were rejected that no more were looked for", "times"),
    (
        "unkept_frames",
        "incomplete frames all of whose bytes were captured: the split kept too few of them (more than its limit was undecided)",
        "frames",
    ),
)
"""Counts per connection of what was wrong with its frames."""

CONNECTIONS: Final = (
    Column("connection_id", TEXT, "the connection, as in packets", nullable=False),
    Column("client_ip", WORD, "address of the client's side", nullable=False),
    Column("client_port", U16, "port of the client's side", nullable=False),
    Column("broker_ip", WORD, "address of the broker's side", nullable=False),
    Column("broker_port", U16, "port of the broker's side", nullable=False),
    Column("client_id", TEXT, "client id, as first seen in a request"),
    Column("client_software", TEXT, "client software, as first seen in ApiVersions"),
    Column("first_seen", TIME, "time of the first packet", nullable=False),
    Column("last_seen", TIME, "time of the last packet", nullable=False),
    Column("started", BOOL, "the SYN was captured", nullable=False),
    Column(
        "setup",
        WORD,
        "complete, half_open (SYN-ACK without an acknowledgement), refused, no_answer, or not_captured (began before the capture)",
        nullable=False,
    ),
    Column("connect_ms", FLOAT, "first SYN to the client's acknowledgement of the SYN-ACK; null where one was not seen", "ms"),
    Column("syn_retry_ms", FLOAT, "first SYN to the last one before an answer; null where one sufficed", "ms"),
    Column("ended", WORD, "fin, reset, or open (nothing seen of an end)", nullable=False),
    Column("closed_by", WORD, "client or broker: who sent the first FIN; null where nobody did"),
    Column("reset_by", WORD, "client or broker: who sent the first RST; null where nobody did"),
    Column(
        "reset_kind",
        WORD,
        "the first RST: refused (answers the SYN), abort (in the middle), after_fin (its sender had closed), idle (60 s behind the packet before); null without one",
    ),
    Column("isn_client", U32, "sequence number of the client's SYN; null where it was not captured"),
    Column("isn_broker", U32, "sequence number of the broker's SYN-ACK; null where it was not captured"),
    Column("mss", U16, "the smaller maximum segment size of both SYNs; null where one was not captured", "bytes"),
    Column("tap", WORD, "client, broker, middle or unknown: where the data say the capture was taken", nullable=False),
    Column("handshake_broker_ms", FLOAT, "SYN to SYN-ACK; null if either was sent twice or not seen", "ms"),
    Column("handshake_client_ms", FLOAT, "SYN-ACK to ACK; null if either was sent twice or not seen", "ms"),
    *(
        Column(
            f"rtt_{side}_{part}",
            INT if part == "n" else FLOAT,
            f"round trips tap, {side}, tap: {text}",
            "samples" if part == "n" else "ms",
            nullable=part != "n",
        )
        for side in ("broker", "client")
        for part, text in (("n", "number of samples"), ("min_ms", "smallest"), ("p50_ms", "median"), ("p95_ms", "95th percentile"))
    ),
    *(
        Column(f"{name}_{direction}", kind, f"{text} ({direction.replace('_', ' the ')})", unit, nullable=False)
        for direction in ("to_broker", "from_broker")
        for name, kind, text, unit in DIRECTION_COLUMNS
    ),
    Column("framing", WORD, "how the first Kafka frame was found: start (from the SYN), scan, or none", nullable=False),
    Column("encrypted", BOOL, "the payload is TLS", nullable=False),
    Column(
        "sasl", BOOL, "the client authenticates by SASL: handshake, authenticate, or frames without header (raw tokens)", nullable=False
    ),
    *(Column(name, INT, text, unit, nullable=False) for name, text, unit in FRAME_ODDITIES),
)

TOPICS: Final = (
    Column("cluster", TEXT, "Kafka cluster, as in sites", nullable=False),
    Column("topic_id", TEXT, "topic id as Kafka prints it", nullable=False),
    Column("topic", TEXT, "its name", nullable=False),
    Column("site", TEXT, "the site that tells", nullable=False),
    Column("source", TEXT, "metadata (a captured answer) or configuration (topic_ids)", nullable=False),
    Column("learned_at", TIME, "when the first answer that tells began; null of the configuration"),
)

PATHS: Final = (
    Column("connection_id", TEXT, "the connection, as in packets and connections of the client's site", nullable=False),
    Column("direction", TEXT, "to_broker or from_broker", nullable=False),
    Column("client_site", TEXT, "site that captured it at the client", nullable=False),
    Column("broker_site", TEXT, "site that captured it at the broker", nullable=False),
    Column(
        "broker_connection_id",
        TEXT,
        "the same connection at the broker's site: other than connection_id behind a translation of addresses",
        nullable=False,
    ),
    Column("translated", BOOL, "addresses are translated between the taps", nullable=False),
    Column("packets_both", INT, "packets that both taps captured", "packets", nullable=False),
    Column("packets_only_client", INT, "packets that the client's tap alone captured, packets_outside left out", "packets", nullable=False),
    Column("packets_only_broker", INT, "packets that the broker's tap alone captured, packets_outside left out", "packets", nullable=False),
    Column(
        "packets_outside",
        INT,
        "packets that one tap alone captured, before the first or behind the last of their direction that both did: nothing says whether they arrived",
        "packets",
        nullable=False,
    ),
    Column("bytes_both", INT, "payload of packets_both", "bytes", nullable=False),
    Column("bytes_only_client", INT, "payload of packets_only_client", "bytes", nullable=False),
    Column("bytes_only_broker", INT, "payload of packets_only_broker", "bytes", nullable=False),
    Column("packets_lost", INT, "of those that the sender's tap alone captured: lost between the taps", "packets", nullable=False),
    Column("bytes_lost", INT, "payload of packets_lost", "bytes", nullable=False),
    Column(
        "packets_not_captured",
        INT,
        "captured at one tap alone though they passed the other: received, acknowledged, or in a gap of the other's captures",
        "packets",
        nullable=False,
    ),
    Column(
        "packets_cut_anew",
        INT,
        "packets whose bytes the other tap captured in other packets, joined or cut by offload",
        "packets",
        nullable=False,
    ),
    Column(
        "packets_alike",
        INT,
        "packets that cannot be told from others of the connection, of which one tap has more: no one-way delay",
        "packets",
        nullable=False,
    ),
    Column("one_way_n", INT, "packets with a one-way delay", "packets", nullable=False),
    *(
        Column(f"one_way_{name}_ms", FLOAT, f"{text} one-way delay between the taps; null where the clocks are not known", "ms")
        for name, text in (("min", "smallest"), ("p50", "median"), ("p95", "95th percentile of the"), ("p99", "99th percentile of the"))
    ),
    Column("reordered", INT, "packets that arrived behind one of the connection that was sent later (RFC 4737)", "packets", nullable=False),
    Column(
        "retransmitted_needed",
        INT,
        "retransmissions of what had not arrived at the receiver's tap: lost on the way",
        "packets",
        nullable=False,
    ),
    Column("retransmitted_needless", INT, "retransmissions of what had arrived at the receiver's tap", "packets", nullable=False),
    Column(
        "retransmitted_unknown",
        INT,
        "retransmissions that did not arrive themselves, or of which the receiver's tap cannot tell",
        "packets",
        nullable=False,
    ),
    Column("broker_n", INT, "requests that both taps captured, answered, that do not wait by design", "requests", nullable=False),
    Column("broker_p50_ms", FLOAT, "their median time in the broker, measured at its tap", "ms"),
    Column("broker_p95_ms", FLOAT, "95th percentile of that", "ms"),
    Column("broker_inferred_n", INT, "of them those of which the client's tap infers it", "requests", nullable=False),
    Column("broker_inferred_p50_ms", FLOAT, "their median time in the broker as the client's tap infers it", "ms"),
    Column("broker_inferred_p95_ms", FLOAT, "95th percentile of that", "ms"),
    Column("clock_source", TEXT, "configured, estimated (from the packets of all connections of both sites) or unknown", nullable=False),
    Column(
        "clock_reason",
        TEXT,
        "unknown: too_few_packets, stepping (a clock was set during the captures) or contradicted (with the configured offset packets come before they were "
        "sent); estimated: far_apart (more than a minute); null otherwise",
    ),
    Column(
        "clock_offset_ms",
        FLOAT,
        "clock of the broker's tap minus that of the client's, in the middle of what both captured; null where unknown",
        "ms",
    ),
    Column("clock_drift_ppm", FLOAT, "its change in time; 0 where none was found, null where not estimated", "ppm"),
    Column(
        "clock_uncertainty_ms",
        FLOAT,
        "how far the offset, and so each one-way delay, may be off at most: no packet arrives before it was sent",
        "ms",
    ),
    Column(
        "clock_scatter_ms",
        FLOAT,
        "how far it may be off (95 %) if the fastest packets take as long in both directions; null with too few packets",
        "ms",
    ),
)

DELIVERIES: Final = (
    Column("cluster", WORD, "Kafka cluster, as in sites", nullable=False),
    Column("topic", WORD, "topic; its id where no site tells its name; null where the request does not name it"),
    Column("partition", pa.int32(), "partition", nullable=False),
    Column("first_offset", INT, "first offset of the batch; null where it cannot be told"),
    Column("last_offset", INT, "last offset of the batch"),
    Column("record_count", INT, "records of the batch as it was produced, else as it was fetched", "records"),
    Column("record_bytes", INT, "bytes of that batch", "bytes"),
    *(
        Column(f"{side}_{name}", kind, text.format(verb))
        for side, verb in (("produce", "produced"), ("fetch", "fetched"))
        for name, kind, text in (
            ("site", WORD, "site that saw it {}"),
            ("connection_id", WORD, "connection on which it was {}"),
            ("client_id", WORD, "client id of the request in which it was {}"),
            ("correlation_id", pa.int32(), "correlation id of that request"),
        )
    ),
    Column("produced_at", TIME, "first byte of the Produce request at its tap, on the reference clock"),
    Column("acknowledged_at", TIME, "first byte of the answer that accepted it, on the reference clock"),
    Column("fetched_at", TIME, "when all bytes of the Fetch response up to the batch's last had been seen, on the reference clock"),
    Column("delivery_ms", FLOAT, "fetched_at - produced_at; null where the clocks do not allow it", "ms"),
    Column("produce_network_ms", FLOAT, "produced_at until the request was whole in the broker", "ms"),
    Column("broker_ms", FLOAT, "time in which the broker had something to do for it, before and after log_wait_ms", "ms"),
    Column("log_wait_ms", FLOAT, "time in the log until the fetch that took it had come to the broker; 0 where that was waiting", "ms"),
    Column("fetch_network_ms", FLOAT, "the Fetch response's start in the broker until fetched_at", "ms"),
    Column("clock_uncertainty_ms", FLOAT, "how far delivery_ms may be wrong because of the clocks; null where nothing bounds that", "ms"),
    Column("status", WORD, "delivered, not_fetched or produce_not_captured", nullable=False),
    Column("status_reason", WORD, "why, where the status needs a reason (list below)"),
    Column("refetches", INT, "how often this connection fetched the batch again; counted in nothing else", "fetches", nullable=False),
)

DELIVERY_REASONS: Final[Mapping[str, Mapping[str, str]]] = {
    "delivered": {
        "clocks_unknown": "the clocks of the two sites are not related: delivery_ms takes them as they stand, or as far off as causality demands; the parts between the sites are null",
        "clocks_contradict": "the clocks as configured, estimated or bounded have it fetched before it was produced: delivery_ms is null",
        "clock_stepped": "the site's own clock has it fetched before it was produced: delivery_ms is null",
    },
    "not_fetched": {
        "acks_0": "the producer asked for no answer, so its offsets are not known",
        "produce_failed": "the broker answered with an error",
        "response_not_captured": "no answer was captured, so its offsets are not known",
        "offset_not_captured": "the answer was captured, but not what it says of the offsets, or the format does not tell how many it has",
        "partition_not_fetched": "no fetch of its partition was captured",
        "before_first_fetch": "its offsets lie before all that were seen fetched",
        "behind_last_fetch": "its offsets lie behind all that were seen fetched",
        "not_seen_between": "earlier and later offsets were seen fetched: the fetch was not captured, or the records were deleted",
        "offsets_reused": "another batch was fetched at its offsets: the topic was made anew, or belongs to another cluster",
    },
    "produce_not_captured": {
        "partition_not_produced": "nobody was seen to produce to its partition",
        "topic_id_unknown": "the fetch names its topic by an id that no site tells the name of",
        "before_first_produce": "its offsets lie before all that were seen produced",
        "behind_last_produce": "its offsets lie behind all that were seen produced",
        "not_seen_between": "earlier and later offsets were seen produced: another producer, or an answer that was not captured",
        "offsets_reused": "another batch was produced at its offsets: the topic was made anew, or belongs to another cluster",
    },
}
"""Every reason that `deliveries.status_reason` may name, by status."""

CASES: Final = (
    Column("case", TEXT, "kind and rank, the worst first: `request-1`, …; the name of its excerpt, too", nullable=False),
    Column("kind", WORD, "request (slowest answers), reset (connections reset) or loss (most bytes sent again)", nullable=False),
    Column("connection_id", TEXT, "the connection, as in packets", nullable=False),
    Column("client_ip", WORD, "address of the client's side", nullable=False),
    Column("client_port", U16, "port of the client's side", nullable=False),
    Column("broker_ip", WORD, "address of the broker's side", nullable=False),
    Column("broker_port", U16, "port of the broker's side", nullable=False),
    Column("client_id", TEXT, "client id of the request, or as first seen on the connection"),
    Column(
        "first_time",
        TIME,
        "request: its first byte; reset: the RST; loss: the first segment sent again in the worst second",
        nullable=False,
    ),
    Column(
        "last_time",
        TIME,
        "request: its answer's last byte; reset: the RST; loss: the last segment sent again in the worst second",
        nullable=False,
    ),
    Column("from_broker", BOOL, "reset: sent by the broker; loss: data of the broker; null of requests"),
    Column("api_name", WORD, "request: name of the api"),
    Column("api_version", pa.int16(), "request: version of the api"),
    Column("correlation_id", pa.int32(), "request: correlation id"),
    Column("latency_ms", FLOAT, "request: as in requests", "ms"),
    Column("reset_kind", WORD, "reset: as in connections"),
    Column("lost_segments", INT, "loss: segments sent again in this direction inside the window", "segments"),
    Column("lost_bytes", INT, "loss: their payload", "bytes"),
    Column("worst_segments", INT, "loss: segments sent again in the worst second", "segments"),
    Column("worst_bytes", INT, "loss: their payload", "bytes"),
    Column(
        "packets", INT, "packets of the connection from a second before first_time to a second after last_time", "packets", nullable=False
    ),
    Column("first_capture", TEXT, "capture file of the packet at first_time", nullable=False),
    Column("first_frame", U32, "its number there, from 1, as Wireshark counts", nullable=False),
    Column("last_capture", TEXT, "capture file of the packet at last_time", nullable=False),
    Column("last_frame", U32, "its number there", nullable=False),
    Column("captures", TEXTS, "capture files that hold `packets`, in order of time", nullable=False),
    Column("filters", TEXTS, "for each of captures Wireshark's display filter that shows its part of `packets`", nullable=False),
)

METRICS: Final = (
    Column("metric", WORD, "name of the metric (docs/metrics.md)", nullable=False),
    Column("group", WORD, "all, or key=value", nullable=False),
    Column("statistic", WORD, "count, mean, p50, …", nullable=False),
    Column("value", FLOAT, "the value; null where there are no samples"),
    Column("unit", WORD, "unit of the value", nullable=False),
    Column("n", INT, "samples that the value is made of", "samples", nullable=False),
    Column("ci_low", FLOAT, "lower bound of the 95 % interval; null where there is none"),
    Column("ci_high", FLOAT, "upper bound of the 95 % interval; null where there is none"),
)

SERIES: Final = (
    Column("bin_start", TIME, "begin of the time bin", nullable=False),
    Column("bin_seconds", FLOAT, "length of the bin", "s", nullable=False),
    *METRICS[:6],
)

SITES: Final = (
    Column("experiment", TEXT, "name of the experiment", nullable=False),
    Column("site", TEXT, "name of the site", nullable=False),
    Column("condition", TEXT, "experiments of one condition are repetitions of one run", nullable=False),
    Column("window_start", TIME, "begin of the window; null where it is open"),
    Column("window_end", TIME, "end of the window, included; null where it is open"),
    Column("timezone", TEXT, "IANA name or UTC offset of local times", nullable=False),
    Column("brokers", TEXTS, "the site's brokers, ip:port", nullable=False),
    Column("tap_configured", TEXT, "client, broker or auto", nullable=False),
    Column("tap_found", TEXT, "client, broker, middle or unknown: what most connections say", nullable=False),
    Column("cluster", TEXT, "name of the Kafka cluster", nullable=False),
    Column("clock_offset_ms", FLOAT, "this site's clock minus the reference clock, as configured; null where not", "ms"),
    Column("captures", INT, "capture files", "files", nullable=False),
    Column("packets_kept", INT, "packets to or from the brokers", "packets", nullable=False),
    Column("packets_skipped", INT, "other packets in the captures", "packets", nullable=False),
    Column("first_seen", TIME, "time of the first packet kept"),
    Column("last_seen", TIME, "time of the last packet kept"),
    Column("capture_loss", FLOAT, "acknowledged bytes that were never captured, as a share of those acknowledged; null where nothing was"),
)

COMPARISONS: Final = (
    Column("scope", TEXT, "sites (of one experiment), experiments or conditions (of one site), or baseline", nullable=False),
    *(
        column
        for side in ("a", "b")
        for column in (
            Column(f"experiment_{side}", TEXT, f"experiment of side {side}; null where the side is all runs of a condition"),
            Column(f"condition_{side}", TEXT, f"condition of side {side}: the experiment's own name where it has none", nullable=False),
            Column(f"site_{side}", TEXT, f"site of side {side}", nullable=False),
            Column(
                f"runs_{side}",
                INT,
                f"experiments that make up side {side}; from four on they are what varies",
                "experiments",
                nullable=False,
            ),
        )
    ),
    Column("metric", TEXT, "name of the metric", nullable=False),
    Column("group", TEXT, "all, or key=value", nullable=False),
    Column(
        "statistic",
        TEXT,
        "p50, p90, p95, p99, mean, ratio_of_sums, share_over, hl_shift, hl_ratio, cliffs_delta or wasserstein1",
        nullable=False,
    ),
    Column("unit", TEXT, "unit of estimates and difference", nullable=False),
    Column("primary", BOOL, "in the family that is corrected for multiple comparisons", nullable=False),
    Column("paired", BOOL, "both sides by time: same clock bins", nullable=False),
    Column("sampling", TEXT, "what varies: time, connections, time_and_connections, or runs", nullable=False),
    *(
        Column(f"{part}_{side}", FLOAT, f"{text} of side {side}")
        for side in ("a", "b")
        for part, text in (
            ("estimate", "estimate"),
            ("low", "lower bound of the 95 % interval"),
            ("high", "upper bound of the 95 % interval"),
        )
    ),
    Column("difference", FLOAT, "a - b"),
    Column("difference_low", FLOAT, "lower bound of the 95 % interval; null is an open side"),
    Column("difference_high", FLOAT, "upper bound of the 95 % interval; null is an open side"),
    Column("ratio", FLOAT, "a / b"),
    Column("ratio_low", FLOAT, "lower bound of the 95 % interval; null is an open side"),
    Column("ratio_high", FLOAT, "upper bound of the 95 % interval; null is an open side"),
    Column("noise_floor", FLOAT, "Wasserstein distance between stretches of one side"),
    Column("n_a", INT, "samples of side a that count: of more than 1,048,576 about so many", "samples", nullable=False),
    Column("n_b", INT, "samples of side b that count: of more than 1,048,576 about so many", "samples", nullable=False),
    *(
        Column(f"{part}_{side}", FLOAT, f"{text} of side {side}", unit)
        for part, text, unit in (
            ("n_eff", "effective number of independent samples", "samples"),
            ("df", "degrees of freedom of the variance", ""),
            ("correlation_seconds", "correlation time", "s"),
        )
        for side in ("a", "b")
    ),
    Column("connections_a", INT, "connections of side a", "connections"),
    Column("connections_b", INT, "connections of side b", "connections"),
    Column("overlap_seconds", FLOAT, "time that both windows share", "s"),
    Column("pair_correlation", FLOAT, "correlation between the sides, where paired"),
    Column("p_value", FLOAT, "p of the difference, primary rows only"),
    Column("p_holm", FLOAT, "p adjusted for the family by Holm's method"),
    Column("family_size", INT, "comparisons in the family", "comparisons"),
    Column("margin", FLOAT, "equivalence margin, in the unit of the difference"),
    Column("verdict", TEXT, "not_comparable, too_few_samples, equivalent_within_margin, differs, undecided or described", nullable=False),
    Column("weak", BOOL, "fewer than about 100 independent requests: take the interval as a minimum", nullable=False),
    Column("reason", TEXT, "which gate, or which fact about comparability"),
    Column("method", TEXT, "how the interval was made", nullable=False),
)

RISING: Final = frozenset(
    ("timestamp", "seq", "ack", "tsval", "tsecr", "frame_number", "request_first", "request_last", "response_first", "response_last")
)
"""Columns of many values that go on from those before: kept as differences they are smaller, and written sooner."""

DATASETS: Final[Mapping[str, tuple[Column, ...]]] = {
    "packets": PACKETS,
    "requests": REQUESTS,
    "connections": CONNECTIONS,
    "topics": TOPICS,
    "paths": PATHS,
    "deliveries": DELIVERIES,
    "cases": CASES,
    "sites": SITES,
    "metrics": METRICS,
    "series": SERIES,
    "comparisons": COMPARISONS,
}


def schema(dataset: str) -> pa.Schema:
    """The Arrow schema of a data set, descriptions and units in the fields' metadata."""
    return pa.schema([column.field() for column in DATASETS[dataset]])


def conform(table: pa.Table, dataset: str) -> pa.Table:
    """The table with exactly the data set's columns, in order and type.

    Raises ``KeyError`` for a missing column, ``pyarrow.ArrowInvalid`` for values that do not fit their type, ``ValueError`` for a null
    where none may be.
    """
    wanted = schema(dataset)
    columns = [table.column(field.name).cast(field.type).combine_chunks() for field in wanted]
    for field, column in zip(wanted, columns, strict=True):
        if not field.nullable and column.null_count:
            raise ValueError(f"{dataset}.{field.name}: {column.null_count} nulls in a column that has none")
    return pa.Table.from_arrays(columns, schema=wanted)


def write(rows: pa.Table | Iterable[pa.Table], path: str | Path, dataset: str, provenance: Mapping[str, Any]) -> None:
    """Write one file of a data set: conformed, zstd, version and provenance in the metadata; the same rows give the same bytes.

    ``rows`` is one table or several that follow each other, each a row group. The file appears under its name only when it is complete.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    marked = _marked(schema(dataset).empty_table(), provenance).schema
    differences = dict.fromkeys([name for name in marked.names if name in RISING], "DELTA_BINARY_PACKED")
    others = [
        f"{field.name}.list.element" if pa.types.is_list(field.type) else field.name for field in marked if field.name not in differences
    ]
    settings = {"compression": "zstd", "compression_level": 3, "use_dictionary": others, "column_encoding": differences}
    with _whole(path) as partial, pq.ParquetWriter(partial, marked, **settings) as writer:
        for table in [rows] if isinstance(rows, pa.Table) else rows:
            writer.write_table(conform(table, dataset).replace_schema_metadata(marked.metadata), row_group_size=1 << 20)


def write_working(rows: pa.Table | Iterable[pa.Table], path: str | Path, provenance: Mapping[str, Any]) -> None:
    """Write a working file between two stages, readable by the owner only: it may hold what no data set may. ``rows`` and name as for `write`."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.parent.chmod(0o700)
    rest = iter([rows] if isinstance(rows, pa.Table) else rows)
    first = next(rest)
    marked = _marked(first, provenance).schema
    with _whole(path) as partial, pq.ParquetWriter(partial, marked, compression="zstd", compression_level=1) as writer:
        partial.chmod(0o600)
        for table in itertools.chain([first], rest):
            writer.write_table(_marked(table, provenance), row_group_size=1 << 20)


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """Another name to write a file under: it gets its own where the block ends well, else it is removed."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        partial.rename(path)
    finally:
        partial.unlink(missing_ok=True)


def _marked(table: pa.Table, provenance: Mapping[str, Any]) -> pa.Table:
    """The table with version and provenance in its metadata, and nothing else there."""
    return table.replace_schema_metadata({"brokerlens": json.dumps({"version": __version__, **provenance}, sort_keys=True)})


def read_provenance(path: str | Path) -> dict[str, Any]:
    """What a file says of its making."""
    made: dict[str, Any] = json.loads(pq.read_metadata(path).metadata[b"brokerlens"])
    return made


def read(paths: Iterable[str | Path], dataset: str, columns: list[str] | None = None) -> pa.Table:
    """The files' rows, one after another, with the data set's types."""
    wanted = schema(dataset)
    if columns is not None:
        wanted = pa.schema([wanted.field(name) for name in columns])
    tables = [pq.read_table(path, columns=wanted.names, partitioning=None).cast(wanted) for path in paths]
    return pa.concat_tables(tables).unify_dictionaries() if tables else wanted.empty_table()


INTRODUCTION: Final = """# Data sets: every column

Made from `workflow/scripts/brokerlens/tables.py` by `make docs`; the same descriptions and units stand in the Parquet files as field metadata.

All data sets but `sites` and `comparisons` are Hive partitions: `results/<data set>/experiment=<name>/site=<name>/…parquet` (`topics`, `paths`, `deliveries`: one file per experiment). `experiment` and `site` come
from the path and are not stored again. Times are UTC; the window of the configuration is applied to metrics and series, not to these rows
(README shows the line that applies it). `_to_broker` and `_from_broker` name the direction of what is counted.
"""


def documentation() -> str:
    """``docs/data-sets.md``: every data set, column and reason."""
    lines = [INTRODUCTION]
    for dataset, columns in DATASETS.items():
        lines += [f"## {dataset}", "", "| column | type | unit | null | meaning |", "|---|---|---|---|---|"]
        lines += [
            f"| `{column.name}` | {_kind(column.type)} | {column.unit} | {'yes' if column.nullable else ''} | {column.description.replace('|', '/')} |"
            for column in columns
        ]
        lines.append("")
        if dataset == "packets":
            lines += ["### Bits of segment_evidence", "", "| bit | name | meaning |", "|---|---|---|"]
            lines += [f"| {1 << place} | `{name}` | {text} |" for place, (name, text) in enumerate(SEGMENT_EVIDENCE.items())]
            lines.append("")
        if dataset == "requests":
            lines += ["### Why a request has its status", "", "| status | reason | meaning |", "|---|---|---|"]
            lines += [
                f"| {status} | `{reason}` | {text} |" for status, reasons in STATUS_REASONS.items() for reason, text in reasons.items()
            ]
            lines.append("")
        if dataset == "deliveries":
            lines += ["### Why a delivery has its status", "", "| status | reason | meaning |", "|---|---|---|"]
            lines += [
                f"| {status} | `{reason}` | {text} |" for status, reasons in DELIVERY_REASONS.items() for reason, text in reasons.items()
            ]
            lines.append("")
    return "\n".join(lines)


def _kind(type_: pa.DataType) -> str:
    """An Arrow type in the words of a reader."""
    if pa.types.is_dictionary(type_):
        return f"{type_.value_type} (dictionary)"
    return f"list of {type_.value_type}" if pa.types.is_list(type_) else str(type_)


if __name__ == "__main__":
    print(documentation(), end="")
