"""The pages of the documentation, and the code that they show."""

from __future__ import annotations

import re
from functools import cache

from workbench import ROOT

PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/*.md", "config/*.md", "benchmarks/*.md", "results/README.md", "tests/data/*/*.md")
    for path in ROOT.glob(pattern)
)


@cache
def text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    """The code blocks of a page that are in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text(page), re.MULTILINE | re.DOTALL)
