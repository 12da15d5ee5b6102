"""One Chromium for all tests of the page; without it they are skipped, with the reason."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "unit"))

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        running = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


@dataclass
class Opened:
    """A page, and what it said on the console or asked of the network."""

    page: Page
    seen: list[str] = field(default_factory=list)


def open_report(browser: Browser, path: Path, *, width: int = 1280, theme: str = "light", javascript: bool = True) -> Opened:
    """The report in a browser far from the experiment's time zone and without a network."""
    context = browser.new_context(
        viewport={"width": width, "height": 800},
        color_scheme="dark" if theme == "dark" else "light",
        timezone_id="Asia/Tokyo",
        offline=True,
        java_script_enabled=javascript,
        accept_downloads=True,
    )
    opened = Opened(context.new_page())
    opened.page.on("console", lambda message: opened.seen.append(message.text))
    opened.page.on("pageerror", lambda error: opened.seen.append(str(error)))
    opened.page.on("request", lambda asked: None if asked.url.startswith(("file:", "data:", "blob:")) else opened.seen.append(asked.url))
    opened.page.goto(path.as_uri())
    if javascript:
        opened.page.wait_for_function("window.__done")
    return opened
