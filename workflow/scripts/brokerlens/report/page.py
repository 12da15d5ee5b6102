"""The page: sections put together, rendered with the templates, written as one file that asks for nothing."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import vl_convert
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from brokerlens.report.answers import Answer, four_answers
from brokerlens.report.breakdown import breakdown
from brokerlens.report.captures import Quality, quality
from brokerlens.report.cases import Cases, cases
from brokerlens.report.clients import Clients, clients
from brokerlens.report.comparability import Judgement, judge
from brokerlens.report.connections import Connections, connections
from brokerlens.report.deliveries import FILLS, Deliveries, deliveries
from brokerlens.report.differences import Differences, differences, pair_title
from brokerlens.report.ends import BothEnds, both_ends
from brokerlens.report.distributions import Distributions, distributions
from brokerlens.report.figure import Figure, json_for_script
from brokerlens.report.headline import Headline, headline
from brokerlens.report.intervals import comparisons
from brokerlens.report.latency import WorstMinute, by_time, worst_minute
from brokerlens.report.methods import Methods, methods
from brokerlens.report.network import Network, network
from brokerlens.report.notebook_table import NotebookTable, notebook_table
from brokerlens.report.results import Results
from brokerlens.report.spread import key
from brokerlens.report.states import reasons, said_first
from brokerlens.report.theme import FONT, SiteColours, css_variables, light_palette
from brokerlens.report.timelines import Timelines, timelines
from brokerlens.report.words import count, listed, name, plural, visible

_HERE = Path(__file__).parent
_DEFAULT_TITLE = "Kafka from the wire"


@dataclass(frozen=True)
class Page:
    """Everything the templates show."""

    title: str
    pseudonyms: bool
    measured: Sequence[str | Markup]
    zone: str
    answers: Sequence[Answer]
    states: Sequence[tuple[Markup, str]]
    headline: Headline
    differences: Differences
    distributions: Distributions
    parts: Sequence[Figure]
    parts_key: Markup
    deliveries: Deliveries
    deliveries_key: Markup
    timelines: Timelines
    network: Network
    both_ends: BothEnds
    clients: Clients
    connections: Connections
    cases: Cases
    judgement: Judgement
    judged: Sequence[tuple[Markup, Any]]
    quality: Quality
    notebook: NotebookTable
    methods: Methods
    compared: bool

    @property
    def figures(self) -> list[Figure]:
        """All figures with something to draw, in the page's order."""
        cards = [card.figure for card in self.differences.cards if card.figure is not None]
        apis = [figure for api in self.distributions.apis for figure in api.figures]
        found = [
            *cards,
            *self.distributions.figures,
            *apis,
            *self.parts,
            *self.deliveries.figures,
            *self.timelines.figures,
            *self.network.figures,
        ]
        return [figure for figure in found if figure.spec is not None]


def build(results: Results) -> Page:
    """Make every section."""
    colours = SiteColours(results.site_names)
    states = reasons(results)
    pairs = comparisons(results)
    bins = {site.key: by_time(site) for site in results.sites}
    minutes = {site.key: worst_minute(site) for site in results.sites}
    worst = _worst(results, minutes)
    judgement = judge(results, pairs)
    zones = dict.fromkeys(site.zone.words(site.span[0] if site.span else None) for site in results.sites)
    return Page(
        pseudonyms=bool(results.settings.get("pseudonyms")),
        title=visible(str(results.settings.get("title") or _DEFAULT_TITLE)),
        measured=_measured(results),
        zone=" and ".join(zones),
        answers=four_answers(results, pairs, worst, judgement, states),
        states=[(name(site.label), said) for site, said in said_first(results, states)],
        headline=headline(results, colours, bins, worst, states),
        differences=differences(results, pairs),
        distributions=distributions(results, pairs, colours),
        parts=breakdown(results),
        parts_key=key([(part, f"var(--{part})") for part in ("network", "broker", "queue", "transfer")]),
        deliveries=deliveries(results),
        deliveries_key=key([(part, f"var(--{fill})") for part, fill in FILLS.items() if part != "unknown"]),
        timelines=timelines(results, bins, minutes, worst, colours, states),
        network=network(results, colours),
        both_ends=both_ends(results),
        clients=clients(results, colours, states),
        connections=connections(results),
        cases=cases(results),
        judgement=judgement,
        judged=[(pair_title(results, one.pair), one) for one in judgement.pairs[:24]],
        quality=quality(results),
        notebook=notebook_table(results, colours),
        methods=methods(results),
        compared=bool(results.comparisons),
    )


def _worst(results: Results, minutes: Mapping[tuple[str, str], WorstMinute | None]) -> WorstMinute | None:
    """The worst minute of the latest experiment that has one."""
    for experiment in results.experiments:
        found = [minute for site in results.of(experiment) if (minute := minutes[site.key]) is not None]
        if found:
            return max(found, key=lambda minute: minute.p95)
    return None


def _measured(results: Results) -> list[str | Markup]:
    """What was measured, in one line: experiments with their windows, sites, captures, packets, requests."""
    parts: list[str | Markup] = []
    windows = []
    for experiment in sorted(results.experiments[:4], key=results.experiments.index, reverse=True):
        spans = [site.span for site in results.of(experiment) if site.span is not None]
        if spans:
            zone = results.of(experiment)[0].zone
            windows.append(Markup("{} ({})").format(name(experiment), zone.span(min(s for s, _ in spans), max(e for _, e in spans))))
        else:
            windows.append(name(experiment))
    more = len(results.experiments) - len(windows)
    parts.append(listed(windows) + (f" and {more} more" if more > 0 else ""))
    parts.append(plural(len(results.site_names), "site"))
    parts.append(plural(sum(int(site.facts["captures"]) for site in results.sites), "capture"))
    parts.append(plural(sum(int(site.metric("packets").value or 0) for site in results.sites), "packet"))
    parts.append(plural(sum(len(site.latencies) for site in results.sites), "request") + " that do not wait by design")
    if results.settings.get("pseudonyms"):
        parts.append("addresses and names are pseudonyms")
    return parts


@cache
def _bundle() -> str:
    """Vega, Vega-Lite and Vega-Embed as one text; the same bytes in every process."""
    return str(vl_convert.javascript_bundle())  # type: ignore[call-arg]  # the stub forgets that the snippet has a default


def _hash(text: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


def _policy(scripts: Sequence[str]) -> str:
    """Nothing may be loaded or run but what stands in the page itself."""
    allowed = " ".join(_hash(script) for script in scripts)
    return f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"


def render(page: Page) -> str:
    """The page as HTML."""
    # select_autoescape goes by a template's ending, and .j2 is not one that it knows.
    environment = Environment(
        loader=FileSystemLoader(_HERE / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"name": name, "count": count, "visible": visible}
    early, late = ((_HERE / "assets" / file).read_text(encoding="utf-8") for file in ("theme.js", "page.js"))
    bundle = f"\n{_bundle()}\n"
    font = FONT.replace('"', "'")
    style = f"{css_variables()}\n:root{{--font:{font}}}\n{(_HERE / 'assets' / 'page.css').read_text(encoding='utf-8')}"
    return environment.get_template("page.html.j2").render(
        page=page,
        policy=Markup(_policy([early, bundle, late])),  # noqa: S704 - hashes and fixed words
        style=Markup(style),  # noqa: S704 - our own files
        early=Markup(early),  # noqa: S704
        bundle=Markup(bundle),  # noqa: S704
        late=Markup(late),  # noqa: S704
        palette=json_for_script(light_palette()),
    )


def write(results: Results, output: str | Path, specifications: str | Path) -> None:
    """Write the report, and the specifications of its figures for ``draw_figures``; each appears under its name only when it is complete."""
    page = build(results)
    figures = {figure.id: figure.saved() for figure in page.figures}
    _write(json.dumps(figures, ensure_ascii=False, allow_nan=False, separators=(",", ":")), Path(specifications))
    _write(render(page), Path(output))


def _write(text: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.rename(path)
