"""Differences with their intervals: a card per pair, every row of the comparison in a table that opens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from brokerlens.report import charts
from brokerlens.report.figure import Figure
from brokerlens.report.intervals import (
    LEVELS,
    Compared,
    Comparison,
    RunsComparison,
    is_sure,
    runs_comparisons,
    signed,
    signed_bounds,
    too_few,
)
from brokerlens.report.results import Results
from brokerlens.report.scales import Symlog
from brokerlens.report.spread import interval_lane
from brokerlens.report.words import NONE, digits_for, fixed, name, short, visible
from brokerlens.statistics.sentences import beside, difference_sentence

MOST_CARDS = 8
_VERDICTS = {
    "differs": "differs",
    "equivalent_within_margin": "differs by less than the margin",
    "undecided": "not decided",
    "too_few_samples": "too few samples",
    "not_comparable": "not comparable",
    "described": "",
}
_STATISTICS = {
    "hl_shift": "typical difference (Hodges–Lehmann)",
    "hl_ratio": "typical ratio (Hodges–Lehmann)",
    "cliffs_delta": "Cliff’s delta",
    "wasserstein1": "Wasserstein distance",
    "ratio_of_sums": "ratio",
    "share_over": "share over the threshold",
}


@dataclass(frozen=True)
class Lane:
    """One percentile of a card: its words and its picture, or a text instead."""

    statistic: str
    value: str
    interval: str
    picture: Markup | None
    verdict: str
    sure: bool


@dataclass(frozen=True)
class TableRow:
    """One row of the comparison's table."""

    what: str
    a: str
    b: str
    difference: str
    interval: str
    ratio: str
    p: str
    verdict: str


@dataclass(frozen=True)
class Card:
    """One pair."""

    slug: str
    title: Markup
    refused: str | None
    lanes: Sequence[Lane]
    words: Markup
    sentences: Sequence[str]
    table: Sequence[TableRow]
    figure: Figure | None


@dataclass(frozen=True)
class Differences:
    """The section: cards, how many more there are, and the number of comparisons that were corrected together."""

    cards: Sequence[Card]
    more: int
    families: Sequence[int]


def differences(results: Results, pairs: Sequence[Comparison]) -> Differences:
    """Cards of conditions by their runs, then of all pairs, on one scale, zero at the same place; of many pairs the eight that differ most at p95."""
    by_runs = runs_comparisons(results)
    rows = [
        row
        for pair in (*by_runs, *pairs)
        for level in LEVELS
        if (row := pair.row(level)) is not None and row["verdict"] not in ("not_comparable", "too_few_samples")
    ]
    scale = Symlog.over([row[key] for row in rows for key in ("difference", "difference_low", "difference_high")])
    shown = list(pairs)
    if len(shown) > MOST_CARDS:
        shown.sort(key=lambda pair: -abs((pair.row("p95") or {}).get("difference") or 0.0))
    cards = [_card(pair, _runs_title(pair), _runs_words(pair), scale) for pair in by_runs]
    cards += [_card(pair, pair_title(results, pair), _words(pair), scale) for pair in shown[:MOST_CARDS]]
    families = sorted({pair.family for pair in (*by_runs, *pairs) if pair.family})
    return Differences(cards, len(pairs) - min(len(pairs), MOST_CARDS), families)


def pair_title(results: Results, pair: Comparison) -> Markup:
    """``edge − cloud, experiment08`` or ``edge, 08 − 07``."""
    short_names = results.short_names
    if pair.same_experiment:
        where = Markup(", {}").format(name(pair.a.experiment)) if len(results.experiments) > 1 else Markup("")
        return Markup("{} − {}{}").format(name(pair.a.name), name(pair.b.name), where)
    if pair.a.name == pair.b.name:
        return Markup("{}, {} − {}").format(name(pair.a.name), name(short_names[pair.a.experiment]), name(short_names[pair.b.experiment]))
    return Markup("{} − {}").format(name(pair.a.label), name(pair.b.label))


def _runs_title(pair: RunsComparison) -> Markup:
    """``edge, degraded − normal``."""
    return Markup("{}, {} − {}").format(name(pair.site), name(pair.condition), name(pair.reference))


def _runs_words(pair: RunsComparison) -> Markup:
    return Markup("{} and {} runs, one estimate each: the intervals hold what differs from run to run.").format(*pair.runs)


def _card(pair: Compared, title: Markup, words: Markup, scale: Symlog) -> Card:
    lanes = [] if pair.not_comparable else [_lane(row, scale) for level in LEVELS if (row := pair.row(level)) is not None]
    return Card(
        slug=pair.slug,
        title=title,
        refused=pair.not_comparable,
        lanes=lanes,
        words=words,
        sentences=_sentences(pair),
        table=[_table_row(row) for row in pair.rows],
        figure=None if pair.not_comparable or not lanes else _figure(pair, title),
    )


def _lane(row: Any, scale: Symlog) -> Lane:
    if row["verdict"] == "too_few_samples" or row["difference"] is None:
        return Lane(row["statistic"], too_few(row), "", None, "", sure=False)
    sure = is_sure(row) and row["verdict"] in ("differs", "described", "equivalent_within_margin")
    picture = interval_lane(scale, row["difference"], row["difference_low"], row["difference_high"], filled=sure)
    return Lane(row["statistic"], signed(row), signed_bounds(row), picture, _VERDICTS.get(row["verdict"], ""), sure)


def _figure(pair: Compared, title: Markup) -> Figure:
    rows = []
    for level in LEVELS:
        row = pair.row(level)
        if row is None or row["difference"] is None:
            continue
        few = row["verdict"] == "too_few_samples"
        low, high = (None, None) if few else (row["difference_low"], row["difference_high"])
        rows.append(
            {
                "statistic": level,
                "ms": None if few else row["difference"],
                "low": low,
                "high": high,
                "sure": not few and is_sure(row),
                "verdict": row["verdict"],
            }
        )
    spec = charts.interval_plot(rows, f"Differences of latency percentiles with 95 % intervals, {title.striptags()}")
    return Figure(
        f"difference-{pair.slug}",
        title,
        "Difference in ms with its 95 % interval, symmetric log axis",
        "differences",
        "Differences and intervals",
        spec,
    )


def _words(pair: Comparison) -> Markup:
    """What a random pair of requests says: delta in words."""
    row = pair.row("cliffs_delta")
    if row is None or row["difference"] is None or row["verdict"] in ("not_comparable", "too_few_samples"):
        return Markup("")
    chance = (1 + row["difference"]) / 2
    a, b = name(pair.a.label), name(pair.b.label)
    if chance < 0.5:
        a, b, chance = b, a, 1 - chance
    return Markup("A random {} request is slower than a random {} request in {} % of pairs.").format(a, b, fixed(100 * chance))


def _sentences(pair: Compared) -> list[str]:
    """What was found in the primary rows, each in a sentence, and how much was measured."""
    primary = [row for row in pair.rows if row["primary"]]
    if pair.not_comparable or not primary:
        return []
    return [visible(difference_sentence(row)) for row in primary] + [f"Measured: {beside(primary[0])}."]


def _table_row(row: Any) -> TableRow:
    comparable = row["verdict"] != "not_comparable"
    digits = digits_for(row["difference"], row["difference_low"], row["difference_high"])
    group = "" if row["group"] == "all" else f" ({row['group']})"
    p = row["p_holm"] if row["p_holm"] is not None else row["p_value"]
    ratio = short(row["ratio"]) if comparable and row["ratio"] is not None else ""
    if ratio and row["ratio_low"] is not None and row["ratio_high"] is not None:
        ratio += f" ({short(row['ratio_low'])} to {short(row['ratio_high'])})"
    effect = row["statistic"] in ("hl_shift", "hl_ratio", "cliffs_delta", "wasserstein1")
    return TableRow(
        what=visible(f"{row['metric']}{group}, {_STATISTICS.get(row['statistic'], row['statistic'])}"),
        a=NONE if effect else short(row["estimate_a"]),
        b=NONE if effect else short(row["estimate_b"]),
        difference=fixed(row["difference"], digits, sign=True) if comparable else NONE,
        interval=signed_bounds(row) if comparable and row["verdict"] != "too_few_samples" else "",
        ratio=ratio,
        p="" if p is None else "< 0.001" if p < 0.001 else fixed(p, 3),
        verdict=_VERDICTS.get(row["verdict"], row["verdict"]) + (", few independent stretches" if row["weak"] else ""),
    )
