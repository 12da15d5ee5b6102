"""May two sides be compared, and may the captures be trusted? What differs, which figures it touches, which way it pushes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup

from brokerlens.comparisons.pairs import MOST_CAPTURE_LOSS, MOST_UNCOVERED
from brokerlens.report.intervals import LEVELS, Comparison, too_few
from brokerlens.report.results import Results, Site
from brokerlens.report.words import NONE, count, duration, listed, name, percent, plural, sentences, strong

Grade = Literal["ok", "caution", "no", "unknown"]
CAPTURE_LOSS_CAUTION = 0.001
_EDGE_SECONDS = 10
_OFFLOAD_APART = 0.05
_WORD = {"ok": "alike", "caution": "caution", "no": "not comparable", "unknown": "not known"}
SIGNS = {"ok": "✓", "caution": "!", "no": "✕", "unknown": "?"}


@dataclass(frozen=True)
class Check:
    """One fact about a pair: both sides' values, and what follows."""

    fact: str
    a: str | Markup
    b: str | Markup
    grade: Grade
    effect: str = ""

    @property
    def sign(self) -> str:
        return SIGNS[self.grade]

    @property
    def word(self) -> str:
        return _WORD[self.grade]


@dataclass(frozen=True)
class PairChecks:
    """All facts about one pair."""

    pair: Comparison
    checks: Sequence[Check]

    @property
    def grade(self) -> Grade:
        grades = {check.grade for check in self.checks}
        return "no" if "no" in grades or self.pair.not_comparable else "caution" if "caution" in grades else "ok"

    @property
    def sign(self) -> str:
        return SIGNS[self.grade]

    @property
    def verdict(self) -> str:
        """The grade in words."""
        cautions = sum(1 for check in self.checks if check.grade == "caution")
        if self.grade == "no":
            return "No"
        return "Yes" if self.grade == "ok" else f"Yes, with {plural(cautions, 'caution')}"


@dataclass(frozen=True)
class Judgement:
    """The verdicts of all pairs, and the sentences of the first screen."""

    pairs: Sequence[PairChecks]
    sentences: Markup
    captures: Markup


def judge(results: Results, pairs: Sequence[Comparison]) -> Judgement:
    """Check every pair that is compared."""
    checked = [PairChecks(pair, checks_of(pair)) for pair in pairs]
    return Judgement(checked, _summary(results, checked), _captures(results))


def checks_of(pair: Comparison) -> list[Check]:
    """The facts that decide whether two sides may be compared."""
    a, b = pair.a, pair.b
    checks = [
        _tap(a, b),
        _window(a, b),
        _covered(a, b),
        _loss(a, b),
        _clients(a, b),
        _versions(a, b),
        _apis(a, b),
        _acks(a, b),
        _cluster(a, b),
        _started(a, b),
        _encrypted(a, b),
        _offload(a, b),
    ]
    checks.append(_samples(pair))
    if pair.not_comparable and all(check.grade != "no" for check in checks):
        checks.insert(0, Check("Comparison", "", "", "no", pair.not_comparable))
    return checks


def _both(
    fact: str, a: Site, b: Site, of: Callable[[Site], str | None], effect: str, grade: Grade = "caution", nothing: str = "not captured"
) -> Check:
    """Alike if both sides say the same; not known where one of them says ``nothing``."""
    mine, other = of(a), of(b)
    if mine is None or other is None:
        return Check(fact, mine or nothing, other or nothing, "unknown")
    return Check(fact, mine, other, "ok" if mine == other else grade, "" if mine == other else effect)


def _tap(a: Site, b: Site) -> Check:
    if "unknown" in (a.tap, b.tap):
        return Check("Capture taken at", a.tap, b.tap, "caution", "it is not known whether both latencies hold the same part of the path")
    effect = "the captures were taken at different ends, so latencies and round trips hold other parts of the path"
    return _both("Capture taken at", a, b, lambda site: site.tap, effect, "no")


def _window(a: Site, b: Site) -> Check:
    lengths = [site.minutes for site in (a, b)]
    texts = [NONE if minutes is None else duration(60 * minutes) for minutes in lengths]
    if None in lengths:
        return Check("Window", texts[0], texts[1], "unknown")
    alike = abs((lengths[0] or 0) - (lengths[1] or 0)) <= 0.01 * max(lengths[0] or 0, lengths[1] or 0)
    return Check(
        "Window",
        texts[0],
        texts[1],
        "ok" if alike else "caution",
        "" if alike else "the windows differ in length, and the shorter one saw fewer rare events",
    )


def _uncovered(site: Site) -> float | None:
    """Seconds of the window before the first and after the last packet; None without packets."""
    if site.span is None or site.facts["first_seen"] is None:
        return None
    return float(max(0, site.facts["first_seen"] - site.span[0]) + max(0, site.span[1] - site.facts["last_seen"])) / 1e9


def _covered(a: Site, b: Site) -> Check:
    gaps = [_uncovered(site) for site in (a, b)]
    known = [(gap, gap / (60 * (site.minutes or 1))) for gap, site in zip(gaps, (a, b), strict=True) if gap is not None]
    grade: Grade = "ok" if len(known) == len(gaps) else "unknown"
    if any(gap > _EDGE_SECONDS for gap, _ in known):
        grade = "no" if any(share > MOST_UNCOVERED for _, share in known) else "caution"
    texts = ["no packets" if gap is None else "whole window" if gap <= _EDGE_SECONDS else f"{duration(gap)} missing" for gap in gaps]
    return Check(
        "Captures hold",
        texts[0],
        texts[1],
        grade,
        "" if grade in ("ok", "unknown") else "captures miss a part of a window, so the sides were measured at different times",
    )


def _loss(a: Site, b: Site) -> Check:
    losses = [site.facts["capture_loss"] for site in (a, b)]
    texts = ["not known" if loss is None else percent(loss, 2) for loss in losses]
    worst = max((loss for loss in losses if loss is not None), default=0.0)
    if worst <= CAPTURE_LOSS_CAUTION:
        return Check("Lost by the capture", texts[0], texts[1], "unknown" if None in losses else "ok")
    effect = "a capture lost packets: their requests are missing, and repairs look like loss before the tap"
    return Check("Lost by the capture", texts[0], texts[1], "no" if worst > MOST_CAPTURE_LOSS else "caution", effect)


def _clients(a: Site, b: Site) -> Check:
    def software(site: Site) -> str | None:
        found = site.software
        return ", ".join(found[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else "") if found else None

    return _both("Client software", a, b, software, "client software differs, not only the path")


def _versions(a: Site, b: Site) -> Check:
    both = sorted(set(a.api_versions) & set(b.api_versions))
    apart = [api for api in both if a.api_versions[api] != b.api_versions[api]]
    if not apart:
        alike = "alike where both ask" if both else NONE
        return Check("Api versions", alike, alike, "ok" if both else "unknown")
    texts = [", ".join(f"{api} {'/'.join(map(str, site.api_versions[api]))}" for api in apart[:3]) for site in (a, b)]
    return Check("Api versions", texts[0], texts[1], "caution", "api versions differ and may cost the broker other work")


def _offload(a: Site, b: Site) -> Check:
    shares = [site.oversized for site in (a, b)]
    if None in shares:
        return Check("Segments over 1,500 bytes", percent(shares[0]), percent(shares[1]), "unknown")
    apart = abs((shares[0] or 0) - (shares[1] or 0)) > _OFFLOAD_APART
    effect = (
        "the capturing hosts offload differently: counts of packets and segments do not compare, bytes and latencies do" if apart else ""
    )
    return Check("Segments over 1,500 bytes", percent(shares[0]), percent(shares[1]), "caution" if apart else "ok", effect)


def _apis(a: Site, b: Site) -> Check:
    mixes = [site.api_mix for site in (a, b)]
    apart = max((abs(mixes[0].get(api, 0.0) - mixes[1].get(api, 0.0)) for api in {*mixes[0], *mixes[1]}), default=0.0)
    texts = [", ".join(f"{api} {percent(share, 0)}" for api, share in list(mix.items())[:3]) or "no requests" for mix in mixes]
    if not all(mixes):
        return Check("Requests that do not wait", texts[0], texts[1], "unknown")
    return Check(
        "Requests that do not wait",
        texts[0],
        texts[1],
        "caution" if apart > 0.1 else "ok",
        "the mix of apis differs, and some cost more than others: compare by api" if apart > 0.1 else "",
    )


def _acks(a: Site, b: Site) -> Check:
    def acks(site: Site) -> str | None:
        words = {-1: "all", 0: "none", 1: "leader"}
        return ", ".join(words.get(value, str(value)) for value in site.acks) or None

    return _both(
        "Produce asks acknowledgement of",
        a,
        b,
        acks,
        "Produce asks other acknowledgements, and waiting for all replicas takes longer in the broker",
        nothing="no Produce captured",
    )


def _cluster(a: Site, b: Site) -> Check:
    def named(site: Site) -> str | None:
        cluster = str(site.facts["cluster"])
        return None if cluster == site.experiment else cluster  # the name that a cluster has where the configuration gives none

    return _both("Kafka cluster", a, b, named, "the clusters differ, not only the path", nothing="not named")


def _started(a: Site, b: Site) -> Check:
    def seen(site: Site) -> str:
        return f"{site.started_connections} of {site.connections.height}" if site.connections.height else "none"

    return Check("Connections seen from their start", seen(a), seen(b), "ok")


def _encrypted(a: Site, b: Site) -> Check:
    def share(site: Site) -> str | None:
        if site.connections.height == 0:
            return None
        tls = site.encrypted_connections
        return "none" if tls == 0 else "all" if tls == site.connections.height else f"{tls} of {site.connections.height}"

    return _both(
        "Encrypted connections",
        a,
        b,
        share,
        "encryption differs, and requests inside TLS are not seen without keys",
        nothing="no connections",
    )


def _samples(pair: Comparison) -> Check:
    refused = [(level, row) for level in LEVELS if (row := pair.row(level)) is not None and row["verdict"] == "too_few_samples"]
    texts = [plural(len(site.latencies), "request") for site in (pair.a, pair.b)]
    if not refused:
        return Check("Latencies", texts[0], texts[1], "ok")
    small = pair.a if len(pair.a.latencies) <= len(pair.b.latencies) else pair.b
    named = str(listed([level for level, _ in refused]).striptags())
    return Check("Latencies", texts[0], texts[1], "caution", f"{small.name} has {too_few(refused[-1][1])}: {named} not compared")


def _summary(results: Results, checked: Sequence[PairChecks]) -> Markup:
    """The verdict over the pairs of the latest experiment, all pairs where it has one site."""
    latest = results.experiments[0]
    shown = [one for one in checked if one.pair.same_experiment and one.pair.a.experiment == latest] or list(checked)
    if not shown:
        return Markup("Nothing is compared.")
    refused = [one for one in shown if one.grade == "no"]
    cautious = [one for one in shown if one.grade == "caution"]
    said: list[Markup] = []
    if len(shown) == 1:
        said.append(strong(shown[0].verdict + "."))
    elif refused:
        said.append(strong(f"{count(len(refused))} of {plural(len(shown), 'pair')}: no."))
    else:
        said.append(strong("Yes." if not cautious else f"Yes, with cautions for {count(len(cautious))} of {plural(len(shown), 'pair')}."))
    alike = [
        check.fact
        for check in shown[0].checks
        if all(one_check.grade == "ok" for one in shown for one_check in one.checks if one_check.fact == check.fact)
    ]
    wanted = {"Capture taken at": "tap", "Client software": "client software", "Window": "window length", "Kafka cluster": "cluster"}
    same = [words for fact, words in wanted.items() if fact in alike]
    if same:
        said.append(Markup("Same {}.").format(listed(same)))
    if "Lost by the capture" in alike:
        said.append(Markup("The captures lost nothing that matters."))
    reasons = _reasons(refused or cautious, "no" if refused else "caution")
    if reasons:
        label = Markup('<strong class="{}">{}</strong>').format(
            "bad" if refused else "warning", "Not comparable:" if refused else "Caution:" if len(reasons) == 1 else "Cautions:"
        )
        more = f"; and {len(reasons) - 3} more" if len(reasons) > 3 else ""
        said.append(Markup("{} {}{}.").format(label, "; ".join(reasons[:3]), more))
    return sentences(said)


def _reasons(pairs: Sequence[PairChecks], grade: Grade) -> list[str]:
    """What differs, each fact once; sites with too few samples counted where they are several."""
    reasons: dict[str, None] = {}
    small: dict[str, None] = {}
    for one in pairs:
        for check in one.checks:
            if check.grade == grade and check.fact == "Latencies":
                small.setdefault(check.effect)
            elif check.grade == grade:
                reasons.setdefault(check.effect)
    few = list(small) if len(small) < 2 else [f"{len(small)} sites have too few requests for some percentiles"]
    return [*reasons, *few]


def _captures(results: Results) -> Markup:
    """For a single side: what the captures hold and lost."""
    said: list[Markup] = []
    for site in results.newest_first[:3]:
        loss = site.facts["capture_loss"]
        if loss is None:
            lost = "it is not known what the captures lost"
        else:
            lost = f"the captures lost {percent(loss, 2)} of the acknowledged bytes" if loss else "the captures lost nothing"
        cut = sum(1 for capture in site.captures if capture.get("truncated"))
        said.append(
            Markup("{}: {} over {}{}.").format(
                name(site.label),
                strong(lost),
                plural(int(site.facts["captures"]), "capture"),
                f", {count(cut)} of them cut short" if cut else "",
            )
        )
    return sentences(said)
