"""Globs of a storage mean what they mean on a disk."""

from __future__ import annotations

import glob
from pathlib import Path

import pytest

from brokerlens.remote import pattern

NAMES = (
    "a.pcap", "b.pcap", ".h.pcap", "^.pcap", "].pcap", "x.pcap", "[.pcap", "-.pcap", "*.pcap", "!.pcap",
    "s/a.pcap", "s/.h.pcap", "s/t/b.pcap", ".d/a.pcap", "s/.d/z.pcap",
)  # fmt: skip
GLOBS = (
    "*.pcap", "?.pcap", "[^x].pcap", "[!x].pcap", "[]x].pcap", "[!]].pcap", "[!]a].pcap", "[z-a].pcap", "[a-b].pcap", "[b-].pcap", "[[]*.pcap",
    "[*].pcap", "[.pcap", "[a.pcap", ".*", "*/*", "*/.h.pcap", "**", "**/*.pcap", "**/.h.pcap", "s/**", "s/**/*", "s/**/b.pcap", "s[!x]a.pcap",
)  # fmt: skip


@pytest.mark.parametrize("place", GLOBS)
def test_a_glob_finds_what_it_finds_on_a_disk(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    on_disk = {name for name in glob.glob(place, recursive=True) if Path(name).is_file()}
    assert {name for name in NAMES if pattern(place).fullmatch(name)} == on_disk
