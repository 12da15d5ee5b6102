"""The tables of `kafka.layouts` against the JSON specifications of kafka-python and its own encoder."""

from __future__ import annotations

import random

import pytest
from kafka.protocol.metadata import ApiVersionsRequest
from kafka_messages import APIS, Encoder, front, no_records, request, response, some_records, specification
from kafka_streams import Packet, Row, follow, segmented, split, whole

from brokerlens.kafka import frames, keep, layouts, machine

pytestmark = pytest.mark.filterwarnings("ignore:.*_text is deprecated:DeprecationWarning")  # how kafka-python reads its resources
VERSIONS = [(key, version) for key in APIS for version in range(int(layouts.TABLES.newest[key]) + 1)]
WITH_TABLE = {"Produce", "Fetch", "Metadata", "ApiVersions"}


def exchange(ask: bytes, reply: bytes, size: int = 1 << 20) -> list[Row]:
    """One request and its response on a connection from its SYN, in segments of a size."""
    packets = [Packet(0, 0, 0, 99, flags=2), Packet(1, 1, 1, 199, flags=18)]
    packets += segmented(0, ask, 100, 1_000, size, 2)
    packets += segmented(1, reply, 200, 10_000_000_000, size, 1_000_000)
    return follow(whole(packets)).rows


@pytest.mark.parametrize("key", APIS)
def test_newest_and_flexible_versions_are_those_of_the_specification(key: int) -> None:
    spec = specification(APIS[key] + "Request")
    assert layouts.API_NAMES[key] == APIS[key]
    assert layouts.TABLES.newest[key] >= int(spec["validVersions"].rpartition("-")[2])
    flexible = spec["flexibleVersions"]
    assert layouts.TABLES.flexible[key] == (1 << 15 if flexible == "none" else int(flexible.rstrip("+").partition("-")[0]))


@pytest.mark.parametrize(("key", "version"), VERSIONS)
def test_every_field_of_every_version_is_found(key: int, version: int) -> None:
    api = APIS[key]
    rng = random.Random(1000 * key + version)
    for _ in range(8):
        ask = Encoder(api, "Request", version, rng, some_records)
        reply = Encoder(api, "Response", version, rng, some_records, fixed={"ErrorCode": 3} if api == "ApiVersions" else None)
        tagged = reply.flexible and api != "ApiVersions"
        size = rng.choice((1, 7, 1 << 20))
        sent = request(key, version, -5, b"me", ask.bytes, ask.flexible)
        if api == "Produce" and ("acks", 0) in ask.fields:
            continue
        first, second = exchange(sent, response(-5, reply.bytes, tagged), size)
        assert (first.key, first.version, first.correlation, first.client, first.size) == (key, version, -5, b"me", len(sent))
        assert (second.key, second.version, first.partner, second.partner) == (key, version, 1, 0)
        assert list(first.fields) == ask.fields
        whole_request = api in {"Produce", "Fetch", "Metadata", "ApiVersions"}
        assert first.body == (machine.BODY_WHOLE if whole_request else machine.BODY_NONE) or not ask.bytes
        if api in WITH_TABLE:
            assert list(second.fields) == reply.fields
            assert second.body == machine.BODY_WHOLE
        elif api == "OffsetFetch" and version <= 7:
            assert second.body == machine.BODY_WHOLE
            assert [name for name, _ in second.fields] == ["throttle_time_ms"] * (version >= 3) + ["error_code"] * (version >= 2)
        elif api != "AlterPartitionReassignments":
            assert [name for name, _ in second.fields] == front(api, version, reply)
        assert not (first.header | second.header) & machine.HEADER_MALFORMED


def test_replica_of_a_follower_stands_in_a_tag_from_version_15() -> None:
    rng = random.Random(3)
    found = set()
    for _ in range(40):
        ask = Encoder("Fetch", "Request", 17, rng, no_records)
        rows = exchange(request(1, 17, 1, None, ask.bytes, True), b"")
        found.add(
            [value for name, value in rows[0].fields if name == "replica_id"]
            == [value for name, value in ask.fields if name == "replica_id"]
        )
    assert found == {True}


def test_kafka_pythons_own_encoder() -> None:
    ask = ApiVersionsRequest(client_software_name="clientware", client_software_version="1.2", version=3)
    ask.with_header(correlation_id=7, client_id="me")
    frame = ask.encode(header=True, framed=True)
    rows = exchange(frame, b"")
    assert rows[0].fields == (("software_name", b"clientware"), ("software_version", b"1.2"))
    assert rows[0].body == machine.BODY_WHOLE


def test_versions_newer_than_the_tables_have_their_header() -> None:
    (row,) = exchange(request(0, 15, 9, b"new", b"\0" * 30, True), b"")
    assert (row.key, row.version, row.client, row.body) == (0, 15, b"new", machine.BODY_NONE)
    (row,) = exchange(request(18, 40, 9, b"new", b"\0" * 30, True), b"")
    assert row.header & machine.HEADER_UNKNOWN


def test_api_versions_refused_is_answered_in_version_0() -> None:
    """KIP-511: whatever was asked, the answer has the first version's layout (librdkafka#3057)."""
    ask = Encoder("ApiVersions", "Request", 4, random.Random(1), no_records)
    _, reply = exchange(request(18, 4, 1, b"me", ask.bytes, True), response(1, b"\0\x23\0\0\0\0", False))
    assert reply.fields == (("error_code", 35),)
    assert reply.body == machine.BODY_WHOLE


def test_names_of_apis() -> None:
    assert layouts.api_name(0) == "Produce"
    assert layouts.api_name(93) == "GetReplicaLogInfo"
    assert layouts.api_name(500) == "api_500"


def test_a_table_with_an_unknown_type_is_an_error() -> None:
    with pytest.raises(ValueError, match="int24 is no type"):
        layouts._structure([layouts._Line("name", "int24", 0, 1, [])], 0, False, [])


def test_what_is_passed_over_between_fields_is_joined_by_the_marks() -> None:
    """`machine.take_at_once` marks fields and what lies between them as one: that must be what `mark` would have made of them."""
    program = layouts.TABLES.program
    assert program[program[:, 0] == layouts.OP_SKIP, 1].max() < machine.JOIN


def test_every_kernel_is_compiled_once() -> None:
    """A second signature (a read-only or strided array) would be compiled in a job of its own."""
    exchange(request(12, 0, 1, b"me", b"", False), response(1, b"\0\0", False))
    split([Packet(0, 0, 0, 99, b"x")])
    for kernel in (frames.follow, keep.follow):
        if hasattr(kernel, "signatures"):
            assert len(kernel.signatures) == 1
