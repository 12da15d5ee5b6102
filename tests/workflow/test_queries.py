"""The SQL of docs/queries.md, run by DuckDB on the shipped example: each query's answer against a figure that was made without it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import duckdb
import polars as pl
import pytest
from workbench import ROOT, Workbench

PAGE = (ROOT / "docs" / "queries.md").read_text(encoding="utf-8")
QUERIES = dict(re.findall(r"^## (.+?)$.*?```sql\n(.+?)```", PAGE, re.MULTILINE | re.DOTALL))
VIEW = PAGE[: PAGE.index("\n## ")].split("```sql\n")[1].split("```")[0]


class Results:
    """The results, asked as the page says: from the folder that holds them."""

    def __init__(self, folder: Path) -> None:
        self.metrics = pl.read_csv(folder / "results" / "metrics.csv", infer_schema_length=None)
        self.requests = pl.read_parquet(folder / "results" / "requests" / "**" / "*.parquet", hive_partitioning=True)
        self._database = duckdb.connect()
        self._database.execute("SET TimeZone = 'UTC'")
        self._database.execute(VIEW)

    def answer(self, question: str) -> pl.DataFrame:
        found = self._database.execute(QUERIES[question])
        frame = pl.DataFrame(found.fetchall(), schema=[column[0] for column in found.description], orient="row", infer_schema_length=None)
        assert frame.height
        return frame

    def metric(self, metric: str, statistic: str, group: str = "all") -> dict[str, float]:
        """A metric's values by site."""
        rows = self.metrics.filter((pl.col("metric") == metric) & (pl.col("statistic") == statistic) & (pl.col("group") == group))
        return dict(rows.select("site", "value").rows())


@pytest.fixture(scope="module")
def results(example_run: Workbench) -> Iterator[Results]:
    before = Path.cwd()
    os.chdir(example_run.work)
    yield Results(example_run.work)
    os.chdir(before)


def test_every_query_of_the_page_is_tested() -> None:
    assert len(QUERIES) == PAGE.count("```sql") - 1 == PAGE.count("\n## ")
    assert all(f"answer({question!r})".replace("'", '"') in Path(__file__).read_text(encoding="utf-8") for question in QUERIES)


def test_tail_by_api(results: Results) -> None:
    found = results.answer("How slow is the slowest hundredth, by site and api?")
    assert found.height > 10
    for site, api, requests, p99 in found.select("site", "api_name", "requests", "p99_ms").iter_rows():
        assert p99 == pytest.approx(results.metric("kafka_latency", "p99", f"api={api}")[site])
        assert requests == results.metric("kafka_latency", "count", f"api={api}")[site]


def test_worst_minutes(results: Results) -> None:
    found = results.answer("Which minutes were the worst?")
    site, minute, requests, worst = found.select("site", "minute", "requests", "p95_ms").row(0)
    # The captures were slowed at 14:15 local time at this site.
    assert (site, f"{minute:%H:%M}") == ("edge", "17:15")
    in_it = results.requests.filter(
        (pl.col("site") == site)
        & (pl.col("request_first").dt.truncate("1m") == minute)
        & pl.col("latency_ms").is_not_null()
        & ~pl.col("waits_by_design")
    )
    assert requests == in_it.height
    assert worst == pytest.approx(in_it["latency_ms"].quantile(0.95, "equiprobable"))


def test_who_retransmits(results: Results) -> None:
    found = results.answer("Who retransmits, and how much of what was sent?")
    assert set(found["src_ip"]) == {"192.0.2.5", "192.0.2.10", "198.51.100.5", "198.51.100.10"}
    for site, from_broker, segments, share in found.select("site", "from_broker", "retransmitted", "share").iter_rows():
        direction = f"direction={'from' if from_broker else 'to'}_broker"
        assert segments == results.metric("retransmissions", "count", direction)[site]
        assert share == pytest.approx(results.metric("retransmissions", "ratio_of_sums", direction)[site])


@pytest.mark.parametrize("api", ["Produce", "Fetch"])
def test_records_by_topic(results: Results, api: str) -> None:
    found = results.answer("How many records of each topic were produced and fetched?").filter(pl.col("api_name") == api)
    assert dict(found.group_by("site").agg(pl.col("records").sum()).rows()) == results.metric("records", "sum", f"api={api}")
    assert {"sensors", "commands"} & set(found["topic"])


def test_waiting_in_the_queue(results: Results) -> None:
    found = results.answer("Which clients wait longest behind their own requests?")
    by_site = found.group_by("site").agg(
        pl.col("requests").sum(), mean=(pl.col("mean_ms") * pl.col("requests")).sum() / pl.col("requests").sum()
    )
    for site, requests, mean in by_site.iter_rows():
        assert requests == results.metric("kafka_queue", "count")[site]
        assert mean == pytest.approx(results.metric("kafka_queue", "mean")[site])
    assert found["mean_ms"].is_sorted(descending=True)


def test_never_answered(results: Results) -> None:
    found = results.answer("What was never answered, and why?")
    counted = dict(found.group_by("site").agg(pl.col("requests").sum()).rows())
    expected = results.metric("requests", "count", "status=unanswered")
    assert counted == {site: count for site, count in expected.items() if count}
    assert set(found["status_reason"]) == {"client_had_closed"}
