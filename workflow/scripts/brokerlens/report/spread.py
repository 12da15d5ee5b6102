"""Small pictures as inline SVG with CSS variables: they show without JavaScript, print, and follow the theme."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup, escape

from brokerlens.report.latency import Bins, Floats, quantile
from brokerlens.report.scales import FLOOR_MS, Symlog, tick_label

SPREAD_WIDTH = 180
SPARK_WIDTH = 170
LANE_WIDTH = 200


class LogScale:
    """Pixels of values on a logarithmic axis, at least ``FLOOR_MS``."""

    def __init__(self, domain: tuple[float, float], start: float, end: float) -> None:
        self.low, self.high = (math.log10(bound) for bound in domain)
        self.start, self.end = start, end

    def __call__(self, value: float) -> float:
        share = (math.log10(max(value, FLOOR_MS)) - self.low) / (self.high - self.low)
        return round(self.start + min(1.0, max(0.0, share)) * (self.end - self.start), 1)


def _svg(width: int, height: int, body: str, label: str) -> Markup:
    spoken = f'role="img" aria-label="{escape(label)}"' if label else 'aria-hidden="true"'
    return Markup(f'<svg class="small" width="{width}" height="{height}" viewBox="0 0 {width} {height}" {spoken}>{body}</svg>')  # noqa: S704


def decades(domain: tuple[float, float]) -> list[float]:
    """Powers of ten inside the range; 1-2-5 steps where there are fewer than two."""
    inside = [
        10.0**k for k in range(math.floor(math.log10(domain[0])), math.ceil(math.log10(domain[1])) + 1) if domain[0] <= 10.0**k <= domain[1]
    ]
    if len(inside) > 1:
        return inside
    return [f * 10.0**k for k in range(-4, 7) for f in (1, 2, 5) if domain[0] <= f * 10.0**k <= domain[1]]


def spread_axis(domain: tuple[float, float]) -> Markup:
    """The axis for the heading above the spreads."""
    x = LogScale(domain, 6, SPREAD_WIDTH - 14)
    body = "".join(
        f'<text x="{x(tick)}" y="11" text-anchor="middle" fill="var(--third)">{tick_label(tick)}</text>' for tick in decades(domain)
    )
    return _svg(SPREAD_WIDTH, 14, body, "")


def spread(values: Floats, domain: tuple[float, float], colour: str) -> Markup:
    """Line from 5 % to the largest, box over the middle half, tick at the median, ring at p95."""
    x = LogScale(domain, 6, SPREAD_WIDTH - 14)
    grid = "".join(f'<path d="M{x(tick)} 0V30" stroke="var(--grid)"/>' for tick in decades(domain))
    if len(values) == 0:
        return _svg(SPREAD_WIDTH, 30, grid, "no latencies")
    p5, p25, p50, p75, p95 = (x(quantile(values, q) or 0.0) for q in (0.05, 0.25, 0.5, 0.75, 0.95))
    largest = x(float(values[-1]))
    box = max(1.5, p75 - p25)
    body = (
        f'{grid}<path d="M{p5} 15H{largest}" stroke="{colour}" stroke-width="1.5" opacity=".75"/>'
        f'<rect x="{p25}" y="10.5" width="{box:.1f}" height="9" fill="{colour}" opacity=".45"/>'
        f'<path d="M{p50} 6V24" stroke="{colour}" stroke-width="2.5"/>'
        f'<circle cx="{p95}" cy="15" r="4.2" fill="var(--card)" stroke="{colour}" stroke-width="2"/>'
    )
    said = ", ".join(
        f"{name} {tick_label(round(quantile(values, q) or 0.0, 1))}" for name, q in (("5 %", 0.05), ("median", 0.5), ("95 %", 0.95))
    )
    return _svg(SPREAD_WIDTH, 30, body, f"{said}, largest {tick_label(round(float(values[-1]), 1))} ms")


def sparkline(
    bins: Bins | None, span: tuple[int, int] | None, domain: tuple[float, float], colour: str, shaded: tuple[int, int] | None
) -> Markup:
    """p95 over time; gaps stay gaps; the worst minute shaded."""
    if bins is None or span is None:
        return _svg(SPARK_WIDTH, 34, "", "no requests")
    y = LogScale(domain, 31, 3)

    def x(time: float) -> float:
        return round((time - span[0]) / (span[1] - span[0]) * SPARK_WIDTH, 1)

    path, last = [], None
    step = bins.seconds * 1_000_000_000
    for start, p95 in zip(bins.start.tolist(), bins.p95.tolist(), strict=True):
        path.append(f"{'L' if last == start else 'M'}{x(start + step / 2)} {y(p95)}h.1")
        last = start + step
    shade = ""
    if shaded is not None:
        left, right = x(max(shaded[0], span[0])), x(min(shaded[1], span[1]))
        shade = f'<rect x="{left}" y="0" width="{max(2.0, right - left):.1f}" height="34" fill="var(--shade)"/>'
    line = f'<path d="{"".join(path)}" fill="none" stroke="{colour}" stroke-width="1.6" stroke-linejoin="round" stroke-linecap="round"/>'
    highest = tick_label(round(float(bins.p95.max()), 1))
    return _svg(SPARK_WIDTH, 34, shade + line, f"p95 over time, at most {highest} ms per {bins.seconds} s")


def interval_lane(scale: Symlog, value: float | None, low: float | None, high: float | None, *, filled: bool) -> Markup:
    """A difference with its interval; a side without a bound runs to the edge with an arrow; zero marked. Stretches with its column."""

    def x(v: float) -> float:
        return round(100 * min(1.0, max(0.0, scale.share(v))), 2)

    colour = "var(--ink)" if filled else "var(--third)"
    body = f'<line x1="{x(0)}%" x2="{x(0)}%" y1="3" y2="21" stroke="var(--axis)"/>'
    if value is not None:
        left, right = (0.0 if low is None else x(low)), (100.0 if high is None else x(high))
        if low is not None or high is not None:
            dash = ' stroke-dasharray="3 3"' if low is None or high is None else ""
            body += f'<line x1="{left}%" x2="{right}%" y1="12" y2="12" stroke="{colour}" stroke-width="1.8"{dash}/>'
        body += (
            f'<circle cx="{x(value)}%" cy="12" r="4" fill="{colour if filled else "var(--card)"}" stroke="{colour}" stroke-width="1.8"/>'
        )
    return Markup(f'<svg class="lane" height="24" width="100%" aria-hidden="true">{body}</svg>')  # noqa: S704


def swatch(colour: str) -> Markup:
    """The site's colour beside its name."""
    square = f'<rect width="10" height="10" rx="2" fill="{colour}"/>'
    return Markup(f'<svg class="swatch" width="10" height="10" aria-hidden="true">{square}</svg>')  # noqa: S704


def key(items: Sequence[tuple[str, str]]) -> Markup:
    """Names of parts beside their colours."""
    return Markup(" ").join(Markup('<span class="key">{} {}</span>').format(swatch(colour), name) for name, colour in items)
