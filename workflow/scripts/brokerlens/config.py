"""The configuration: checked against its schema, typed, with times in UTC and captures found.

`read` is all that the workflow calls. Every fault is one `ConfigError` whose message names the key, what was found, what was expected and
what to do. Whatever is imported here is paid at every start of the workflow: no data frames, no numpy.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import difflib
import glob
import hashlib
import ipaddress
import math
import os
import re
import sys
import zoneinfo
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from brokerlens import remote
from brokerlens.errors import UserError, inert
from brokerlens.pseudonyms import Pseudonyms
from brokerlens.tls.keys import check_key_log

SCHEMA: Final = Path(__file__).resolve().parents[2] / "schemas" / "config.schema.yaml"
NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9._-]*")
# A reader of Hive partitions may take these for a number, a truth value or nothing, whatever the case.
NO_NAMES: Final = frozenset({"nan", "inf", "infinity", "null", "none", "true", "false"})
COMPRESSED_ENDINGS: Final = (".gz", ".zst", ".xz", ".bz2")
CAPTURE_NAME: Final = re.compile(rf"\.(pcap|pcapng|cap|dmp|pcap[0-9]+)({'|'.join(map(re.escape, COMPRESSED_ENDINGS))})?$", re.IGNORECASE)
CAPTURE_ENDINGS: Final = ".pcap, .pcapng, .cap, .dmp or .pcap with digits, each also with .gz, .zst, .xz or .bz2"
COMPRESSED: Final = 4
"""How many times its size a compressed capture holds, roughly."""
LONGEST_KEY: Final = 200  # a folder's name may have 255 bytes on the usual file systems; logs and benchmarks add endings


class ConfigError(UserError):
    """The configuration cannot be used; the message says which key, what was found, what was expected and what to do."""


class Found(NamedTuple):
    """A file, in the working directory's sight or in a storage; ``same`` is equal for two names of one file."""

    path: str
    bytes: int
    modified: int
    same: object

    @classmethod
    def local(cls, path: str, stat: os.stat_result) -> Found:
        """A file of this machine."""
        return cls(path, stat.st_size, int(stat.st_mtime), (stat.st_dev, stat.st_ino))


def _no_storage() -> Any:
    raise remote.RemoteError("captures in a storage can be listed by Snakemake alone")


@dataclass(frozen=True)
class Capture:
    """One capture file of a site."""

    path: str
    """As Snakemake sees it: relative paths start at the working directory; `s3://bucket/key` in S3-compatible storage."""
    name: str
    """As people see it: the file's name, or the shortest path that tells it from the site's others."""
    key: str
    """`name` with every byte outside `[A-Za-z0-9._-]` percent-encoded: safe in paths and wildcards."""
    bytes: int
    modified: int
    """Seconds since 1970."""

    @property
    def unpacked(self) -> int:
        """Roughly the size without compression."""
        return self.bytes * (COMPRESSED if self.name.lower().endswith(COMPRESSED_ENDINGS) else 1)


@dataclass(frozen=True)
class KeyLogFile:
    """A TLS key log; what is in it, the merge reads."""

    path: str
    bytes: int
    modified: int
    """Seconds since 1970."""


@dataclass(frozen=True)
class Window:
    """Nanoseconds since 1970 UTC of the first and last instant, both included; None is open."""

    start: int | None
    end: int | None


@dataclass(frozen=True)
class Event:
    """Something that happened during an experiment; `at` in nanoseconds since 1970 UTC."""

    at: int
    label: str


@dataclass(frozen=True)
class Site:
    """One place where captures were taken."""

    name: str
    places: tuple[str, ...]
    """Where its captures are, as the configuration says it."""
    captures: tuple[Capture, ...]
    """Sorted by name."""
    brokers: tuple[str, ...]
    """`ip:port` or `[ipv6]:port` in their canonical form, sorted."""
    tap: str
    cluster: str | None
    topic_ids: Mapping[str, str]
    """Names by topic id, in the 22 characters that Kafka prints."""
    clock_offset_ms: float | None
    tls_keylog: KeyLogFile | Literal["captures"] | None
    """`captures`: the keys stand in the captures."""
    decoder: str
    shards: int

    @property
    def parts(self) -> tuple[str, ...]:
        """The numbers of the site's shards as they stand in file names."""
        return tuple(f"{shard:04d}" for shard in range(self.shards))

    @property
    def bytes(self) -> int:
        """Size of all captures together."""
        return sum(capture.bytes for capture in self.captures)

    @property
    def unpacked(self) -> int:
        """Roughly the size of all captures together without compression: what a job's memory goes by."""
        return sum(capture.unpacked for capture in self.captures)


@dataclass(frozen=True)
class Experiment:
    """One run of the system under test."""

    name: str
    condition: str
    window: Window
    events: tuple[Event, ...]
    sites: Mapping[str, Site]


@dataclass(frozen=True)
class Report:
    """What the report says and by which limits."""

    title: str
    margin: float
    share_over_ms: float


@dataclass(frozen=True)
class Bundle:
    """What the description of a bundle says of its publication; None where that was not said."""

    license: str | None
    """An identifier of SPDX, or an address."""
    published: str | None
    """A date, `2026-01-31`."""


@dataclass(frozen=True)
class Configuration:
    """The whole configuration; experiments and sites are in the order of their names."""

    timezone: str
    experiments: Mapping[str, Experiment]
    baseline: str | None
    report: Report
    sample: int | None
    """Packets of each capture that `verify` compares; None for all."""
    bundle: Bundle
    anonymize: bool
    """Names and addresses are in no output but the working files."""
    secret_file: str
    """What their pseudonyms are made from, where `anonymize` is set; made where it is missing."""


def read(given: Mapping[str, Any], storage_client: Callable[[], Any] = _no_storage) -> Configuration:
    """Check a configuration as YAML gives it, fill in the defaults, find the captures; ``storage_client`` makes boto3's S3 client.

    Raises `ConfigError` at the first fault, unknown keys first.
    """
    schema = load_schema()
    plain = _plain(given, ())
    _mend_yaml(plain)
    _check_schema(plain, schema)
    _fill_defaults(plain, schema)
    secret_file = os.path.expanduser(plain["secret_file"])
    _check_secret_file(secret_file)
    zone = time_zone(plain["timezone"], "timezone")
    _check_numbers(plain, "")
    _check_date(plain["bundle"]["published"], "bundle.published")
    experiments = {name: _experiment(name, plain["experiments"][name], zone, storage_client) for name in plain["experiments"]}
    _check_baseline(plain["baseline"], experiments.values())
    return Configuration(
        timezone=zone_name(plain["timezone"]),
        experiments=experiments,
        baseline=plain["baseline"],
        report=Report(
            title=plain["report"]["title"], margin=float(plain["report"]["margin"]), share_over_ms=float(plain["report"]["share_over_ms"])
        ),
        sample=None if plain["verify"]["sample"] == "all" else plain["verify"]["sample"],
        bundle=Bundle(license=plain["bundle"]["license"] and plain["bundle"]["license"].strip(), published=plain["bundle"]["published"]),
        anonymize=plain["anonymize"] in (True, "true", "True"),
        secret_file=secret_file,
    )


def shown(configuration: Configuration, hide: Pseudonyms) -> Configuration:
    """The configuration as outputs may show it. Where captures lie stays, which no output says; so do the names that people gave to sites and experiments."""
    if not hide:
        return configuration
    experiments = {
        name: replace(experiment, sites={place: _shown_site(site, hide) for place, site in experiment.sites.items()})
        for name, experiment in configuration.experiments.items()
    }
    return replace(configuration, experiments=experiments)


def _shown_site(site: Site, hide: Pseudonyms) -> Site:
    return replace(
        site,
        captures=tuple(
            sorted((replace(capture, name=hide.capture(capture.name)) for capture in site.captures), key=lambda capture: capture.name)
        ),
        brokers=tuple(sorted(map(hide.endpoint, site.brokers))),
        cluster=site.cluster and hide.name("cluster", site.cluster),
        topic_ids={hide.name("topic-id", known): hide.name("topic", topic) for known, topic in site.topic_ids.items()},
    )


@cache
def load_schema() -> dict[str, Any]:
    """The configuration's JSON schema."""
    import yaml

    # libyaml, where it is built in, is ten times as fast.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    schema: dict[str, Any] = yaml.load(SCHEMA.read_text(encoding="utf-8"), Loader=loader)  # noqa: S506  both are safe loaders
    return schema


# Faults


def _fault(key: str, found: str, expected: str, do: str = "") -> ConfigError:
    return ConfigError(f"{key}: found {found}, expected {expected}." + (f" {do}" if do else ""))


def _join(path: Iterable[object]) -> str:
    key = ""
    for part in path:
        key += f"[{part}]" if isinstance(part, int) else f".{part}" if key else str(part)
    return key


def _found(value: object) -> str:
    """A YAML value in words."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case str():
            return f'"{value}"' if len(value) <= 80 else f'"{value[:77]}..."'
        case int() | float():
            return f"the number {value}"
        case dt.date():
            return f"the date {value}"
        case Mapping():
            return (
                "a map without keys"
                if not value
                else f"a map with {', '.join(list(map(str, value))[:3])}{', ...' if len(value) > 3 else ''}"
            )
        case list():
            return "a list" if value else "an empty list"
        case _:
            return f"a {type(value).__name__}"


def _did_you_mean(word: str, words: Iterable[str]) -> str:
    close = difflib.get_close_matches(word.lower(), [w.lower() for w in words], n=1, cutoff=0.6)
    return next((w for w in words if close and w.lower() == close[0]), "")


# From YAML's values to the schema's


def _plain(value: Any, path: tuple[object, ...]) -> Any:
    """A copy in plain dicts and lists (Snakemake's merged configurations hold other kinds) whose keys are text."""
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise _fault(
                    _join(path) or "configuration", f"{_found(key)} as a key", "text", "Put it in quotes, or begin the name with a letter."
                )
        return {key: _plain(item, (*path, key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, (*path, number)) for number, item in enumerate(value)]
    return value


def _mend_yaml(plain: dict[str, Any]) -> None:
    """Undo what YAML does to unquoted times and offsets where the meaning is certain; refuse the rest with the advice to quote."""
    if "timezone" in plain:
        plain["timezone"] = _offset_from_number(plain["timezone"])
    bundle = plain.get("bundle")
    if isinstance(bundle, dict) and type(bundle.get("published")) is dt.date:
        bundle["published"] = str(bundle["published"])
    for name, experiment in _maps(plain.get("experiments")):
        window = experiment.get("window")
        if isinstance(window, dict):
            for bound in ("start", "end"):
                if bound in window:
                    window[bound] = _text_of_time(window[bound], f"experiments.{name}.window.{bound}")
        events = experiment.get("events")
        for number, event in enumerate(events if isinstance(events, list) else []):
            if isinstance(event, dict) and "at" in event:
                event["at"] = _text_of_time(event["at"], f"experiments.{name}.events[{number}].at")


def _maps(value: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(value, dict):
        yield from ((name, item) for name, item in value.items() if isinstance(item, dict))


def _offset_from_number(value: Any) -> Any:
    """YAML 1.1 reads an unquoted `-10:00` as the base-60 number -600, and `-0300` as an octal one.

    Certain is a number of minutes that is no likely `hhmm` (300 may be 05:00 or 03:00) and a multiple of a quarter of an hour (no octal `hhmm` is).
    """
    if isinstance(value, bool) or not isinstance(value, int):
        return value
    if value == 0:
        return "UTC"
    minutes = abs(value)
    as_hours = minutes // 100 >= 1 and minutes % 100 in (0, 15, 30, 45)
    if 60 <= minutes <= 14 * 60 and minutes % 15 == 0 and not as_hours:
        return f"{'-' if value < 0 else '+'}{minutes // 60:02d}:{minutes % 60:02d}"
    raise _fault(
        "timezone",
        f"the number {value}",
        "an IANA name or a UTC offset",
        'YAML reads an unquoted offset as a number: put it in quotes, such as "-03:00".',
    )


def _text_of_time(value: Any, key: str) -> Any:
    if isinstance(value, dt.datetime):
        return value.isoformat(sep=" ")
    if isinstance(value, dt.date):
        raise _fault(key, f"the date {value}", "a local time", f'Say which time of that day, such as "{value} 00:00:00".')
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise _fault(key, f"the number {value}", "a local time", 'Write date and time in quotes, such as "2025-12-26 14:15:00".')
    return value


def _check_schema(plain: dict[str, Any], schema: dict[str, Any]) -> None:
    from jsonschema import Draft202012Validator

    if not plain:
        raise ConfigError("experiments: the configuration is empty. config/README.md shows the least that it must say.")
    errors = list(Draft202012Validator(schema).iter_errors(plain))
    if errors:
        # A mistyped key is also a missing one: the unknown key is the message that helps.
        raise _schema_fault(min(errors, key=lambda error: (error.validator != "additionalProperties", [str(part) for part in error.path])))


def _schema_fault(error: Any) -> ConfigError:
    """One jsonschema error as one message."""
    key = _join(error.path)
    schema, value = error.schema, error.instance
    if error.validator == "additionalProperties":
        known = list(schema["properties"])
        unknown = next(name for name in value if name not in known)
        close = _did_you_mean(unknown, known)
        advice = f"Did you mean {close}?" if close else f"Known here: {', '.join(known)}."
        return ConfigError(f"{_join([*error.path, unknown])}: unknown key. {advice}")
    if error.validator == "required":
        missing = next(name for name in error.validator_value if name not in value)
        return ConfigError(f"{_join([*error.path, missing])}: missing, expected {schema['properties'][missing]['expected']}.")
    return _fault(key or "configuration", _found(value), schema.get("expected", str(error.validator_value)))


def _fill_defaults(value: Any, schema: Mapping[str, Any]) -> None:
    """Put the schema's defaults where the configuration says nothing, in place."""
    if isinstance(value, dict):
        for name, part in schema.get("properties", {}).items():
            if name not in value and "default" in part:
                value[name] = _plain(part["default"], ())
        for name, item in value.items():
            _fill_defaults(item, schema.get("properties", {}).get(name) or schema.get("additionalProperties") or {})
    elif isinstance(value, list):
        for item in value:
            _fill_defaults(item, schema.get("items", {}))


def _check_secret_file(path: str) -> None:
    """The secret must not be where what it hides is given away."""
    results = os.path.realpath("results")
    if os.path.commonpath([results, os.path.realpath(path)]) == results:
        raise _fault(
            "secret_file",
            f"{path}, which is in results/",
            "a file elsewhere",
            "With the secret anybody can find out what its pseudonyms stand for.",
        )
    if os.path.isdir(path):
        raise _fault("secret_file", f"the folder {path}", "a file")


# Names, brokers, topics


def _check_name(name: str, key: str, what: str) -> None:
    if not NAME.fullmatch(name) or name.lower() in NO_NAMES or len(name) > 100:
        raise _fault(
            key,
            _found(name),
            f'a name of {what}: a letter, then letters, digits, ".", "_" or "-"',
            "It becomes part of paths such as experiment=NAME, where readers turn 2025-12-26 into a date, 01 into a number and nan into nothing."
            f" Rename it, for example to {_better_name(name, what)}.",
        )


def _better_name(name: str, what: str) -> str:
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("_")[:60]
    return safe if NAME.fullmatch(safe) and safe.lower() not in NO_NAMES else f"{what.split()[-1]}_{safe}".rstrip("_")


def broker(text: str, key: str) -> str:
    """`ip:port` or `[ipv6]:port` in its canonical form."""
    expected, advice = '"ip:port" or "[ipv6]:port"', ""
    match = re.fullmatch(r"(?:\[(?P<v6>[^\]]*)\]|(?P<v4>[^:\[\]]*)):(?P<port>[0-9]{1,5})", text.strip())
    if match is None:
        if re.fullmatch(r"[0-9.]+|\[[^\]]*\]", text.strip()):
            advice = f'The port is missing, as in "{text.strip()}:9092".'
        elif "://" in text:
            advice = "Leave out everything before the address."
        elif text.count(":") > 1:
            advice = 'An IPv6 address stands in brackets, as in "[2001:db8::1]:9092".'
        raise _fault(key, _found(text), expected, advice)
    host = match["v6"] if match["v6"] is not None else match["v4"]
    try:
        address = ipaddress.IPv6Address(host) if match["v6"] is not None else ipaddress.IPv4Address(host)
    except ValueError:
        if re.search(r"[A-Za-z]", host) and match["v6"] is None:
            advice = "Captures hold addresses, not host names: write the address that the name stood for."
        raise _fault(key, _found(text), expected, advice) from None
    if not 1 <= int(match["port"]) <= 65535:
        raise _fault(key, _found(text), "a port from 1 to 65535")
    return f"[{address}]:{int(match['port'])}" if match["v6"] is not None else f"{address}:{int(match['port'])}"


def topic_id(text: str, key: str) -> str:
    """A topic id in the 22 characters of URL-safe base64 that Kafka prints; hexadecimal UUIDs are understood, too."""
    try:
        if re.fullmatch(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", text):
            raw = bytes.fromhex(text.replace("-", ""))
        else:
            raw = base64.b64decode(text + "==", altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        raw = b""
    if len(raw) != 16:
        raise _fault(key, f"the topic id {_found(text)}", 'an id as Kafka prints it, such as "kTCEUTZ2SWuTSY9cPQ3Jzw"')
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


# Times


def zone_name(text: str) -> str:
    """The time zone's name in one spelling: an IANA name, `UTC`, or `+hh:mm`."""
    zone = time_zone(text, "timezone")
    if isinstance(zone, zoneinfo.ZoneInfo):
        return str(zone)
    return "UTC" if zone is dt.timezone.utc else str(zone).removeprefix("UTC")


@cache
def time_zone(text: str, key: str) -> dt.tzinfo:
    """An IANA name, `UTC`, `Z`, or an offset: `-03:00`, `-0300`, `-3`, `UTC-03:00`."""
    plain = text.strip().replace("\N{MINUS SIGN}", "-")
    offset = re.fullmatch(r"(?:UTC)?([+-])([0-9]{1,2})(?::?([0-9]{2}))?", plain)
    if offset:
        hours, minutes = int(offset[2]), int(offset[3] or 0)
        if hours > 14 or minutes > 59:
            raise _fault(key, _found(text), "an offset of at most 14 hours")
        sign = -1 if offset[1] == "-" else 1
        return dt.timezone(sign * dt.timedelta(hours=hours, minutes=minutes))
    if plain.upper() in ("UTC", "Z"):
        return dt.timezone.utc
    try:
        return zoneinfo.ZoneInfo(plain)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        close = _did_you_mean(plain, sorted(zoneinfo.available_timezones()))
        raise _fault(
            key,
            _found(text),
            'an IANA name such as "America/Sao_Paulo" or a UTC offset such as "-03:00"',
            f"Did you mean {close}?" if close else "",
        ) from None


TIME: Final = re.compile(
    r"(?P<date>[0-9]{4}-[0-9]{2}-[0-9]{2})[ T](?P<time>[0-9]{2}:[0-9]{2}(?::[0-9]{2})?)(?:\.(?P<fraction>[0-9]{1,9}))?\s*(?P<offset>Z|[+-][0-9]{2}:?[0-9]{2})?"
)


def instant(text: str, zone: dt.tzinfo, key: str) -> int:
    """Nanoseconds since 1970 UTC of a local time (`2025-12-26 14:15:00`, fractions to the nanosecond, an offset of its own goes before `zone`)."""
    match = TIME.fullmatch(text.strip())
    try:
        if match is None:
            raise ValueError
        local = dt.datetime.fromisoformat(f"{match['date']} {match['time']}")
    except ValueError:
        raise _fault(key, _found(text), 'a local time such as "2025-12-26 14:15:00"') from None
    if match["offset"]:
        moment = local.replace(tzinfo=time_zone(match["offset"], key))
    else:
        moment = local.replace(tzinfo=zone)
        _check_clock_change(moment, text, key)
    seconds = (moment - dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc)) // dt.timedelta(seconds=1)
    nanoseconds = seconds * 1_000_000_000 + int((match["fraction"] or "").ljust(9, "0"))
    if not -(1 << 63) <= nanoseconds < 1 << 63:
        raise _fault(key, _found(text), "a time between 1678 and 2262; leave `start` or `end` out for a window that is open there")
    return nanoseconds


def _check_numbers(value: Any, key: str) -> None:
    """YAML knows `.nan` and `.inf`; no key of ours does."""
    if isinstance(value, dict):
        for name, inner in value.items():
            _check_numbers(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, float) and not math.isfinite(value):
        raise _fault(key, str(value), "a finite number")


def _check_date(text: str | None, key: str) -> None:
    try:
        dt.date.fromisoformat(text or "2026-01-31")
    except ValueError:
        raise _fault(key, _found(text), "a date such as 2026-01-31") from None


def _check_clock_change(moment: dt.datetime, text: str, key: str) -> None:
    """Local times that the clocks skipped or showed twice have no certain meaning."""
    offsets = [moment.replace(fold=fold).utcoffset() for fold in (0, 1)]
    if offsets[0] == offsets[1]:
        return
    there = moment.astimezone(dt.timezone.utc).astimezone(moment.tzinfo).replace(tzinfo=None) == moment.replace(tzinfo=None)
    happened = "is there twice" if there else "is not there"
    raise ConfigError(
        f'{key}: "{text}" {happened} in this time zone: the clocks were changed that night. Add the offset, such as "{text} {_offset_text(offsets[0])}".'
    )


def _offset_text(offset: dt.timedelta | None) -> str:
    return str(dt.timezone(offset or dt.timedelta())).removeprefix("UTC") or "+00:00"


# Experiments and sites


def _experiment(name: str, settings: Mapping[str, Any], zone: dt.tzinfo, storage_client: Callable[[], Any]) -> Experiment:
    key = f"experiments.{name}"
    _check_name(name, key, "an experiment")
    if settings["condition"] is not None:
        _check_name(settings["condition"], f"{key}.condition", "a condition")
    return Experiment(
        name=name,
        condition=settings["condition"] or name,
        window=_window(settings["window"], zone, f"{key}.window"),
        events=tuple(
            Event(instant(event["at"], zone, f"{key}.events[{number}].at"), event["label"])
            for number, event in enumerate(settings["events"])
        ),
        sites={site: _site(site, settings["sites"][site], f"{key}.sites.{site}", storage_client) for site in settings["sites"]},
    )


def _window(settings: Mapping[str, Any], zone: dt.tzinfo, key: str) -> Window:
    start, end = (None if settings[bound] is None else instant(settings[bound], zone, f"{key}.{bound}") for bound in ("start", "end"))
    if start is not None and end is not None and end < start:
        raise _fault(f"{key}.end", f'"{settings["end"]}"', f'a time after the start, "{settings["start"]}"')
    return Window(start, end)


def _site(name: str, settings: Mapping[str, Any], key: str, storage_client: Callable[[], Any]) -> Site:
    _check_name(name, key, "a site")
    offset = settings["clock_offset_ms"]
    return Site(
        name=name,
        places=tuple(_listed(settings["captures"])),
        captures=find_captures(_listed(settings["captures"]), f"{key}.captures", storage_client),
        brokers=_brokers(_listed(settings["brokers"]), f"{key}.brokers"),
        tap=settings["tap"],
        cluster=settings["cluster"],
        topic_ids={topic_id(known, f"{key}.topic_ids"): topic for known, topic in sorted(settings["topic_ids"].items())},
        clock_offset_ms=None if offset is None else float(offset),
        tls_keylog=_key_log(settings["tls_keylog"], f"{key}.tls_keylog"),
        decoder=settings["decoder"],
        shards=settings["shards"],
    )


def _key_log(place: str | None, key: str) -> KeyLogFile | Literal["captures"] | None:
    """The site's TLS keys: a file that has some, or `captures`. What it holds never becomes part of the configuration or of a message."""
    if place is None:
        return None
    if place == "captures":
        return "captures"
    path = _tidy(os.path.expanduser(place))
    if not os.path.lexists(path):
        raise _missing(path, key)
    fault = check_key_log(path)
    if fault:
        raise ConfigError(f"{key}: {fault}")
    stat = os.stat(path)
    _refuse_unspeakable([path], key)
    return KeyLogFile(path, stat.st_size, int(stat.st_mtime))


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def _brokers(texts: Sequence[str], key: str) -> tuple[str, ...]:
    brokers = [broker(text, key if len(texts) == 1 else f"{key}[{number}]") for number, text in enumerate(texts)]
    for number, address in enumerate(brokers):
        if address in brokers[:number]:
            raise ConfigError(f"{key}[{number}]: {address} is there twice. Take one out.")
    return tuple(sorted(brokers))


def _check_baseline(baseline: str | None, experiments: Collection[Experiment]) -> None:
    known = sorted({name for experiment in experiments for name in (experiment.name, experiment.condition)})
    if baseline is not None and baseline not in known:
        close = _did_you_mean(baseline, known)
        raise _fault("baseline", _found(baseline), f"one of {', '.join(known)}", f"Did you mean {close}?" if close else "")
    is_run_of = next((experiment.condition for experiment in experiments if experiment.name == baseline), baseline)
    if is_run_of != baseline and any(experiment.condition == baseline for experiment in experiments):
        raise ConfigError(
            f"baseline: {baseline} is an experiment of condition {is_run_of}, and the condition of other experiments. Rename one of the two."
        )


# Captures


def find_captures(places: Sequence[str], key: str, storage_client: Callable[[], Any] = _no_storage) -> tuple[Capture, ...]:
    """The captures of a site, sorted by name.

    Parameters
    ----------
    places
        Folders (the captures directly in them, by name), globs (exactly what they match) and files, each also as `s3://bucket/...`.
    key
        The configuration's key, for messages.
    storage_client
        Makes boto3's S3 client, for places in a storage.

    Raises `ConfigError` for a place that is missing or holds no captures, and for a file that is found twice.
    """
    found: list[Found] = []
    for number, place in enumerate(places):
        here = key if len(places) == 1 else f"{key}[{number}]"
        if remote.is_remote(place):
            found += _captures_in_storage(place, here, storage_client)
        else:
            found += _captures_at(_tidy(os.path.expanduser(place)), here)
    _refuse_twins(found, key)
    _refuse_unspeakable([file.path for file in found], key)
    names = shown_names([file.path for file in found])
    captures = [
        Capture(path=file.path, name=name, key=encoded(name), bytes=file.bytes, modified=file.modified)
        for file, name in zip(found, names, strict=True)
    ]
    return tuple(sorted(captures, key=lambda capture: (capture.name, capture.key)))


def _captures_in_storage(place: str, key: str, storage_client: Callable[[], Any]) -> list[Found]:
    """Paths and facts of the captures that one folder, glob or object of a storage stands for."""
    try:
        listed = remote.list_objects(place, storage_client)
    except remote.RemoteError as error:
        raise ConfigError(f"{key}: {error}") from error
    is_file = [file.path for file in listed] == [place]
    captures = [file for file in listed if is_file or remote.MAGIC.search(place) or CAPTURE_NAME.search(file.path)]
    if not captures:
        holds = f"it holds {listed[0].path.rpartition('/')[2]} and {len(listed) - 1} more" if listed else "it holds nothing"
        raise ConfigError(
            f"{key}: no captures at {place} ({holds}). A folder ends in / and stands for the captures directly in it, whose names end in "
            f"{CAPTURE_ENDINGS}; a glob takes any name."
        )
    for file in captures:
        if remote.unaskable(file.path):
            raise ConfigError(
                f'{key}: {file.path!r} has "?", "#", "//" or a dot alone in it, which Snakemake does not ask for as it stands. Rename it.'
            )
    return [Found(*file, same=file.path) for file in captures]


def _captures_at(place: str, key: str) -> list[Found]:
    """Paths and facts of the captures that one folder, glob or file stands for."""
    try:
        if os.path.isdir(place):
            return _captures_in(place, key)
        if os.path.lexists(place):
            return [Found.local(place, os.stat(place))]
        if not glob.has_magic(place):
            raise _missing(place, key)
        matches = [Found.local(path, os.stat(path)) for path in map(_tidy, sorted(glob.glob(place, recursive=True)))]
    except OSError as error:
        raise ConfigError(f"{key}: {inert(str(error.filename or place))} cannot be read: {error.strerror}.") from error
    files = [file for file in matches if not os.path.isdir(file.path)]
    if not files and matches:
        raise ConfigError(
            f"{key}: {inert(place)} matches folders only, such as {inert(matches[0].path)}. A glob stands for the files it matches: add /*."
        )
    if not files:
        raise ConfigError(f"{key}: {inert(place)} matches no file. The working directory is {os.getcwd()}.")
    return files


def _captures_in(folder: str, key: str) -> list[Found]:
    with os.scandir(folder) as entries:
        listed = sorted(entries, key=lambda entry: entry.name)
        captures = [entry for entry in listed if CAPTURE_NAME.search(entry.name) and not entry.is_dir()]
        found = [Found.local(_tidy(entry.path), entry.stat()) for entry in captures]
    if not found:
        others = [entry.name for entry in listed if not entry.is_dir()]
        holds = f"It holds {others[0]}{f' and {len(others) - 1} more files' if len(others) > 1 else ''}" if others else "It holds no files"
        if any(entry.is_dir() for entry in listed):
            holds += f", and folders such as {next(entry.name for entry in listed if entry.is_dir())}, which are not searched"
        raise ConfigError(f"{key}: no captures in {folder}. {holds}. A capture's name ends in {CAPTURE_ENDINGS}; a glob takes any name.")
    return found


def _missing(place: str, key: str) -> ConfigError:
    return ConfigError(
        f"{key}: {inert(place)} is not there ({inert(_nearest(place))}). Relative paths start at the working directory, {os.getcwd()}."
    )


def _nearest(place: str) -> str:
    """The deepest folder of a path that does exist, for the message that the path does not."""
    parts = Path(place).parents
    there = next((str(parent) for parent in parts if parent.is_dir()), ".")
    return "nor anything of its path" if there == "." and len(parts) > 1 else f"{there} is" if there != "." else "no such file or folder"


def _tidy(path: str) -> str:
    """Without `./`, `//` and a slash at the end, about which Snakemake complains; `..` stays, which links may need."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    return ("/" if path.startswith("/") else "") + "/".join(parts) or "."


def _refuse_twins(found: Sequence[Found], key: str) -> None:
    """A capture that a site has twice would count each packet once but say so for every packet: surely a mistake."""
    seen: dict[object, Found] = {}
    for file in found:
        twin = seen.setdefault(file.same, file)
        if twin is not file:
            raise ConfigError(
                f"{key}: {file.path} is {'there twice' if twin.path == file.path else f'the same file as {twin.path}'}. Take one out."
            )


def _refuse_unspeakable(paths: Sequence[str], key: str) -> None:
    """Snakemake fills in `{wildcards}` and `<pathvars>` in what input functions return, without a way to escape them, and knows UTF-8 only."""
    for path in paths:
        pattern = re.search(r"\{\s*\w+|<[a-z][a-z0-9_]*>|[\n\r]|[\ud800-\udfff]", path)
        if pattern:
            raise ConfigError(
                f"{key}: {path!r} has {pattern[0]!r} in it, which Snakemake would not take literally. Rename it, or link to it under another name."
            )


def shown_names(paths: Sequence[str]) -> list[str]:
    """Each file's name, or where files share one the shortest end of its path that no other has."""
    by_name: dict[str, list[tuple[str, ...]]] = defaultdict(list)
    whole = [Path(os.path.abspath(path)).parts for path in paths]
    for parts in whole:
        by_name[parts[-1]].append(parts)
    return [_shortest_end(parts, by_name[parts[-1]]) for parts in whole]


def _shortest_end(parts: tuple[str, ...], rivals: Sequence[tuple[str, ...]]) -> str:
    for length in range(1, len(parts)):
        if sum(rival[-length:] == parts[-length:] for rival in rivals) == 1:
            return "/".join(parts[-length:])
    return os.path.join(*parts)


def encoded(name: str) -> str:
    """Every byte outside `[A-Za-z0-9._-]` as `%XX`; a name too long for a folder is cut and told apart by a digest."""
    raw = os.fsencode(name)
    key = "".join(chr(byte) if chr(byte).isascii() and (chr(byte).isalnum() or chr(byte) in "._-") else f"%{byte:02X}" for byte in raw)
    if len(key) <= LONGEST_KEY:
        return key
    digest = hashlib.sha256(raw).hexdigest()[:16]
    return re.sub(r"%[0-9A-F]?$", "", key[: LONGEST_KEY - 17]) + "-" + digest


# Documentation

TABLE_BEGINS: Final = "<!-- From here on made from workflow/schemas/config.schema.yaml by `make docs`. -->"
TABLE_ENDS: Final = "<!-- To here. -->"


def keys(schema: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every key that a user can write, with its part of the schema, as the documentation spells it; maps with fixed keys only by what is in them."""
    for name, part in schema.get("properties", {}).items():
        here = f"{path}.{name}".lstrip(".")
        named = part.get("additionalProperties")
        named = named if isinstance(named, Mapping) and "properties" in named else None
        if named is not None:
            yield f"{here}.NAME", named
        elif "properties" not in part:
            yield here, part
        yield from keys(part, here)
        yield from keys(named or {}, f"{here}.NAME")
        yield from keys(part.get("items", {}), f"{here}[]")


def documentation(page: str) -> str:
    """``config/README.md`` with its table of every key made anew."""
    head, rest = page.split(TABLE_BEGINS)
    tail = rest.split(TABLE_ENDS)[1]
    rows = [f"| `{key}` | {_default_in_words(part)} | {part['description'].replace('|', '/')} |" for key, part in keys(load_schema())]
    return "\n".join([head + TABLE_BEGINS, "", "| key | default | meaning |", "|---|---|---|", *rows, "", TABLE_ENDS + tail])


def _default_in_words(part: Mapping[str, Any]) -> str:
    """The default as it is written in YAML, or what stands for it."""
    if "default" not in part:
        return ""
    default = part["default"]
    written = str(default).lower() if isinstance(default, bool) else str(default)
    return part.get("otherwise", "none") if default is None else f"`{written}`"


if __name__ == "__main__":
    for page in map(Path, sys.argv[1:]):
        page.write_text(documentation(page.read_text(encoding="utf-8")), encoding="utf-8")
