"""What the clients do: every codec and acks, transactions, a group that rebalances, long polls; a family of clients per process.

``python traffic.py FAMILY BROKER FOLDER JARS`` writes the clients' own logs of the protocol to ``FOLDER/FAMILY….log`` and prints, as JSON, how
many records its clients sent and got. Topics, groups and client ids begin with the family's name.
"""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from testbed import JVM, ended

if TYPE_CHECKING:
    from collections.abc import Iterator

PARTITIONS = {"data": 2, "group": 4, "transactions": 1, "large": 1}  # of the topics
RECORDS = 200  # of each producer
LARGE = 5  # records that fill a segment hundreds of times
COMMITTED, ABORTED = 50, 30  # records of the two transactions
# Codec and acks of the producers. A broker refuses what comes before a new topic's log is ready, and only tells who asked: acks 0 comes last.
EVERY_CODEC = [("zstd", "all"), ("snappy", "all"), ("gzip", "1"), ("lz4", "1"), ("none", "0")]
PRODUCERS = {
    "librdkafka": EVERY_CODEC,
    "kafka-python": [("none", "all"), ("gzip", "1"), ("none", "0")],  # other codecs want packages that nothing else here needs
    "java": EVERY_CODEC,
}

Told = dict[str, Counter[str]]


def values(count: int) -> list[bytes]:
    """Records of varied sizes, each of which compresses: clients leave what does not as it is."""
    chance = random.Random(count)
    return [f"{n:06} ".encode() * chance.randint(20, 60) for n in range(count)]


def keep_polling(until: Callable[[], bool], *polls: Callable[[], object]) -> None:
    """Poll until it has happened."""
    latest = time.monotonic() + 30
    while not until():
        if time.monotonic() > latest:
            raise TimeoutError("the clients did not get there within 30 s")
        for poll in polls:
            poll()


def librdkafka(broker: str, folder: Path, jars: Path) -> Told:
    from confluent_kafka import Consumer, Producer
    from confluent_kafka.admin import AdminClient
    from confluent_kafka.cimpl import NewTopic

    # Without a logger of Python's it writes its log to stderr as things happen, and to the end.
    log = os.open(folder / "librdkafka.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, sys.stderr.fileno())
    sent, got = Counter[str](), Counter[str]()

    def client(name: str, **options: Any) -> dict[str, Any]:
        given = {"bootstrap_servers": broker, "client_id": f"librdkafka-{name}", "debug": "protocol", **options}
        return {key.replace("_", "."): value for key, value in given.items()}

    def send(producer: Producer, name: str, topic: str, count: int) -> None:
        for n, value in enumerate(values(count)):
            producer.produce(f"librdkafka-{topic}", value, partition=n % PARTITIONS[topic])
        assert producer.flush(30) == 0
        sent[f"librdkafka-{name}"] += count

    def poll(consumer: Consumer, name: str, seconds: float = 0.1) -> None:
        message = consumer.poll(seconds)
        got[f"librdkafka-{name}"] += message is not None and not message.error()

    admin = AdminClient(client("admin"))
    for created in admin.create_topics([NewTopic(f"librdkafka-{topic}", count, 1) for topic, count in PARTITIONS.items()]).values():
        created.result(30)

    for codec, acks in PRODUCERS["librdkafka"]:
        send(Producer(client(f"{codec}-{acks}", compression_type=codec, acks=acks)), f"{codec}-{acks}", "data", RECORDS)

    producer = Producer(client("transactions", transactional_id="librdkafka"))
    producer.init_transactions(30)
    producer.begin_transaction()
    send(producer, "transactions", "transactions", COMMITTED)
    producer.commit_transaction(30)
    producer.begin_transaction()
    send(producer, "transactions", "transactions", ABORTED)
    producer.abort_transaction(30)

    reader = Consumer(client("reader", group_id="librdkafka-readers", auto_offset_reset="earliest"))
    reader.subscribe(["librdkafka-data"])
    keep_polling(lambda: got["librdkafka-reader"] == RECORDS * len(PRODUCERS["librdkafka"]), lambda: poll(reader, "reader"))
    poll(reader, "reader", 1.5)  # nothing more comes: polls that wait in vain
    producer.begin_transaction()
    producer.send_offsets_to_transaction(reader.position(reader.assignment()), reader.consumer_group_metadata(), 30)
    producer.commit_transaction(30)
    reader.close()

    # A group of the new protocol.
    options = {"group_id": "librdkafka-committed", "group_protocol": "consumer", "isolation_level": "read_committed"}
    committed = Consumer(client("committed", auto_offset_reset="earliest", **options))
    committed.subscribe(["librdkafka-transactions"])
    keep_polling(lambda: got["librdkafka-committed"] == COMMITTED, lambda: poll(committed, "committed"))
    committed.close()

    large = Producer(client("large", message_max_bytes=2_000_000))
    for _ in range(LARGE):
        large.produce("librdkafka-large", random.Random(0).randbytes(800_000))
        assert large.flush(30) == 0
    sent["librdkafka-large"] += LARGE
    whole = Consumer(client("whole", group_id="librdkafka-whole", auto_offset_reset="earliest"))
    whole.subscribe(["librdkafka-large"])
    keep_polling(lambda: got["librdkafka-whole"] == LARGE, lambda: poll(whole, "whole"))
    whole.close()

    def member(name: str) -> Consumer:
        joined = Consumer(client(name, group_id="librdkafka-group", session_timeout_ms=6000, heartbeat_interval_ms=200))
        joined.subscribe(["librdkafka-group"])
        return joined

    first = member("member1")
    polls = [lambda: poll(first, "member1")]
    keep_polling(lambda: len(first.assignment()) == 4, *polls)
    second = member("member2")
    polls.append(lambda: poll(second, "member2"))
    keep_polling(lambda: len(first.assignment()) == len(second.assignment()) == 2, *polls)
    second.close()
    keep_polling(lambda: len(first.assignment()) == 4, polls[0])
    first.close()
    return {"sent": sent, "got": got}


class ProtocolLog(logging.FileHandler):
    """kafka-python's log of requests and responses as JSON, from the arguments of its log calls."""

    def format(self, record: logging.LogRecord) -> str:
        told: tuple[Any, ...] = record.args  # type: ignore[assignment]
        connection, correlation_id, *more = told
        about = {"time": record.created, "connection": id(connection), "correlation_id": correlation_id}
        if "Request" in record.msg:
            (request,) = more
            about |= {
                "client_id": connection.config["client_id"],
                "api": request.name.removesuffix("Request"),
                "version": request.API_VERSION,
            }
            about |= {"request_bytes": len(request.encode(framed=True, header=True))}
        else:
            about |= {"rtt_ms": more[0]}
        return json.dumps(about)


def kafka_python(broker: str, folder: Path, jars: Path) -> Told:
    from kafka import KafkaConsumer, KafkaProducer
    from kafka.admin import KafkaAdminClient

    log = logging.getLogger("kafka.net.connection")
    log.setLevel(logging.DEBUG)
    handler = ProtocolLog(folder / "kafka-python.log")
    handler.addFilter(lambda record: "Request %d" in record.msg or "Response %d" in record.msg)
    log.addHandler(handler)
    sent, got = Counter[str](), Counter[str]()

    def client(name: str, **options: Any) -> dict[str, Any]:
        return {"bootstrap_servers": broker, "client_id": f"kafka-python-{name}", **options}

    def send(producer: KafkaProducer, name: str, topic: str, count: int) -> None:
        for n, value in enumerate(values(count)):
            producer.send(f"kafka-python-{topic}", value, partition=n % PARTITIONS[topic])
        producer.flush(30)
        sent[f"kafka-python-{name}"] += count

    def poll(consumer: KafkaConsumer, name: str, milliseconds: int = 100) -> None:
        got[f"kafka-python-{name}"] += sum(map(len, consumer.poll(timeout_ms=milliseconds).values()))

    admin = KafkaAdminClient(**client("admin"))
    admin.create_topics({f"kafka-python-{topic}": {"num_partitions": count} for topic, count in PARTITIONS.items()}, wait_for_metadata=True)
    admin.close()

    for codec, acks in PRODUCERS["kafka-python"]:
        asked: dict[str, Any] = {"acks": acks if acks == "all" else int(acks), "compression_type": None if codec == "none" else codec}
        producer = KafkaProducer(**client(f"{codec}-{acks}", enable_idempotence=False, **asked))
        send(producer, f"{codec}-{acks}", "data", RECORDS)
        producer.close()

    producer = KafkaProducer(**client("transactions", transactional_id="kafka-python"))
    producer.init_transactions()
    producer.begin_transaction()
    send(producer, "transactions", "transactions", COMMITTED)
    producer.commit_transaction()
    producer.begin_transaction()
    send(producer, "transactions", "transactions", ABORTED)
    producer.abort_transaction()
    producer.close()

    # One that leads a group and does not know the topic's partitions yet may assign nothing, and leave it at that.
    reader = KafkaConsumer(**client("reader", group_id="kafka-python-readers", auto_offset_reset="earliest"))
    assert reader.partitions_for_topic("kafka-python-data")
    reader.subscribe(["kafka-python-data"])
    keep_polling(lambda: got["kafka-python-reader"] == RECORDS * len(PRODUCERS["kafka-python"]), lambda: poll(reader, "reader"))
    poll(reader, "reader", 1500)
    reader.close()
    return {"sent": sent, "got": got}


def java(broker: str, folder: Path, jars: Path) -> Told:
    """By Kafka's own command-line tools, which need no compiler."""
    sent, got = Counter[str](), Counter[str]()

    def tool(name: str, program: str, *arguments: str) -> list[str]:
        log = {"showDateTime": "true", "dateTimeFormat": "yyyy-MM-dd'T'HH:mm:ss.SSSZ", "logFile": str(folder / f"java-{name}.log")}
        log |= {"log.org.apache.kafka.clients.NetworkClient": "debug"}
        options = [f"-Dorg.slf4j.simpleLogger.{key}={value}" for key, value in log.items()]
        return [*JVM, *options, "-cp", f"{jars}/*", f"org.apache.kafka.tools.{program}", *arguments]

    def properties(name: str, **options: object) -> str:
        path = folder / f"java-{name}.properties"
        given = {"bootstrap_servers": broker, "client_id": f"java-{name}", **options}
        path.write_text("".join(f"{key.replace('_', '.')}={value}\n" for key, value in given.items()))
        return str(path)

    def send(name: str, topic: str, *more: str, rate: int = -1, **options: object) -> None:
        what = ["--topic", f"java-{topic}", "--num-records", str(RECORDS), "--record-size", "300", "--throughput", str(rate)]
        how = ["--producer.config", properties(name, **options)]
        subprocess.run(tool(name, "ProducerPerformance", *what, *how, *more), stdout=subprocess.DEVNULL, timeout=60, check=True)
        sent[f"java-{name}"] += RECORDS

    for codec, acks in PRODUCERS["java"]:
        send(f"{codec}-{acks}", "data", compression_type=codec, acks=acks, enable_idempotence=str(acks == "all").lower())
    send("transactions", "transactions", "--transactional-id", "java", "--transaction-duration-ms", "200", rate=400)

    reading = [
        "--bootstrap-server",
        broker,
        "--topic",
        "java-data",
        "--group",
        "java-readers",
        "--messages",
        str(RECORDS * len(PRODUCERS["java"])),
    ]
    reader = tool("reader", "ConsumerPerformance", *reading, "--hide-header", "--consumer.config", properties("reader"))
    printed = subprocess.run(reader, stdout=subprocess.PIPE, text=True, timeout=60, check=True).stdout
    got["java-reader"] += int(printed.split(",")[4])

    def assigned(name: str) -> int:
        """How many partitions a member of the group has, by the events that it prints."""
        events = map(json.loads, (folder / f"java-{name}.events").read_text().splitlines())
        return next((len(event["partitions"]) for event in reversed([*events]) if event["name"] == "partitions_assigned"), 0)

    @contextmanager
    def member(name: str) -> Iterator[None]:
        arguments = ["--bootstrap-server", broker, "--topic", "java-group", "--group-id", "java-group", "--session-timeout", "6000"]
        command = tool(name, "VerifiableConsumer", *arguments, "--consumer.config", properties(name, heartbeat_interval_ms=200))
        with (folder / f"java-{name}.events").open("w") as events, ended(subprocess.Popen(command, stdout=events), signal.SIGTERM):
            yield

    def wait() -> None:
        time.sleep(0.05)

    with member("member1"):
        keep_polling(lambda: assigned("member1") == 2, wait)
        with member("member2"):
            keep_polling(lambda: assigned("member1") == assigned("member2") == 1, wait)
        keep_polling(lambda: assigned("member1") == 2, wait)
    return {"sent": sent, "got": got}


FAMILIES = {"librdkafka": librdkafka, "kafka-python": kafka_python, "java": java}

if __name__ == "__main__":
    family, broker, *folders = sys.argv[1:]
    print(json.dumps(FAMILIES[family](broker, *map(Path, folders))))
