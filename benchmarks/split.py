"""How fast `split_capture` is beside tshark, and how much memory it takes: ratios measured in one run, on one file.

    .venv/bin/python benchmarks/split.py [--megabytes 500] [--mid-stream] [--keep FOLDER]

The file is made of the shipped example's packets, over and over: other clients, ports, sequence numbers, times and digits in the payload each time, several
copies interleaved, every connection from its SYN on (with --mid-stream also those that began before the example's captures).
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ROOT / "workflow" / "scripts"
BROKER, PORT = "192.0.2.10", 31289
SITES = {"edge": (BROKER, PORT), "cloud": ("198.51.100.10", 32289)}
INTERLEAVED = 8
TSHARK = (  # section 1 of the project's notes on Wireshark: one row of header fields per packet, nothing dissected behind TCP
    "tshark -n -r {file} -o tcp.desegment_tcp_streams:FALSE -o tcp.analyze_sequence_numbers:FALSE -o tcp.relative_sequence_numbers:FALSE "
    "-o ip.defragment:FALSE -d tcp.port=={port},data -d udp.port==8472,vxlan -Y tcp.port=={port} -T fields -E occurrence=a "
    "-e frame.number -e frame.time_epoch -e frame.len -e frame.cap_len -e frame.protocols -e ip.src -e ip.dst -e ipv6.src -e ipv6.dst -e ip.ttl "
    "-e ipv6.hlim -e ip.id -e tcp.srcport -e tcp.dstport -e tcp.seq_raw -e tcp.ack_raw -e tcp.flags -e tcp.window_size_value -e tcp.len "
    "-e tcp.options.timestamp.tsval -e tcp.options.timestamp.tsecr"
)

Bytes = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.int64]


class Template(NamedTuple):
    """Packets of one site, one behind another with their record headers, and where to change them.

    ``start`` i64[n + 1] are borders in ``data``; ``time`` ns; ``connection`` numbers the address pairs; ``from_broker`` tells the direction; ``digits``
    are places in ``data``. Ethernet, IPv4 without options and TCP, as in the example.
    """

    data: Bytes
    start: Numbers
    time: Numbers
    connection: Numbers
    from_broker: npt.NDArray[np.bool_]
    digits: Numbers


def big_endian(data: Bytes, at: Numbers, size: int) -> Numbers:
    """The numbers at these places."""
    return sum((data[at + i].astype(np.int64) << 8 * (size - 1 - i) for i in range(size)), np.zeros(len(at), np.int64))


def put(data: Bytes, at: Numbers, values: Numbers, size: int, little: bool = False) -> None:
    """Write numbers at these places."""
    for i in range(size):
        data[at + i] = values >> 8 * (i if little else size - 1 - i) & 255


def read_site(folder: Path, broker: tuple[str, int], mid_stream: bool) -> Template:
    """The TCP packets of a site's captures."""
    pieces, starts, times = [], [0], []
    for path in sorted(folder.iterdir()):
        raw = path.read_bytes()
        at = 24
        while at < len(raw):
            seconds, part, captured, _ = np.frombuffer(raw, "<u4", 4, at).tolist()
            if raw[at + 28 : at + 30] == b"\x08\x00" and raw[at + 30] == 0x45 and raw[at + 39] == 6:
                pieces.append(raw[at : at + 16 + captured])
                starts.append(starts[-1] + 16 + captured)
                times.append(seconds * 10**9 + part * 1000)
            at += 16 + captured
    data, start = np.frombuffer(b"".join(pieces), np.uint8).copy(), np.array(starts)
    first = start[:-1]
    address, port = int.from_bytes(bytes(map(int, broker[0].split(".")))), broker[1]
    ports = big_endian(data, first + 50, 2), big_endian(data, first + 52, 2)
    sent = (big_endian(data, first + 42, 4) == address) & (ports[0] == port)
    server_port = np.where(sent, ports[0], ports[1])
    key = np.where(sent, ports[1], ports[0]) << 16 | server_port
    other = (ports[0] == 8080) | (ports[1] == 8080)  # the example's other traffic stays as it is
    names, connection = np.unique(key, return_inverse=True)
    began = np.zeros(len(names), bool)
    began[connection[data[first + 63] & 2 != 0]] = True
    keep = np.flatnonzero(began[connection] | mid_stream | other)
    is_mine = sent | (ports[1] == port)
    ends = np.where(sent[keep], first[keep] + 42, first[keep] + 46)[is_mine[keep]]
    put(data, ends, np.full(len(ends), int.from_bytes(bytes(map(int, BROKER.split("."))))), 4)
    ends = np.where(sent[keep], first[keep] + 50, first[keep] + 52)[is_mine[keep]]
    put(data, ends, np.full(len(ends), PORT), 2)
    lengths = (start[1:] - first)[keep]
    index = pieces_index(first[keep], lengths)
    data = data[index]
    start = np.concatenate([[0], np.cumsum(lengths)])
    packet = np.repeat(np.arange(len(keep)), lengths)
    inside = np.arange(len(data)) - start[packet]
    header = 50 + (data[start[:-1] + 62].astype(np.int64) >> 4) * 4
    digit = (data >= 48) & (data <= 57) & (inside >= header[packet])
    digit &= np.roll(digit, 1) & np.roll(digit, -1)  # single ones may be lengths
    return Template(data, start, np.array(times)[keep], connection[keep], sent[keep], np.flatnonzero(digit))


def pieces_index(first: Numbers, lengths: Numbers) -> Numbers:
    """Places of all bytes of pieces that begin at ``first``."""
    borders = np.cumsum(lengths) - lengths
    return np.repeat(first - borders, lengths) + np.arange(int(lengths.sum()))


def vary(template: Template, copy: int, begin: int, random: np.random.Generator) -> tuple[Bytes, Numbers]:
    """A copy of the template with clients, ports, sequence numbers, times and digits of its own; returns it and the packets' times."""
    data, first = template.data.copy(), template.start[:-1]
    times = template.time - template.time[0] + begin
    put(data, first, times // 10**9, 4, little=True)
    put(data, first + 4, times % 10**9 // 1000, 4, little=True)
    back = template.from_broker
    put(data, np.where(back, first + 46, first + 42), np.full(len(first), 10 << 24 | 1 + copy), 4)
    shift = random.integers(0, 1 << 32, (2, int(template.connection.max()) + 1))
    mine, other = shift[back.astype(np.int64), template.connection], shift[1 - back.astype(np.int64), template.connection]
    put(data, first + 54, big_endian(data, first + 54, 4) + mine, 4)
    put(data, first + 58, big_endian(data, first + 58, 4) + other, 4)
    put(data, first + 34, random.integers(0, 1 << 16, len(first)), 2)
    data[template.digits] = random.integers(48, 58, len(template.digits), dtype=np.uint8)
    return data, times


def make_capture(path: Path, megabytes: int, mid_stream: bool) -> int:
    """Write a capture of at least that size; returns its number of packets."""
    random = np.random.default_rng(1)
    example = ROOT / "resources" / "example"
    templates = [
        read_site(example / run / site, SITES[site], mid_stream) for run in ("experiment07", "experiment08") for site in ("edge", "cloud")
    ]
    copy = packets = 0
    begin = 1_766_600_000 * 10**9
    with path.open("wb") as file:
        file.write(bytes.fromhex("d4c3b2a1020004000000000000000000") + (262_144).to_bytes(4, "little") + (1).to_bytes(4, "little"))
        while file.tell() < megabytes * 10**6:
            datas, times, lengths = [], [], []
            for _ in range(INTERLEAVED):
                template = templates[copy % len(templates)]
                data, when = vary(template, copy, begin + int(random.integers(0, 10**9)), random)
                datas.append(data)
                times.append(when)
                lengths.append(np.diff(template.start))
                copy += 1
            joined, length = np.concatenate(datas), np.concatenate(lengths)
            order = np.argsort(np.concatenate(times), kind="stable")
            file.write(joined[pieces_index((np.cumsum(length) - length)[order], length[order])].tobytes())
            packets += len(length)
            begin += 300 * 10**9
    return packets


class Used(NamedTuple):
    """What a process took: CPU seconds, elapsed seconds, peak resident memory in MB (mapped pages included)."""

    cpu: float
    wall: float
    memory: float


def run(command: Sequence[str], **options: Any) -> Used:
    """Run a command to its end."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, **options)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{command[0]} ended with {process.returncode}")
    return Used(usage.ru_utime + usage.ru_stime, time.perf_counter() - began, usage.ru_maxrss / 1024)


SPLIT = """
import sys
from brokerlens import job
from split_capture import do_without_scipy, split_capture
do_without_scipy()
capture, folder, broker = sys.argv[1:]
split_capture(capture=capture, name=capture, brokers=[broker], output=folder)
"""
NO_FRAMES = """
class Nothing:
    def follow(self, buffer, segments, first, kept):
        return len(segments.row)
    def facts(self):
        return {}
"""
"""In place of what follows frames and keeps their bytes."""


def split(capture: Path, folder: Path, broker: str, frames: bool = True) -> Used:
    """Run split_capture on one capture, as a job does: a process of its own; without ``frames`` no payload is looked at."""
    code = (
        SPLIT
        if frames
        else SPLIT.replace("capture, folder", f"{NO_FRAMES}\ncapture, folder", 1).replace(
            "output=folder", "output=folder, keeper=Nothing()"
        )
    )
    environment = (
        os.environ | {"PYTHONPATH": str(SCRIPTS)} | dict.fromkeys(("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    )
    return run([sys.executable, "-c", code, str(capture), str(folder), broker], env=environment)


def measure(capture: Path, packets: int, folder: Path, broker: str) -> Iterator[str]:
    """Lines of the table for one capture."""
    tiny = folder / "tiny.pcap"
    with capture.open("rb") as file:
        tiny.write_bytes(file.read(24))
    split(tiny, folder / "working", broker)  # compiles what is not in the cache
    start = split(tiny, folder / "working", broker)
    cat = run(["cat", str(capture)])
    alone, ours = (
        min((split(capture, folder / "working", broker, frames) for _ in range(2)), key=lambda used: used.cpu) for frames in (False, True)
    )
    megabytes = capture.stat().st_size / 1e6
    yield f"{capture.name}: {megabytes:,.0f} MB, {packets:,} packets; working files {sum(f.stat().st_size for f in (folder / 'working').iterdir()) / 1e6:,.0f} MB"
    rows = [
        ("cat", cat, 0.0),
        ("split_capture", ours, 0.0),
        ("split_capture without start-up", ours, start.cpu),
        ("the same, packets alone", alone, start.cpu),
    ]
    if shutil.which("tshark"):
        with tempfile.TemporaryDirectory() as empty:
            environment = os.environ | {"WIRESHARK_CONFIG_DIR": empty, "LC_ALL": "C"}
            command = TSHARK.format(file="FILE", port=broker.rpartition(":")[2]).split()
            idle = run([str(tiny) if word == "FILE" else word for word in command], env=environment)
            theirs = run([str(capture) if word == "FILE" else word for word in command], env=environment)
        rows += [("tshark -T fields", theirs, 0.0), ("tshark -T fields without start-up", theirs, idle.cpu)]
    yield "| | CPU s | elapsed s | packets per CPU s | ns per packet | MB resident |\n|---|---|---|---|---|---|"
    for name, used, idle_cpu in rows:
        cpu = max(used.cpu - idle_cpu, 1e-9)
        yield f"| {name} | {cpu:.2f} | {used.wall:.2f} | {packets / cpu:,.0f} | {cpu / packets * 1e9:,.0f} | {used.memory:,.0f} |"
    if shutil.which("tshark"):
        ratio, bare = theirs.cpu / ours.cpu, (theirs.cpu - idle.cpu) / (ours.cpu - start.cpu)
        yield f"packets per CPU second, split_capture / tshark: {ratio:.1f} (goal 25); without start-up on both sides {bare:.1f}"
    yield f"following frames / reading packets alone, without start-up: {(ours.cpu - alone.cpu) / (alone.cpu - start.cpu):.2f} (goal: at most 1)"
    yield f"start-up of split_capture: {start.cpu:.2f} CPU s, {start.wall:.2f} s; CPU against cat, without start-up: {(ours.cpu - start.cpu) / cat.cpu:.1f}"


def main() -> None:
    """Make the capture, run both, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=500)
    parser.add_argument("--mid-stream", action="store_true", help="keep connections whose beginning the example did not capture")
    parser.add_argument("--keep", type=Path, help="make and leave the capture in this folder; one that is there is used again")
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        where = options.keep or folder
        where.mkdir(parents=True, exist_ok=True)
        capture = where / f"example{'-mid-stream' if options.mid_stream else ''}-{options.megabytes}.pcap"
        counted = capture.with_suffix(".packets")
        if not counted.exists():
            counted.write_text(str(make_capture(capture, options.megabytes, options.mid_stream)))
        for line in measure(capture, int(counted.read_text()), folder, f"{BROKER}:{PORT}"):
            print(line, flush=True)


if __name__ == "__main__":
    main()
