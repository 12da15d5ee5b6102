"""The shipped example: the TCP figures against the hosts' own counters, and their independence of the captures."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest

from brokerlens.capture.working import Rows, read_rows
from brokerlens.tcp import order, segments, stream
from split_capture import split_capture

EXAMPLE = Path(__file__).parents[2] / "resources" / "example"
BROKERS = {"edge": "192.0.2.10:31289", "cloud": "198.51.100.10:32289"}
TRUTH: dict[str, Any] = json.loads((EXAMPLE / "truth.json").read_text())["experiments"]
SITES = [(experiment, site) for experiment in TRUTH for site in BROKERS]


def assert_equal_arrays(found: Iterable[Any], expected: Iterable[Any]) -> None:
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@cache
def rows_of_site(experiment: str, site: str) -> Rows:
    with TemporaryDirectory() as folder:
        working = []
        for capture in sorted((EXAMPLE / experiment / site).glob("*.pcap")):
            working.append(f"{folder}/{capture.name}")
            split_capture(capture=str(capture), name=capture.name, brokers=[BROKERS[site]], output=working[-1])
        return next(read_rows(working))


@cache
def followed(experiment: str, site: str) -> tuple[order.Ordered, segments.SegmentFacts, segments.ConnectionFacts]:
    rows = rows_of_site(experiment, site)
    ordered = order.order_packets(rows)
    return ordered, *segments.follow_segments(rows, ordered)


@pytest.mark.parametrize(("experiment", "site"), SITES)
def test_retransmissions_and_resets_are_those_that_the_hosts_counted(experiment: str, site: str) -> None:
    """The tap beside the client sees each of its retransmissions; the counters run a few seconds longer.

    Of the broker's it sees those that arrive. A segment lost at the end of a burst leaves no hole: sent again it looks new.
    """
    _, _, connections = followed(experiment, site)
    client, broker = TRUTH[experiment]["counters"][f"{site} client"], TRUTH[experiment]["counters"]["broker"]
    again = connections.retransmitted_segments + connections.filled_segments
    assert 0.9 * client["TcpRetransSegs"] <= again[0::2].sum() <= client["TcpRetransSegs"]
    assert again[1::2].sum() <= broker["TcpRetransSegs"]
    assert connections.filled_segments[0::2].sum() == 0  # nothing is lost between a client and its own tap
    # Nearly all were probes for a lost tail; a tail that was lost before the tap looks new when it comes, so of the broker's fewer are seen.
    assert connections.tail_probe_segments[0::2].sum() == pytest.approx(client["TcpExtTCPLossProbes"], abs=4)
    assert connections.timeout_segments[0::2].sum() <= client["TcpExtTCPTimeouts"]
    assert connections.fast_segments[0::2].sum() == client["TcpExtTCPFastRetrans"] == 0
    assert connections.dsacks[1::2].sum() == client["TcpExtTCPDSACKRecv"]
    assert connections.spurious_segments[0::2].sum() == client["TcpExtTCPDSACKRecv"]
    resets = int(connections.resets[0::2].sum())
    assert resets == client["TcpOutRsts"] if experiment == "experiment07" else resets <= client["TcpOutRsts"]
    assert connections.resets[1::2].sum() == broker["TcpOutRsts"] == 0


@pytest.mark.parametrize(("experiment", "site"), SITES)
def test_round_trips_are_those_of_the_links(experiment: str, site: str) -> None:
    ordered, facts, connections = followed(experiment, site)
    link = TRUTH[experiment]["link"][site]
    samples = facts.rtt_ns[(facts.rtt_ns >= 0) & (ordered.side == 1)] / 1e6
    assert len(samples) > 1000
    assert np.median(samples) == pytest.approx(2 * (link["one_way_delay_ms"] + 0.8 * link["jitter_ms"]), rel=0.15)
    legs = connections.handshake_broker_ns[connections.handshake_broker_ns >= 0] / 1e6
    assert len(legs) > 0
    assert legs.min() >= 2 * link["one_way_delay_ms"]
    assert samples.min() >= 2 * link["one_way_delay_ms"]
    assert {segments.TAPS[tap] for tap in connections.tap} == {"client"}
    assert connections.started.sum() == len(connections.started) - 2  # two consumers were connected before
    assert connections.unseen_bytes.sum() == 0


@pytest.mark.parametrize(("experiment", "site"), SITES)
def test_packets_that_the_capture_lost_are_its_loss_and_nobody_elses(experiment: str, site: str) -> None:
    """Without one packet in a hundred: the bytes that these carried were acknowledged unseen, and no retransmission appears that was none."""
    rows = rows_of_site(experiment, site)
    ordered, facts, connections = followed(experiment, site)
    kept = np.random.default_rng(11).random(rows.n) >= 0.01
    number = np.cumsum(kept) - 1
    runs = kept[rows.kept_row]
    thinned = rows._replace(
        columns={name: values[kept].copy() for name, values in rows.columns.items()},
        capture=rows.capture[kept].copy(),
        kept_row=number[rows.kept_row[runs]],
        kept_offset=rows.kept_offset[runs],
        kept_length=rows.kept_length[runs],
        kept_at=rows.kept_at[runs],
    )
    lost = ~kept[ordered.row]
    again = order.order_packets(thinned)
    _, connections_again = segments.follow_segments(thinned, again)
    assert connections_again.unseen_bytes.sum() == pytest.approx(int(facts.new_bytes[lost].sum()), rel=0.1, abs=100)
    before, after = ((c.retransmitted_segments + c.filled_segments) for c in (connections, connections_again))
    lost_again = int((lost & (facts.kind > 0)).sum())
    original_lost = 4  # a retransmission whose first copy was lost by the capture looks new, or fills what was acknowledged
    assert before.sum() - lost_again - original_lost <= after.sum() <= before.sum()
    assert connections_again.reordered_segments.sum() == 0


@pytest.mark.parametrize(("experiment", "site"), SITES)
def test_captures_do_not_matter(experiment: str, site: str) -> None:
    """The same packets in other captures, other order, and partly twice."""
    rows = rows_of_site(experiment, site)
    random = np.random.default_rng(5)
    n = len(rows.capture)
    chosen = np.concatenate([random.permutation(n), random.integers(0, n, n // 3)])
    columns = {name: values[chosen].copy() for name, values in rows.columns.items()}
    columns["frame_number"] = random.permutation(len(chosen)).astype(np.uint32)
    places_of: dict[int, list[int]] = {}
    for place, row in enumerate(chosen.tolist()):
        places_of.setdefault(row, []).append(place)
    kept = [(place, run) for run, row in enumerate(rows.kept_row.tolist()) for place in places_of[row]]
    places, runs = np.array(kept, np.int64).T.copy()
    other = rows._replace(
        columns=columns,
        capture=random.integers(0, 7, len(chosen)).astype(np.int32),
        kept_row=places,
        kept_offset=rows.kept_offset[runs],
        kept_length=rows.kept_length[runs],
        kept_at=rows.kept_at[runs],
    )
    ordered, facts, connections = followed(experiment, site)
    again = order.order_packets(other)
    assert again.copies == n // 3 + ordered.copies
    facts_again, connections_again = segments.follow_segments(other, again)
    for name in ("time", "position", "ack_position", "is_duplicate", "connection", "generation"):
        np.testing.assert_array_equal(getattr(again, name), getattr(ordered, name))
    assert_equal_arrays(facts_again, facts)
    for name, values in vars(connections).items():
        np.testing.assert_array_equal(getattr(connections_again, name), values)
    assert_equal_arrays(stream.assemble(other, again, facts_again), stream.assemble(rows, ordered, facts))
