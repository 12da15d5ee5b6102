"""One capture's packets decoded twice, by the native reader and by Wireshark, and compared field by field.

A difference is explained only by a rule that matches the packet itself, and only for the fields that the rule names: docs/verify.md has the list.
"""

from __future__ import annotations

import hashlib
import os
import random
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from brokerlens.capture.columns import OPTIONS_DAMAGED, ROW_COLUMNS, new_columns
from brokerlens.capture.headers import END_COLUMNS, FIELDS, read_headers
from brokerlens.capture.layers import OTHER_ENDPOINT, SKIPPED, UNKNOWN_LINK
from brokerlens.capture.lookup import address, broker_table, endpoint, new_endpoints
from brokerlens.capture.reader import Capture, Chunk
from brokerlens.wireshark import tools
from brokerlens.wireshark.packets import MALFORMED_PACKET, Packet, Row, header_hash, ip_header, is_tunnelled, read_row, trailing

STRETCHES: Final = 500  # of random packets: editcap takes 512 ranges and silently leaves the rest out
LAST_NUMBER: Final = (1 << 32) - 1  # of a packet
SEED: Final = 20_251_226
EXAMPLES: Final = 3  # packets named per kind of difference
FRAME: Final = ("timestamp", "frame_number", "wire_len", "captured_len")
COMPARED: Final = (
    "row", "client", "broker", *(name for name in ROW_COLUMNS if name not in ("bucket", "connection")), "payload",
)  # fmt: skip
SALT: Final = os.urandom(16)  # what stands for payload in results tells nothing of it
KNOWN_LINKS: Final = ("eth", "sll", "raw", "null")  # as tshark names them
OPTIONS: Final = COMPARED[COMPARED.index("options") : COMPARED.index("payload")]
ABSENT: Final = "no row"
AGREES: Final = "agrees"
DIFFERS: Final = "differs"


class Decoded(NamedTuple):
    """What a decoder made of one packet: ``fields`` as text by name, ``skipped`` the reason (``layers.SKIPPED``) why there is no row, or -1."""

    fields: Mapping[str, str]
    skipped: int


class Rule(NamedTuple):
    """Why the two differ: in which fields, and for which packets.

    ``matches`` gets tshark's packet and both results. It asks what stands in the packet, and that the native reader's value is the one that follows
    from that: never the native reader alone, whose fault would then explain itself.
    """

    name: str
    says: str
    fields: frozenset[str]
    matches: Callable[[Packet, Decoded, Decoded], bool]


def _is_of_unknown_link(packet: Packet, native: Decoded, wireshark: Decoded) -> bool:
    return native.skipped == UNKNOWN_LINK and packet.protocols[0] not in KNOWN_LINKS


def _is_ipv6_of_length_0(packet: Packet, native: Decoded, wireshark: Decoded) -> bool:
    """With extension headers; without them tshark takes the frame's length."""
    lengths = packet.values.get("ipv6.plen", "").split(",")
    return _finds_nothing(wireshark) and lengths[-1] == "0" and packet.protocols[-1].startswith("ipv6.")


def _hash_says_length_0(packet: Packet, native: Decoded, wireshark: Decoded) -> bool:
    return native.fields["header_hash"] == str(header_hash(packet, length_0=True))


def _is_longer_than_frame(packet: Packet, native: Decoded, wireshark: Decoded) -> bool:
    """Whether the native reader's length of payload follows from the IP header's, which is more than tshark found room for."""
    ip, lengths = ip_header(packet), [int(one.fields["payload_len"]) for one in (native, wireshark)]
    headers = int(packet.values["tcp.hdr_len"].split(",")[0])
    if ip["family"] == "ip":
        return lengths[0] == int(ip["len"]) - int(ip["hdr_len"]) - headers > lengths[1]
    # How long extension headers are tshark does not tell: so much more than the frame's rest is said and no more.
    claimed = int(ip["plen"]) - headers
    return claimed >= lengths[0] > lengths[1] if ip["extensions"] else claimed == lengths[0] > lengths[1]


def _has_ethernet_in_mpls(packet: Packet, native: Decoded, wireshark: Decoded) -> bool:
    return _finds_nothing(wireshark) and "mpls" in packet.protocols


def _has_ip_in_erspan(packet: Packet, native: Decoded, wireshark: Decoded) -> bool:
    protocols = packet.protocols
    return _finds_nothing(wireshark) and "erspan" in protocols and not {"ip", "ipv6"} & set(protocols[protocols.index("erspan") :])


def _finds_nothing(wireshark: Decoded) -> bool:
    """Whether tshark sees no TCP. Where the native reader sees a broker's, address and port stand at their places: nothing else explains that."""
    return wireshark.skipped not in (-1, OTHER_ENDPOINT)


def _has_more_than_fixed_headers(packet: Packet, native: Decoded, wireshark: Decoded) -> bool:
    ip = ip_header(packet)
    return ip["hdr_len"] != "20" if ip["family"] == "ip" else ip["nxt"] != "6"


def _has_hidden_padding(packet: Packet, native: Decoded, wireshark: Decoded) -> bool:
    """Whether the native reader found more behind the packet than tshark tells to be there, for a reason.

    Of what is behind ``tcp`` in the protocols, ``data`` is its payload; anything else has taken the frame's trailer for its own.
    """
    padding = [int(one.fields["padded_len"]) - int(one.fields["payload_captured"]) for one in (native, wireshark)]
    if is_tunnelled(packet):
        return padding[1] == 0 < padding[0] <= len(trailing(packet)) // 2
    behind = set(packet.protocols[packet.protocols.index("tcp") + 1 :])
    hidden = packet.protocols[0] not in ("eth", "sll") or "pppoes" in packet.protocols or behind - {"data"}
    ip = ip_header(packet)
    length = int(ip["len"]) if ip["family"] == "ip" else 40 + int(ip["plen"])
    return bool(hidden) and padding[1] < padding[0] <= packet.captured - length


def _is_malformed(packet: Packet, native: Decoded, wireshark: Decoded) -> bool:
    return MALFORMED_PACKET in packet.values


def _is_reset_with_data(packet: Packet, native: Decoded, wireshark: Decoded) -> bool:
    """tshark shows why a connection is reset in words."""
    fields = native.fields
    return (
        bool(int(fields["flags"]) & 4)
        and wireshark.fields["payload_captured"] == "0"
        and int(fields["payload_captured"]) <= int(fields["payload_len"])
    )


RULES: Final = (
    Rule(
        "unknown_link",
        "the native reader does not know the link type: such captures are read by Wireshark",
        frozenset({"row"}),
        _is_of_unknown_link,
    ),
    Rule(
        "ipv6_length_0",
        "tshark looks for no TCP behind the extension headers of an IPv6 packet whose length is 0, as offload leaves it",
        frozenset({"row"}),
        _is_ipv6_of_length_0,
    ),
    Rule(
        "ip_length_0",
        "tshark puts what it finds in the place of an IP length of 0, as offload leaves it: the headers' hash is not that of the bytes",
        frozenset({"header_hash"}),
        _hash_says_length_0,
    ),
    Rule(
        "ip_beyond_frame",
        "of an IP packet that claims to be longer than its frame tshark takes the frame's length, the native reader the IP header's",
        frozenset({"payload_len"}),
        _is_longer_than_frame,
    ),
    Rule(
        "ethernet_in_mpls",
        "tshark takes Ethernet in MPLS without a control word for something else",
        frozenset({"row"}),
        _has_ethernet_in_mpls,
    ),
    Rule(
        "ip_in_erspan",
        "tshark opens mirrored Ethernet frames only",
        frozenset({"row"}),
        _has_ip_in_erspan,
    ),
    Rule(
        "ip_options",
        "the native reader's hash of the headers covers IP options and extension headers, whose bytes tshark does not give",
        frozenset({"header_hash"}),
        _has_more_than_fixed_headers,
    ),
    Rule(
        "padding",
        "what pads a frame tshark shows neither of every link layer nor, of tunnels, in which frame it is",
        frozenset({"padded_len", "notebook_id"}),
        _has_hidden_padding,
    ),
    Rule(
        "malformed",
        "at what it calls malformed, such as an option of a length that cannot be, tshark ends; the native reader passes over it",
        frozenset({*OPTIONS, "payload_captured", "padded_len", "notebook_id", "payload"}),
        _is_malformed,
    ),
    Rule(
        "reset_with_data",
        "tshark shows what a reset carries as a reason in words, not as payload",
        frozenset({"payload_captured", "padded_len", "notebook_id", "payload"}),
        _is_reset_with_data,
    ),
)


def sample(count: int, size: int | None) -> list[tuple[int, int]]:
    """Numbers of packets of a capture of ``count``, as ranges (first, last), in order: a quarter from its start, a quarter from its end, others at random.

    Always the same ones for the same numbers. ``size`` None is all.
    """
    if size is None or size >= count:
        return [(1, count)] if count else []
    ends = max(size // 4, 1)
    chosen = set(range(1, min(ends, size) + 1)) | set(range(count - min(ends, size - 1) + 1, count + 1))
    draw = random.Random(SEED)
    length = -(-size // STRETCHES)
    between = range(ends + 1, count - ends + 1, length)
    wanted = size - len(chosen)
    for start in draw.sample(between, min(len(between), -(-wanted // length))):
        chosen |= set(range(start, min(start + length, count - ends + 1)))
    return _ranges(sorted(chosen))


def _ranges(numbers: Sequence[int]) -> list[tuple[int, int]]:
    ranges: list[tuple[int, int]] = []
    for number in numbers:
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1] = ranges[-1][0], number
        else:
            ranges.append((number, number))
    return ranges


class Native:
    """The native reader, one packet at a time."""

    def __init__(self, brokers: Sequence[str]) -> None:
        self._brokers = broker_table(brokers)
        self._endpoints = new_endpoints()
        self._columns = new_columns(1)
        self._ends = np.zeros((1, END_COLUMNS), np.int64)
        self._payload_at = np.zeros(1, np.int64)
        self._fields = np.zeros(FIELDS, np.int64)

    def decode(self, chunk: Chunk, place: int) -> Decoded:
        """The chunk's packet at this place."""
        skipped = np.zeros(len(SKIPPED), np.int64)
        frame = (chunk.packets.time, None, chunk.packets.wire, chunk.packets.captured)
        _, rows = read_headers(
            chunk.buffer, chunk.packets, place, place + 1, chunk.frame_number, self._brokers, self._endpoints, False, self._columns, 0,
            self._ends, self._payload_at, skipped, self._fields,
        )  # fmt: skip
        if rows == 0:
            values = (chunk.frame_number + place if array is None else int(array[place]) for array in frame)
            return Decoded(_texts(dict(zip(FRAME, values, strict=True))), int(np.argmax(skipped)))
        columns = {name: int(column[0]) for name, column in self._columns._asdict().items()}
        payload_at = int(self._payload_at[0])
        payload = chunk.buffer[payload_at : payload_at + columns["payload_captured"]].tobytes()
        return Decoded(_row_texts(columns, self._ends[0].tolist(), payload), -1)


def from_wireshark(packet: Packet, brokers: Mapping[tuple[int, int, int], int], number: int) -> Decoded:
    """What Wireshark made of a packet, which is this number in the whole capture."""
    row = read_row(packet, brokers)
    if not isinstance(row, Row):
        return Decoded(_texts(dict(zip(FRAME, (packet.time, number, packet.wire, packet.captured), strict=True))), row)
    return Decoded(_row_texts(row.columns | {"frame_number": number}, row.ends, row.payload), -1)


def _texts(values: Mapping[str, int]) -> dict[str, str]:
    return {name: str(int(value)) for name, value in values.items()}


def _row_texts(columns: Mapping[str, int], ends: Sequence[int], payload: bytes) -> dict[str, str]:
    fields = _texts({name: value for name, value in columns.items() if name in COMPARED})
    fields["options"] = str(int(fields["options"]) & ~OPTIONS_DAMAGED)  # which options are malformed, only the native reader says
    client_port, broker_port = ends[4] >> 16, ends[4] & 0xFFFF
    return fields | {
        "client": endpoint(address(*ends[:2]), client_port),
        "broker": endpoint(address(*ends[2:4]), broker_port),
        "payload": hashlib.blake2b(payload, key=SALT, digest_size=4).hexdigest(),
    }


def compare(packet: Packet, native: Decoded, wireshark: Decoded) -> Iterator[tuple[str, str, str, str]]:
    """Field, outcome (``agrees``, ``differs`` or a rule's name) and both values, for each field of a packet that both may have."""
    if (native.skipped < 0) != (wireshark.skipped < 0):
        values = [ABSENT + f" ({SKIPPED[one.skipped]})" if one.skipped >= 0 else "a row" for one in (native, wireshark)]
        yield "row", _explained("row", packet, native, wireshark), values[0], values[1]
        names: Sequence[str] = FRAME
    else:
        yield "row", AGREES, "", ""
        names = [name for name in COMPARED if name in native.fields]
    for name in names:
        one, other = native.fields[name], wireshark.fields[name]
        yield name, AGREES if one == other else _explained(name, packet, native, wireshark), one, other


def _explained(field: str, packet: Packet, native: Decoded, wireshark: Decoded) -> str:
    """The name of the rule that explains a difference, or ``differs``."""
    return next((rule.name for rule in RULES if field in rule.fields and rule.matches(packet, native, wireshark)), DIFFERS)


def agreement(capture: str, brokers: Sequence[str], size: int | None) -> dict[str, Any]:
    """Decode a sample of a capture's packets twice; ``size`` None is all of them.

    Returns ``packets`` in the capture, ``compared``, ``rows`` (packets to or from a broker among these), and ``fields``: of each field how often
    it ``agrees``, and its ``differences``: rule (``differs`` where none explains), count, and a few examples with both values.
    Raises UserError where Wireshark is missing or fails, and CaptureError where the file is no capture.
    """
    tools.find("tshark")
    count = _packets(capture)
    ranges = sample(count, size)
    with tempfile.TemporaryDirectory(prefix="brokerlens-verify-") as folder:
        tally = _compared(capture, brokers, ranges, _copy(capture, ranges, count, Path(folder)))
    return {"packets": count, "compared": tally.packets, "rows": tally.rows, "fields": tally.fields}


def _packets(capture: str) -> int:
    return sum(chunk.found for chunk in Capture(capture).chunks())


def _copy(capture: str, ranges: Sequence[tuple[int, int]], count: int, folder: Path) -> str:
    """A copy of the packets with these numbers alone, or "" where they are all, or no such copy can be made."""
    copy, behind = str(folder / "sample.pcapng"), str(folder / "behind.pcapng")
    if ranges in ([], [(1, count)]) or not tools.cut(capture, ranges, copy):
        return ""
    # Wireshark gives numbers to records that are no packets, too: where one stands before a packet, there are packets behind the last packet's number.
    tools.cut(capture, [(count + 1, LAST_NUMBER)], behind)
    return "" if _packets(behind) else copy


def _compared(capture: str, brokers: Sequence[str], ranges: Sequence[tuple[int, int]], copy: str) -> Tally:
    """Compare the packets with these numbers; tshark reads them from the copy that holds them alone, if there is one."""
    table = broker_table(brokers)
    places = {(high, low, port): place for place, (high, low, port) in enumerate(table.tolist(), 1)}
    theirs = tools.Dissection(copy or capture, [int(port) for port in table[:, 2]]).packets()
    if not copy:
        theirs = _picked(theirs, iter(ranges))
    tally, number = Tally(), 0
    for native, number in _native(capture, brokers, ranges):
        packet = next(theirs, None)
        if packet is None:
            tally.add("row", DIFFERS, number, "a packet", "the end of the capture")
            break
        wireshark = from_wireshark(packet, places, number)
        tally.packets += 1
        tally.rows += native.skipped < 0 or wireshark.skipped < 0
        for field, outcome, one, other in compare(packet, native, wireshark):
            tally.add(field, outcome, number, one, other)
    if next(theirs, None) is not None:
        tally.add("row", DIFFERS, number + 1, "the end of the capture", "a packet")
    return tally


def _picked(packets: Iterator[Packet], ranges: Iterator[tuple[int, int]]) -> Iterator[Packet]:
    """The packets with numbers in these ranges, and all behind them."""
    first, last = next(ranges, (1, 0))
    for packet in packets:
        if packet.number > last:
            first, last = next(ranges, (last + 1, last + 1))
        if packet.number >= first:
            yield packet


class Tally:
    """Counts of agreements and differences by field."""

    def __init__(self) -> None:
        self.packets = 0
        self.rows = 0
        self.fields: dict[str, dict[str, Any]] = {name: {"agrees": 0, "differences": {}} for name in COMPARED}

    def add(self, field: str, outcome: str, number: int, native: str, wireshark: str) -> None:
        """Count one comparison."""
        if outcome == AGREES:
            self.fields[field]["agrees"] += 1
            return
        found = self.fields[field]["differences"].setdefault(outcome, {"count": 0, "examples": []})
        found["count"] += 1
        if len(found["examples"]) < EXAMPLES:
            found["examples"].append({"frame_number": number, "native": native, "wireshark": wireshark})


def _native(capture: str, brokers: Sequence[str], ranges: Sequence[tuple[int, int]]) -> Iterator[tuple[Decoded, int]]:
    """The native reader's results of the packets with these numbers, and the numbers."""
    reader = Native(brokers)
    waiting = list(reversed(ranges))
    for chunk in Capture(capture).chunks():
        end = chunk.frame_number + chunk.found
        while waiting and waiting[-1][0] < end:
            first, last = waiting.pop()
            for number in range(first, min(last + 1, end)):
                yield reader.decode(chunk, number - chunk.frame_number), number
            if last >= end:
                waiting.append((end, last))
