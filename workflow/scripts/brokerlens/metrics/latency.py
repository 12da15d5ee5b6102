"""Kafka requests inside the window: counts, latency and its parts, records, throttling, errors, from the data set `requests`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import polars as pl

from brokerlens.metrics.rows import ALL, Rows, group
from brokerlens.metrics.uncertainty import Sample, add_sample, add_values
from brokerlens.metrics.window import Window

STATUSES: Final = ("answered", "no_response_expected", "unanswered", "request_not_captured")
LATENCY_STATISTICS: Final = ("count", "mean", "p50", "p90", "p95", "p99", "max", "share_over")
PART_STATISTICS: Final = ("count", "mean", "p50", "p95", "p99")
BUSIEST: Final = 20
OTHER: Final = "other"
FETCH_WITH_DATA: Final = "Fetch/with_data"
FETCH_EMPTY: Final = "Fetch/empty"
ALWAYS: Final = ("Produce", "Fetch", FETCH_WITH_DATA, FETCH_EMPTY)
"""Apis that have their rows even where no request of theirs was captured."""
WAITS: Final = group("waits_by_design", "true")
PARTS: Final[Mapping[str, pl.Expr]] = {
    "kafka_queue": pl.col("queue_ms"),
    "kafka_service": pl.col("service_ms"),
    "kafka_broker": pl.col("broker_ms"),
    "kafka_network": pl.col("latency_ms") - pl.col("queue_ms") - pl.col("broker_ms"),
    "kafka_transfer": pl.col("total_ms") - pl.col("latency_ms"),
    "kafka_total": pl.col("total_ms"),
}
"""Of the time from a request's first byte to its response's last, ms."""
COUNTED: Final = pl.col("status") == "answered"


def requests_inside(requests: Sequence[str | Path], window: Window) -> pl.LazyFrame:
    """The requests that began inside the window, and the responses without a request that did, with their ``time``."""
    time = pl.when(pl.col("status") == "request_not_captured").then("response_first").otherwise("request_first")
    scanned = pl.scan_parquet([str(path) for path in requests], hive_partitioning=False)
    return scanned.with_columns(time.alias("time")).filter(window.holds(pl.col("time")))


class Names(NamedTuple):
    """One of the names of each row, as a number: its place among ``names``; −1 without a name."""

    names: list[str]
    number: np.ndarray


def present(values: pl.Series, chosen: np.ndarray) -> np.ndarray:
    """The values at ``chosen`` that are there."""
    return values.filter(chosen).drop_nulls().to_numpy()


@dataclass(frozen=True)
class Groups:
    """Requests, and the groups that they are counted in. A mask is ``bool[n]`` over them.

    Columns are read when they are asked for and not kept but for what most groups need: the requests of a large site are more than fit into memory.
    """

    requests: pl.LazyFrame

    def values(self, what: str | pl.Expr) -> pl.Series:
        """A column of the requests, or what is made of some."""
        return self.requests.select(pl.col(what) if isinstance(what, str) else what).collect().to_series()

    def mask(self, condition: pl.Expr) -> np.ndarray:
        """Where this is so."""
        return self.values(condition.fill_null(value=False)).to_numpy()

    @cached_property
    def times(self) -> np.ndarray:
        """When each began, ns."""
        return self.values(pl.col("time").to_physical()).to_numpy()

    @property
    def n(self) -> int:
        """How many there are."""
        return len(self.times)

    @cached_property
    def connections(self) -> np.ndarray:
        """The number of each one's connection, in the order of their ids."""
        return self._names("connection_id").number

    @cached_property
    def waits(self) -> np.ndarray:
        """Requests of apis that wait by design."""
        return self.mask(pl.col("waits_by_design"))

    @cached_property
    def timed(self) -> np.ndarray:
        """Those with a latency that counts: answered, and both ends seen in their order."""
        return self.mask(COUNTED & pl.col("latency_ms").is_not_null())

    def everything(self) -> np.ndarray:
        """All of them."""
        return np.ones(self.n, bool)

    def sample(self, values: pl.Series, chosen: np.ndarray) -> Sample:
        """The values at ``chosen`` that are there."""
        rows = np.flatnonzero(chosen & values.is_not_null().to_numpy())
        return Sample(self.times[rows], values.gather(rows).to_numpy().astype(np.float64), self.connections[rows])

    def apis(self) -> Iterator[tuple[str, np.ndarray]]:
        """`api=…` for each api that occurs and for those that always have rows; Fetch also by whether it brought records."""
        names, number = self._apis
        for name in sorted({*names, *ALWAYS}):
            mask = self._fetches.get(name)
            yield group("api", name), number == (names.index(name) if name in names else len(names)) if mask is None else mask

    @cached_property
    def _apis(self) -> Names:
        return self._names("api_name")

    @cached_property
    def _fetches(self) -> dict[str, np.ndarray]:
        fetched = pl.col("api_name") == "Fetch"
        brought = (pl.col("record_count") > 0) | (pl.col("record_bytes") > 0)
        empty = (pl.col("record_bytes") == 0) & (pl.col("record_count").fill_null(0) == 0)
        return {FETCH_WITH_DATA: self.mask(fetched & brought), FETCH_EMPTY: self.mask(fetched & COUNTED & empty)}

    def clients(self) -> Iterator[tuple[str, np.ndarray]]:
        """`client=…`, the 20 with the most requests; `other` for the rest and for requests without a client id."""
        return _busiest_groups("client", self._clients)

    @cached_property
    def _clients(self) -> Names:
        return self._names("client_id")

    def software(self) -> Iterator[tuple[str, np.ndarray]]:
        """`software=…`, the 20 with the most requests; `other` for the rest and for connections whose client did not name its software."""
        return _busiest_groups("software", self._names("client_software"))

    def topics(self) -> Iterator[tuple[str, np.ndarray]]:
        """`topic=…`, the 20 that most requests name; `other` for requests that name one of the rest. A request may be in several."""
        row, (names, number) = self._topics
        busiest = _busiest(names, number)
        rest = ~np.isin(number, busiest)
        chosen = {names[place]: number == place for place in busiest} | ({OTHER: rest} if rest.any() else {})
        for name, named in chosen.items():
            mask = np.zeros(self.n, bool)
            mask[row[named]] = True
            yield group("topic", name), mask

    @cached_property
    def _topics(self) -> tuple[np.ndarray, Names]:
        """Each topic that a request names, once: the request's row, and the topic."""
        listed = self.requests.select(pl.col("topics").list.unique()).with_row_index("row")
        named = listed.explode("topics").drop_nulls().collect(engine="streaming")
        return named["row"].to_numpy(), _numbered(named["topics"])

    def _names(self, column: str) -> Names:
        return _numbered(self.values(pl.col(column)))


def _numbered(names: pl.Series) -> Names:
    """The names in their order, each value as its place among them."""
    known = names.unique().drop_nulls().cast(pl.String).sort()
    number = names.cast(pl.Enum(known)).to_physical().cast(pl.Int32).fill_null(-1)
    return Names(known.to_list(), number.to_numpy())


def _busiest(names: Sequence[str], number: np.ndarray) -> list[int]:
    """The places of the most frequent names, ties by name. One that is called like the rest goes to the rest."""
    counted = np.bincount(number[number >= 0], minlength=len(names))
    return [int(place) for place in np.argsort(-counted, kind="stable") if names[place] != OTHER][:BUSIEST]


def _busiest_groups(key: str, of_rows: Names) -> Iterator[tuple[str, np.ndarray]]:
    names, number = of_rows
    busiest = _busiest(names, number)
    for place in busiest:
        yield group(key, names[place]), number == place
    rest = ~np.isin(number, busiest)
    if rest.any():
        yield group(key, OTHER), rest


def add_requests(rows: Rows, groups: Groups) -> None:
    """`requests` in all, by status, api, client, client software and topic."""
    of_waiting = [(WAITS, groups.waits)]
    every = chain([(ALL, groups.everything())], groups.apis(), of_waiting, groups.clients(), groups.software(), groups.topics())
    for name, mask in every:
        rows.add("requests", name, "count", int(mask.sum()), "requests", int(mask.sum()))
    for status in STATUSES:
        rows.add("requests", group("status", status), "count", int(groups.mask(pl.col("status") == status).sum()), "requests", groups.n)


def add_latency(rows: Rows, groups: Groups, threshold: float) -> None:
    """`kafka_latency` and its parts; `all`, clients and topics without the apis that wait by design."""
    prompt = groups.timed & ~groups.waits
    latency = groups.values("latency_ms")
    of_apis = ((name, groups.timed & mask) for name, mask in groups.apis())
    named = ((name, prompt & mask) for name, mask in chain(groups.clients(), groups.topics()))
    for name, mask in chain([(ALL, prompt)], of_apis, [(WAITS, groups.timed & groups.waits)], named):
        sample = groups.sample(latency, mask)
        add_sample(rows, "kafka_latency", name, LATENCY_STATISTICS, sample, unit="ms", of="requests", threshold=threshold)
    for metric, part in PARTS.items():
        values = groups.values(part)
        for name, mask in chain([(ALL, prompt)], ((name, groups.timed & mask) for name, mask in groups.apis())):
            add_values(rows, metric, name, PART_STATISTICS, present(values, mask), unit="ms", of="requests")
