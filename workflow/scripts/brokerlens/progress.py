"""How far a run is, and what it came to: captures read of all, bytes per second, what is at work and what failed, from the events that Snakemake logs.

A handler of its logger, added when jobs begin: a plugin for Snakemake's logger would have to be installed as a package, which a workflow is not.
"""

from __future__ import annotations

import csv
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

SECONDS = 15  # between two lines while jobs end; four times that while none does
SHOWN = 3  # jobs at work that a line names
FAILURES = 5  # failed jobs whose messages are said again

Capture = tuple[str, str, str]


class Progress(logging.Handler):
    """Counts what begins and ends; says so now and then while something is at work.

    ``sizes``: bytes of each capture that is to be read, by experiment, site and capture. ``clock`` and ``say`` are there to be replaced.
    """

    def __init__(self, sizes: Mapping[Capture, int], say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._sizes = sizes
        self._say = say
        self._clock = clock
        self._began = self._said = clock()
        self._at_work: dict[int, tuple[str, Capture | None]] = {}
        self._failed: dict[int, tuple[str, list[str]]] = {}
        self._read = 0
        self._bytes = 0
        self._last_read = self._began
        self._ended = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        """Take one of Snakemake's events; others are none of ours."""
        match str(getattr(record, "event", "")):
            case "job_info":
                self._begin(vars(record))
            case "job_finished":
                self._end(vars(record)["job_id"], done=True)
            case "job_error":
                number, logs = vars(record)["jobid"], vars(record).get("log") or []
                self._failed[number] = (self._at_work.get(number, (f"job {number}", None))[0], list(map(str, logs)))
                self._end(number, done=False)

    def _begin(self, job: Mapping[str, object]) -> None:
        number, wildcards = job["jobid"], job["wildcards"]
        assert isinstance(number, int)
        capture = None
        if job["rule_name"] == "split_capture" and isinstance(wildcards, Mapping):
            capture = (wildcards["experiment"], wildcards["site"], wildcards["capture"])
        self._at_work[number] = (str(job["rule_msg"] or job["rule_name"]), capture)

    def _end(self, number: int, *, done: bool) -> None:
        _, capture = self._at_work.pop(number, ("", None))
        if done:
            self._failed.pop(number, None)  # a later attempt
        if done and capture is not None:
            self._read += 1
            self._last_read = self._clock()
            self._bytes += self._sizes.get(capture, 0)
        if self._clock() - self._said >= SECONDS:
            self.tell()

    def line(self) -> str:
        """Where the run is."""
        parts = [f"{self._clock() - self._began:,.0f} s"]
        if self._sizes:
            megabytes, seconds = self._bytes / 1e6, max(self._last_read - self._began, 1e-3)
            parts.append(
                f"{self._read:,} of {len(self._sizes):,} captures read, {megabytes:,.1f} of {sum(self._sizes.values()) / 1e6:,.1f} MB, "
                f"{megabytes / seconds:,.2f} MB/s"
            )
        names = [name for name, _ in list(self._at_work.values())]  # a copy: jobs begin and end while the watching thread speaks
        if names:
            more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
            parts.append(f"at work: {', '.join(names[:SHOWN])}{more}")
        return "; ".join(parts)

    def failures(self) -> list[str]:
        """The messages of jobs that failed, a line each: between Snakemake's own lines they drown."""
        lines = [f"failed: {name}: {_message(logs)}" for name, logs in list(self._failed.values())]
        more = [f"failed: {len(lines) - FAILURES:,} more"] if len(lines) > FAILURES else []
        return lines[:FAILURES] + more

    def tell(self) -> None:
        """Say where the run is."""
        self._said = self._clock()
        self._say(self.line())

    def watch(self) -> None:
        """Speak while long jobs are at work and none ends; ends with the process."""

        def speak() -> None:
            while not self._ended.wait(SECONDS):
                if self._at_work and self._clock() - self._said >= 4 * SECONDS:
                    self.tell()

        threading.Thread(target=speak, daemon=True).start()

    def close(self) -> None:
        """Stop watching."""
        self._ended.set()
        super().close()


def _message(logs: list[str]) -> str:
    """What the log of a failed job says in its last line of an error, else where the log is."""
    for log in logs:
        if os.path.exists(log):
            found = [line for line in Path(log).read_text(encoding="utf-8", errors="replace").splitlines() if line.startswith("error: ")]
            if found:
                return found[-1].removeprefix("error: ")
    return f"see {', '.join(logs)}" if logs else "it has no log"


def outside_their_window(metrics: str | Path) -> list[str]:
    """A line for each site of which no packet is inside its window, by ``metrics.csv``: the run went well, and its report says nothing of the site."""
    if not os.path.exists(metrics):
        return []
    with open(metrics, encoding="utf-8", newline="") as file:
        counts = [row for row in csv.DictReader(file) if (row["metric"], row["group"]) == ("packets", "all")]
    return [
        f"note: no packet of {row['experiment']}/{row['site']} is inside its window, so it has no figures. `snakemake doctor`, with the options of this run, "
        "compares window, time zone and captures."
        for row in counts
        if row["n"] == "0"
    ]
