"""Kafka messages of every version, made from the JSON specifications that kafka-python ships: an oracle that shares nothing with the tables.

A message is made with random values; beside its bytes come the fields that `kafka.frames` should report, in order.
"""

from __future__ import annotations

import random
import struct
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

from kafka.protocol.schemas.load_json import load_json

Field = tuple[str, int | bytes | None]
Records = Callable[[random.Random], tuple[bytes, list[Field]]]

APIS = {
    key: name
    for key, name in enumerate(
        [
            "Produce",
            "Fetch",
            "ListOffsets",
            "Metadata",
            "-",
            "-",
            "-",
            "-",
            "OffsetCommit",
            "OffsetFetch",
            "FindCoordinator",
            "JoinGroup",
            "Heartbeat",
            "LeaveGroup",
            "SyncGroup",
            "DescribeGroups",
            "ListGroups",
            "SaslHandshake",
            "ApiVersions",
            "CreateTopics",
            "DeleteTopics",
            "DeleteRecords",
            "InitProducerId",
            "OffsetForLeaderEpoch",
            "AddPartitionsToTxn",
            "AddOffsetsToTxn",
            "EndTxn",
            "WriteTxnMarkers",
            "TxnOffsetCommit",
            "DescribeAcls",
            "CreateAcls",
            "DeleteAcls",
            "DescribeConfigs",
            "AlterConfigs",
            "AlterReplicaLogDirs",
            "DescribeLogDirs",
            "SaslAuthenticate",
            "CreatePartitions",
            "-",
            "-",
            "-",
            "-",
            "DeleteGroups",
            "ElectLeaders",
            "IncrementalAlterConfigs",
            "AlterPartitionReassignments",
            "ListPartitionReassignments",
            "OffsetDelete",
            "DescribeClientQuotas",
            "AlterClientQuotas",
            "DescribeUserScramCredentials",
            "AlterUserScramCredentials",
            "-",
            "-",
            "-",
            "DescribeQuorum",
            "-",
            "UpdateFeatures",
            "-",
            "-",
            "DescribeCluster",
            "DescribeProducers",
            "-",
            "-",
            "-",
            "DescribeTransactions",
            "ListTransactions",
            "-",
            "-",
            "-",
            "-",
            "-",
            "-",
            "-",
            "ListConfigResources",
            "DescribeTopicPartitions",
        ]
    )
    if name != "-"
}

# Which fields are reported, by api, side and name in the specification.
REPORTED: dict[tuple[str, str], dict[str, str]] = {
    ("Produce", "Request"): {
        "Acks": "acks",
        "TimeoutMs": "timeout_ms",
        "Name": "topic",
        "TopicId": "topic_id",
        "Index": "partition",
        "Records": "records_size",
    },
    ("Produce", "Response"): {
        "Name": "topic",
        "TopicId": "topic_id",
        "Index": "partition",
        "ErrorCode": "error_code",
        "BaseOffset": "base_offset",
        "ThrottleTimeMs": "throttle_time_ms",
    },
    ("Fetch", "Request"): {
        "ReplicaId": "replica_id",
        "MaxWaitMs": "max_wait_ms",
        "MinBytes": "min_bytes",
        "SessionId": "session_id",
        "SessionEpoch": "session_epoch",
        "Topic": "topic",
        "TopicId": "topic_id",
        "Partition": "partition",
        "FetchOffset": "fetch_offset",
        "ForgottenTopicsData.Topic": "forgotten_topic",
        "ForgottenTopicsData.TopicId": "forgotten_topic_id",
        "ForgottenTopicsData.Partitions": "forgotten_partition",
    },
    ("Fetch", "Response"): {
        "ThrottleTimeMs": "throttle_time_ms",
        "ErrorCode": "error_code",
        "SessionId": "session_id",
        "Topic": "topic",
        "TopicId": "topic_id",
        "PartitionIndex": "partition",
        "HighWatermark": "high_watermark",
        "Records": "records_size",
    },
    ("Metadata", "Request"): {"TopicId": "topic_id", "Name": "topic"},
    ("Metadata", "Response"): {
        "ThrottleTimeMs": "throttle_time_ms",
        "NodeId": "node_id",
        "Host": "host",
        "Port": "port",
        "ClusterId": "cluster_id",
        "ErrorCode": "error_code",
        "Name": "topic",
        "TopicId": "topic_id",
    },
    ("ApiVersions", "Request"): {"ClientSoftwareName": "software_name", "ClientSoftwareVersion": "software_version"},
    ("ApiVersions", "Response"): {"ErrorCode": "error_code", "ThrottleTimeMs": "throttle_time_ms"},
}
# Not reported though a field of that name is: the errors of a partition in Metadata, a node's endpoint in tags.
UNREPORTED = {("Metadata", "Partitions.ErrorCode"), ("Produce", "NodeEndpoints.NodeId"), ("Fetch", "NodeEndpoints.NodeId")}


@cache
def specification(name: str) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # how kafka-python reads its resources
        found: dict[str, Any] = load_json(name)
    return found


def within(versions: str | None, version: int) -> bool:
    if not versions or versions == "none":
        return False
    if versions.endswith("+"):
        return version >= int(versions[:-1])
    first, _, last = versions.partition("-")
    return int(first) <= version <= int(last or first)


def uvarint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def string(value: bytes | None, flexible: bool) -> bytes:
    if value is None:
        return b"\0" if flexible else b"\xff\xff"
    return (uvarint(len(value) + 1) if flexible else struct.pack(">h", len(value))) + value


def _sized(value: bytes | None, flexible: bool) -> bytes:
    if value is None:
        return b"\0" if flexible else b"\xff\xff\xff\xff"
    return (uvarint(len(value) + 1) if flexible else struct.pack(">i", len(value))) + value


def _count(count: int | None, flexible: bool) -> bytes:
    if count is None:
        return b"\0" if flexible else b"\xff\xff\xff\xff"
    return uvarint(count + 1) if flexible else struct.pack(">i", count)


INTEGERS = {"int8": "b", "int16": "h", "uint16": "H", "int32": "i", "uint32": "I", "int64": "q", "float64": "d", "bool": "b"}


class Encoder:
    """One message; `fields` grows with what is reported."""

    def __init__(
        self, api: str, side: str, version: int, rng: random.Random, records: Records, most: int = 2, fixed: dict[str, Any] | None = None
    ) -> None:
        self.api, self.side, self.version, self.rng, self.records, self.most = api, side, version, rng, records, most
        self.fixed = fixed or {}
        spec = specification(api + side)
        self.flexible = within(spec["flexibleVersions"], version)
        self.fields: list[Field] = []
        self.reported = REPORTED.get((api, side), {})
        self.bytes = self.structure(spec["fields"], "")

    def report(self, parent: str, name: str, value: int | bytes | None) -> None:
        if (self.api, f"{parent}.{name}") in UNREPORTED:
            return
        field = self.reported.get(f"{parent}.{name}") or (None if parent == "ForgottenTopicsData" else self.reported.get(name))
        if field:
            self.fields.append((field, value))

    def structure(self, fields: list[dict[str, Any]], parent: str) -> bytes:
        out = b""
        tagged = []
        for field in fields:
            if not within(field["versions"], self.version):
                continue
            if within(field.get("taggedVersions"), self.version):
                tagged.append(field)
            else:
                out += self.value(field, parent)
        if self.flexible:
            out += self.tags(tagged, parent)
        return out

    def tags(self, tagged: list[dict[str, Any]], parent: str) -> bytes:
        present = [field for field in sorted(tagged, key=lambda field: int(field["tag"])) if self.rng.random() < 0.5]
        out = b""
        for field in present:
            value = self.value(field, parent)
            out += uvarint(field["tag"]) + uvarint(len(value)) + value
        unknown = self.rng.random() < 0.2
        if unknown:
            value = self.rng.randbytes(self.rng.choice((0, 1, 5, 130)))
            out += uvarint(self.rng.choice((40, 300))) + uvarint(len(value)) + value
        return uvarint(len(present) + unknown) + out

    def value(self, field: dict[str, Any], parent: str) -> bytes:
        name, kind, rng = field["name"], field["type"], self.rng
        nullable = within(field.get("nullableVersions"), self.version)
        if name in self.fixed and (not parent or kind in INTEGERS):
            fixed = self.fixed[name]
            self.report(parent, name, fixed)
            return struct.pack(">" + INTEGERS[kind], fixed)
        if kind in INTEGERS:
            size = struct.calcsize(">" + INTEGERS[kind])
            value = rng.randbytes(size) if rng.random() < 0.5 else bytes(size - 1) + rng.randbytes(1)
            self.report(parent, name, int.from_bytes(value, "big", signed=True))
            return value
        if kind == "uuid":
            identity = rng.randbytes(16)
            self.report(parent, name, identity)
            return identity
        if kind == "string":
            text = None if nullable and rng.random() < 0.3 else rng.choice((b"", b"a", b"topic-\xc3\xa9", b"x" * 130))
            self.report(parent, name, text)
            return string(text, self.flexible)
        if kind == "bytes":
            return _sized(None if nullable and rng.random() < 0.3 else rng.randbytes(rng.choice((0, 3, 150))), self.flexible)
        if kind == "records":
            if nullable and rng.random() < 0.2:
                self.report(parent, name, 0)
                return _sized(None, self.flexible)
            data, fields = self.records(rng)
            self.report(parent, name, len(data))
            self.fields += fields
            return _sized(data, self.flexible)
        if kind.startswith("[]"):
            count = None if nullable and rng.random() < 0.2 else rng.randint(0, self.most)
            out = _count(count, self.flexible)
            for _ in range(count or 0):
                if "fields" in field:
                    out += self.structure(field["fields"], name)
                else:
                    out += self.value({"name": name, "type": kind[2:], "versions": "0+"}, parent)
            return out
        if nullable:  # a nullable structure
            return b"\xff" if rng.random() < 0.3 else b"\x01" + self.structure(field["fields"], name)
        return self.structure(field["fields"], name)


def no_records(rng: random.Random) -> tuple[bytes, list[Field]]:
    return b"", []


def batch(rng: random.Random, payload: bytes, count: int, base: int = 0, codec: int = 0) -> tuple[bytes, list[Field]]:
    """One record batch of format 2."""
    producer = rng.choice((-1, -1, 4_000_000_001))
    epoch, sequence = (3, 17) if producer >= 0 else (-1, -1)
    first, last = 1_766_000_000_000 + rng.randrange(1000), 1_766_000_001_000
    head = struct.pack(
        ">qiibIhiqqqhii",
        base,
        49 + len(payload),
        -1,
        2,
        rng.getrandbits(32),
        codec,
        count - 1,
        first,
        last,
        producer,
        epoch,
        sequence,
        count,
    )
    fields: list[Field] = [
        ("batch_magic", 2),
        ("batch_base_offset", base),
        ("batch_size", len(head) + len(payload)),
        ("batch_attributes", codec),
        ("batch_last_offset_delta", count - 1),
        ("batch_base_timestamp", first),
        ("batch_max_timestamp", last),
    ]
    if producer >= 0:
        fields += [("batch_producer_id", producer), ("batch_producer_epoch", epoch), ("batch_base_sequence", sequence)]
    return head + payload, [*fields, ("batch_count", count)]


def old_message(rng: random.Random, magic: int, payload: bytes, base: int = 0, codec: int = 0) -> tuple[bytes, list[Field]]:
    """One entry of a message set of format 0 or 1."""
    rest = (
        struct.pack(">Ibb", rng.getrandbits(32), magic, codec)
        + (struct.pack(">q", 1_500_000_000_000) if magic else b"")
        + b"\xff\xff\xff\xff"
    )
    rest += struct.pack(">i", len(payload)) + payload
    data = struct.pack(">qi", base, len(rest)) + rest
    return data, [("batch_magic", magic), ("batch_base_offset", base), ("batch_size", len(data)), ("batch_attributes", codec)]


def some_records(
    rng: random.Random, payload: Callable[[random.Random], bytes] = lambda rng: rng.randbytes(rng.choice((0, 1, 40, 700)))
) -> tuple[bytes, list[Field]]:
    """Batches of one format, the last of them cut off now and then."""
    data, fields = b"", []
    old = rng.random() < 0.2
    for _ in range(rng.choice((1, 1, 2, 3))):
        if old:
            more, reported = old_message(rng, rng.randint(0, 1), payload(rng), rng.randrange(1 << 40), rng.randint(0, 2))
        else:
            more, reported = batch(rng, payload(rng), rng.randint(1, 500), rng.randrange(1 << 40), rng.randint(0, 4))
        data += more
        fields += reported
    if rng.random() < 0.3:
        cut = rng.randint(1, len(more) - 1)
        data = data[:-cut]
        fields = fields[: len(fields) - len(reported)]
        if len(more) - cut >= 18:
            fields.append(("batch_cut", len(more) - cut))
    return data, fields


def request(key: int, version: int, correlation: int, client: bytes | None, body: bytes, flexible: bool) -> bytes:
    """A request's frame with its header."""
    head = struct.pack(">hhi", key, version, correlation)
    if (key, version) != (7, 0):
        head += string(client, False) + (b"\0" if flexible else b"")
    return struct.pack(">i", len(head) + len(body)) + head + body


def response(correlation: int, body: bytes, tagged: bool) -> bytes:
    """A response's frame with its header."""
    head = struct.pack(">i", correlation) + (b"\0" if tagged else b"")
    return struct.pack(">i", len(head) + len(body)) + head + body


def front(api: str, version: int, encoder: Encoder) -> list[str]:
    """Of a response without a table of its own: which of throttle time and error code are its first fields."""
    names = [
        field["name"]
        for field in specification(api + "Response")["fields"]
        if within(field["versions"], version) and "taggedVersions" not in field
    ]
    found = []
    for name in names[:2]:
        if name not in {"ThrottleTimeMs", "ErrorCode"}:
            break
        found.append({"ThrottleTimeMs": "throttle_time_ms", "ErrorCode": "error_code"}[name])
    return found
