"""The report's figures as files: which there are, how they look, that names do no harm and that they are the same every time."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from report_results import EXAMPLE, SECOND, START, Link, read_tree, write_tree

from brokerlens.report.page import build
from draw_figures import draw_figures
from report import report

ROOT = Path(__file__).resolve().parents[2]
HOSTILE = '../"><script>x</script>&' + "\u202e" + "a very long name " * 12


def drawn(folder: Path, links: list[Link], **settings: Any) -> tuple[dict[str, Any], Path]:
    """The arguments of a report that was written, and the folder of its figures."""
    arguments = write_tree(folder, links, **settings)
    report(**arguments)
    draw_figures(specifications=arguments["specifications"], output=str(folder / "figures"))
    return arguments, folder / "figures"


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """Two sites with a hostile topic, client and event."""
    edge = dataclasses.replace(EXAMPLE[2], client_id=HOSTILE, topic=HOSTILE, seconds=120)
    event = {"experiment": edge.experiment, "at": START + 60 * SECOND, "label": HOSTILE}
    links = [edge, dataclasses.replace(EXAMPLE[3], seconds=120)]
    return drawn(tmp_path_factory.mktemp("drawn"), links, title=HOSTILE, events=[event])


def pixels(png: bytes) -> tuple[int, int]:
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(png[16:20]), int.from_bytes(png[20:24])


def test_every_chart_of_the_page_is_there_by_its_id_in_both_formats(example: tuple[dict[str, Any], Path]) -> None:
    arguments, folder = example
    html = Path(arguments["output"]).read_text(encoding="utf-8")
    charts = re.findall(r'<script type="application/json" id="spec-([^"]+)">', html)
    assert len(charts) > 8
    assert sorted(path.name for path in folder.iterdir()) == sorted(f"{chart}.{kind}" for chart in charts for kind in ("svg", "png"))
    assert {"ecdf.svg", "timeline-experiment08-edge.png", "difference-sites-experiment08-edge-experiment08-cloud.svg"} <= {
        path.name for path in folder.iterdir()
    }


def test_figures_are_light_on_white_of_one_width_and_their_titles_fit(example: tuple[dict[str, Any], Path]) -> None:
    for path in example[1].glob("*.svg"):
        svg = path.read_text(encoding="utf-8")
        root = ET.fromstring(svg)
        assert root.get("width") == "720", path.name
        assert "var(" not in svg
        background = next(root.iter("{http://www.w3.org/2000/svg}rect"))
        assert (background.get("width"), background.get("fill")) == ("720", "#ffffff")
        # Twice the size for print; words are drawn, which a font that is not there would leave out without a word.
        png = path.with_suffix(".png").read_bytes()
        assert pixels(png) == (1440, 2 * int(float(str(root.get("height")))))
        assert len(png) > 10_000
    assert "#2749b0" in (example[1] / "ecdf.svg").read_text(encoding="utf-8")


def test_hostile_names_are_text_in_figures(example: tuple[dict[str, Any], Path]) -> None:
    timeline = (example[1] / "timeline-experiment08-edge.svg").read_text(encoding="utf-8")
    assert "&gt;&lt;script&gt;" in timeline, "the event's label"
    assert not list(ET.fromstring(timeline).iter("{http://www.w3.org/2000/svg}script"))
    assert "\u202e" not in timeline


def test_long_titles_are_broken_into_lines(example: tuple[dict[str, Any], Path]) -> None:
    figure = dataclasses.replace(build(read_tree(example[0])).figures[0], title=HOSTILE, subtitle=HOSTILE)
    title = figure.saved()["title"]
    assert len(title["text"]) == 3
    assert len(title["subtitle"]) == 3


def test_the_same_specifications_give_the_same_bytes_in_another_process_and_time_zone(
    example: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    arguments, folder = example
    call = f"from draw_figures import draw_figures; draw_figures(specifications={arguments['specifications']!r}, output={str(tmp_path)!r})"
    environment = os.environ | {"PYTHONPATH": str(ROOT / "workflow" / "scripts"), "TZ": "Asia/Tokyo", "PYTHONHASHSEED": "7"}
    subprocess.run([sys.executable, "-c", call], env=environment, check=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {path.name: path.read_bytes() for path in folder.iterdir()}


def test_sites_whose_names_differ_in_signs_alone_have_figures_of_their_own(tmp_path: Path) -> None:
    names = ("plant.a", "plant-a", "Plant_a")
    links = [dataclasses.replace(EXAMPLE[3], site=site, client=f"192.0.2.{40 + i}", seconds=60) for i, site in enumerate(names)]
    results = read_tree(write_tree(tmp_path, links))
    ids = [figure.id for figure in build(results).figures]
    assert len({one.lower() for one in ids}) == len(ids)
    assert sum(one.startswith(("timeline-experiment08-plant-a-", "timeline-experiment08-Plant-a-")) for one in ids) == 3
    assert all(re.fullmatch("[A-Za-z0-9-]+", one) for one in ids)


def test_nothing_to_draw_leaves_an_empty_folder(tmp_path: Path) -> None:
    arguments, folder = drawn(tmp_path, [dataclasses.replace(EXAMPLE[2], silent=True)])
    assert json.loads(Path(arguments["specifications"]).read_text(encoding="utf-8")) == {}
    assert list(folder.iterdir()) == []
