"""How everything was measured: a definition per figure, settings, versions, inputs, licences of the inlined JavaScript."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata

from brokerlens.report.results import Results
from brokerlens.report.words import plural

LIBRARIES = ("altair", "vl-convert-python", "jinja2", "polars", "pyarrow", "numpy", "scipy", "arch")


@dataclass(frozen=True)
class Definition:
    """What a figure means; ``id`` is its anchor."""

    id: str
    term: str
    text: str


DEFINITIONS: tuple[Definition, ...] = (
    Definition("kafka_latency", "Kafka latency", "From the moment the tap first saw a request’s last byte to the moment it first saw the response’s first byte; retransmissions do not move either. Requests and responses are matched by correlation id within one TCP connection, their frames followed in sequence space across segments and capture files. Apis that wait by design (Fetch, ShareFetch, JoinGroup, SyncGroup) are kept apart. A request belongs to the window if its first byte does."),
    Definition("percentiles", "Percentiles and their intervals", "A percentile is the latency of a request: the smallest one that at least that share of requests does not exceed. Its 95 % interval comes from a binomial interval with an effective number of requests, because latencies depend on those before them (long-run variance of the indicator from low-frequency cosines), read back through the order statistics. It speaks of this run’s conditions continuing, for these clients; regimes rarer than this run are not in it, and one run says nothing about the next day. Where the data cannot bound a side, that side is left open (“at least”), and where there are too few requests no interval is printed."),
    Definition("share_over", "Share over a threshold", "Requests slower than the threshold, as a share of all that count; steadier than a percentile that falls on a step of the distribution."),
    Definition("differences", "Differences and comparisons", "First side minus second side. Intervals of differences and ratios of percentiles by MOVER, with what both sides share in time taken out where they ran at the same time. p values are adjusted by Holm’s method within a family: all primary rows (median and p95 of latency, median round trip, share of segments lost) of one kind of comparison. Every interval is a 95 % interval by itself. “Differs” needs an adjusted p below 0.05; “no difference found” is not “equal”; “the same within the margin” needs the whole interval inside the margin. Hodges–Lehmann is the typical difference of a request here and a request there, Cliff’s delta how often one is slower than the other, the Wasserstein distance how far apart the distributions are on average (a few long waits dominate it)."),
    Definition("parts", "Parts of latency", "Queue: the part of the latency before the connection’s previous response was complete. Broker: at a client’s tap what is left of the rest after the connection’s latest valid round trip, at a broker’s tap the whole rest. The round trip was measured at another moment, so that remainder is too short as often as too long; it counts with its sign, after a loss not at all. Network: latency − queue − broker, waits for retransmissions included. Transfer: total − latency, the time that request and response themselves took to pass. Means, because means add up. Where a tap cannot tell the broker’s part, the rest is drawn as not separable."),
    Definition("delivery", "Deliveries and their parts", "A batch is produced when the first byte of its Produce request passes its tap, and fetched when all bytes of the Fetch response up to its last one have passed the consumer’s tap; both are joined by cluster, topic, partition and the offsets of the broker’s answer, and by what a broker never changes in a batch. To the broker: until the request is whole there, half a round trip after its last byte passed. In the log: from half a round trip before the answer is back until the fetch that took it is at the broker; 0 where that was waiting. To the consumer: from half a round trip before the Fetch response’s first byte. Broker: the rest. Half of a round trip is half of the connection’s latest one, and never longer than there was time. After a retransmission, and where clocks are not related, the parts are drawn as not separable. A delivery belongs to the window by when it was produced (docs/deliveries.md)."),
    Definition("clocks", "Clocks", "A site’s own clock is exact for what it captured. Between sites it counts what the configuration says (clock_offset_ms), else an estimate from connections that were captured at both ends. Where neither is there clocks are taken as they stand, as long as causality allows that: no record is fetched before it was produced. Records in both directions bound from both sides how far that may be wrong."),
    Definition("series", "Timeline and worst minute", "p50 and p95 of the requests that began in each bin (10 s, longer for long runs), at their first byte. The worst minute is the 60 s with the highest p95 among those with at least 20 requests; minutes begin every 5 s, and one ends with the window. A mark stands for a retransmitted packet, a reset or the begin of a zero window, or several of them where they are many."),
    Definition("rtt", "Round trips", "From a segment to the first acknowledgement that covers exactly it, only where nothing in it was sent twice and no hole lay below it (Karn). To broker: tap, broker, tap. To client: tap, client, tap. The client’s own half at a client’s tap is the host’s, not the network’s."),
    Definition("both_ends", "Both ends", "Connections that one site captured at the client and another at the broker. Packets are matched by direction, sequence and acknowledgement number, length, flags, window, TCP timestamps, and the IP id where it survives the way, so that a retransmission is matched with its own copy; addresses may be translated between the taps where both initial sequence numbers and the SYN’s timestamp are the same. One way is the time at the receiver’s tap minus that at the sender’s, on one clock: the offset of the clocks is the middle of what the smallest differences of both directions leave, so that what the fastest packets take longer in one direction goes half to each. Lost is what the sender’s tap alone captured while both were capturing, of what arrived or was lost; what the receiver acknowledged, or what came in a gap of the other’s captures, is the capture’s loss and not counted. In the broker: from a request’s last byte to its answer’s first byte at the broker’s tap, less the wait for the answer before; requests that wait by design left out. docs/both-ends.md has the rest."),
    Definition("variation", "Variation", "ipdv: absolute difference of successive round trips of a connection (RFC 3393). pdv: round trip minus the connection’s smallest (RFC 5481). iat_mas: mean absolute difference of successive inter-arrival times within one connection and direction. owdv: variation of one-way delay from TCP timestamps, where both sides send them. Only packets or round trips less than an idle gap apart are neighbours: 200 ms, or four times the 95th percentile of the connection’s round trips if that is longer."),
    Definition("retransmissions", "Segments lost", "Segments that carry bytes which the tap had seen (sent again: lost, if lost, behind the tap) or that fill a hole in what it had seen (lost before the tap), as a share of data segments. Keep-alives, window probes, reordering and copies made by the capture are told apart and not counted. What made the sender send again is inferred from what it saw: three duplicate acknowledgements or as much reported selectively (fast), less of that (early), the last segment after two round trips (tail probe), or its timeout. Needless is what had arrived: acknowledged before, reported as a duplicate, or told by timestamps. Where the capture itself lost more than a tenth of the share, the share is grey."),
    Definition("zero_windows", "Zero windows", "Episodes in which a side told the other to stop sending (advertised window 0), and how long they lasted, connections added up; resets do not count. Window full: how long less than a segment’s room was left in an open window, known where both window scales were captured."),
    Definition("connections_started", "Connections set up", "Connections whose SYN was sent again before an answer, of those whose SYN was captured."),
    Definition("resets", "Resets", "RST segments, copies left out; and the connections that ended by one."),
    Definition("goodput", "Goodput", "Bytes acknowledged for the first time, per second of the window."),
    Definition("capture_loss", "Loss of the capture", "Bytes that the other side acknowledged and the capture does not hold, as a share of those acknowledged: the capture’s own loss, not the network’s."),
    Definition("requests", "Clients, topics and requests", "Requests that began inside the window, and responses whose request was not captured. A client is a client id: several processes may share one. Its software is what ApiVersions named on its connections. Of clients and topics each site has the 20 with most requests, the rest together. A request counts once in each topic that it names, fetches in a session in those of the session; a topic that a site names by id only is shown by the name that any site of the experiment tells, and the id beside it. “Answers alone” are responses without their request; Produce without acknowledgements expects no answer."),
    Definition("records", "Records", "Records in the record batches of Produce requests and Fetch responses, bytes as compressed. A record fetched by three consumers counts three times. Requests whose batches were not captured, as with a short snaplen, are unread."),
    Definition("request_errors", "Errors and throttling", "Answers whose first error code is not 0, and answers that report a throttle time above 0, of those captured. Some errors are part of normal life: a rebalance, a leader that moved. Whether a throttled client waits is its own affair."),
    Definition("producer_retries", "Producer retries", "Produce requests with a record batch that had been sent before: same producer id, epoch, partition and first sequence number (KIP-98). Only producers with an id (idempotence) can be seen to retry."),
    Definition("consumer_lag", "Consumer lag", "High watermark minus next offset after the answer, in records, at the partition of the answer where that is most; one value per answer that tells. Followers’ fetches do not count."),
    Definition("idle_polls", "Idle polls and longest wait", "An idle poll is a consumer’s fetch whose answer came without records when the wait that it had asked for was over (less 1 ms): the broker waited as told, nothing was slow. The longest wait is what consumers ask for (max_wait_ms), a budget and no delay."),
    Definition("frames", "Kafka frames", "What could not be read: frames of which bytes are missing, that do not follow their api’s layout, or that had to be looked for anew because a length was not captured; chains of frames that did not hold or that no answer confirmed give no rows. Bytes of frames missing are those of requests and responses that the capture does not hold: lost, or cut off by a short snaplen; what they say is left open. Of TLS connections without keys there are TCP’s figures only; with keys (docs/tls.md) each was decrypted, or its handshake, its key or some of its bytes are missing. A capture’s own oddities are those that it shows by itself, before captures are put together."),
    Definition("comparability", "Comparability", "Tap role, window, capture loss, client software, apis, acknowledgements, cluster and encryption of both sides. “No” where the tap roles differ, a capture misses a good part of the window or lost more than 1 %: then the numbers stand side by side and no difference is printed."),
    Definition("notebook", "Notebook figures", "Computed exactly as the notebook computed them, from the same packets, so that published numbers can be checked."),
)  # fmt: skip


@dataclass(frozen=True)
class Licence:
    """A notice for part of the inlined JavaScript."""

    parts: str
    licence: str
    holder: str


LICENCES: tuple[Licence, ...] = (
    Licence("Vega, Vega-Lite, Vega-Embed, Vega-Tooltip, Vega-Themes, Vega-Interpreter and other vega-* packages", "BSD 3-Clause", "University of Washington Interactive Data Lab and contributors"),
    Licence("d3-array, d3-color, d3-delaunay, d3-dispatch, d3-dsv, d3-force, d3-format, d3-geo, d3-geo-projection, d3-hierarchy, d3-interpolate, d3-path, d3-scale, d3-scale-chromatic, d3-shape, d3-time, d3-time-format, d3-timer", "ISC (some parts BSD 3-Clause)", "Mike Bostock"),
    Licence("topojson-client, internmap, delaunator", "ISC", "Mike Bostock; Mapbox"),
    Licence("robust-predicates", "Unlicense", "Vladimir Agafonkin"),
    Licence("fast-deep-equal, fast-json-patch, json-stringify-pretty-compact, semver, lru-cache, yallist, tslib", "MIT, ISC or 0BSD", "their authors"),
)  # fmt: skip

NOTICES: Mapping[str, str] = {
    "BSD 3-Clause": "Redistribution and use in source and binary forms, with or without modification, are permitted provided that the following conditions are met: 1. Redistributions of source code must retain the copyright notice, this list of conditions and the following disclaimer. 2. Redistributions in binary form must reproduce the copyright notice, this list of conditions and the following disclaimer in the documentation and/or other materials provided with the distribution. 3. Neither the name of the copyright holder nor the names of its contributors may be used to endorse or promote products derived from this software without specific prior written permission. THIS SOFTWARE IS PROVIDED BY THE COPYRIGHT HOLDERS AND CONTRIBUTORS “AS IS” AND ANY EXPRESS OR IMPLIED WARRANTIES, INCLUDING, BUT NOT LIMITED TO, THE IMPLIED WARRANTIES OF MERCHANTABILITY AND FITNESS FOR A PARTICULAR PURPOSE ARE DISCLAIMED. IN NO EVENT SHALL THE COPYRIGHT HOLDER OR CONTRIBUTORS BE LIABLE FOR ANY DIRECT, INDIRECT, INCIDENTAL, SPECIAL, EXEMPLARY, OR CONSEQUENTIAL DAMAGES (INCLUDING, BUT NOT LIMITED TO, PROCUREMENT OF SUBSTITUTE GOODS OR SERVICES; LOSS OF USE, DATA, OR PROFITS; OR BUSINESS INTERRUPTION) HOWEVER CAUSED AND ON ANY THEORY OF LIABILITY, WHETHER IN CONTRACT, STRICT LIABILITY, OR TORT (INCLUDING NEGLIGENCE OR OTHERWISE) ARISING IN ANY WAY OUT OF THE USE OF THIS SOFTWARE, EVEN IF ADVISED OF THE POSSIBILITY OF SUCH DAMAGE.",
    "ISC": "Permission to use, copy, modify, and/or distribute this software for any purpose with or without fee is hereby granted, provided that the copyright notice and this permission notice appear in all copies. THE SOFTWARE IS PROVIDED “AS IS” AND THE AUTHOR DISCLAIMS ALL WARRANTIES WITH REGARD TO THIS SOFTWARE INCLUDING ALL IMPLIED WARRANTIES OF MERCHANTABILITY AND FITNESS. IN NO EVENT SHALL THE AUTHOR BE LIABLE FOR ANY SPECIAL, DIRECT, INDIRECT, OR CONSEQUENTIAL DAMAGES OR ANY DAMAGES WHATSOEVER RESULTING FROM LOSS OF USE, DATA OR PROFITS, WHETHER IN AN ACTION OF CONTRACT, NEGLIGENCE OR OTHER TORTIOUS ACTION, ARISING OUT OF OR IN CONNECTION WITH THE USE OR PERFORMANCE OF THIS SOFTWARE.",
    "MIT": "Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated documentation files (the “Software”), to deal in the Software without restriction, including without limitation the rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is furnished to do so, subject to the following conditions: The copyright notice and this permission notice shall be included in all copies or substantial portions of the Software. THE SOFTWARE IS PROVIDED “AS IS”, WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.",
}  # fmt: skip


@dataclass(frozen=True)
class Methods:
    """The section's contents."""

    definitions: Sequence[Definition]
    settings: Sequence[tuple[str, str]]
    versions: Sequence[tuple[str, str]]
    inputs: Sequence[tuple[str, str]]
    licences: Sequence[Licence]
    notices: Mapping[str, str]


def methods(results: Results) -> Methods:
    """Definitions are fixed; settings, versions and inputs are those of this run."""
    return Methods(DEFINITIONS, _settings(results), _versions(), _inputs(results), LICENCES, NOTICES)


def _settings(results: Results) -> list[tuple[str, str]]:
    margin = results.settings.get("margin")
    rows = [("Threshold of the share over", f"{results.threshold_ms:,g} ms")]
    if margin is not None:
        rows.append(
            (
                "Equivalence margin",
                f"{100 * float(margin):g} % of the second side’s value" if isinstance(margin, (int, float)) else str(margin),
            )
        )
    if results.settings.get("baseline"):
        rows.append(("Baseline", str(results.settings["baseline"])))
    for site in results.newest_first:
        start, end = site.window
        window = (
            "all captures"
            if start is None and end is None
            else f"{site.zone.stamp(start) if start is not None else 'open'} to {site.zone.stamp(end) if end is not None else 'open'}"
        )
        rows.append(
            (
                f"{site.experiment}, {site.name}",
                f"{window}; brokers {', '.join(site.facts['brokers'])}; tap {site.facts['tap_configured']}; condition {site.facts['condition']}",
            )
        )
    return rows


def _versions() -> list[tuple[str, str]]:
    found = [("Python", platform.python_version())]
    for library in LIBRARIES:
        try:
            found.append((library, metadata.version(library)))
        except metadata.PackageNotFoundError:
            continue
    return found


def _inputs(results: Results) -> list[tuple[str, str]]:
    """The captures of each site, by name."""
    rows = []
    for site in results.newest_first:
        names = [str(facts.get("capture")) for facts in site.captures]
        shown = ", ".join(names[:40]) + (f" and {len(names) - 40:,} more" if len(names) > 40 else "")
        rows.append((f"{site.experiment}, {site.name}", f"{plural(len(names), 'capture')}: {shown}" if names else "no captures"))
    return rows
