"""The charts, as Vega-Lite specifications: one function per kind of chart, data in, specification out.

Names from the data stand in data fields only, never in expressions, and field names are ours. No tooltip entry is titled ``image``,
which Vega's tooltip would load.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import altair as alt
import numpy as np

from brokerlens.report.figure import ROWS, specification
from brokerlens.report.latency import Bins, Floats, curve_ranks, quantile
from brokerlens.report.results import Marks, Site
from brokerlens.report.scales import FLOOR_MS, PERCENTILE_TICKS, Symlog, ticks_125, z_of
from brokerlens.report.words import visible
from brokerlens.report.zones import utc_stamp

Row = dict[str, Any]
DASHES: tuple[list[int], ...] = ([], [5, 3], [2, 3], [8, 3, 2, 3], [1, 2], [10, 4])
_SECOND = 1_000_000_000
_TICK_SECONDS = (1, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400, 172_800)


class Line:
    """How one curve looks: its name, values, colour of line and text, and dash."""

    def __init__(self, label: str, values: Floats, colour: str, text: str, dash: int) -> None:
        self.label, self.values, self.colour, self.text = visible(label), values, colour, text
        self.dash = DASHES[dash % len(DASHES)]


def _rows() -> alt.NamedData:
    return alt.NamedData(name=ROWS)


def _named(name: str) -> alt.NamedData:
    return alt.NamedData(name=name)


def _line_scales(lines: Sequence[Line]) -> tuple[alt.Scale, alt.Scale, alt.Scale]:
    names = [line.label for line in lines]
    return (
        alt.Scale(domain=names, range=[line.colour for line in lines]),
        alt.Scale(domain=names, range=[line.text for line in lines]),
        alt.Scale(domain=names, range=[line.dash for line in lines]),
    )


def _log(domain: tuple[float, float]) -> alt.Scale:
    return alt.Scale(type="log", domain=list(domain), nice=False, clamp=True)


def _log_axis(domain: tuple[float, float], **more: Any) -> alt.Axis:
    return alt.Axis(values=ticks_125(*domain), format=",~r", **more)


def _hover(many: bool) -> alt.Parameter:
    """A line under the pointer: where there are many, only it gets colour."""
    return alt.selection_point(name="hovered", on="pointerover", clear="pointerout", fields=["name"], nearest=many, empty=False)


def ecdf(lines: Sequence[Line], domain: tuple[float, float], description: str, *, labelled: bool, height: int = 300) -> dict[str, Any]:
    """Share of requests answered within … ms: a step per order statistic, label on the line where the curves are apart."""
    points = max(60, min(375, 4500 // max(1, len(lines))))
    rows: list[Row] = []
    for line in lines:
        n = len(line.values)
        ranks = curve_ranks(n, points)
        for rank in ranks.tolist():
            rows.append({"name": line.label, "ms": max(FLOOR_MS, float(line.values[rank - 1])), "share": rank / n, "n": n})
    colour, text, dash = _line_scales(lines)
    x = alt.X("ms:Q", scale=_log(domain), axis=_log_axis(domain))
    y = alt.Y(
        "share:Q",
        scale=alt.Scale(domain=[0, 1], nice=False),
        axis=alt.Axis(values=[0, 0.25, 0.5, 0.75, 0.9, 1], labelExpr="format(datum.value * 100, 'd') + ' %'", labelOverlap=False),
    )
    tooltip = [
        alt.Tooltip("name:N", title="site"),
        alt.Tooltip("ms:Q", title="answered within, ms", format=",.4~r"),
        alt.Tooltip("share:Q", title="share", format=".2%"),
        alt.Tooltip("n:Q", title="requests", format=","),
    ]
    base = alt.Chart(_rows())
    layers: list[alt.Chart] = [
        base.mark_line(interpolate="step-after", strokeWidth=2, clip=True, aria=False).encode(
            x=x,
            y=y,
            color=alt.Color("name:N", scale=colour, legend=None),
            strokeDash=alt.StrokeDash("name:N", scale=dash, legend=None),
            order=alt.Order("share:Q"),
        )
    ]
    hovered = _hover(many=not labelled)
    if not labelled:
        layers[0] = layers[0].encode(opacity=alt.value(0.55))
        layers.append(
            base.mark_line(interpolate="step-after", strokeWidth=2.5, clip=True, aria=False)
            .transform_filter(hovered)
            .encode(x=x, y=y, color=alt.value("var(--s1)"), detail="name:N", order=alt.Order("share:Q"))
        )
    layers.append(
        base.mark_point(size=60, opacity=0, filled=True, aria=False)
        .encode(
            x=x,
            y=y,
            color=alt.Color("name:N", scale=colour, legend=None),
            opacity=alt.condition(hovered, alt.value(0.01), alt.value(0)),
            tooltip=tooltip,
        )
        .add_params(hovered)
    )
    datasets: dict[str, list[Row]] = {ROWS: rows}
    if labelled:
        datasets["labels"] = _ecdf_labels(lines, domain)
        for side, dx in (("right", 7), ("left", -7)):
            layers.append(
                alt.Chart(_named("labels"))
                .mark_text(align="left" if side == "right" else "right", dx=dx, fontWeight=600, aria=False)
                .transform_filter(alt.FieldEqualPredicate(field="side", equal=side))
                .encode(x=x, y=y, text="name:N", color=alt.Color("name:N", scale=text, legend=None))
            )
    chart = alt.layer(*layers).resolve_scale(color="independent", strokeDash="independent", opacity="independent")
    return specification(chart, datasets, description, height)


def _ecdf_labels(lines: Sequence[Line], domain: tuple[float, float]) -> list[Row]:
    """For each curve the height and side where its name stands farthest from every other curve and name."""
    low, high = np.log10(domain[0]), np.log10(domain[1])
    heights = np.linspace(0.1, 0.9, 17)
    places = np.array(
        [[(np.log10(max(FLOOR_MS, quantile(line.values, h) or FLOOR_MS)) - low) / (high - low) for h in heights] for line in lines]
    )
    rows: list[Row] = []
    taken: list[tuple[float, float, float]] = []
    for i, line in enumerate(lines):
        width = 0.022 * len(line.label) + 0.03
        best: tuple[float, int, str] | None = None
        for j, h in enumerate(heights.tolist()):
            here = float(places[i][j])
            for side in ("right", "left"):
                start, end = (here + 0.012, here + width) if side == "right" else (here - width, here - 0.012)
                if end > 1 or start < 0:
                    continue
                # The name is about 5 % of the height tall: look at the neighbouring heights, too.
                near = places[:, max(0, j - 1) : j + 2]
                crossed = int(sum(bool(np.any((near[k] > start - 0.01) & (near[k] < end + 0.01))) for k in range(len(lines)) if k != i))
                own = int(np.any((places[i, max(0, j - 1) : j + 2] > start + 0.02) & (places[i, max(0, j - 1) : j + 2] < end)))
                overlaps = sum(1 for (s, e, y) in taken if s < end and e > start and abs(y - h) < 0.09)
                score = -3 * overlaps - 2 * crossed - own - abs(h - 0.55) - (0.12 if side == "left" else 0)
                if best is None or score > best[0]:
                    best = (score, j, side)
        if best is None:
            continue
        _, j, side = best
        here = float(places[i][j])
        taken.append((here, here + width, float(heights[j])) if side == "right" else (here - width, here, float(heights[j])))
        rows.append({"name": line.label, "ms": float(10 ** (low + here * (high - low))), "share": float(heights[j]), "side": side})
    return rows


def _percentile_axis(low: float, high: float) -> alt.Axis:
    ticks = {z_of(q): label for q, label in PERCENTILE_TICKS.items() if low <= z_of(q) <= high + 1e-9}
    # Labels are ours; p95 goes where p90 and p99 need the room.
    words = "".join(
        f"abs(datum.value - {z:.6f}) < 1e-4 ? {'(width < 330 ? ' + repr('') + ' : ' + repr(label) + ')' if label == 'p95' else repr(label)} : "
        for z, label in ticks.items()
    )
    return alt.Axis(values=list(ticks), labelExpr=words + "''", grid=True, labelOverlap=False)


def _percentile_rows(line: Line, band: Sequence[tuple[float, float | None, float | None]]) -> list[Row]:
    """Points of one line; ``band`` has the interval at some quantiles, and what lies beyond the last of them is marked as open."""
    n = len(line.values)
    bounds = np.array([[q, np.nan if lo is None else lo, np.nan if hi is None else hi] for q, lo, hi in band]).reshape(-1, 3)
    closed = bounds[~np.isnan(bounds[:, 1:]).any(axis=1)] if len(bounds) else bounds
    least, most = (float(closed[0, 0]), float(closed[-1, 0])) if len(closed) else (2.0, -1.0)
    ranks = curve_ranks(n, 260)
    shares = sorted(
        {float(rank / n) for rank in ranks.tolist() if 0.02 <= rank / n < 1} | {float(q) for q in closed[:, 0] if q < 1 - 0.5 / n}
    )
    rows: list[Row] = []
    for q in shares:
        row: Row = {"name": line.label, "quantile": q, "z": z_of(q), "ms": max(FLOOR_MS, quantile(line.values, q) or 0.0), "n": n}
        if least <= q <= most:
            row |= {f"{end}": max(FLOOR_MS, float(np.interp(q, closed[:, 0], closed[:, i]))) for i, end in ((1, "low"), (2, "high"))}
        rows.append(row | {"sure": least <= q <= most})
    return rows


def percentiles(
    lines: Sequence[Line],
    bands: Sequence[Sequence[tuple[float, float | None, float | None]]],
    domain: tuple[float, float],
    description: str,
    height: int = 300,
) -> dict[str, Any]:
    """Latency at each percentile on −log10(1−q); band = 95 % interval, dotted where too few samples for one; ends at 1−1/n."""
    rows: list[Row] = []
    for line, band in zip(lines, bands, strict=True):
        rows.extend(_percentile_rows(line, band))
    last = max((row["z"] for row in rows), default=3.0)
    reach = (0.0, min(4.0, max(2.0, last) * 1.02))
    colour, text, dash = _line_scales(lines)
    x = alt.X("z:Q", scale=alt.Scale(domain=list(reach), nice=False), axis=_percentile_axis(*reach))
    y = alt.Y("ms:Q", scale=_log(domain), axis=_log_axis(domain))
    shown = alt.Color("name:N", scale=colour, legend=None)
    base = alt.Chart(_rows())
    layers: list[alt.Chart] = [
        base.mark_area(interpolate="step-before", opacity=0.18, clip=True, aria=False)
        .transform_filter("isValid(datum.low) && isValid(datum.high)")
        .encode(x=x, y=alt.Y("low:Q", scale=_log(domain), axis=_log_axis(domain)), y2="high:Q", color=shown),
        base.mark_line(interpolate="step-before", strokeWidth=2, clip=True, aria=False)
        .transform_filter("datum.sure")
        .encode(x=x, y=y, color=shown, strokeDash=alt.StrokeDash("name:N", scale=dash, legend=None)),
        base.mark_line(interpolate="step-before", strokeWidth=1.6, clip=True, strokeDash=[1, 3], aria=False)
        .transform_filter("!datum.sure")
        .encode(x=x, y=y, color=shown, detail="part:N"),
        base.mark_point(size=60, opacity=0, filled=True, aria=False).encode(
            x=x,
            y=y,
            color=shown,
            tooltip=[
                alt.Tooltip("name:N", title="site"),
                alt.Tooltip("quantile:Q", title="quantile", format=".2%"),
                alt.Tooltip("ms:Q", title="ms", format=",.4~r"),
                alt.Tooltip("low:Q", title="95 % from", format=",.4~r"),
                alt.Tooltip("high:Q", title="95 % to", format=",.4~r"),
            ],
        ),
        alt.Chart(_named("labels"))
        .mark_text(align="right", dx=-4, dy=-10, fontWeight=600, aria=False)
        .encode(x=x, y=y, text="name:N", color=alt.Color("name:N", scale=text, legend=None)),
    ]
    for row in rows:
        row["part"] = f"{row['name']} {'before' if row['quantile'] < 0.5 else 'beyond'}"
    labels = _end_labels(rows, lines, domain)
    chart = alt.layer(*layers).resolve_scale(color="independent", strokeDash="independent")
    return specification(chart, {ROWS: rows, "labels": labels}, description, height)


def _end_labels(rows: Sequence[Row], lines: Sequence[Line], domain: tuple[float, float]) -> list[Row]:
    """The name at each line's end, moved apart where ends meet."""
    ends = [max((row for row in rows if row["name"] == line.label), key=lambda row: float(row["z"])) for line in lines if len(line.values)]
    room = (np.log10(domain[1]) - np.log10(domain[0])) * 0.07
    labels: list[Row] = []
    last = -np.inf
    for end in sorted(ends, key=lambda row: float(row["ms"])):
        place = max(float(np.log10(end["ms"])), last + room)
        last = place
        labels.append({"name": end["name"], "z": end["z"], "ms": float(min(10**place, domain[1]))})
    return labels


def quantile_differences(rows: Sequence[Row], faster: str, slower: str, description: str, colour: str, height: int = 300) -> dict[str, Any]:
    """a − b in ms at each percentile, symmetric logarithmic; rows have ``z``, ``quantile``, ``ms``, ``low``, ``high`` (null is open)."""
    scale = Symlog.over([row[key] for row in rows for key in ("ms", "low", "high")])
    reach = (0.0, max(max((row["z"] for row in rows), default=2.0), 1.0) * 1.03)
    y_scale = alt.Scale(type="symlog", constant=scale.constant, domain=[scale.low, scale.high], nice=False)
    axis = alt.Axis(values=scale.ticks(), labelExpr="datum.value == 0 ? '0' : format(datum.value, '+,~r')", labelOverlap=False)
    x = alt.X("z:Q", scale=alt.Scale(domain=list(reach), nice=False), axis=_percentile_axis(*reach))
    y = alt.Y("ms:Q", scale=y_scale, axis=axis)
    base = alt.Chart(_rows())

    # The words stand at the end where the line is farther from zero.
    def room(end: Sequence[Row]) -> float:
        return min((abs(scale.share(row["ms"]) - scale.share(0)) for row in end), default=1.0)

    at_right = room([row for row in rows if row["z"] > 0.7 * reach[1]]) > room([row for row in rows if row["z"] < 0.3 * reach[1]])
    place = reach[1] if at_right else 0.0
    sides = [{"z": place, "ms": 0.0, "text": visible(text), "side": side} for side, text in (("up", slower), ("down", faster))]
    layers: list[alt.Chart] = [
        base.mark_area(opacity=0.18, interpolate="linear", clip=True, aria=False, color=colour)
        .transform_filter("isValid(datum.low) && isValid(datum.high)")
        .encode(x=x, y=alt.Y("low:Q", scale=y_scale, axis=axis), y2="high:Q"),
        alt.Chart(_named("sides")).mark_rule(color="var(--third)", aria=False).encode(y=y).transform_filter("datum.side == 'up'"),
        base.mark_line(strokeWidth=2, color=colour, clip=True, aria=False).encode(x=x, y=y),
        base.mark_point(size=60, opacity=0, filled=True, aria=False).encode(
            x=x,
            y=y,
            tooltip=[
                alt.Tooltip("quantile:Q", title="quantile", format=".2%"),
                alt.Tooltip("ms:Q", title="difference, ms", format="+,.4~r"),
                alt.Tooltip("low:Q", title="95 % from", format="+,.4~r"),
                alt.Tooltip("high:Q", title="95 % to", format="+,.4~r"),
            ],
        ),
        *(
            alt.Chart(_named("sides"))
            .mark_text(
                align="right" if at_right else "left", dx=-6 if at_right else 6, dy=dy, fontSize=12, color="var(--third)", aria=False
            )
            .transform_filter(alt.FieldEqualPredicate(field="side", equal=side))
            .encode(x=x, y=y, text="text:N")
            for side, dy in (("up", -9), ("down", 10))
        ),
    ]
    return specification(alt.layer(*layers), {ROWS: list(rows), "sides": sides}, description, height)


def interval_plot(rows: Sequence[Row], description: str) -> dict[str, Any]:
    """Differences with intervals, one row per statistic; the page draws this one itself, the specification is for files."""
    scale = Symlog.over([row[key] for row in rows for key in ("ms", "low", "high")])
    x_scale = alt.Scale(type="symlog", constant=scale.constant, domain=[scale.low, scale.high], nice=False)
    axis = alt.Axis(values=scale.ticks(), labelExpr="datum.value == 0 ? '0' : format(datum.value, '+,~r')", grid=True)
    x = alt.X("ms:Q", scale=x_scale, axis=axis)
    y = alt.Y("statistic:N", sort=None, axis=alt.Axis(grid=False))
    base = alt.Chart(_rows())
    chart = alt.layer(
        base.mark_rule(strokeWidth=1.8).encode(x=alt.X("low:Q", scale=x_scale, axis=axis), x2="high:Q", y=y, color=alt.value("var(--ink)")),
        base.mark_point(size=70, filled=True, opacity=1, color="var(--ink)").encode(x=x, y=y).transform_filter("datum.sure"),
        base.mark_point(size=70, fill="var(--card)", opacity=1, color="var(--third)").encode(x=x, y=y).transform_filter("!datum.sure"),
    )
    return specification(chart, {ROWS: list(rows)}, description, 30 * max(1, len({row["statistic"] for row in rows})) + 10)


REQUEST_PARTS: Final = {name: name for name in ("network", "broker", "queue", "transfer", "unknown")}
"""Parts of a request and the fill of each."""


def parts(rows: Sequence[Row], order: Sequence[str], description: str, fills: Mapping[str, str] = REQUEST_PARTS) -> dict[str, Any]:
    """Stacked means: a bar per site or route, four neutral fills, name and value inside where it is wide enough, the total at the end."""
    names = list(fills)
    longest = max((row["end"] for row in rows), default=1.0)
    x_scale = alt.Scale(domain=[0, longest * 1.34], nice=False)
    y = alt.Y(
        "name:N",
        sort=list(order),
        axis=alt.Axis(minExtent=46, maxExtent=120, labelColor="var(--ink)", labelFontWeight=600, labelLimit=120),
        scale=alt.Scale(paddingInner=0.35),
    )
    fill = alt.Color("part:N", scale=alt.Scale(domain=names, range=[f"var(--{fill})" for fill in fills.values()]), legend=None)
    ink = alt.Color(
        "part:N",
        scale=alt.Scale(domain=names, range=[f"var(--on-{fill})" if fill != "unknown" else "var(--ink)" for fill in fills.values()]),
        legend=None,
    )
    totals = [
        {"name": name, "end": max(row["end"] for row in rows if row["name"] == name)}
        for name in order
        if any(row["name"] == name for row in rows)
    ]
    base = alt.Chart(_rows())
    tooltip = [
        alt.Tooltip("name:N", title="site"),
        alt.Tooltip("part:N", title="part"),
        alt.Tooltip("ms:Q", title="mean, ms", format=",.4~r"),
    ]
    chart = alt.layer(
        base.mark_bar(stroke="var(--card)", strokeWidth=1).encode(
            x=alt.X("start:Q", scale=x_scale, axis=None),
            x2="end:Q",
            y=y,
            color=fill,
            strokeDash=alt.condition("datum.part == 'unknown'", alt.value([3, 2]), alt.value([1, 0])),
            stroke=alt.condition("datum.part == 'unknown'", alt.value("var(--third)"), alt.value("var(--card)")),
            tooltip=tooltip,
        ),
        base.mark_text(align="left", dx=6, aria=False)
        .transform_calculate(
            words="(datum.part == 'unknown' ? 'not separable' : datum.part) + ' ' + format(datum.ms, datum.ms < 10 ? '.1f' : ',.0f')"
        )
        .transform_filter(f"datum.ms / {longest * 1.34:.6g} * width > 100")
        .encode(x=alt.X("start:Q", scale=x_scale, axis=None), y=y, text="words:N", color=ink),
        alt.Chart(_named("totals"))
        .mark_text(align="left", dx=6, color="var(--ink)", aria=False)
        .transform_calculate(words="format(datum.end, datum.end < 10 ? '.2f' : datum.end < 100 ? '.1f' : ',.0f') + ' ms'")
        .encode(x=alt.X("end:Q", scale=x_scale, axis=None), y=y, text="words:N"),
    ).resolve_scale(color="independent")
    return specification(chart, {ROWS: list(rows), "totals": totals}, description, 36 * max(1, len(order)) + 8)


def _time_x(site: Site, field: str, span: tuple[int, int]) -> alt.X:
    start, end = (int(value) for value in site.zone.wall_ms(np.array(span)))
    step = next((step for step in _TICK_SECONDS if (end - start) / 1000 / step <= 7), 86_400 * 7)
    ticks = range(-(-start // (step * 1000)) * step * 1000, end + 1, step * 1000)
    shape = "%H:%M:%S" if step < 60 else "%H:%M" if step < 86_400 else "%d %b"
    return alt.X(
        f"{field}:T",
        # A plain numeric domain becomes datetime(ms), which Vega's interpreter evaluates to NaN.
        scale=alt.Scale(type="utc", domain={"expr": f"[{start},{end}]"}, nice=False),
        axis=alt.Axis(format=shape, values={"expr": f"[{','.join(map(str, ticks))}]"}),
    )


def _moment(site: Site, ns: int) -> Row:
    return {"t": int(site.zone.wall_ms(np.array([ns]))[0]), "utc": utc_stamp(ns)}


LANES = {"retransmitted": "var(--bad)", "reset": "var(--bad)", "zero window": "var(--warning)"}
_LANE_HEIGHT = 15


def timeline(
    site: Site,
    bins: Bins | None,
    span: tuple[int, int],
    domain: tuple[float, float],
    worst: tuple[int, int] | None,
    colour: str,
    description: str,
) -> dict[str, Any]:
    """p50 line, shade up to p95, gaps stay gaps; beneath a lane each for retransmissions, resets and zero windows; events as rules."""
    rows = _timeline_rows(site, bins)
    lanes = [(lane, marks) for lane, marks in site.lanes.items() if marks.total]
    events = [event for event in site.events if span[0] <= event["at"] <= span[1]]
    # Words stand above the curves: room for them at the top, for the lanes beneath.
    top = 34 if events else 18
    plot = top + 150
    height = plot + _LANE_HEIGHT * len(lanes) + (6 if lanes else 0)
    y_scale = alt.Scale(type="log", domain=list(domain), nice=False, clamp=True, range=[plot, top])
    axis = _log_axis(domain)
    datasets: dict[str, list[Row]] = {ROWS: rows}
    x = _time_x(site, "t", span)
    layers: list[alt.Chart] = []
    if worst is not None:
        begin, end = (_moment(site, value) for value in worst)
        datasets["worst"] = [{"t": begin["t"], "until": end["t"], "words": "worst minute"}]
        layers += [
            alt.Chart(_named("worst"))
            .mark_rect(color="var(--shade)", opacity=1, clip=True, aria=False)
            .encode(x=x, x2="until:T", y=alt.value(0), y2=alt.value(height)),
            alt.Chart(_named("worst"))
            .transform_calculate(middle="(datum.t + datum.until) / 2")
            .mark_text(color="var(--warning)", fontWeight=600, fontSize=12, baseline="top", dy=3, aria=False)
            .encode(x=_time_x(site, "middle", span), y=alt.value(0), text="words:N"),
        ]
    base = alt.Chart(_rows())
    tooltip = [
        alt.Tooltip("utc:N", title="from (UTC)"),
        alt.Tooltip("p50:Q", title="p50, ms", format=",.4~r"),
        alt.Tooltip("p95:Q", title="p95, ms", format=",.4~r"),
        alt.Tooltip("n:Q", title="requests", format=","),
    ]
    y = alt.Y("p50:Q", scale=y_scale, axis=axis)
    layers += [
        base.mark_area(interpolate="step-after", color=colour, opacity=0.22, clip=True, aria=False).encode(
            x=x, y=y, y2="p95:Q", detail="piece:N"
        ),
        base.mark_line(interpolate="step-after", color=colour, strokeWidth=1, opacity=0.6, clip=True, aria=False).encode(
            x=x, y=alt.Y("p95:Q", scale=y_scale, axis=axis), detail="piece:N"
        ),
        base.mark_line(interpolate="step-after", color=colour, strokeWidth=2.2, clip=True, aria=False).encode(x=x, y=y, detail="piece:N"),
        base.mark_rect(opacity=0, clip=True, aria=False)
        .transform_filter("isValid(datum.until)")
        .encode(x=x, x2="until:T", y=alt.value(0), y2=alt.value(plot), tooltip=tooltip),
    ]
    for i, (lane, marks) in enumerate(lanes):
        middle = plot + 6 + _LANE_HEIGHT * i + _LANE_HEIGHT / 2
        datasets[f"lane{i}"] = _lane_rows(site, marks, lane)
        shape: dict[str, Any] = {
            "retransmitted": {"shape": "stroke", "angle": 90, "size": 60},
            "reset": {"shape": "M-.5,-.5L.5,.5M-.5,.5L.5,-.5", "size": 110},
        }.get(lane, {"shape": "square", "size": 45})
        layers.append(
            alt.Chart(_named(f"lane{i}"))
            .mark_point(filled=False, stroke=LANES[lane], strokeWidth=1.6, clip=True, aria=False, **shape)
            .encode(
                x=x,
                y=alt.value(middle),
                tooltip=[alt.Tooltip("utc:N", title="UTC"), alt.Tooltip("kind:N", title="what"), alt.Tooltip("n:Q", title="how many")],
            )
        )
    if events:
        datasets["events"] = [_moment(site, event["at"]) | {"words": visible(str(event["label"]))} for event in events]
        marked = alt.Chart(_named("events"))
        layers += [
            marked.mark_rule(color="var(--ink)", strokeDash=[3, 3], aria=False).encode(
                x=x, y=alt.value(0), y2=alt.value(height), tooltip=["words:N", "utc:N"]
            ),
            marked.mark_text(align="left", dx=5, baseline="top", dy=18, color="var(--ink)", fontSize=12, limit=160, aria=False).encode(
                x=x, y=alt.value(0), text="words:N"
            ),
        ]
    return specification(alt.layer(*layers), datasets, description, height)


def _timeline_rows(site: Site, bins: Bins | None) -> list[Row]:
    """A row per bin with requests; runs of bins are numbered, and each run's last row is repeated at its end, for the step."""
    if bins is None:
        return []
    rows: list[Row] = []
    piece, step = 0, bins.seconds * _SECOND
    wall = site.zone.wall_ms(bins.start).tolist()
    ends = site.zone.wall_ms(bins.start + step).tolist()
    for i, start in enumerate(bins.start.tolist()):
        begins = i == 0 or start != int(bins.start[i - 1]) + step or wall[i] != ends[i - 1]
        piece += begins
        values = {
            "p50": max(FLOOR_MS, float(bins.p50[i])),
            "p95": max(FLOOR_MS, float(bins.p95[i])),
            "n": int(bins.count[i]),
            "piece": piece,
        }
        rows.append({"t": wall[i], "until": ends[i], "utc": utc_stamp(start)} | values)
        if i + 1 == len(bins.start) or int(bins.start[i + 1]) != start + step or wall[i + 1] != ends[i]:
            rows.append({"t": ends[i], "until": None, "utc": utc_stamp(start + step)} | values)
    return rows


def _lane_rows(site: Site, marks: Marks, lane: str) -> list[Row]:
    wall = site.zone.wall_ms(marks.time).tolist()
    return [
        {"t": t, "utc": utc_stamp(ns), "n": n, "kind": lane}
        for t, ns, n in zip(wall, marks.time.tolist(), marks.number.tolist(), strict=True)
    ]


def heat_map(
    sites: Sequence[Site],
    all_bins: Mapping[tuple[str, str], Bins | None],
    order: Sequence[Site],
    span: tuple[int, int],
    domain: tuple[float, float],
    description: str,
) -> dict[str, Any]:
    """Many sites: a row per site, coloured by p95 on one logarithmic hue, the worst on top."""
    rows: list[Row] = []
    for site in sites:
        bins = all_bins[site.key]
        if bins is None:
            continue
        step = bins.seconds * _SECOND
        wall, ends = site.zone.wall_ms(bins.start).tolist(), site.zone.wall_ms(bins.start + step).tolist()
        for i, start in enumerate(bins.start.tolist()):
            rows.append(
                {
                    "name": visible(site.name),
                    "t": wall[i],
                    "until": ends[i],
                    "utc": utc_stamp(start),
                    "p95": max(FLOOR_MS, float(bins.p95[i])),
                    "n": int(bins.count[i]),
                }
            )
    x = _time_x(sites[0], "t", span)
    chart = (
        alt.Chart(_rows())
        .mark_rect(clip=True, aria=False)
        .encode(
            x=x,
            x2="until:T",
            y=alt.Y(
                "name:N",
                sort=[visible(site.name) for site in order],
                axis=alt.Axis(minExtent=46, maxExtent=110, labelLimit=110, labelFontSize=11),
            ),
            color=alt.Color("level:N", scale=alt.Scale(domain=list(range(6)), range=[f"var(--h{i})" for i in range(6)]), legend=None),
            tooltip=[
                alt.Tooltip("name:N", title="site"),
                alt.Tooltip("utc:N", title="from (UTC)"),
                alt.Tooltip("p95:Q", title="p95, ms", format=",.4~r"),
                alt.Tooltip("n:Q", title="requests"),
            ],
        )
    )
    low, high = np.log(domain[0]), np.log(domain[1])
    for row in rows:
        row["level"] = int(min(5, max(0, 6 * (np.log(row["p95"]) - low) / (high - low))))
    return specification(chart, {ROWS: rows}, description, 15 * max(1, len(order)) + 8)


def over_time(
    series: Sequence[tuple[Site, Line, Sequence[tuple[int, float]], float]],
    span: tuple[int, int],
    domain: tuple[float, float],
    unit: str,
    description: str,
    *,
    log: bool,
    height: int = 200,
) -> dict[str, Any]:
    """One line per site of a value per time bin (begin in ns, value), the bin's length in seconds; gaps stay gaps."""
    rows: list[Row] = []
    for site, line, values, seconds in series:
        step, piece, last = int(seconds * _SECOND), 0, None
        for start, value in values:
            piece += last != start
            last = start + step
            rows.append(_moment(site, start) | {"name": line.label, "value": value, "piece": f"{line.label} {piece}"})
    lines = [line for _, line, _, _ in series]
    colour, text, dash = _line_scales(lines)
    if log:
        y = alt.Y("value:Q", scale=_log(domain), axis=_log_axis(domain))
    else:
        y = alt.Y("value:Q", scale=alt.Scale(domain=list(domain), nice=False), axis=alt.Axis(tickCount=5, format=",~r"))
    x = _time_x(series[0][0], "t", span)
    base = alt.Chart(_rows())
    ends = [
        _above_end([row for row in rows if row["name"] == line.label]) for line in lines if any(row["name"] == line.label for row in rows)
    ]
    chart = alt.layer(
        base.mark_line(strokeWidth=1.8, clip=True, aria=False).encode(
            x=x,
            y=y,
            color=alt.Color("name:N", scale=colour, legend=None),
            strokeDash=alt.StrokeDash("name:N", scale=dash, legend=None),
            detail="piece:N",
        ),
        base.mark_point(size=50, opacity=0, filled=True, aria=False).encode(
            x=x,
            y=y,
            tooltip=[
                alt.Tooltip("name:N", title="site"),
                alt.Tooltip("utc:N", title="from (UTC)"),
                alt.Tooltip("value:Q", title=unit, format=",.4~r"),
            ],
        ),
        alt.Chart(_named("labels"))
        .mark_text(align="right", dy=-9, fontWeight=600, aria=False)
        .encode(x=x, y=y, text="name:N", color=alt.Color("name:N", scale=text, legend=None)),
    ).resolve_scale(color="independent", strokeDash="independent")
    return specification(chart, {ROWS: rows, "labels": ends}, description, height)


def _above_end(rows: Sequence[Row]) -> Row:
    """Where a line's name stands: above its last stretch."""
    last = rows[-max(1, len(rows) // 7) :]
    return {**rows[-1], "value": max(float(row["value"]) for row in last)}
