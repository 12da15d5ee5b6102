"""config/README.md: the table of keys is the schema's; the examples it shows are accepted."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from brokerlens import config

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "config" / "README.md").read_text(encoding="utf-8")


def test_the_table_of_keys_is_the_schemas() -> None:
    """`make docs` makes it."""
    assert config.documentation(PAGE) == PAGE
    assert PAGE.count("\n| `") > len([*config.keys(config.load_schema())])  # and the table of what runs again


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
