"""The report in a real browser: drawn, quiet, usable, safe."""

from __future__ import annotations

import dataclasses
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from report_results import EXAMPLE, SECOND, START, write_report

from conftest import Opened, open_report

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

HOSTILE = '"><img src=x onerror="window.hurt=1"><script>window.hurt=1</script>'
FORMULA = '=HYPERLINK("http://example.org")'


@pytest.fixture(scope="module")
def path(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Path:
    links = (*EXAMPLE[:2], dataclasses.replace(EXAMPLE[2], client_id=HOSTILE), dataclasses.replace(EXAMPLE[3], client_id=FORMULA))
    event = {"experiment": "experiment08", "at": START + 60 * SECOND, "label": HOSTILE}
    return write_report(tmp_path_factory.mktemp("report"), links, events=[event])


@pytest.fixture(scope="module")
def opened(browser: Browser, path: Path) -> Iterator[Opened]:
    found = open_report(browser, path)
    yield found
    assert found.seen == []
    found.page.context.close()


@pytest.fixture
def page(opened: Opened) -> Page:
    return opened.page


def test_every_chart_is_drawn_without_a_word_or_a_request(opened: Opened) -> None:
    page = opened.page
    assert page.evaluate("window.drawAll()") == page.locator(".chart[data-spec]").count() > 10
    for chart in page.locator(".chart[data-spec]").all():
        assert chart.locator("svg").count() == 1
        assert chart.locator("svg path[d], svg text").count() > 3
    assert opened.seen == []


def test_lines_are_inside_the_plot(page: Page) -> None:
    """A domain that Vega could not read would put every mark at one place."""
    page.evaluate("window.drawAll()")
    boxes = page.evaluate(
        """() => [...document.querySelectorAll('[id^=timeline-] .chart svg .mark-line path')].map(path => path.getBBox().width)"""
    )
    assert boxes
    assert max(boxes) > 200


def test_axes_have_local_time_and_tooltips_utc(page: Page) -> None:
    page.evaluate("window.drawAll()")
    chart = page.locator("#timeline-experiment08-edge .chart")
    chart.scroll_into_view_if_needed()
    assert "14:16" in chart.inner_text()
    box = chart.locator("svg").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + box["height"] * 0.4)
    page.wait_for_selector("#vg-tooltip-element.visible")
    assert "2025-12-26 17:16:" in page.locator("#vg-tooltip-element").inner_text()
    page.mouse.move(0, 0)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280, 1600])
def test_nothing_overflows(opened: Opened, width: int, theme: str) -> None:
    page = opened.page
    page.set_viewport_size({"width": width, "height": 800})
    page.emulate_media(color_scheme="dark" if theme == "dark" else "light")
    page.evaluate("window.drawAll()")
    page.wait_for_timeout(250)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    wide = """() => [...document.querySelectorAll('.chart[data-spec]')].filter(chart => chart.getClientRects().length)
        .filter(chart => chart.querySelector('svg').getBoundingClientRect().right > chart.getBoundingClientRect().right + 1).length"""
    assert page.evaluate(wide) == 0
    page.set_viewport_size({"width": 1280, "height": 800})


def test_sorting_and_filtering_connections(page: Page) -> None:
    table = page.locator("#connections-table")
    heading = table.locator("th", has_text="RTT p50, ms")

    def trips() -> list[float]:
        return [float(v) for v in table.locator("tbody tr td:nth-child(9)").evaluate_all("cells => cells.map(cell => cell.dataset.v)")]

    heading.locator("button").click()
    assert heading.get_attribute("aria-sort") == "descending"
    assert trips() == sorted(trips(), reverse=True)
    heading.locator("button").click()
    assert trips() == sorted(trips())
    page.fill("[data-filter=connections-table]", "reset by client")
    assert table.locator("tbody tr:visible").count() == 1
    assert page.locator("#connections-table-count").inner_text() == "1 of 12 shown"
    page.fill("[data-filter=connections-table]", "")


def test_a_display_filter_is_copied_or_selected(page: Page) -> None:
    cell = page.locator("#cases-table tbody tr .copied").first
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    cell.locator("[data-copy]").click()
    cell.locator("text=Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == cell.locator("code").text_content()
    page.context.clear_permissions()
    page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error('forbidden')); }")
    cell.locator("[data-copy]").click()
    assert page.evaluate("getSelection().toString()").strip() == cell.locator("code").text_content()


def test_theme_is_chosen_without_a_redraw(page: Page) -> None:
    page.emulate_media(color_scheme="light")

    def colour() -> str:
        return str(page.evaluate("getComputedStyle(document.querySelector('.chart svg .mark-line path')).stroke"))

    light = colour()
    page.click("[data-choose=dark]")
    assert page.get_attribute("[data-choose=dark]", "aria-pressed") == "true"
    assert colour() != light
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(16, 19, 24)"
    page.click("[data-choose=auto]")
    assert colour() == light


def test_charts_are_saved_in_light_colours(page: Page, tmp_path: Path) -> None:
    page.click("[data-choose=dark]")
    card = page.locator("#ecdf")
    saved = {}
    for kind in ("svg", "png", "csv"):
        with page.expect_download() as download:
            card.locator(f"[data-save={kind}]").click()
        assert download.value.suggested_filename == f"ecdf.{kind}"
        saved[kind] = tmp_path / f"ecdf.{kind}"
        download.value.save_as(saved[kind])
    page.click("[data-choose=auto]")
    svg = saved["svg"].read_text(encoding="utf-8")
    assert ET.fromstring(svg).tag.endswith("svg")
    assert "var(" not in svg
    assert "#2749b0" in svg
    assert "requests within" in svg
    assert saved["png"].read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert len(saved["png"].read_bytes()) > 10_000
    csv = saved["csv"].read_bytes().decode("utf-8")
    assert csv.startswith("\ufeffname,ms,share,n\r\n")


def test_a_formula_in_a_csv_is_text(page: Page, tmp_path: Path) -> None:
    page.evaluate(
        """text => { const spec = document.getElementById('spec-ecdf'); const value = JSON.parse(spec.textContent);
        value.datasets.rows = [{name: text, ms: -1}]; spec.dataset.kept = spec.textContent; spec.textContent = JSON.stringify(value); }""",
        FORMULA,
    )
    with page.expect_download() as download:
        page.click("#ecdf [data-save=csv]")
    download.value.save_as(tmp_path / "rows.csv")
    page.evaluate("() => { const spec = document.getElementById('spec-ecdf'); spec.textContent = spec.dataset.kept; }")
    assert (tmp_path / "rows.csv").read_bytes().decode("utf-8-sig") == 'name,ms\r\n"\'=HYPERLINK(""http://example.org"")",-1\r\n'


def test_a_chart_s_data_as_a_table(page: Page) -> None:
    button = page.locator("#parts-all [data-table]")
    button.click()
    assert button.get_attribute("aria-expanded") == "true"
    assert page.locator("#parts-all .data tbody tr").count() >= 8
    button.click()
    assert page.locator("#parts-all .data").count() == 0


def test_hostile_names_are_shown_as_text(page: Page) -> None:
    page.evaluate("window.drawAll()")
    assert page.evaluate("document.images.length") == 0
    assert page.evaluate("window.hurt") is None
    assert HOSTILE in page.locator("#connections-table").inner_text()
    assert "<img src=x" in page.locator("#timeline-experiment08-edge .chart").inner_html().replace("&lt;", "<")
    assert page.locator("#timeline-experiment08-edge .chart img").count() == 0


def test_printing_uses_the_paper_and_light_colours(page: Page) -> None:
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    assert page.locator("nav").is_hidden()
    assert page.evaluate("document.documentElement.dataset.theme") == "light"
    page.emulate_media(media="screen")
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate("document.documentElement.dataset.theme") is None


def test_without_javascript_answers_tables_and_small_pictures_stay(browser: Browser, path: Path) -> None:
    opened = open_report(browser, path, javascript=False)
    assert opened.page.locator("#headline svg").count() >= 12
    assert "is faster in the middle" in opened.page.locator(".answers").inner_text()
    opened.page.context.close()


def test_a_page_full_of_states_is_quiet(browser: Browser, tmp_path: Path) -> None:
    late = (START + 3600 * SECOND, START + 7200 * SECOND)
    links = [
        EXAMPLE[2],
        dataclasses.replace(EXAMPLE[2], site="silent", silent=True),
        dataclasses.replace(EXAMPLE[2], site="late", window=late),
        dataclasses.replace(EXAMPLE[2], site="tls", encrypted=True),
        dataclasses.replace(EXAMPLE[2], site="few", per_second=0.5),
    ]
    opened = open_report(browser, write_report(tmp_path, links), width=360)
    opened.page.keyboard.press("Tab")
    assert opened.page.evaluate("document.activeElement.textContent") == "Skip to the summary"
    opened.page.evaluate("window.drawAll()")
    assert opened.seen == []
    assert opened.page.evaluate("document.documentElement.scrollWidth") == 360
    assert opened.page.locator(".state").count() >= 3
    opened.page.context.close()


def test_fifty_sites_draw_a_heat_map_and_show_the_worst_dozen(browser: Browser, fifty_sites: Path) -> None:
    opened = open_report(browser, fifty_sites)
    page = opened.page
    page.evaluate("window.drawAll()")
    assert page.locator("#headline tbody tr:visible").count() == 12
    page.click("[data-show-all=headline]")
    assert page.locator("#headline tbody tr:visible").count() == 50
    clients = page.locator("#clients-by-id-table tbody:visible")
    assert clients.count() == 12
    page.click("[data-show-all=clients-by-id-table]")
    assert clients.count() == 50
    assert page.locator("[id^=timeline-] .chart svg .mark-rect path").count() > 500
    page.locator("#ecdf .chart").scroll_into_view_if_needed()
    box = page.locator("#ecdf .chart svg").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + box["height"] * 0.5)
    page.wait_for_selector("#vg-tooltip-element.visible")
    assert opened.seen == []
    page.context.close()
