"""The configuration: what is accepted, what it becomes, and what is said about the rest."""

from __future__ import annotations

import copy
import datetime as dt
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from brokerlens import config
from brokerlens.pseudonyms import AS_THEY_ARE, Pseudonyms


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with two captures in `edge`."""
    monkeypatch.chdir(tmp_path)
    write("edge/a.pcap", "edge/b.pcapng.gz")
    return tmp_path


def write(*paths: str) -> None:
    for path in paths:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(os.fsencode(path))


def settings(site: str = "", experiment: str = "", top: str = "") -> dict[str, Any]:
    """The least configuration in YAML, with lines added to its site, its experiment or the whole; a later key replaces an earlier one."""
    text = f"""
experiments:
  run1:
    {experiment}
    sites:
      edge: {{captures: edge, brokers: ["192.0.2.10:9092"], {site}}}
{top}
"""
    loaded: dict[str, Any] = yaml.load(text, Loader=yaml.FullLoader)
    return loaded


def message(given: dict[str, Any]) -> str:
    with pytest.raises(config.ConfigError) as error:
        config.read(given)
    return str(error.value)


# What is accepted


def test_the_least_configuration_has_every_default(folder: Path) -> None:
    read = config.read(settings())
    experiment = read.experiments["run1"]
    site = experiment.sites["edge"]
    assert read.timezone == "UTC"
    assert read.baseline is None
    assert (experiment.condition, experiment.window, experiment.events) == ("run1", config.Window(None, None), ())
    assert (site.tap, site.shards, site.cluster, site.clock_offset_ms, dict(site.topic_ids)) == ("auto", 1, None, None, {})
    assert [capture.name for capture in site.captures] == ["a.pcap", "b.pcapng.gz"]
    assert site.captures[0].bytes == len("edge/a.pcap")
    assert read.report.share_over_ms == 200


def test_reading_leaves_the_given_configuration_alone(folder: Path) -> None:
    given = settings(top="timezone: 0")
    before = copy.deepcopy(given)
    config.read(given)
    assert given == before


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('"-03:00"', "-03:00"),
        ("-03:00", "-03:00"),  # YAML leaves it a text: base 60 begins with 1 to 9
        ("'−03:00'", "-03:00"),
        ('"+0530"', "+05:30"),
        ("UTC-03:00", "-03:00"),
        ("-3:00", "-03:00"),  # -180
        ("+12:00", "+12:00"),  # 720
        ("-11:00", "-11:00"),  # -660
        ("Z", "UTC"),
        ("0", "UTC"),
        ("America/Sao_Paulo", "America/Sao_Paulo"),
    ],
)
def test_time_zones(folder: Path, text: str, name: str) -> None:
    assert config.read(settings(top=f"timezone: {text}")).timezone == name


@pytest.mark.parametrize("text", ["-10:00", "5:30", "-0300", "0530", "-3", "-300", "1000", "15:00", "2.5"])
def test_a_number_that_may_mean_two_offsets_must_be_quoted(folder: Path, text: str) -> None:
    given = settings(top=f"timezone: {text}")
    assert isinstance(given["timezone"], int | float)
    said = message(given)
    assert said.startswith("timezone: found the number")
    assert "quotes" in said or "IANA" in said


@pytest.mark.parametrize("zone", ["America/Sao_Paul", "Mars/Olympus", "America", "+15:00", "../etc/passwd", "/etc/localtime", ""])
def test_bad_time_zones(folder: Path, zone: str) -> None:
    said = message(settings(top=f'timezone: "{zone}"'))
    assert said.startswith(f'timezone: found "{zone}", expected')
    if zone == "America/Sao_Paul":
        assert said.endswith("Did you mean America/Sao_Paulo?")


BOTH = 'window: {start: "2025-12-26 14:15:00", end: "2025-12-26 16:25:00.5"}'


def test_the_window_is_local_time_in_nanoseconds(folder: Path) -> None:
    window = config.read(settings(experiment=BOTH, top='timezone: "-03:00"')).experiments["run1"].window
    assert window.start == int(dt.datetime(2025, 12, 26, 17, 15, tzinfo=dt.timezone.utc).timestamp()) * 10**9
    assert window.end == int(dt.datetime(2025, 12, 26, 19, 25, tzinfo=dt.timezone.utc).timestamp()) * 10**9 + 500_000_000


@pytest.mark.parametrize(
    "text",
    [
        "2025-12-26 14:15:00",
        "2025-12-26T14:15:00",
        '"2025-12-26 14:15"',
        "2025-12-26 14:15",
        '"2025-12-26 14:15:00.000000000"',
        "2025-12-26T17:15:00Z",
        "2025-12-26 12:15:00-05:00",
        '"2025-12-26 17:15:00Z"',
    ],
)
def test_one_instant_in_many_spellings(folder: Path, text: str) -> None:
    window = config.read(settings(experiment=f"window: {{start: {text}}}", top='timezone: "-03:00"')).experiments["run1"].window
    assert window == config.Window(1_766_769_300_000_000_000, None)


def test_an_instant_is_exact_to_the_nanosecond() -> None:
    assert config.instant("1970-01-01 00:00:00.000000001", dt.timezone.utc, "key") == 1
    assert config.instant("1969-12-31 23:59:59.999999999", dt.timezone.utc, "key") == -1


@given(moment=st.datetimes(dt.datetime(1990, 1, 1), dt.datetime(2040, 1, 1)), minutes=st.integers(-14 * 60, 14 * 60))  # noqa: DTZ001
def test_instants_agree_with_datetime(moment: dt.datetime, minutes: int) -> None:
    zone = dt.timezone(dt.timedelta(minutes=minutes))
    expected = (moment.replace(tzinfo=zone) - dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc)) // dt.timedelta(microseconds=1) * 1000
    assert config.instant(moment.isoformat(sep=" ", timespec="microseconds"), zone, "key") == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("2025-12-26", "found the date 2025-12-26, expected a local time"),
        ("14:15:00", "found the number 51300, expected a local time"),
        ('"14:15"', 'found "14:15", expected a local time'),
        ('"2025-13-26 14:15:00"', 'found "2025-13-26 14:15:00", expected a local time'),
        ('"2025-12-26 24:15:00"', "expected a local time"),
        ('"26/12/2025 14:15:00"', "expected a local time"),
        ("[1]", "found a list, expected a local time"),
        ("true", "found true, expected a local time"),
    ],
)
def test_bad_times(folder: Path, text: str, said: str) -> None:
    told = message(settings(experiment=f"window: {{end: {text}}}"))
    assert told.startswith("experiments.run1.window.end: ")
    assert said in told


def test_a_time_that_the_clocks_skipped_or_showed_twice_needs_its_offset(folder: Path) -> None:
    top = "timezone: Europe/Berlin"
    skipped = message(settings(experiment='window: {start: "2025-03-30 02:30:00"}', top=top))
    twice = message(settings(experiment='window: {start: "2025-10-26 02:30:00"}', top=top))
    assert "is not there" in skipped
    assert (
        'is there twice in this time zone: the clocks were changed that night. Add the offset, such as "2025-10-26 02:30:00 +02:00".'
        in twice
    )
    accepted = config.read(settings(experiment='window: {start: "2025-10-26 02:30:00 +01:00"}', top=top)).experiments["run1"].window
    assert accepted.start == config.instant("2025-10-26 01:30:00Z", dt.timezone.utc, "key")


def test_the_end_before_the_start(folder: Path) -> None:
    said = message(settings(experiment='window: {start: "2025-12-26 14:15:00", end: "2025-12-26 14:14:59"}'))
    assert said == 'experiments.run1.window.end: found "2025-12-26 14:14:59", expected a time after the start, "2025-12-26 14:15:00".'


# Keys and names


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (settings(top="timezon: UTC"), "timezon: unknown key. Did you mean timezone?"),
        (settings(site="Taps: client"), "experiments.run1.sites.edge.Taps: unknown key. Did you mean tap?"),
        (settings(experiment="windows: {}"), "experiments.run1.windows: unknown key. Did you mean window?"),
        (settings(top="report: {colour: blue}"), "report.colour: unknown key. Known here: title, margin, share_over_ms."),
        (settings(site="tap: middle"), 'experiments.run1.sites.edge.tap: found "middle", expected client, broker or auto.'),
        (settings(site="shards: 0"), "experiments.run1.sites.edge.shards: found the number 0, expected a whole number from 1 to 1024."),
        (settings(site="shards: two"), 'experiments.run1.sites.edge.shards: found "two", expected a whole number from 1 to 1024.'),
        (settings(site="shards: true"), "experiments.run1.sites.edge.shards: found true, expected a whole number from 1 to 1024."),
        (settings(top="report: {margin: 5}"), "report.margin: found the number 5, expected a share above 0 and at most 1, such as 0.05."),
        ({}, "experiments: the configuration is empty. config/README.md shows the least that it must say."),
        ({"timezone": "UTC"}, "experiments: missing, expected at least one experiment, each with its sites."),
        ({"experiments": None}, "experiments: found nothing, expected at least one experiment, each with its sites."),
        ({"experiments": {}}, "experiments: found a map without keys, expected at least one experiment, each with its sites."),
        (
            {"experiments": {"e": {"sites": {"s": {"captures": "edge"}}}}},
            "experiments.e.sites.s.brokers: missing, expected a list of addresses",
        ),
        (
            {"experiments": {"e": {"sites": {"s": {"captures": "x", "broker": ["y"]}}}}},
            "experiments.e.sites.s.broker: unknown key. Did you mean brokers?",
        ),
    ],
)
def test_keys_and_values(folder: Path, given: dict[str, Any], said: str) -> None:
    assert message(given).startswith(said)


@pytest.mark.parametrize("name", ["01", "2025-12-26", "Rio de Janeiro", "a/b", "-x", "_x", "é", "nan", "NULL", "x" * 101])
def test_names_that_would_break_paths(folder: Path, name: str) -> None:
    given = {"experiments": {name: settings()["experiments"]["run1"]}}
    said = message(given)
    assert said.startswith(f"experiments.{name}: found ")
    assert "Rename it, for example to" in said
    better = said.rsplit(" ", 1)[1].removesuffix(".")
    config.read({"experiments": {better: settings()["experiments"]["run1"]}})


@pytest.mark.parametrize(
    ("name", "found"), [("2025-12-26", "the date 2025-12-26"), ("7", "the number 7"), ("no", "false"), ("~", "nothing")]
)
def test_names_that_yaml_takes_for_something_else(folder: Path, name: str, found: str) -> None:
    given = yaml.load(f"experiments: {{{name}: {{}}}}", Loader=yaml.FullLoader)
    assert message(given) == f"experiments: found {found} as a key, expected text. Put it in quotes, or begin the name with a letter."


@pytest.mark.parametrize(
    ("top", "hidden"),
    [("", False), ("anonymize: false", False), ("anonymize: true", True), ('anonymize: "true"', True), ('anonymize: "True"', True)],
)
def test_whether_names_are_hidden(folder: Path, top: str, hidden: bool) -> None:
    assert config.read(settings(top=top)).anonymize is hidden


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ('"yes"', '"yes"'),
        ('"false"', '"false"'),
        ('"TRUE"', '"TRUE"'),
        ('""', '""'),
        ("1", "the number 1"),
        ("null", "nothing"),
        ("[true]", "a list"),
    ],
)
def test_any_other_word_is_neither(folder: Path, value: str, found: str) -> None:
    assert message(settings(top=f"anonymize: {value}")) == f"anonymize: found {found}, expected true or false."


def test_the_secret_is_beside_the_results(folder: Path) -> None:
    assert config.read(settings()).secret_file == ".brokerlens-secret"
    assert config.read(settings(top="secret_file: /elsewhere/secret")).secret_file == "/elsewhere/secret"


@pytest.mark.parametrize("path", ["results/secret", "results", "./results/../results/a/b"])
def test_a_secret_among_what_it_hides_is_refused(folder: Path, path: str) -> None:
    assert message(settings(top=f"secret_file: {path}")).startswith(
        f"secret_file: found {path}, which is in results/, expected a file elsewhere."
    )


def test_a_secret_that_is_a_folder_is_refused(folder: Path) -> None:
    assert message(settings(top="secret_file: .")) == "secret_file: found the folder ., expected a file."


def test_what_outputs_may_show_of_a_configuration(folder: Path) -> None:
    hide = Pseudonyms(bytes(32))
    given = settings(site="cluster: plant, topic_ids: {kTCEUTZ2SWuTSY9cPQ3Jzw: sensors}")
    real = config.read(given)
    site = config.shown(real, hide).experiments["run1"].sites["edge"]
    assert site.brokers == tuple(sorted(map(hide.endpoint, real.experiments["run1"].sites["edge"].brokers)))
    assert site.cluster == hide.name("cluster", "plant")
    assert site.topic_ids == {hide.name("topic-id", "kTCEUTZ2SWuTSY9cPQ3Jzw"): hide.name("topic", "sensors")}
    names = [capture.name for capture in real.experiments["run1"].sites["edge"].captures]
    assert [capture.name for capture in site.captures] == sorted(map(hide.capture, names))
    assert config.shown(real, AS_THEY_ARE) is real


def test_what_verify_compares(folder: Path) -> None:
    assert [config.read(settings(top=top)).sample for top in ("", "verify: {}", "verify: {sample: 5}", "verify: {sample: all}")] == [
        1000,
        1000,
        5,
        None,
    ]


@pytest.mark.parametrize(
    ("sample", "found"),
    [("0", "the number 0"), ("-1", "the number -1"), ("some", '"some"'), ("1.5", "the number 1.5"), ("null", "nothing")],
)
def test_a_sample_that_cannot_be(folder: Path, sample: str, found: str) -> None:
    assert (
        message(settings(top=f"verify: {{sample: {sample}}}"))
        == f"verify.sample: found {found}, expected a number of packets from 1 on, or all."
    )


KEY_LINES = {
    "TLS 1.2": f"CLIENT_RANDOM {'ab' * 32} {'cd' * 48}",
    "TLS 1.3": f"SERVER_TRAFFIC_SECRET_0 {'AB' * 32} {'CD' * 48}",
    "session": f"RSA Session-ID:{'ab' * 32} Master-Key:{'cd' * 48}",
}


@pytest.mark.parametrize("line", KEY_LINES.values(), ids=KEY_LINES)
def test_a_tls_key_log(folder: Path, line: str) -> None:
    """By the rules of captures' paths; other lines may stand before the first key, and lines may end as on Windows."""
    Path("keys with spaces.log").write_text(f"# comment\r\n\r\nEXPORTER_SECRET x\r\n{line}\r\n")
    found = config.read(settings(site='tls_keylog: "./keys with spaces.log"')).experiments["run1"].sites["edge"].tls_keylog
    assert isinstance(found, config.KeyLogFile)
    assert found.path == "keys with spaces.log"
    assert found.bytes == Path(found.path).stat().st_size


def test_tls_keys_in_the_captures(folder: Path) -> None:
    sites = [config.read(settings(site=site)).experiments["run1"].sites["edge"] for site in ("", "tls_keylog: captures")]
    assert [site.tls_keylog for site in sites] == [None, "captures"]


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (None, "my.keys is not there (no such file or folder). Relative paths start at the working directory, "),
        ("folder", "my.keys cannot be read: Is a directory. Expected a TLS key log."),
        (
            "",
            "my.keys holds no TLS key; expected lines such as CLIENT_RANDOM or CLIENT_TRAFFIC_SECRET_0, each with two long hexadecimal numbers.",
        ),
        ("pipe", "my.keys is not a file. Expected a TLS key log, which is read more than once."),
        (f"CLIENT_RANDOM {'ab' * 31} {'cd' * 48}\n", "my.keys holds no TLS key; expected lines such as CLIENT_RANDOM"),
        ("-----BEGIN PRIVATE KEY-----\nMIIBVwIBADANBgkqhkiG\n", "my.keys holds no TLS key; expected lines such as CLIENT_RANDOM"),
    ],
    ids=["missing", "folder", "empty", "pipe", "malformed", "something else"],
)
def test_a_tls_key_log_that_is_none(folder: Path, made: str | None, said: str) -> None:
    """One error, which shows nothing of what the file holds."""
    if made == "folder":
        Path("my.keys").mkdir()
    elif made == "pipe":
        os.mkfifo("my.keys")
    elif made is not None:
        Path("my.keys").write_text(made)
    whole = message(settings(site="tls_keylog: my.keys"))
    assert whole.startswith(f"experiments.run1.sites.edge.tls_keylog: {said}")
    assert not any(word in whole for word in ("abab", "cdcd", "MIIB"))


def test_the_decoder(folder: Path) -> None:
    assert config.read(settings(site="decoder: wireshark")).experiments["run1"].sites["edge"].decoder == "wireshark"
    assert message(settings(site="decoder: tshark")).endswith('found "tshark", expected native or wireshark.')


def test_the_baseline_is_an_experiment_or_a_condition(folder: Path) -> None:
    assert config.read(settings(experiment="condition: calm", top="baseline: calm")).baseline == "calm"
    assert message(settings(top="baseline: run")) == 'baseline: found "run", expected one of run1. Did you mean run1?'


def test_a_baseline_that_is_an_experiment_and_the_condition_of_others_is_refused(folder: Path) -> None:
    given = settings(experiment="condition: calm", top="baseline: run1")
    given["experiments"]["run2"] = {**given["experiments"]["run1"], "condition": "run1"}
    assert message(given) == (
        "baseline: run1 is an experiment of condition calm, and the condition of other experiments. Rename one of the two."
    )
    del given["experiments"]["run1"]["condition"]  # a run of its own name's condition
    assert config.read(given).baseline == "run1"


def test_events(folder: Path) -> None:
    read = config.read(settings(experiment="events: [{at: 2025-12-26 15:00:00, label: link degraded}]", top='timezone: "-03:00"'))
    assert read.experiments["run1"].events == (config.Event(1_766_772_000_000_000_000, "link degraded"),)
    said = message(settings(experiment="events: [{at: 2025-12-26 15:00:00}]"))
    assert said == "experiments.run1.events[0].label: missing, expected a text of 1 to 200 characters."


# Brokers and topics


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("172.16.208.242", 'The port is missing, as in "172.16.208.242:9092".'),
        ("172.16.208.242:0", "expected a port from 1 to 65535"),
        ("172.16.208.242:65536", "expected a port from 1 to 65535"),
        ("172.16.208:31289", 'expected "ip:port"'),
        ("kafka.example.org:9092", "Captures hold addresses, not host names"),
        ("2001:db8::1:9092", 'An IPv6 address stands in brackets, as in "[2001:db8::1]:9092".'),
        ("[2001:db8::1]", "The port is missing"),
        ("[2001:db8::g]:9092", 'expected "ip:port" or "[ipv6]:port"'),
        ("PLAINTEXT://10.0.0.1:9092", "Leave out everything before the address."),
    ],
)
def test_malformed_brokers(folder: Path, text: str, said: str) -> None:
    given = settings()
    given["experiments"]["run1"]["sites"]["edge"]["brokers"] = ["192.0.2.1:1", text]
    told = message(given)
    assert told.startswith(f'experiments.run1.sites.edge.brokers[1]: found "{text}"')
    assert said in told


def test_brokers_in_their_canonical_form_and_order(folder: Path) -> None:
    given = settings()
    given["experiments"]["run1"]["sites"]["edge"]["brokers"] = ["[2001:DB8:0::1]:09092", "192.0.2.1:1"]
    assert config.read(given).experiments["run1"].sites["edge"].brokers == ("192.0.2.1:1", "[2001:db8::1]:9092")
    given["experiments"]["run1"]["sites"]["edge"]["brokers"] = "192.0.2.1:1"
    assert config.read(given).experiments["run1"].sites["edge"].brokers == ("192.0.2.1:1",)
    given["experiments"]["run1"]["sites"]["edge"]["brokers"] = ["192.0.2.1:1", "192.0.2.1:1"]
    assert message(given) == "experiments.run1.sites.edge.brokers[1]: 192.0.2.1:1 is there twice. Take one out."


def test_topic_ids_in_both_spellings(folder: Path) -> None:
    read = config.read(settings(site='topic_ids: {"AAAAAAAAAAAAAAAAAAAAAQ": a, "00000000-0000-0000-0000-000000000002": b}'))
    assert read.experiments["run1"].sites["edge"].topic_ids == {"AAAAAAAAAAAAAAAAAAAAAQ": "a", "AAAAAAAAAAAAAAAAAAAAAg": "b"}
    assert "expected an id as Kafka prints it" in message(settings(site="topic_ids: {short: a}"))


# Captures


def found(*places: str) -> list[str]:
    return [capture.path for capture in config.find_captures(places, "captures")]


def test_a_folder_stands_for_the_captures_directly_in_it(folder: Path) -> None:
    taken = ["x.pcap", "x.pcap0", "x.pcap12.zst", "x.pcapng", "x.cap", "x.dmp.xz", "x.pcap.gz", "x.pcap.bz2", "X.PCAP"]
    write(*(f"all/{name}" for name in [*taken, "x.txt", "x.pcap.zip", "xpcap", "x.pcap.gz.part", "x.gz", "inner/x.pcap"]))
    assert found("all") == sorted(f"all/{name}" for name in taken)
    assert found("./all//") == found("all")
    assert found(str(folder / "all")) == sorted(str(folder / "all" / name) for name in taken)


def test_what_captures_hold_without_compression_is_told_by_their_names(folder: Path) -> None:
    plain = ["all/a.pcap", "all/gz", "all/x.gz.txt"]
    packed = ["all/b.pcapng.ZST", "all/c.gz", "all/d.tcpdump.xz", "all/e.cap.bz2"]
    write(*plain, *packed)
    (site,) = config.read(settings('captures: "all/*"')).experiments["run1"].sites.values()
    assert {capture.path for capture in site.captures if capture.unpacked == capture.bytes} == set(plain)
    assert {capture.path for capture in site.captures if capture.unpacked == 4 * capture.bytes} == set(packed)
    assert site.unpacked == sum(map(len, plain)) + 4 * sum(map(len, packed))


def test_a_glob_stands_for_exactly_what_it_matches(folder: Path) -> None:
    write("all/one.txt", "all/two.pcap", "all/inner/three", "[odd]/x.pcap")
    assert found("all/*") == ["all/one.txt", "all/two.pcap"]
    assert found("all/**") == ["all/one.txt", "all/inner/three", "all/two.pcap"]
    assert found("all/one.txt") == ["all/one.txt"]
    assert found("[odd]") == ["[odd]/x.pcap"]
    assert found("all/o*", "edge") == ["edge/a.pcap", "edge/b.pcapng.gz", "all/one.txt"]


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("nowhere", "captures: nowhere is not there"),
        ("edge/x.pcap", "captures: edge/x.pcap is not there (edge is)"),
        ("nowhere/*.pcap", "captures: nowhere/*.pcap matches no file."),
        (
            "none",
            "captures: no captures in none. It holds readme.txt and 1 more files, and folders such as deeper, which are not searched.",
        ),
        ("none/d*", "captures: none/d* matches folders only, such as none/deeper."),
    ],
)
def test_places_without_captures(folder: Path, place: str, said: str) -> None:
    write("none/readme.txt", "none/z", "none/deeper/x.pcap")
    with pytest.raises(config.ConfigError) as error:
        found(place)
    assert str(error.value).startswith(said)


def test_a_link_to_nowhere_is_an_error_not_a_missing_capture(folder: Path) -> None:
    os.symlink("gone.pcap", "edge/c.pcap")
    assert message(settings()) == "experiments.run1.sites.edge.captures: edge/c.pcap cannot be read: No such file or directory."


@pytest.mark.parametrize("again", ["edge/a.pcap", "edge/*", "edge/../edge", "linked", "edge/hard.cap"])
def test_a_file_that_a_site_has_twice(folder: Path, again: str) -> None:
    os.symlink("edge", "linked")
    if again.endswith("hard.cap"):
        os.link("edge/a.pcap", again)
    with pytest.raises(config.ConfigError, match=r"edge/a\.pcap.*Take one out|hard\.cap.*Take one out"):
        found("edge", again)


@pytest.mark.parametrize(("place", "pattern"), [("{odd}", "'{odd'"), ("<odd>", "'<odd>'"), ("o\nd", "'\\\\n'"), ("\udcff", "'\\\\udcff'")])
def test_a_path_that_snakemake_would_not_take_literally(folder: Path, place: str, pattern: str) -> None:
    write(f"{place}/x.pcap", "{}<>/y.pcap")
    with pytest.raises(config.ConfigError, match=rf"has {pattern} in it, which Snakemake would not take literally\. Rename it"):
        found(place)
    assert found("{}<>") == ["{}<>/y.pcap"]


def test_the_same_capture_may_serve_two_sites(folder: Path) -> None:
    given = settings()
    given["experiments"]["run1"]["sites"]["cloud"] = given["experiments"]["run1"]["sites"]["edge"]
    assert list(config.read(given).experiments["run1"].sites) == ["edge", "cloud"]


def test_names_are_as_short_as_tells_them_apart(folder: Path) -> None:
    assert config.shown_names(["x/a.pcap", "x/b.pcap"]) == ["a.pcap", "b.pcap"]
    assert config.shown_names(["x/a", "y/a", "y/b"]) == ["x/a", "y/a", "b"]
    assert config.shown_names(["d/x/a", "e/x/a", "e/y/a"]) == ["d/x/a", "e/x/a", "y/a"]
    assert config.shown_names(["a", "x/a"]) == [f"{folder.name}/a", "x/a"]
    assert config.shown_names(["/a", "/x/a"]) == ["/a", "x/a"]


def test_keys_hold_only_what_is_safe_in_paths(folder: Path) -> None:
    assert config.encoded("a_b-c.9.pcap") == "a_b-c.9.pcap"
    assert config.encoded("x/a b,{c}\\~%é") == "x%2Fa%20b%2C%7Bc%7D%5C%7E%25%C3%A9"


@given(
    st.lists(
        st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=80),
        min_size=2,
        max_size=2,
        unique=True,
    )
)
def test_keys_differ_where_names_do(names: list[str]) -> None:
    one, other = (config.encoded(name) for name in names)
    assert one != other
    assert max(len(one), len(other)) <= config.LONGEST_KEY


# The schema


def test_the_schema_is_one_and_says_what_it_expects_everywhere() -> None:
    schema = config.load_schema()
    Draft202012Validator.check_schema(schema)

    def walk(part: dict[str, Any], path: str) -> None:
        for name, inner in part.get("properties", {}).items():
            assert inner.get("description"), f"{path}.{name} has no description"
            assert inner.get("expected"), f"{path}.{name} does not say what it expects"
            walk(inner, f"{path}.{name}")
        for key in ("additionalProperties", "items"):
            if isinstance(part.get(key), dict):
                walk(part[key], f"{path}.{key}")
        assert part.get("type") != "object" or "additionalProperties" in part, f"{path} takes any key"

    walk(schema, "")


def test_the_defaults_fit_the_schema(folder: Path) -> None:
    given = settings()
    config._fill_defaults(given, config.load_schema())
    assert list(Draft202012Validator(config.load_schema()).iter_errors(given)) == []


def test_a_time_beyond_what_nanoseconds_hold(folder: Path) -> None:
    given = settings()
    given["experiments"]["run1"]["window"] = {"end": "9999-12-31 23:59:59"}
    with pytest.raises(config.ConfigError, match=r"experiments\.run1\.window\.end: found .*9999.* leave `start` or `end` out"):
        config.read(given)


def test_not_a_number(folder: Path) -> None:
    with pytest.raises(config.ConfigError, match=r"report\.share_over_ms: found inf, expected a finite number"):
        config.read(settings() | {"report": {"share_over_ms": float("inf")}})
