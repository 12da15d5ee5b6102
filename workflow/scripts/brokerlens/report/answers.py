"""The four answers of the first screen: sentences made from numbers, the words that decide in bold, intervals in grey."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from brokerlens.report.comparability import Judgement
from brokerlens.report.intervals import (
    Compared,
    Comparison,
    Row,
    RunsComparison,
    bounds,
    is_sure,
    less_or_more,
    margin_words,
    runs_comparisons,
    share_interval,
    share_words,
    times,
    too_few,
)
from brokerlens.report.latency import WorstMinute, parts
from brokerlens.report.results import Key, Results, Site
from brokerlens.report.words import count, digits_for, fixed, grey, listed, most, ms, name, percent, plural, sentences, short, strong

AT_MOST = 3
_REFUSED = ("not_comparable", "too_few_samples")
_PART_WORDS = {
    "network": "network",
    "broker": "time in the broker",
    "queue": "queueing behind earlier requests",
    "transfer": "transfer",
    "unknown": "network and broker together",
}


@dataclass(frozen=True)
class Answer:
    """A question, the sentences that answer it, and where on the page there is more."""

    question: str | Markup
    text: Markup
    link: str
    link_text: str


def four_answers(
    results: Results, pairs: Sequence[Comparison], worst: WorstMinute | None, judgement: Judgement, nothing: Mapping[Key, str]
) -> list[Answer]:
    """The answers that the data allow: without a second site or experiment, those about the parts and the worst minute."""
    latest = results.experiments[0]
    within = [pair for pair in pairs if pair.scope == "sites" and pair.a.experiment == latest]
    before, conditions = _earlier(results, pairs), _latest_condition(results)
    answers = [_which_is_better(results, within) if within else _how_fast(results, nothing)]
    if conditions:
        answers.append(what_conditions_changed(conditions))
    elif before:
        answers.append(_what_changed(results, before))
    else:
        answers.append(Answer("Where does the time go?", _where_it_goes(results), "#parts", "Where the time goes"))
    answers.append(_when_worst(worst))
    if within or before or conditions:
        answers.append(Answer("May these be compared?", judgement.sentences, "#comparability", "Comparability"))
    else:
        answers.append(Answer("May I trust the captures?", judgement.captures, "#comparability", "Capture quality"))
    return answers


def _earlier(results: Results, pairs: Sequence[Comparison]) -> list[Comparison]:
    """The latest experiment's sites against the baseline, else against the experiment before."""
    latest = results.experiments[0]
    mine = [
        pair
        for pair in pairs
        if latest in (pair.a.experiment, pair.b.experiment) and not pair.same_experiment and pair.a.name == pair.b.name
    ]
    against_baseline = [pair for pair in mine if pair.scope == "baseline"]
    if against_baseline:
        return against_baseline
    before = results.experiments[1] if len(results.experiments) > 1 else None
    return [pair for pair in mine if before in (pair.a.experiment, pair.b.experiment)]


def _which_is_better(results: Results, within: Sequence[Comparison]) -> Answer:
    names = list(dict.fromkeys(site.name for pair in within for site in (pair.a, pair.b)))
    question = Markup("{} or {}?").format(_capital(names[0]), name(names[1])) if len(names) == 2 else Markup("Which site is best?")
    if len(within) == 1:
        return Answer(question, _one_pair(within[0], results), "#distributions", "Distributions")
    return Answer(question, _many_sites(results, within), "#differences", "Differences")


def _capital(text: str) -> Markup:
    return name(text[:1].upper() + text[1:])


def _one_pair(pair: Comparison, results: Results) -> Markup:
    where = Markup("In {} ").format(name(pair.a.experiment)) if len(results.experiments) > 1 else Markup("")
    if pair.not_comparable:
        return sentences([Markup("{}: {}").format(strong("Not compared"), pair.not_comparable.rstrip(".") + "."), _side_by_side(pair)])
    row = pair.row("p50")
    if row is None:
        return sentences([Markup("{}Kafka latency was {}.").format(where, strong("not compared")), _side_by_side(pair)])
    if row["verdict"] == "too_few_samples":
        return sentences([Markup("{}{}: {}.").format(where, strong("too few requests to say"), too_few(row)), _side_by_side(pair)])
    if row["difference"] > 0:  # told from the faster side
        pair = pair.turned()
    a, b = name(pair.a.name), name(pair.b.name)
    said = [_middle(pair, where, a, b), _tail(pair, a, b), _share(pair, results.threshold_ms)]
    if row["weak"]:
        said.append(grey("Few independent stretches: take the intervals as a minimum."))
    return sentences(said)


def _middle(pair: Comparison, where: Markup, a: Markup, b: Markup) -> Markup:
    row = pair.row("p50")
    assert row is not None
    digits = digits_for(row["difference"], row["difference_low"], row["difference_high"])
    interval = bounds(row["difference_low"], row["difference_high"], digits, sign=True)
    medians = f"median {ms(row['estimate_a'])} against {ms(row['estimate_b'])}"
    if row["verdict"] == "equivalent_within_margin":
        return Markup("{}{} in the middle: {}, {}.").format(
            where, strong(f"the same within {margin_words(row['margin'])}"), medians, grey(f"difference {interval} ms")
        )
    if not is_sure(row) or row["verdict"] == "undecided":
        return Markup("{}{} in the middle: {}, {} {}.").format(
            where, strong("no difference found"), medians, fixed(row["difference"], digits, sign=True) + " ms", grey(f"({interval})")
        )
    verdict, size = Markup("{} is faster in the middle").format(a), less_or_more(row["difference"], digits)
    positive = bounds(_negated(row["difference_high"]), _negated(row["difference_low"]), digits)
    return Markup("{}{}: {}, {} {}.").format(where, strong(verdict), medians, strong(size), grey(f"(95 % interval {positive})"))


def _negated(value: float | None) -> float | None:
    return None if value is None else -value


def _tail(pair: Comparison, a: Markup, b: Markup) -> Markup:
    """The highest percentile that both sides can carry."""
    middle = pair.row("p50")
    for statistic in ("p99", "p95", "p90"):
        row = pair.row(statistic)
        if row is None or row["verdict"] in _REFUSED or row["difference_low"] is None or row["difference_high"] is None:
            continue
        digits = digits_for(row["difference"], row["difference_low"], row["difference_high"])
        difference = f"{statistic} {fixed(row['difference'], digits, sign=True)} ms"
        interval = grey(f"({bounds(row['difference_low'], row['difference_high'], digits, sign=True)})")
        if not is_sure(row):
            return Markup("{}: {} {}.").format(strong("In the tail no difference was found"), difference, interval)
        other_way = middle is not None and is_sure(middle) and (middle["difference"] < 0) != (row["difference"] < 0)
        if other_way:
            return Markup("{}: {} {}.").format(
                strong("Its tail is worse" if row["difference"] > 0 else "Its tail is better"), difference, interval
            )
        return Markup("{}: {} {}.").format(
            "In the tail as well" if middle is not None and is_sure(middle) else strong("Its tail differs"), difference, interval
        )
    return Markup("")


def _share(pair: Comparison, threshold_ms: float) -> Markup:
    """The share over the threshold at both sites: steadier than a percentile that falls on a step of the distribution."""
    if all(site.metric("kafka_latency", "all", "share_over").value in (None, 0) for site in (pair.a, pair.b)):
        return Markup("")
    shares = [_share_of(site) for site in (pair.a, pair.b)]
    return Markup("Over {}: {}, {}.").format(ms(threshold_ms), *shares)


def _share_of(site: Site) -> Markup:
    share = site.metric("kafka_latency", "all", "share_over")
    if share.value == 0:
        limit = grey(f" (at most {percent(share.high)})") if share.high is not None else Markup("")
        return Markup("none of {}’s {}{}").format(name(site.name), count(share.n), limit)
    interval = share_interval(share)
    return Markup("{} of {}’s requests{}").format(percent(share.value), name(site.name), grey(f" ({interval})") if interval else "")


def _side_by_side(pair: Comparison) -> Markup:
    def words(site: Site) -> Markup:
        median, tail = site.metric("kafka_latency", "all", "p50"), site.metric("kafka_latency", "all", "p95")
        if median.value is None:
            return Markup("{} has no latencies").format(name(site.name))
        return Markup("{}: median {}, p95 {} over {}").format(
            name(site.name), ms(median.value), ms(tail.value), plural(median.n, "request")
        )

    return Markup("{}; {}.").format(words(pair.a), words(pair.b))


def _many_sites(results: Results, within: Sequence[Comparison]) -> Markup:
    sites = {site.key: site for pair in within for site in (pair.a, pair.b)}
    measured = sorted(
        (site for site in sites.values() if site.metric("kafka_latency", "all", "p50").value is not None),
        key=lambda s: s.metric("kafka_latency", "all", "p50").value or 0,
    )
    if not measured:
        return Markup("No site has latencies to compare.")
    rows = [row for pair in within if (row := pair.row("p50")) is not None and row["verdict"] not in _REFUSED]
    decided = sum(1 for row in rows if row["verdict"] == "differs")
    slowest = measured[-1]
    steady = sorted(measured, key=lambda s: s.metric("kafka_latency", "all", "p95").value or 0)

    def with_value(site: Site, statistic: str) -> Markup:
        return Markup("{} {}").format(name(site.name), grey(f"({ms(site.metric('kafka_latency', 'all', statistic).value)})"))

    lowest = ms(measured[0].metric("kafka_latency", "all", "p50").value)
    fastest = [site for site in measured if ms(site.metric("kafka_latency", "all", "p50").value) == lowest]
    where = Markup("In {} ").format(name(slowest.experiment))
    if not rows:
        medians = most([with_value(site, "p50") for site in measured], AT_MOST)
        said = [where + strong("no pair could be compared") + Markup("; medians: {}.").format(medians)]
    elif len(fastest) == len(measured):
        said = [Markup("{}all have a median of {}.").format(where, lowest)]
    else:
        who = strong(most([name(site.name) for site in fastest], AT_MOST))
        verb = "has" if len(fastest) == 1 else "have"
        said = [Markup("{}{} {} the lowest median, {}; the highest has {}.").format(where, who, verb, lowest, with_value(slowest, "p50"))]
    if rows:
        said.append(Markup("At p95 the worst are {}.").format(most([with_value(site, "p95") for site in reversed(steady)], AT_MOST)))
        said.append(Markup("{} of {} differ in the median.").format(f"{decided:,}", plural(len(rows), "compared pair")))
    if len(results.sites) > 12:
        said.append(Markup("See the table."))
    return sentences(said)


def _how_fast(results: Results, nothing: Mapping[Key, str]) -> Answer:
    said = []
    for site in results.of(results.experiments[0])[:AT_MOST]:
        median, tail = (site.metric("kafka_latency", "all", level) for level in ("p50", "p95"))
        if median.value is None:
            said.append(Markup("{}: {}").format(name(site.name), nothing.get(site.key, "no latencies.")))
        else:
            said.append(
                Markup("{}: {} {}, p95 {} {}; over {}: {}.").format(
                    name(site.name),
                    strong(f"median {ms(median.value)}"),
                    grey(f"({bounds(median.low, median.high, digits_for(median.value, median.low, median.high))})"),
                    ms(tail.value),
                    grey(f"({bounds(tail.low, tail.high, digits_for(tail.value, tail.low, tail.high))})"),
                    ms(results.threshold_ms),
                    share_words(site.metric("kafka_latency", "all", "share_over")),
                )
            )
    return Answer("How fast is it?", sentences(said), "#distributions", "Distributions")


def _latest_condition(results: Results) -> list[RunsComparison]:
    """The latest experiment's condition against the baseline, else against the condition before."""
    latest = results.of(results.experiments[0])[0].facts["condition"]
    mine = [pair for pair in runs_comparisons(results) if pair.condition == latest]
    return [pair for pair in mine if pair.scope == "baseline"] or mine


def what_conditions_changed(pairs: Sequence[RunsComparison]) -> Answer:
    """By how much a condition's medians differ from those of the other, site by site, the largest difference first."""
    ranked = sorted(pairs, key=lambda pair: -abs((pair.row("p50") or {}).get("difference") or 0.0))
    # The question names one pair of conditions: a site without enough runs of that reference is compared with another, in the section.
    alike = [pair for pair in ranked if pair.reference == ranked[0].reference]
    said = [_change_words(pair, name(pair.site)) for pair in alike[:AT_MOST]]
    rest = len(ranked) - len(said)
    if rest > 0:
        said.append(Markup("And {} more, see the table.").format(rest))
    if len({pair.runs for pair in alike[:AT_MOST]}) == 1:
        said.append(grey("Over {} and {} runs.".format(*ranked[0].runs)))
    else:
        counts = [Markup("{} and {} of {}").format(*pair.runs, name(pair.site)) for pair in alike[:AT_MOST]]
        said.append(grey(Markup("Runs: {}.").format(Markup(", ").join(counts))))
    return Answer(
        Markup("What differs between {} and {}?").format(name(ranked[0].condition), name(ranked[0].reference)),
        sentences(said),
        "#differences",
        "Differences",
    )


def _what_changed(results: Results, pairs: Sequence[Comparison]) -> Answer:
    latest = results.experiments[0]
    now = [pair if pair.a.experiment == latest else pair.turned() for pair in pairs]
    ranked = sorted(now, key=lambda pair: -abs((pair.row("p50") or {}).get("difference") or 0.0))
    # The question names one experiment: a baseline may be several.
    other = now[0].b.experiment
    said = [_change(pair) for pair in ranked if pair.b.experiment == other][:AT_MOST]
    rest = len(pairs) - len(said)
    if rest > 0:
        said.append(Markup("And {} more, see the table.").format(rest))
    return Answer(Markup("What changed since {}?").format(name(other)), sentences(said), "#parts", "Where the time goes")


def _change(pair: Comparison) -> Markup:
    words = _change_words(pair, name(pair.a.name))
    row = pair.row("p50")
    return sentences([words, _carried_by(pair.b, pair.a, row["difference"])]) if row is not None and _has_changed(row) else words


def _has_changed(row: Row) -> bool:
    return row["verdict"] in ("differs", "described") and is_sure(row)


def _change_words(pair: Compared, who: Markup) -> Markup:
    """By how much the median of the first side differs from that of the second."""
    row = pair.row("p50")
    if pair.not_comparable:
        return Markup("{}: {}").format(strong(Markup("{} was not compared").format(who)), pair.not_comparable.rstrip(".") + ".")
    if row is None or row["verdict"] == "too_few_samples":
        return Markup("{}: {}.").format(strong(who), too_few(row) if row else "no latencies to compare")
    difference, low, high = row["difference"], row["difference_low"], row["difference_high"]
    digits = digits_for(difference, low, high)
    interval = grey(f"({bounds(low, high, digits, sign=True)})")
    if row["verdict"] == "equivalent_within_margin":
        return Markup("{}, {} ms {}.").format(
            strong(Markup("{}: the same within {}").format(who, margin_words(row["margin"]))),
            fixed(difference, digits, sign=True),
            interval,
        )
    if not _has_changed(row):
        return Markup("{}, {} ms {}.").format(
            strong(Markup("{}: no difference found").format(who)), fixed(difference, digits, sign=True), interval
        )
    before, after = row["estimate_b"], row["estimate_a"]
    verb = "slowed" if difference > 0 else "became faster"
    positive = grey(f"({bounds(low, high, digits) if difference > 0 else bounds(_negated(high), _negated(low), digits)})")
    ratio = times(after / before if before else None)
    return Markup("{}, {} {}{}.").format(
        strong(Markup("{} {} from {} to {}").format(who, verb, short(before), ms(after))),
        less_or_more(difference, digits),
        positive,
        f", {ratio}" if ratio else "",
    )


def _carried_by(old: Site, new: Site, difference: float) -> Markup:
    """Which part of the mean changed: a cause only where one part carries it, and only of a mean that moved as the median did."""
    before, after = parts(old), parts(new)
    if before is None or after is None:
        return Markup("")
    changes = {part: after[part] - before[part] for part in after}
    total = sum(changes.values())
    if total * difference <= 0 or abs(total) < 0.05 * max(sum(before.values()), 1e-9):
        return Markup("")
    if abs(changes["unknown"]) > 0.05 * abs(total):  # what it hides may be the network's or the broker's
        changes |= {"network": 0.0, "broker": 0.0, "unknown": sum(changes[part] for part in ("network", "broker", "unknown"))}
    part = max(changes, key=lambda p: changes[p] / total)
    share = changes[part] / total
    broker_known = before["unknown"] == after["unknown"] == 0
    is_steady = broker_known and part != "broker" and abs(changes["broker"]) <= 0.05 * abs(total)
    steady = "; time in the broker did not change" if is_steady else ""
    words = f"The {_PART_WORDS[part]} {'account' if part == 'unknown' else 'accounts'} for"
    if share > 0.95:
        return Markup("{} all of it{}.").format(words, steady)
    if share > 0.7:
        return Markup("{} {} % of the mean{}.").format(words, fixed(100 * share), steady)
    ranked = sorted((p for p in changes if changes[p] != 0), key=lambda p: -changes[p] / total)[:2]
    return Markup("It came together with {}.").format(
        listed([f"{ms(abs(changes[p]))} {'more' if changes[p] > 0 else 'less'} {_PART_WORDS[p]}" for p in ranked])
    )


def _where_it_goes(results: Results) -> Markup:
    said = []
    measured = [(site, means) for site in results.of(results.experiments[0]) if (means := parts(site)) is not None]
    if len(measured) > AT_MOST:
        measured.sort(key=lambda one: -sum(one[1].values()))
    for site, means in measured[:AT_MOST]:
        total = sum(means.values())
        ranked = sorted((part for part in means if means[part] > 0), key=lambda part: -means[part])
        first = ranked[0] if ranked else "network"
        said.append(
            Markup("{}: {} of a mean of {}{}.").format(
                name(site.label),
                strong(f"{_PART_WORDS[first]} {fixed(100 * means[first] / total if total else 0)} %"),
                ms(total),
                "".join(f", {_PART_WORDS[part]} {ms(means[part])}" for part in ranked[1:3]),
            )
        )
    return sentences(said) or Markup("No latencies to take apart.")


def _when_worst(worst: WorstMinute | None) -> Answer:
    if worst is None:
        return Answer("When was it worst?", Markup("No minute holds the 20 requests that a p95 needs."), "#timeline", "Timeline")
    site, zone = worst.site, worst.site.zone
    text = Markup("{} on {}: p95 {} over {}{}.").format(
        strong(Markup("{}, {}").format(name(site.name), zone.clocks(worst.start, worst.end))),
        zone.date(worst.start),
        ms(worst.p95),
        plural(worst.requests, "request"),
        f", with {worst.retransmitted} of them retransmitted" if worst.retransmitted else ", none of them retransmitted",
    )
    resets = site.lanes.get("reset")
    if resets is not None and resets.total:
        first = int(resets.time[0])
        text += Markup(" Its first reset came at {}.").format(zone.clock(first))
    return Answer("When was it worst?", text, f"#timeline-{site.slug}", "Timeline")
