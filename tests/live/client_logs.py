"""The clients' own logs of the protocol: each request, and whether and how it was answered."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

LIBRDKAFKA = re.compile(
    r"%7\|(?P<time>[\d.]+)\|(?:SEND|RECV)\|(?P<client_id>[^#|]+)#[^|]+\| \[thrd:(?P<thread>.+?)\]: \S+ (?P<verb>Sent|Received) "
    r"(?P<api>\w+)(?:Request|Response) \(v(?P<version>\d+), (?P<bytes>\d+) bytes(?: @ \d+)?, "
    r"CorrId (?P<correlation_id>\d+)(?:, rtt (?P<rtt_ms>[\d.]+)ms)?\)"
)
JAVA = re.compile(
    r"(?P<time>\S+) \[.+\] DEBUG org\.apache\.kafka\.clients\.NetworkClient - \[.+?\] (?P<verb>Sending|Received) \w+ (?:request|response from node \S+ for request) "
    r"with header RequestHeader\(apiKey=(?P<api>\w+), apiVersion=(?P<version>\d+), clientId=(?P<client_id>[^,]+), correlationId=(?P<correlation_id>-?\d+),"
)
SAME_API = {"ApiVersion": "ApiVersions"}  # librdkafka's name for it


@dataclass
class Logged:
    """A request as its client logged it; what a client's log does not tell is null."""

    client_id: str
    api_name: str
    api_version: int
    correlation_id: int
    time: float  # s since 1970
    request_bytes: int | None = None  # with the 4-byte length
    response_bytes: int | None = None
    rtt_ms: float | None = None
    answered: bool = False


def read_logs(folder: Path, family: str) -> list[Logged]:
    """All requests that the logs of a family's clients tell of."""
    return [request for log in sorted(folder.glob(f"{family}*.log")) for request in READERS[family](log)]


def from_librdkafka(log: Path) -> Iterator[Logged]:
    waiting: dict[tuple[Any, ...], Logged] = {}
    for line in log.read_text().splitlines():
        found = LIBRDKAFKA.match(line)
        if found is None:
            assert "Sent partial " in line or not re.search(r"\|(SEND|RECV)\|", line), line
            continue
        api = SAME_API.get(found["api"], found["api"])
        key = (found["client_id"], found["thread"], api, int(found["version"]), int(found["correlation_id"]))
        if found["verb"] == "Sent":
            waiting[key] = Logged(found["client_id"], *key[2:], time=float(found["time"]), request_bytes=int(found["bytes"]))
            yield waiting[key]
        else:
            # It counts the body alone: without the length and the correlation id.
            answer(waiting.pop(key), rtt_ms=float(found["rtt_ms"]), response_bytes=int(found["bytes"]) + 8)


def from_kafka_python(log: Path) -> Iterator[Logged]:
    waiting: dict[tuple[int, int], Logged] = {}
    for line in log.read_text().splitlines():
        entry = json.loads(line)
        key = (entry["connection"], entry["correlation_id"])
        if "api" in entry:
            named = (entry["client_id"], entry["api"], entry["version"], entry["correlation_id"])
            waiting[key] = Logged(*named, time=entry["time"], request_bytes=entry["request_bytes"])
            yield waiting[key]
        else:
            answer(waiting.pop(key), rtt_ms=entry["rtt_ms"])


def from_java(log: Path) -> Iterator[Logged]:
    waiting: dict[int, Logged] = {}
    for line in log.read_text().splitlines():
        found = JAVA.match(line)
        if found is None:
            assert "RequestHeader(" not in line, line
            continue
        time = datetime.strptime(found["time"], "%Y-%m-%dT%H:%M:%S.%f%z").timestamp()
        number = int(found["correlation_id"])
        if found["verb"] == "Sending":
            api = found["api"].title().replace("_", "")
            waiting[number] = Logged(found["client_id"], api, int(found["version"]), number, time=time)
            yield waiting[number]
        else:
            request = waiting.pop(number)
            answer(request, rtt_ms=1e3 * (time - request.time))


def answer(request: Logged, *, rtt_ms: float, response_bytes: int | None = None) -> None:
    request.answered, request.rtt_ms, request.response_bytes = True, rtt_ms, response_bytes


READERS = {"librdkafka": from_librdkafka, "kafka-python": from_kafka_python, "java": from_java}
