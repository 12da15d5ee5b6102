"""The configuration as may be published: one from which the same run could be made, if one had the captures.

This is the only way by which settings come into a bundle. It takes the typed configuration as outputs may show it, so what is hidden there is hidden here.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

from brokerlens.config import Configuration, Experiment, KeyLogFile, Site, time_zone

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc)


def publishable(configuration: Configuration) -> dict[str, Any]:
    """The configuration as a plain dictionary for YAML, with what is not as by default.

    With `anonymize` captures are named, not located, and nothing tells where a key log is: where files lie names people and machines.
    """
    settings = {
        "timezone": configuration.timezone,
        "baseline": configuration.baseline,
        "report": {
            "title": configuration.report.title,
            "margin": configuration.report.margin,
            "share_over_ms": configuration.report.share_over_ms,
        },
        "verify": {"sample": configuration.sample or "all"},
        "bundle": _said({"license": configuration.bundle.license, "published": configuration.bundle.published}),
        "anonymize": configuration.anonymize or None,
        "experiments": {name: _experiment(configuration, experiment) for name, experiment in configuration.experiments.items()},
    }
    return _said(settings)


def _said(settings: dict[str, Any]) -> dict[str, Any]:
    """Without what says nothing."""
    return {key: value for key, value in settings.items() if value not in (None, {}, [])}


def _experiment(configuration: Configuration, experiment: Experiment) -> dict[str, Any]:
    zone = time_zone(configuration.timezone, "timezone")
    window = {"start": experiment.window.start, "end": experiment.window.end}
    return _said(
        {
            "window": {bound: local_time(at, zone) for bound, at in window.items() if at is not None},
            "condition": experiment.condition if experiment.condition != experiment.name else None,
            "events": [{"at": local_time(event.at, zone), "label": event.label} for event in experiment.events],
            "sites": {name: _site(site, hidden=configuration.anonymize) for name, site in experiment.sites.items()},
        }
    )


def _site(site: Site, *, hidden: bool) -> dict[str, Any]:
    keys = site.tls_keylog
    key_place = ("hidden" if hidden else keys.path) if isinstance(keys, KeyLogFile) else keys
    return _said(
        {
            "captures": [capture.name for capture in site.captures] if hidden else list(site.places),
            "brokers": list(site.brokers),
            "tap": site.tap,
            "cluster": site.cluster,
            "topic_ids": dict(site.topic_ids),
            "clock_offset_ms": site.clock_offset_ms,
            "tls_keylog": key_place,
            "decoder": site.decoder,
            "shards": site.shards,
        }
    )


def local_time(nanoseconds: int, zone: dt.tzinfo) -> str:
    """An instant (ns since 1970 UTC) as local time with its offset, to the nanosecond where it has a fraction."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    local = (EPOCH + dt.timedelta(seconds=seconds)).astimezone(zone)
    fraction = f".{rest:09d}" if rest else ""
    return f"{local:%Y-%m-%d %H:%M:%S}{fraction}{dt.datetime.isoformat(local)[19:]}"
