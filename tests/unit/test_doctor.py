"""The doctor's parts: glances at captures of every kind, windows and time zones, the installation, and how findings are shown."""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from capture_files import EXAMPLE_BROKER, Record, block, enhanced, ethernet, interface, ip, pcap, pcapng, section, tcp, zstd

from brokerlens.doctor import captures, forecast, installation, windows
from brokerlens.doctor.captures import Glance, Stretch, chosen, glance
from brokerlens.doctor.findings import Finding, as_text, counted
from brokerlens.errors import inert
from brokerlens.report.zones import Zone
from brokerlens.wireshark import tools
from doctor import doctor

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "workflow" / "scripts"
SHIPPED = ROOT / "resources/example/experiment08/edge/experiment_capture_20251226_171400.pcap"
HOUR = 3_600_000_000_000
NOON = 1_766_750_400_000_000_000  # 2025-12-26 12:00:00 UTC


def record(time: int, port: int = 31289, link: int = 1) -> Record:
    """A packet to the example's broker, or to another port of it."""
    data = ethernet(ip("192.0.2.5", "192.0.2.10", tcp(source=40_000, target=port)))
    return Record(time, data, len(data), link)


def site(**settings: Any) -> dict[str, Any]:
    """A site as the workflow describes it."""
    given = {"experiment": "run1", "site": "edge", "window": {"start": None, "end": None}, "brokers": [EXAMPLE_BROKER]}
    return given | {"decoder": "native", "keys": False, "captures": []} | settings


def with_captures(folder: Path, files: dict[str, bytes], **settings: Any) -> dict[str, Any]:
    """A site of these captures."""
    for name, content in files.items():
        (folder / name).write_bytes(content)
    found = [{"path": str(folder / name), "name": name, "bytes": len(content)} for name, content in files.items()]
    return site(captures=found, **settings)


def told(findings: list[Finding]) -> str:
    return " ".join(as_text(findings).split())


def examined(place: dict[str, Any], timezone: str = "UTC") -> list[Finding]:
    """What is found in a site's captures and window."""
    looks = captures.look_at_site(place, captures.packets_each([place]))
    stretch = captures.stretch_of([look for look in looks if not look.error], len(place["captures"]))
    return [*captures.describe(place, looks, Zone(timezone)), *windows.describe(place, stretch, timezone)]


# Glances


def test_a_small_capture_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(pcap([record(NOON + second * 10**9) for second in range(5)] + [record(NOON + 10**9, port=22)]))
    look = glance(str(tmp_path / "a"), "a", 1, [EXAMPLE_BROKER], 100)
    assert (look.packets, look.kept, look.first, look.last, look.whole) == (6, 5, NOON, NOON + 4 * 10**9, True)
    assert (look.format, look.links, look.error) == ("pcap", (1,), "")


@pytest.mark.parametrize("packed", [bytes, gzip.compress, zstd], ids=["plain", "gzip", "zstd"])
def test_of_a_large_one_only_the_beginning(tmp_path: Path, packed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captures, "LIMIT", 1 << 17)
    content = packed(pcap([record(NOON + number * 10**9) for number in range(10_000)]))
    (tmp_path / "a").write_bytes(content)
    look = glance(str(tmp_path / "a"), "a", len(content), [EXAMPLE_BROKER], 100)
    assert (look.packets, look.kept, look.first, look.whole) == (100, 100, NOON, False)
    if packed is bytes:  # at the pace of its beginning: it is even, so that is when it ends
        assert look.last is not None
        assert abs(look.last - (NOON + 9_999 * 10**9)) < 30 * 10**9
    else:
        assert look.last is None


def test_a_first_block_longer_than_what_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gigabyte of something else before the first packet is not read to find that packet."""
    monkeypatch.setattr(captures, "LIMIT", 1 << 16)
    content = section() + block(0xBAD, bytes(1 << 18)) + interface() + enhanced(NOON, record(NOON).data, 60)
    (tmp_path / "a").write_bytes(content)
    look = glance(str(tmp_path / "a"), "a", len(content), [EXAMPLE_BROKER], 100)
    assert (look.error, look.packets, look.whole) == ("", 0, False)


def broken() -> dict[str, bytes]:
    """Captures that are damaged or none, and sound ones, by what they are."""
    records = [record(NOON + number * 10**6) for number in range(60)]
    sound = {
        "shipped": SHIPPED.read_bytes()[:40_000],
        "pcap": pcap(records),
        "pcapng": pcapng(records),
        "big": pcapng(records, big=True),
        "gzip": gzip.compress(pcap(records)),
        "zstd": zstd(pcap(records)),
        **{path.name: path.read_bytes()[:60_000] for path in (ROOT / "tests/data").rglob("*") if ".pcap" in path.name},
    }
    made = {"empty": b"", "magic": b"\xd4\xc3\xb2\xa2" + bytes(200), "text": b"no capture\n" * 20, "zip": b"PK\x03\x04", "one": b"\xd4"}
    chance = random.Random(20_251_226)
    for name, content in sound.items():
        made |= {name: content, f"{name} cut": content[: len(content) // 2 + 3], f"{name} header": content[:24]}
        for number in range(12):
            flipped = bytearray(content)
            for _ in range(chance.choice((1, 3, 30, 300))):
                flipped[chance.randrange(min(len(flipped), chance.choice((24, 200, 60_000))))] ^= 1 << chance.randrange(8)
            made[f"{name} flipped {number}"] = bytes(flipped)
    return made


GLANCES = """
import json, sys
from pathlib import Path
from brokerlens.doctor.captures import glance
print(json.dumps({path.name: glance(str(path), path.name, path.stat().st_size, [sys.argv[2]], 40) for path in sorted(Path(sys.argv[1]).iterdir())}))
"""


def test_no_broken_capture_ends_it_and_without_the_compiler_it_sees_the_same(tmp_path: Path) -> None:
    """The rule has no compiler (`interpreted`): what is out of bounds or overflows there raises, and compiled code would not say so."""
    files = broken()
    assert len(files) > 150
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    looks = []
    for off in "01":
        environment = os.environ | {"PYTHONPATH": str(SCRIPTS), "NUMBA_DISABLE_JIT": off}
        done = subprocess.run(
            [sys.executable, "-c", GLANCES, str(tmp_path), EXAMPLE_BROKER], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        looks.append(json.loads(done.stdout))
    assert looks[0] == looks[1]
    errors = {name: look[2] for name, look in looks[0].items() if look[2]}
    assert {"empty", "magic", "text", "zip", "one"} <= set(errors)
    assert not [error for error in errors.values() if "reading failed" in error]


def test_first_and_last_are_among_those_looked_at() -> None:
    assert chosen(0) == []
    assert chosen(1) == [0]
    assert chosen(8) == list(range(8))
    assert [len(chosen(count)) for count in (9, 100, 10_000)] == [8, 8, 8]
    assert (chosen(10_000)[0], chosen(10_000)[-1]) == (0, 9_999)


# A site's captures


def test_a_site_whose_captures_are_sound(tmp_path: Path) -> None:
    place = with_captures(tmp_path, {"a.pcap": pcap([record(NOON)]), "b.pcap": pcapng([record(NOON + 10**9)], link=1)})
    said = examined(place, "-03:00")
    assert {finding.level for finding in said} == {"ok"}
    assert "2 captures, 0.0 MB: pcap, pcapng; Ethernet (link type 1), first packet at 2025-12-26 09:00:00 (UTC−03:00)" in told(said)
    assert "2 of all 2 packets are to or from 192.0.2.10:31289" in told(said)


def test_many_captures_are_sampled_and_that_is_said(tmp_path: Path) -> None:
    files = {f"{number:03}.pcap": pcap([record(NOON + number * 10**9)]) for number in range(40)}
    place = with_captures(tmp_path, files)
    said = told(examined(place))
    assert "40 captures" in said
    assert "of which 8 were looked at, evenly spread over their names" in said
    assert "8 of the first 8 packets of 8 captures" in said


def test_brokers_that_no_packet_knows_are_a_problem_only_where_all_was_read(tmp_path: Path) -> None:
    whole = with_captures(tmp_path, {"a.pcap": pcap([record(NOON, port=22)] * 3)})
    (problem,) = [finding for finding in examined(whole) if finding.level == "problem"]
    assert "192.0.2.10:31289: in none of all 3 packets. Busiest TCP endpoints there: 192.0.2.10:22 (3), 192.0.2.5:40000 (3)" in problem.text
    assert "`brokers`" in problem.do
    more = with_captures(tmp_path, {"a.pcap": pcap([record(NOON, port=22)] * 3_000)})
    (note,) = [finding for finding in examined(more) if finding.level == "note"]
    assert "in none of the first 1,000 packets of 1 capture. Busiest" in note.text


def test_faulty_captures_are_named_and_the_rest_is_told_all_the_same(tmp_path: Path) -> None:
    files = {f"{number}.pcap": b"no capture" for number in range(7)} | {"good.pcap": pcap([record(NOON)])}
    said = examined(with_captures(tmp_path, files))
    problems = [finding.text for finding in said if finding.level == "problem"]
    assert len(problems) == captures.SHOWN + 1
    assert "0.pcap: found no capture: it begins with the bytes 6e 6f" in problems[0]
    assert "2 more captures" in problems[-1]
    assert "1 of the first 1 packets of 1 capture are" in told(said)


def test_a_link_type_that_only_wireshark_may_know(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = with_captures(tmp_path, {"a.pcap": pcap([record(NOON)], link=147)})
    monkeypatch.setattr(tools, "installed", lambda: False)
    (note,) = [finding for finding in examined(place) if finding.level == "note" and "link type" in finding.text]
    assert "147" in note.text
    assert "tshark" in note.do


def test_captures_in_a_storage_are_counted_and_not_fetched() -> None:
    place = site(captures=[{"path": f"s3://bucket/{number}.pcap", "name": f"{number}.pcap", "bytes": 10**9} for number in range(3)])
    said = told(examined(place))
    assert "3 captures, 3,000.0 MB in a storage" in said
    assert "not looked into" in said


# Windows


DAY = 24 * HOUR
CAPTURED = Stretch(NOON, NOON + 2 * HOUR, certain=True)


@pytest.mark.parametrize(
    ("moved", "zone", "hint"),
    [
        (-3, "UTC", "-03:00"),  # local times of -03:00, taken for UTC
        (3, "-03:00", "UTC"),  # UTC times, taken for -03:00
        (-6, "+03:00", "-03:00"),  # the sign is wrong
        (5.5, "UTC", "+05:30"),
    ],
)
def test_a_window_in_another_time_zone_is_recognised(moved: float, zone: str, hint: str) -> None:
    """The window, read in `zone`, lies `moved` hours from the captures: as if its times were of `hint`."""
    start = NOON + round(moved * HOUR)
    (finding,) = windows.describe(site(window={"start": start, "end": start + 2 * HOUR}), CAPTURED, zone)
    assert finding.level == "problem"
    assert f'set `timezone` to "{hint}"' in finding.do


def test_a_window_of_another_day_is_no_matter_of_zones() -> None:
    (finding,) = windows.describe(site(window={"start": NOON + 3 * DAY, "end": NOON + 3 * DAY + HOUR}), CAPTURED, "UTC")
    assert finding.level == "problem"
    assert "window 2025-12-29 12:00:00 to 2025-12-29 13:00:00 (UTC) holds none of the captures" in finding.text
    assert "would fit" not in finding.do


@pytest.mark.parametrize(
    "bounds", [(None, None), (NOON, None), (None, NOON + HOUR), (NOON - HOUR, NOON + 3 * HOUR), (NOON + HOUR, NOON + HOUR)]
)
def test_a_window_that_the_captures_hold_is_fine(bounds: tuple[int | None, int | None]) -> None:
    (finding,) = windows.describe(site(window=dict(zip(("start", "end"), bounds, strict=True))), CAPTURED, "-03:00")
    assert finding.level == "ok", finding
    assert "(UTC−03:00)" in finding.text


@pytest.mark.parametrize("bounds", [(NOON + 3 * HOUR, None), (None, NOON - HOUR)])
def test_half_a_window_beside_the_captures(bounds: tuple[int | None, int | None]) -> None:
    (finding,) = windows.describe(site(window=dict(zip(("start", "end"), bounds, strict=True))), CAPTURED, "UTC")
    assert finding.level == "problem", finding


def test_behind_an_end_that_is_only_estimated_a_window_is_no_problem_yet() -> None:
    window = {"start": NOON + 5 * DAY, "end": NOON + 6 * DAY}
    (finding,) = windows.describe(site(window=window), CAPTURED._replace(certain=False), "UTC")
    assert finding.level == "note"
    assert "to about 2025-12-26 14:00:00" in finding.text


def test_the_last_of_some_captures_ends_when_the_next_one_would_begin() -> None:
    looks = [Glance(str(number), 1, first=NOON + number * HOUR) for number in range(3)]
    assert captures.stretch_of(looks, 3) == Stretch(NOON, NOON + 3 * HOUR, certain=False)
    assert captures.stretch_of([Glance("a", 1)], 1) is None


# The machine


def test_versions_beside_the_pins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    installed = {"numba": "1.0", "polars": "2.0"}
    monkeypatch.setattr(installation, "_installed", installed.get)
    (tmp_path / "pins").write_text("numba==1.0\npolars==3.0\nscipy==4.0\n# Checks and tests.\npytest==1\n")
    found = {finding.level: finding for finding in installation.versions(tmp_path / "pins")[1:]}
    assert found["ok"].text == "numba 1.0, as pinned"
    assert "polars 2.0 instead of 3.0" in found["note"].text
    assert found["problem"].text == "not installed: scipy"
    assert "make env" in found["problem"].do
    assert installation.versions(tmp_path / "elsewhere")[1].level == "note"


def test_the_installation_that_runs_this_has_no_problem() -> None:
    found = installation.versions(ROOT / "requirements.in")
    assert not [finding for finding in found if finding.level == "problem"]
    assert "snakemake" in told(found)


def test_tshark_is_asked_for_only_where_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "installed", lambda: False)
    assert installation.wireshark([]).level == "note"
    needed = installation.needs_of([site(), site(site="far", decoder="wireshark", keys=True)])
    assert needed == ["run1/far (decoder: wireshark, tls_keylog)"]
    missing = installation.wireshark(needed)
    assert missing.level == "problem"
    assert "apt-get install tshark" in missing.do


def test_kernels_cold_and_warm(tmp_path: Path) -> None:
    assert installation.kernels(tmp_path).level == "note"
    (tmp_path / "compiled").touch()
    assert installation.kernels(tmp_path).level == "ok"


def test_the_lock_of_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    locks = tmp_path / ".snakemake" / "locks"
    locks.mkdir(parents=True)
    (locks / "0.input.lock").touch()  # the doctor's own: it has no files
    assert [finding.level for finding in installation.folders(tmp_path / "results")] == ["ok", "ok"]
    (locks / "1.output.lock").write_text("results/report/index.html\n")
    found = installation.folders(tmp_path / "results")
    assert [finding.level for finding in found] == ["ok", "problem"]
    assert "--unlock" in found[1].do


def test_time_and_disk_grow_with_the_captures(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    look = Glance("a", 10**9, packets=1000, kept=500, size=500.0)
    small = site(captures=[{"path": "a", "name": "a", "bytes": 10**9}])
    assert forecast.packets_of(small, [look]) == (2e6, 1e6)
    assert forecast.packets_of(small, [look._replace(compressed=True)]) == (8e6, 4e6)
    assert "about 160 MB of disk" in told(forecast.describe([small], [[look]], 2, tmp_path))
    large = site(captures=[{"path": "a", "name": "a", "bytes": 10**13}])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("usage", (), {"free": 10**9}))
    time, disk = forecast.describe([large], [[look]], 2, tmp_path)
    assert "hours" in time.text
    assert "guess" in time.text
    assert disk.level == "problem"


# How it is said


HOSTILE = "a\n\x1b[31mred\x07\u202e\r\ud800<b>{x}"


def test_a_hostile_name_stays_on_its_line_and_tells_the_terminal_nothing() -> None:
    said = as_text([Finding("problem", HOSTILE, HOSTILE * 1000, HOSTILE)])
    assert len(said) < 5_000
    assert all(character == "\n" or character.isprintable() for character in said)
    assert [line[:9].strip() for line in said.splitlines()] == ["problem"] + [""] * (len(said.splitlines()) - 1)
    said.encode()


def test_long_names_keep_their_ends() -> None:
    shown = inert("/data/" + "x" * 10_000 + "/last.pcap")
    assert len(shown) < 310
    assert shown.startswith("/data/x")
    assert shown.endswith("x/last.pcap")


def test_problems_and_notes_are_counted() -> None:
    assert counted([]) == "doctor: no problems, no notes\n"
    assert counted([Finding("problem", "a", "b"), Finding("note", "a", "b"), Finding("note", "a", "b")]) == "doctor: 1 problem, 2 notes\n"


def test_the_whole_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    place = with_captures(tmp_path, {"a.pcap": pcap([record(NOON)]), "b\n.pcap": b"none"}, window={"start": NOON - HOUR, "end": NOON - 1})
    found = doctor(sites=[place], timezone="UTC", requirements=ROOT / "requirements.in", results=tmp_path / "results")
    problems = [finding.text for finding in found if finding.level == "problem"]
    assert len(problems) == 2
    assert not (tmp_path / "results").exists()
