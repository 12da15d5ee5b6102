"""The data sets as the report needs them: one ``Site`` per site of an experiment, values inside the window, large ones aggregated."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from brokerlens import tables
from brokerlens.metrics.taps import tap_of
from brokerlens.metrics.uncertainty import Sample
from brokerlens.report.zones import Zone
from brokerlens.statistics.arms import Arm

_PARTITIONS = re.compile(r"experiment=([^/]+)/site=([^/]+)/")
_EXPERIMENT = re.compile(r"experiment=([^/]+)/")
_RST = 0x04
# Ethernet carries at most 1,500 bytes; what is larger was cut up after the capture, or put together before it.
_LARGEST_ON_THE_WIRE = 1500
_MOST_MARKS = 400
_SHORTEST_NAME = 2
_LAST_WORD = re.compile(r"[^\W\d_]+[._-]*$")
_REQUEST_COLUMNS = [
    "connection_id", "api_name", "status", "request_first", "latency_ms", "total_ms", "queue_ms", "network_rtt_ms", "broker_ms", "waits_by_design",
    "record_count", "record_bytes", "retransmitted", "acks", "api_version",
]  # fmt: skip
_ANSWERED_COLUMNS = [
    "connection_id", "api_name", "request_first", "latency_ms", "total_ms", "queue_ms", "network_rtt_ms", "broker_ms", "retransmitted",
]  # fmt: skip
Key = tuple[str, str]


class Metric(NamedTuple):
    """One value with its interval; None where there is none."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    unit: str


NOTHING = Metric(None, None, None, 0, "")


class Marks(NamedTuple):
    """Moments on a timeline's lane: begin of each stretch (ns) and how many fell into it."""

    time: NDArray[np.int64]
    number: NDArray[np.int64]

    @property
    def total(self) -> int:
        return int(self.number.sum())


@dataclass(frozen=True, eq=False)
class Site:
    """One site of one experiment."""

    experiment: str
    name: str
    label: str
    slug: str
    """The site's part of an element's id and of a figure's file name: letters, digits and hyphens."""
    facts: Mapping[str, Any]
    zone: Zone
    metrics: Mapping[tuple[str, str, str], Metric]
    series: pl.DataFrame
    requests: pl.DataFrame
    connections: pl.DataFrame
    lanes: Mapping[str, Marks]
    oversized: float | None
    captures: Sequence[Mapping[str, Any]]
    requests_captured: int
    topic_names: Mapping[str, str] = field(default_factory=dict)
    events: Sequence[Mapping[str, Any]] = field(default_factory=tuple)
    paths: Sequence[Mapping[str, Any]] = field(default_factory=tuple)
    """Rows of the data set `paths` of connections that this site captured at the client."""
    cases: Sequence[Mapping[str, Any]] = field(default_factory=tuple)
    """Rows of the data set `cases`."""

    @property
    def key(self) -> Key:
        return self.experiment, self.name

    @property
    def tap(self) -> str:
        """Where the capture was taken: as configured, else as found."""
        return tap_of(str(self.facts["tap_configured"]), str(self.facts["tap_found"]))

    @property
    def window(self) -> tuple[int | None, int | None]:
        """Configured window in ns; None where it is open."""
        return self.facts["window_start"], self.facts["window_end"]

    @cached_property
    def span(self) -> tuple[int, int] | None:
        """What the charts show: the window where it is set, else from the first packet to the last; None without packets."""
        start = self.facts["window_start"] if self.facts["window_start"] is not None else self.facts["first_seen"]
        end = self.facts["window_end"] if self.facts["window_end"] is not None else self.facts["last_seen"]
        return None if start is None or end is None or end <= start else (int(start), int(end))

    def metric(self, metric: str, group: str = "all", statistic: str = "count") -> Metric:
        """One metric; ``NOTHING`` where the data set does not have it."""
        return self.metrics.get((metric, group, statistic), NOTHING)

    @cached_property
    def answered(self) -> pl.DataFrame:
        """Answered requests with a latency that do not wait by design, in order of time."""
        prompt = (pl.col("status") == "answered") & pl.col("latency_ms").is_not_null() & ~pl.col("waits_by_design")
        return self.requests.lazy().filter(prompt).select(_ANSWERED_COLUMNS).sort("request_first", maintain_order=True).collect().rechunk()

    @cached_property
    def latencies(self) -> NDArray[np.float64]:
        """Their latencies in ms, ascending."""
        return np.sort(self.answered["latency_ms"].to_numpy())

    @cached_property
    def arm(self) -> Arm:
        """The same latencies in time order, with what their intervals are made from."""
        number = self.answered["connection_id"].cast(pl.String).rank("dense").cast(pl.Int32)
        return Sample(self.answered["request_first"].to_numpy(), self.answered["latency_ms"].to_numpy(), number.to_numpy()).arm()

    @cached_property
    def api_mix(self) -> dict[str, float]:
        """Share of each api among the requests that do not wait by design, the most frequent first."""
        counts = self.answered.group_by("api_name").len().sort("len", "api_name", descending=[True, False])
        return {str(api): n / self.answered.height for api, n in counts.iter_rows()}

    @cached_property
    def api_versions(self) -> dict[str, tuple[int, ...]]:
        """Versions of each api that was asked for."""
        named = self.requests.filter(pl.col("api_name").is_not_null() & pl.col("api_version").is_not_null())
        found = named.group_by("api_name").agg(pl.col("api_version").unique().sort()).sort("api_name")
        return {str(api): tuple(versions) for api, versions in found.iter_rows()}

    @cached_property
    def software(self) -> tuple[str, ...]:
        """Client software as the clients named it."""
        return tuple(sorted(set(self.connections["client_software"].drop_nulls().to_list())))

    @cached_property
    def acks(self) -> tuple[int, ...]:
        """What Produce requests asked to be acknowledged."""
        produce = self.requests.filter(pl.col("api_name") == "Produce")
        return tuple(sorted(set(produce["acks"].drop_nulls().to_list())))

    @cached_property
    def encrypted_connections(self) -> int:
        """Connections that are TLS."""
        return int(self.connections["encrypted"].sum() or 0)

    @cached_property
    def started_connections(self) -> int:
        """Connections whose SYN was captured."""
        return int(self.connections["started"].sum() or 0)

    @property
    def encrypted(self) -> bool:
        """Every connection is TLS, so that there is no request to see."""
        return self.connections.height > 0 and bool(self.connections["encrypted"].all()) and self.requests_captured == 0

    @property
    def minutes(self) -> float | None:
        """Length of what the charts show."""
        return None if self.span is None else (self.span[1] - self.span[0]) / 60e9


@dataclass(frozen=True)
class Results:
    """Everything the page is made of. ``sites`` is in the configuration's order."""

    sites: Sequence[Site]
    comparisons: Sequence[Mapping[str, Any]]
    settings: Mapping[str, Any]

    @cached_property
    def experiments(self) -> list[str]:
        """Experiments, the latest first."""
        begin: dict[str, int] = {}
        for site in self.sites:
            seen = [time for time in (site.facts["window_start"], site.facts["first_seen"]) if time is not None]
            begin[site.experiment] = min([begin.get(site.experiment, 1 << 62), *seen[:1]])
        return sorted(begin, key=lambda experiment: (-begin[experiment], experiment))

    @cached_property
    def site_names(self) -> list[str]:
        """Sites, in the configuration's order."""
        return list(dict.fromkeys(site.name for site in self.sites))

    @cached_property
    def newest_first(self) -> list[Site]:
        """Arms, those of the latest experiment first."""
        return [site for experiment in self.experiments for site in self.sites if site.experiment == experiment]

    def of(self, experiment: str) -> list[Site]:
        """The sites of one experiment."""
        return [site for site in self.sites if site.experiment == experiment]

    def site(self, experiment: str, name: str) -> Site | None:
        """That site, if there is one."""
        return next((site for site in self.sites if site.key == (experiment, name)), None)

    @cached_property
    def short_names(self) -> dict[str, str]:
        """Experiments without the beginning that all share: ``07`` and ``08``; the whole name where that leaves nothing."""
        return shortened(self.experiments)

    @property
    def threshold_ms(self) -> float:
        """The threshold of the share over."""
        return float(self.settings.get("share_over_ms", 200))


def shortened(names: Sequence[str]) -> dict[str, str]:
    """Each name without the letters that all names begin with, cut only where a word or a number begins; two characters at least."""
    if len(names) < 2:
        return {name: name for name in names}
    common = 0
    while all(len(name) > common for name in names) and len({name[: common + 1] for name in names}) == 1:
        common += 1
    while common and any(
        name[common - 1].isalnum() and name[common - 1].isdigit() == name[common : common + 1].isdigit() for name in names
    ):
        common -= 1
    while common and any(name[common - 1].isdigit() and name[common : common + 1].isdigit() for name in names):
        common -= 1
    if _too_short(names, common):  # keep the word before it: "run 1", not "1"
        common = len(_LAST_WORD.sub("", names[0][:common]))
    if _too_short(names, common):
        common = 0
    return {name: name[common:].lstrip("._-") for name in names}


def _too_short(names: Sequence[str], common: int) -> bool:
    return any(len(name[common:].lstrip("._-")) < _SHORTEST_NAME for name in names)


def read_results(
    *,
    sites: str | Path,
    metrics: Iterable[str | Path],
    series: Iterable[str | Path],
    requests: Iterable[str | Path],
    connections: Iterable[str | Path],
    packets: Iterable[str | Path],
    topics: Iterable[str | Path],
    comparisons: str | Path,
    captures: Iterable[str | Path],
    settings: Mapping[str, Any],
    paths: Iterable[str | Path] = (),
    cases: Iterable[str | Path] = (),
) -> Results:
    """Read every data set; files belong to the experiment and site that their path names."""
    by_metric, by_series, by_request = _by_site(metrics), _by_site(series), _by_site(requests)
    by_connection, by_packet = _by_site(connections), _by_site(packets)
    by_facts, by_cluster = _facts_by_site(captures), _topic_names(topics)
    by_path = _paths_by_site(paths)
    by_case = _by_site(cases)
    rows = _read([Path(sites)], "sites").to_dicts()
    short = shortened(sorted({row["experiment"] for row in rows}))
    slugs = _slugs([(row["experiment"], row["site"]) for row in rows])
    one = len(short) == 1
    found: list[Site] = []
    for row in rows:
        key = row["experiment"], row["site"]
        window = row["window_start"], row["window_end"]
        lanes, oversized = _traffic(by_packet.get(key, []), window)
        asked = _read_requests(by_request.get(key, []))
        found.append(
            Site(
                experiment=key[0],
                name=key[1],
                label=key[1] if one else f"{key[1]} {short[key[0]]}",
                slug=slugs[key],
                facts=row,
                zone=Zone(row["timezone"]),
                metrics=_metrics(_read(by_metric.get(key, []), "metrics")),
                series=_read(by_series.get(key, []), "series"),
                requests=_inside(asked, window, "request_first"),
                connections=_inside(_read(by_connection.get(key, []), "connections"), window, "last_seen", "first_seen"),
                lanes=lanes,
                oversized=oversized,
                captures=by_facts.get(key, []),
                requests_captured=asked["request_first"].count(),
                topic_names=by_cluster.get((key[0], row["cluster"]), {}),
                paths=by_path.get(key, []),
                cases=_read(by_case.get(key, []), "cases").to_dicts(),
                events=[event for event in settings.get("events", ()) if event["experiment"] == key[0]],
            )
        )
    return Results(found, _read([Path(comparisons)], "comparisons").to_dicts(), settings)


def slug(text: str) -> str:
    """The text as part of an element's id and of a file name on any system: other characters than letters and digits become hyphens."""
    return re.sub(r"[^A-Za-z0-9]+", "-", text)


def _slugs(keys: Sequence[Key]) -> dict[Key, str]:
    """Each site's slug; those that would be the same, upper and lower case alike, have a digest of the real names behind them."""
    plain = {key: slug("-".join(key)) for key in keys}
    seen = Counter(one.lower() for one in plain.values())
    return {
        key: one if seen[one.lower()] == 1 else f"{one}-{hashlib.sha256('/'.join(key).encode()).hexdigest()[:6]}"
        for key, one in plain.items()
    }


def _by_site(paths: Iterable[str | Path]) -> dict[Key, list[Path]]:
    found: dict[Key, list[Path]] = {}
    for path in paths:
        named = _PARTITIONS.search(Path(path).as_posix())
        if named:
            found.setdefault((named[1], named[2]), []).append(Path(path))
    return {key: sorted(files) for key, files in found.items()}


def _facts_by_site(lists: Iterable[str | Path]) -> dict[Key, list[Mapping[str, Any]]]:
    found: dict[Key, list[Mapping[str, Any]]] = {}
    for path in map(Path, lists):
        found[path.parts[-3], path.parts[-2]] = list(json.loads(path.read_text(encoding="utf-8")).values())
    return {key: sorted(rows, key=lambda row: (row.get("first_seen") or 1 << 62, str(row.get("capture")))) for key, rows in found.items()}


def _topic_names(paths: Iterable[str | Path]) -> dict[tuple[str, str], dict[str, str]]:
    """Name of each topic id, by experiment and cluster, whichever site tells it; an answer before the configuration."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for path in sorted(map(Path, paths)):
        named = _EXPERIMENT.search(path.as_posix())
        if named:
            rows = _read([path], "topics").sort(pl.col("source") == "metadata", "learned_at")
            for cluster, topic_id, topic in rows.select("cluster", "topic_id", "topic").iter_rows():
                found.setdefault((named[1], cluster), {})[topic_id] = topic
    return found


def _paths_by_site(paths: Iterable[str | Path]) -> dict[Key, list[Mapping[str, Any]]]:
    """Connections captured at both ends, by experiment and the client's site."""
    found: dict[Key, list[Mapping[str, Any]]] = {}
    for path in sorted(map(Path, paths)):
        named = _EXPERIMENT.search(path.as_posix())
        if named:
            for row in _read([path], "paths").iter_rows(named=True):
                found.setdefault((named[1], row["client_site"]), []).append(row)
    return found


def _read(paths: Sequence[str | Path], dataset: str) -> pl.DataFrame:
    """Rows of the files; times as int64 ns, dictionary words as strings."""
    frame = pl.from_arrow(tables.read(paths, dataset))
    assert isinstance(frame, pl.DataFrame)
    return frame.with_columns(pl.col(pl.Datetime).cast(pl.Int64), pl.col(pl.Categorical).cast(pl.String))


def _read_requests(paths: Sequence[str | Path]) -> pl.DataFrame:
    """What the report needs of each request; times as int64 ns. They are many, so their words stay numbers of a dictionary."""
    none = pl.DataFrame(tables.schema("requests").empty_table())
    requests = pl.scan_parquet([str(path) for path in paths], hive_partitioning=False) if paths else none.lazy()
    return requests.select(_REQUEST_COLUMNS).with_columns(pl.col(pl.Datetime).cast(pl.Int64)).collect()


def _inside(frame: pl.DataFrame, window: tuple[int | None, int | None], last: str, first: str | None = None) -> pl.DataFrame:
    """Rows whose stretch of time (``first`` to ``last``, one column if it is a moment) meets the window, both ends included."""
    start, end = window
    if start is not None:
        frame = frame.filter(pl.col(last) >= start)
    if end is not None:
        frame = frame.filter(pl.col(first or last) <= end)
    return frame


def _metrics(frame: pl.DataFrame) -> dict[tuple[str, str, str], Metric]:
    return {
        (metric, group, statistic): Metric(finite(value), finite(low), finite(high), n, unit)
        for metric, group, statistic, value, unit, n, low, high in frame.iter_rows()
    }


def finite(value: float | None) -> float | None:
    """The value, None for NaN and infinity: JSON has neither."""
    return value if value is not None and math.isfinite(value) else None


def _traffic(paths: Sequence[Path], window: tuple[int | None, int | None]) -> tuple[dict[str, Marks], float | None]:
    """Retransmissions, resets and zero windows of a site, gathered into at most some hundred marks each; share of oversized segments."""
    if not paths:
        return {}, None
    reset = (pl.col("tcp_flags") & _RST) != 0
    packets = pl.scan_parquet(list(paths), hive_partitioning=False).filter(~pl.col("is_duplicate")).with_columns(reset.alias("reset"))
    lanes = {"retransmitted": "is_retransmission", "reset": "reset", "zero window": "zero_window_begins"}
    marked, sizes = pl.collect_all(
        [
            packets.filter(pl.any_horizontal(lanes.values())).select(pl.col("timestamp").cast(pl.Int64), *lanes.values()),
            packets.select(
                (pl.col("payload_len") > 0).sum().alias("data"), (pl.col("payload_len") > _LARGEST_ON_THE_WIRE).sum().alias("large")
            ),
        ]
    )
    marked = _inside(marked, window, "timestamp")
    data, large = sizes.row(0)
    found = {lane: _gathered(marked.filter(pl.col(column))["timestamp"].to_numpy()) for lane, column in lanes.items()}
    return found, large / data if data else None


def _gathered(times: NDArray[np.int64]) -> Marks:
    """The moments themselves where they are few, else counts per equal stretch of time."""
    times = np.sort(times.astype(np.int64))
    if len(times) <= _MOST_MARKS:
        return Marks(times, np.ones(len(times), dtype=np.int64))
    step = max(1, int(times[-1] - times[0]) // (_MOST_MARKS - 1))
    stretches, counts = np.unique((times - times[0]) // step, return_counts=True)
    return Marks(times[0] + stretches * step, counts.astype(np.int64))
