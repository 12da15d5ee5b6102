"""Captures to try the workflow on: a broker, a producer and a consumer for half a minute, tcpdump beside the clients, over a cable as slow as you like.

``python demo.py FOLDER --delay 40ms --seconds 30`` (`make live-captures`) leaves a folder of rotated captures and nothing else.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from testbed import NotPossibleError, broker, captured, check_machine, fetch_jars, network

FILE_SECONDS = 5
RATE = 25  # records a second, each a request of its own
TOPIC = "measurements"


def milliseconds(text: str) -> float:
    """`40ms`, `40` or `0.04s`, in milliseconds."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) *(ms|s)?", text.strip())
    if match is None or (delay := float(match[1]) * (1000 if match[2] == "s" else 1)) > 10_000:
        raise argparse.ArgumentTypeError(f"{text!r} is no delay: write milliseconds such as 40ms, at most 10s")
    return delay


def record(folder: Path, delay: float, seconds: int) -> str:
    """Make the folder with its captures; the broker's address in them."""
    check_machine()
    jars = fetch_jars()
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["TZ"] = "UTC"  # for tcpdump's file names
    with tempfile.TemporaryDirectory() as temporary, network(delay / 1000) as wires:
        aside = Path(temporary)
        pattern = folder / f"{folder.name}_%Y%m%dT%H%M%SZ.pcap"
        with (
            broker(wires, jars, aside),
            captured(wires.taps["client"], wires.port, pattern, rotate=FILE_SECONDS, log=aside / "tcpdump.log"),
        ):
            command = [*wires.at_clients, sys.executable, __file__, "--clients-of", wires.broker, "--seconds", str(seconds)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 120, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"the clients ended with {done.returncode}: {done.stderr[-3000:]}")
        if not re.search(r"^0 packets dropped by kernel", log := (aside / "tcpdump.log").read_text(), re.MULTILINE):
            print(f"tcpdump says: {log.strip()}", file=sys.stderr)
        return wires.broker


def run_clients(address: str, seconds: int) -> None:
    """A producer that sends at a steady rate, and a consumer that gets it all."""
    from confluent_kafka import Consumer, Producer
    from confluent_kafka.admin import AdminClient
    from confluent_kafka.cimpl import NewTopic

    admin = AdminClient({"bootstrap.servers": address, "client.id": "demo-admin"})
    for created in admin.create_topics([NewTopic(TOPIC, 2, 1)]).values():
        created.result(30)
    producer = Producer({"bootstrap.servers": address, "client.id": "demo-producer", "acks": "all", "linger.ms": 0})
    reading = {"group.id": "demo", "auto.offset.reset": "earliest"}
    consumer = Consumer({"bootstrap.servers": address, "client.id": "demo-consumer", **reading})
    consumer.subscribe([TOPIC])
    sent = got = 0
    begun = time.monotonic()
    while (now := time.monotonic()) < begun + seconds or got < sent:
        if now > begun + seconds + 60:
            raise TimeoutError(f"the consumer got {got} of {sent} records")
        if now < begun + seconds and now >= begun + sent / RATE:
            producer.produce(TOPIC, f"{sent:06} ".encode() * 20)
            sent += 1
        producer.poll(0)
        message = consumer.poll(0.005)
        got += message is not None and not message.error()
    producer.flush(30)
    consumer.close()


def main() -> None:
    """Make the captures, or, inside of the network, be the clients."""
    asked = argparse.ArgumentParser(prog="make live-captures", description=__doc__)
    asked.add_argument("folder", type=Path, nargs="?")
    asked.add_argument("--delay", type=milliseconds, default=0.0)
    asked.add_argument("--seconds", type=int, default=30)
    asked.add_argument("--clients-of", help=argparse.SUPPRESS)
    wanted = asked.parse_args()
    if wanted.clients_of:
        run_clients(wanted.clients_of, wanted.seconds)
        return
    folder = wanted.folder.absolute()
    if folder.exists() and any(folder.iterdir()):
        sys.exit(f"{folder} holds something already: name another folder (NAME, OUT)")
    try:
        address = record(folder, wanted.delay, wanted.seconds)
    except NotPossibleError as reason:
        sys.exit(f"this machine cannot record live traffic: {reason}")
    files = sorted(folder.iterdir())
    size = sum(file.stat().st_size for file in files)
    print(f"{wanted.folder}: {len(files)} captures, {size:,} bytes, taken beside the clients; the broker is {address}")


if __name__ == "__main__":
    main()
