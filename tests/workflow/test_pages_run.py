"""The Python and SQL that the pages show, run where they say: in the folder that holds the results, of the shipped example."""

from __future__ import annotations

import re
import subprocess
import sys

import duckdb
import pytest
from pages import PAGES, blocks
from workbench import Workbench

PYTHON = [(page, number) for page in PAGES for number in range(len(blocks(page, "python")))]
SQL = [page for page in PAGES if page != "docs/queries.md" and blocks(page, "sql")]  # that page's queries: test_queries.py


@pytest.mark.parametrize(("page", "number"), PYTHON)
def test_python(example_run: Workbench, page: str, number: int) -> None:
    shown = blocks(page, "python")[number]
    done = subprocess.run([sys.executable, "-c", shown], cwd=example_run.work, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    if "print(" in shown:
        rows = re.search(r"shape: \((\d+), \d+\)", done.stdout)
        assert rows and int(rows[1]) > 0
        if page == "docs/tutorial.md":
            assert done.stdout.strip() in blocks(page, "text")[2]


@pytest.mark.parametrize("page", SQL)
def test_sql(example_run: Workbench, page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(example_run.work)
    for shown in blocks(page, "sql"):
        assert duckdb.connect().execute(shown).fetchall()


def test_the_tutorial_tells_the_reports_first_sentence(example_run: Workbench) -> None:
    """But for what compares with experiment07, which is not in this run."""
    report = re.sub(
        r"\s+([,.:])",
        r"\1",
        re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", (example_run.work / "results" / "report" / "index.html").read_text())),
    )
    assert "median 48.8 ms against 73.9 ms, 25.1 ms less (95 % interval 24.5 to 25.9)" in report.replace(" )", ")").replace("( ", "(")
