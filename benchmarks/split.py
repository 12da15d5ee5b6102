"""How fast `split_capture` is beside the other programs that read captures, and how much memory it takes: ratios measured in one run, on the same files.

    .venv/bin/python benchmarks/split.py [KIND ...] [--megabytes 500] [--keep FOLDER] [--others VENV/bin/python]

KIND is `example` (the shipped example's packets over and over: other clients, ports, sequence numbers, times and digits in the payload each time, several
copies interleaved, every connection from its SYN on), `example-mid-stream` (also connections that began before the example's captures), `headers` (the
example's headers alone) or `full-size` (frames of 1,514 bytes). Programs that are not installed are left out.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from captures import BROKER, KINDS, PORT, ROOT, begin_of

SCRIPTS = ROOT / "workflow" / "scripts"
PAIRS = 10
TRIES = 3
FEW = 100  # packets of the capture that shows what starting costs
TSHARK = (  # one row of header fields per packet, nothing dissected behind TCP
    "tshark -n -r {file} -o tcp.desegment_tcp_streams:FALSE -o tcp.analyze_sequence_numbers:FALSE -o tcp.relative_sequence_numbers:FALSE "
    "-o ip.defragment:FALSE -d tcp.port=={port},data -d udp.port==8472,vxlan -Y tcp.port=={port} -T fields -E occurrence=a "
    "-e frame.number -e frame.time_epoch -e frame.len -e frame.cap_len -e frame.protocols -e ip.src -e ip.dst -e ipv6.src -e ipv6.dst -e ip.ttl "
    "-e ipv6.hlim -e ip.id -e tcp.srcport -e tcp.dstport -e tcp.seq_raw -e tcp.ack_raw -e tcp.flags -e tcp.window_size_value -e tcp.len "
    "-e tcp.options.timestamp.tsval -e tcp.options.timestamp.tsecr"
)
SCAPY = """
import sys
from scapy.all import TCP, PcapReader
for packet in PcapReader(sys.argv[1]):
    if TCP in packet:
        packet[TCP].seq
"""
PYSHARK = """
import contextlib, sys, pyshark
from pyshark.capture.capture import TSharkCrashException
capture = pyshark.FileCapture(sys.argv[1], keep_packets=False)
for packet in capture:
    pass
with contextlib.suppress(TSharkCrashException):  # closing may kill a tshark that is about to end
    capture.close()
"""
SPLIT = """
import sys
from brokerlens import job
from split_capture import do_without_scipy, split_capture
do_without_scipy()
capture, folder, broker, threads = sys.argv[1:]
split_capture(capture=capture, name=capture, brokers=[broker], output=folder, threads=int(threads))
"""
NO_FRAMES = """
class Nothing:
    def follow(self, buffer, segments, kept):
        return len(segments.direction)
    def facts(self):
        return {}
"""
"""In place of what follows frames and keeps their bytes."""
IMPORTS = "import numpy, numba, pyarrow, pyarrow.parquet"


class Used(NamedTuple):
    """What a process took: CPU seconds, elapsed seconds, peak resident memory in MB (mapped pages included)."""

    cpu: float
    wall: float
    memory: float


class Reader(NamedTuple):
    """A program that reads captures; of one with ``most`` packets only the capture's first ones are given to it, because it takes too long."""

    name: str
    read: Callable[[Path], Used]
    most: int | None = None
    goal: float | None = None
    """How many times its packets per CPU second `split_capture` should have."""


def run(command: Sequence[str], **options: Any) -> Used:
    """Run a command to its end."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **options)
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{command[0]} ended with {process.returncode}: {said[-2000:].decode(errors='replace')}")
    return Used(usage.ru_utime + usage.ru_stime, time.perf_counter() - began, usage.ru_maxrss / 1024)


def split(capture: Path, folder: Path, broker: str, threads: int = 1, *, frames: bool = True) -> Used:
    """Run split_capture on one capture, as a job does: a process of its own; without ``frames`` no payload is looked at."""
    shutil.rmtree(folder, ignore_errors=True)  # as Snakemake does before a job
    code = SPLIT if frames else f"{NO_FRAMES}{SPLIT}".replace("output=folder", "output=folder, keeper=Nothing()")
    return run([sys.executable, "-c", code, str(capture), str(folder), broker, str(threads)], env=one_thread())


def one_thread() -> dict[str, str]:
    """The environment of a job of one thread: what more threads do is up to the script. Python keeps what it has compiled, as it does unless told otherwise."""
    return (
        os.environ
        | {"PYTHONPATH": str(SCRIPTS), "PYTHONDONTWRITEBYTECODE": ""}
        | dict.fromkeys(("POLARS_MAX_THREADS", "OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ARROW_NUM_THREADS"), "1")
    )


def others(folder: Path, python: str) -> Iterator[Reader]:
    """The programs that are installed; ``python`` is the interpreter that has scapy, pyshark and pcaptoparquet."""
    if shutil.which("tshark"):
        profile = folder / "profile"
        profile.mkdir()
        environment = os.environ | {"WIRESHARK_CONFIG_DIR": str(profile), "LC_ALL": "C"}
        words = TSHARK.format(file="FILE", port=PORT).split()
        yield Reader(
            "tshark -T fields", lambda file: run([str(file) if word == "FILE" else word for word in words], env=environment), 500_000, 40
        )
    if shutil.which("pcap-toolkit"):
        command = ["pcap-toolkit", "export", "-F", "parquet", "-o", str(folder / "toolkit.parquet")]
        yield Reader("pcap-toolkit export", lambda file: run([*command, str(file)]), goal=2)
    if can_import(python, "pcaptoparquet"):
        convert = [str(Path(python).with_name("pcaptoparquet")), "-o", str(folder / "pcaptoparquet.parquet"), "-i"]
        yield Reader("pcaptoparquet", lambda file: run([*convert, str(file)]), 50_000, goal=2)
    if can_import(python, "scapy"):
        yield Reader("scapy PcapReader", lambda file: run([python, "-c", SCAPY, str(file)]), 100_000, goal=200)
    if shutil.which("tshark") and can_import(python, "pyshark"):
        yield Reader("pyshark FileCapture", lambda file: run([python, "-c", PYSHARK, str(file)]), 3_000, goal=3_000)


def can_import(python: str, module: str) -> bool:
    """Whether the interpreter has this module."""
    return subprocess.run([python, "-c", f"import {module}"], capture_output=True, check=False).returncode == 0


def measure(capture: Path, packets: int, folder: Path, python: str) -> Iterator[str]:
    """Lines about one capture."""
    broker, working = f"{BROKER}:{PORT}", folder / "working"
    few = begin_of(capture, FEW, folder / "few.pcap")
    split(few, working, broker)  # compiles what is not in the cache
    with capture.open("rb") as file:  # puts it into the page cache
        while file.read(1 << 24):
            pass
    cats = [run(["cat", str(capture)]) for _ in range(PAIRS)]
    pairs = [[split(capture, working, broker, threads) for threads in (1, 2)] for _ in range(PAIRS)]
    ones, twos = zip(*pairs, strict=True)
    start = least(split(few, working, broker) for _ in range(PAIRS))
    alone = least(split(capture, working, broker, frames=False) for _ in range(TRIES))
    cat, one, two = least(cats), least(ones), least(twos)
    yield f"\n{capture.name}: {capture.stat().st_size / 1e6:,.0f} MB, {packets:,} packets; working files {sum(f.stat().st_size for f in working.iterdir()) / 1e6:,.0f} MB\n"
    yield "| | CPU s | elapsed s | packets per CPU s, without start-up | ns per packet | MB resident |\n|---|---|---|---|---|---|"

    def row(name: str, used: Used, idle: float, of: int = packets) -> str:
        cpu = max(used.cpu - idle, 1e-9)
        return f"| {name} | {used.cpu:.2f} | {used.wall:.2f} | {of / cpu:,.0f} | {cpu / of * 1e9:,.0f} | {used.memory:,.0f} |"

    yield row("cat", cat, 0)
    yield row("split_capture, one thread", one, start.cpu)
    yield row("split_capture, two threads", two, start.cpu)
    yield row("packets alone, frames not followed", alone, start.cpu)
    ours = (one.cpu - start.cpu) / packets
    goals = []
    for reader in others(folder, python):
        count = min(reader.most or packets, packets)
        file = capture if count == packets else begin_of(capture, count, folder / "first.pcap")
        idle, theirs = (least(reader.read(given) for _ in range(TRIES)) for given in (few, file))
        yield row(reader.name + ("" if count == packets else f" (the first {count:,})"), theirs, idle.cpu, count)
        goals.append(
            f"{reader.name}: {(theirs.cpu - idle.cpu) / (count - FEW) / ours:,.1f} × its packets per CPU second (goal {reader.goal:,})"
        )
    yield ""
    yield from goals
    yield f"cat: {(one.cpu - start.cpu) / cat.cpu:.1f} × its CPU time (goal on full-size frames: at most 8)"
    yield f"following frames / packets alone: {(one.cpu - alone.cpu) / (alone.cpu - start.cpu):.2f}"
    gains = [(a.wall - start.wall) / (b.wall - start.wall) for a, b in pairs]
    yield f"two threads, elapsed, median of {PAIRS} pairs: {statistics.median(gains):.2f} × one (goal 1.6), {min(gains):.2f} to {max(gains):.2f}"
    imports = least(run([sys.executable, "-c", IMPORTS], env=one_thread()) for _ in range(PAIRS))
    yield f"{FEW} packets: {start.cpu:.2f} CPU s, {start.wall:.2f} s; importing the libraries {imports.cpu:.2f} CPU s, {imports.wall:.2f} s (goal: 0.3 s over it)"


def least(runs: Iterable[Used]) -> Used:
    """The least disturbed of some runs, by each figure."""
    return Used(*(min(values) for values in zip(*runs, strict=True)))


def main() -> None:
    """Make the captures, run all programs, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", choices=[[], *KINDS], metavar="KIND", help="what the captures are made of (default: example)")
    parser.add_argument("--megabytes", type=int, default=500)
    parser.add_argument("--keep", type=Path, help="make and leave the captures in this folder; those that are there are used again")
    parser.add_argument("--others", default=sys.executable, help="Python interpreter that has scapy, pyshark and pcaptoparquet")
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for kind in options.kinds or ["example"]:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            where = options.keep or folder
            where.mkdir(parents=True, exist_ok=True)
            capture = where / f"{kind}-{options.megabytes}.pcap"
            counted = capture.with_suffix(".packets")
            if not counted.exists():
                # A process of its own: what this one has in memory would count for those that it starts.
                make = [sys.executable, str(Path(__file__).with_name("captures.py")), kind, str(options.megabytes), str(capture)]
                counted.write_text(subprocess.run(make, check=True, capture_output=True, text=True).stdout)
            for line in measure(capture, int(counted.read_text()), folder, options.others):
                print(line, flush=True)


if __name__ == "__main__":
    main()
