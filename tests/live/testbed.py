"""A Kafka broker of this machine's own, a network for it and its clients, and tcpdump at both ends."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import os
import re
import secrets
import select
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
POM = HERE / "pom.xml"
CACHE = HERE.parents[1] / ".live"
PACKAGES = {"java": "default-jre-headless", "mvn": "maven", "tcpdump": "tcpdump", "ip": "iproute2", "ethtool": "ethtool"}
JAVA = 17  # the oldest that Kafka 4 runs on
TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000  # linux/if_tun.h

# Short-lived programs on few cores: what a JVM's second compiler would win, it costs.
JVM = ("java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx256m", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")
SETTINGS = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{network.controller_port}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://{network.broker},CONTROLLER://127.0.0.1:{network.controller_port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={folder}/data
num.partitions=2
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
"""


class NotPossibleError(Exception):
    """This machine cannot run the live test; the message says what it lacks."""


def check_machine() -> None:
    """Raise `NotPossibleError` where a program or a right is missing."""
    if os.geteuid() != 0:
        raise NotPossibleError("root is needed, to make network namespaces and to capture in them: run it with sudo")
    missing = [program for program in PACKAGES if shutil.which(program) is None]
    if missing:
        raise NotPossibleError(f"no {', '.join(missing)} on this machine: apt-get install {' '.join(PACKAGES[name] for name in missing)}")
    said = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False).stderr
    version = re.search(r'version "(\d+)', said)
    if version is None or int(version[1]) < JAVA:
        raise NotPossibleError(f"Java {JAVA} or newer is needed: apt-get install {PACKAGES['java']} (java -version says {said.strip()!r})")


def kafka_version() -> str:
    """The broker's and the Java clients' version."""
    named = re.search(r"<artifactId>kafka-tools</artifactId>\s*<version>(.+?)</version>", POM.read_text())
    assert named
    return named[1]


def fetch_jars() -> Path:
    """The folder of Kafka's jars, which Maven fills once for each state of pom.xml."""
    jars = CACHE / f"jars-{hashlib.sha256(POM.read_bytes()).hexdigest()[:12]}"
    if not jars.is_dir():
        CACHE.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            fetched = Path(folder) / "jars"
            command = [
                "mvn",
                "-q",
                "-B",
                "--strict-checksums",
                "-f",
                str(POM),
                "dependency:copy-dependencies",
                f"-DoutputDirectory={fetched}",
            ]
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
            except subprocess.TimeoutExpired:
                raise NotPossibleError("Maven did not get Kafka's jars within 10 minutes") from None
            if done.returncode != 0:
                raise NotPossibleError(f"Maven could not get Kafka's jars: {done.stdout[-1500:]}{done.stderr[-500:]}")
            if not jars.is_dir():  # another run may have been quicker
                fetched.rename(jars)
    return jars


@dataclass(frozen=True)
class Tap:
    """Where a capture is taken."""

    inside: tuple[str, ...]
    interface: str


@dataclass(frozen=True)
class Network:
    """Addresses, and what stands before a command that is to run at the broker or at the clients."""

    broker_ip: str
    port: int
    controller_port: int
    at_broker: tuple[str, ...]
    at_clients: tuple[str, ...]
    taps: dict[str, Tap]

    @property
    def broker(self) -> str:
        return f"{self.broker_ip}:{self.port}"


@contextmanager
def network(round_trip: float = 0.0) -> Iterator[Network]:
    """Two network namespaces with a cable between them, or the loopback interface where namespaces are forbidden.

    ``round_trip``: seconds that the cable takes, there and back.
    """
    token = secrets.token_hex(3)
    ends = {"client": ("192.0.2.5/24", f"blc{token}", f"blv{token}c"), "broker": ("192.0.2.10/24", f"blb{token}", f"blv{token}b")}
    spaces = {name: space for name, (_, space, _) in ends.items()}
    cables = ExitStack()
    try:
        try:
            for space in spaces.values():
                _run("ip", "netns", "add", space)
        except subprocess.CalledProcessError as error:
            if round_trip:
                raise NotPossibleError(f"a delay needs network namespaces, and they are forbidden here: {error.stderr.strip()}") from error
            print(f"no network namespaces here, so loopback: {error.stderr.strip()}")
            yield Network("127.0.0.1", _free_port(), _free_port(), (), (), {"client": Tap((), "lo")})
            return
        if round_trip:
            cables.enter_context(slow_cable([(space, device) for _, space, device in ends.values()], round_trip / 2))
        else:
            client, broker = ((device, "netns", space) for _, space, device in ends.values())
            _run("ip", "link", "add", *client, "type", "veth", "peer", "name", *broker)
        for address, space, device in ends.values():
            _run("ip", "-n", space, "address", "add", address, "dev", device)
            # With offloading, frames are up to 64 kB and their checksums wrong.
            features = [word for feature in ("tso", "gso", "gro", "tx", "rx", "sg") for word in (feature, "off")]
            _run("ip", "netns", "exec", space, "ethtool", "-K", device, *features)
            for link in ("lo", device):
                _run("ip", "-n", space, "link", "set", link, "up")
        inside = {name: ("ip", "netns", "exec", space) for name, space in spaces.items()}
        taps = {name: Tap(inside[name], device) for name, (_, _, device) in ends.items()}
        yield Network("192.0.2.10", 9092, 29093, inside["broker"], inside["client"], taps)
    finally:
        cables.close()
        for space in spaces.values():
            subprocess.run(["ip", "netns", "del", space], capture_output=True, check=False)


@contextmanager
def slow_cable(ends: Sequence[tuple[str, str]], seconds: float) -> Iterator[None]:
    """Ethernet between two namespaces, each with the name of its device there, that takes ``seconds`` each way: every frame through this process, as not all kernels have netem."""
    devices = []
    for space, name in ends:
        device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        devices.append(device)
        fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
        _run("ip", "link", "set", name, "netns", space)
    ended = threading.Event()
    carrying = threading.Thread(target=carry, args=(devices, seconds, ended))
    carrying.start()
    try:
        yield
    finally:
        ended.set()
        carrying.join()
        for device in devices:
            os.close(device)


def carry(devices: Sequence[int], seconds: float, ended: threading.Event) -> None:
    """Hand every frame that comes out of one of two devices to the other, ``seconds`` later, in their order."""
    to = dict(zip(devices, reversed(devices), strict=True))
    waiting: deque[tuple[float, int, bytes]] = deque()
    while not ended.is_set():
        patience = max(0.0, waiting[0][0] - time.monotonic()) if waiting else 0.2
        for device in select.select(devices, [], [], patience)[0]:
            with suppress(BlockingIOError):
                waiting.append((time.monotonic() + seconds, to[device], os.read(device, 65_536)))
        while waiting and waiting[0][0] <= time.monotonic():
            _, device, frame = waiting.popleft()
            with suppress(OSError):  # a device that is not up yet, or any more, loses what it is given, as a cable does
                os.write(device, frame)


def _run(*command: str) -> None:
    subprocess.run(command, capture_output=True, text=True, check=True)


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextmanager
def broker(network: Network, jars: Path, folder: Path) -> Iterator[None]:
    """A freshly formatted broker that answers, until the block ends."""
    settings = folder / "server.properties"
    settings.write_text(SETTINGS.format(network=network, folder=folder))
    java = [*network.at_broker, *JVM, "-cp", f"{jars}/*"]
    cluster = base64.urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("=")  # two recordings are two clusters
    _run(*java, "kafka.tools.StorageTool", "format", f"--cluster-id={cluster}", "-c", str(settings))
    log = folder / "broker.log"
    with running(
        [*java, "-Dorg.slf4j.simpleLogger.log.kafka.server.KafkaRaftServer=info", "kafka.Kafka", str(settings)],
        log,
        ready="Kafka Server started",
        end=signal.SIGTERM,
    ):
        yield


@contextmanager
def captured(tap: Tap, port: int, capture: Path, *, rotate: int | None = None, log: Path | None = None) -> Iterator[None]:
    """tcpdump of everything from or to a port, until the block ends. ``rotate``: seconds until the next file; ``capture`` is then a pattern of strftime."""
    # Without immediate mode the last second would be lost at the end; without -Z root it would write as a user who may not.
    options = [
        "--immediate-mode",
        "-U",
        "-Z",
        "root",
        "-B",
        "65536",
        "-n",
        "-i",
        tap.interface,
        *(() if rotate is None else ("-G", str(rotate))),
        "-w",
        str(capture),
        "tcp",
        "port",
        str(port),
    ]
    with running([*tap.inside, "tcpdump", *options], log or capture.with_suffix(".tcpdump.log"), ready="listening on", end=signal.SIGINT):
        yield


@contextmanager
def running(command: Sequence[str], log: Path, *, ready: str, end: signal.Signals) -> Iterator[None]:
    """A program that has said ``ready`` in its log, ended with the block whatever happens in it."""
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream)
    with ended(process, end):
        latest = time.monotonic() + 120
        while ready not in log.read_text():
            if process.poll() is not None or time.monotonic() > latest:
                raise RuntimeError(f"{' '.join(command)} did not say {ready!r} but: {log.read_text()[-3000:]}")
            time.sleep(0.05)
        yield


@contextmanager
def ended(process: subprocess.Popen[Any], end: signal.Signals) -> Iterator[None]:
    """A process that is ended with the block, whatever happens in it."""
    try:
        yield
    finally:
        process.send_signal(end)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
