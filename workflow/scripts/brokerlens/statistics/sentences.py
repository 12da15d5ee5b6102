"""Sentences made from one row of the data set `comparisons`, and from nothing else; numbers with the digits that their interval allows.

All functions return plain text: names come from the configuration or from captures, so whoever puts it into HTML escapes it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

MINUS: Final = "\N{MINUS SIGN}"
MOST_DECIMALS: Final = 6
_NARROW: Final = 3.0
_WEAK: Final = " (few independent stretches; take the interval as a minimum)"

Row = Mapping[str, Any]

_NAMES: Final = {
    "kafka_latency": "Kafka latency",
    "kafka_queue": "Time in the queue",
    "kafka_service": "Service time",
    "kafka_broker": "Time in the broker",
    "kafka_network": "Time in the network",
    "kafka_transfer": "Time in transfer",
    "kafka_total": "Total time",
    "rtt": "Round-trip time",
    "rtt_ipdv": "Variation of successive round trips",
    "rtt_pdv": "Variation above the shortest round trip",
    "iat_mas": "Variation of gaps between segments",
    "owdv": "Variation of the way to the tap",
    "retransmissions": "Retransmitted share",
    "connections_reset": "Share of connections reset",
    "goodput": "Goodput",
    "throughput": "Throughput",
    "request_rate": "Requests per second",
    "record_rate": "Records per second",
    "record_byte_rate": "Record bytes per second",
}
_OF_REQUESTS: Final = "kafka_"
_STATISTICS: Final = {"mean": "the mean", "share_over": "the share over the threshold", "ratio_of_sums": "the share"}
_HALVES: Final = {"to_broker": "to the broker", "to_client": "to the client", "from_broker": "from the broker"}


def decimals(value: float | None, low: float | None = None, high: float | None = None) -> int:
    """Decimals that a value may have: those of its interval's first digit that differs, one more where it differs by less than 3.

    Without an interval three digits of the value.
    """
    if low is not None and high is not None and high > low:
        exponent = math.floor(math.log10(high - low))
        leads = (high - low) / 10.0**exponent
        wanted = -exponent + (1 if leads < _NARROW else 0)
        # A bound that is not 0 must not be printed as 0: whether the interval holds 0 is what it is read for.
        while wanted < MOST_DECIMALS and any(bound != 0.0 and round(bound, max(0, wanted)) == 0.0 for bound in (low, high)):
            wanted += 1
    elif value is None or value == 0.0 or not math.isfinite(value):
        wanted = 0
    else:
        wanted = 2 - math.floor(math.log10(abs(value)))
    return min(MOST_DECIMALS, max(0, wanted))


def fixed(value: float, digits: int, *, sign: bool = False) -> str:
    """A number with that many decimals: comma for thousands, a real minus, no minus before a zero."""
    text = f"{value:{'+' if sign else ''},.{digits}f}"
    if not any(digit in text for digit in "123456789"):
        text = text.lstrip("+-")
    return text.replace("-", MINUS)


def number(value: float, low: float | None = None, high: float | None = None, *, sign: bool = False) -> str:
    """A value with the digits that its interval allows."""
    return fixed(value, decimals(value, low, high), sign=sign)


def interval_words(estimate: float | None, low: float | None, high: float | None, unit: str) -> str:
    """A value with its interval: "48.2 ms (95 % interval 47.1 to 49.0)", "at least 214 ms", "3.7 % (95 % interval 2.6 to 5.2)"."""
    if estimate is None:
        return "no samples"
    estimate, low, high = (_scaled(x, unit) for x in (estimate, low, high))
    assert estimate is not None
    after = _after(unit)
    if low is not None and high is not None:
        return f"{number(estimate, low, high)}{after} ({_interval(low, high)})"
    if low is not None:
        return f"at least {number(low)}{after}"
    if high is not None:
        return f"at most {number(high)}{after}"
    return f"{number(estimate)}{after} (no interval)"


def difference_sentence(row: Row) -> str:
    """The row's finding in one sentence."""
    verdict = row["verdict"]
    if verdict == "not_comparable":
        return f"Not compared: {row['reason']}."
    if row["statistic"] == "cliffs_delta":
        return _delta(row)
    if row["statistic"] in ("hl_shift", "hl_ratio"):
        return _typical(row)
    if row["statistic"] == "wasserstein1":
        return _distance(row)
    if verdict == "too_few_samples":
        return _too_few(row)
    if verdict == "equivalent_within_margin":
        return _equivalent(row) + _weak(row)
    if verdict == "undecided":
        return _undecided(row) + _weak(row)
    return _differs(row) + _weak(row)


def beside(row: Row) -> str:
    """What always stands beside a comparison: how much was measured on each side."""
    parts = [f"{row['n_a']:,} and {row['n_b']:,} {samples_of(row)}"]
    if row.get("connections_a") is not None and row.get("connections_b") is not None:
        parts.append(f"{row['connections_a']:,} and {row['connections_b']:,} connections")
    if row.get("overlap_seconds"):
        minutes = row["overlap_seconds"] / 60.0
        parts.append(f"{number(minutes) if minutes < 10.0 else fixed(minutes, 0)} minutes in common")
    runs = row["runs_a"], row["runs_b"]
    return ", ".join([*parts, "one run per site" if runs == (1, 1) else f"{runs[0]:,} and {runs[1]:,} runs"])


def metric_name(row: Row) -> str:
    """The metric of a row as a sentence begins with it: "Produce latency", "Round-trip time to the broker"."""
    name = _NAMES.get(row["metric"], str(row["metric"]).replace("_", " "))
    key, _, value = str(row["group"]).partition("=")
    if key == "all":
        return name
    if key == "api":
        shown = value.replace("/with_data", " with data").replace("/empty", " without data")
        return f"{shown} latency" if row["metric"] == "kafka_latency" else f"{name} of {shown}"
    if key in ("half", "direction"):
        return f"{name} {_HALVES.get(value, value)}"
    return f"{name} ({key} {value})"


def samples_of(row: Row) -> str:
    """What the row's samples are."""
    if str(row["metric"]).startswith(_OF_REQUESTS):
        return "requests"
    words = {"rtt": "round trips", "retransmissions": "segments", "connections_reset": "connections"}
    return words.get(row["metric"], "samples")


def sides(row: Row) -> tuple[str, str]:
    """The two sides as they stand in a sentence: "at edge", "at cloud"; "at edge in experiment08", "in experiment07"."""
    if row["scope"] == "sites":
        return f"at {row['site_a']}", f"at {row['site_b']}"
    a, b = _settings(row)
    return f"at {row['site_a']} in {a}", f"in {b}" if row["site_a"] == row["site_b"] else f"at {row['site_b']} in {b}"


def _settings(row: Row) -> tuple[str, str]:
    """The experiment of each side, or the condition whose runs it is."""
    a, b = (row[f"experiment_{side}"] or row[f"condition_{side}"] for side in "ab")
    return str(a), str(b)


def _scaled(value: float | None, unit: str) -> float | None:
    return 100.0 * value if value is not None and unit == "share" else value


def _after(unit: str) -> str:
    return {"share": " %", "": ""}.get(unit, f" {unit}")


def _points(unit: str) -> str:
    """The unit of a difference: that of two shares is points."""
    return " points" if unit == "share" else _after(unit)


def _interval(low: float, high: float) -> str:
    digits = decimals(None, low, high)
    return f"95 % interval {fixed(low, digits)} to {fixed(high, digits)}"


def _weak(row: Row) -> str:
    return _WEAK if row.get("weak") else ""


def _statistic(row: Row) -> str:
    return _STATISTICS.get(row["statistic"], str(row["statistic"]))


def _difference(row: Row) -> tuple[float, float | None, float | None]:
    found = [_scaled(row[name], row["unit"]) for name in ("difference", "difference_low", "difference_high")]
    return found[0] or 0.0, found[1], found[2]


def _ratio(row: Row) -> str:
    """The ratio as it follows a difference: ", 2.4 times (2.1 to 2.8)"; nothing where it has no interval."""
    value, low, high = row["ratio"], row["ratio_low"], row["ratio_high"]
    if value is None or low is None or high is None:
        return ""
    digits = _ratio_decimals(value, low, high)
    return f", {fixed(value, digits)} times ({fixed(low, digits)} to {fixed(high, digits)})"


def _ratio_decimals(value: float, low: float, high: float) -> int:
    """Decimals of a ratio: as its interval allows, but enough that a bound beside 1 is not printed as 1."""
    digits = decimals(value, low, high)
    while digits < MOST_DECIMALS and any(bound != 1.0 and round(bound, digits) == 1.0 for bound in (low, high)):
        digits += 1
    return digits


def _size(value: float, low: float, high: float, after: str) -> str:
    """A difference without its sign: "41 ms (95 % interval 33 to 52)"; bounds in the direction of the difference."""
    if value < 0.0:
        value, low, high = -value, -high, -low
    digits = decimals(value, low, high)
    return f"{fixed(value, digits)}{after} (95 % interval {fixed(low, digits)} to {fixed(high, digits)})"


def _adjusted(row: Row) -> str:
    p = row.get("p_holm")
    if p is None:
        return ""
    family = row["family_size"]
    among = f" among {family:,} comparisons" if family > 1 else ""
    return f"; adjusted p {'< 0.001' if p < 0.001 else f'= {p:.2g}' if p < 0.1 else f'= {p:.2f}'}{among}"


def _differs(row: Row) -> str:
    value, low, high = _difference(row)
    if low is None or high is None:
        return _too_few(row)
    at_a, at_b = sides(row)
    if row["verdict"] == "described" and low <= 0.0 <= high:
        digits = decimals(value, low, high)
        shown = (
            f"{fixed(value, digits, sign=True)}{_points(row['unit'])} ({fixed(low, digits, sign=True)} to {fixed(high, digits, sign=True)})"
        )
        return f"{metric_name(row)} {at_a} and {at_b}: no difference found in {_statistic(row)}, {shown}."
    what = "higher" if value > 0.0 else "lower"
    size = _size(value, low, high, _points(row["unit"]))
    return f"{metric_name(row)} {at_a} is {what} than {at_b}: {_statistic(row)} by {size}{_ratio(row)}{_adjusted(row)}."


def _equivalent(row: Row) -> str:
    margin, reference = row["margin"], row["estimate_b"]
    limit = f"the margin of {100.0 * margin / reference:.3g} %" if reference else f"the margin of {number(margin)}{_points(row['unit'])}"
    ratio = row["ratio"], row["ratio_low"], row["ratio_high"]
    if None in ratio:
        value, low, high = _difference(row)
        digits = decimals(value, low, high)
        found = f"{fixed(value, digits, sign=True)}{_points(row['unit'])}"
        found += "" if low is None or high is None else f" ({fixed(low, digits, sign=True)} to {fixed(high, digits, sign=True)})"
    else:
        digits = _ratio_decimals(*ratio)
        found = f"ratio {fixed(ratio[0], digits)} ({fixed(ratio[1], digits)} to {fixed(ratio[2], digits)})"
    at_a, at_b = sides(row)
    return f"{metric_name(row)} {at_a} and {at_b}: {_statistic(row)} differs by less than {limit}: {found}."


def _undecided(row: Row) -> str:
    value, low, high = _difference(row)
    if low is None or high is None:
        return _too_few(row)
    at_a, at_b = sides(row)
    after = _points(row["unit"])
    begin = f"{metric_name(row)} {at_a} and {at_b}: the data do not decide"
    if low <= 0.0 <= high:
        digits = decimals(value, low, high)
        return f"{begin}: {_statistic(row)} between {fixed(-low, digits)}{after} lower and {fixed(high, digits)}{after} higher."
    what = "higher" if value > 0.0 else "lower"
    return f"{begin}: {_statistic(row)} is {what} by {_size(value, low, high, after)}{_adjusted(row)}."


def _too_few(row: Row) -> str:
    words = samples_of(row)
    reason = str(row["reason"] or "no interval").replace("samples", words)
    for side in ("a", "b"):
        low, high = (_scaled(row[f"{bound}_{side}"], row["unit"]) for bound in ("low", "high"))
        if (low is None) != (high is None):
            bound = f"at least {number(low)}" if low is not None else f"at most {number(high or 0.0)}"
            where = sides(row)[0 if side == "a" else 1]
            return f"{metric_name(row)}: {_statistic(row)} {where} is {bound}{_after(row['unit'])} ({reason})."
    if "none in" in reason or "all of" in reason:
        return f"{metric_name(row)}: no interval of the difference ({reason} {words})."
    if row.get("sampling") == "runs":
        return f"{metric_name(row)}: no interval over runs for {_statistic(row)} ({reason})."
    return f"{metric_name(row)}: too few {words} for {_statistic(row)} ({reason})."


def _delta(row: Row) -> str:
    if row["difference"] is None:
        return _too_few(row)
    value, low, high = (
        None if row[name] is None else 50.0 * (1.0 + row[name]) for name in ("difference", "difference_low", "difference_high")
    )
    assert value is not None
    one = {"requests": "request", "round trips": "round trip"}.get(samples_of(row), "sample")
    names = _bare(row)
    digits = min(1, decimals(value, low, high))
    if value > 99.9:
        shown = "more than 99.9 % of pairs"
    elif value < 0.1:
        shown = "less than 0.1 % of pairs"
    else:
        shown = f"{fixed(value, digits)} % of pairs"
        if low is not None and high is not None:
            shown += f" (95 % interval {fixed(low, digits)} to {fixed(high, digits)})"
    return f"A random {names[0]} {one} is slower than a random {names[1]} {one} in {shown}."


def _bare(row: Row) -> tuple[str, str]:
    if row["scope"] == "sites":
        return str(row["site_a"]), str(row["site_b"])
    a, b = _settings(row)
    return f"{a} {row['site_a']}", f"{b} {row['site_b']}"


def _typical(row: Row) -> str:
    at_a, at_b = sides(row)
    if row["statistic"] == "hl_ratio":
        value, low, high = row["ratio"], row["ratio_low"], row["ratio_high"]
        if value is None or low is None or high is None:
            return _too_few(row)
        digits = _ratio_decimals(value, low, high)
        size = f"{fixed(value, digits)} times that {at_b} (95 % interval {fixed(low, digits)} to {fixed(high, digits)})"
        return f"{metric_name(row)} {at_a} is typically {size}."
    value, low, high = _difference(row)
    if low is None or high is None:
        return _too_few(row)
    what = "more" if value >= 0.0 else "less"
    if value < 0.0:
        value, low, high = -value, -high, -low
    digits = decimals(value, low, high)
    size = f"{fixed(value, digits)}{_points(row['unit'])} {what} than {at_b} (95 % interval {fixed(low, digits)} to {fixed(high, digits)})"
    return f"{metric_name(row)} {at_a} is typically {size}."


def _distance(row: Row) -> str:
    if row["difference"] is None:
        return _too_few(row)
    value, low, high = _difference(row)
    shown = f"{number(value, low, high)}{_after(row['unit'])}"
    if low is not None and high is not None:
        shown += f" ({_interval(low, high)})"
    floor = row["noise_floor"]
    noise = "" if floor is None else f"; noise alone gives about {_scaled(floor, row['unit']):.2g}{_after(row['unit'])}"
    at_a, at_b = sides(row)
    return f"{metric_name(row)} {at_a} and {at_b}: the distributions are {shown} apart on average, spikes weighing most{noise}."
