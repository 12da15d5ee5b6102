"""Where the fields stand in Kafka's requests and responses, from tables to instructions.

The tables follow Apache Kafka's JSON message specifications. They are compiled to one array of instructions that `kafka.machine`
interprets, so another version of an api is a change of the tables and of no kernel. Apis without a table of their own have
their header, and in responses throttle time and error code as far as they stand at the front; versions newer than the tables have
their header only.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

REQUEST, RESPONSE = 0, 1

# Instructions: (operation, argument, field). Compact forms (flexible versions) have lengths as unsigned varints plus one.
(
    OP_STOP,  # the body goes on, nothing more of it is wanted
    OP_DONE,  # the body's end
    OP_SKIP,  # argument bytes
    OP_INT,  # argument bytes (1, 2, 4, 8), big endian, signed
    OP_UUID,
    OP_STRING,
    OP_STRING_COMPACT,
    OP_BYTES,
    OP_BYTES_COMPACT,
    OP_ITEMS,  # array of items of argument bytes
    OP_ITEMS_COMPACT,
    OP_ARRAY,  # argument: the instruction behind the array
    OP_ARRAY_COMPACT,
    OP_END,  # of an array's item; argument: the item's first instruction
    OP_RECORDS,
    OP_RECORDS_COMPACT,
    OP_TAGS,  # argument: the tag whose first four bytes are the field (-1 none)
    OP_UNLESS_35,  # stop where the field read last was UNSUPPORTED_VERSION: the rest is version 0 (KIP-511)
) = range(18)

# A field of a frame, in the order they stand in: numbers are positions in this tuple. Those from `batch_magic` on are made by record batches.
FIELD_NAMES: Final = (
    "",
    "acks",
    "timeout_ms",
    "topic",
    "topic_id",
    "partition",
    "error_code",
    "throttle_time_ms",
    "base_offset",
    "replica_id",
    "max_wait_ms",
    "min_bytes",
    "session_id",
    "session_epoch",
    "fetch_offset",
    "forgotten_topic",
    "forgotten_topic_id",
    "forgotten_partition",
    "high_watermark",
    "node_id",
    "host",
    "port",
    "cluster_id",
    "software_name",
    "software_version",
    "records_size",
    "batch_magic",
    "batch_base_offset",
    "batch_size",
    "batch_attributes",
    "batch_last_offset_delta",
    "batch_base_timestamp",
    "batch_max_timestamp",
    "batch_producer_id",
    "batch_producer_epoch",
    "batch_base_sequence",
    "batch_count",
    "batch_cut",
    "batch_end",
)
FIELDS: Final = {name: number for number, name in enumerate(FIELD_NAMES)}

# key, name, newest version, first flexible version (- none), throttle time and error code of the response: #index of the field, versions.
_APIS: Final = """
0 Produce 13 9 - -
1 Fetch 18 12 - -
2 ListOffsets 11 6 #0:2+ -
3 Metadata 13 9 - -
4 LeaderAndIsr 7 4 - #0:0+
5 StopReplica 4 2 - #0:0+
6 UpdateMetadata 8 6 - #0:0+
7 ControlledShutdown 3 3 - #0:0+
8 OffsetCommit 10 8 #0:3+ -
9 OffsetFetch 10 6 #0:3+ -
10 FindCoordinator 6 3 #0:1+ #1:0-3
11 JoinGroup 9 6 #0:2+ #1:0+
12 Heartbeat 4 4 #0:1+ #1:0+
13 LeaveGroup 5 4 #0:1+ #1:0+
14 SyncGroup 5 4 #0:1+ #1:0+
15 DescribeGroups 6 5 #0:1+ -
16 ListGroups 5 3 #0:1+ #1:0+
17 SaslHandshake 1 - - #0:0+
18 ApiVersions 4 3 - -
19 CreateTopics 7 5 #0:2+ -
20 DeleteTopics 6 4 #0:1+ -
21 DeleteRecords 2 2 #0:0+ -
22 InitProducerId 6 2 #0:0+ #1:0+
23 OffsetForLeaderEpoch 4 4 #0:2+ -
24 AddPartitionsToTxn 5 3 #0:0+ #1:4+
25 AddOffsetsToTxn 4 3 #0:0+ #1:0+
26 EndTxn 5 3 #0:0+ #1:0+
27 WriteTxnMarkers 2 1 - -
28 TxnOffsetCommit 5 3 #0:0+ -
29 DescribeAcls 3 2 #0:0+ #1:0+
30 CreateAcls 3 2 #0:0+ -
31 DeleteAcls 3 2 #0:0+ -
32 DescribeConfigs 4 4 #0:0+ -
33 AlterConfigs 2 2 #0:0+ -
34 AlterReplicaLogDirs 2 2 #0:0+ -
35 DescribeLogDirs 5 2 #0:0+ #1:3+
36 SaslAuthenticate 2 2 - #0:0+
37 CreatePartitions 3 2 #0:0+ -
38 CreateDelegationToken 3 2 - #0:0+
39 RenewDelegationToken 2 2 - -
40 ExpireDelegationToken 2 2 - -
41 DescribeDelegationToken 3 2 - #0:0+
42 DeleteGroups 2 2 #0:0+ -
43 ElectLeaders 2 2 #0:0+ #1:1+
44 IncrementalAlterConfigs 1 1 #0:0+ -
45 AlterPartitionReassignments 1 0 - -
46 ListPartitionReassignments 0 0 #0:0+ #1:0+
47 OffsetDelete 0 - #1:0+ #0:0+
48 DescribeClientQuotas 1 1 #0:0+ #1:0+
49 AlterClientQuotas 1 1 #0:0+ -
50 DescribeUserScramCredentials 0 0 #0:0+ #1:0+
51 AlterUserScramCredentials 0 0 #0:0+ -
52 Vote 2 0 - #0:0+
53 BeginQuorumEpoch 1 1 - #0:0+
54 EndQuorumEpoch 1 1 - #0:0+
55 DescribeQuorum 2 0 - #0:0+
56 AlterPartition 3 0 #0:0+ #1:0+
57 UpdateFeatures 2 0 #0:0+ #1:0+
58 Envelope 0 0 - -
59 FetchSnapshot 1 0 #0:0+ #1:0+
60 DescribeCluster 2 0 #0:0+ #1:0+
61 DescribeProducers 0 0 #0:0+ -
62 BrokerRegistration 4 0 #0:0+ #1:0+
63 BrokerHeartbeat 1 0 #0:0+ #1:0+
64 UnregisterBroker 0 0 #0:0+ #1:0+
65 DescribeTransactions 0 0 #0:0+ -
66 ListTransactions 2 0 #0:0+ #1:0+
67 AllocateProducerIds 0 0 #0:0+ #1:0+
68 ConsumerGroupHeartbeat 1 0 #0:0+ #1:0+
69 ConsumerGroupDescribe 1 0 #0:0+ -
70 ControllerRegistration 0 0 #0:0+ #1:0+
71 GetTelemetrySubscriptions 0 0 #0:0+ #1:0+
72 PushTelemetry 0 0 #0:0+ #1:0+
73 AssignReplicasToDirs 0 0 #0:0+ #1:0+
74 ListConfigResources 1 0 #0:0+ #1:0+
75 DescribeTopicPartitions 0 0 #0:0+ -
76 ShareGroupHeartbeat 1 0 #0:0+ #1:0+
77 ShareGroupDescribe 1 0 #0:0+ -
78 ShareFetch 2 0 #0:0+ #1:0+
79 ShareAcknowledge 2 0 #0:0+ #1:0+
80 AddRaftVoter 1 0 #0:0+ #1:0+
81 RemoveRaftVoter 0 0 #0:0+ #1:0+
82 UpdateRaftVoter 0 0 #0:0+ #1:0+
83 InitializeShareGroupState 0 0 - -
84 ReadShareGroupState 0 0 - -
85 WriteShareGroupState 1 0 - -
86 DeleteShareGroupState 0 0 - -
87 ReadShareGroupStateSummary 1 0 - -
88 StreamsGroupHeartbeat 0 0 - -
89 StreamsGroupDescribe 0 0 - -
90 DescribeShareGroupOffsets 1 0 - -
91 AlterShareGroupOffsets 0 0 - -
92 DeleteShareGroupOffsets 0 0 - -
93 GetReplicaLogInfo 0 0 - -
"""

# side, api, versions; then name, type, versions. Names of FIELD_NAMES are reported, the others passed over. Every structure of a flexible
# version ends with tagged fields; `tagN` says which of them is reported. `...` ends a table that does not reach the body's end.
_LAYOUTS: Final = """
request Produce 0-13
  transactional_id string 3+
  acks int16
  timeout_ms int32
  topics []
    topic string 0-12
    topic_id uuid 13+
    partitions []
      partition int32
      records records
response Produce 0-13
  responses []
    topic string 0-12
    topic_id uuid 13+
    partitions []
      partition int32
      error_code int16
      base_offset int64
      log_append_time_ms int64 2+
      log_start_offset int64 5+
      record_errors [] 8+
        batch_index int32
        message string
      error_message string 8+
  throttle_time_ms int32 1+
request Fetch 0-18
  replica_id int32 0-14
  max_wait_ms int32
  min_bytes int32
  max_bytes int32 3+
  isolation_level int8 4+
  session_id int32 7+
  session_epoch int32 7+
  topics []
    topic string 0-12
    topic_id uuid 13+
    partitions []
      partition int32
      current_leader_epoch int32 9+
      fetch_offset int64
      last_fetched_epoch int32 12+
      log_start_offset int64 5+
      partition_max_bytes int32
  forgotten_topics [] 7+
    forgotten_topic string 7-12
    forgotten_topic_id uuid 13+
    forgotten_partition int32[]
  rack_id string 11+
  replica_id tag1 15+
response Fetch 0-18
  throttle_time_ms int32 1+
  error_code int16 7+
  session_id int32 7+
  responses []
    topic string 0-12
    topic_id uuid 13+
    partitions []
      partition int32
      error_code int16
      high_watermark int64
      last_stable_offset int64 4+
      log_start_offset int64 5+
      aborted_transactions [] 4+
        producer_id int64
        first_offset int64
      preferred_read_replica int32 11+
      records records
response Metadata 0-13
  throttle_time_ms int32 3+
  brokers []
    node_id int32
    host string
    port int32
    rack string 1+
  cluster_id string 2+
  controller_id int32 1+
  topics []
    error_code int16
    topic string
    topic_id uuid 10+
    is_internal int8 1+
    partitions []
      partition_error int16
      partition_index int32
      leader_id int32
      leader_epoch int32 7+
      replica_nodes int32[]
      isr_nodes int32[]
      offline_replicas int32[] 5+
    topic_authorized_operations int32 8+
  cluster_authorized_operations int32 8-10
  error_code int16 13+
request Metadata 0-13
  topics []
    topic_id uuid 10+
    topic string
  allow_auto_topic_creation int8 4+
  include_cluster_authorized_operations int8 8-10
  include_topic_authorized_operations int8 8+
request ApiVersions 0-4
  software_name string 3+
  software_version string 3+
response ApiVersions 0-4
  error_code int16
  unless_35 unless_35
  api_keys []
    api_key int16
    min_version int16
    max_version int16
  throttle_time_ms int32 1+
response OffsetFetch 0-7
  throttle_time_ms int32 3+
  topics []
    name string
    partitions []
      partition_index int32
      committed_offset int64
      committed_leader_epoch int32 5+
      metadata string
      partition_error int16
  error_code int16 2+
response RenewDelegationToken 0-2
  error_code int16
  expiry_timestamp_ms int64
  throttle_time_ms int32
response ExpireDelegationToken 0-2
  error_code int16
  expiry_timestamp_ms int64
  throttle_time_ms int32
response AlterPartitionReassignments 0-1
  throttle_time_ms int32
  allow_replication_factor_change int8 1+
  error_code int16
  ...
response Envelope 0-0
  response_data bytes
  error_code int16
  ...
"""

_WIDTHS: Final = {"int8": 1, "int16": 2, "int32": 4, "int64": 8}
_EVER: Final = 1 << 15


class Tables(NamedTuple):
    """What the machine knows of Kafka.

    program: int32[n, 3], instructions (operation, argument, field). starts: int32[2, apis, versions], first instruction by side, key and
    version, -1 header only. newest: int64[apis], the newest version known, -1 for keys that are no api. flexible: int64[apis], the
    first version with tagged fields.
    """

    program: NDArray[np.int32]
    starts: NDArray[np.int32]
    newest: NDArray[np.int64]
    flexible: NDArray[np.int64]


class _Line(NamedTuple):
    name: str
    kind: str
    first: int
    last: int
    children: list[_Line]


def _versions(text: str) -> tuple[int, int]:
    if text.endswith("+"):
        return int(text[:-1]), _EVER
    first, _, last = text.partition("-")
    return int(first), int(last or first)


def _parse(lines: list[str], depth: int) -> list[_Line]:
    """Lines of one structure, those of arrays within; takes them off the front of `lines`."""
    found: list[_Line] = []
    while lines and (len(lines[0]) - len(lines[0].lstrip())) // 2 >= depth:
        if (len(lines[0]) - len(lines[0].lstrip())) // 2 > depth:
            found[-1].children.extend(_parse(lines, depth + 1))
            continue
        words = lines.pop(0).split()
        first, last = _versions(words[2]) if len(words) > 2 else (0, _EVER)
        found.append(_Line(words[0], words[1] if len(words) > 1 else words[0], first, last, []))
    return found


def _structure(lines: list[_Line], version: int, flexible: bool, program: list[tuple[int, int, int]]) -> bool:
    """Append the instructions of one structure; says whether the table reaches the structure's end."""
    tag = (-1, 0)
    for line in lines:
        if not line.first <= version <= line.last:
            continue
        field = FIELDS.get(line.name, 0)
        if line.kind == "...":
            return False
        if line.kind in _WIDTHS:
            _append(program, (OP_INT, _WIDTHS[line.kind], field) if field else (OP_SKIP, _WIDTHS[line.kind], 0))
        elif line.kind == "uuid":
            program.append((OP_UUID, 16, field))
        elif line.kind == "string":
            program.append((OP_STRING_COMPACT if flexible else OP_STRING, 0, field))
        elif line.kind == "bytes":
            program.append((OP_BYTES_COMPACT if flexible else OP_BYTES, 0, 0))
        elif line.kind == "records":
            program.append((OP_RECORDS_COMPACT if flexible else OP_RECORDS, 0, FIELDS["records_size"]))
        elif line.kind == "int32[]" and field:
            begin = len(program) + 1
            program += [(OP_ARRAY_COMPACT if flexible else OP_ARRAY, begin + 2, 0), (OP_INT, 4, field), (OP_END, begin, 0)]
        elif line.kind == "int32[]":
            program.append((OP_ITEMS_COMPACT if flexible else OP_ITEMS, 4, 0))
        elif line.kind == "unless_35":
            program.append((OP_UNLESS_35, 0, 0))
        elif line.kind == "[]":
            opened = len(program)
            program.append((0, 0, 0))
            _structure(line.children, version, flexible, program)
            program.append((OP_END, opened + 1, 0))
            program[opened] = (OP_ARRAY_COMPACT if flexible else OP_ARRAY, len(program), 0)
        elif line.kind.startswith("tag"):
            tag = (int(line.kind[3:]), field)
        else:
            raise ValueError(
                f"layout of {line.name}: {line.kind} is no type; one of {', '.join(_WIDTHS)}, uuid, string, bytes, records, []"
            )
    if flexible:
        program.append((OP_TAGS, *tag))
    return True


def _append(program: list[tuple[int, int, int]], instruction: tuple[int, int, int]) -> None:
    """One instruction, neighbouring skips joined unless an array's item may begin between them."""
    if instruction[0] == OP_SKIP and program and program[-1][0] == OP_SKIP:
        program[-1] = (OP_SKIP, program[-1][1] + instruction[1], 0)
    else:
        program.append(instruction)


def _front(throttle: str, error: str) -> list[_Line]:
    """Throttle time and error code where they are the body's first fields, from the table of all apis."""
    found = []
    for name, kind, text in (("throttle_time_ms", "int32", throttle), ("error_code", "int16", error)):
        if text != "-":
            index, _, versions = text[1:].partition(":")
            found.append((int(index), _Line(name, kind, *_versions(versions), [])))
    return [line for _, line in sorted(found, key=lambda item: item[0])]


def _compile() -> tuple[Tables, tuple[str, ...]]:
    rows = [line.split() for line in _APIS.strip().splitlines()]
    names = tuple(row[1] for row in rows)
    keys = {name: key for key, name in enumerate(names)}
    newest = np.array([int(row[2]) for row in rows], np.int64)
    flexible = np.array([_EVER if row[3] == "-" else int(row[3]) for row in rows], np.int64)
    starts = np.full((2, len(rows), int(newest.max()) + 1), -1, np.int32)
    program: list[tuple[int, int, int]] = []
    tables = {
        (RESPONSE, key, version): [*_front(row[4], row[5]), _Line("...", "...", 0, _EVER, [])]
        for key, row in enumerate(rows)
        for version in range(int(row[2]) + 1)
        if _front(row[4], row[5])
    }
    text = _LAYOUTS.strip().splitlines()
    while text:
        side, name, versions = text.pop(0).split()
        lines = _parse(text, 1)
        first, last = _versions(versions)
        for version in range(first, last + 1):
            tables[REQUEST if side == "request" else RESPONSE, keys[name], version] = lines
    for (number, key, version), lines in sorted(tables.items(), key=lambda item: item[0]):
        starts[number, key, version] = len(program)
        compact = version >= flexible[key]
        if compact and not (number == RESPONSE and names[key] == "ApiVersions"):
            program.append((OP_TAGS, -1, 0))  # the header's
        whole = _structure(lines, version, compact, program)
        program.append((OP_DONE if whole else OP_STOP, 0, 0))
    return Tables(np.array(program, np.int32), starts, newest, flexible), names


def _packed(tables: Tables) -> NDArray[np.int64]:
    """The tables in one array, the front of the machine's memory.

    0: number of apis, 1: of versions, 2: where the starts stand (side, key, version; -1 header only), room for the machine's own
    numbers, then the newest versions, the starts, and the instructions, three numbers each; starts and jumps are places in this array.
    """
    apis, versions = tables.starts.shape[1:]
    starts_at = PACKED_NEWEST + apis
    program_at = starts_at + tables.starts.size
    starts = np.where(tables.starts >= 0, program_at + 3 * tables.starts.astype(np.int64), -1)
    program = tables.program.astype(np.int64)
    jumps = np.isin(program[:, 0], (OP_ARRAY, OP_ARRAY_COMPACT, OP_END))
    program[jumps, 1] = program_at + 3 * program[jumps, 1]
    return np.concatenate(
        [[apis, versions, starts_at], np.zeros(PACKED_NEWEST - 3, np.int64), tables.newest, starts.ravel(), program.ravel()]
    )


PACKED_NEWEST: Final = 11
TABLES, API_NAMES = _compile()
PACKED: Final = _packed(TABLES)


def api_name(key: int) -> str:
    """Name of an api, `api_KEY` where unknown."""
    return API_NAMES[key] if 0 <= key < len(API_NAMES) else f"api_{key}"
