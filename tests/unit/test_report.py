"""The report without a browser: what its sentences, tables and charts say, and that the file asks for nothing."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup, escape
from report_results import (
    EXAMPLE,
    SECOND,
    START,
    TOPIC_ID,
    Link,
    deliveries_of,
    read_tree,
    repeated_runs,
    write_deliveries,
    write_report,
    write_tree,
)

from brokerlens import tables
from brokerlens.capture import layers
from brokerlens.kafka import keep
from brokerlens.report import charts, latency
from brokerlens.report.answers import four_answers, what_conditions_changed
from brokerlens.report.captures import CAPTURE_ODDITIES, FRAME_ODDITIES, SKIPPED_WORDS, quality
from brokerlens.report.clients import LEAST, Clients, NamedTable, clients
from brokerlens.report.comparability import Check, checks_of, judge
from brokerlens.report.deliveries import deliveries, means
from brokerlens.report.distributions import difference_title, distributions
from brokerlens.report.figure import json_for_script, plain
from brokerlens.report.headline import doubtful_loss
from brokerlens.report.intervals import Comparison, RunsComparison, comparisons, too_few
from brokerlens.report.network import COLUMNS, network
from brokerlens.report.page import build
from brokerlens.report.results import Metric, Results, Site, shortened
from brokerlens.report.scales import Symlog, ticks_125
from brokerlens.report.states import why_no_latency
from brokerlens.report.theme import PALETTE, SiteColours
from brokerlens.report.words import fixed, name, percent, visible
from brokerlens.report.zones import Zone
from report import report

HOSTILE = '"><img src=x onerror="window.hurt=1"><script>window.hurt=1</script>'


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return write_tree(tmp_path_factory.mktemp("example"))


@pytest.fixture(scope="module")
def results(arguments: dict[str, Any]) -> Results:
    return read_tree(arguments)


@pytest.fixture(scope="module")
def html(arguments: dict[str, Any]) -> str:
    report(**arguments)
    return Path(arguments["output"]).read_text(encoding="utf-8")


def text_of(html: str) -> str:
    """The page's words as a reader sees them, scripts and styles left out."""
    without = re.sub(r"<(script|style)\b.*?</\1>", " ", html, flags=re.DOTALL)
    return (
        re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", without))
        .replace("&#39;", "'")
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&amp;", "&")
    )


def states(tmp_path: Path, links: list[Link], **settings: Any) -> str:
    arguments = write_tree(tmp_path, links, **settings)
    report(**arguments)
    return text_of(Path(arguments["output"]).read_text(encoding="utf-8"))


# Answers


def test_first_screen_says_what_was_put_into_the_links(html: str) -> None:
    text = text_of(html)
    assert "In experiment08 edge is faster in the middle: median" in text
    assert "What changed since experiment07?edge slowed from 11.3 to" in text.replace("Where the time goes ↓", "")
    assert "The network accounts for all of it; time in the broker did not change." in text
    assert "none of cloud’s 348 (at most" in text
    assert re.search(
        r"edge, 14:15:\d\d to 14:16:\d\d on 26 December 2025: p95 \d+ ms over \d+ requests, with \d+ of them retransmitted", text
    )
    assert "Yes, with 1 caution." in text
    assert "2 sites · 36 captures" in text


def test_a_difference_is_not_printed_for_sides_that_must_not_be_compared(tmp_path: Path) -> None:
    apart = [EXAMPLE[2], dataclasses.replace(EXAMPLE[3], tap="broker", resets=0)]
    text = states(tmp_path, apart)
    assert "Not compared: edge was captured at the client, cloud at the broker" in text
    assert "✕ Not compared" in text
    assert "edge: median" in text  # the two numbers stand side by side
    assert "edge is faster" not in text
    assert "No. " in text


def test_one_site_has_no_comparison_and_other_answers(tmp_path: Path) -> None:
    text = states(tmp_path, [EXAMPLE[2]])
    assert "Which is better, and how sure?" not in text
    for question in ("How fast is it?", "Where does the time go?", "When was it worst?", "May I trust the captures?"):
        assert question in text


@pytest.mark.parametrize(
    ("link", "sentence"),
    [
        (dataclasses.replace(EXAMPLE[2], silent=True), "No packets to or from these brokers in 9 captures: check `brokers`."),
        (dataclasses.replace(EXAMPLE[2], encrypted=True), "Encrypted: TCP figures only; latency needs a key log."),
        (
            dataclasses.replace(EXAMPLE[2], window=(START + 3600 * SECOND, START + 7200 * SECOND)),
            "Captures cover 2025-12-26 14:14:20 to 14:18:",
        ),
        (dataclasses.replace(EXAMPLE[2], per_second=1.0), "too few: 240 of 300"),
        (dataclasses.replace(EXAMPLE[2], per_second=0.01), "No minute holds the 20 requests that a p95 needs."),
    ],
    ids=["no data", "encrypted", "empty window", "too few samples", "hardly any"],
)
def test_every_state_is_a_sentence(tmp_path: Path, link: Link, sentence: str) -> None:
    assert sentence in states(tmp_path, [link])


def test_a_site_without_data_stands_beside_one_with(tmp_path: Path) -> None:
    text = states(tmp_path, [EXAMPLE[2], dataclasses.replace(EXAMPLE[3], encrypted=True)])
    assert "Encrypted: TCP figures only" in text
    assert "edge" in text


def test_an_open_window_reaches_over_the_captures(tmp_path: Path) -> None:
    assert "26 December 2025, 14:14:20 to 14:18:1" in states(tmp_path, [dataclasses.replace(EXAMPLE[2], window=(None, None))])


def test_repeated_runs_are_told_by_runs(tmp_path: Path) -> None:
    page = build(read_tree(write_tree(tmp_path, repeated_runs())))
    answer = next(one for one in page.answers if "near" in str(one.question))
    assert text_of(str(answer.question)) == "What differs between far and near?"
    said = text_of(str(answer.text))
    assert re.match(r"edge slowed from \d+\.\d to \d+\.\d ms, \d+\.?\d* ms more \(\d+\.?\d* to \d+\.?\d*\).*Over 4 and 4 runs\.$", said), (
        said
    )
    card = page.differences.cards[0]
    assert text_of(str(card.title)) == "edge, far − near"
    assert [lane.statistic for lane in card.lanes] == ["p50", "p90", "p95", "p99"]
    assert card.lanes[0].sure
    assert "4 and 4 runs" in card.words
    assert any("at edge in far is higher than in near" in sentence for sentence in card.sentences)
    assert card.figure is not None


def of_runs(site: str, condition: str, reference: str, difference: float, runs: tuple[int, int] = (4, 4)) -> RunsComparison:
    row = {
        "scope": "conditions", "site_a": site, "condition_a": condition, "condition_b": reference, "runs_a": runs[0], "runs_b": runs[1],
        "metric": "kafka_latency", "group": "all", "statistic": "p50", "sampling": "runs", "verdict": "differs", "difference": difference,
        "difference_low": difference - 2, "difference_high": difference + 2, "estimate_a": 20 + difference, "estimate_b": 20.0,
    }  # fmt: skip
    return RunsComparison([row])


def test_an_answer_about_two_conditions_tells_of_no_third_one() -> None:
    # The cloud has too few runs of the condition between: its pair is another one.
    pairs = [of_runs("edge", "far", "middle", 10.0, (5, 4)), of_runs("lab", "far", "middle", 8.0), of_runs("cloud", "far", "near", 5.0)]
    answer = what_conditions_changed(pairs)
    assert text_of(str(answer.question)) == "What differs between far and middle?"
    said = text_of(str(answer.text))
    assert "edge slowed" in said
    assert "lab slowed" in said
    assert "cloud" not in said
    assert said.endswith("And 1 more, see the table. Runs: 5 and 4 of edge, 4 and 4 of lab.")


def test_an_answer_since_one_run_of_the_baseline_tells_of_no_other_run(tmp_path: Path) -> None:
    day = 24 * 3600 * SECOND
    links = [
        dataclasses.replace(
            EXAMPLE[0], experiment=f"calm{k}", condition="calm", start=START - (3 - k) * day, delay_ms=8.0 + 20 * k, seconds=100
        )
        for k in (1, 2)
    ]
    arguments = write_tree(tmp_path, [*links, dataclasses.replace(EXAMPLE[2], seconds=100)], baseline="calm")
    answer = next(one for one in build(read_tree(arguments)).answers if "changed" in str(one.question))
    assert text_of(str(answer.question)) == "What changed since calm1?"
    said = text_of(str(answer.text))
    assert said.count("edge ") == 1, said
    assert said.endswith("And 1 more, see the table.")


def test_a_percentile_that_runs_lack_is_not_blamed_on_their_requests_together() -> None:
    row = {"sampling": "runs", "statistic": "p99", "n_a": 2_400, "n_b": 2_400, "reason": "edge in far: no run has an estimate"}
    assert too_few(row) == "no interval over runs: edge in far: no run has an estimate"


# What must not be said


def with_facts(site: Site, **facts: Any) -> Site:
    return dataclasses.replace(site, facts={**site.facts, **facts})


def what_changed(pair: Comparison, results: Results) -> str:
    alone = dataclasses.replace(results, sites=[pair.b, pair.a])
    return text_of(str(four_answers(alone, [pair], None, judge(alone, [pair]), {})[1].text))


def edge_before_and_after(results: Results, **columns: Any) -> Comparison:
    """Edge's comparison across the experiments, both sides' requests with other columns."""
    pair = next(pair for pair in comparisons(results) if pair.scope == "experiments" and pair.a.name == "edge")
    return Comparison(pair.scope, with_columns(pair.a, **columns), with_columns(pair.b, **columns), pair.rows)


def test_what_verify_found_is_shown_where_it_ran(results: Results, tmp_path: Path) -> None:
    assert quality(results).verified is None
    of = [f"{site.experiment},{site.name},9" for site in results.newest_first]
    known = f'{of[1]},500,400,row,ipv6_length_0,tshark finds no TCP,2,"a.pcap, frame 3"'
    lines = [
        f"{of[0]},1000,900,row,agrees,,1000,",
        f"{of[1]},500,400,row,agrees,,495,",
        known,
        f'{of[1]},500,400,seq,differs,,3,"b.pcap, frame 9"',
    ]
    lines += [
        f"{of[2]},70,0,row,agrees,,70,",
        'gone,gone,1,50,50,ack,differs,,4,"c.pcap, frame 9"',
    ]  # a site that is no longer in the configuration
    (tmp_path / "differences.csv").write_text(
        "\n".join(["experiment,site,captures,compared,rows,field,outcome,explanation,packets,examples", *lines])
    )
    settings = {**results.settings, "verification": {"table": str(tmp_path / "differences.csv"), "digest": ""}}
    found = quality(dataclasses.replace(results, settings=settings)).verified
    assert found is not None
    assert [said for _, said in found.sites] == [
        "1,000 packets of 9 captures decoded by Wireshark, too, 900 of them to or from a broker: every field agrees",
        "500 packets of 9 captures decoded by Wireshark, too, 400 of them to or from a broker: 5 differences, 3 without an explanation",
        "70 packets of 9 captures decoded by Wireshark, too, none of them to or from a broker: there was little to compare",
    ]
    assert [(one.why, one.fields, one.packets) for one in found.differences] == [
        ("not explained", "seq", "3"),
        ("tshark finds no TCP", "row", "2"),
    ]
    page = write_report(tmp_path, verification=settings["verification"]).read_text()
    assert "every field agrees." in page and "b.pcap, frame 9" in page


def test_no_cause_is_taken_from_a_mean_that_moved_against_the_median(results: Results) -> None:
    pair = edge_before_and_after(results)
    assert "accounts for all of it" in what_changed(pair, results)
    outlier = pl.when(pl.int_range(pl.len()) < 5).then(1e5).otherwise(0.0) + pl.col("latency_ms")
    means_fell = Comparison(pair.scope, pair.a, with_columns(pair.b, latency_ms=outlier, total_ms=outlier), pair.rows)
    said = what_changed(means_fell, results)
    assert "edge slowed from" in said
    assert "account" not in said
    assert "together with" not in said


def test_an_unknown_part_is_neither_steady_nor_singular(results: Results) -> None:
    nothing = pl.lit(None, pl.Float64)
    pair = edge_before_and_after(results, broker_ms=nothing, network_rtt_ms=nothing)
    a, b = (with_facts(site, tap_found="middle") for site in (pair.a, pair.b))
    said = what_changed(Comparison(pair.scope, a, b, pair.rows), results)
    assert "The network and broker together account for all of it." in said
    assert "did not change" not in said


def test_a_curve_is_titled_by_its_own_figures_only(results: Results) -> None:
    title = text_of(str(distributions(results, [], SiteColours(results.site_names)).figures[0].title))
    assert re.fullmatch(r"Half of edge’s requests within 5\d\.\d ms, of cloud’s within 7\d\.\d ms", title)


def test_a_tail_of_few_requests_has_no_title(tmp_path: Path) -> None:
    text = states(tmp_path, [dataclasses.replace(EXAMPLE[2], per_second=0.2)])
    assert "Too few requests for a word on the tail" in text
    assert "times its median" not in text


def test_a_fetch_whose_records_were_not_read_did_not_come_back_empty(results: Results) -> None:
    none = pl.lit(None, pl.Int64)
    unread = with_columns(results.sites[0], record_count=none, record_bytes=none)
    found = {one.name: one.values for one in latency.by_api([unread])}
    assert len(found["Fetch"][unread.key]) == unread.requests.filter(pl.col("api_name") == "Fetch").height
    assert not {"Fetch/empty", "Fetch/with_data"} & set(found)
    shared = with_columns(results.sites[0], api_name=pl.col("api_name").replace("Fetch", "ShareFetch"))
    assert "ShareFetch" in {one.name for one in latency.by_api([shared])}
    read = {one.name for one in latency.by_api([results.sites[0]])}
    assert {"Fetch/empty", "Fetch/with_data"} <= read
    assert "Fetch" not in read


def checked(a: Site, b: Site) -> dict[str, Check]:
    return {check.fact: check for check in checks_of(Comparison("sites", a, b, []))}


def summary(a: Site, b: Site, results: Results) -> tuple[str, str]:
    alone = dataclasses.replace(results, sites=[a, b])
    judged = judge(alone, [Comparison("sites", a, b, [])])
    return text_of(str(judged.sentences)), text_of(str(judged.captures))


def test_what_neither_side_shows_is_not_alike(results: Results) -> None:
    silent, other = (
        dataclasses.replace(
            with_columns(site, acks=pl.lit(None, pl.Int64)),
            connections=site.connections.with_columns(client_software=pl.lit(None, pl.String)),
        )
        for site in results.sites[2:]
    )
    checks = checked(silent, other)
    assert checks["Client software"].grade == checks["Produce asks acknowledgement of"].grade == "unknown"
    assert checks["Client software"].word == "not known"
    assert "client software" not in summary(silent, other, results)[0]
    assert checked(results.sites[2], other)["Client software"].grade == "unknown"
    assert checked(*results.sites[2:])["Client software"].grade == "ok"


def test_a_loss_that_is_not_known_is_not_nothing(results: Results) -> None:
    a, b = results.sites[2:]
    unknown = with_facts(a, capture_loss=None), with_facts(b, capture_loss=None)
    assert checked(*unknown)["Lost by the capture"].grade == "unknown"
    assert not any("lost nothing" in said for said in summary(*unknown, results))
    assert all("lost nothing" in said for said in summary(a, b, results))
    assert checked(with_facts(a, capture_loss=0.02), unknown[1])["Lost by the capture"].grade == "no"


def with_metrics(site: Site, values: dict[tuple[str, str, str], float]) -> Site:
    return dataclasses.replace(
        site, metrics={**site.metrics, **{key: Metric(value, None, None, 1000, "") for key, value in values.items()}}
    )


def test_what_speaks_against_the_figures_stands_beside_them(results: Results) -> None:
    """Loss of the capture beside loss of the network, a tap that is not where it was said to be, offload, copies, a connection under two addresses."""
    site = results.sites[0]
    assert not any(
        word in note for row in quality(results).sites for note in row.notes for word in ("configured", "offload", "copies", "addresses")
    )
    capture = str(site.captures[0]["capture"])
    doubtful = with_metrics(
        with_facts(site, tap_configured="broker", tap_found="client"),
        {
            ("capture_loss", "all", "ratio_of_sums"): 0.004,
            ("capture_loss", f"capture={capture}", "ratio_of_sums"): 0.03,
            ("retransmissions", "place=before_tap", "ratio_of_sums"): 0.02,
            ("large_segments", "all", "ratio_of_sums"): 0.25,
            ("duplicates", "all", "count"): 12,
            ("duplicate_gap", "all", "p50"): 0.02,
            ("nat_twins", "all", "count"): 1,
            ("zero_windows", "all", "count"): 3,
            ("zero_window_time", "all", "sum"): 40.0,
            ("window_limited_time", "all", "sum"): 61_000.0,
        },
    )
    others = dataclasses.replace(results, sites=[doubtful])
    (row,) = quality(others).sites
    notes = "; ".join(row.notes)
    assert "configured as captured at the broker, but round trips say client" in notes
    assert "25.00 % of data segments are larger than the wire carries (offload)" in notes
    assert "12 copies of packets left out" in notes
    assert "1 connection captured under two addresses" in notes
    (cells,) = [one.cells for one in network(others, SiteColours([doubtful.name])).rows]
    before = cells[[column.heading for column in COLUMNS].index("Lost before tap")]
    assert (before.value, before.kind) == ("2.00 %", "soft")
    assert "0.40 % not captured" in before.small
    closed, full = (cells[[column.heading for column in COLUMNS].index(heading)] for heading in ("Zero windows", "Window full"))
    assert ((closed.value, closed.small), full.value) == (("3", "40.0 ms"), "61 s")
    assert doubtful_loss(doubtful, 0.02) == 0.004
    assert doubtful_loss(doubtful, 0.2) is None
    of_capture = [one.note for one in quality(others).captures if one.capture == capture]
    assert "3.00 % of acknowledged bytes not captured" in of_capture[0]


def test_what_of_kafka_could_not_be_read_is_noted(results: Results) -> None:
    assert {kind for kind, *_ in tables.FRAME_ODDITIES} == set(FRAME_ODDITIES), "each has words"
    assert set(keep.ODDITIES) == set(CAPTURE_ODDITIES)
    assert set(layers.SKIPPED) == set(SKIPPED_WORDS)
    site = results.sites[0]
    assert not any(word in note for row in quality(results).sites for note in row.notes for word in ("encrypted", "SASL", "frames"))
    unread = with_metrics(
        site,
        {
            ("connections_encrypted", "all", "count"): 20,
            ("connections_sasl", "all", "count"): 30,
            ("frame_bytes_missing", "all", "sum"): 12_300,
            ("frame_bytes_missing", "all", "ratio_of_sums"): 0.0123,
            ("frame_oddities", "kind=malformed_frames", "count"): 2,
            ("frame_oddities", "kind=lost_chains", "count"): 3,
        },
    )
    odd = dataclasses.replace(unread, captures=[{**site.captures[0], "odd": {"unusable_lengths": 4}}])
    found = quality(dataclasses.replace(results, sites=[odd]))
    notes = found.sites[0].notes
    assert "20 of 1,000 connections encrypted" in notes
    assert "30 of 1,000 connections with SASL" in notes
    assert "12.3 kB of frames not captured (1.23 %)" in notes
    assert "Kafka frames: 3 times looked for anew, 2 malformed" in notes
    assert "4 lengths that no frame has" in found.captures[0].note


def served(results: Results, *sites: Site) -> Clients:
    chosen = dataclasses.replace(results, sites=sites or results.sites)
    return clients(chosen, SiteColours(chosen.site_names), {})


def cells(table: NamedTable, group: int, row: int) -> dict[str, str]:
    """A row's values by heading."""
    values = [cell.value for cell in table.groups[group].rows[row].cells]
    return dict(zip([column.heading for column in table.columns], values, strict=True))


def test_clients_are_named_counted_and_timed(results: Results) -> None:
    """The latest experiment first; one client a site, which sends all requests."""
    section = served(results)
    site = results.site("experiment08", "cloud")
    assert site is not None
    group = section.clients.groups[1]
    assert group.site is site
    assert [(text_of(row.name), row.small) for row in group.rows] == [("control", "librdkafka 2.10")]
    p50 = latency.quantile(site.latencies, 0.5)
    assert p50 is not None
    row = cells(section.clients, 1, 0)
    assert row["Requests"] == f"{site.requests.height:,}"
    assert float(row["Latency p50"]) == pytest.approx(p50, abs=0.05)
    assert section.lead == "2 clients, 1 topic."


def test_what_did_not_happen_is_a_sentence_and_no_column(results: Results) -> None:
    quiet = served(results)
    answers = sum(site.requests.height for site in results.sites)
    assert f"No errors in {answers:,} answers to 2 clients." in quiet.quiet
    assert "Producer retries cannot be seen: no captured batch has a producer’s id." in quiet.quiet
    headings = {column.heading for column in (*quiet.columns, *quiet.clients.columns)}
    assert not headings & {"Errors", "Throttled", "Producer retries", "Consumer lag"}
    edge = with_metrics(
        results.sites[0],
        {
            ("request_errors", "all", "count"): 12,
            ("request_errors", "api=Produce", "count"): 12,
            ("request_errors", "client=sensors", "count"): 12,
            ("producer_retries", "all", "count"): 0,
            ("producer_retries", "client=sensors", "count"): 0,
        },
    )
    loud = served(results, edge, results.sites[1])
    assert not any("errors" in said for said in loud.quiet)
    assert "No producer retries seen in 1,000 requests of 1 client." in loud.quiet
    assert cells(loud.clients, 0, 0)["Errors"] == "12"
    assert cells(loud.clients, 1, 0)["Errors"] == "0"
    (of_site,) = [row.cells for row in loud.rows if row.site is edge]
    errors = of_site[[column.heading for column in loud.columns].index("Errors")]
    assert (errors.value, errors.small, errors.kind) == ("12", "12 Produce", "bad")


def test_clients_with_trouble_are_not_among_those_that_wait_for_a_click(results: Results) -> None:
    """Twenty clients at each of twelve sites: the last of them has all the errors."""
    numbers = {("requests", f"client=c{i:02d}", "count"): 1000.0 - i for i in range(20)}
    errors = {("request_errors", group, "count"): 5.0 for group in ("all", "client=c19")}
    site = with_metrics(results.sites[0], {**numbers, **errors, ("requests", "client=other", "count"): 9000.0})
    table = served(results, *(dataclasses.replace(site, name=f"s{i:02d}") for i in range(12))).clients
    rows = table.groups[0].rows
    assert text_of(rows[0].name) == "c19"
    assert text_of(rows[-1].name) == "others, or without a client id"
    assert [row.hidden for row in rows] == [False] * LEAST + [True] * (len(rows) - LEAST)
    assert (table.shown, table.written, table.total) == (12 * LEAST, 12 * 22, 12 * 22)
    many = served(results, *(dataclasses.replace(site, name=f"s{i:02d}") for i in range(100))).clients
    assert (many.written, many.total) == (500, 2200)


def test_a_topic_id_has_the_name_that_any_site_of_the_experiment_tells(tmp_path: Path) -> None:
    links = [dataclasses.replace(link, topic=TOPIC_ID) for link in EXAMPLE[1:]]
    arguments = write_tree(tmp_path, links)
    found = read_tree(arguments)
    named = {group.site.key: [(text_of(row.name), row.small) for row in group.rows] for group in served(found).topics.groups}
    assert named["experiment08", "cloud"] == [("sensors", f"id {TOPIC_ID}")]
    assert named["experiment07", "cloud"] == [(TOPIC_ID, "")], "that experiment tells no name"


def test_a_name_of_another_cluster_is_not_taken(tmp_path: Path) -> None:
    arguments = write_tree(tmp_path, [dataclasses.replace(EXAMPLE[3], topic=TOPIC_ID)])
    path = Path(arguments["topics"][0])
    elsewhere = pl.read_parquet(path).with_columns(cluster=pl.lit("elsewhere"))
    tables.write(elsewhere.to_arrow(), path, "topics", {})
    found = read_tree(arguments)
    assert [text_of(row.name) for row in served(found).topics.groups[0].rows] == [TOPIC_ID]


def test_clusters_without_a_name_of_their_own_do_not_differ(results: Results) -> None:
    earlier, later = results.sites[0], results.sites[2]
    assert checked(earlier, later)["Kafka cluster"].grade == "unknown"
    named = with_facts(earlier, cluster="old"), with_facts(later, cluster="new")
    assert checked(*named)["Kafka cluster"].grade == "caution"
    assert checked(named[0], with_facts(later, cluster="old"))["Kafka cluster"].grade == "ok"


def best_of(results: Results, medians: list[float], verdict: str) -> str:
    sites = [
        dataclasses.replace(
            results.sites[2],
            name=f"s{i}",
            metrics={**results.sites[2].metrics, ("kafka_latency", "all", "p50"): Metric(median, None, None, 9, "ms")},
        )
        for i, median in enumerate(medians)
    ]
    row = comparisons(results)[0].row("p50")
    assert row is not None
    pairs = [Comparison("sites", a, b, [{**row, "verdict": verdict}]) for i, a in enumerate(sites) for b in sites[i + 1 :]]
    alone = dataclasses.replace(results, sites=sites)
    return text_of(str(four_answers(alone, pairs, None, judge(alone, pairs), {})[0].text))


def test_pairs_that_were_not_compared_are_not_counted(results: Results) -> None:
    for verdict in ("not_comparable", "too_few_samples"):
        said = best_of(results, [1.0, 2.0, 3.0], verdict)
        assert "no pair could be compared; medians: s0 (1.00 ms), s1 (2.00 ms) and s2 (3.00 ms)." in said
        assert "differ in the median" not in said
        assert "lowest" not in said
    assert "0 of 3 compared pairs differ in the median." in best_of(results, [1.0, 2.0, 3.0], "undecided")


def test_sites_that_tie_are_all_named(results: Results) -> None:
    assert "s0 and s1 have the lowest median, 1.00 ms; the highest has s2 (3.00 ms)." in best_of(results, [1.0, 1.0, 3.0], "undecided")
    assert "all have a median of 1.00 ms." in best_of(results, [1.0, 1.0, 1.0], "undecided")


def test_a_window_between_requests_is_not_a_wrong_address(tmp_path: Path) -> None:
    window = START + 230 * SECOND, START + 231 * SECOND
    late = dataclasses.replace(EXAMPLE[2], per_second=0.05, window=window)
    arguments = write_tree(tmp_path, [late])
    site = read_tree(arguments).sites[0]
    assert site.requests.height == 0
    assert why_no_latency(site) == f"No Kafka request inside the window; the captures hold {site.requests_captured} requests outside."
    assert site.requests_captured == 18


def test_data_that_is_not_kafka_is_called_so(results: Results) -> None:
    site = results.sites[2]
    unread = dataclasses.replace(site, requests=site.requests.clear(), requests_captured=0)
    assert why_no_latency(unread) == "3 connections with data in 9 captures, but nothing that could be read as Kafka."
    bare = dataclasses.replace(unread, connections=unread.connections.with_columns(payload_bytes_to_broker=pl.lit(0)))
    assert why_no_latency(bare) == "No Kafka requests to these brokers in 9 captures: check `brokers`."


def test_packets_of_the_first_line_are_those_inside_the_window(tmp_path: Path) -> None:
    link = dataclasses.replace(EXAMPLE[2], window=(START + 60 * SECOND, START + 120 * SECOND))
    arguments = write_tree(tmp_path, [link])
    found = read_tree(arguments)
    packets = pl.read_parquet(arguments["packets"])["timestamp"].cast(pl.Int64)
    inside = packets.is_between(START + 60 * SECOND, START + 120 * SECOND).sum()
    assert 0 < inside < len(packets)
    assert f"{inside:,} packets" in build(found).measured


def one_slow_stretch(site: Site, start: int, seconds: float, slow_from: int) -> Site:
    """Fifty requests a second over a window, slow from that moment on."""
    times = start + np.arange(int(50 * seconds), dtype=np.int64) * SECOND // 50
    prompt = site.requests.filter(pl.col("status") == "answered", ~pl.col("waits_by_design"), pl.col("latency_ms").is_not_null())
    rows = prompt.head(1).select(pl.all().repeat_by(len(times)).explode())
    requests = rows.with_columns(request_first=pl.Series(times), latency_ms=pl.Series(np.where(times >= slow_from, 500.0, 1.0)))
    return dataclasses.replace(with_facts(site, window_start=start, window_end=start + int(seconds * SECOND)), requests=requests)


def test_the_last_seconds_of_a_window_are_in_a_minute(results: Results) -> None:
    site = one_slow_stretch(results.sites[2], START, 124.0, START + 241 * SECOND // 2)
    worst = latency.worst_minute(site)
    assert worst is not None
    assert worst.p95 == 500.0
    assert worst.end == START + 124 * SECOND


def test_a_short_window_ends_where_it_ends(results: Results) -> None:
    site = one_slow_stretch(results.sites[2], START + SECOND // 4, 0.5, START)
    worst = latency.worst_minute(site)
    assert worst is not None
    assert worst.end == START + 3 * SECOND // 4
    alone = dataclasses.replace(results, sites=[site])
    said = text_of(str(four_answers(alone, [], worst, judge(alone, []), {})[2].text))
    assert "edge, 14:14:20.250 to 14:14:20.750 on 26 December 2025" in said
    assert Zone("UTC").span(START, START + 1_500_000) == "26 December 2025, 17:14:20.000000 to 17:14:20.001500"


# The file


def test_nothing_is_loaded_and_only_these_scripts_may_run(html: str) -> None:
    assert not re.findall(
        r"<(?:script|img|iframe|object|embed)\b[^>]*\bsrc=|<link\b|@import|url\((?!#)",
        re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL),
    )
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', html)
    assert policy is not None
    scripts = re.findall(r"<script(?: type=\"module\")?>(.*?)</script>", html, flags=re.DOTALL)
    hashes = {"'sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() + "'" for script in scripts}
    assert len(scripts) == 3
    assert hashes == set(re.findall(r"'sha256-[^']+'", policy[1].replace("&#39;", "'")))
    assert "unsafe-eval" not in policy[1]


def test_every_link_in_the_page_leads_somewhere(html: str) -> None:
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', html)) <= set(ids)


def test_specifications_are_json_and_follow_the_theme(html: str) -> None:
    specs = [json.loads(text) for text in re.findall(r'<script type="application/json" id="spec-[^"]+">(.*?)</script>', html)]
    assert len(specs) > 10
    assert not {name for text in re.findall(r"var\(--([a-z0-9-]+)\)", json.dumps(specs)) for name in [text]} - set(PALETTE)
    for spec in specs:
        assert spec["datasets"]["rows"]
        assert "image" not in json.dumps(spec["layer"] if "layer" in spec else spec["encoding"])


def test_the_same_results_give_the_same_bytes(arguments: dict[str, Any], html: str, tmp_path: Path) -> None:
    again = tmp_path / "index.html"
    report(**arguments | {"output": str(again), "specifications": str(tmp_path / "figures.json")})
    assert again.read_text(encoding="utf-8") == html
    assert len(html.encode()) < 5_000_000


def test_hostile_names_are_text(tmp_path: Path) -> None:
    links = [
        dataclasses.replace(EXAMPLE[2], client_id=HOSTILE, topic=HOSTILE, capture="a<b>&\u202ec"),
        dataclasses.replace(EXAMPLE[3], client_id="=cmd()"),
    ]
    arguments = write_tree(
        tmp_path, links, title=HOSTILE, events=[{"experiment": "experiment08", "at": START + 60 * SECOND, "label": HOSTILE}]
    )
    report(**arguments)
    html = Path(arguments["output"]).read_text(encoding="utf-8")
    assert HOSTILE not in html
    assert "<img" not in re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL)
    assert "a<b>&\\u202ec-00.pcap" in text_of(html)
    section = html[html.index('<section id="clients">') : html.index('<section id="connections">')]
    assert section.count(f"<bdi>{escape(HOSTILE)}</bdi>") == 2, "a client and a topic"


def test_fifty_sites_stay_small_and_short(fifty_sites: Path) -> None:
    html = fifty_sites.read_text(encoding="utf-8")
    assert len(html.encode()) < 5_000_000
    assert html.count('<tr class="extra">') == 38
    assert html.count("Show all 50") == 3, "the headline, clients and topics"
    assert html.count('<tbody class="extra">') == 2 * 38
    assert "p95 over time by site" in html  # the heat map instead of fifty strips
    assert html.count('id="timeline-') == 1


# Numbers and names


def test_names_show_what_is_there() -> None:
    assert visible("a\u202eb\x00\n") == "a\\u202eb\\x00\\n"
    assert visible("Köln 東京 €") == "Köln 東京 €"
    assert name("<b>") == "<bdi>&lt;b&gt;</bdi>"


def test_numbers() -> None:
    assert fixed(-1234.5, 1) == "−1,234.5"
    assert fixed(-0.04, 1) == "0.0"
    assert fixed(None) == "–"
    assert percent(0.0004) == "0.04 %"
    assert percent(0.0) == "0 %"


def test_json_for_a_script_cannot_leave_it() -> None:
    text = json_for_script({"a": "</script><!--\u2028&"})
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == {"a": "</script><!--\u2028&"}
    with pytest.raises(ValueError, match="JSON"):
        json_for_script(float("nan"))


def test_experiments_are_told_apart_by_what_differs() -> None:
    assert shortened(["experiment07", "experiment08"]) == {"experiment07": "07", "experiment08": "08"}
    assert shortened(["run1", "run12"]) == {"run1": "run1", "run12": "run12"}
    assert shortened(["e1", "e2"]) == {"e1": "e1", "e2": "e2"}
    assert shortened(["2025-run-a", "2025-run-b"]) == {"2025-run-a": "run-a", "2025-run-b": "run-b"}
    assert shortened(["a", "b"]) == {"a": "a", "b": "b"}
    assert shortened(["run", "run-late"]) == {"run": "run", "run-late": "run-late"}


@given(st.floats(0.001, 1e6), st.floats(1.5, 1e6))
def test_log_ticks_lie_inside_and_are_few(low: float, factor: float) -> None:
    ticks = ticks_125(low, low * factor)
    assert all(low <= tick <= low * factor for tick in ticks)
    assert len(ticks) <= 8


@given(st.lists(st.floats(-1e5, 1e5), min_size=1, max_size=8))
def test_symmetric_log_scale_holds_all_and_zero(values: list[float]) -> None:
    scale = Symlog.over(values)
    assert all(0 <= scale.share(value) <= 1 for value in [0.0, *values])
    assert 0.0 in scale.ticks()
    assert all(scale.low <= tick <= scale.high for tick in scale.ticks())


# Time


@pytest.mark.parametrize(
    ("zone", "words", "clock"),
    [
        ("-03:00", "UTC−03:00", "14:14:20"),
        ("+05:30", "UTC+05:30", "22:44:20"),
        ("UTC", "UTC", "17:14:20"),
        ("Asia/Tokyo", "Asia/Tokyo (UTC+09:00)", "02:14:20"),
    ],
)
def test_zones_in_words_and_on_the_wall(zone: str, words: str, clock: str) -> None:
    local = Zone(zone)
    assert local.words(START) == words
    assert local.clock(START) == clock
    wall = datetime.fromtimestamp(int(local.wall_ms(np.array([START]))[0]) / 1000, UTC)
    assert wall.strftime("%H:%M:%S") == clock


def test_wall_time_over_a_change_of_clocks() -> None:
    before = int(datetime(2025, 10, 26, 0, 59, 59, tzinfo=UTC).timestamp()) * SECOND
    times = before + np.arange(4, dtype=np.int64) * SECOND
    expected = [
        datetime.fromtimestamp(t / SECOND, UTC).astimezone(ZoneInfo("Europe/Berlin")).replace(tzinfo=UTC).timestamp() * 1000
        for t in times.tolist()
    ]
    assert Zone("Europe/Berlin").wall_ms(times).tolist() == expected


# Points of curves


@given(st.integers(1, 200_000))
def test_ranks_of_a_curve_are_few_and_hold_the_percentiles(n: int) -> None:
    ranks = latency.curve_ranks(n)
    assert 1 <= ranks[0] <= ranks[-1] <= n
    assert ranks[-1] == n
    assert len(ranks) <= 400
    assert {int(np.ceil(q * n - 1e-9)) for q in latency.PRINTED} <= set(ranks.tolist())


def test_percentiles_by_time_are_those_of_the_bins(results: Results) -> None:
    site = next(site for site in results.sites if site.key == ("experiment08", "edge"))
    bins = latency.by_time(site)
    assert bins is not None
    assert bins.seconds == 10
    times, values = site.answered["request_first"].to_numpy(), site.answered["latency_ms"].to_numpy()
    for start, count, p95 in zip(bins.start, bins.count, bins.p95, strict=True):
        inside = values[(times >= start) & (times < start + 10 * SECOND)]
        assert len(inside) == count
        assert p95 == np.quantile(inside, 0.95, method="inverted_cdf")


def test_the_worst_minute_is_the_worst(results: Results) -> None:
    site = next(site for site in results.sites if site.key == ("experiment08", "edge"))
    worst = latency.worst_minute(site)
    assert worst is not None
    assert site.span is not None
    times, values = site.answered["request_first"].to_numpy(), site.answered["latency_ms"].to_numpy()
    found = []
    for start in range(site.span[0], site.span[1] - 60 * SECOND + 1, 5 * SECOND):
        inside = values[(times >= start) & (times < start + 60 * SECOND)]
        if len(inside) >= 20:
            found.append((float(np.quantile(inside, 0.95, method="inverted_cdf")), -start))
    assert (worst.p95, -worst.start) == max(found)


def test_parts_add_up_to_the_mean(results: Results) -> None:
    for site in results.sites:
        means = latency.parts(site)
        assert means is not None
        assert sum(means.values()) == pytest.approx(site.answered["total_ms"].mean(), rel=1e-6)


def with_columns(site: Site, **columns: Any) -> Site:
    return dataclasses.replace(site, requests=site.requests.with_columns(**columns))


def test_a_part_that_a_tap_cannot_tell_is_unknown(results: Results) -> None:
    nothing = pl.lit(None, pl.Float64)
    blind = with_columns(results.sites[2], broker_ms=nothing, network_rtt_ms=nothing)
    at_client = latency.parts(blind)
    assert at_client is not None
    assert at_client["network"] > 0  # the waits for retransmissions
    means = latency.parts(dataclasses.replace(blind, facts={**blind.facts, "tap_found": "unknown"}))
    assert means is not None
    assert means["network"] == means["broker"] == 0
    assert means["unknown"] > 0


def test_broker_times_that_came_out_negative_do_not_raise_the_mean(results: Results) -> None:
    """1 ms in the broker, round trips measured 3 ms off either way: half of the rows have null, and the mean is still 1 ms."""
    off = pl.when(pl.int_range(pl.len()) % 2 == 0).then(3.0).otherwise(-3.0)
    seen = pl.col("latency_ms") - (1.0 + off)
    measured = with_columns(results.sites[0], retransmitted=pl.lit(value=False), queue_ms=pl.lit(0.0), network_rtt_ms=seen)
    site = with_columns(measured, broker_ms=pl.when(1.0 + off >= 0).then(1.0 + off))
    assert site.answered["broker_ms"].null_count() > 100
    means = latency.parts(site)
    assert means is not None
    assert means["broker"] == pytest.approx(1.0, abs=0.3)
    assert means["unknown"] == 0


def with_deliveries(tmp_path: Path, rows: list[dict[str, Any]]) -> Results:
    """The later experiment's two sites with these rows of `deliveries`."""
    arguments = write_tree(tmp_path, EXAMPLE[2:])
    write_deliveries(rows, EXAMPLE[2:], tmp_path / "results")
    return read_tree(arguments)


def test_a_route_has_its_latency_and_parts_that_add_up_to_it(results: Results) -> None:
    section = deliveries(results)
    assert {(row.route.site.experiment, row.route.produce_site, row.route.site.name) for row in section.rows} == {
        (experiment, a, b) for experiment in ("experiment07", "experiment08") for a in ("edge", "cloud") for b in ("edge", "cloud")
    }
    route = next(row.route for row in section.rows if (row.route.label(results)) == "edge → cloud 08")
    found = means(route)
    # 42 ms to the broker, 70.2 to the consumer, 1 in the broker, 0.5 in the log, in nine of ten; the tenth takes 200 ms more and cannot be taken apart.
    assert sum(found.values()) == pytest.approx(route.metric("delivery", "mean").value)
    assert found["to the broker"] == pytest.approx(0.9 * 42) and found["to the consumer"] == pytest.approx(0.9 * 70.2)
    assert found["unknown"] == pytest.approx(0.1 * (42 + 70.2 + 1 + 200), abs=0.1)
    assert not section.others and "no record is fetched" not in str(section.clocks)


def test_clocks_that_nothing_relates_are_said_to_be(tmp_path: Path) -> None:
    edge, cloud = EXAMPLE[2:]
    bounded = with_deliveries(tmp_path / "bounded", [*deliveries_of(edge, cloud, clock=41.0), *deliveries_of(edge, edge)])
    section = deliveries(bounded)
    assert "they are wrong by 41.0 ms at most" in section.clocks[0]
    assert [row.cells[-1].small for row in section.rows] == ["one clock", "not related"]
    assert means(section.rows[1].route)["unknown"] == pytest.approx(section.rows[1].route.metric("delivery", "mean").value)
    unbounded = deliveries(with_deliveries(tmp_path / "unbounded", deliveries_of(edge, cloud, clock=None)))
    assert "nothing bounds" in unbounded.clocks[0] and unbounded.rows[0].cells[-1].value == "–"


def test_deliveries_that_the_clocks_forbid_are_counted(tmp_path: Path) -> None:
    """As with a wrong ``clock_offset_ms``: no figure is shown without saying of how many batches it is not."""
    edge, cloud = EXAMPLE[2:]
    rows = [*deliveries_of(edge, cloud), *deliveries_of(edge, edge)]
    for row in rows[:7]:
        row |= {name: None for name in row if name.endswith("_ms") and name != "clock_uncertainty_ms"} | {
            "status_reason": "clocks_contradict"
        }
    section = deliveries(with_deliveries(tmp_path, rows))
    assert [row.cells[-1].small for row in section.rows] == ["one clock", "contradict each other"]
    (said,) = (plain(said) for said in section.clocks if "have no time" in said)
    assert said == (
        "edge → cloud (experiment08): 7 of 60 batches came before they were sent, by the clocks, and have no time: "
        "the clocks are not as configured or estimated, or one was set meanwhile."
    )


def test_batches_that_are_no_deliveries_are_counted_with_their_reasons(tmp_path: Path) -> None:
    edge, cloud = EXAMPLE[2:]
    lost = [
        row | {"fetch_site": None, "fetched_at": None, "status": "not_fetched", "status_reason": "behind_last_fetch"}
        for row in deliveries_of(edge, cloud)
    ]
    alone = [
        row | {"produce_site": None, "produced_at": None, "status": "produce_not_captured", "status_reason": "offsets_reused"}
        for row in deliveries_of(edge, cloud)
    ]
    section = deliveries(with_deliveries(tmp_path, lost[:5] + alone[:1]))
    assert section.rows == [] and section.state == "No record was seen both produced and fetched inside the window."
    assert [plain(said) for said in section.others] == [
        "Produced at edge (experiment08) and not seen fetched anywhere: 5 batches: behind last fetch (5).",
        "Fetched at cloud (experiment08) and not seen produced anywhere: 1 batch: offsets reused (1).",
    ]


def test_gaps_of_a_timeline_stay_gaps(results: Results) -> None:
    site = results.sites[2]
    bins = latency.Bins(10, START + np.array([0, 10, 40], dtype=np.int64) * SECOND, np.array([1, 1, 1]), np.ones(3), np.ones(3))
    assert site.span is not None
    spec = charts.timeline(site, bins, site.span, (1.0, 10.0), None, "var(--s1)", "x")
    rows = spec["datasets"]["rows"]
    assert [row["piece"] for row in rows] == [1, 1, 1, 2, 2]  # each piece ends with its last bin once more
    assert rows[0]["utc"].endswith("UTC")


def test_a_latency_of_zero_stands_at_the_floor(results: Results) -> None:
    line = charts.Line("edge", np.array([0.0, 1.0, 2.0]), "var(--s1)", "var(--t1)", 0)
    spec = charts.ecdf([line], (0.5, 3.0), "x", labelled=True)
    assert min(row["ms"] for row in spec["datasets"]["rows"]) > 0


def test_answers_name_a_baseline(arguments: dict[str, Any], tmp_path: Path) -> None:
    found = write_tree(tmp_path, EXAMPLE, baseline="experiment07")
    page = build(read_tree(found))
    assert page.answers[1].question == "What changed since <bdi>experiment07</bdi>?"


@pytest.mark.parametrize(
    ("bounds", "title"),
    [
        ([(-2, -1)] * 10, "a is faster than b at every percentile that both can carry"),
        ([(1, 2)] * 10, "a is slower than b at every percentile that both can carry"),
        ([(-2, -1)] * 6 + [(-1, 1)] * 4, "a is faster than b up to p60; beyond, no difference was found"),
        ([(-2, -1)] * 6 + [(-1, 1)] * 2 + [(1, 2)] * 2, "a is faster than b up to p60, slower from p90 on"),
        ([(-1, 1)] * 10, "Between a and b no difference was found"),
        ([(-1, 1)] * 4 + [(-2, -1)] + [(-1, 1)] * 5, "Between a and b no difference was found at 9 of 10 percentiles"),
        ([(-1, 1)] * 4 + [(1, 2)] * 3 + [(-1, 1)] * 3, "a is slower than b between p50 and p70; elsewhere no difference was found"),
    ],
)
def test_a_difference_of_quantiles_is_titled_by_where_its_band_leaves_zero(bounds: list[tuple[float, float]], title: str) -> None:
    rows = [{"quantile": (i + 1) / 10, "low": low, "high": high} for i, (low, high) in enumerate(bounds)]
    assert difference_title(Markup("a"), Markup("b"), rows) == title


def test_a_pair_is_told_from_its_faster_side(tmp_path: Path) -> None:
    text = states(tmp_path, [EXAMPLE[3], EXAMPLE[2]])  # the slower site stands first
    assert "Cloud or edge?" in text
    assert re.search(
        r"edge is faster in the middle: median 5\d\.\d ms against 7\d\.\d ms, \d\d\.\d ms less \(95 % interval 2\d\.\d to 2\d\.\d\)", text
    )


def test_turning_a_pair_twice_changes_nothing(results: Results) -> None:
    pair = comparisons(results)[0]
    row = pair.row("p50")
    assert row is not None
    once, twice = pair.turned().row("p50"), pair.turned().turned().row("p50")
    assert once is not None
    assert twice is not None
    assert (once["difference"], once["estimate_a"], once["site_a"]) == (-row["difference"], row["estimate_b"], row["site_b"])
    assert once["difference_low"] == -row["difference_high"] <= once["difference"] <= once["difference_high"]
    assert twice["difference_low"] == row["difference_low"]
    assert twice["ratio"] == pytest.approx(row["ratio"])


def test_cases_are_shown_with_their_frames_and_a_filter_to_copy(tmp_path: Path) -> None:
    """Reset, loss and slowest requests of the later edge and cloud; hostile client ids and captures stay text."""
    hostile = '"><script>hurt()</script>' + "x" * 10_000
    links = (
        dataclasses.replace(EXAMPLE[2], client_id=hostile),
        dataclasses.replace(EXAMPLE[3], capture='<img src=x onerror="hurt()">.pcap'),
    )
    html = write_report(tmp_path, links).read_text(encoding="utf-8")
    section = html[html.index('<section id="cases">') :]
    section = section[: section.index("</section>")]
    assert section.count("<tr>") == 1 + 5 + 2 + 5 + 1
    assert "reset by the client" in section
    assert "segments sent again by the client" in section
    assert "tcp.port == 40001 &amp;&amp; tcp.port == 31289 &amp;&amp; frame.number" in section
    assert "&lt;img src=x onerror=&#34;hurt()&#34;&gt;.pcap" in section
    assert "<script" not in section and "<img" not in section
    assert "x" * 200 not in section
