"""All pages: links to files and headings, the site's navigation, what their configurations, commands and tables name. Their Python and SQL run in tests/workflow/test_pages_run.py."""

from __future__ import annotations

import re
import shlex
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from pages import PAGES, blocks, text
from snakemake.cli import get_argument_parser
from workbench import ROOT

from brokerlens import config

INDEX = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
RULES = set(
    re.findall(
        r"^rule (\w+):", "\n".join(path.read_text() for path in [ROOT / "Snakefile", *ROOT.glob("workflow/rules/*.smk")]), re.MULTILINE
    )
)


def prose(page: str) -> str:
    """A page without its blocks and without code in its lines."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```$", "", text(page), flags=re.MULTILINE | re.DOTALL))


@cache
def anchors(page: str) -> set[str]:
    """Of all headings, as GitHub and the site make them: lower case, spaces to hyphens, punctuation gone."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", text(page), flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    plain = (re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"https?://", link):
            continue
        file, _, anchor = link.partition("#")
        target = (ROOT / page).parent / file if file else ROOT / page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target.resolve().relative_to(ROOT).as_posix()), link


def test_the_site_has_every_page_of_the_docs_in_one_of_its_kinds() -> None:
    """The list that people read and the navigation that Sphinx reads are one."""
    kinds = re.findall(r"^## (.+?)\n(.*?)(?=^## |^```|\Z)", INDEX, re.MULTILINE | re.DOTALL)
    listed = {kind: re.findall(r"\]\(([^)]+)\.md\)", body) for kind, body in kinds}
    trees = re.findall(r"^```\{toctree\}\n:hidden:\n:caption: (.+?)\n\n(.*?)^```$", INDEX, re.MULTILINE | re.DOTALL)
    navigation = {kind: [re.sub(r".*<(.+)>", r"\1", line) for line in body.splitlines() if line] for kind, body in trees}
    navigation["Learn"].remove("../README")  # named above the list
    assert listed == navigation
    assert list(listed) == ["Learn", "How to", "Look up", "Understand", "Carry on"]
    shown = [page for pages in listed.values() for page in pages]
    assert sorted(page for page in shown if not page.startswith("..")) == sorted(
        path.stem for path in ROOT.glob("docs/*.md") if path.stem != "index"
    )


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "yaml")])
def test_configurations_are_by_the_schema(page: str) -> None:
    schema = config.load_schema()
    least = {"sites": {"edge": {"captures": "a", "brokers": ["192.0.2.1:9092"]}}}
    for block in blocks(page, "yaml"):
        shown: Any = yaml.safe_load(block)
        shown = shown.get("brokerlens", shown)  # another workflow's, which uses this one as a module
        shown = {"experiments": {"run1": shown}} if "sites" in shown else shown  # an experiment's part
        jsonschema.validate({"experiments": {"run1": least}} | shown, schema)


@cache
def options() -> set[str]:
    """Every option of Snakemake's."""
    return {option for action in get_argument_parser()._actions for option in action.option_strings}


def commands(page: str) -> list[list[str]]:
    """The commands of a page, in its shell blocks and in its lines, as words without comments."""
    shell = [line for block in blocks(page, "sh") for line in block.replace("\\\n", " ").splitlines()]
    inline = re.findall(r"`((?:make|snakemake|\.venv/bin/\w+) [^`]+)`", text(page))
    split = [shlex.split(line, comments=True) for line in [*shell, *inline]]
    return [words for words in split if words]


@pytest.mark.parametrize("page", PAGES)
def test_commands_name_what_there_is(page: str) -> None:
    """Make's targets and variables, Snakemake's targets and options, our own scripts."""
    for words in commands(page):
        match words:
            case ["make", *rest] if rest:
                for word in rest:
                    name, given, _ = word.partition("=")
                    assert re.search(
                        rf"^{re.escape(name)} \?=|\$\({name}\)" if given else rf"^{re.escape(name)}:", MAKEFILE, re.MULTILINE
                    ), words
            case [program, *rest] if program.split("/")[-1] == "snakemake":
                named = [word.split("=")[0] for word in rest if re.match(r"--?[a-z]", word)]
                slurm = {option for option in named if option.startswith(("--slurm-", "--storage-"))}  # plugins'
                assert set(named) - slurm - options() == set(), words
                if rest and re.fullmatch(r"[a-z_]+", rest[0]):
                    assert rest[0] in RULES, words
            case [program, script, *_] if program.endswith("python") and script.endswith(".py"):
                assert (ROOT / script).is_file(), words


def test_the_page_of_commands_has_all_targets_and_no_other() -> None:
    page = text("docs/commands.md")
    phony = set(re.findall(r"^\.PHONY: (.+)$", MAKEFILE, re.MULTILINE)[0].split())
    assert set(re.findall(r"`make ([a-z-]+)`", page)) == phony
    named = re.findall(r"^\| `(\w+)`(?:, or none)? \|", page.split("| option")[0], re.MULTILINE)
    without_output = {rule for rule in RULES if "\n    output:" not in body_of(rule)}
    assert set(named) == without_output


def body_of(rule: str) -> str:
    """A rule as it is written."""
    files = [ROOT / "Snakefile", *ROOT.glob("workflow/rules/*.smk")]
    return next(
        found[1] for file in files if (found := re.search(rf"^rule {rule}:\n(.*?)(?=^\S|\Z)", file.read_text(), re.MULTILINE | re.DOTALL))
    )


def test_the_site_builds_without_a_warning_and_fetches_nothing(tmp_path: Path) -> None:
    sphinx = ROOT / ".venv" / "docs" / "bin" / "sphinx-build"
    if not sphinx.exists():
        pytest.skip("no Sphinx here: make env-docs")
    command = [
        str(sphinx),
        "--quiet",
        "--fail-on-warning",
        "--keep-going",
        "-d",
        str(tmp_path / "doctrees"),
        "-c",
        "docs",
        ".",
        str(tmp_path / "site"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pages = [*tmp_path.glob("site/**/*.html")]
    assert len(pages) > 25
    fetched = [
        tag
        for page in pages
        for tag in re.findall(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=\"(?:https?:)?//[^>]+>", page.read_text())
    ]
    assert fetched == []
