"""What the pages about capturing say, against the code: the ports of tunnels, the names of keys, metrics and columns, the limit of capture loss."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from brokerlens import config, tables
from brokerlens.capture import layers
from brokerlens.comparisons import pairs

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "capturing.md").read_text(encoding="utf-8")
KUBERNETES = (DOCS / "kubernetes.md").read_text(encoding="utf-8")
METRICS = set(
    re.findall(r"`(\w+)`", "\n".join(re.findall(r"^\| (`[^|]*)\|", (DOCS / "metrics.md").read_text(encoding="utf-8"), re.MULTILINE)))
)
KEYS = {part.removesuffix("[]") for key, _ in config.keys(config.load_schema()) for part in key.split(".")}
REASONS = set(re.findall(r"\w+", next(column.description for column in tables.PATHS if column.name == "clock_reason")))
COLUMNS = {column.name for columns in tables.DATASETS.values() for column in columns}


@pytest.mark.parametrize(("tunnel", "header"), [("VXLAN", layers.VXLAN), ("Geneve", layers.GENEVE)])
def test_ports_of_tunnels(tunnel: str, header: int) -> None:
    named = re.search(rf"opens .*?{tunnel} \((?:UDP ports )?([\d, ]+)\)", KUBERNETES)
    assert named
    opened = {port for kind, ports, follows in layers.LEADS_TO if (kind, follows) == (layers.UDP_PORTS, header) for port in ports}
    assert {int(port) for port in named[1].split(", ")} == opened


@pytest.mark.parametrize("page", [PAGE, (DOCS / "both-ends.md").read_text(encoding="utf-8")], ids=["capturing", "both-ends"])
def test_names(page: str) -> None:
    """Whatever is written with an underscore is a key, a metric, a column or a reason."""
    named = set(re.findall(r"`([a-z]+(?:_[a-z]+)+)(?:: \w+)?`", page))
    assert len(named) >= 5
    assert named - KEYS - METRICS - COLUMNS - REASONS == set()


def test_most_capture_loss() -> None:
    named = re.search(r"lost more than ([\d.]+) % are not compared", PAGE)
    assert named and float(named[1]) == pytest.approx(100 * pairs.MOST_CAPTURE_LOSS)
