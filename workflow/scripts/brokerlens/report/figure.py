"""One figure of the page: a Vega-Lite specification with what stands around it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Any

import altair as alt
from markupsafe import Markup

from brokerlens.report.theme import FONT, light_palette, resolved

ROWS = "rows"
"""Name of the data set that holds a figure's own data: what its CSV and its table show."""

# One object for all charts, for each `configure_…` of a chart copies the whole of it.
CONFIG = alt.Config(
    font=FONT,
    background="transparent",
    autosize=alt.AutoSizeParams(type="fit-x", contains="padding"),
    padding=4,
    view=alt.ViewConfig(stroke=None),
    axis=alt.AxisConfig(
        labelColor="var(--third)",
        labelFontSize=12,
        gridColor="var(--grid)",
        domainColor="var(--axis)",
        tickColor="var(--axis)",
        title=None,
        labelOverlap="greedy",
        labelPadding=6,
        tickSize=4,
    ),
    axisY=alt.AxisConfig(domain=False, ticks=False, minExtent=46, maxExtent=46),
    axisX=alt.AxisConfig(grid=False),
    text=alt.MarkConfig(fontSize=12),
    title=alt.TitleConfig(fontSize=15, subtitleFontSize=12, color="#1b1f24", subtitleColor="#5f6875", offset=14),
)
_SAVED_FONT = "Liberation Sans, Arial, sans-serif"


@dataclass(frozen=True)
class Figure:
    """A chart: its id, the finding as its title, what is plotted, its specification, and where its figure is defined.

    ``spec`` is None where there is nothing to draw: then ``title`` is the sentence that says so.
    """

    id: str
    title: str | Markup
    subtitle: str | Markup
    definition: str
    definition_text: str
    spec: dict[str, Any] | None = None
    note: str | Markup = ""

    @property
    def json(self) -> Markup:
        """The specification as JSON for a script tag."""
        return json_for_script(self.spec)

    def saved(self, width: int = 720) -> dict[str, Any]:
        """The specification for a file: light colours, a font that exists everywhere, title inside, fixed width."""
        assert self.spec is not None
        spec: dict[str, Any] = resolved(self.spec, light_palette())
        # Vega breaks no lines; so many characters fit into this width.
        lines = {"text": wrap(plain(self.title), width // 8), "subtitle": wrap(plain(self.subtitle), width // 7)}
        text = lines | {"anchor": "start"}
        return spec | {"width": width, "background": "#ffffff", "title": text, "config": spec["config"] | {"font": _SAVED_FONT}}


def plain(text: str | Markup) -> str:
    """HTML as plain text."""
    return text.striptags() if isinstance(text, Markup) else text


def json_for_script(value: Any) -> Markup:
    """JSON that cannot end its script tag; NaN and infinity, which JSON does not have, raise ``ValueError``."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return Markup(text)  # noqa: S704 - nothing that HTML reads is left in it


def cleaned(rows: Sequence[Mapping[str, Any]], digits: int = 5) -> list[dict[str, Any]]:
    """Rows for a chart: floats with that many digits, NaN and infinity as null."""
    return [
        {
            key: (None if not math.isfinite(value) else float(f"{value:.{digits}g}")) if isinstance(value, float) else value
            for key, value in row.items()
        }
        for row in rows
    ]


def specification(
    chart: alt.LayerChart | alt.FacetChart | alt.Chart, datasets: Mapping[str, Sequence[Mapping[str, Any]]], description: str, height: int
) -> dict[str, Any]:
    """The chart's specification with its named data, sized by its container, in the page's type and colours."""
    spec: dict[str, Any] = chart.properties(width="container", height=height, description=description, config=CONFIG).to_dict()
    spec["datasets"] = {name: cleaned(rows) for name, rows in datasets.items()}
    return spec
