"""config/README.md: every key of the schema, no other, with its default; the examples it shows are accepted."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from brokerlens import config

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "config" / "README.md").read_text(encoding="utf-8")


def keys(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Every key that a user can write, with its default, as the page spells it; maps with fixed keys only by what is in them."""
    for name, part in schema.get("properties", {}).items():
        here = f"{path}.{name}".lstrip(".")
        inner = part.get("additionalProperties")
        if not (part.get("properties") or (isinstance(inner, dict) and inner.get("properties"))):
            yield here, part.get("default")
        yield from keys(part, here)
        if isinstance(inner, dict) and inner.get("properties"):
            yield f"{here}.NAME", None
            yield from keys(inner, f"{here}.NAME")
        if part.get("items", {}).get("properties"):
            yield from keys(part["items"], f"{here}[]")


def rows() -> dict[str, str]:
    """Default column by key of the table "Every key"."""
    table = PAGE.split("## Every key")[1].split("\n## ")[0]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line.startswith("| `")]
    return {key: row[1] for row in cells for key in re.findall(r"`([^`]+)`", row[0])}


def test_the_page_has_every_key_and_no_other() -> None:
    assert sorted(rows()) == sorted(key for key, _ in keys(config.load_schema()))


def test_the_page_says_the_defaults() -> None:
    said = rows()
    for key, default in keys(config.load_schema()):
        if default not in (None, [], {}):
            text = str(default).lower() if isinstance(default, bool) else str(default)
            assert said[key] == f"`{text}`", key


def test_the_least_configuration_on_the_page_is_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shown = yaml.safe_load(PAGE.split("```yaml")[1].split("```")[0])
    for site in shown["experiments"]["experiment08"]["sites"].values():
        folder = tmp_path / site["captures"]
        folder.mkdir(parents=True)
        (folder / "a.pcap").touch()
    assert list(config.read(shown).experiments["experiment08"].sites) == ["edge", "cloud"]


def test_the_shipped_configuration_runs_the_shipped_example(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    read = config.read(yaml.safe_load((ROOT / "config" / "config.yaml").read_text()))
    assert {
        (name, site): len(settings.captures) for name, experiment in read.experiments.items() for site, settings in experiment.sites.items()
    } == {(experiment, site): 9 for experiment in ("experiment07", "experiment08") for site in ("cloud", "edge")}
