"""One run: the broker, all clients, the captures and the clients' logs in a folder.

``python recording.py FOLDER`` (`make live`) makes one, with a configuration for the pipeline beside it.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import yaml
from testbed import HERE, Network, NotPossibleError, broker, captured, check_machine, fetch_jars, network
from traffic import FAMILIES


class ClientFailedError(Exception):
    """A client did not get to its end; the message holds what it said."""


@dataclass(frozen=True)
class Recording:
    """What a run left."""

    folder: Path
    broker: str
    captures: dict[str, Path]  # by site
    sent: dict[str, int]  # records by client id, as the clients counted them
    got: dict[str, int]
    kernel: dict[str, int]  # TCP's counters where the clients are

    def dropped(self) -> dict[str, int]:
        """Packets that the kernel dropped before tcpdump had read them, by site."""
        logs = {site: capture.with_suffix(".tcpdump.log").read_text() for site, capture in self.captures.items()}
        return {site: int(found[1]) for site, log in logs.items() if (found := re.search(r"(\d+) packets? dropped by kernel", log))}


def record(folder: Path, tries: int = 3) -> Recording:
    """Run everything in a new folder; where a client fails, which is not what is looked at here, anew. `NotPossibleError` where this machine cannot."""
    for number in range(1, tries):
        try:
            return record_once(folder / str(number))
        except ClientFailedError as error:
            print(f"recording {number} of {tries}: {error}", file=sys.stderr)
    return record_once(folder / str(tries))


def record_once(folder: Path) -> Recording:
    """Run everything in a new folder; `NotPossibleError` where this machine cannot."""
    check_machine()
    jars = fetch_jars()
    logs = folder / "logs"
    logs.mkdir(parents=True)
    with network() as wires:
        captures = {site: folder / f"{site}.pcap" for site in wires.taps}
        with broker(wires, jars, folder), ExitStack() as capturing:
            for site, capture in captures.items():
                capturing.enter_context(captured(wires.taps[site], wires.port, capture))
            with ThreadPoolExecutor(len(FAMILIES)) as together:
                told = [*together.map(lambda family: run_clients(wires, family, logs, jars), FAMILIES)]
            time.sleep(0.5)  # the last connections' ends
            kernel = tcp_counters(wires)
    counts = {what: {client: count for family in told for client, count in family[what].items()} for what in ("sent", "got")}
    return Recording(folder, wires.broker, captures, counts["sent"], counts["got"], kernel)


def run_clients(wires: Network, family: str, logs: Path, jars: Path) -> dict[str, dict[str, int]]:
    """A family's clients, from their place in the network; what they counted."""
    command = [*wires.at_clients, sys.executable, str(HERE / "traffic.py"), family, wires.broker, str(logs), str(jars)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    except subprocess.TimeoutExpired as error:
        raise ClientFailedError(f"{family} did not end within 2 minutes") from error
    if done.returncode != 0:
        log = (logs / f"{family}.log").read_text()[-3000:] if (logs / f"{family}.log").exists() else ""
        raise ClientFailedError(f"{family} ended with {done.returncode}: {done.stderr[-3000:]}{log}")
    counts: dict[str, dict[str, int]] = json.loads(done.stdout)
    return counts


def tcp_counters(wires: Network) -> dict[str, int]:
    """The kernel's counters of TCP where the clients are."""
    table = subprocess.run([*wires.at_clients, "cat", "/proc/net/snmp"], capture_output=True, text=True, check=True).stdout
    names, numbers = (line.split()[1:] for line in table.splitlines() if line.startswith("Tcp:"))
    return dict(zip(names, map(int, numbers), strict=True))


def configuration(recording: Recording) -> str:
    """The recording as an experiment: a site at each end of the network."""
    sites = {
        end: {
            "captures": f"{capture.parent.name}/{capture.name}",
            "brokers": [recording.broker],
            "tap": end if len(recording.captures) > 1 else "auto",
        }
        for end, capture in recording.captures.items()
    }
    return yaml.safe_dump({"experiments": {"live": {"sites": sites}}}, sort_keys=False)


if __name__ == "__main__":
    try:
        made = record(Path(sys.argv[1]).absolute())
    except NotPossibleError as reason:
        sys.exit(f"this machine cannot record live traffic: {reason}")
    (Path(sys.argv[1]) / "config.yaml").write_text(configuration(made))
